"""Records that cannot be trained on, and why: in columns, so that a million of them cost no million objects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa

from schemas.errors import ModelError

FATAL = ("template_error", "dropped", "no_stop", "unproven")
"""Refusals that condemn the template or tokenizer; the others condemn one record."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("tokens", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that cannot be trained on, or not whole, and why: reason, and the evidence."""

    id: str
    source: str
    reason: str
    detail: str
    tokens: int | None = None


class Refusals(Sequence[Refusal]):
    """Refusals in columns, in input order."""

    def __init__(self, table: Any) -> None:  # a pyarrow.Table, which tells no types
        self.table = table

    @classmethod
    def of(cls, refusals: Sequence[Refusal]) -> "Refusals":
        """Copy refusals into columns. Columns that are there already are given as they are."""
        if isinstance(refusals, Refusals):
            return refusals
        columns = {name: [getattr(refusal, name) for refusal in refusals] for name in SCHEMA.names}
        return cls(pa.table(columns, schema=SCHEMA))

    @classmethod
    def joined(cls, parts: Sequence["Refusals"]) -> "Refusals":
        """Put several one after another."""
        return cls(pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)]))

    def by_reason(self) -> dict[str, dict[str, int]]:
        """Count them: reason -> source -> records, each in the order of the names."""
        counted = self.table.group_by(["reason", "source"]).aggregate([("id", "count")])
        found: dict[str, dict[str, int]] = {}
        for row in counted.sort_by([("reason", "ascending"), ("source", "ascending")]).to_pylist():
            found.setdefault(row["reason"], {})[row["source"]] = row["id_count"]
        return found

    def raise_fatal(self, name: str, total: int) -> None:
        """Raise ModelError, naming the first record and how many there are, where the template is to blame."""
        reasons = np.asarray(self.table["reason"].to_pylist(), np.str_)
        fatal = self.table.filter(pa.array(np.isin(reasons, FATAL)))
        if not fatal.num_rows:
            return
        first = Refusal(**fatal.slice(0, 1).to_pylist()[0])
        raise ModelError(
            f"chat template of {name}",
            f"{first.detail} (record {first.id}, source {first.source}; {fatal.num_rows} of {total} records)",
            "every turn in the rendered text, each assistant turn closed by a stop token",
            "reject these records in the dataset, or give the tokenizer another chat_template",
        )

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, at: int) -> Refusal: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Refusal, ...]: ...
    def __getitem__(self, at: int | slice) -> Refusal | tuple[Refusal, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(f"refusal {at} of {len(self)}")
        return Refusal(**self.table.slice(at % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Refusal]:
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from (Refusal(**row) for row in batch.to_pylist())
