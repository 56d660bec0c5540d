"""The formats by name, with both directions: `parse` reads a row, `render` writes a record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curate.ingest import alpaca, dolly, openai, openorca, sharegpt
from curate.ingest.fields import Fields


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A format. `id` is the field that names a row, where there is one; both directions raise RowError."""

    name: str
    needs: str
    id: str | None
    parse: Callable[[Mapping[str, Any]], Fields]
    render: Callable[[Mapping[str, Any]], dict[str, Any]]


FORMATS = {
    form.name: form
    for form in (
        RowFormat("alpaca", alpaca.NEEDS, None, alpaca.parse, alpaca.render),
        RowFormat("dolly", dolly.NEEDS, None, dolly.parse, dolly.render),
        RowFormat("openorca", openorca.NEEDS, "id", openorca.parse, openorca.render),
        RowFormat("sharegpt", sharegpt.NEEDS, "id", sharegpt.parse, sharegpt.render),
        RowFormat("openai", openai.NEEDS, None, openai.parse, openai.render),
    )
}
