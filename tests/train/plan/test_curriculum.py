from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.plan.columns import LENGTHS, epoch_of, named, plan_of
from train.plan import Plan
from train.plan.curriculum import BUCKET_ROWS, in_order, scores_of
from train.text.tokens import Example, Tokens


def place_of(plan: Plan, epoch: int, records: int) -> npt.NDArray[np.float64]:
    """In which of an epoch's rows each record stands, as a share of them."""
    rows = [row for step in plan if step.epoch == epoch for row in step.rows]
    place = np.zeros(records)
    for number, row in enumerate(rows):
        place[list(row)] = number / len(rows)
    return place


def rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def test_the_first_epoch_goes_from_the_lowest_score_to_the_highest_and_later_ones_are_drawn() -> None:
    random = np.random.default_rng(1)
    lengths = np.minimum(random.lognormal(2.5, 0.8, 4000).astype(int) + 1, 64)
    scores = random.normal(size=4000)
    ordered = plan_of(named(lengths.tolist()), scores=scores, max_epochs=2)
    drawn = plan_of(named(lengths.tolist()), max_epochs=2)
    assert rank_correlation(place_of(ordered, 0, 4000), scores) > 0.98
    assert abs(rank_correlation(place_of(ordered, 1, 4000), scores)) < 0.1
    assert epoch_of(ordered, 0) == epoch_of(drawn, 0)
    assert list(ordered)[-1] == list(drawn)[-1]
    assert ordered.packing_efficiency > drawn.packing_efficiency - 0.02


def test_steps_within_a_bucket_are_mixed() -> None:
    """Rows there come in a drawn order, and so do the records of one length: few rows are sorted by score."""
    scores = np.arange(800.0)
    plan = plan_of(named([16] * 800), scores=scores)
    means = [np.mean(row) for step in plan for row in step.rows]
    rises = sum(b > a for a, b in pairwise(means)) / (len(means) - 1)
    assert 0.4 < rises < 0.7


@given(LENGTHS, st.data())
def test_an_ordered_epoch_is_a_permutation_and_its_order_is_part_of_the_digest(
    lengths: list[int], data: st.DataObject
) -> None:
    score = st.one_of(st.floats(-5, 5), st.just(float("nan")))
    scores = np.asarray(data.draw(st.lists(score, min_size=len(lengths), max_size=len(lengths))))
    plan, turned = (plan_of(named(lengths), scores=s, max_epochs=2) for s in (scores, -scores))
    assert epoch_of(plan, 0) == epoch_of(plan, 1) == dict.fromkeys(range(len(lengths)), 1)
    assert (plan.digest == turned.digest) == (list(plan) == list(turned))


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan"))), min_size=1, max_size=200), st.integers(1, 5000))
def test_buckets_hold_as_many_records_each_lowest_first_and_those_without_a_score_last(
    values: list[float], rows: int
) -> None:
    scores = np.asarray(values)
    bucket = in_order(scores, 0, rows)
    sizes = np.bincount(bucket)
    assert sizes[sizes > 0].max() - sizes[sizes > 0].min() <= 1
    known, unknown = bucket[~np.isnan(scores)], bucket[np.isnan(scores)]
    by_score = known[np.argsort(scores[~np.isnan(scores)], kind="stable")]
    assert (np.diff(by_score) >= 0).all()
    assert not len(known) or not len(unknown) or known.max() <= unknown.min()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 5000))
def test_records_without_a_place_in_the_order_are_spread_over_all_of_it(scored: int, others: int, rows: int) -> None:
    spread = np.bincount(in_order(np.arange(float(scored)), others, rows)[scored:], minlength=1)
    assert not others or spread.max() - spread[spread > 0].min() <= 1


def test_more_rows_make_more_buckets_so_that_each_can_be_filled() -> None:
    assert [len(set(in_order(np.arange(99.0), 0, rows))) for rows in (1, 3, 6, 10, 400, 99999)] == [1, 1, 3, 4, 8, 32]
    assert 400 // BUCKET_ROWS == 8


def tokens_of(**lengths: int) -> Tokens:
    return Tokens.of(
        [
            Example(name.replace("_", "#"), "a", 1.0, np.zeros(n, np.int32), np.ones(n, np.bool_))
            for name, n in lengths.items()
        ]
    )


def test_scores_are_found_by_id_also_for_the_parts_of_a_record() -> None:
    frame = pl.DataFrame({"id": ["c", "a", "x"], "score": [3.0, 1.0, 9.0]}, schema_overrides={"score": pl.Float32})
    tokens = tokens_of(a=3, b=4, c_1=5, c_2=6)
    np.testing.assert_equal(scores_of("quality", tokens, frame), [1.0, np.nan, 3.0, 3.0])
    np.testing.assert_equal(scores_of("-quality", tokens, frame), [-1.0, np.nan, -3.0, -3.0])


def test_tokens_orders_by_the_length_of_the_examples() -> None:
    assert scores_of("tokens", tokens_of(a=3, b=9), None).tolist() == [3.0, 9.0]
    assert scores_of("-tokens", tokens_of(a=3, b=9), None).tolist() == [-3.0, -9.0]
    with pytest.raises(ValueError, match="no scores to order by quality"):
        scores_of("quality", tokens_of(a=3), None)
