"""Contracts of the rules: for each one a pair that just passes and just fails, the order, the flags, the evidence."""

from typing import Any

import polars as pl
import pytest

from curate.rules import STAGE, list_rules
from curate.store import Store
from schemas.config import RulesConfig
from schemas.errors import ConfigError
from schemas.reasons import REASONS
from tests.curate.conftest import Apply, chat, make_dataset, run_on, turns, view

Row = dict[str, Any]


def calls(text: str, tool_calls: str) -> Row:
    row = chat("Is it raining?", text)
    row["messages"][1]["tool_calls"] = tool_calls
    return row


def answer(text: str) -> Row:
    return chat("What is it?", text)


def about(context: str) -> Row:
    return chat("Summarise this.", "It is a short and friendly text.", context=context)


GOOD = "It is a long enough answer."

FAILS: dict[str, list[Row]] = {
    "rule:no_user_turn": [
        turns(("system", "You help."), ("assistant", GOOD)),
        turns(("user", " \n"), ("assistant", GOOD)),
        turns(("system", "s"), ("assistant", GOOD), context="a context with nobody to ask about it"),
        turns(),
    ],
    "rule:no_assistant_turn": [turns(("user", "Anyone?")), turns(("user", "a"), ("tool", "b"))],
    "rule:last_turn_not_assistant": [
        chat("a?", GOOD, "and b?"),
        turns(("user", "a"), ("assistant", "b"), ("tool", "c")),
    ],
    "rule:roles_out_of_order": [
        turns(("user", "a"), ("user", "b"), ("assistant", GOOD)),
        turns(("user", "a"), ("assistant", "b"), ("assistant", GOOD)),
        turns(("assistant", "Welcome!"), ("user", "a"), ("assistant", GOOD)),
        turns(("user", "a"), ("system", "s"), ("assistant", GOOD)),
        turns(("user", "a"), ("tool", "t"), ("assistant", GOOD)),
        turns(("user", "a"), ("narrator", "t"), ("assistant", GOOD)),
    ],
    "rule:empty_response": [answer(""), answer(" \n\t"), answer(None), chat("a", " ", "b", GOOD)],
    "rule:placeholder_response": [
        *map(answer, ["nooutput", "<nooutput>", "<No Output>", "No output.", "no_output", "No output needed"]),
        *map(answer, ["N/A", "n/a.", "<N/A>", "Not applicable.", "TODO", "TBD", "[todo]", "<none>", "(None)"]),
        *map(answer, ["...", "…", "---", "___", "???", "[Your answer here]", "<response>", "[Insert answer here]"]),
        chat("a", "...", "b", GOOD),
    ],
    "rule:response_equals_prompt": [
        chat("Rewrite this sentence.", "Rewrite  this sentence.\n"),
        chat("Rewrite:", "Rewrite: it rains", context="it rains"),
        chat("Rewrite:", "Rewrite:", context="it rains"),
    ],
    "flag:short_response": [answer("Two words"), answer("Yes")],
    "fix:placeholder_context": [
        *map(about, ["No input", "<noinput>", "< noinput >.", "(no input)", "No input required.", "N/A", "<none>"]),
        *map(about, ["No context provided", "not applicable", "<noinput> 8", "`<noinput>`", "\\<noinput\\>"]),
    ],
    "flag:placeholder_context": [*map(about, ["none", "NULL", "(blank"])],
    "flag:url_only_context": [
        *map(about, ["https://example.com/a?b=c", " www.example.com ", "https:\\\\www.example.com"]),
        about("http://a.example\nhttp://b.example"),
    ],
    "flag:response_equals_context": [chat("Correct the grammar.", "He spoke  loudly.", context="He spoke loudly.")],
    "flag:refusal": [
        *map(answer, ["I'm sorry, but I can't assist with that.", "As an AI language model, I have no opinion."]),
        *map(answer, ["Sorry, the task requires a visual output.", "I cannot set up a reminder for 8 am."]),
        *map(answer, ["No output because this needs a picture.", "Unfortunately, I am unable to open links."]),
        answer("I’m sorry, but as an AI I do not eat."),
    ],
}
"""Rows that the rule finds, and no rejecting rule before it."""

