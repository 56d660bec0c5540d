"""Candidates: the rows of a version among which a strategy looks, with what all stages and reviewers said of them."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from curate.review.responses import VERDICTS, read_ledger
from curate.select import chance
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.review_config import PushConfig
from schemas.stages import ANNOTATION_COLUMNS, STAGES

NUMBERS = ("quality", "score", "learned", "judge", "ifd", "perplexity")
"""Columns by which rows are ordered, and that reviewers see."""


@dataclass(frozen=True)
class Candidates:
    """The rows of a version among which a strategy looks, and what it was asked."""

    dataset: Dataset
    config: PushConfig

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.manifest.name

    @cached_property
    def all(self) -> pl.DataFrame:
        """All rows that could be read, of the source that was asked for.

        Adds: shard, row (its place in the shard), place (by chance), and the columns that strategies read.
        """
        stages = [stage for stage in STAGES if stage != "ingest" and self.dataset.manifest.stage(stage)]
        verdicts = [f"verdict_{stage}" for stage in stages]
        numbers = [name for name in NUMBERS if any(name in columns for columns in ANNOTATION_COLUMNS.values())]
        own = ["flags", "entities", "matches", "cluster_id", "duplicate_of", "jaccard", "conflict_id", "review_status"]
        read = ["id", "source", "content_hash", "kept", "reject_reason", "verdict_ingest", *verdicts, *numbers, *own]
        parts = [
            shard.view(read).with_row_index("row").with_columns(shard=pl.lit(number, pl.UInt32)).collect()
            for number, shard in enumerate(self.dataset.shards)
            if self.config.source in (None, shard.source)
        ]
        if not parts:
            raise ConfigError(
                self.where, "the version has no rows", remedy=f"sft curate ingest adds some to {self.name}"
            )
        rows = pl.concat(parts).filter(pl.col("verdict_ingest").is_null())
        return rows.with_columns(
            pl.Series("place", chance(rows["id"], self.config.seed), dtype=pl.UInt64),
            *(pl.col(name).cast(pl.Float64).fill_nan(None) for name in numbers),
        )

    @cached_property
    def open(self) -> pl.DataFrame:
        """Those that nobody has decided yet; with `again` all of them."""
        return self.all if self.config.again else self.all.filter(pl.col("review_status").ne_missing("decided"))

    @property
    def kept(self) -> pl.DataFrame:
        """Those of them that a trainer may see."""
        return self.open.filter("kept")

    def texts(self, ids: pl.Series) -> pl.DataFrame:
        """Read the texts of a few rows, one shard after the other. Gives: id, messages, context."""
        wanted = pl.LazyFrame({"id": ids})
        some = ["id", "messages", "context"]
        parts = [s.view(some).join(wanted, on="id", how="semi").collect() for s in self.dataset.shards]
        return pl.concat(parts)

    @cached_property
    def answered(self) -> pl.DataFrame:
        """What reviewers said so far, where it is a verdict, as RESPONSES has it."""
        counts = (pl.col("status") == "submitted") & pl.col("verdict").is_in(VERDICTS)
        return read_ledger(self.dataset).filter(counts)

    @cached_property
    def marked(self) -> pl.DataFrame:
        """List what every stage said about the rows, one line for each reason of a row. Gives: id, reason."""
        frame = self.all
        verdicts = [c for c in frame.columns if c.startswith("verdict_")]
        kinds = pl.col("entities").list.eval(pl.lit("pii:") + pl.element().struct.field("kind"))
        said = [
            *(frame.select("id", reason=name) for name in verdicts),
            frame.select("id", reason="flags").explode("reason"),
            frame.select("id", reason=kinds).explode("reason"),
        ]
        for number, shard in enumerate(self.dataset.shards):
            own = frame.filter(pl.col("shard") == number).select("row", "id")
            for stage in shard.overlays if own.height else ():
                edits = pl.scan_ipc(shard.overlays[stage]).select("row", reason="edits").explode("reason").collect()
                said.append(own.join(edits, on="row").select("id", "reason"))
        reasons = pl.concat([part.with_columns(pl.col("reason").cast(pl.String)) for part in said])
        return reasons.drop_nulls("reason").unique(maintain_order=True)

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Count the rows of each reason, most first."""
        counts = self.marked["reason"].value_counts().sort("count", "reason", descending=[True, False])
        return dict(counts.iter_rows())

    def standing(self, ids: pl.Series) -> pl.DataFrame:
        """Give the share of the kept rows that stand below a row, for each column of numbers; null for no number.

        Gives: id, and the columns of NUMBERS that the version has.
        """
        kept = self.all.filter("kept")
        numbers = [n for n in NUMBERS if n in kept.columns and kept[n].null_count() < kept.height]
        ranks = [(pl.col(n).rank("min") - 1) / pl.col(n).count() for n in numbers]
        return kept.select("id", *ranks).filter(pl.col("id").is_in(ids.implode()))

    def ran(self, stage: str) -> bool:
        """Say whether a stage ran."""
        return self.dataset.manifest.stage(stage) is not None

    def needs(self, stage: str, options: str = "") -> None:
        """Raise ConfigError where a stage that the strategy reads has not run."""
        if not self.ran(stage):
            found = f"the stage {stage} has not run on {self.name}@{self.dataset.manifest.seq}"
            raise ConfigError(self.where, found, remedy=f"run sft curate {stage} {self.name}{options}")

    @property
    def where(self) -> str:
        """Name the choice for errors."""
        return f"review of {self.name}, --select {self.config.select}"
