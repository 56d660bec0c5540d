"""Charts are images with words for them, coloured by the page alone, the same bytes each time."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from curate.diff.account import Transition
from curate.measures import Shares
from curate.report.charts import MOST_BARS, compact, exponential, histogram, mix, rules, shares, shortened
from curate.report.flow import MOST_ENDS, Flow, flow_chart, transition_chart
from schemas.manifest import StageCount
from schemas.stages import STAGES as ORDER
from tests.curate.report.accounts import SCRIPT
from tests.curate.report.accounts import histogram as counts

STAGES = (
    StageCount(stage="ingest", entered=100_000, kept=100_000),
    StageCount(stage="rules", entered=100_000, kept=99_999, rejected={"rule:empty_response": 1}),
    StageCount(stage="dedup", entered=99_999, kept=60_000, rejected={"duplicate:near": 39_999}),
)


def _flow(sources: int = 2) -> Flow:
    names = {f"source {n}": 100_000 // sources for n in range(sources)}
    return Flow(names, STAGES, {"train": 54_000, "val": 3_000, "test": 3_000})


def _drawn() -> dict[str, Markup]:
    fates = (
        Transition("kept", "rejected by dedup", 40),
        Transition("not there", "kept", 3),
        Transition("kept", "kept", 9),
    )
    moved = transition_chart(fates, "fates", "fates")
    assert moved is not None
    languages = Shares({f"language {n}": 20 - n for n in range(15)}, 195, 0)
    return {
        "histogram": histogram("h", "Tokens", counts(5, 3, 1), counts(2, 8, 4)),
        "alone": histogram("a", "Tokens", counts(5, 3, 1)),
        "empty": histogram("e", "Tokens", counts(0, 0)),
        "shares": shares("s", "Language", languages, Shares({}, 0, 0)),
        "mix": mix("m", "Mix", {"before": {"a": 1, "b": 99}, "after": {f"s{n}": 5 for n in range(20)}}),
        "flow": flow_chart(_flow(), "flow", "Flow"),
        "nothing": flow_chart(Flow({}, (), {}), "nothing", "Flow"),
        "moved": moved,
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Markup]:
    return _drawn()


def test_a_chart_is_an_image_with_a_title_and_a_description(drawn: dict[str, Markup]) -> None:
    for chart in drawn.values():
        root = ElementTree.fromstring(chart)  # noqa: S314 - our own chart
        assert root.attrib["role"] == "img"
        named = root.attrib["aria-labelledby"].split()
        assert [child.attrib["id"] for child in list(root)[:2]] == named
        assert all((child.text or "").strip() for child in list(root)[:2])


def test_a_chart_has_no_style_of_its_own_and_no_colour(drawn: dict[str, Markup]) -> None:
    """The page's policy would refuse the first, and dark pages could not change the second."""
    for chart in drawn.values():
        assert "style" not in chart
        assert not re.search(r"#[0-9a-f]{6}|url\(|href", chart)


def test_the_same_chart_has_the_same_bytes(drawn: dict[str, Markup]) -> None:
    assert _drawn() == drawn


def test_the_only_ids_are_those_of_title_and_description(drawn: dict[str, Markup]) -> None:
    for chart in drawn.values():
        assert len(re.findall(r' id="', chart)) == 2


def test_text_stays_text_and_mathematics_and_markup_are_no_more_than_text() -> None:
    chart = mix("m", "Mix", {"": {f"$x^2$ {SCRIPT}\u202e漢": 1}})
    assert "<script" not in chart
    assert "\u202e" not in chart
    assert "$x^2$ &lt;script&gt;" in chart
    assert "[U+202E]漢" in chart


def test_a_character_that_xml_refuses_is_named() -> None:
    assert "a[U+FFFE]b" in mix("m", "a\uffffb", {"": {"a\ufffeb": 1}})


