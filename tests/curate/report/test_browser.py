"""The pages in headless Chromium, opened from disk as a person does, at the width of a desk and of a phone."""

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from curate.diff.account import Account
from tests.curate.report.accounts import ARABIC, IMAGE, SCRIPT
from tests.curate.review.ui import browser

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
EDITS, CHANGES = '[data-tools="edits"]', '[data-tools="changes"]'


@pytest.fixture(scope="module")
def chromium() -> Generator[Any]:
    with browser() as started:
        yield started


class Opened:
    """A page, and what it complained of and asked for while it was open."""

    def __init__(self, chromium: Any, path: Path, size: dict[str, int], **how: Any) -> None:
        self.context = chromium.new_context(viewport=size, **how)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def matches(self, form: str, text: str) -> None:
        """Wait until the form says so; fails where it does not."""
        self.page.locator(f"{form} .status").get_by_text(text, exact=True).wait_for(timeout=5_000)

    def shown_edits(self) -> int:
        return self.page.locator(".edit:visible").count()


@pytest.fixture
def opened(chromium: Any, written: Path) -> Generator[Any]:
    contexts: list[Any] = []

    def open_page(name: str = "diff", size: dict[str, int] = DESK, **how: Any) -> Opened:
        made = Opened(chromium, written / f"{name}.html", size, **how)
        contexts.append(made.context)
        return made

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def kept_open(chromium: Any, written: Path) -> Generator[Opened]:
    found = Opened(chromium, written / "diff.html", DESK)
    yield found
    found.context.close()


@pytest.fixture
def desk(kept_open: Opened) -> Opened:
    """The page of the diff, at a desk, with nothing searched for."""
    kept_open.page.evaluate("for (const form of document.forms) form.reset()")
    kept_open.matches(EDITS, "32 of 32 edited rows match")
    return kept_open


