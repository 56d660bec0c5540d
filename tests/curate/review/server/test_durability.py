"""Several reviewers at a time, and a server that is killed among them: what was acknowledged is there."""

import os
import random
import secrets
import signal
import time
from pathlib import Path

import httpx
import pytest

from curate.review.server.environment import UnreachableIndexError
from curate.review.server.process import Server, start
from schemas.review_config import ServeConfig
from tests.curate.review.server.crowd import Crowd, call, client, new_dataset, stored

REVIEWERS = tuple(f"reviewer{number}" for number in range(8))
RECORDS = 25  # 200 submissions


def serve(home: Path) -> Server:
    try:
        return start(home, ServeConfig(reviewers=REVIEWERS))
    except UnreachableIndexError as error:
        pytest.skip(str(error))


def filled(api: httpx.Client) -> tuple[str, list[str]]:
    """Make a dataset whose records are complete when all have answered. Return its id and theirs."""
    workspace = call(api, "GET", "me/workspaces")["items"][0]["id"]
    dataset = new_dataset(api, workspace, f"d-{secrets.token_hex(4)}", min_submitted=len(REVIEWERS))
    items = [{"fields": {"prompt": f"number {number}"}} for number in range(RECORDS)]
    made = call(api, "POST", f"datasets/{dataset}/records/bulk", {"items": items})
    return dataset, [record["id"] for record in made["items"]]


def keys(server: Server) -> dict[str, str]:
    return {account.username: account.api_key for account in server.secrets.reviewers}


def names(api: httpx.Client) -> dict[str, str]:
    return {user["id"]: user["username"] for user in call(api, "GET", "users")["items"]}


def test_eight_reviewers_at_once_and_a_server_killed_among_them_lose_nothing(tmp_path: Path) -> None:
    """Every acknowledged response is there after SIGKILL; the rest is answered then, and progress is exact."""
    enough = random.randint(20, RECORDS * len(REVIEWERS) - 60)
    with serve(tmp_path) as server, client(server.url, server.owner.api_key) as api:
        dataset, records = filled(api)
        before = Crowd(server.url, keys(server))
        threads = before.review(dataset, records)
        while len(before.acknowledged) < enough and any(thread.is_alive() for thread in threads):
            time.sleep(random.uniform(0, 0.01))
        os.kill(server.address.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert enough <= len(before.acknowledged) < RECORDS * len(REVIEWERS), before.errors

    with serve(tmp_path) as server, client(server.url, server.owner.api_key) as api:
        there = stored(api, dataset, names(api))
        assert before.acknowledged.items() <= there.items(), f"killed after {enough}"
        after = Crowd(server.url, keys(server), acknowledged=dict(before.acknowledged))
        for thread in after.review(dataset, records):
            thread.join()
        assert after.errors == []
        assert stored(api, dataset, names(api)) == after.acknowledged
        assert len(after.acknowledged) == RECORDS * len(REVIEWERS)
        progress = call(api, "GET", f"datasets/{dataset}/progress")
        assert (progress["total"], progress["completed"], progress["pending"]) == (RECORDS, RECORDS, 0)
        assert {user["username"] for user in progress["users"]} == set(REVIEWERS)
        for key in keys(server).values():
            with client(server.url, key) as mine:
                metrics = call(mine, "GET", f"me/datasets/{dataset}/metrics")["responses"]
            assert (metrics["submitted"], metrics["pending"]) == (RECORDS, 0)