def test_nearly_all_is_not_told_as_all() -> None:
    chart = shares("s", "Language", Shares({"en": 99_999, "fr": 1}, 100_000, 0))
    assert "en &gt; 99.9%" in chart
    assert "fr &lt; 0.1%" in chart


def test_small_shares_are_joined_and_counted(drawn: dict[str, Markup]) -> None:
    assert f"{15 - MOST_BARS + 1} others" in drawn["shares"]


def test_small_flows_are_joined_and_counted() -> None:
    chart = flow_chart(_flow(sources=30), "f", "Flow")
    assert f"{30 - MOST_ENDS + 1} others" in chart


def test_the_description_of_a_flow_has_all_numbers(drawn: dict[str, Markup]) -> None:
    for number in ("100,000 rows", "rules leaves out 1", "dedup leaves out 39,999", "train 54,000", "60,000 are kept"):
        assert number in drawn["flow"]


@pytest.mark.parametrize("sources", [1, 2, 8, 40])
def test_labels_of_a_flow_never_overlap(sources: int) -> None:
    names = [stage for stage in ORDER if stage != "signals"]
    stages = tuple(StageCount(stage=name, entered=10, kept=9, rejected={"x": 1}) for name in names)
    rows = {f"a source with a long name, number {n}": 10**6 if n == 0 else 1 for n in range(sources)}
    flow = Flow(rows, stages, {"train": 10**6, "val": 1, "test": 1})
    root = ElementTree.fromstring(flow_chart(flow, "f", "Flow"))  # noqa: S314 - our own chart
    boxes: list[tuple[float, float, float, float]] = []
    for text in root.iter("text"):
        width = 6.6 * len(text.text or "")
        anchor = text.attrib.get("text-anchor", "start")
        left = float(text.attrib["x"]) - {"start": 0, "middle": width / 2, "end": width}[anchor]
        boxes.append((left, float(text.attrib["y"]) - 9, left + width, float(text.attrib["y"]) + 3))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], (a, b)


def test_rows_whose_fate_is_the_same_are_not_drawn() -> None:
    assert transition_chart([Transition("kept", "kept", 9)], "f", "fates") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (1_200, "1.2k"),
        (3_400_000, "3.4M"),
        (0.25, "0.25"),
        (100.0, "100"),
        (51.83, "51.8"),
        (999_999, "1M"),
        (10**15, "1000T"),
    ],
)
def test_numbers_below_an_axis_are_short(value: float, text: str) -> None:
    assert compact(value) == text


@given(low=st.floats(1e-9, 1e9), span=st.floats(1.001, 1e12), most=st.integers(2, 8), log=st.booleans())
def test_rules_lie_within_a_scale_in_order_and_are_few(low: float, span: float, most: int, *, log: bool) -> None:
    found = rules(low, low * span, most, log=log)
    assert found == sorted(set(found))
    assert len(found) <= most + 2
    assert all(low <= value <= low * span for value in found)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1, 1e6, [1.0, 1e2, 1e4, 1e6]), (3, 90, [5.0, 10.0, 20.0, 50.0]), (210, 340, [250.0, 300.0])],
)
def test_rules_of_decades_are_powers_of_ten_and_within_one_they_are_even(
    low: float, high: float, said: list[float]
) -> None:
    assert rules(low, high, 4, log=True) == said


def test_long_names_that_begin_alike_are_told_apart() -> None:
    cut = [shortened(f"somebody/with-a-long-name/part-{n}", 16) for n in range(3)]
    assert len(set(cut)) == 3
    assert all(len(name) == 16 for name in cut)
    assert shortened("short", 16) == "short"


@pytest.mark.parametrize(("value", "said"), [(3.14e26, "3.1e26"), (2e6, "2.0e6"), (1.5e-4, "1.5e-4"), (-4e7, "-4.0e7")])
def test_what_has_more_digits_than_anybody_reads_is_a_power_of_ten(value: float, said: str) -> None:
    assert exponential(value) == said