@pytest.mark.parametrize("name", ["diff", "version", "run"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_page_complains_of_nothing_asks_for_nothing_fits_the_screen_and_shows_markup_as_text(
    opened: Any, name: str, size: dict[str, int]
) -> None:
    found = opened(name, size)
    found.page.mouse.wheel(0, 30_000)
    assert found.complaints == []
    assert [url for url in found.asked if not url.startswith("file:")] == []
    assert len(found.asked) == 1
    assert found.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    markup_is_text(found.page)


def markup_is_text(page: Any) -> None:
    """Check that the hostile records are there as text, and have done nothing."""
    assert page.evaluate("window.owned") is None
    assert page.locator("img").count() == 0
    text = page.evaluate("document.querySelector('main').textContent")
    assert SCRIPT in text
    assert IMAGE in text
    assert "\u202e" not in text
    assert "abcU+202Edef" in text


FIRST_LETTERS_END = """e => {
    const letters = document.createRange();
    letters.setStart(e.firstChild, 0);
    letters.setEnd(e.firstChild, 2);
    return letters.getBoundingClientRect().right;
}"""


def test_right_to_left_text_reads_from_the_right(desk: Opened) -> None:
    row = desk.page.locator(".text", has_text=ARABIC.split()[0]).first
    assert row.evaluate("e => getComputedStyle(e).unicodeBidi") == "plaintext"
    first = row.evaluate(FIRST_LETTERS_END)
    whole = row.evaluate("e => e.getBoundingClientRect().right")
    assert whole - first < 40


def test_search_looks_at_the_texts_and_says_how_many_match(desk: Opened, account: Account) -> None:
    found = desk
    total = len(account.edits)
    found.matches(EDITS, f"{total} of {total} edited rows match")
    found.page.fill("#edits-search", "40 METRES tall")
    found.matches(EDITS, f"1 of {total} edited rows match")
    assert found.shown_edits() == 1
    found.page.fill("#edits-search", "lamp 7 is dark.")
    found.matches(EDITS, f"1 of {total} edited rows match")
    found.page.fill("#edits-search", "lamp 7 is lit.")
    found.matches(EDITS, f"1 of {total} edited rows match")
    found.page.fill("#edits-search", "nothing says this")
    found.matches(EDITS, f"0 of {total} edited rows match")
    assert found.page.locator(".group:visible").count() == 0


def test_each_filter_of_the_edits_shows_what_it_names(desk: Opened, account: Account) -> None:
    total = len(account.edits)
    for name, value in (("word", "edited_upstream"), ("stage", "review"), ("by", "alice"), ("source", "market")):
        fit = sum(value in (row.by if name == "by" else (getattr(row, name),)) for row in account.edits)
        assert 0 < fit < total
        desk.page.select_option(f"#edits-{name}", value)
        desk.matches(EDITS, f"{fit} of {total} edited rows match")
        assert desk.shown_edits() == fit
        desk.page.select_option(f"#edits-{name}", "")
        desk.matches(EDITS, f"{total} of {total} edited rows match")


def test_each_filter_of_the_changes_shows_what_it_names(desk: Opened, account: Account) -> None:
    rows = account.diff.changes.rows(named=True)
    for name, value in (("word", "edited"), ("stage", "rules"), ("by", "alice"), ("source", "market")):
        fit = sum(value in (row["by"] if name == "by" else (row[name],)) for row in rows)
        assert 0 < fit < len(rows)
        desk.page.select_option(f"#changes-{name}", value)
        desk.matches(CHANGES, f"{fit} of {len(rows)} changes match")
        assert desk.page.locator("#changes-table tbody tr").count() == min(fit, 100)
        desk.page.select_option(f"#changes-{name}", "")
        desk.matches(CHANGES, f"{len(rows)} of {len(rows)} changes match")


def test_filters_and_search_hold_together(desk: Opened) -> None:
    desk.page.select_option("#edits-stage", "normalize")
    desk.page.fill("#edits-search", "tower")
    desk.matches(EDITS, "0 of 32 edited rows match")
    desk.page.select_option("#edits-stage", "")
    desk.matches(EDITS, "1 of 32 edited rows match")


def test_the_rows_that_the_script_makes_are_those_of_the_server(opened: Any, account: Account) -> None:
    """The first hundred are in the file; the script makes the same ones when a filter comes and goes."""
    found = opened()
    read = "document.querySelector('#changes-table tbody').innerHTML.replace(/\\s*\\n\\s*/g, '')"
    served, total = found.page.evaluate(read), account.diff.changes.height
    found.page.select_option("#changes-word", "removed")
    found.matches(CHANGES, f"1 of {total} changes match")
    found.page.select_option("#changes-word", "")
    found.matches(CHANGES, f"{total} of {total} changes match")
    assert found.page.evaluate(read) == served


def test_hostile_text_in_the_rows_that_the_script_makes_is_text(desk: Opened, account: Account) -> None:
    found = desk
    found.page.fill("#changes-search", "owned")
    found.matches(CHANGES, f"2 of {account.diff.changes.height} changes match")
    assert found.page.locator("#changes-table").get_by_text(SCRIPT, exact=True).count() == 1
    found.page.fill("#changes-search", "def")
    mark = found.page.locator("#changes-table .mark")
    mark.first.wait_for()
    assert mark.all_inner_texts() == ["U+202E", "U+0000"]
    assert found.page.evaluate("window.owned") is None


def test_changes_come_in_pages(desk: Opened, account: Account) -> None:
    found = desk
    total = account.diff.changes.height
    assert total > 200
    found.matches(CHANGES, f"{total} of {total} changes match")
    found.page.get_by_role("button", name="Later").click()
    found.page.get_by_text(f"101–200 of {total}", exact=True).wait_for()
    assert found.page.locator("#changes-table tbody tr").count() == 100
    found.page.get_by_role("button", name="Earlier").click()
    found.page.get_by_text(f"1–100 of {total}", exact=True).wait_for()


def test_a_count_of_the_verdict_leads_to_its_rows(desk: Opened, account: Account) -> None:
    found = desk
    found.page.locator('[data-show="resplit"]').click()
    desk.matches(CHANGES, f"1 of {account.diff.changes.height} changes match")

    assert "harbour:51" in found.page.locator("#changes-table tbody").inner_text()


def test_the_keyboard_alone_is_enough(opened: Any) -> None:
    found = opened()
    page = found.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "edits-search"
    page.keyboard.type("lamp 7")
    found.matches(EDITS, "1 of 32 edited rows match")
    page.keyboard.press("Escape")
    found.matches(EDITS, "32 of 32 edited rows match")
    assert page.input_value("#edits-search") == ""


def test_all_edits_of_a_stage_can_be_shown_and_the_focus_goes_on_from_there(opened: Any) -> None:
    found = opened()
    before = found.shown_edits()
    found.page.get_by_role("button", name="Show all 30").click()
    assert found.shown_edits() == before + 20
    assert found.page.evaluate("document.activeElement.className") == "row edit"


def _contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    one, other = sorted((light(a), light(b)))
    return (other + 0.05) / (one + 0.05)


CONTRASTS = """() => {
    const bare = new Set(['rgba(0, 0, 0, 0)', 'transparent']);
    const behind = (e) => {
        const own = getComputedStyle(e).backgroundColor;
        return bare.has(own) ? behind(e.parentElement) : own;
    };
    const found = new Map();
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || e.closest('svg, script, style') || e.disabled) continue;
        found.set(getComputedStyle(e).color + '|' + behind(e), e.className || e.tagName);
    }
    return [...found];
}"""


@pytest.mark.parametrize("name", ["diff", "version", "run"])
def test_every_text_stands_out_from_what_is_behind_it(opened: Any, name: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    found, seen = opened(name), set[str]()
    for scheme in ("light", "dark"):
        found.page.emulate_media(color_scheme=scheme)
        pairs = found.page.evaluate(CONTRASTS)
        assert len(pairs) > 5
        assert [(pair, where) for pair, where in pairs if _contrast(*pair.split("|")) < 4.5] == []
        assert seen.isdisjoint(pair for pair, _ in pairs), "the colours are others"
        seen.update(pair for pair, _ in pairs)


def test_colours_follow_the_system_and_the_switch(opened: Any) -> None:
    found = opened(color_scheme="dark")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = found.page.evaluate(back)
    switch = found.page.locator("#theme")
    switch.click()
    assert switch.inner_text() == "Colours: light"
    light = found.page.evaluate(back)
    assert light != dark
    switch.click()
    assert (switch.inner_text(), found.page.evaluate(back)) == ("Colours: dark", dark)


def test_without_the_script_everything_is_there_and_no_control_is(opened: Any, account: Account) -> None:
    found = opened(java_script_enabled=False)
    assert found.shown_edits() == len(account.edits)
    assert found.page.locator("#changes-table tbody tr").count() == 100
    assert found.page.locator("button:visible, select:visible, input:visible").count() == 0
    assert found.page.locator("noscript .note").is_visible()


def test_a_run_s_page_can_be_read_without_the_script(opened: Any) -> None:
    found = opened("run", java_script_enabled=False)
    assert found.page.locator(".finding:visible").count() == 4
    assert found.page.locator("svg.chart:visible").count() >= 8
    assert found.page.locator("button:visible").count() == 0
    hardest = found.page.locator("#records details[open] .row")
    assert hardest.count() == 10
    found.page.locator("#records summary", has_text="Most improved").click()
    assert found.page.locator("#records .row:visible").count() == 20


def test_a_run_s_page_on_paper_has_all_its_records(opened: Any) -> None:
    found = opened("run")
    found.page.emulate_media(media="print", color_scheme="dark")
    found.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert found.page.locator("details:not([open])").count() == 0
    assert found.page.locator("button:visible, nav:visible").count() == 0
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_on_paper_everything_is_open_and_no_control_is_printed(opened: Any, account: Account) -> None:
    found = opened()
    found.page.emulate_media(media="print", color_scheme="dark")
    found.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert found.page.locator("details:not([open])").count() == 0
    assert found.page.locator("button:visible, select:visible, input:visible, nav:visible").count() == 0
    assert found.shown_edits() == len(account.edits)
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    found.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert found.page.locator("details:not([open])").count() > 0
