"""`sft eval`: what a run's model is worth beside its base.

The trainer asks and counts, curate draws the page; this file puts the two together.
"""

import json as json_text
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.extras import needs_torch, quiet_transformers
from cli.options import DEFAULT_STORE, JsonOption, StoreOption, build, config_options, was_typed
from cli.render import number, out, print_json, table
from schemas.errors import ConfigError, SftError
from schemas.eval_config import EvalConfig

if TYPE_CHECKING:
    from schemas.dataset import Dataset
    from schemas.record import Record

app = typer.Typer(rich_markup_mode=None)

SPLITS = ("test", "val")
"""What is measured on where no split is named: the first of these that has rows."""
RUNS = "RUN", "The folder of a finished run."
SHOWN_CHARACTERS = 240
"""Characters of a text in the samples on the terminal; the page has all of it."""
SHOWN_SAMPLES = 2


@app.callback()
def root() -> None:
    """Ask a trained model."""


@dataclass(frozen=True)
class _Asked:
    """The rows that are asked, where they come from, and what was left out of them."""

    dataset: "Dataset"
    reference: str
    split: str
    records: "tuple[Record, ...]"
    categories: dict[str, str]
    total: int
    seen: int
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the files of the evaluation are called: the split, and before it the name of another dataset."""
        return re.sub(r"[^\w.@-]", "_", self.split if not self.reference else f"{self.reference}-{self.split}")


@app.command("eval", epilog="Example: sft eval runs/first")
@config_options(EvalConfig, "given")
def evaluate(
    context: typer.Context,
    given: dict[str, Any],
    run: Annotated[str, typer.Argument(metavar=RUNS[0], help=RUNS[1])],
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest", metavar="REF", help="Measure on another dataset, by default on the version of the run."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page there; by default into the run's folder eval/.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Measure a run's model beside its base: perplexity, answers against references, and how sure the difference is.

    Answers are generated greedily for the last turn of each record. All of them are kept in RUN/eval, with the measures
    as JSON and as a page; the same command goes on where it was interrupted, and never asks twice.
    """
    needs_torch("sft eval")
    from cli.display import Display
    from cli.page import check_page, write_page
    from curate.report.evaluation import evaluation_page
    from train.evaluation.evaluation import evaluate as measured
    from train.evaluation.pair import Pair
    from train.run.folder import RunFolder

    config = build(EvalConfig, given, where="eval")
    if html:
        check_page(html)
    quiet_transformers()
    pair = Pair.open(
        RunFolder(Path(run)),
        device=config.device,
        precision=config.precision,
        weights="best" if config.best else "final",
    )
    asked = _rows(pair.folder, pair.facts, config, manifest, store=store, own_store=was_typed(context, "store"))
    with Display(quiet=json) as display:
        for note in asked.notes:
            display.note(note)
        found = measured(
            pair,
            asked.records,
            config,
            display,
            name=asked.name,
            categories=asked.categories,
            data={
                "dataset": f"{asked.dataset.manifest.name}@{asked.dataset.manifest.seq}",
                "manifest": asked.dataset.manifest.id,
                "split": asked.split,
                "own": not asked.reference,
                "rows": asked.total,
                "seen_in_training": asked.seen,
                "notes": list(asked.notes),
            },
        )
    page = html or found.file.with_suffix(".html")
    write_page(page, evaluation_page(found.summary, found.rows))
    if json:
        print_json({**found.summary, "files": {**found.files(), "page": str(page)}})
    else:
        _tell(found.summary, found.rows)
        out(f"all answers   {found.file.with_suffix('.jsonl')}")
        out(f"measures      {found.file}")
        out(f"page          {page}")