PASSES: dict[str, list[Row]] = {
    "rule:no_user_turn": [chat("?", GOOD), turns(("user", ""), ("assistant", GOOD), context="Translate: house")],
    "rule:no_assistant_turn": [chat("Anyone?", GOOD)],
    "rule:last_turn_not_assistant": [chat("a?", GOOD, "and b?", GOOD)],
    "rule:roles_out_of_order": [
        turns(("system", "s"), ("user", "a"), ("assistant", GOOD)),
        turns(("user", "a"), ("assistant", "b"), ("tool", "t"), ("tool", "t"), ("assistant", GOOD)),
        chat("a", "b", "c", "d", "e", GOOD),
    ],
    "rule:empty_response": [answer("."), calls("", '[{"name": "weather"}]')],
    "rule:placeholder_response": [
        # right answers to a count, a truth value, chemistry, Spanish, JSON, a comparison, Morse, a list item
        *map(answer, ["None", "None.", "Yes", "No", "0", "Na", "Todo", "null", ">", "- -", "-", "No outputs differ."]),
        *map(answer, ["The output is N/A for this row.", "[1]", "<html>", "💃🏻", "no", "Nothing"]),
    ],
    "rule:response_equals_prompt": [
        chat("Put in capitals: rain", "PUT IN CAPITALS: RAIN"),
        chat("Rewrite this sentence.", "Rewrite this sentence!"),
        chat("Correct the grammar.", "He spoke loudly.", context="He spoke loudly."),
    ],
    "flag:short_response": [answer("Just three words")],
    "fix:placeholder_context": [
        *map(about, ["No input was lost in the flood.", "none", "I can't not go", "Na", "input", "No inputs fit 8"])
    ],
    "flag:placeholder_context": [*map(about, ["none of these", "<none>", "blank page"])],
    "flag:url_only_context": [about("See https://example.com"), about("https://example.com is down"), about("www")],
    "flag:response_equals_context": [chat("Correct it.", "He spoke loudly!", context="He spoke loudly.")],
    "flag:refusal": [
        *map(answer, ["I'm sorry to hear that. Is there anything I can do?", "I can't repudiate my fears."]),
        *map(answer, ["I'm an engineer from Leeds.", "Sorry, Scrabble and Monopoly are board games."]),
        *map(answer, ["A language model predicts the next word.", 'Bob: "I cannot help you with the rent."']),
        answer("I am unable to finish my meal in this sentence."),
    ],
}

CASES = [(name, row, True) for name, rows in FAILS.items() for row in rows] + [
    (name, row, False) for name, rows in PASSES.items() for row in rows
]


def test_every_rule_has_its_pair_and_its_sentence() -> None:
    """Here are the pairs of the rules about structure and placeholders; each rule carries one pair of its own."""
    assert set(FAILS) == set(PASSES) <= {rule.name for rule in list_rules()}
    for rule in list_rules():
        assert rule.hit is not None
        assert rule.near is not None
        assert rule.sentence == REASONS[rule.name]
        assert rule.name.startswith({"reject": "rule:", "review": "flag:", "fix": "fix:"}[rule.severity])


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str | None, str | None, list[str], list[str]]]:
    """Verdict, detail, flags and edits of each of CASES, judged in one run."""
    store = Store(tmp_path_factory.mktemp("rules"))
    after, _ = run_on(store, make_dataset(store, {"a": [row for _, row, _ in CASES]}), STAGE)
    overlay = pl.read_ipc(after.shards[0].overlays["rules"])
    edits = dict(overlay.select("row", "edits").iter_rows())
    rows = view(after, "verdict_rules", "detail_rules", "flags").rows()
    return [(*row, edits.get(i, [])) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    "case", range(len(CASES)), ids=lambda i: f"{'fails' if CASES[i][2] else 'passes'}-{CASES[i][0]}-{i}"
)
def test_rule_finds_what_just_fails_and_nothing_that_just_passes(
    case: int, judged: list[tuple[str | None, str | None, list[str], list[str]]]
) -> None:
    name, _, fails = CASES[case]
    verdict, detail, flags, edits = judged[case]
    assert (name in (verdict, *flags, *edits)) == fails
    assert (detail is None) == (verdict is None and not flags)
    assert detail != ""


