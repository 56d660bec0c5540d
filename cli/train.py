"""`sft train`: from a version of a dataset to a fine-tuned model, with every row accounted for."""

import shlex
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.display import Display
from cli.extras import importing, needs_torch, quiet_transformers
from cli.options import (
    DEFAULT_STORE,
    JsonOption,
    StoreOption,
    build,
    config_options,
    in_sections,
    read_settings,
    was_typed,
)
from cli.preflight import shared_clusters, tell_dry_run, tell_shown
from cli.render import next_commands, number, out, print_json, say, table
from cli.report import Report, make_report, tell_verdict
from schemas.errors import CheckFailedError, ConfigError, RunInterruptedError, SftError
from schemas.train_config import PRESETS, TINY, TINY_DEFAULTS, Preset, TrainConfig

if TYPE_CHECKING:
    from schemas.dataset import Dataset, Records
    from train.run.data import Data
    from train.run.outcome import Result

LEADER_SPEAKS_S = 5.0
"""Seconds for which a process that does not lead keeps its error back: torchrun ends it when the leader ends."""

SHOWN_SAMPLES = 2
"""Answers that are printed at the end; samples.jsonl has all."""
SHOWN_CHARACTERS = 300
"""Characters of each that are printed."""

SECTIONS = {
    "model": "Model and method",
    "max_tokens": "Rows, and their order",
    "optimizer": "Optimizer",
    "checkpointing": "Machine",
    "patience": "What is watched, and kept",
}
"""The first option of each section of the help; the fields of TrainConfig stand in this order."""

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Fine-tune a model."""  # a callback makes Typer keep the one command's name


@app.command(epilog="Example: sft train --manifest mix --model tiny --out runs/first", cls=in_sections(SECTIONS))
@config_options(TrainConfig, "given")
def train(
    context: typer.Context,
    given: dict[str, Any],
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="REF", help="NAME, NAME@7, NAME@tag, or a manifest's path.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; by default a new one below runs/.")
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option("--preset", help="quick: 50 steps; small: one consumer GPU; gpu: one data-centre GPU."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file with these settings; typed options stand above it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be done; train and write nothing.")
    ] = False,
    rejected: Annotated[
        Path | None,
        typer.Option("--rejected", metavar="FILE", help="With --dry-run: write every row that cannot be used there."),
    ] = None,
    show_records: Annotated[
        bool, typer.Option("--show-records", help="Show a few records as the model reads them; --dry-run always does.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, from its last checkpoint.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on the kept rows of a version's train split, and measure it on its val split.

    Before step 0 a preflight proves the loss mask, counts what cannot be used, and compares packed with single records.
    The run folder gets metrics.jsonl, training.log, run.json, records.arrow, checkpoints/, best/ and final/.
    """
    needs_torch("sft train")
    _check_usage(resume=resume, dry_run=dry_run, out_folder=out_folder, rejected=rejected)
    saved = _saved(out_folder) if resume and out_folder else None
    config = resolve(given, preset=preset, file=config_file, saved=saved["train"] if saved else None)
    reference = manifest or (saved["dataset"] if saved else None)
    if saved and saved.get("store") and not was_typed(context, "store") and Path(saved["store"]) != store.resolve():
        store = Path(saved["store"])
    if reference is None:
        raise ConfigError("--manifest", "not given", "a dataset's name or version", "see sft show for what there is")

    from schemas.dataset import open_dataset

    dataset = open_dataset(reference, store)
    data = _data(dataset, reference)
    config, data = _with_others(config, data, dataset, store)
    with ExitStack() as stack:
        leads = stack.enter_context(_together(config, out_folder, dry_run=dry_run))
        display = stack.enter_context(Display(quiet=json or not leads))
        quiet_transformers()
        if dry_run:
            from train.run.prepare import prepare

            prepared = prepare(config, data, display)
            display.close()
            tell_dry_run(prepared, json=json, rejected=rejected, notes=display.notes)
            return
        from curate.store import Store
        from schemas.remote import shown
        from train.run import interruption
        from train.run.folder import RunFolder
        from train.run.run import run

        folder = out_folder or _default_folder(data, config)
        # The folder may name another store than the one that was given.
        other = ["--store", shown(dataset.root)] if saved and saved.get("store") != data.store else []
        resume_with = shlex.join(["sft", "train", "--resume", "--out", str(folder), *other])
        with interruption.told(RunFolder(folder), resume_with):
            try:
                result = run(config, data, folder, display, resume=resume, resume_with=resume_with)
            except CheckFailedError:  # a loss that is no number: the curves and records before it say why
                _report(folder, dataset.root, leads=leads and RunFolder(folder).holds_run())
                raise
            if not leads:
                return
            Store(dataset.root).register_run(result.run_id, result.facts, folder / "records.arrow")
    made = _report(folder, dataset.root)
    if json:
        print_json(_json(result))
    else:
        if show_records:
            tell_shown(result.preflight)
        _tell(result)
        if made:
            tell_verdict(made.findings)
        next_commands(
            f"sft eval {shlex.quote(str(folder))}",
            f"sft why {reference} {data.train[0].source}:ROW",
            f"sft export {reference} --format openai --to out",
            f"sft train --manifest {reference} --model HuggingFaceTB/SmolLM2-135M --preset small --out runs/small",
            store=store,
        )