def _rows(
    folder: Any, facts: Mapping[str, Any], config: EvalConfig, manifest: str | None, *, store: Path, own_store: bool
) -> _Asked:
    """Choose the rows that are asked. Raises ConfigError where there are none."""
    from cli.compare import open_run
    from schemas.dataset import open_dataset

    # The store that was typed is that of --manifest; the run's own rows lie where the run says.
    opened = open_run(str(folder.path), store, own_store=own_store and manifest is None)
    notes: list[str] = []
    if manifest is None:
        dataset, reference = opened.dataset(), ""
        trained: Dataset | None = dataset
    else:
        dataset, reference = open_dataset(manifest, opened.store if not own_store else store), manifest
        reference = (
            "" if dataset.manifest.id == facts["manifest"] else f"{dataset.manifest.name}@{dataset.manifest.seq}"
        )
        try:
            trained = opened.dataset() if reference else dataset
        except SftError as error:
            trained = None
            notes.append(f"warning: rows that were trained on cannot be told by their text ({error})")
    wanted = [config.split] if config.split else list(SPLITS)
    split, records = next(((name, rows) for name in wanted if (rows := tuple(dataset.records(name)))), (wanted[-1], ()))
    if not records:
        there = ", ".join(f"{name} {number(rows)}" for name, rows in _splits(dataset).items()) or "no split yet"
        raise ConfigError(
            f"dataset {dataset.manifest.name}@{dataset.manifest.seq}",
            f"no kept rows in split {' or '.join(wanted)} (there are: {there})",
            "rows to measure on",
            "name another with --split, or run sft curate split",
        )
    total, seen = len(records), 0
    if split == "train" and not reference:
        notes.append(
            "warning: these rows were trained on; the numbers say what was memorised, not what the model can do"
        )
    else:
        fresh = _fresh(records, trained, folder.path)
        seen, records = total - len(fresh), fresh
        if seen:
            notes.append(
                f"warning: {number(seen)} of {number(total)} rows were trained on (same id or text) and are left out"
            )
        if not records:
            raise ConfigError(
                f"dataset {dataset.manifest.name}@{dataset.manifest.seq}",
                f"all {number(total)} rows of split {split} were trained on",
                "rows that the model has not seen",
            )
    if config.limit is not None and config.limit < len(records):
        drawn = sorted(range(len(records)), key=lambda i: _drawn(records[i].id))[: config.limit]
        records = tuple(records[i] for i in sorted(drawn))
    return _Asked(dataset, reference, split, records, _categories(dataset), total, seen, tuple(notes))


def _fresh(records: "Sequence[Record]", trained: "Dataset | None", folder: Path) -> "tuple[Record, ...]":
    """Leave out the records that the run was trained on, replayed ones too: by id, as it recorded them, and by text."""
    import polars as pl

    ids: set[str] = set()
    if (folder / "records.arrow").is_file():
        seen = pl.read_ipc(folder / "records.arrow", columns=["id", "split"])
        ids = set(seen.filter(pl.col("split") != "val")["id"])
    texts = {_text(record) for record in trained.records("train")} if trained else set[bytes]()
    return tuple(record for record in records if record.id not in ids and _text(record) not in texts)


def _text(record: "Record") -> bytes:
    """Digest what a record says: roles and contents."""
    from hashlib import blake2b

    said = json_text.dumps([[m.role, m.content] for m in record.messages])
    return blake2b(said.encode(), digest_size=16).digest()


def _drawn(name: str) -> bytes:
    from hashlib import blake2b

    return blake2b(name.encode(), digest_size=8, key=b"limit").digest()


def _splits(dataset: "Dataset") -> dict[str, int]:
    import polars as pl

    rows = dataset.scan(["split", "kept"]).filter(pl.col("kept") & pl.col("split").is_not_null())
    return dict(rows.group_by("split").len().sort("split").collect().iter_rows())


def _categories(dataset: "Dataset") -> dict[str, str]:
    import polars as pl

    rows = dataset.scan(["id", "category"]).filter(pl.col("category").is_not_null())
    return dict(rows.collect().iter_rows())


def _tell(summary: Mapping[str, Any], rows: "Sequence[Mapping[str, Any]]") -> None:
    """Print the verdict, the measures, the sources, and two answers side by side."""
    data, verdict = summary["data"], summary["verdict"]
    against = " against its base" if summary["base"] else ""
    out(
        f"{summary['run']['model']}, {summary['run']['method']}{against}: {number(summary['all']['scored'])} rows of "
        f"{data['dataset']}, split {data['split']}, scored, {number(summary['all']['answered'])} answered",
        style="bold",
    )
    for reason, rows_left in summary["left_out"].items():
        out(f"{number(rows_left)} {'row' if rows_left == 1 else 'rows'} without {reason}")
    if verdict:
        out(_sentence(summary), style="bold green" if verdict["word"] == "better" else "bold")
    _tell_measures("Measures", summary, summary["all"])
    if len(summary["by_source"]) > 1:
        _tell_groups("By source", summary, summary["by_source"])
    if len(summary["by_category"]) > 1:
        _tell_groups("By category", summary, summary["by_category"])
    named = (
        {"all": summary["all"], **summary["by_source"]} if len(summary["by_source"]) > 1 else {"all": summary["all"]}
    )
    for name, group in named.items():
        if group["labels"]:
            _tell_labels(name, group["labels"], base=summary["base"])
    by_id = {row["id"]: row for row in rows}
    for title, ids in (("Samples", summary["samples"]), ("Most worsened", summary["most_worsened"])):
        for name in ids[:SHOWN_SAMPLES]:
            _tell_row(title, by_id[name])


