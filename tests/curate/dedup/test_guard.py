"""Contracts of the guard: it stops at the first row over the share, names how to allow it, and shows what for."""

import re

import polars as pl
import pytest

from curate.dedup import STAGE
from curate.dedup.guard import BlastRadiusError, check_rows, guard
from curate.dedup.preview import preview, stopped_by
from curate.dedup.search import LINKS
from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Shard
from schemas.errors import InputError
from tests.curate.conftest import chat, make_dataset, run_on

LONG = " ".join(f"word{i}" for i in range(60))


def shards(store: Store, **rows: int) -> tuple[Shard, ...]:
    """Sources of different rows, two shards each where there is more than one row."""
    sources = {name: [chat(f"{name} {i}?", f"It is {i}.") for i in range(n)] for name, n in rows.items()}
    return make_dataset(store, sources, shard_rows=max(1, max(rows.values()) // 2)).shards


def links(*pairs: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame([(row, of, 0.9, False) for row, of in pairs], schema=LINKS, orient="row")


def check(parts: tuple[Shard, ...], going: pl.DataFrame, **settings: float) -> None:
    guard(parts, [s.rows for s in parts], going, DedupConfig.model_validate({"guard_rows": 1, **settings}))


def test_a_source_at_the_share_passes_and_one_row_more_stops(store: Store) -> None:
    """Source b: rows 10 to 15; each goes with a row of its own, so that no cluster is large."""
    parts = shards(store, a=10, b=6)
    going = [(10, 0), (11, 1), (12, 2)]
    check(parts, links(*going))
    with pytest.raises(BlastRadiusError, match=r"source b would lose 4 of 6 rows; expected at most 50% of a source"):
        check(parts, links(*going, (13, 3)))


@pytest.mark.parametrize(("going", "share"), [(29, 0.29), (57, 0.57), (58, 0.58)])
def test_a_share_that_no_float_holds_exactly_is_still_met(going: int, share: float, store: Store) -> None:
    """0.29 * 100 is 28.999999999999996: the loss is compared as a share, not as a number of rows."""
    parts = shards(store, a=100, b=100)
    pairs = [(i, 100 + i) for i in range(going + 1)]
    check(parts, links(*pairs[:-1]), max_source_loss=share)
    with pytest.raises(BlastRadiusError, match=f"lose {going + 1} of 100"):
        check(parts, links(*pairs), max_source_loss=share)


def test_a_cluster_at_the_share_passes_and_one_row_more_stops(store: Store) -> None:
    parts = shards(store, a=10, b=10)
    check(parts, links((1, 0), (2, 0)))
    with pytest.raises(
        BlastRadiusError, match=r"one cluster would lose 3 of 20 rows; .*10% of all rows by one cluster"
    ):
        check(parts, links((1, 0), (2, 0), (11, 0)))


def test_fewer_rows_than_guard_rows_may_always_go(store: Store) -> None:
    parts = shards(store, a=10)
    going = links(*((i, 0) for i in range(1, 10)))
    check(parts, going, guard_rows=10)
    with pytest.raises(BlastRadiusError):
        check(parts, going, guard_rows=9)


def test_rows_that_are_not_judged_do_not_count_as_rows_of_the_source(store: Store) -> None:
    """Two of four judged rows are half, however many others there are."""
    (part,) = make_dataset(store, {"a": [chat(f"{i}?", "It is.") for i in range(10)]}).shards
    config = DedupConfig(guard_rows=1, max_cluster_loss=1)
    guard([part], [4], links((1, 0), (2, 0)), config)
    with pytest.raises(BlastRadiusError, match="lose 3 of 4 rows"):
        guard([part], [4], links((1, 0), (2, 0), (3, 0)), config)


@pytest.mark.parametrize("going", [[(10, 0), (11, 1), (12, 2), (13, 3)], [(1, 0), (2, 0), (3, 0)]])
def test_the_remedy_names_a_value_that_lets_it_pass(going: list[tuple[int, int]], store: Store) -> None:
    parts = shards(store, a=10, b=6)
    with pytest.raises(BlastRadiusError) as stopped:
        check(parts, links(*going))
    typed = re.findall(r"--(max-[a-z]+-loss) ([0-9.]+)", str(stopped.value))
    in_recipe = re.findall(r"(max_[a-z]+_loss) = ([0-9.]+) under \[dedup\]", str(stopped.value))
    assert [(name.replace("-", "_"), value) for name, value in typed] == in_recipe
    assert in_recipe
    check(parts, links(*going), **{name: float(value) for name, value in in_recipe})


def test_the_error_holds_the_largest_clusters_of_the_source_that_it_is_about(store: Store) -> None:
    """Source a has the largest cluster, which is no reason to stop; what b would lose comes first."""
    parts = shards(store, a=100, b=4)
    going = [*((i, 0) for i in range(1, 10)), (100, 50), (101, 51), (102, 51)]
    with pytest.raises(BlastRadiusError) as stopped:
        check(parts, links(*going))
    assert stopped.value.clusters == ((51, 2), (50, 1), (0, 9))
    assert (stopped.value.going, stopped.value.exit_code) == (12, 1)


def test_where_no_row_is_kept_there_is_nothing_to_compare(store: Store) -> None:
    """The stage itself runs over nothing, as every stage does: a recipe goes on."""
    broken = [chat("q?", "a", broken="ingest:wrong_type")] * 2
    check_rows(make_dataset(store, {"a": broken, "b": [chat("q?", "a")]}))
    dataset = make_dataset(store, {"a": broken})
    with pytest.raises(
        InputError, match=r"dedup, test@1: no row to compare: all 2 are rejected; expected at least one"
    ):
        check_rows(dataset)
    with pytest.raises(InputError, match="no row to compare"):
        preview(dataset, DedupConfig())
    with pytest.raises(InputError, match="test@1: no rows"):
        check_rows(make_dataset(store, {"a": []}))


def test_the_stage_stops_and_its_clusters_can_be_read(store: Store) -> None:
    rows = [chat("q?", f"{LONG} {tail}") for tail in ("one", "two", "three")]
    dataset = make_dataset(store, {"a": rows, "b": [chat("Another?", "It is another.")]})
    with pytest.raises(
        BlastRadiusError, match=r"source a would lose 2 of 3 rows; one cluster would lose 2 of 4"
    ) as stop:
        run_on(store, dataset, STAGE, DedupConfig(guard_rows=2))
    (cluster,) = stopped_by(stop.value, store.root)
    assert cluster.size == 2
    texts = [cluster.kept.turns[1].text, *(pair.row.turns[1].text for pair in cluster.pairs)]
    assert sorted(texts) == sorted(row["messages"][1]["content"] for row in rows)