@contextmanager
def _together(config: TrainConfig, out_folder: Path | None, *, dry_run: bool) -> Generator[bool]:
    """Join the processes that torchrun started; give whether this one leads, and so speaks.

    What fails in all of them is told by the leader alone: the others hold their error back until it has had its time.
    """
    from train.model.device import choose_device
    from train.step import processes

    started = processes.asked()
    if started > 1 and dry_run:
        raise ConfigError("--dry-run", f"in {started} processes", "one process", "run it without torchrun")
    if started > 1 and out_folder is None:  # its name would be made of the time, which they read one by one
        raise ConfigError("--out", f"not given, in {started} processes", "the folder of the run")
    try:
        with processes.together(cuda=started > 1 and choose_device(config).device.type == "cuda"):
            yield processes.leads()
    except RunInterruptedError as error:  # agreed on: the leader tells of it
        if processes.started_as() > 0:
            raise typer.Exit(1) from error
        raise
    except (SftError, RuntimeError):
        if started > 1 and processes.started_as() > 0:
            time.sleep(LEADER_SPEAKS_S)
        raise


def _check_usage(*, resume: bool, dry_run: bool, out_folder: Path | None, rejected: Path | None) -> None:
    """Raise ConfigError for options that do not go together, and for a folder that a dry run's run could not have."""
    if resume and out_folder is None:
        raise ConfigError("--resume", "no --out", "the folder of the run to go on with")
    if resume and dry_run:
        raise ConfigError("--resume", "together with --dry-run", "one of the two")
    if rejected is not None and not dry_run:
        raise ConfigError(
            "--rejected", "without --dry-run", "both", "a run writes them to rejected.jsonl in its folder"
        )
    if dry_run and out_folder is not None:
        from train.run.folder import RunFolder

        RunFolder(out_folder).check_new()


def resolve(
    given: dict[str, Any], *, preset: str | None = None, file: Path | None = None, saved: dict[str, Any] | None = None
) -> TrainConfig:
    """Make the configuration: defaults, then tiny's, then the preset, then the file, then what was typed.

    A resumed run has what it saved in place of the defaults. Raises ConfigError for what is not allowed.
    """
    read = read_settings(file, "train") if file else {}
    typed = {**(saved or {}), **(PRESETS[preset] if preset else {}), **read, **given}
    if not typed.get("model"):
        raise ConfigError("--model", "not given", "a hub id, a model's folder, or tiny")
    if typed["model"] == TINY and saved is None:
        typed = {**TINY_DEFAULTS, **typed}
    return build(TrainConfig, typed, where=f"train, {file}" if file else "train")


def _saved(folder: Path) -> dict[str, Any]:
    from train.run.folder import RunFolder

    run = RunFolder(folder)
    if not run.holds_run():
        raise ConfigError(f"--resume {folder}", "no run in this folder", "a run folder", "start it without --resume")
    settings = run.settings()
    return {**run.read_json("config.json"), "train": settings.model_dump()}


def _data(dataset: "Dataset", reference: str) -> "Data":
    with importing():
        from train.run.data import Data, Origin

        import_module("train.run.run")  # what the run needs, which takes seconds to come in

    stale = dataset.stale()
    return Data(
        name=dataset.manifest.name,
        seq=dataset.manifest.seq,
        manifest=dataset.manifest.id,
        train_visible=dataset.manifest.train_visible,
        train=dataset.records("train"),
        val=dataset.records("val"),
        warnings=(f"stale stages: {', '.join(stale)}; run sft curate run to renew them",) if stale else (),
        reference=str(Path(reference).resolve()) if reference.endswith(".json") else "",
        store=str(dataset.root.resolve()),
        clusters=shared_clusters(dataset),
        origins=tuple(
            Origin(s.name, s.license, tuple(i.uri for i in s.inputs if i.uri.startswith("hf://")))
            for s in dataset.manifest.sources
        ),
    )


