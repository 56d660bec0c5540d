"""`sft curate review start`: serve where there is no server, push, open the browser, wait for people, pull."""

import os
import sys
import time
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.render import console, number, print_json, progress, say
from schemas.errors import ConfigError, ReviewError
from schemas.review_config import PullConfig, PushConfig, ServeConfig

if TYPE_CHECKING:
    from curate.review.client import Review, Server

POLL_S = 2.0
"""Seconds between two looks at how far people are."""
PATIENCE_S = 60.0
"""Seconds for which a server that does not answer is asked again."""


@dataclass(frozen=True)
class Where:
    """Which Argilla: a named one, or the store's own with its folder; and the dataset's name there."""

    dataset: str
    workspace: str
    url: str | None
    home: Path


def start_review(
    ref: str,
    store: Path,
    where: Where,
    push: PushConfig,
    serve: ServeConfig,
    *,
    asks_for_overlap: bool,
    browse: bool,
    message: str | None,
    json: bool,
) -> None:
    """Let people review rows of a version, from the server to the new version.

    It ends when all records are complete, or at Ctrl-C: what was submitted by then is brought back in both cases.
    `asks_for_overlap`: the number of responses for a row was typed; otherwise one person suffices who is alone.
    """
    from cli.curate import committed, tell
    from cli.pulled import show_pulled
    from cli.pushed import pushed_json, show_pushed
    from curate.review.pull import pull
    from curate.review.push import prepare
    from curate.review.push import push as pushed_to
    from curate.store import Store
    from schemas.dataset import open_dataset

    dataset = open_dataset(ref, store)
    with _server(where, serve, json=json) as (server, alone):
        if alone and not asks_for_overlap:
            push = push.model_copy(update={"min_submitted": 1})
        prepared = prepare(dataset, push)
        with progress(quiet=json) as started:
            sent = pushed_to(server, where.dataset, prepared, started("sending", len(prepared.rows)))
        if not json:
            show_pushed(prepared, sent)
        review = server.find(where.dataset)
        assert review is not None  # noqa: S101 # it was just pushed to
        if alone and not asks_for_overlap and review.min_submitted == 1:
            say("one person reviews, so that one response decides (--reviewers alice,bob for more)")
        if browse and _can_show():
            webbrowser.open(sent.url)
        where_to = f"review at {sent.url}; " if json else ""  # else it is printed already
        _wait(review, where_to, quiet=json)
        dataset = open_dataset(ref, store)  # others may have gone on meanwhile
        place = Store(dataset.root)
        latest = place.latest(dataset.manifest.name)
        with progress(quiet=json) as started:
            fetched = started("fetching", review.total()["total"])
            done = pull(place, dataset, review, PullConfig(), message=message, progress=fetched, latest=latest)
    if json:
        print_json(
            {"dataset": where.dataset, **pushed_json(prepared, sent), **done.to_json(), **committed(done.commit)}
        )
        return
    show_pulled(done, PullConfig().rubber_stamp)
    tell(done.commit)


@contextmanager
def _server(where: Where, serve: ServeConfig, *, json: bool) -> "Generator[tuple[Server, bool]]":
    """Give the server that is named or runs, else one of our own for as long as this takes.

    With it: whether nobody but one person reviews there, as far as is known.
    """
    from cli.review import check_reviewers, end_on_sigterm, server_progress, show_server
    from curate.review.connection import URL_VARIABLE, connect_for
    from curate.review.server.process import find, start

    if named := where.url or os.environ.get(URL_VARIABLE):
        if serve.reviewers or serve.port:
            option = "--reviewers" if serve.reviewers else "--port"
            raise ConfigError(option, f"together with the Argilla at {named}", "it where the server is the store's own")
        yield connect_for(where.home, where.url, where.workspace), False
        return
    end_on_sigterm()
    running = find(where.home)
    if running is not None:
        check_reviewers(running, serve)
        if not json:
            show_server(running, json=False)
        yield connect_for(where.home, None, where.workspace), len(running.secrets.reviewers) < 2
        return
    with server_progress(quiet=json) as heard:
        own = start(where.home, serve, tell=heard)
    with own:
        if not json:
            show_server(own, json=False)
        yield connect_for(where.home, None, where.workspace), len(own.secrets.reviewers) < 2
    say(f"the server has stopped; sft curate review serve starts it again, all that was reviewed is in {where.home}")


def _can_show() -> bool:
    """Whether there is a screen: a browser in the terminal would take our place."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _count(review: "Review") -> dict[str, int]:
    """Count the records; a server that does not answer is asked again for a minute, for people may be at work."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return review.total()
        except ReviewError as error:
            if time.monotonic() > deadline:
                remedy = "what was submitted is there; sft curate review pull brings it back when the server answers"
                raise ReviewError(error.where, error.found, error.expected, remedy) from error
        time.sleep(POLL_S)


def _wait(review: "Review", where_to: str, *, quiet: bool) -> None:
    """Wait until all records are complete, or for Ctrl-C; show how many are."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("reviewed"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
        TimeElapsedColumn(),
    )
    on_terminal = sys.stderr.isatty() and not quiet
    told = -1
    try:
        say(f"{where_to}Ctrl-C ends the review, and what was submitted by then is brought back")
        with Progress(*columns, console=console(stderr=True), disable=not on_terminal, transient=True) as bar:
            task = bar.add_task("reviewed")
            while True:
                count = _count(review)
                bar.update(task, completed=count["completed"], total=count["total"])
                if not (on_terminal or quiet) and count["completed"] != told:
                    told = count["completed"]
                    say(f"{number(told)} of {number(count['total'])} records are complete")
                if count["completed"] >= count["total"]:
                    return
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        say("bringing back what was submitted so far")
