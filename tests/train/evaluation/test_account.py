"""What rows come to: sums by hand, sides that mirror each other, records that lack something."""

import math
from typing import Any

import pytest

from train.evaluation.account import MEASURES, account
from train.evaluation.generation import Answer
from train.evaluation.measure import _scored


def side(text: str | None, reference: str, nll: float | None, *, whole: bool = True, tokens: int = 4) -> dict[str, Any]:
    answer = None if text is None else _scored(Answer(text, whole, tokens), reference)
    return {"targets": None if nll is None else 10, "nll": nll, "answer": answer}


def row(
    number: int, tuned: str | None, base: str | None, *, nll: tuple[float | None, float | None] = (10.0, 20.0)
) -> Any:
    reference = f"the answer is {number}"
    return {
        "id": f"{number:032x}",
        "source": "ab"[number % 2],
        "category": "odd" if number % 2 else None,
        "prompt": [{"role": "user", "content": "?"}],
        "reference": None if tuned is None else reference,
        "reference_tokens": None if tuned is None else 4,
        "refused": None,
        "skipped": None,
        "tuned": side(tuned, reference, nll[0]),
        "base": side(base, reference, nll[1], whole=False, tokens=8),
    }


ROWS = [row(i, f"the answer is {i}", "no idea") for i in range(20)]


def test_measures_by_hand() -> None:
    found = account(ROWS, base=True, samples=3)
    whole = found["all"]["measures"]
    assert whole["loss"]["tuned"] == pytest.approx(1.0)
    assert whole["perplexity"]["base"] == pytest.approx(math.exp(2.0))
    assert whole["exact_match"] | {"low": 1.0, "high": 1.0} == whole["exact_match"]
    assert (whole["token_f1"]["tuned"], whole["token_f1"]["base"]) == (1.0, 0.0)
    assert whole["bleu"]["tuned"] == pytest.approx(100.0)
    assert (whole["unstopped"]["tuned"], whole["unstopped"]["base"]) == (0.0, 1.0)
    assert (whole["length"]["tuned"], whole["length"]["base"]) == (1.0, 2.0)
    assert whole["unstopped"]["verdict"] == "better"
    assert whole["tokens"]["verdict"] == "lower"
    assert found["verdict"] == {"word": "better", "by": ["loss", "token_f1"]}
    assert len(found["most_improved"]) == len(found["samples"]) == 3
    assert found["most_worsened"] == []
    assert {name: group["records"] for name, group in found["by_source"].items()} == {"a": 10, "b": 10}
    assert set(found["by_category"]) == {"odd"}


def test_the_other_way_round_every_difference_is_its_opposite() -> None:
    mirrored = [{**r, "tuned": r["base"], "base": r["tuned"]} for r in ROWS]
    one, other = (account(rows, base=True, samples=3)["all"]["measures"] for rows in (ROWS, mirrored))
    for measure in MEASURES:
        a, b = one[measure.name], other[measure.name]
        assert a["difference"] == pytest.approx(-b["difference"])
        assert (a["low"], a["high"]) == (pytest.approx(-b["high"]), pytest.approx(-b["low"]))
    assert account(mirrored, base=True, samples=3)["verdict"]["word"] == "worse"


def test_the_same_answers_make_no_difference() -> None:
    same = [{**r, "base": r["tuned"]} for r in ROWS]
    found = account(same, base=True, samples=3)
    assert {one["verdict"] for one in found["all"]["measures"].values()} == {"no clear difference"}
    assert found["verdict"]["word"] == "no clear difference"


def test_records_without_a_loss_or_an_answer_count_where_they_can() -> None:
    rows = [*ROWS, row(30, None, None), row(31, "x", "y", nll=(None, None))]
    found = account(rows, base=True, samples=50)["all"]
    assert (found["records"], found["scored"], found["answered"]) == (22, 21, 21)
    assert found["measures"]["loss"]["records"] == found["measures"]["token_f1"]["records"] == 21


def test_a_group_without_answers_has_none_of_their_measures() -> None:
    found = account([row(i, None, None) for i in range(12)], base=True, samples=2)
    assert found["all"]["measures"]["token_f1"] is None
    assert found["all"]["measures"]["loss"]["verdict"] == "better"
    assert found["verdict"] == {"word": "better", "by": ["loss"]}


def test_without_a_base_there_is_no_difference_and_no_verdict() -> None:
    found = account([{**r, "base": None} for r in ROWS], base=False, samples=2)
    assert found["verdict"] is None
    assert set(found["all"]["measures"]["loss"]) == {"records", "tuned"}


def test_few_records_have_no_interval() -> None:
    found = account(ROWS[:9], base=True, samples=2)
    assert found["verdict"]["word"] == "too few records"
    assert found["all"]["measures"]["token_f1"]["low"] is None


def test_a_loss_that_is_no_number_is_worse_than_any() -> None:
    broken = [row(i, None, None, nll=(math.inf if i == 3 else 10.0, 20.0)) for i in range(20)]
    found = account(broken, base=True, samples=2)
    assert found["all"]["measures"]["loss"]["verdict"] == found["verdict"]["word"] == "worse"
    mended = [{**r, "tuned": r["base"], "base": r["tuned"]} for r in broken]
    assert account(mended, base=True, samples=2)["verdict"]["word"] == "better"
    both = [row(i, None, None, nll=(math.nan, math.inf)) for i in range(20)]
    assert account(both, base=True, samples=2)["verdict"] == {"word": "not finite", "by": ["loss"]}
    with_answers = account(
        [{**r, "tuned": s["tuned"]} for r, s in zip(ROWS, broken, strict=True)], base=True, samples=2
    )
    assert with_answers["verdict"]["word"] == "worse"


def test_short_references_are_judged_by_exact_match_and_as_labels() -> None:
    rows: list[Any] = []
    for i in range(20):
        reference = "yes" if i % 2 else "no"
        made = row(i, reference, "yes")
        rows.append(
            {
                **made,
                "reference": reference,
                "tuned": side(reference, reference, 1.0),
                "base": side("yes", reference, 1.0),
            }
        )
    found = account(rows, base=True, samples=2)
    assert found["verdict"]["by"] == ["loss", "exact_match"]
    labels = found["all"]["labels"]
    assert labels["names"] == ["no", "yes"]
    assert (labels["tuned"]["accuracy"], labels["base"]["accuracy"]) == (1.0, 0.5)
    assert labels["base"]["confusion"] == [[0, 10, 0], [0, 10, 0]]
