"""`sft report`: what a training run came to, as a verdict, a table and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.life import visible
from cli.options import DEFAULT_STORE, JsonOption, StoreOption, was_typed
from cli.page import check_page, write_page
from cli.render import number, out, paragraph, print_json, say, table
from schemas.errors import ConfigError, SftError

if TYPE_CHECKING:
    from curate.samples import SampleRow
    from schemas.dataset import Dataset
    from schemas.run_files import RunFiles
    from train.verdict.finding import Finding

app = typer.Typer(rich_markup_mode=None)

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


@app.command(epilog="Example: sft report runs/first")
def report(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run; it may still go on, or have been ended.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Where the page goes; by default RUN/report.html.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Say what a training run came to: over-fitting, under-fitting, instability, forgetting, with evidence and advice.

    Everything is read from the run's folder, and the texts of its records from the store. The page is one file that
    asks for nothing from elsewhere. docs/run-report.md has the rules.
    """
    if html is not None:
        check_page(html)
    made = make_report(run, html, store if was_typed(context, "store") else None, quiet=json)
    if json:
        print_json(made.to_json())
    else:
        tell(made)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was made: of what, the verdict, and where the page is."""

    run: "RunFiles"
    findings: "tuple[Finding, ...]"
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Give the verdict and the figures."""
        from curate.report.run_figures import source_lines, summary
        from train.verdict.verdict import kinds, to_json

        return {
            "run": str(self.run.path),
            "verdict": kinds(self.findings),
            **to_json(self.findings),
            "summary": summary(self.run),
            "by_source": {
                line.source: {"records": line.records, "val_loss": [line.before, line.after]}
                for line in source_lines(self.run)
            },
            "problems": list(self.run.problems),
            "page": str(self.page),
        }


def make_report(folder: Path, html: Path | None = None, store: Path | None = None, *, quiet: bool = False) -> Report:
    """Judge a run and write its page, and its verdict.json where the page goes into its folder.

    `store`: where the texts of its records are looked for; by default where the run found them. Without them the page
    has none, and says so. Raises ConfigError where there is no run, or no page can be written.
    """
    from curate.report.run import named_records, run_page
    from schemas.run_files import read_run
    from train.verdict.verdict import judge, judge_folder, to_json

    try:
        begun = any((folder / name).is_file() for name in ("run.json", "metrics.jsonl"))
    except OSError as error:  # a name too long, or a folder of somebody else
        raise ConfigError(f"run {folder}", error.strerror or str(error), "a folder that can be read") from error
    if not begun:
        raise ConfigError(f"run {folder}", "no run in this folder", "the folder of a run", "see --out of sft train")
    page = html or folder / "report.html"
    check_page(page)
    run = read_run(folder)
    if html is None:
        try:
            findings = judge_folder(folder)
        except OSError as error:
            raise ConfigError(f"run {folder}", error.strerror or str(error), "a folder to write to") from error
    else:
        findings = judge(run)
    texts = _texts(run, named_records(run), store)
    if texts.note and not quiet:
        say(texts.note)
    command = f"sft report {folder}"
    notes = (texts.note,) if texts.note else ()
    held = to_json(findings)["findings"]
    written = run_page(run, held, texts.rows, redacted=texts.redacted, command=command, notes=notes)
    write_page(page, written)
    return Report(run, findings, page)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Records as they may be shown, by id; which of them a later version redacted; and what is to be said of it."""

    rows: "Mapping[str, SampleRow]"
    redacted: frozenset[str]
    note: str


def _texts(run: "RunFiles", ids: Sequence[str], store: Path | None) -> _Texts:
    """Read records from the version that was trained on; what pii redacted since is masked."""
    from curate.samples import sample_rows
    from schemas.dataset import open_dataset

    saved = run.config.get("store")
    root = store or (Path(saved) if isinstance(saved, str) and saved else None)
    reference = run.config.get("dataset")
    if not ids or root is None or not isinstance(reference, str):
        return _Texts({}, frozenset(), "")
    try:
        trained = open_dataset(reference, root)
        manifest = run.facts.get("manifest")
        if manifest is not None and trained.manifest.id != manifest:
            return _Texts({}, frozenset(), f"{reference} in {root} is another version than the one that was trained on")
        later = _redacted_since(trained, ids)
        rows = sample_rows(trained, ids, lambda row: _masked(row, later))
    except (SftError, OSError) as error:
        return _Texts({}, frozenset(), f"the texts of the records are not at hand: {error}")
    return _Texts(rows, frozenset(later), "")


def _redacted_since(trained: "Dataset", ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give the rows that pii redacted in the dataset's latest version, as they stand there."""
    import polars as pl

    from curate.diff.places import read_places
    from curate.diff.redaction import redacted
    from schemas.dataset import open_dataset

    latest = open_dataset(trained.manifest.name, trained.root)
    if latest.manifest.id == trained.manifest.id:
        return {}
    wanted = pl.Series(sorted(set(ids)), dtype=pl.String).implode()
    places = [
        shard.view(["id"]).with_row_index("row").filter(pl.col("id").is_in(wanted)).collect()
        .select(pl.lit(number, pl.UInt32).alias("shard"), pl.col("row").cast(pl.UInt32))
        for number, shard in enumerate(latest.shards)
    ]  # fmt: skip
    found = pl.concat(places) if places else pl.DataFrame(schema={"shard": pl.UInt32, "row": pl.UInt32})
    hidden = found.filter(redacted(latest, found))
    rows = read_places(latest, hidden, ["id", "messages", "context"])
    return {row["id"]: row for row in rows.iter_rows(named=True)}


def _masked(row: Mapping[str, Any], later: Mapping[str, dict[str, Any]]) -> Mapping[str, Any]:
    from curate.diff.redaction import masked_row

    return masked_row(row, later[row["id"]]) if row["id"] in later else row


def tell_verdict(findings: "Sequence[Finding]") -> None:
    """Print the verdict: what was found, and what to change."""
    for finding in findings:
        paragraph(f"{finding.kind} ({finding.level}): {visible(finding.found)}", style=_STYLES[finding.level])
        paragraph(visible(finding.advice), first=2)


def tell(made: Report) -> None:
    """Print the verdict, then the figures."""
    from curate.report.run_figures import clock, perplexity, source_lines, summary

    tell_verdict(made.findings)
    run, told = made.run, summary(made.run)
    rows: list[tuple[str, str, str]] = []
    if told["train_loss"]:
        first, last = told["train_loss"]
        rows.append(("train loss, smoothed", f"{first:.3f}", f"{last:.3f}"))
    if told["val_loss"]:
        first, last = told["val_loss"]
        rows.append(("val perplexity", perplexity(first), perplexity(last)))
    lines = source_lines(run)
    if len(lines) > 1:
        rows += [(f"  {visible(line.source)}", perplexity(line.before), perplexity(line.after)) for line in lines]
    if run.general:
        name = f"{run.general.reference or 'general set'} perplexity"
        rows.append((visible(name), perplexity(run.general.before), perplexity(run.general.after)))
    parts = [
        f"{number(told['steps'])} steps" + ("" if told["ended"] else ", not ended"),
        f"{number(told['tokens'])} tokens" if told["tokens"] is not None else "",
        f"{told['tokens_per_s']:,.0f} tokens/s" if told["tokens_per_s"] else "",
        f"{clock(told['seconds'])} of training" if told["seconds"] else "",
    ]
    out("")
    table(", ".join(filter(None, parts)), ("", "#before", "#after"), rows)
    for problem in run.problems:
        say(f"warning: {problem}")
