"""The page: whole, in order, safe, and honest about what it leaves out."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any, cast

import pytest

from curate.diff.account import Account
from curate.diff.changes import Diff
from curate.portrait import portray
from curate.report import changes, page
from curate.report.changes import data_block
from curate.report.page import change, diff_page, version_page
from schemas.dataset import Dataset
from tests.curate.report.accounts import HOSTILE, SCRIPT

ORDER = [
    "verdict",
    "flow",
    "reasons",
    "columns",
    "edits",
    "drift",
    "clusters",
    "mix",
    "splits",
    "reviews",
    "samples",
    "changes",
]
VOID = {"meta", "input", "br", "link", "img"}


class Outline(HTMLParser):
    """What a page consists of; fails where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        if known.get("id"):
            self.ids.append(known["id"] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=["diff_html", "version_html"])
def html(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def test_the_parts_of_a_diff_stand_in_their_order(diff_html: str) -> None:
    found = [attrs["id"] for tag, attrs in Outline(diff_html).tags if tag == "section" and attrs.get("id")]
    assert found == ORDER


def test_headings_go_down_one_step_at_a_time_and_ids_are_unique(html: str) -> None:
    outline = Outline(html)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))


def test_whatever_points_at_an_id_points_at_one_that_is_there(html: str) -> None:
    outline = Outline(html)
    for _, attrs in outline.tags:
        names = [*(attrs.get("aria-labelledby") or "").split(), attrs.get("for") or ""]
        href = attrs.get("href") or ""
        assert {name for name in [*names, href[1:] if href.startswith("#") else ""] if name} <= set(outline.ids)


def test_every_table_has_a_caption_and_every_head_a_scope(html: str) -> None:
    outline = Outline(html)
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("table") == tags.count("caption") > 3
    assert all(attrs.get("scope") for tag, attrs in outline.tags if tag == "th")


def test_nothing_points_outside_and_nothing_is_styled_inline(html: str) -> None:
    for tag, attrs in Outline(html).tags:
        assert "style" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        assert tag not in ("img", "iframe", "object", "link", "base")
        assert (attrs.get("href") or "#").startswith("#")
        assert "src" not in attrs


def test_the_policy_allows_the_style_and_the_script_of_the_page_and_nothing_else(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    allowed = policy[1].replace("&#39;", "'")
    assert allowed.startswith("default-src 'none'")
    assert "unsafe" not in allowed
    for tag in ("style", "script"):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(texts) == 1
        assert base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode() in allowed


def test_what_a_record_says_is_never_markup_and_never_steers_the_display(html: str) -> None:
    assert SCRIPT not in html
    assert "<img" not in html
    assert not re.search("[\u0000-\u0008\u000b-\u001f\u202a-\u202e\u2066-\u2069\u200e\u200f]", html)
    assert "U+202E" in html
    assert "&lt;script&gt;window.owned" in html


STEERS = "\u202e\x00\uffff"


def _spoiled(value: Any) -> Any:
    """Put characters that steer the display into every text of a value."""
    if isinstance(value, str):
        return value + STEERS
    if isinstance(value, tuple):
        return tuple(_spoiled(part) for part in cast("tuple[Any, ...]", value))
    if isinstance(value, Mapping):
        return {_spoiled(key): _spoiled(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if is_dataclass(value) and not isinstance(value, type | Diff):
        return replace(value, **{f.name: _spoiled(getattr(value, f.name)) for f in fields(value)})
    return value


def test_no_text_of_an_account_steers_the_display_wherever_it_stands(account: Account) -> None:
    html = diff_page(_spoiled(account))
    Outline(html)
    assert not set(STEERS) & set(html)


def test_no_text_of_a_portrait_steers_the_display_wherever_it_stands(hostile: Dataset) -> None:
    html = version_page(_spoiled(portray(hostile)), hostile)
    Outline(html)
    assert not set(STEERS) & set(html)


def test_the_same_account_gives_the_same_bytes(account: Account, diff_html: str) -> None:
    assert diff_page(account) == diff_html


def test_the_first_changes_are_there_without_the_script_and_all_of_them_as_data(
    account: Account, diff_html: str
) -> None:
    body = re.findall(r'id="changes-table".*?</table>', diff_html, re.DOTALL)[0]
    assert body.count('<th scope="row">') == changes.ROWS_A_PAGE
    (block,) = re.findall(r'id="changes-data">(.*?)</script>', diff_html, re.DOTALL)
    data = json.loads(block)
    assert len(data["rows"]) == account.diff.changes.height
    assert set(HOSTILE) <= set(data["texts"])


def test_a_data_block_cannot_end_its_script_and_reads_back() -> None:
    value = ["</script><!--", "\u202e", "\u2028", "é"]
    assert not set("<>&") & set(data_block(value))
    assert data_block(value).isascii()
    assert json.loads(data_block(value)) == value


def test_changes_that_do_not_fit_are_counted_and_the_command_is_named(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHANGES_CHARACTERS", 6_000)
    html = diff_page(account)
    total = account.diff.changes.height
    stated = re.search(
        r"([\d,]+) of ([\d,]+) changes are in this page, of each kind alike many. <code>(.*?)</code>", html
    )
    assert stated
    assert 0 < int(stated[1]) < total == int(stated[2])
    assert stated[3] == "sft diff lamps@3 lamps@6 --json"
    words = {choice.value for choice in changes.changes_of(account).words}
    assert words == set(account.diff.changes["word"].unique()), "no kind of change is crowded out by another"


def test_edits_that_do_not_fit_are_counted_and_each_stage_keeps_some(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "EDITS_CHARACTERS", 4_000)
    groups = page.edit_groups(account.edits)
    assert [group.stage for group in groups] == ["ingest", "normalize", "review"]
    assert 3 < sum(len(group.rows) for group in groups) < len(account.edits)
    assert f"of {account.edits_total} edited rows are in this page" in diff_page(account)


def test_versions_that_are_the_same_say_so(account: Account) -> None:
    whole = account
    verdict = replace(
        whole.verdict,
        same=True,
        bump=None,
        trainer_sees_it=False,
        counts=dict.fromkeys(whole.verdict.counts, 0),
        sentences=(),
    )
    empty = replace(
        whole,
        diff=replace(whole.diff, changes=whole.diff.changes.clear()), verdict=verdict,
        makers=(), transitions=(), reasons=(), settings=(),
        columns=(), edits=(), edits_total=0, drift=(), clusters={}, cluster_examples=(), moves={}, leaks=(), reviews={},
        review_changes=(), samples={}, sources=(), licences=(),
    )  # fmt: skip
    html = diff_page(empty)
    Outline(html)
    assert "No difference" in html
    assert "A trainer sees exactly what it saw before." in html
    assert html.count('class="none"') >= 8


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 101, "+1 (+1.0%)"),
        (100, 99, "−1 (−1.0%)"),
        (0, 5, "+5"),
        (7, 7, "no change"),
        (100_000, 99_999, "−1 (less than 0.1%)"),
    ],
)
def test_a_difference_is_told_with_its_sign_and_share(before: int, after: int, text: str) -> None:
    assert change(before, after) == text
