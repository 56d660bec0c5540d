"""Edits: the fixes at work, and the sparse overlay that they leave.

A vectorised filter finds the rows that a fix may change; only these are rewritten, in Python. The rows that changed
are looked at again until nothing changes any more, so that fixing what was fixed changes nothing. A text that a fix
wrote is normalised at once: what it set free (a blank at the end, a mark of no width) would be the next run's edit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from curate.normalize import normalize_text
from curate.rules.facts import facts
from curate.rules.rule import Field, Rule
from schemas.config import NormalizeConfig
from schemas.errors import ConfigError
from schemas.record import OVERLAY_SCHEMA, content_hash

_ROUNDS = 12
"""More rounds than any text needs; a fix that still finds something then feeds on what it writes."""
_ROLE: dict[Field, str] = {"answer": "assistant", "user": "user", "system": "system"}


def edit(frame: pl.DataFrame, fixes: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fix rows. Reads: row, messages, context, content_hash, and the columns of `facts`.

    Gives the frame as it is afterwards, with the rows that changed at its end, and the overlay (OVERLAY_SCHEMA).
    Raises ConfigError for a fix that never comes to an end.
    """
    edits: dict[int, list[str]] = {}
    before: dict[int, str] = {}
    changing = frame
    for _ in range(_ROUNDS):
        changed = _once(changing, fixes)
        if not changed:
            break
        for row in changed:
            edits.setdefault(row["row"], []).extend(row.pop("edits"))
            before.setdefault(row["row"], row["content_hash"])
            row["content_hash"] = content_hash(row["messages"], row["context"])
        again = pl.DataFrame(changed, schema=frame.select("row", "messages", "context", "content_hash").schema)
        changing = facts(again.lazy()).collect().select(frame.columns)
        frame = pl.concat([frame.filter(~pl.col("row").is_in(again["row"].implode())), changing])
    else:
        last = edits[changing["row"][0]][-1]
        raise ConfigError(
            f"rule {last}", "what it writes matches again, without end", "a replacement that comes to rest"
        )
    rows = sorted(edits)
    names = [[fix.name for fix in fixes if fix.name in edits[row]] for row in rows]
    log = pl.DataFrame(
        {"row": rows, "before_hash": [before[row] for row in rows], "edits": names},
        schema={name: OVERLAY_SCHEMA[name] for name in ("row", "before_hash", "edits")},
    )
    texts = frame.select(pl.col("row").cast(pl.UInt32), "messages", "context", "content_hash")
    return frame, log.join(texts, on="row", how="left", maintain_order="left").select(list(OVERLAY_SCHEMA))


def _once(frame: pl.DataFrame, fixes: Sequence[Rule]) -> list[dict[str, Any]]:
    """Let each fix work once on the rows that it matches. Gives the rows that changed, with their edits."""
    if not fixes:
        return []
    found = frame.lazy().select(
        pl.col("row", "messages", "context", "content_hash"),
        *(fix.matches.fill_null(value=False).alias(fix.name) for fix in fixes),
    )
    changed: list[dict[str, Any]] = []
    for row in found.filter(pl.any_horizontal([fix.name for fix in fixes])).collect().iter_rows(named=True):
        after = {name: row[name] for name in ("row", "messages", "context", "content_hash")}
        after["messages"] = [dict(message) for message in row["messages"]]
        after["edits"] = [fix.name for fix in fixes if row[fix.name] and _apply(fix, after)]
        changed += [after] if after["edits"] else []
    return changed


def _apply(fix: Rule, row: dict[str, Any]) -> bool:
    """Rewrite the texts of one row in place, and say whether anything changed."""
    if fix.rewrite is None:
        raise AssertionError(f"{fix.name} has no rewrite")
    on, text = fix.rewrite.on, fix.rewrite.text
    roles = [_ROLE[field] for field in on if field in _ROLE]
    changed = False
    for message in row["messages"]:
        if message["role"] in roles and message["content"]:
            before, message["content"] = message["content"], _tidy(message["content"], text)
            changed |= before != message["content"]
    if row["context"] and "context" in on:
        before, row["context"] = row["context"], _tidy(row["context"], text) or None
        changed |= before != row["context"]
    return changed


def _tidy(before: str, rewrite: Callable[[str], str]) -> str:
    after = rewrite(before)
    return after if after == before else normalize_text(after, NormalizeConfig(), set())
