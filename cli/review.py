"""`sft curate review`: people decide about rows, in Argilla."""

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import (
    DEFAULT_STORE,
    JsonOption,
    MessageOption,
    RefArgument,
    StoreOption,
    build,
    config_options,
    was_typed,
)
from cli.render import console, next_commands, print_json, progress, say, table
from curate.review.connection import WORKSPACE
from schemas.errors import ConfigError, ReviewError
from schemas.review_config import AnswerConfig, PullConfig, PushConfig, ServeConfig

if TYPE_CHECKING:
    from curate.review.client import Review
    from curate.review.client import Server as ReviewServer
    from curate.review.server.process import Found, Server

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Dataset in Argilla; by default named as the dataset here.")
]
WorkspaceOption = Annotated[str, typer.Option("--workspace", help="Workspace in Argilla.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="Argilla to use; its key: ARGILLA_API_KEY. [default: ARGILLA_API_URL, or the store's own]"
    ),
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of the store's own Argilla; by default `review` in the store.")
]


OptionalRefArgument = Annotated[
    str | None, typer.Argument(metavar="REF", help="NAME (latest), NAME@7, NAME@tag, or a manifest's path.")
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="Folder of a finished training run, to compare its model's answers."),
]


@app.callback()
def root() -> None:
    """Let people review rows in Argilla, and bring back what they decide."""


@app.command(
    short_help="Run an Argilla server here, without Docker.",
    epilog="Example: sft curate review serve --reviewers alice,bob",
)
@config_options(ServeConfig)
def serve(given: dict[str, Any], store: StoreOption = DEFAULT_STORE, json: JsonOption = False) -> None:
    """Run an Argilla server on this machine until Ctrl-C. What is in it stays, and the next start finds it.

    The first start installs argilla-server, 580 MB, into a private environment in the user's cache, or in SFT_CACHE.
    """
    from curate.review.server.process import USUAL_PORT, find, start

    config = build(ServeConfig, given, where="curate review serve")
    home = config.home or store / "review"
    if (running := find(home)) is not None:
        check_reviewers(running, config)
        show_server(running, json=json)
        say("it was running already, and goes on")
        return
    end_on_sigterm()
    with server_progress(quiet=json) as tell:
        server = start(home, config, tell=tell)
    with suppress(KeyboardInterrupt), server:
        show_server(server, json=json)
        if config.port is None and server.address.port != USUAL_PORT:
            say(f"port {USUAL_PORT} is taken by another program, so it listens on {server.address.port}")
        if not json:
            where = f" --home {quote(str(config.home))}" if config.home else ""
            next_commands(f"sft curate review push REF{where}", store=store)
        say("Ctrl-C stops it")
        server.wait()
    say(f"stopped; all that was reviewed stays in {home}, and the next start finds it")


