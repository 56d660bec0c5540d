"""Replay: which configuration key made a change, found by running stages again with one key exchanged at a time.

    the earlier version ── one key of the later configuration ──> its stage, then the later stages as they were ──>
    a version that is not committed: does it have the row's new outcome? Then this key alone makes the change.

Everything else is the earlier version's: its texts, its rows, what people decided. A stage that only one version has is
exchanged as a whole, and stands under its name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
from pydantic import ValidationError

from curate.diff.attribution import differing_keys
from curate.diff.changes import Diff, compare, in_order
from curate.pipeline import carry_reviews
from curate.sources import Started
from curate.stage import Progress, no_progress, run_stage
from curate.stages import PIPELINE, REVIEW, stage
from curate.store import Store
from curate.version import Draft
from schemas.config import Config
from schemas.dataset import Dataset
from schemas.errors import SftError
from schemas.manifest import Manifest

_WORDS = ("edited", "rejected", "restored", "rejudged", "resplit", "rescored")
_CAUSES = ("configuration", "text", "verdict", "other rows", "together")
"""Changes that a configuration can have made."""

_UNGUARDED = {"max_source_loss": 1.0, "max_cluster_loss": 1.0}
"""Dedup as it is replayed: nothing is committed, so nothing is guarded."""


class NotReplayedError(Exception):
    """A stage cannot be run again here; the text says why."""


@dataclass(frozen=True)
class Exchange:
    """Settings of the later version in place of the earlier one's. `settings`: by stage; None leaves the stage out."""

    key: str
    settings: Mapping[str, Mapping[str, Any] | None]


def replay(store: Store, diff: Diff, started: Started | None = None) -> Diff:
    """Find for each change of an attributed diff the configuration keys that make it, each alone. Commits nothing.

    `keys` are those whose exchange alone gives the row its new outcome. Where none does and all that differ do, the
    cause is `together`. Where not even these do, a change that was put down to the stage's configuration comes of
    other rows, or of what came and went. `notes` name the stages that cannot be run again, such as those that need a
    model: changes that they may have made stay as they were. Finished stages are taken from the store's cache.
    """
    begun = started or _nobody
    open_ = diff.changes.filter(pl.col("word").is_in(_WORDS) & pl.col("cause").is_in(_CAUSES))
    exchanges = list(_exchanges(diff.before.manifest, diff.after.manifest))
    if not open_.height or not exchanges:
        return diff
    again = _Replay(store, diff.before, begun)
    made = {exchange.key: again.made(exchange, open_) for exchange in exchanges}
    found = pl.concat([rows.select("word", "id", key=pl.lit(key)) for key, rows in made.items()])
    proven = found.group_by("word", "id").agg(proven=pl.col("key").sort())
    left = open_.join(proven, on=["word", "id"], how="anti")
    together = open_.clear()
    if left.height and len(exchanges) > 1:
        every = Exchange("all of them", {name: s for e in _whole(diff, exchanges) for name, s in e.settings.items()})
        together = again.made(every, left)
    ends = [
        proven.with_columns(whole=pl.lit(value=False)),
        together.select("word", "id", proven=pl.lit(sorted(made), pl.List(pl.String)), whole=pl.lit(value=True)),
    ]
    changes = _told(diff.changes, open_, pl.concat(ends), certain=not again.notes)
    told = list(dict.fromkeys(again.notes))
    if n := changes.filter(pl.col("cause") == "together").height:
        told.append(f"{n:,} changes are made by no key alone, but by {', '.join(sorted(made))} together")
    return replace(diff, changes=in_order(changes), notes=(*diff.notes, *told))


def _nobody(_what: str, _rows: int) -> Progress:
    return no_progress


def _exchanges(before: Manifest, after: Manifest) -> Iterator[Exchange]:
    """Give every exchange of one key, or of a stage that only one version has, in the order of the stages."""
    differing = differing_keys(before, after)
    for name in PIPELINE:
        old, new = before.stage(name), after.stage(name)
        if old and new:
            for key in differing.get(name, ()):
                config = {k: v for k, v in old.config.items() if k != key}
                if key in new.config:
                    config[key] = new.config[key]
                yield Exchange(f"{name}.{key}", {name: config})
        elif old or new:
            yield Exchange(name, {name: new.config if new else None})


