"""What a noisy curve says: laws of slopes, rises and noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.run_files import curve
from train.verdict.finding import beyond_chance
from train.verdict.trend import chance_of_rise, noise_sd, rise_of, slope_of, smoothed, tau

values = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


@given(values)
def test_tau_depends_on_the_order_alone_and_turns_with_it(held: list[float]) -> None:
    made = np.round(np.array(held), 6)
    assert -1 <= tau(made) <= 1
    assert tau(made) == tau(np.exp(made / 10))
    assert tau(made[::-1]) == pytest.approx(-tau(made))


@given(values, st.floats(-50, 50), st.floats(0.1, 10))
def test_a_rise_moves_with_the_curve_and_grows_with_it(held: list[float], shift: float, scale: float) -> None:
    rise = rise_of(curve(enumerate(held)))
    again = rise_of(curve(enumerate(value * scale + shift for value in held)))
    if again.low_step == rise.low_step:  # ties may fall otherwise by rounding
        assert again.height == pytest.approx(rise.height * scale, abs=1e-6)
        assert again.noise == pytest.approx(rise.noise * scale, abs=1e-6)


@pytest.mark.parametrize(
    ("held", "height"),
    [
        ([3, 2, 1, 2, 3, 4], 1.0),  # above the lower neighbour of the lowest; the lower of the last two
        ([3, 2, 1, 2, 9], 0.0),  # two that follow are too few
        ([3, 3, 0, 3, 3, 3], 0.0),  # a single low one decides nothing
        ([3, 2, 1, 1, 1, 9], 0.0),  # nor does a single high one
        ([5, 4, 3, 2, 1], 0.0),
    ],
)
def test_no_single_point_makes_a_rise(held: list[float], height: float) -> None:
    assert rise_of(curve(enumerate(held))).height == height


def test_a_slope_is_found_within_its_standard_error() -> None:
    inside = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 1, 100)
        found = slope_of(curve((i, 0.02 * i + noise[i]) for i in range(100)))
        inside += abs(found.per_step - 0.02) < 2 * found.se
    assert inside >= 180


def test_noise_that_strays_together_widens_the_standard_error() -> None:
    steps = np.random.default_rng(0).normal(0, 1, 400)
    walked = np.convolve(steps, np.ones(10) / 10, "same")
    alone = slope_of(curve(enumerate(np.random.default_rng(1).permutation(walked))))
    assert slope_of(curve(enumerate(walked))).se > 2 * alone.se


def test_noise_is_told_from_a_trend() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 2000)
    assert noise_sd(noise + np.linspace(0, 50, 2000)) == pytest.approx(0.5, rel=0.1)


def test_a_window_longer_than_the_curve_has_no_means() -> None:
    assert len(smoothed(curve([(1, 1.0)]), 5)) == 0
    assert smoothed(curve(enumerate([1.0, 2.0, 3.0])), 2).value.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("chances", "held"),
    [
        ([], []),
        ([0.05], [True]),
        ([0.06], [False]),
        ([0.03, 0.02], [True, True]),  # 0.02 holds against 0.05 / 2, and then 0.03 alone against 0.05
        ([0.03, 0.03], [False, False]),
        ([0.04, 0.001, 0.5], [False, True, False]),
    ],
)
def test_several_tests_hold_by_their_rank(chances: list[float], held: list[bool]) -> None:
    assert beyond_chance(chances) == held


def test_chance_makes_a_rise_as_steep_as_often_as_it_says() -> None:
    rest = [chance_of_rise(curve(enumerate(np.random.default_rng(seed).normal(0, 1, 8)))) for seed in range(400)]
    assert np.mean(np.array(rest) <= 0.05) == pytest.approx(0.05, abs=0.02)
    assert chance_of_rise(curve(enumerate([1.0, 2.0, 3.0]))) < 1e-6
    rising = [1.0, 2.2, 2.9, 4.1]
    assert chance_of_rise(curve(enumerate(rising))) < 0.05
    assert chance_of_rise(curve(enumerate(rising[::-1]))) > 0.95
    assert chance_of_rise(curve(enumerate([1.0, 1.0, 1.0]))) == 1
    assert chance_of_rise(curve(enumerate([1.0, 2.0]))) == 1