def _with_others(config: TrainConfig, data: "Data", dataset: "Dataset", store: Path) -> tuple[TrainConfig, "Data"]:
    """Add what comes from beside the train and val rows: records to replay, scores to order by."""
    from cli.curriculum import read_scores
    from cli.replay import open_replay
    from schemas.dataset import open_dataset

    data = replace(data, scores=read_scores(dataset, config.curriculum))
    if replayed := open_replay(config, dataset, store):
        config = replayed.config
        data = replace(
            data,
            replay=replayed.dataset.records("train"),
            replay_digest=replayed.digest,
            replay_known=replayed.known,
        )
    if config.general is not None:
        other = open_dataset(config.general, store)
        data = replace(data, general=_general(other, f"--general {config.general}"))
        if not config.general.endswith(".json"):  # by its number, so that a resumed run measures the same
            config = config.model_copy(update={"general": f"{other.manifest.name}@{other.manifest.seq}"})
    elif replayed:
        data = replace(data, general=replayed.dataset.records("val") or None)
    return config, data


def _general(dataset: "Dataset", where: str) -> "Records":
    """Give the rows that forgetting is measured on: val, else test, else train."""
    for split in ("val", "test", "train"):
        if records := dataset.records(split):
            return records
    raise ConfigError(where, "no kept rows in split val, test or train", "at least one", "run sft curate split on it")


def _default_folder(data: "Data", config: TrainConfig) -> Path:
    model = Path(config.model).name
    return Path("runs") / f"{data.name}-{data.seq}-{model}-{config.method}-{time.strftime('%Y%m%d-%H%M%S')}"


def _report(folder: Path, store: Path, *, leads: bool = True) -> "Report | None":
    """Make the page of a run, once. One that cannot be made takes nothing from the run: a line says why."""
    try:
        return make_report(folder, store=store) if leads else None
    except SftError as error:
        say(f"warning: no report: {error}")
        return None


def _json(result: "Result") -> dict[str, Any]:
    from dataclasses import asdict

    seconds = result.ending.cursor.seconds
    return {
        "run": str(result.folder),
        "run_id": result.run_id,
        **result.ending.facts(),
        "tokens_per_s": round(result.ending.cursor.tokens / seconds, 1) if seconds else None,
        "seconds": round(result.seconds, 3),
        "verdict": result.facts.get("verdict"),
        "preflight": result.preflight.json(),
        "samples": [asdict(sample) for sample in result.samples],
    }


def _tell(result: "Result") -> None:
    """Print what happened: a table of losses, two answers, and where everything lies."""
    from train.verdict.finding import perplexity

    ending, cursor = result.ending, result.ending.cursor
    rows: list[tuple[str, str, str]] = []
    if cursor.first_loss is not None and cursor.last_loss is not None:
        rows.append(("train loss", f"{cursor.first_loss:.3f}", f"{cursor.last_loss:.3f}"))
    before, after = ending.before, ending.after
    if before and after:
        rows.append(("val perplexity", perplexity(before.overall.loss), perplexity(after.overall.loss)))
        if len(after.by_source) > 1:
            rows += [
                (f"  {source}", perplexity(before.by_source[source].loss), perplexity(found.loss))
                for source, found in after.by_source.items()
            ]
    if kept := ending.forgetting:
        after_run = perplexity(kept.after.loss) if kept.after else ""
        rows.append((f"general {kept.reference}", perplexity(kept.before.loss), after_run))
    speed = f"{cursor.tokens / cursor.seconds:,.0f} tokens/s" if cursor.seconds else "no steps"
    paid = f", cost {ending.cost:,.2f}" if ending.cost is not None else ""
    table(
        f"{number(cursor.step)} steps, {number(cursor.tokens)} tokens, {speed}, {result.seconds:,.0f} s in all{paid}",
        ("", "#before", "#after"),
        rows,
    )
    for sample in result.samples[:SHOWN_SAMPLES]:
        for label, text in (("prompt", sample.prompt), ("reference", sample.reference), ("answer", sample.answer)):
            out(f"{label:>9}: {_short(text)}")
        out("")
    best = f" (step {cursor.best_step})" if cursor.best_step else ""
    out(f"final weights  {result.folder / 'final'}")
    out(f"best weights   {result.folder / 'best'}{best}")
    out(f"metrics, log   {result.folder}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
