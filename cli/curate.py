"""`sft curate`: from raw files to a curated version."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.clusters import guarded, show_preview
from cli.funnel import by_source, funnel, reasons
from cli.licence import EXAMPLE as LICENCE
from cli.licence import licence
from cli.options import (
    DEFAULT_STORE,
    C,
    ConfigFileOption,
    JsonOption,
    MessageOption,
    RefArgument,
    StoreOption,
    build,
    config_options,
    read_settings,
)
from cli.render import next_commands, number, out, print_json, progress, say
from cli.restore import EXAMPLE as RESTORE
from cli.restore import restore
from cli.review import app as review
from schemas.config import (
    Config,
    DecontaminateConfig,
    DedupConfig,
    Format,
    IngestConfig,
    NormalizeConfig,
    PiiConfig,
    RulesConfig,
    ScoreConfig,
    SelectConfig,
    SignalsConfig,
    SplitConfig,
)
from schemas.errors import ConfigError
from schemas.train_config import TrainConfig

if TYPE_CHECKING:
    from curate.pipeline import Makers
    from curate.version import Commit
    from schemas.dataset import Dataset

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


app.add_typer(review, name="review", short_help="Let people decide about rows, in Argilla.")


@app.callback()
def root() -> None:
    """Ingest raw files, run stages, make versions."""


@app.command(
    short_help="Read files as rows of a source.",
    epilog="Example: sft curate ingest alpaca alpaca_data.json --name mix --license CC-BY-NC-4.0",
)
@config_options(IngestConfig)
def ingest(
    format: Annotated[
        Format, typer.Argument(metavar="FORMAT", help="alpaca, dolly, openorca, sharegpt, openai or auto.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files (.json .jsonl .parquet .csv .arrow, also .gz .zst), globs, hf://datasets/ paths, - for stdin.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Dataset that the rows go to; made on first use.")],
    given: dict[str, Any],
    replace: Annotated[
        bool, typer.Option("--replace", help="Exchange the rows of a source that is there already.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to a source that is there already.")] = False,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Read files as rows of a source and commit a version. No row is lost: what cannot be read is a rejected row."""
    from curate.sources import add_source
    from curate.store import Store

    if replace and append:
        raise ConfigError("options", "--replace and --append exclude each other", "one of them")
    config = build(IngestConfig, given, where="ingest")
    existing = "replace" if replace else "append" if append else "refuse"
    with progress(quiet=json) as started:
        added = add_source(
            Store(store), name, inputs, format, config, existing=existing, message=message, started=started
        )
    found, commit = added.ingested, added.commit
    if json:
        rejected = {"rows": found.rows, "rejected": found.rejected, "notes": list(found.notes), "format": found.format}
        print_json({"source": found.source.name, **rejected, **committed(commit)})
        return
    for note in found.notes:
        say(note)
    kept = found.rows - sum(found.rejected.values())
    out(f"source {found.source.name}: {number(found.rows)} rows read as {found.format}, {number(kept)} kept")
    reasons(found.rejected)
    tell(commit)
    next_commands(f"sft curate run recipes/default.toml --name {name}", store=store)


app.command(short_help="State a source's licence or terms anew.", epilog=f"Example: {LICENCE}")(licence)
app.command(short_help="Keep rows after all, by name.", epilog=f"Example: {RESTORE}")(restore)


def _stage_command(name: str, model: type[Config], line: str, example: str) -> Callable[[Callable[..., None]], None]:
    """Make the command of one stage: its options are the fields of its configuration."""

    def register(described: Callable[..., None]) -> None:
        @config_options(model)
        def command(
            ref: RefArgument,
            given: dict[str, Any],
            config: ConfigFileOption = None,
            store: StoreOption = DEFAULT_STORE,
            message: MessageOption = None,
            json: JsonOption = False,
        ) -> None:
            run_stage_command(name, model, ref, given, config, store, message, json=json)

        command.__doc__ = described.__doc__
        app.command(name, short_help=line, epilog=f"Example: {example}")(command)

    return register


@_stage_command(
    "normalize", NormalizeConfig, "Make the text uniform; every edit is logged.", "sft curate normalize mix --no-nfc"
)
def normalize() -> None:
    """Make the text uniform: Unicode NFC, line ends, control characters, blanks, roles, empty prompts, wrappers."""