def test_the_first_rule_that_rejects_gives_the_verdict_and_all_flags_stand(store: Store, apply: Apply) -> None:
    row = turns(("user", "a"), ("user", "b"), ("assistant", ""), context="none")
    after, _ = apply(make_dataset(store, {"a": [row]}), STAGE)
    (found,) = view(after, "verdict_rules", "detail_rules", "flags").rows()
    assert found == (
        "rule:roles_out_of_order",
        "turns: user, user, assistant",
        ["flag:short_response", "flag:placeholder_context"],
    )


def test_flags_are_an_empty_list_for_a_judged_row_and_null_for_another(store: Store, apply: Apply) -> None:
    rows = [answer(GOOD), {"messages": None, "broken": "ingest:broken_json"}]
    after, _ = apply(make_dataset(store, {"a": rows}), STAGE)
    assert view(after, "verdict_rules", "detail_rules", "flags").rows() == [(None, None, []), (None, None, None)]


def test_a_disabled_rule_does_not_judge(store: Store, apply: Apply) -> None:
    dataset = make_dataset(store, {"a": [answer("N/A")]})
    after, _ = apply(dataset, STAGE, RulesConfig(disable=("rule:placeholder_response", "flag:short_response")))
    assert view(after, "verdict_rules", "flags").rows() == [(None, [])]


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("user assistant user", None),
        ("user assistant tool", None),
        ("user assistant tool assistant tool", None),
        ("user assistant tool user", "rule:roles_out_of_order"),
    ],
)
def test_an_open_end_is_no_disorder(roles: str, reason: str | None, store: Store, apply: Apply) -> None:
    """Seen where the rule about the last turn does not judge."""
    row = turns(*((role, GOOD + role) for role in roles.split()))
    after, _ = apply(make_dataset(store, {"a": [row]}), STAGE, RulesConfig(disable=("rule:last_turn_not_assistant",)))
    assert view(after, "verdict_rules").item() == reason


def test_all_rules_disabled_keep_every_row(store: Store, apply: Apply) -> None:
    names = tuple(rule.name for rule in list_rules())
    after, _ = apply(make_dataset(store, {"a": [answer("N/A")]}), STAGE, RulesConfig(disable=names))
    assert view(after, "verdict_rules", "flags").rows() == [(None, [])]


def test_a_misspelt_rule_is_an_error_that_names_the_known_ones(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"empty_respons.*rule:empty_response.*flag:refusal"):
        run_on(store, make_dataset(store, {"a": [answer(GOOD)]}), STAGE, RulesConfig(disable=("empty_respons",)))


def test_short_words_sets_what_is_short(store: Store, apply: Apply) -> None:
    dataset = make_dataset(store, {"a": [answer("one two three four")]})
    after, _ = apply(dataset, STAGE, RulesConfig(short_words=5))
    assert view(after, "flags").rows() == [(["flag:short_response"],)]


def test_rules_read_what_normalize_wrote(store: Store, apply: Apply) -> None:
    from curate.normalize import STAGE as NORMALIZE

    dataset, _ = apply(make_dataset(store, {"a": [turns(("human", "a?"), ("gpt", GOOD))]}), NORMALIZE)
    after, _ = apply(dataset, STAGE)
    assert view(after, "verdict_rules").rows() == [(None,)]


@pytest.mark.realdata
def test_on_real_rows_the_rules_find_what_is_known_to_be_there(
    store: Store, apply: Apply, real_rows: dict[str, list[Row]]
) -> None:
    """The data's README counts 8 outputs "nooutput" (12 with those in two words), 127 placeholder inputs, 28 inputs
    that are a URL, 13 outputs equal to the input (two are 'N/A'). Four outputs are empty."""
    after, result = apply(make_dataset(store, {"alpaca": real_rows["alpaca"]}), STAGE)
    rejected = next(file.statistics for file in result.files if file.role == "annotation")
    assert rejected["rule:empty_response"] == 4
    assert 12 <= rejected["rule:placeholder_response"] <= 18
    assert sum(rejected.values()) <= 25
    flags = view(after, "flags").explode("flags")["flags"].value_counts()
    counts = dict(flags.iter_rows())
    edits = [name for names in pl.read_ipc(after.shards[0].overlays["rules"])["edits"] for name in names]
    assert 127 <= edits.count("fix:placeholder_context") + counts["flag:placeholder_context"] <= 140
    assert 28 <= counts["flag:url_only_context"] <= 36
    assert 11 <= counts["flag:response_equals_context"] <= 20
    assert 5 <= counts["flag:refusal"] <= 12
