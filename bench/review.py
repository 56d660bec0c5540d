"""Human review at size: the embedded Argilla with many records, and eight reviewers at a time.

Run: python -m bench.review [RECORDS]

50,000 records by default: some minutes, 300 MB of disk, and the server's private environment. Records are written
into the database directly; everything that is measured goes through HTTP, as a browser asks. "CPU" is what the server's
process used: on a machine that does other things too, it says more than the clock.
"""

import json
import os
import random
import secrets
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from bench.rows import generated
from curate.review.server.process import Server, start
from schemas.review_config import ServeConfig
from tests.curate.review.server.crowd import Crowd, call, client, listed, new_dataset, pending, stored

REVIEWERS = tuple(f"reviewer{number}" for number in range(8))
SUBMISSIONS, BEFORE_KILL = 2_000, (100, 400)
REPEATS = 9
TOPICS, OFTEN, USUAL = 500, 0.2, 0.95
"""Words planted in prompts: one of so many, and two others with these probabilities."""
INSERT_RECORD = """INSERT INTO records
    (id, fields, metadata, external_id, dataset_id, status, inserted_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_SUGGESTION = """INSERT INTO suggestions
    (id, value, score, agent, type, record_id, question_id, inserted_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
SOURCES = ("alpaca", "dolly", "openorca")


def main(records: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with serve(home) as server, client(server.url, server.owner.api_key) as owner:
            workspace = call(owner, "GET", "me/workspaces")["items"][0]["id"]
            dataset = new_dataset(owner, workspace, "large", min_submitted=len(REVIEWERS))
            seconds = fill(home, dataset, records)
            print(f"{records:,} records written to the database in {seconds:.0f} s\n")
            searches(server, dataset)
            shared = new_dataset(owner, workspace, "shared", min_submitted=len(REVIEWERS))
            fill(home, shared, SUBMISSIONS // len(REVIEWERS))
            submissions(server, owner, shared)
            killed = new_dataset(owner, workspace, "killed", min_submitted=len(REVIEWERS))
            fill(home, killed, BEFORE_KILL[1] // len(REVIEWERS) + 10)
            crowd = kill(server, owner, killed)
        with serve(home) as server, client(server.url, server.owner.api_key) as owner:
            after_kill(server, owner, killed, crowd)


def serve(home: Path) -> Server:
    begun = time.perf_counter()
    server = start(home, ServeConfig(reviewers=REVIEWERS))
    print(f"server ready in {time.perf_counter() - begun:.1f} s")
    return server


def fill(home: Path, dataset: str, records: int) -> float:
    """Write records and a suggestion each, as the server would, with ids that are drawn. Return the seconds."""
    begun = time.perf_counter()
    draw = random.Random(dataset)  # rows are drawn by seed, for nobody to guess
    with sqlite3.connect(home / "argilla.db", timeout=60) as db:
        (question,) = db.execute("SELECT id FROM questions WHERE dataset_id = ?", (UUID(dataset).hex,)).fetchone()
        moment = datetime(2026, 1, 1)
        rows: list[tuple[Any, ...]] = []
        suggestions: list[tuple[Any, ...]] = []
        for frame in generated(records):
            for messages in frame["messages"].to_list():
                moment += timedelta(milliseconds=1)
                chat = [{"role": m["role"], "content": m["content"]} for m in messages]
                key, now = f"{draw.getrandbits(128):032x}", moment.isoformat(" ", "microseconds")
                metadata = {"source": draw.choice(SOURCES), "score": round(draw.random(), 4)}
                said = ("often",) * (draw.random() < OFTEN) + ("usual",) * (draw.random() < USUAL)
                planted = " ".join((f"topic{draw.randrange(TOPICS)}", *said))
                fields = {"prompt": f"{chat[0]['content']} {planted}", "chat": chat}
                rows.append(
                    (
                        key,
                        json.dumps(fields),
                        json.dumps(metadata),
                        str(len(rows)),
                        UUID(dataset).hex,
                        "pending",
                        now,
                        now,
                    )
                )
                score, rating = str(metadata["score"]), str(draw.randint(0, 5))
                suggestions.append(
                    (f"{draw.getrandbits(128):032x}", rating, score, "sft", "model", key, question, now, now)
                )
        db.executemany(INSERT_RECORD, rows)
        db.executemany(INSERT_SUGGESTION, suggestions)
    db.close()
    return time.perf_counter() - begun


def searches(server: Server, dataset: str) -> None:
    with client(server.url, server.secrets.reviewers[0].api_key) as api:

        def page(**query: Any) -> Callable[[], Any]:
            return lambda: pending(api, dataset, **query)["total"]

        score = {"entity": "metadata", "metadata_property": "score"}
        source = {"entity": "metadata", "metadata_property": "source"}
        suggested = {"entity": "suggestion", "question": "rating", "property": "value"}
        asked: dict[str, Callable[[], Any]] = {
            "pending list, first page": page(),
            "pending list, page 1,000": page(offset=10_000),
            "a word": page(query={"text": {"q": "topic7"}}),
            "a frequent word": page(query={"text": {"q": "often"}}),
            "a phrase": page(query={"text": {"q": '"topic7 often"'}}),
            "a word and not another": page(query={"text": {"q": "topic7 -often"}}),
            "a word of nearly every record": page(query={"text": {"q": "usual"}}),
            "property, one of its terms": page(filters=[{"type": "terms", "scope": source, "values": ["dolly"]}]),
            "property, a range": page(filters=[{"type": "range", "scope": score, "ge": 0.2, "le": 0.4}]),
            "suggestion, a value": page(filters=[{"type": "terms", "scope": suggested, "values": ["3"]}]),
            "sorted by a property": page(sort=[{"scope": score, "order": "desc"}]),
            "the user's progress": lambda: call(api, "GET", f"me/datasets/{dataset}/metrics")["responses"]["pending"],
        }
        print("| what is asked for | found | ms, median | ms, slowest | CPU, ms |")
        print("|---|---|---|---|---|")
        for name, ask in asked.items():
            found, taken, used = ask(), list[float](), cpu_seconds(server.address.pid)
            for _ in range(REPEATS):
                begun = time.perf_counter()
                ask()
                taken.append(1000 * (time.perf_counter() - begun))
            cpu = 1000 * (cpu_seconds(server.address.pid) - used) / REPEATS
            print(f"| {name} | {found:,} | {statistics.median(taken):.0f} | {max(taken):.0f} | {cpu:.0f} |", flush=True)


def cpu_seconds(pid: int) -> float:
    """Return what a process has used, all its threads together (Linux)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def keys(server: Server) -> dict[str, str]:
    return {account.username: account.api_key for account in server.secrets.reviewers}


def names(owner: httpx.Client) -> dict[str, str]:
    return {user["id"]: user["username"] for user in call(owner, "GET", "users")["items"]}


def submissions(server: Server, owner: httpx.Client, dataset: str) -> None:
    crowd = Crowd(server.url, keys(server))
    begun = time.perf_counter()
    for thread in crowd.review(dataset, [record["id"] for record in listed(owner, dataset)]):
        thread.join()
    took = time.perf_counter() - begun
    lost = crowd.acknowledged.items() - stored(owner, dataset, names(owner)).items()
    progress = call(owner, "GET", f"datasets/{dataset}/progress")
    times = sorted(1000 * s for s in crowd.seconds)
    print(f"\n{len(crowd.acknowledged):,} submissions of {len(REVIEWERS)} reviewers at once in {took:.0f} s", end=": ")
    print(f"median {statistics.median(times):.0f} ms, 99 of 100 below {times[len(times) * 99 // 100]:.0f} ms")
    print(f"errors {len(crowd.errors)}, lost {len(lost)}", end="; ")
    print(f"progress: {progress['completed']} of {progress['total']} completed")


def kill(server: Server, owner: httpx.Client, dataset: str) -> Crowd:
    crowd = Crowd(server.url, keys(server))
    threads = crowd.review(dataset, [record["id"] for record in listed(owner, dataset)])
    enough = secrets.choice(range(*BEFORE_KILL))
    while len(crowd.acknowledged) < enough and any(thread.is_alive() for thread in threads):
        time.sleep(0.001)
    os.kill(server.address.pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    return crowd


def after_kill(server: Server, owner: httpx.Client, dataset: str, crowd: Crowd) -> None:
    lost = crowd.acknowledged.items() - stored(owner, dataset, names(owner)).items()
    print(f"killed after {len(crowd.acknowledged):,} acknowledged submissions: lost {len(lost)}")
    rest = Crowd(server.url, keys(server), acknowledged=dict(crowd.acknowledged))
    for thread in rest.review(dataset, [record["id"] for record in listed(owner, dataset)]):
        thread.join()
    progress = call(owner, "GET", f"datasets/{dataset}/progress")
    print(
        f"gone on with: errors {len(rest.errors)}; progress: {progress['completed']} of {progress['total']} completed"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
