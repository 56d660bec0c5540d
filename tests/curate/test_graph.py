"""The log as a graph: parents, children, what made each version, runs; and a picture that shows nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.graph import Node, ancestry, below, draw, graph_of
from curate.pipeline import apply_stage
from curate.store import Store
from curate.terms import restate
from schemas.config import SplitConfig
from schemas.dataset import Dataset
from schemas.errors import UnknownReferenceError
from tests.rows import dataset_of, question, staged

ROWS = [question(f"What is {n}?", f"It is {n}.") for n in range(6)]


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    """Versions: 1 ingest, 2 split, 3 another source; 4 a split of version 2, 5 a licence on top of it."""
    first = dataset_of(tmp_path, {"s": ROWS})
    second = staged(first, "split")
    third = dataset_of(tmp_path, {"t": ROWS[:2]})
    store = Store(tmp_path)
    _, fourth = apply_stage(store, second, "split", SplitConfig(salt="x"), latest=third.manifest)
    restate(store, Dataset(fourth.manifest, tmp_path), "s", {"license": "MIT"})
    return third


def node(seq: int, *parents: int) -> Node:
    return Node(seq, "1.0.0", "", "", "", (), parents, (), None, 0, 0, (), ())


def picture(*nodes: Node) -> list[str]:
    return [line.lanes + (f" {line.node.seq}" if line.node else "") for line in draw(nodes)]


def test_versions_have_parents_children_and_what_made_them(mix: Dataset) -> None:
    store = Store(mix.root)
    store.tag("d", "golden", 2)
    store.register_run("r1", {"dataset": "d", "seq": 2, "loss_first": 2.0, "loss_last": 1.0})
    store.register_run("r2", {"dataset": "other", "seq": 2})
    graph = graph_of(store, "d")
    told = [(n.seq, n.parents, n.children, n.made_by, n.kept, n.change) for n in graph.nodes]
    assert told == [
        (5, (4,), (), ("licence s",), 6, 0),
        (4, (2,), (5,), ("split",), 6, 0),
        (3, (2,), (), ("ingest t",), 8, 2),
        (2, (1,), (3, 4), ("split",), 6, 0),
        (1, (), (2,), ("ingest s",), 6, 6),
    ]
    second = graph.nodes[3]
    assert (second.tags, [(r.run_id, r.loss_last) for r in second.runs]) == (("golden",), [("r1", 1.0)])
    assert [n.bump for n in graph.nodes] == ["patch", "major", "minor", "patch", None]
    assert [line.lanes for line in draw(graph.nodes)] == ["*", "*", "| *", "|/", "*", "*"]


def test_no_row_is_read(mix: Dataset) -> None:
    for path in (mix.root / "objects").rglob("*.arrow"):
        path.unlink()
    assert len(graph_of(Store(mix.root), "d").nodes) == 5


def test_the_ancestry_leaves_out_what_did_not_lead_to_a_version(mix: Dataset) -> None:
    assert [m.seq for m in ancestry(mix.root, mix.manifest)] == [3, 2, 1]
    latest = Store(mix.root).latest("d")
    assert latest
    assert [m.seq for m in ancestry(mix.root, latest)] == [5, 4, 2, 1]


def test_a_version_that_cannot_be_read_is_named_and_the_others_are_told(mix: Dataset) -> None:
    (mix.root / "datasets/d/versions/000005.json").write_text("{")
    (mix.root / "datasets/d/versions/000002.json").write_text("{")
    graph = graph_of(Store(mix.root), "d")
    assert [(n.seq, n.parents, n.made_by) for n in graph.nodes] == [(4, (), ()), (3, (), ()), (1, (), ("ingest s",))]
    assert [seq for seq, _ in graph.unreadable] == [2, 5]
    assert all("Invalid JSON" in problem for _, problem in graph.unreadable)


def test_a_dataset_that_is_not_there_is_a_clear_error(mix: Dataset) -> None:
    with pytest.raises(UnknownReferenceError, match="dataset 'nope'"):
        graph_of(Store(mix.root), "nope")


def test_lanes_meet_above_their_common_parent() -> None:
    assert picture(node(6, 2), node(5, 3), node(4, 2), node(3, 2), node(2, 1), node(1)) == [
        "* 6",
        "| * 5",
        "| | * 4",
        "| * | 3",
        "| |/",
        "|/",
        "* 2",
        "* 1",
    ] or picture(node(6, 2), node(5, 3), node(4, 2), node(3, 2), node(2, 1), node(1)) == [
        "* 6",
        "| * 5",
        "| | * 4",
        "| * | 3",
        "|_|/",
        "|/",
        "* 2",
        "* 1",
    ]


def test_a_lane_that_ends_leaves_no_line_below_it() -> None:
    lines = draw([node(2), node(1)])
    assert [below(lines, i) for i in range(2)] == [" ", " "]


@given(st.data())
def test_law_every_version_is_drawn_once_and_every_lane_leads_to_a_parent(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    nodes = [node(1)] + [node(seq, data.draw(st.integers(1, seq - 1))) for seq in range(2, count + 1)]
    lines = draw(nodes[::-1])
    assert [line.node.seq for line in lines if line.node] == list(range(count, 0, -1))
    assert lines[-1].lanes == "*"
    for line in lines:
        assert line.lanes.count("*") == (line.node is not None)
        assert len(line.lanes) <= 2 * count - 1
