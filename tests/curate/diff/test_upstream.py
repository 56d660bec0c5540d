"""Rows edited upstream: each removed row is paired with one added row at most, the likest first, in bounded work."""

from pathlib import Path
from typing import Any

import pytest

from curate.diff.changes import Diff, compare
from curate.diff.upstream import pair_upstream
from tests.rows import dataset_of, question


def row(i: int, answer: str, key: str) -> dict[str, Any]:
    return question(f"What does the {i}th log of the harbour master say about the ships of that day?", answer, key=key)


def said(i: int) -> str:
    return f"On day {i} the brig number {i} came in at {i} o'clock with wool, and left again before the night fell."


def paired(tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Diff:
    before, after = (dataset_of(tmp_path, {"s": rows}, name=name) for name, rows in (("a", old), ("b", new)))
    return pair_upstream(compare(before, after))


def test_equal_texts_under_other_keys_are_paired_without_being_read(tmp_path: Path) -> None:
    old = [row(i, said(i), f"k{i}") for i in range(4)]
    diff = paired(tmp_path, old, [r | {"key": f"new-{r['key']}"} for r in old])
    assert diff.counts["edited_upstream"] == 4
    assert set(diff.changes["confidence"]) == {1.0}


def test_two_equal_rows_find_one_partner_each(tmp_path: Path) -> None:
    old = [row(1, said(1), "a"), row(1, said(1), "b"), row(1, said(1), "c")]
    diff = paired(tmp_path, old, [row(1, said(1), "x"), row(1, said(1), "y")])
    assert (diff.counts["edited_upstream"], diff.counts["removed"], diff.counts["added"]) == (2, 1, 0)
    assert diff.changes["match"].drop_nulls().n_unique() == 2


def test_many_rows_that_were_all_edited_find_their_own(tmp_path: Path) -> None:
    old = [row(i, said(i), f"k{i}") for i in range(300)]
    new = [row(i, f"{said(i)} So it was told.", f"n{i}") for i in range(300)]
    diff = paired(tmp_path, old, new)
    assert diff.counts["edited_upstream"] == 300
    keys = dict(diff.after.scan(["id", "source_key"]).collect().iter_rows()) | dict(
        diff.before.scan(["id", "source_key"]).collect().iter_rows()
    )
    pairs = [(keys[i], keys[m]) for i, m in diff.changes.select("id", "match").iter_rows()]
    assert all(one[1:] == other[1:] for one, other in pairs)


def test_above_the_limit_only_equal_texts_are_paired_and_the_diff_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.diff.upstream.MOST_ROWS", 3)
    old = [row(i, said(i), f"k{i}") for i in range(5)]
    new = [row(0, said(0), "same"), *(row(i, f"{said(i)} So it was told.", f"n{i}") for i in range(1, 5))]
    diff = paired(tmp_path, old, new)
    assert (diff.counts["edited_upstream"], diff.counts["removed"], diff.counts["added"]) == (1, 4, 4)
    [note] = diff.notes
    assert note.startswith("source s: 4 removed and 4 added rows")