@app.command(
    short_help="Mend rows, reject what is unfit, flag what is doubtful.",
    epilog="Example: sft curate rules mix --disable rule:placeholder_response",
)
@config_options(RulesConfig)
def rules(
    given: dict[str, Any],
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="NAME (latest), NAME@7, NAME@tag, or a manifest's path.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the rules and stop.")] = False,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="RULE", help="Show all about one rule, with examples, and stop.")
    ] = None,
    config: ConfigFileOption = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Judge rows by rules: some mend the text, some reject, others flag a row that is kept."""
    if list_ or explain:
        from cli import rules as shown

        settings = _settings("rules", RulesConfig, given, config)
        if explain:
            shown.explain(explain, settings, json=json)
        else:
            shown.show_list(settings, json=json)
        return
    if ref is None:
        raise typer.BadParameter("name a version, or --list, or --explain RULE", param_hint="REF")
    run_stage_command("rules", RulesConfig, ref, given, config, store, message, json=json)


@_stage_command(
    "pii",
    PiiConfig,
    "Find personal data and secrets; report, redact or reject.",
    "sft curate pii mix --action redact --allow '/.*@company\\.com/'",
)
def pii() -> None:
    """Find e-mail addresses, phone, card and account numbers, IP addresses, keys and tokens; all is shown masked."""


@_stage_command(
    "signals", SignalsConfig, "Measure every row; a heuristic quality from 0 to 1.", "sft curate signals mix"
)
def signals() -> None:
    """Measure every row cheaply, and give it a heuristic quality from 0 to 1. Rejects nothing."""


@app.command(
    short_help="Leave out exact and near duplicates; name their match.",
    epilog="Example: sft curate dedup mix --threshold 0.9 --source-priority dolly",
)
@config_options(DedupConfig)
def dedup(
    ref: RefArgument,
    given: dict[str, Any],
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what would go, side by side with what stays; commit nothing.")
    ] = False,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Clusters, and pairs of each kind, that --preview shows.")
    ] = 3,
    config: ConfigFileOption = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Reject rows that say what a kept row says already; the same prompt with another answer is kept as a conflict."""
    if preview:
        _preview(ref, given, samples, config, store, json=json)
    else:
        from curate.dedup.guard import check_rows
        from schemas.dataset import open_dataset

        check_rows(open_dataset(ref, store))
        run_stage_command("dedup", DedupConfig, ref, given, config, store, message, json=json)


@app.command(
    short_help="Leave out rows that hold items of evaluation sets.",
    epilog="Example: sft curate decontaminate mix --eval my_eval.jsonl --allow allowed.txt",
)
@config_options(DecontaminateConfig)
def decontaminate(
    ref: RefArgument,
    given: dict[str, Any],
    config: ConfigFileOption = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Reject rows that hold an item of an evaluation set, whole or with words changed, and show what was found."""
    if not _settings("decontaminate", DecontaminateConfig, given, config).eval:
        raise ConfigError("--eval", "not given", "a file, a glob, an hf://datasets/ path or a preset such as gsm8k")
    run_stage_command("decontaminate", DecontaminateConfig, ref, given, config, store, message, json=json)


@app.command(
    short_help="Show what would be trained, row by row and source by source.",
    epilog="Example: sft curate audit mix --tokenizer tiny",
)
def audit(
    ref: RefArgument,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="T", help="A tokenizer's folder, a hub id, or tiny.")
    ],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=8, help="Tokens that a packed row holds; longer rows are not used.")
    ] = TrainConfig.model_fields["max_tokens"].default,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Refused rows to name; --json names all of them.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Render, tokenise and mask every kept row as a run would, and count what is learnt and what is lost."""
    from cli.audit import audit as audited

    audited(ref, tokenizer, max_tokens, store, rows=rows, json=json)


def _preview(ref: str, given: dict[str, Any], samples: int, file: Path | None, root: Path, *, json: bool) -> None:
    from curate.dedup.preview import preview
    from schemas.dataset import open_dataset

    settings = _settings("dedup", DedupConfig, given, file)
    dataset = open_dataset(ref, root)
    with progress(quiet=json) as started:
        found = preview(dataset, settings, started("preview", dataset.rows), clusters=samples, samples=samples)
    if json:
        print_json({"committed": False, **found.to_json()})
        return
    show_preview(found)
    typed = [word for name, value in given.items() for word in _typed(name, value)]
    typed += ["--config", str(file)] if file else []
    next_commands(shlex.join(["sft", "curate", "dedup", ref, *typed]), store=root)


def _typed(name: str, value: Any) -> list[str]:
    """Give an option as it is typed; one that takes several values is typed once for each."""
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (f"--{name.replace('_', '-')}", str(one))]


