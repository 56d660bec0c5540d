"""`sft push-to-hub`: a version as a dataset repository of the Hugging Face hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_STORE, JsonOption, RefArgument, StoreOption
from cli.render import number, out, print_json, say, table

if TYPE_CHECKING:
    from curate.publish.layout import Published

app = typer.Typer(rich_markup_mode=None)


@app.command(name="push-to-hub", epilog="Example: sft push-to-hub mix acme/support-chats --private --dry-run")
def push_to_hub(
    ref: RefArgument,
    repo: Annotated[str, typer.Argument(metavar="REPO_ID", help="Dataset repository, OWNER/NAME; made if not there.")],
    about: Annotated[
        Path | None,
        typer.Option("--about", help="TOML file with what its publisher says of it; see docs/publishing.md."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private; refuse one that is public.")
    ] = False,
    unlicensed: Annotated[
        bool, typer.Option("--unlicensed", help="Make rows public for which no licence is stated, too.")
    ] = False,
    revision: Annotated[str, typer.Option("--revision", help="Branch to commit to; made if there is none.")] = "main",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pushed; connect to nothing.")] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Push the kept rows of a version to the Hugging Face hub, with a card, in one commit.

    The token is taken from HF_TOKEN or from the login that `hf auth login` keeps. A version that is there already is
    not pushed again; files of an earlier version that this one does not have are removed.
    """
    from curate.publish.hub import check_licences, dataset_repo, page_of, push
    from curate.publish.layout import publish
    from schemas.about import read_about
    from schemas.dataset import open_dataset

    name = dataset_repo(repo)
    told = read_about(about) if about else None
    with TemporaryDirectory(prefix="sft-push-") as temporary:
        folder = Path(temporary) / "dataset"
        made = publish(open_dataset(ref, store), folder, about=told, page=page_of(name), revision=revision)
        check_licences(made.facts, private=private, unlicensed=unlicensed)
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in made.files}
        if not json:
            _tell(made, files, name, revision, private=private)
        if dry_run:
            done = None
        else:
            facts = made.facts
            done = push(folder, facts, name, private=private, unlicensed=unlicensed, revision=revision, message=message)
    if json:
        print_json(
            {
                "repo": name,
                "revision": revision,
                "pushed": done is not None,
                "url": done.url if done else None,
                "commit": done.commit if done else None,
                "changed": done.changed if done else None,
                "removed": list(done.removed) if done else [],
                "version": made.facts.version,
                "rows": made.rows,
                "files": files,
                "notices": [*made.notices, *(done.remarks if done else ())],
            }
        )
    elif done is None:
        out("nothing was pushed (--dry-run)")
    elif done.changed:
        out(f"pushed to {done.url}, commit {done.commit[:12]}", style="bold")
        for remark in done.remarks:
            say(remark)
    else:
        out(f"{done.url} holds this version already: nothing to commit")


def _tell(made: "Published", files: dict[str, int], repo: str, revision: str, *, private: bool) -> None:
    """Say what is pushed, before it is."""
    facts = made.facts
    m = facts.manifest
    who = "private if new" if private else "public if new"
    out(f"{m.name}@{m.seq} ({facts.version}) -> {repo}, branch {revision}, {who}", style="bold")
    table("Files", ["file", "bytes"], [(file, number(size)) for file, size in files.items()])
    out(f"{number(made.rows)} rows; licence {facts.licence.expression or 'not stated for all of them'}")
    if facts.personal:
        kinds = ", ".join(f"{kind} in {number(n)}" for kind, n in facts.personal.items())
        out(f"rows that hold personal data or secrets: {kinds} (see sft curate pii --action redact)")
    for notice in made.notices:
        say(notice)
