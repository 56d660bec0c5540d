"""Fixes: what they rewrite and what they must not touch, what they leave behind, and that they come to rest."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.rules import STAGE, list_rules
from curate.rules.marks import _with_closed_fence as closed
from curate.rules.marks import _without_citations, _without_mojibake
from curate.rules.residue import _without_edges
from curate.rules.rule import Example
from curate.store import Store
from schemas.config import RulesConfig
from schemas.record import content_hash
from tests.curate.conftest import Apply, chat, make_dataset, run_on, view
from tests.curate.rules.conftest import Said, of_formats, row
from tests.curate.rules.stress import FORMATS, stress_set

CITED = {
    "It rains.[1]": "It rains.",
    "It rains.[1][2] It pours.[citation needed]": "It rains. It pours.",
    "It rains, they say,[12] and pours.[nb 3]": "It rains, they say, and pours.",
    "It rains.[a] Then not.": "It rains. Then not.",
    "It rains.[3]Then not.": "It rains. Then not.",
    "In 1820[4] it rained.[5, 6]": "In 1820 it rained.",
    "A claim.[clarification needed][who?] Another.": "A claim. Another.",
}
NOT_CITED = [
    "The first is a[1] and the last a[9].",
    "Use items[0] = 3; then print it.",
    "The interval [0, 1] holds x[2].",
    "See [1](https://example.org) and [the second].",
    "The pattern [a-z][0-9] matches.",
    "- [1] a list\n- [2] of boxes",
    "\\[1] is escaped, \\frac{1}{2}[3]",
    "```\nx[1]\n```",
    "He said [sic] that it rained [in May].",
    "Pronounced [ˈɣaβo], as in Spain.",
    "matrix[1][2] of numbers",
    "[1] A reference at the beginning of a line.",
]


@pytest.mark.parametrize("text", CITED)
def test_citation_marks_go_from_prose(text: str) -> None:
    assert _without_citations(text) == CITED[text]


@pytest.mark.parametrize("text", NOT_CITED)
def test_brackets_of_code_maths_lists_and_links_stay(text: str) -> None:
    assert _without_citations(text) == text


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ("cafÃ©", "café"),
        ("itâ€™s â€œtrueâ€\x9d", "it’s “true”"),
        ("SÃ£o Paulo", "São Paulo"),
        ("caf√©", "café"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
    ],
)
def test_wrong_encodings_are_restored(broken: str, text: str) -> None:
    assert _without_mojibake(broken) == text


@pytest.mark.parametrize(
    "text", ["café", "VOILÀ L'ÉTÉ", "√9 = 3 ¬p", "20 × 3 à 5", "São", "“quoted” – it’s", "Ünïcödé ÄÖÜ", "x̂ Â ± 3", "ÃO"]
)
def test_right_letters_stay(text: str) -> None:
    assert _without_mojibake(text) == text


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("Run it:\n```sh\nls -l", "Run it:\n```sh\nls -l\n```"),
        ("```\na = 1\n```\nor\n```py\nb = 2\n", "```\na = 1\n```\nor\n```py\nb = 2\n```"),
        ("~~~\na = 1", "~~~\na = 1\n~~~"),
        ("```py\na = 1\n```", None),  # closed
        ("```py\na = 1\n\nThis sets a to the number one for you.", None),  # where it ends is for a person to say
        ("```\na = 1\n```\nor\n```\nb = 2", None),  # which of three is the odd one is not certain
        ("Write ``` to open a block.", None),
        ("```py\n", None),
    ],
)
def test_a_fence_is_closed_where_all_behind_it_is_code(text: str, fixed: str | None) -> None:
    assert closed(text) == (fixed or text)


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("It rains.</s>", "It rains."),
        ("It rains. <|im_end|>\n<|endoftext|>", "It rains."),
        ("<s>[INST] It rains.", "It rains."),
        ("### Response:\nIt rains.", "It rains."),
        ("<|assistant|>\nIt rains.", "It rains."),
        ("</s>", None),  # nothing would be left: the row stays as it is, for others to judge
        ("It <s>rains</s> pours.", None),
        ("It <s>rains</s>", None),  # struck out
        ("</s><|im_start|>user\nWhy?", None),  # somebody else's turn
        ("</s> " * 50_000 + "It" + " </s>" * 50_000 + " rains.", "It" + " </s>" * 50_000 + " rains."),  # in one go
        ("### Response times\nThey are short.", None),
        ("Assistant: It rains.", None),
    ],
)
def test_tokens_go_from_the_edges_alone(text: str, fixed: str | None) -> None:
    assert _without_edges(text) == (fixed or text)


@given(st.text(alphabet="ab .[]1né Ã©â€™`~\n</s>x=([citation needed])", max_size=80))
def test_each_fix_of_a_fixed_text_changes_nothing(text: str) -> None:
    for rule in list_rules():
        if rule.rewrite is not None:
            once = rule.rewrite.text(text)
            twice = rule.rewrite.text(once)
            assert rule.rewrite.text(twice) == twice
            assert len(once) <= len(text) + 4


@given(st.lists(st.text(alphabet="ab .[]1né Ã©â€™`~\n</s>x=\u20ac", max_size=60), min_size=1, max_size=4))
def test_the_cheap_test_of_a_fix_holds_wherever_it_changes_something(texts: list[str]) -> None:
    for rule in list_rules():
        if rule.rewrite is not None:
            columns = dict.fromkeys(("answer", "user", "system", "context"), texts)
            found = pl.DataFrame(columns).select(rule.matches.fill_null(value=False))
            changed = [rule.rewrite.text(text) != text for text in texts]
            assert not any(c and not f for c, f in zip(changed, found.to_series(), strict=True))


def test_an_overlay_holds_the_rows_that_changed_in_full_with_the_log(store: Store, apply: Apply) -> None:
    rows = [chat("a?", "It is so."), chat("b?", "It rains.</s>", context="N/A"), chat("c?", "cafÃ© it is", context="")]
    after, result = apply(of_formats(make_dataset(store, {"openai": rows})), STAGE)
    overlay = pl.read_ipc(after.shards[0].overlays["rules"])
    assert overlay.select("row", "context", "edits").rows() == [
        (1, None, ["fix:placeholder_context", "fix:edge_tokens"]),
        (2, "", ["fix:mojibake"]),
    ]
    before = [content_hash(r["messages"], r["context"]) for r in rows[1:]]
    assert overlay["before_hash"].to_list() == before
    said = overlay["messages"].list.last().struct.field("content").to_list()
    assert said == ["It rains.", "café it is"]
    hashes = [content_hash(m, c) for m, c in overlay.select("messages", "context").iter_rows()]
    assert overlay["content_hash"].to_list() == hashes
    assert [file.role for file in result.files] == ["annotation", "overlay"]


def test_what_is_fixed_is_judged_as_it_is_afterwards(module_store: Store) -> None:
    """A context that only said "no input" is none: nothing is missing, and nothing is flagged."""
    said = Said(
        module_store,
        {
            "alpaca": [
                Example("Name a tree.", "The oak is one.", context="none given <none>"),
                Example(context="<none>"),
            ]
        },
    )
    assert said.names["alpaca"][1] == ["fix:placeholder_context"]
    assert said.texts("context").to_series().to_list()[1] is None


def test_why_shows_the_words_that_a_fix_changed(store: Store, apply: Apply) -> None:
    from curate.lineage import why

    after, _ = apply(make_dataset(store, {"a": [chat("b?", "It surely rains. </s>", source_key="k")]}), STAGE)
    life = why(after, store, "a:0")
    [event] = [event for event in life.history if event.stage == "rules"]
    assert event.facts["edits"] == ["fix:edge_tokens"]
    assert event.facts["changes"] == {"messages[1] assistant": [("same", "It surely rains."), ("removed", " </s>")]}


def test_a_disabled_fix_does_nothing(store: Store, apply: Apply) -> None:
    config = RulesConfig(disable=("fix:edge_tokens", "rule:special_tokens"))
    after, result = apply(make_dataset(store, {"a": [chat("b?", "It surely rains.</s>")]}), STAGE, config)
    assert "rules" not in after.shards[0].overlays
    assert [file.role for file in result.files] == ["annotation"]


def test_the_rules_over_their_own_outcome_change_nothing(module_store: Store) -> None:
    """What is kept of the stress set, written out and taken in again, is not edited nor rejected, and has its flags."""
    made = stress_set(3_000, seed=7)
    rows = {kind: [p.row for p in made if p.format == kind] for kind in FORMATS}
    first = Said(module_store, rows)
    assert any(name.startswith("fix:") for names in first.names["dolly"] for name in names)
    kept: dict[str, list[Any]] = {}
    columns = ["source", "messages", "context", "flags", "kept"]
    for source, messages, context, flags, is_kept in first.texts(*columns).iter_rows():
        if is_kept:
            kept.setdefault(source, []).append((json.loads(json.dumps(messages)), context, flags))
    again = {s: [{"messages": m, "context": c} for m, c, _ in some] for s, some in kept.items()}
    second, _ = run_on(module_store, of_formats(make_dataset(module_store, again)), STAGE)
    assert not any("rules" in shard.overlays for shard in second.shards)
    found = view(second, "verdict_rules", "flags")
    assert found["verdict_rules"].null_count() == found.height
    assert found["flags"].to_list() == [flags for source in sorted(kept) for *_, flags in kept[source]]
    assert row(Example())["context"] is None
