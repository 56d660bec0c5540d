"""The pipeline: a recipe's sources and stages, and one version for all of it.

Every finished stage is remembered under the digest of all that it depends on, so a run that was interrupted takes up
the finished stages again, and a run over an unchanged dataset computes nothing and commits nothing.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from curate.ingest import ingest
from curate.ingest.inputs import find_inputs
from curate.sources import Started
from curate.stage import Progress, Stage, StageResult, no_progress, run_stage
from curate.stages import PIPELINE, REVIEW, stage
from curate.store import Store
from curate.version import Commit, Draft, commit_version, commit_work
from schemas.config import Config
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.manifest import FileEntry, Manifest, Source, digest
from schemas.objects import file_sha256
from schemas.recipe import Recipe, SourceRecipe

Makers = Mapping[str, Callable[[Dataset, Any], Stage]]
"""Stages that the caller makes, by name, from the dataset and their settings: those that need what is not of `curate`,
such as a language model. They run in any case, and keep for themselves what need not be done again."""

NO_MAKERS: Makers = MappingProxyType({})


@dataclass
class Run:
    """What a run of a recipe did."""

    commit: Commit
    results: list[StageResult] = field(default_factory=list[StageResult])
    notes: list[str] = field(default_factory=list[str])


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raise ConfigError that names the key, what is wrong with it, and what is allowed."""
    try:
        with path.open("rb") as file:
            return Recipe.model_validate(tomllib.load(file))
    except OSError as error:
        raise ConfigError(f"recipe {path}", error.strerror or str(error), "a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}", f"not TOML ({error})", "a file such as recipes/default.toml") from error
    except ValidationError as error:
        raise config_error(f"recipe {path}", error) from error


def config_error(where: str, error: ValidationError) -> ConfigError:
    """Tell all configuration errors of a model at once, each with its key."""
    problems = ((".".join(str(p) for p in e["loc"]), e["msg"].removeprefix("Value error, ")) for e in error.errors())
    found = "; ".join(f"{place or 'value'}: {problem}" for place, problem in problems)
    return ConfigError(where, found, remedy="see the command's --help for what each value may be")


def _nobody(_what: str, _rows: int) -> Progress:
    return no_progress


def run_recipe(
    store: Store,
    recipe: Recipe,
    *,
    name: str | None = None,
    base: Path | None = None,
    message: str | None = None,
    started: Started = _nobody,
    makers: Makers = NO_MAKERS,
) -> Run:
    """Ingest what is missing, run the recipe's stages in their fixed order, and commit one version at the end.

    `base` is the folder that the recipe's relative paths start from; `makers` make the stages that need more than this
    package. Where others commit meanwhile, the recipe is run again over their version. Raises ConfigError without a
    dataset or rows, ConflictError where they wrote the same sources or stages.
    """
    dataset_name = name or recipe.dataset
    if dataset_name is None:
        raise ConfigError("recipe", "names no dataset", "a key `dataset`, or --name on the command line")

    def work(parent: Manifest | None) -> tuple[Draft, str, _Ran]:
        draft = Draft.of(parent) if parent else Draft(dataset_name)
        draft, ran = _run_over(store, draft, recipe, base, started=started, makers=makers)
        done = ", ".join(r.entry.name for r in ran.results) or "no stage"
        return draft, message or f"run: {done}", ran

    ran, commit = commit_work(store, store.latest(dataset_name), work, lambda ran: ran.writes)
    return Run(commit, ran.results, ran.notes)


@dataclass(frozen=True)
class _Ran:
    """What ran, what it says, and what a version gets of it."""

    results: list[StageResult]
    notes: list[str]
    writes: set[str]


def _run_over(
    store: Store, draft: Draft, recipe: Recipe, base: Path | None, *, started: Started, makers: Makers
) -> tuple[Draft, _Ran]:
    """Run a recipe over a version that is not committed yet."""
    notes: list[str] = []
    for source in recipe.sources:
        read = _read_source(store, draft, source, base, started)
        notes.extend(read.notes)
        draft = draft.with_source(read.source, read.files) if read.source else draft
    if not draft.files:
        raise ConfigError(
            f"dataset {draft.name!r}", "has no rows", "sources in the recipe, or an earlier `sft curate ingest`"
        )
    results: list[StageResult] = []
    for stage_name in PIPELINE:
        config: Config | None = getattr(recipe, stage_name)
        if config is not None:
            config = config.started_from(base or Path())
            dataset = Dataset(draft.manifest(), store.root)
            own = stage_name in makers
            known = makers[stage_name](dataset, config) if own else stage(stage_name)
            result = run_stage(store, dataset, known, config, started(stage_name, dataset.rows), fresh=own)
            draft = draft.with_stage(result, known.features)
            results.append(result)
            notes.extend(f"{stage_name}: {note}" for note in result.notes)
    if carried := carry_reviews(store, draft, started):
        draft = draft.with_stage(carried)
        results.append(carried)
        notes.extend(f"{REVIEW}: {note}" for note in carried.notes)
    writes = {f"source {s.source or s.format}" for s in recipe.sources} | {f"stage {r.entry.name}" for r in results}
    return draft, _Ran(results, notes, writes - {f"stage {REVIEW}"})