def _whole(diff: Diff, exchanges: Sequence[Exchange]) -> Iterator[Exchange]:
    """Give the stages that the exchanges are about with all that the later version has of them."""
    for name in _stages(exchanges):
        entry = diff.after.manifest.stage(name)
        yield Exchange(name, {name: entry.config if entry else None})


def _stages(exchanges: Sequence[Exchange]) -> list[str]:
    return list(dict.fromkeys(name for exchange in exchanges for name in exchange.settings))


@dataclass(frozen=True)
class _Replay:
    """An earlier version that stages are run on again. `notes`: what could not be run."""

    store: Store
    before: Dataset
    started: Started
    notes: list[str] = field(default_factory=list[str])

    def made(self, exchange: Exchange, wanted: pl.DataFrame) -> pl.DataFrame:
        """Give those of the wanted changes that an exchange makes."""
        try:
            version = self._version(exchange)
        except ValidationError:  # a key that cannot be without another one makes nothing alone
            return wanted.clear()
        except (SftError, NotReplayedError) as error:
            self.notes.append(f"{exchange.key} was not exchanged: {error}")
            return wanted.clear()
        outcome = compare(self.before, version).changes.select("word", "id", outcome="after")
        both = wanted.join(outcome, on=["word", "id"], how="inner", maintain_order="left")
        return both.filter(pl.col("after").eq_missing(pl.col("outcome"))).drop("outcome")

    def _version(self, exchange: Exchange) -> Dataset:
        """Run the exchanged stages on the earlier version, and after them the later ones as they were."""
        draft = Draft.of(self.before.manifest)
        first = min(PIPELINE.index(name) for name in exchange.settings)
        for name in PIPELINE[first:]:
            entry = self.before.manifest.stage(name)
            settings = exchange.settings.get(name, entry.config if entry else None)
            if settings is None:
                draft = _without(draft, name) if name in exchange.settings else draft
                continue
            dataset = Dataset(draft.manifest(), self.store.root)
            try:
                known, config = stage(name), _config(name, settings)
                progress = self.started(f"{exchange.key}: {name}", dataset.rows)
                draft = draft.with_stage(run_stage(self.store, dataset, known, config, progress), known.features)
            except (SftError, NotReplayedError) as error:
                if name in exchange.settings:
                    raise
                self.notes.append(f"{name} was not run again: {error}")
        if self.before.manifest.stage(REVIEW) and (carried := carry_reviews(self.store, draft)):
            draft = draft.with_stage(carried)
        return Dataset(draft.manifest(), self.store.root)


def _config(name: str, settings: Mapping[str, Any]) -> Config:
    """Make a stage's configuration of what a manifest recorded. Raises NotReplayedError where that needs a model."""
    if settings.get("scorers"):
        raise NotReplayedError("it needs the models that scored")
    model = stage(name).config
    config = model.model_validate({k: v for k, v in settings.items() if k in model.model_fields})
    return config.model_copy(update=_UNGUARDED) if name == "dedup" else config


def _without(draft: Draft, name: str) -> Draft:
    stages = tuple(entry for entry in draft.stages if entry.name != name)
    return replace(draft, stages=stages, files=tuple(file for file in draft.files if file.stage != name))


def _told(changes: pl.DataFrame, open_: pl.DataFrame, proven: pl.DataFrame, *, certain: bool) -> pl.DataFrame:
    """Write down what was found. `certain`: every stage was run again, so what no key makes comes of other rows."""
    asked = open_.select("word", "id", asked=pl.lit(value=True))
    joined = changes.join(proven, on=["word", "id"], how="left", maintain_order="left")
    joined = joined.join(asked, on=["word", "id"], how="left", maintain_order="left")
    unmade = pl.col("asked") & pl.col("proven").is_null() & (pl.col("cause") == "configuration") & pl.lit(value=certain)
    return joined.with_columns(
        cause=pl.when("whole").then(pl.lit("together")).when(unmade).then(pl.lit("other rows")).otherwise("cause"),
        keys=pl.when(unmade).then(pl.lit([], pl.List(pl.String))).otherwise(pl.coalesce("proven", "keys")),
    ).select(changes.columns)
