"""Clusters are followed by their rows: each change is found once, backwards it is its opposite; leaks are found."""

from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from curate.diff.clusters import cluster_changes, leaks, relate
from curate.stage import StageResult
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import Dataset
from schemas.manifest import StageEntry
from schemas.record import VERDICT_SCHEMA
from schemas.stages import ANNOTATION_COLUMNS
from tests.rows import dataset_of, question

OPPOSITE = {"born": "gone", "merged": "split", "grown": "shrunk"} | {
    "gone": "born",
    "split": "merged",
    "shrunk": "grown",
}


def members(clusters: dict[str, str]) -> pl.DataFrame:
    """Rows in clusters: {"A": "12"} is a cluster A of the rows 1 and 2."""
    rows = [{"id": row, "cluster": name} for name, rows in clusters.items() for row in rows]
    return pl.DataFrame(rows, schema={"id": pl.String, "cluster": pl.String})


def related(old: dict[str, str], new: dict[str, str]) -> list[tuple[str, int, int]]:
    return [(c.kind, c.before, c.after) for c in relate(members(old), members(new))]


def test_each_kind_of_change_has_its_word() -> None:
    assert related({}, {"A": "12"}) == [("born", 0, 2)]
    assert related({"A": "12"}, {}) == [("gone", 2, 0)]
    assert related({"A": "12", "B": "34"}, {"A": "1234"}) == [("merged", 4, 4)]
    assert related({"A": "1234"}, {"A": "12", "B": "34"}) == [("split", 4, 4)]
    assert related({"A": "12"}, {"A": "123"}) == [("grown", 2, 3)]
    assert related({"A": "123"}, {"A": "12"}) == [("shrunk", 3, 2)]
    assert related({"A": "12"}, {"A": "13"}) == [("changed", 2, 2)]


def test_another_name_is_no_change() -> None:
    assert related({"A": "12", "B": "34"}, {"X": "12", "Y": "34"}) == []


partitions = st.dictionaries(st.sampled_from("123456789"), st.sampled_from("ABCD")).map(
    lambda rows: {c: "".join(r for r in rows if rows[r] == c) for c in sorted(set(rows.values()))}
)


@given(partitions, partitions)
def test_backwards_every_change_is_its_opposite(old: dict[str, str], new: dict[str, str]) -> None:
    forward = [(OPPOSITE.get(kind, kind), after, before) for kind, before, after in related(old, new)]
    assert sorted(forward) == sorted(related(new, old))


def clustered(
    dataset: Dataset, clusters: dict[int, str], splits: dict[int, str], *, conflicts: bool = False
) -> Dataset:
    """Commit opinions of dedup and split by row number; the other rows have no cluster and stand in train."""
    store, draft = Store(dataset.root), Draft.of(dataset.manifest)
    [shard] = dataset.shards
    columns: dict[str, dict[str, list[Any]]] = {
        "dedup": {"conflict_id" if conflicts else "cluster_id": [clusters.get(i) for i in range(shard.rows)]},
        "split": {"split": [splits.get(i, "train") for i in range(shard.rows)]},
    }
    for stage, known in columns.items():
        schema = pl.Schema({**VERDICT_SCHEMA, **ANNOTATION_COLUMNS[stage]})
        frame = pl.DataFrame({c: known.get(c, [None] * shard.rows) for c in schema}, schema=schema)
        file = store.put(frame, role="annotation", stage=stage, source=shard.source, shard=shard.number)
        entry = StageEntry(name=stage, version=1, config={"salt": "s"}, reads="0" * 64, seconds=0.0)
        draft = draft.with_stage(StageResult(entry, (file,)))
    return Dataset(commit_version(store, draft, dataset.manifest, "clusters").manifest, dataset.root)


def rows(root: Path) -> Dataset:
    return dataset_of(root, {"s": [question(f"Lamp {i}?", f"It is lit {i} times.", key=str(i)) for i in range(8)]})


def test_changes_are_told_with_their_rows(tmp_path: Path) -> None:
    plain = rows(tmp_path)
    before = clustered(plain, {0: "A", 1: "A", 2: "B", 3: "B"}, {})
    after = clustered(before, {0: "A", 1: "A", 2: "A", 3: "A", 5: "C", 6: "C"}, {})
    counts, examples = cluster_changes(before, after)
    assert {kind: n for kind, n in counts.items() if n} == {"merged": 1, "born": 1}
    assert [sorted(place for _, place in c.rows) for c in examples] == [["s:1", "s:2", "s:3", "s:4"], ["s:6", "s:7"]]
    assert cluster_changes(after, after) == (dict.fromkeys(counts, 0), ())
    assert cluster_changes(plain, after)[1] == (), "dedup ran in one of them only"


def test_a_cluster_on_both_sides_of_the_split_is_a_leak(tmp_path: Path) -> None:
    torn = clustered(
        rows(tmp_path), {0: "A", 1: "A", 2: "B", 3: "B", 4: "B"}, {1: "val", 2: "test", 3: "test", 4: "test"}
    )
    [leak] = leaks(torn)
    assert leak.cluster == "A"
    assert sorted((place, split) for _, place, split in leak.rows) == [("s:1", "train"), ("s:2", "val")]
    whole = clustered(torn, {0: "A", 1: "A"}, {0: "val", 1: "test"})
    assert leaks(whole) == (), "val and test are both for evaluation"


def test_the_same_question_on_both_sides_is_a_leak_too(tmp_path: Path) -> None:
    torn = clustered(rows(tmp_path), {0: "Q", 1: "Q"}, {1: "test"}, conflicts=True)
    assert [leak.cluster for leak in leaks(torn)] == ["Q"]