def _sentence(summary: Mapping[str, Any]) -> str:
    """Say the verdict in one sentence, with the differences that it rests on."""
    verdict, told = summary["verdict"], list[str]()
    for name in verdict["by"]:
        measure, one = summary["measures"][name], summary["all"]["measures"][name]
        ends = f"{_written(measure, one['base'])} -> {_written(measure, one['tuned'])}"
        told.append(f"{measure['title']} {ends}, {one['verdict']}")
    word = {"better": "better than its base", "worse": "worse than its base", "mixed": "better and worse"}
    return f"verdict: {word.get(verdict['word'], verdict['word'])} ({'; '.join(told)})"


def _tell_measures(title: str, summary: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    with_base = summary["base"]
    columns = ["", "#tuned", *(["#base", "#difference", "#95% interval", "verdict"] if with_base else [])]
    cells: list[tuple[str, ...]] = []
    for name, measure in summary["measures"].items():
        one = group["measures"][name]
        if not one:
            continue
        cell = [measure["title"], _written(measure, one["tuned"])]
        if with_base:
            cell += [
                _written(measure, one["base"]),
                _signed(measure, one["difference"]),
                "" if one["low"] is None else _interval(measure, one),
                one["verdict"],
            ]
        cells.append(tuple(cell))
    table(title, columns, cells)


def _tell_groups(title: str, summary: Mapping[str, Any], groups: Mapping[str, Any]) -> None:
    """Print the measures that say most, a line per group: base -> tuned where there is a base."""
    names = ("perplexity", "exact_match", "token_f1", "rouge_l")
    cells: list[tuple[str, ...]] = []
    for name, group in groups.items():
        cell = [name, number(group["scored"]), number(group["answered"])]
        for of in names:
            one, measure = group["measures"][of], summary["measures"][of]
            if not one:
                cell.append("")
            elif summary["base"]:
                sign = {"better": " +", "worse": " -"}.get(one["verdict"], "  ")
                cell.append(f"{_written(measure, one['base'])} -> {_written(measure, one['tuned'])}{sign}")
            else:
                cell.append(_written(measure, one["tuned"]))
        cells.append(tuple(cell))
    marks = " (+ better, - worse; without a mark no clear difference, or none can be told)" if summary["base"] else ""
    titles = [f"#{summary['measures'][of]['title']}" for of in names]
    table(f"{title}{marks}", ["", "#scored", "#answered", *titles], cells)


def _tell_labels(name: str, labels: Mapping[str, Any], *, base: bool) -> None:
    sides = ("tuned", "base") if base else ("tuned",)
    cells = [
        (
            side,
            *(f"{labels[side][one]:.1%}" for one in ("accuracy", "precision", "recall", "f1")),
            number(labels[side]["unnamed"]),
        )
        for side in sides
    ]
    columns = ["", "#accuracy", "#precision", "#recall", "#F1", "#names no label"]
    table(f"{name}: {len(labels['names'])} labels (means over labels)", columns, cells)


def _tell_row(title: str, row: Mapping[str, Any]) -> None:
    prompt = next((m["content"] for m in reversed(row["prompt"]) if m["role"] == "user"), row["prompt"][-1]["content"])
    out(f"{title}: {row['source']} {row['id'][:12]}", style="bold")
    sides = [(side, row[side]["answer"]) for side in ("tuned", "base") if row[side]]
    lines = [("prompt", prompt), ("reference", row["reference"])]
    lines += [(side, f"{answer['text']}{'' if answer['whole'] else ' [cut off]'}") for side, answer in sides]
    for label, text in lines:
        out(f"{label:>9}: {_short(text)}")


def _written(measure: Mapping[str, Any], value: float | None) -> str:
    from curate.report.differences import WRITTEN

    return "infinite" if value is None else WRITTEN[measure["unit"]].format(value)


def _signed(measure: Mapping[str, Any], value: float | None) -> str:
    if value is None:
        return ""
    text = _written(measure, abs(value)).replace("%", " pp")  # percentage points
    return text if not re.search("[1-9]", text) else f"{'+' if value > 0 else '-'}{text}"


def _interval(measure: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return f"{_signed(measure, one['low']).removesuffix(' pp')} to {_signed(measure, one['high'])}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
