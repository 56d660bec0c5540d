"""Drift: the statistics are those of scipy, and say nothing where nothing moved."""

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from curate.diff.drift import FEWEST_ROWS, drifts, kolmogorov_smirnov, total_variation
from curate.measures import Measured, edges

values = st.lists(st.integers(0, 12), min_size=FEWEST_ROWS, max_size=120)


@given(values, values)
def test_the_distance_and_its_p_are_those_of_scipy(one: list[int], other: list[int]) -> None:
    statistic, p = kolmogorov_smirnov(pl.Series([*one, None]), pl.Series(other))
    expected = stats.ks_2samp(one, other, method="asymp")
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(stats.kstwobign.sf(statistic * np.sqrt(len(one) * len(other) / (len(one) + len(other)))))
    assert p == pytest.approx(expected.pvalue, abs=0.1), "scipy corrects the limit for small samples"


@given(st.lists(st.sampled_from("abc"), min_size=40, max_size=90), st.lists(st.sampled_from("abc"), min_size=40))
def test_the_distance_of_shares_is_half_their_difference(one: list[str], other: list[str]) -> None:
    statistic, p = total_variation(pl.Series(one), pl.Series(other))
    by_hand = sum(abs(one.count(c) / len(one) - other.count(c) / len(other)) for c in "abc") / 2
    assert statistic == pytest.approx(by_hand)
    table = [[side.count(c) for c in "abc"] for side in (one, other)]
    small = min(len(one), len(other)) / (len(one) + len(other))
    assume(all(sum(column) * small >= 5 for column in zip(*table, strict=True)))
    assert p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_what_is_unknown_counts_as_a_name() -> None:
    statistic, _ = total_variation(pl.Series(["en", "en", None, None]), pl.Series(["en", "en", "en", "en"]))
    assert statistic == 0.5


def test_too_few_rows_have_a_distance_and_no_p() -> None:
    few, many = pl.Series(range(FEWEST_ROWS - 1)), pl.Series(range(FEWEST_ROWS))
    assert kolmogorov_smirnov(few, many)[1] is None
    assert kolmogorov_smirnov(many, many) == (0.0, 1.0)
    assert total_variation(pl.Series(["a"]), pl.Series(["b"])) == (1.0, None)


def measured(source: str, turns: list[int]) -> pl.DataFrame:
    empty = dict.fromkeys(("words", "quality", "score", "language", "task"))
    return pl.DataFrame({"source": source, "split": "train", "tokens": turns, "turns": turns, **empty})


def test_each_source_that_both_have_is_compared_and_then_all_rows() -> None:
    before = pl.concat([measured("a", [2] * 40), measured("b", [2] * 40)])
    after = pl.concat([measured("a", [2] * 40), measured("b", [4] * 40), measured("c", [6] * 40)])
    found = {(d.source, d.measure): d for d in drifts(Measured(before), Measured(after))}
    assert set(found) == {(source, measure) for source in ("a", "b", "all") for measure in ("tokens", "turns")}
    assert [found[source, "turns"].statistic for source in ("a", "b")] == [0.0, 1.0]
    assert found["all", "turns"].statistic == pytest.approx(2 / 3)


def test_the_two_histograms_can_be_laid_over_each_other() -> None:
    before, after = measured("a", list(range(1, 90))), measured("a", [*range(1, 90), 5_000])
    for drift in drifts(Measured(before), Measured(after)):
        assert getattr(drift.before, "edges", ()) == getattr(drift.after, "edges", ()) == edges([after["turns"]])
