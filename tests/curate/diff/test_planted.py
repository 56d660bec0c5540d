"""A diff finds exactly the changes that were planted, each attributed to what made it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curate.diff.attribution import attribute
from curate.diff.changes import WORDS, Diff, compare
from curate.diff.replay import replay
from curate.diff.upstream import pair_upstream
from curate.store import Store
from tests.curate.diff.planted import Planned, Planted, plant, told


def found(diff: Diff, planted: Planted) -> list[Planned]:
    """Give the changes as the plan has them."""
    key_of = planted.key_of
    return [
        Planned(
            row["word"], key_of[row["id"]], row["stage"], tuple(row["by"]), row["cause"], tuple(row["keys"]),
            tuple(row["fields"]), key_of.get(row["match"]),
        )
        for row in diff.changes.iter_rows(named=True)
    ]  # fmt: skip


def check(planted: Planted) -> Diff:
    diff = attribute(pair_upstream(compare(planted.before, planted.after)))
    found_, plan = Counter(found(diff, planted)), Counter(planted.plan)
    assert (list((found_ - plan).elements()), list((plan - found_).elements())) == ([], [])
    assert {word for word, n in diff.counts.items() if n} == set(WORDS)
    assert diff.bump == "major"
    return diff


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    given = {s: [told(f"{s} row {n}", f"k{n}") for n in range(14)] for s in ("alpaca", "dolly", "openorca")}
    return plant(tmp_path_factory.mktemp("planted") / "store", given, 2, shard_rows=10)


def test_every_planted_change_is_found_and_attributed_and_nothing_else(small: Planted) -> None:
    check(small)


def test_a_replay_leaves_of_each_change_the_key_that_makes_it(small: Planted) -> None:
    """Of the three keys of select that differ, the quota alone left rows out, and the weight alone weighed others."""
    diff = replay(Store(small.before.root), check(small))
    proven = [dataclasses.replace(p, keys=p.keys if p.proven is None else p.proven) for p in small.plan]
    assert Counter(found(diff, small)) == Counter(proven)
    assert diff.notes == ()


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give real rows as `plant` takes them, those first whose answer is some plain sentences."""
    made = [
        {**r, "messages": [(m["role"], m["content"]) for m in r["messages"]], "key": f"k{n}"}
        for n, r in enumerate(rows)
    ]

    def is_plain(row: dict[str, Any]) -> bool:
        said = row["messages"][-1][1]
        return said.endswith(".") and said.isascii() and 20 <= len(said.split()) <= 120 and "\n" not in said

    return sorted(made, key=lambda row: not is_plain(row))


@pytest.mark.realdata
def test_among_real_rows_exactly_the_planted_changes_are_found(
    tmp_path: Path, real_rows: dict[str, list[dict[str, Any]]]
) -> None:
    """Must show 1: 12,500 real rows, every kind of change planted in them."""
    given = {source: plain(rows) for source, rows in real_rows.items()}
    check(plant(tmp_path / "store", given, 7, shard_rows=4_000))