def carry_reviews(store: Store, draft: Draft, started: Started = _nobody) -> StageResult | None:
    """Apply what people said over what the stages of a draft now give; None where nobody reviewed the dataset.

    Without this a correction would cover a text that was edited since, and decisions would stand about another one.
    It runs in any case: under the same key a pull may have remembered what came of other responses.
    """
    entry = next((entry for entry in draft.stages if entry.name == REVIEW), None)
    if entry is None:
        return None
    dataset = Dataset(draft.manifest(), store.root)
    known = stage(REVIEW)
    config = known.config.model_validate(entry.config)
    return run_stage(store, dataset, known, config, started(REVIEW, dataset.rows), fresh=True)


@dataclass(frozen=True)
class _Read:
    """A source as it was read; None where the dataset has it already."""

    source: Source | None
    files: tuple[FileEntry, ...] = ()
    notes: tuple[str, ...] = ()


def _read_source(store: Store, draft: Draft, recipe: SourceRecipe, base: Path | None, started: Started) -> _Read:
    """Read a source of the recipe, unless it is in the draft and its files and terms are what they were."""
    name = recipe.source or recipe.format
    there = next((s for s in draft.sources if s.name == name), None)
    files = find_inputs(recipe.inputs, base)
    if any(file.path == "-" or "://" in file.path for file in files):
        if there is not None:
            again = "read it again with `sft curate ingest --replace`"
            return _Read(None, notes=(f"source {name} is there already and not a local file: kept as it is; {again}",))
        found = ingest(store, recipe.inputs, recipe.format, recipe, progress=started(f"ingest {name}", 0), base=base)
        return _Read(found.source, found.files, found.notes)
    hashes = [file_sha256(Path(file.path)) for file in files]
    if there is not None:
        had = [file.sha256 for file in there.inputs]
        if had[: len(hashes)] == hashes and _same_reading(store, draft, there, recipe):
            appended = len(had) - len(hashes)
            note = f"source {name}: {appended} more files were appended to it; they stay"
            return _Read(None, notes=(note,) if appended else ())
        if len(had) > len(hashes):
            raise ConfigError(
                f"source {name!r} of dataset {draft.name!r}",
                "was appended to, and the recipe's files or settings for it are not what they were",
                "the files that the dataset has",
                "name the appended files in the recipe, or exchange all rows with `sft curate ingest --replace`",
            )
    key = digest(["ingest", recipe.model_dump(mode="json"), hashes, [file.label for file in files]])
    if known := store.recall(key):
        read = _Read(Source.model_validate(known[1]["source"]), known[0], tuple(known[1]["notes"]))
    else:
        found = ingest(store, recipe.inputs, recipe.format, recipe, progress=started(f"ingest {name}", 0), base=base)
        read = _Read(found.source, found.files, found.notes)
        store.remember(key, found.files, {"source": found.source.model_dump(mode="json"), "notes": list(found.notes)})
    if there is not None:
        changed = f"source {name}: its files or settings are not what they were; its rows were exchanged"
        read = replace(read, notes=(*read.notes, changed))
    return read


def _same_reading(store: Store, draft: Draft, there: Source, recipe: SourceRecipe) -> bool:
    """Whether reading the same files again by the recipe would give what is there."""
    if recipe.format not in ("auto", there.format):
        return False
    if (recipe.license, recipe.terms, recipe.generated_by) != (there.license, there.terms, there.generated_by):
        return False
    if not recipe.strict:
        return True
    shards = [shard for shard in Dataset(draft.manifest(), store.root).shards if shard.source == there.name]
    return not any(shard.view(["verdict_ingest"]).collect()["verdict_ingest"].count() for shard in shards)


def apply_stage(
    store: Store,
    dataset: Dataset,
    name: str,
    config: object,
    *,
    message: str | None = None,
    progress: Progress = no_progress,
    latest: Manifest | None = None,
    makers: Makers = NO_MAKERS,
) -> tuple[StageResult, Commit]:
    """Run one stage on a version and commit the result. Gives the stage's result and what became of it.

    What people said about the rows is applied again over the result, in the same commit (see `carry_reviews`).
    `latest` is the dataset's latest version, where the stage runs on an older one; `makers` as in `run_recipe`. Without
    `latest`, the stage runs again over what others commit meanwhile; ConflictError where they ran the same stage.
    """

    def work(version: Manifest | None) -> tuple[Draft, str, StageResult]:
        over = Dataset(version, store.root) if version else dataset
        own = name in makers
        known = makers[name](over, config) if own else stage(name)
        result = run_stage(store, over, known, known.config.model_validate(config), progress, fresh=own)
        draft = Draft.of(over.manifest).with_stage(result, known.features)
        if name != REVIEW and (carried := carry_reviews(store, draft)):
            draft = draft.with_stage(carried)
            result = replace(result, notes=(*result.notes, *(f"{REVIEW}: {note}" for note in carried.notes)))
        return draft, message or name, result

    if latest is None:
        return commit_work(store, dataset.manifest, work, lambda _result: {f"stage {name}"})
    draft, line, result = work(dataset.manifest)
    return result, commit_version(store, draft, dataset.manifest, line, latest=latest)