@app.command(
    short_help="Score every text: language model, judge, embeddings, reviews.",
    epilog="Example: sft curate score mix --difficulty tiny --weights quality=1,ifd=1",
)
@config_options(ScoreConfig)
def score(
    ref: RefArgument,
    given: dict[str, Any],
    config: ConfigFileOption = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Score the kept rows by a language model, a judge, embeddings or what reviews teach, and weigh columns into one
    score from 0 to 1.

    A text is scored once: what a scorer has said is kept, also when the command is interrupted; what was learnt from
    reviews costs little, and scores all rows anew. Rejects nothing, unless --semantic-action says so.
    """
    from cli.score import makers, report

    run_stage_command("score", ScoreConfig, ref, given, config, store, message, json=json, makers=makers, report=report)


@_stage_command(
    "select",
    SelectConfig,
    "Keep the best rows within a budget; draw, mix and weigh sources.",
    "sft curate select mix --tokens 5M --quota task:coding=0.2",
)
def select() -> None:
    """Keep the best of the kept rows: a share, a number, or a budget of tokens; with quotas, samples and weights."""


@_stage_command(
    "split",
    SplitConfig,
    "Divide rows into train, val and test without a leak.",
    "sft curate split mix --train 0.9 --val 0.05 --test 0.05",
)
def split() -> None:
    """Divide rows into train, val and test by near-duplicate cluster. Rows never move when data is added."""


@app.command(
    short_help="Run a recipe: sources, all stages, one version.",
    epilog="Example: sft curate run recipes/default.toml --name mix",
)
def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.toml", help="The dataset, its sources, and a table for each stage.")
    ],
    name: Annotated[str | None, typer.Option("--name", help="Dataset to work on, in place of the recipe's.")] = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """Run a whole pipeline and commit one version. An interrupted run goes on where it stopped."""
    from cli.score import makers
    from curate.pipeline import read_recipe, run_recipe
    from curate.store import Store
    from curate.summary import summarise
    from schemas.dataset import Dataset

    settings = read_recipe(recipe)
    with guarded(store, json=json), progress(quiet=json) as started:
        done = run_recipe(
            Store(store),
            settings,
            name=name,
            base=recipe.parent,
            message=message,
            started=started,
            makers=makers(settings.score),
        )
    manifest = done.commit.manifest
    if json:
        stages = {r.entry.name: {"seconds": r.entry.seconds, "cached": r.cached} for r in done.results}
        print_json({"stages": stages, "notes": done.notes, **committed(done.commit)})
        return
    for note in done.notes:
        say(note)
    funnel(manifest)
    by_source(summarise(Dataset(manifest, store)).by_source)
    tell(done.commit)
    next_commands(
        f"sft show {manifest.name}",
        f"sft why {manifest.name} SOURCE:ROW",
        f"sft train --manifest {manifest.name} --model tiny --out runs/first",
        store=store,
    )


def run_stage_command(
    name: str,
    model: type[Config],
    ref: str,
    given: dict[str, Any],
    file: Path | None,
    root: Path,
    message: str | None,
    *,
    json: bool,
    makers: "Callable[[Any], Makers] | None" = None,
    report: "Callable[[Dataset, bool], dict[str, Any]] | None" = None,
) -> None:
    """Run one stage on a version, commit, and tell what happened.

    `makers` gives from the settings what makes the stage, where it needs more than `curate`; `report` shows the version
    that came out (not when told to be quiet) and gives the same as plain values.
    """
    from curate.pipeline import apply_stage
    from curate.store import Store
    from schemas.dataset import Dataset, open_dataset

    settings = _settings(name, model, given, file)
    dataset = open_dataset(ref, root)
    place = Store(dataset.root)
    pinned = "@" in ref or ref.endswith(".json")
    latest = place.latest(dataset.manifest.name) if pinned else None
    with guarded(dataset.root, json=json), progress(quiet=json) as started:
        result, commit = apply_stage(
            place,
            dataset,
            name,
            settings,
            message=message,
            progress=started(name, dataset.rows),
            latest=latest,
            makers=makers(settings) if makers else {},
        )
    count = next(c for c in commit.manifest.counts if c.stage == name)
    made = Dataset(commit.manifest, dataset.root)
    if json:
        shown = report(made, json) if report else {}
        told = {"notes": list(result.notes), "seconds": result.entry.seconds, **shown}
        print_json({**count.model_dump(), **told, **committed(commit)})
        return
    for note in result.notes:
        say(note)
    edited = f", {number(count.edited)} edited" if count.edited else ""
    out(f"{name}: {number(count.entered)} rows in, {number(count.kept)} kept{edited}")
    reasons(count.rejected)
    if report:
        report(made, json)
    tell(commit)
    if commit.is_new and latest and latest.seq != dataset.manifest.seq:
        say(f"made from {ref}: what {latest.name}@{latest.seq} has besides is not in it")
    if stale := made.stale():
        say(f"stale now, as they read what this stage changed: {', '.join(stale)} (run them again, or sft curate run)")


def _settings(name: str, model: type[C], given: dict[str, Any], file: Path | None) -> C:
    read = read_settings(file, name) if file else {}
    return build(model, {**read, **given}, where=f"curate {name}{f', {file}' if file else ''}")


def committed(commit: "Commit") -> dict[str, Any]:
    """Give what became of a commit as plain values."""
    m = commit.manifest
    return {"committed": commit.is_new, "name": m.name, "seq": m.seq, "id": m.id, "semver": m.semver}


def tell(commit: "Commit") -> None:
    """Print what became of a commit."""
    m = commit.manifest
    if commit.is_new:
        out(f"committed {m.name}@{m.seq}, version {m.semver}, id {m.id[:12]}", style="bold")
    else:
        out(f"nothing has changed: {m.name}@{m.seq} stays the latest version, nothing was committed")
