"""Lines over steps: binned without loss of what matters, and drawn with nothing that a page may not have."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.report.curves import POINTS, Line, Mark, binned, lines, moving_mean
from schemas.run_files import Curve, curve
from tests.curate.report.accounts import SCRIPT


def of(values: list[float]) -> Curve:
    return curve(enumerate(values))


@given(hnp.arrays(np.float64, st.integers(1, 2000), elements=st.floats(-1e6, 1e6)))
def test_a_binned_curve_is_short_keeps_the_mean_and_its_bounds_hold_every_value(values: np.ndarray) -> None:
    made = of([float(v) for v in values])
    means, low, high = binned(made)
    assert len(means) <= POINTS
    assert low.min() == values.min()
    assert high.max() == values.max()
    assert np.all(means.value >= low - 1e-6)
    assert np.all(means.value <= high + 1e-6)
    if len(values) % POINTS == 0:
        assert means.value.mean() == pytest.approx(values.mean(), abs=1e-6)


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e3, 1e3)))
def test_a_moving_mean_stays_within_the_values_and_leaves_a_constant_as_it_is(values: np.ndarray) -> None:
    made = moving_mean(of([float(v) for v in values]))
    assert len(made) == len(values)
    assert made.value.min() >= values.min() - 1e-6
    assert made.value.max() <= values.max() + 1e-6
    assert moving_mean(of([3.0] * len(values))).value == pytest.approx(3.0)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [0.0, -1.0], [1e-9, 1e9], list(range(1000))])
@pytest.mark.parametrize("log", [False, True])
def test_any_curve_is_drawn(values: list[float], *, log: bool) -> None:
    made = lines("a", "Loss", [Line("it", of(values), "after", "dots"), Line("it", of(values), "s0", "raw")], log=log)
    assert made.startswith("<svg")
    assert "NaN" not in made
    assert "nan" not in made


def test_a_chart_has_no_style_no_definition_and_no_reference() -> None:
    """Definitions are left out of our SVG, so nothing may be drawn by way of one; the policy forbids inline style."""
    long = of([float(v) for v in np.random.default_rng(0).normal(2, 1, 5000)])
    drawn = [Line("raw", long, "before", "raw"), Line("smooth", long, "before", "smooth"),
             Line("dots", of([1.0, 2.0, 3.0]), "after", "dots")]  # fmt: skip
    made = lines("a", SCRIPT, drawn, size="wide", marks=[Mark(2, SCRIPT)], trouble=of([9.0] * 100))
    assert not re.search(r"<use|<defs|href|style=|<script", made)
    assert made.count("f-before") >= 1, "the spread of the raw line is there"
    assert len(re.findall(r's-gone"', made)) >= 3, "100 dots are three paths"
    assert lines("a", SCRIPT, drawn, size="wide") == lines("a", SCRIPT, drawn, size="wide")


def test_a_chart_says_in_words_where_its_lines_begin_and_end() -> None:
    made = lines("a", "Loss", [Line("training", of([2.5, 2.0, 1.25]), "before")])
    assert "training goes from 2.5 at step 0 to 1.25 at step 2." in made


def test_a_line_of_one_point_is_a_dot() -> None:
    """A path of one point draws nothing."""
    made = lines("a", "Loss", [Line("training", of([2.0]), "before", "smooth")])
    assert 'stroke-linecap="round"' in made


def test_rules_stand_at_round_values() -> None:
    made = lines("a", "Rate", [Line("rate", of([0.0, 2e-3]), "after")], from_zero=True)
    for value in (">0<", ">1e-3<", ">2e-3<"):
        assert value in made
