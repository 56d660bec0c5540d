"""A model beside its base: how numbers are written, and charts in which equal changes look equal."""

import re
from typing import Any

import pytest

from curate.report.differences import by_source, forest, signed, written
from tests.curate.report.test_evaluation import measures, summary


def sources(unit: str, **ends: tuple[float | None, float | None]) -> dict[str, Any]:
    """An account whose sources go from one perplexity, or share, to another."""
    name = {"perplexity": "perplexity", "share": "token_f1"}[unit]
    made = summary()
    made["by_source"] = {
        source: {"measures": measures(base=True) | {name: {"base": before, "tuned": after, "verdict": "better"}}}
        for source, (before, after) in ends.items()
    }
    return made


def bars(chart: str) -> list[float]:
    """The lengths of the bars between base and tuned: the only lines of that colour."""
    found = re.findall(r'<path[^>]*?d="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+"[^>]*?class="s-after"', chart)
    return [abs(float(a) - float(b)) for a, b in found]


def test_equal_changes_of_the_loss_are_equal_bars_whatever_the_perplexity() -> None:
    panel = by_source(sources("perplexity", a=(4.0, 2.0), b=(4e5, 2e5)), "perplexity")
    assert panel is not None
    low, high = bars(panel.chart)
    assert low == pytest.approx(high, abs=0.1)
    assert low > 5
    assert "powers of ten" in panel.notes[0]


def test_shares_are_on_an_even_scale_from_zero() -> None:
    panel = by_source(sources("share", a=(0.1, 0.2), b=(0.4, 0.6)), "token_f1")
    assert panel is not None
    low, high = bars(panel.chart)
    assert high == pytest.approx(2 * low, rel=0.01)
    assert ">0%<" in panel.chart


@pytest.mark.parametrize("ends", [(None, 4.0), (4.0, None)])
def test_a_source_without_a_finite_perplexity_is_not_drawn(ends: tuple[float | None, float | None]) -> None:
    assert by_source(sources("perplexity", a=ends), "perplexity") is None


@pytest.mark.parametrize("ends", [(4.0, 4.0), (0.0, 0.0), (1e300, 2e-300)])
def test_any_perplexities_are_drawn(ends: tuple[float, float]) -> None:
    panel = by_source(sources("perplexity", a=ends), "perplexity")
    assert panel is not None
    assert "nan" not in panel.chart.lower()


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [("share", 0.0391, "3.9%"), ("perplexity", 286.61, "286.61"), ("perplexity", 425499.9, "425,500"),
     ("perplexity", 3e26, "3.0e26"), ("perplexity", None, "infinite")],
)  # fmt: skip
def test_a_measure_is_as_long_as_can_be_read(unit: str, value: float | None, said: str) -> None:
    assert written(unit, value) == said


@pytest.mark.parametrize(("value", "said"), [(0.026, "+2.6 pp"), (-0.5, "\N{MINUS SIGN}50.0 pp"), (-1e-9, "0.0 pp")])
def test_a_difference_has_its_sign_where_it_is_one(value: float, said: str) -> None:
    assert signed("share", value) == said


def test_the_forest_says_each_difference_with_its_interval_and_verdict() -> None:
    chart = forest(summary())
    assert chart is not None
    assert "Token F1" in chart
    assert "+50.0 (+40.0 to +60.0), better" in chart
