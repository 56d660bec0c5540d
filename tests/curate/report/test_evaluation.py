"""The page of an evaluation, made of plain data as its files hold it, read as text and in headless Chromium."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from curate.report import evaluation
from curate.report.evaluation import evaluation_page
from tests.curate.report.accounts import ARABIC, IMAGE, SCRIPT
from tests.curate.report.test_browser import CONTRASTS, DESK, EDITS, PHONE, Opened, _contrast
from tests.curate.review.ui import browser

HIDDEN = "abc\u202edef"
MEASURES = {
    "loss": ("Loss", "lower", "loss"),
    "perplexity": ("Perplexity", "lower", "perplexity"),
    "exact_match": ("Exact match", "higher", "share"),
    "token_f1": ("Token F1", "higher", "share"),
    "rouge_l": ("ROUGE-L", "higher", "share"),
    "bleu": ("BLEU", "higher", "score"),
    "chrf": ("chrF", "higher", "score"),
    "unstopped": ("Never stopped", "lower", "share"),
    "length": ("Length against reference", "", "ratio"),
}


def measures(*, base: bool, verdict: str = "better") -> dict[str, Any]:
    one: dict[str, Any] = {"records": 24, "tuned": 0.75}
    if base:
        one |= {"base": 0.25, "difference": 0.5, "low": 0.4, "high": 0.6, "verdict": verdict}
    return dict.fromkeys(MEASURES, one)


def group(*, base: bool) -> dict[str, Any]:
    scores = {
        "accuracy": 0.75,
        "precision": 0.7,
        "recall": 0.6,
        "f1": 0.65,
        "unnamed": 1,
        "confusion": [[3, 0, 0], [1, 2, 1]],
    }
    sides = ("tuned", "base") if base else ("tuned",)
    return {
        "records": 24,
        "scored": 24,
        "answered": 24,
        "measures": measures(base=base),
        "reference": {"repetition": 0.01, "tokens": 6.0},
        "labels": {"names": ["yes", SCRIPT], **dict.fromkeys(sides, scores)},
    }


def summary(*, base: bool = True, verdict: str = "better", samples: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "run": {"run_id": "r1", "model": IMAGE, "method": "lora", "dataset": "mix@3", "weights": "final"},
        "data": {"dataset": f"mix{SCRIPT}", "manifest": "a" * 64, "split": "test", "notes": ["warning: " + SCRIPT]},
        "settings": {"new_tokens": 64},
        "models": {"tuned": "t" * 64, "base": "b" * 64},
        "base": base,
        "notes": ["a note"],
        "left_out": {"an answer: no room": 2},
        "all": group(base=base),
        "by_source": {"market": group(base=base), SCRIPT: group(base=base)},
        "by_category": {"open_qa": group(base=base)},
        "verdict": {"word": verdict, "by": ["loss", "token_f1"]} if base else None,
        "samples": list(samples),
        "measures": {name: dict(zip(("title", "better", "unit"), of, strict=True)) for name, of in MEASURES.items()},
        "signatures": {"bleu": "nrefs:1|case:mixed"},
        "bootstrap": {"draws": 1000},
    }


def answer(text: str, f1: float, **other: Any) -> dict[str, Any]:
    known = {"text": text, "whole": True, "tokens": len(text.split()), "exact_match": float(f1 == 1), "loop": False}
    return {"targets": 4, "nll": 2.0, "answer": {**known, "token_f1": f1, **other}}


def row(number: int, tuned: dict[str, Any], base: dict[str, Any] | None, **other: Any) -> dict[str, Any]:
    made = {
        "id": f"{number:032x}",
        "source": "market" if number % 2 else SCRIPT,
        "category": "open_qa" if number % 3 else None,
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Which lamp is {number}?"}],
        "reference": f"lamp {number} is lit",
        "reference_tokens": 4,
    }
    return {**made, "tuned": tuned, "base": base, **other}


HOSTILE = row(
    0,
    answer(SCRIPT + IMAGE + HIDDEN, 0.0, loop=True),
    answer("", 0.0),
    reference=ARABIC,
    prompt=[{"role": "user", "content": IMAGE}],
)
ROWS = [
    HOSTILE,
    *(row(i, answer(f"lamp {i} is lit", 1.0), answer(f"lamp {i} was dark", 0.5, whole=False)) for i in range(1, 15)),
    *(row(i, answer("no", 0.0), answer(f"lamp {i}", 0.5)) for i in range(15, 24)),
    row(24, {"targets": 4, "nll": 2.0, "answer": None}, {"targets": 4, "nll": 2.0, "answer": None}, reference=None),
]
IDS = (f"{0:032x}", f"{3:032x}")


def test_the_same_files_give_the_same_bytes_and_nothing_from_elsewhere() -> None:
    html = evaluation_page(summary(samples=IDS), ROWS)
    assert html == evaluation_page(summary(samples=IDS), ROWS)
    assert 'href="http' not in html
    assert "<img" not in html
    assert SCRIPT not in html
    assert IMAGE not in html
    assert "\u202e" not in html


@pytest.mark.parametrize("word", evaluation.HEADLINES)
def test_each_verdict_is_said_in_words(word: str) -> None:
    headline, told = evaluation.HEADLINES[word]
    html = evaluation_page(summary(verdict=word), ROWS)
    assert headline in html
    assert told in html


def test_without_a_base_there_is_one_model_and_no_verdict() -> None:
    rows = [{**one, "base": None} for one in ROWS]
    html = evaluation_page(summary(base=False, samples=IDS), rows)
    assert "Difference" not in html
    assert 'class="verdict' not in html
    assert "lamp 3 is lit" in html


def test_an_evaluation_without_answers_has_a_page() -> None:
    assert "No row could be asked." in evaluation_page(summary(), [ROWS[-1]])


def test_a_file_that_is_full_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ANSWERS_CHARACTERS", 5000)
    html = evaluation_page(summary(), ROWS)
    assert "of 24 answers are in this page" in html


def test_an_answer_that_has_little_of_its_reference_is_shown_as_it_is_and_one_like_it_has_its_words_marked() -> None:
    near = row(1, answer("lamp 1 is dim", 0.7), None)
    far = row(2, answer("Nobody ever asked that.", 0.0), None)
    html = evaluation_page(summary(base=False), [near, far])
    assert "<ins>dim</ins>" in html
    assert ">Nobody ever asked that.</dd>" in html


@pytest.fixture(scope="module")
def chromium() -> Generator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "test-1.html"
    path.write_text(evaluation_page(summary(samples=IDS), ROWS), encoding="utf-8")
    return path


@pytest.fixture
def opened(chromium: Any, page: Path) -> Generator[Any]:
    contexts: list[Any] = []

    def open_page(size: dict[str, int] = DESK, **how: Any) -> Opened:
        made = Opened(chromium, page, size, **how)
        contexts.append(made.context)
        return made

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_complains_of_nothing_asks_for_nothing_fits_and_shows_markup_as_text(opened: Any, size: Any) -> None:
    found = opened(size)
    found.page.mouse.wheel(0, 30_000)
    assert found.complaints == []
    assert len(found.asked) == 1
    assert found.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert found.page.evaluate("window.owned") is None
    assert found.page.locator("img").count() == 0
    text = found.page.evaluate("document.querySelector('main').textContent")
    assert SCRIPT in text
    assert IMAGE in text
    assert "abcU+202Edef" in text


def test_on_a_phone_no_picture_is_cut_off_and_tiles_leave_no_gap(opened: Any) -> None:
    page = opened(PHONE).page
    assert page.evaluate("[...document.querySelectorAll('.scroll .chart')].length") == 0
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.chart')].map(e => e.clientWidth))") <= PHONE["width"]
    )
    ends = page.evaluate("""[...document.querySelectorAll('.tiles > :last-child')].map(
        e => e.parentElement.getBoundingClientRect().right - e.getBoundingClientRect().right)""")
    assert max(ends) <= 1, "the border"


def test_search_and_filters_show_what_they_name(opened: Any) -> None:
    found = opened()
    found.matches(EDITS, "24 of 24 answers match")
    found.page.fill("#edits-search", "lamp 7 was dark")
    found.matches(EDITS, "1 of 24 answers match")
    found.page.fill("#edits-search", "")
    found.page.select_option("#edits-word", "worsened")
    found.matches(EDITS, "9 of 24 answers match")
    found.page.select_option("#edits-word", "")
    found.page.select_option("#edits-by", "tuned: ends in a loop")
    found.matches(EDITS, "1 of 24 answers match")
    found.page.select_option("#edits-by", "")
    found.page.select_option("#edits-source", "market")
    found.matches(EDITS, "12 of 24 answers match")


def test_what_the_reference_does_not_say_is_marked_word_by_word(opened: Any) -> None:
    found = opened()
    found.page.fill("#edits-search", "lamp 7 was dark")
    found.matches(EDITS, "1 of 24 answers match")
    shown = found.page.locator(".edit:visible")
    assert shown.locator("ins").all_inner_texts() == ["was dark"]
    assert shown.locator("del").count() == 0


def test_every_text_stands_out_in_light_and_dark(opened: Any) -> None:
    found = opened()
    for scheme in ("light", "dark"):
        found.page.emulate_media(color_scheme=scheme)
        pairs = found.page.evaluate(CONTRASTS)
        assert len(pairs) > 5
        assert [(pair, where) for pair, where in pairs if _contrast(*pair.split("|")) < 4.5] == []


def test_without_the_script_and_on_paper_everything_is_there(opened: Any) -> None:
    bare = opened(java_script_enabled=False)
    assert bare.shown_edits() == 24
    assert bare.page.locator("button:visible, select:visible, input:visible").count() == 0
    paper = opened()
    paper.page.emulate_media(media="print")
    paper.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert paper.shown_edits() == 24
    assert paper.page.locator("button:visible, select:visible, input:visible, nav:visible").count() == 0