@app.command(
    short_help="Choose rows and send them to reviewers.",
    epilog="Example: sft curate review push mix --select borderline --n 100 --dry-run",
)
@config_options(AnswerConfig, "answers")
@config_options(PushConfig)
def push(
    context: typer.Context,
    given: dict[str, Any],
    answers: dict[str, Any],
    ref: OptionalRefArgument = None,
    run: RunOption = None,
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    url: UrlOption = None,
    home: HomeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; no server is needed, and nothing is sent.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Choose rows that people should see, and send them to Argilla. A row is sent once, however often it is chosen.

    A row that was edited since is sent anew, and its old record goes, or is marked where people have answered it.
    With --run a model's answers are sent, beside those of its base model and the dataset, in blind order; the options
    from --new-tokens on are for it, and --n is 100.
    """
    if run is not None:
        from cli.compare import Place, push_run

        push_run(
            one_of(ref, run),
            build(PushConfig, given, where="curate review push"),
            build(AnswerConfig, answers, where="curate review push --run"),
            Place(dataset, workspace, url, home),
            typed=given,
            store=store,
            own_store=was_typed(context, "store"),
            dry_run=dry_run,
            json=json,
        )
        return
    ref = one_of(ref, run)
    if answers:
        option = next(iter(answers)).replace("_", "-")
        raise ConfigError(f"--{option}", "without --run", "it is about a model's answers")
    from cli.pushed import planned_json, pushed_json, show_planned, show_pushed
    from curate.review.connection import connect_for
    from curate.review.push import prepare
    from curate.review.push import push as pushed_to
    from schemas.dataset import open_dataset

    config = build(PushConfig, given, where="curate review push")
    opened = open_dataset(ref, store)
    name = dataset or opened.manifest.name
    if dry_run:
        prepared = prepare(opened, config)
        cards = prepared.own_cards()
        if json:
            print_json(planned_json(prepared, cards))
        else:
            show_planned(prepared, cards)
        return
    server = connect_for(home or store / "review", url, workspace)
    prepared = prepare(opened, config)
    with progress(quiet=json) as started:
        done = pushed_to(server, name, prepared, started("sending", len(prepared.rows)))
    if json:
        print_json({"dataset": name, "workspace": workspace, **pushed_json(prepared, done)})
        return
    show_pushed(prepared, done)
    where = f" --workspace {workspace}" if workspace != WORKSPACE else ""
    where += f" --url {url}" if url else ""
    where += f" --home {home}" if home else ""
    own = f" --dataset {name}" if dataset else ""
    next_commands(
        f"sft curate review status {name}{where}",
        f"sft curate review pull {opened.manifest.name}{own}{where}",
        store=store,
    )


@app.command(
    short_help="Bring decisions and corrections back as a version.",
    epilog="Example: sft curate review pull mix",
)
@config_options(PullConfig)
def pull(
    context: typer.Context,
    given: dict[str, Any],
    ref: OptionalRefArgument = None,
    run: RunOption = None,
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    url: UrlOption = None,
    home: HomeOption = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Bring back what reviewers submitted: verdicts by majority, corrections as edits, agreement; one new version.

    Drafts and discards do not count. What was said about a text that was edited since is listed and not applied.
    With --run it brings back comparisons of a model's answers: wins, ties and losses, kept with the run.
    """
    if run is not None:
        from cli.compare import Place, pull_run

        where = Place(dataset, workspace, url, home)
        config = build(PullConfig, given, where="curate review pull --run")
        pull_run(one_of(ref, run), config, where, store=store, own_store=was_typed(context, "store"), json=json)
        return
    ref = one_of(ref, run)
    from cli.curate import committed, tell
    from cli.pulled import show_pulled
    from curate.review.pull import pull as pulled_from
    from curate.store import Store
    from schemas.dataset import open_dataset

    config = build(PullConfig, given, where="curate review pull")
    opened = open_dataset(ref, store)
    name = opened.manifest.name
    place = Store(opened.root)
    pinned = "@" in ref or ref.endswith(".json")
    latest = place.latest(name) if pinned else None
    review = opened_review(dataset or name, home or store / "review", url, workspace)
    with progress(quiet=json) as started:
        fetched = started("fetching", review.total()["total"])
        done = pulled_from(place, opened, review, config, message=message, progress=fetched, latest=latest)
    if json:
        print_json({**done.to_json(), **committed(done.commit)})
        return
    show_pulled(done, config.rubber_stamp)
    tell(done.commit)
    seq = done.commit.manifest.seq
    if done.commit.is_new:
        next_commands(f"sft diff {name}@{opened.manifest.seq} {name}@{seq}", f"sft show {name}", store=store)
    elif not done.tally.responses:
        say("nobody has submitted anything yet: sft curate review status tells how far people are")


@app.command(
    short_help="Show how far reviewers are.",
    epilog="Example: sft curate review status mix",
)
def status(
    dataset: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Dataset in Argilla; by default all of the workspace.")
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    url: UrlOption = None,
    home: HomeOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Show what each reviewer has done, how far they agree, how long a record takes them, and what is left."""
    from cli.pulled import show_progress
    from curate.review.connection import connect_for
    from curate.review.progress import progress_of
    from curate.review.pull import asks_for_verdicts, fetch

    server = connect_for(home or store / "review", url, workspace)
    told: dict[str, Any] = {}
    for name in [dataset] if dataset else server.names():
        review = found_review(server, name)
        if dataset is None and not asks_for_verdicts(review):
            continue
        found = progress_of(fetch(review), review.min_submitted, review.members())
        told[name] = {"url": review.url, **found.to_json()}
        if not json:
            show_progress(name, review.url, found)
    if json:
        print_json(told)
    elif not told:
        say(f"workspace {workspace!r} has no review of rows; push one with sft curate review push")


@app.command(
    short_help="Do it all: serve, push, wait for people, pull.",
    epilog="Example: sft curate review start mix --n 50 --reviewers alice,bob",
)
@config_options(ServeConfig, "serving", without=("home", "workspace"))
@config_options(PushConfig)
def start(
    ref: RefArgument,
    given: dict[str, Any],
    serving: dict[str, Any],
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    url: UrlOption = None,
    home: HomeOption = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page where people review.")] = True,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Start Argilla where none is named or runs, send rows, open the browser, wait for people, bring back decisions.

    It ends when every row has its responses, or at Ctrl-C; what was submitted by then is brought back in both cases.
    """
    from cli.review_start import Where, start_review
    from schemas.dataset import open_dataset

    place = home or store / "review"
    start_review(
        ref,
        store,
        Where(dataset or open_dataset(ref, store).manifest.name, workspace, url, place),
        build(PushConfig, given, where="curate review start"),
        build(ServeConfig, {**serving, "home": place, "workspace": workspace}, where="curate review start"),
        asks_for_overlap="min_submitted" in given,
        browse=browser,
        message=message,
        json=json,
    )


def one_of(ref: str | None, run: str | None) -> str:
    """Give the version or the run, of which exactly one is named. Raises ConfigError."""
    if (named := ref or run) is None:
        raise ConfigError("REF", "not given", "a version of a dataset, or --run and the folder of a training run")
    if ref and run:
        raise ConfigError("--run", f"together with REF {ref}", "one of the two: a run names its dataset itself")
    return named


def opened_review(name: str, home: Path, url: str | None, workspace: str) -> "Review":
    """Connect, and open a dataset in Argilla; raises ReviewError that names those there are."""
    from curate.review.connection import connect_for

    return found_review(connect_for(home, url, workspace), name)


def found_review(server: "ReviewServer", name: str) -> "Review":
    """Open a dataset in Argilla; raises ReviewError that names those there are."""
    review = server.find(name)
    if review is None:
        where = f"dataset {name!r} in workspace {server.workspace!r} of {server.url}"
        there = ", ".join(server.names())
        expected = f"one of {there}" if there else "one that was pushed"
        remedy = "push it first with sft curate review push, or name another with --dataset"
        raise ReviewError(where, "not there", expected, remedy)
    return review


@contextmanager
def server_progress(*, quiet: bool = False) -> Generator[Callable[[str, int, int], None]]:
    """Show how far a server's start is: a bar on a terminal, else a line for each thing that is done.

    Gives `tell(what, done, total)`; a total of 0 is one that nobody knows.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), disable=hidden, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for before in tasks.values():
                    bars.update(before, visible=False)
                tasks[what] = bars.add_task(what, total=total or None, count="")
                if hidden and not quiet:
                    say(f"{what} ({total})" if total else what)
            bars.update(tasks[what], completed=done, count=f"{done} of {total}" if total else "")

        yield tell


def check_reviewers(running: "Found", config: ServeConfig) -> None:
    """Raise ReviewError where a server that runs lacks reviewers: it makes accounts when it starts."""
    known = {account.username for account in running.secrets.accounts}
    if missing := [name for name in config.reviewers if name not in known]:
        remedy = f"stop it (Ctrl-C where it runs, or kill {running.address.pid}) and serve again with --reviewers"
        raise ReviewError(f"review server {running.url}", f"runs already, without {', '.join(missing)}", "", remedy)


def show_server(server: "Server | Found", *, json: bool) -> None:
    """Show where a server runs and who may log in with what."""
    accounts = server.secrets.accounts
    if json:
        users = [{**vars(account)} for account in accounts]
        print_json({"url": server.url, "pid": server.address.pid, "home": str(server.home.folder), "users": users})
        sys.stdout.flush()  # whoever started us reads it while we go on
        return
    table(
        f"Argilla runs at {server.url}",
        ["user", "role", "password"],
        [(account.username, account.role, account.password) for account in accounts],
    )
    say(f"passwords and API keys are in {server.home.secrets_file}, for you alone to read")


def end_on_sigterm() -> None:
    """Let `kill` end a server as Ctrl-C does: in order."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
