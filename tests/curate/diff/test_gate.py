"""Gates: every word counts what the documentation says, a slip is pointed at, and what breaks a gate is named."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.diff.account import Account
from curate.diff.gate import AllOf, AnyOf, Comparison, parse_gate, read_gates
from curate.diff.gauge import GAUGES
from schemas.errors import ConfigError
from tests.curate.diff.versions import shared_account

DOCS = Path(__file__).parents[3] / "docs/diff.md"


@pytest.fixture(scope="module")
def account() -> Account:
    return shared_account()


@pytest.mark.parametrize(
    ("holds", "fails"),
    [
        ("removed >= 20", "removed > 20"),
        ("removed(ferries) = 20", "removed(lamps) > 0"),
        ("removed(ferries) >= 100%", "removed(ferries) > 100%"),
        ("added(trams) > 1000%", "added(lamps) > 2.5%"),
        ("rejected(lamps) > 4.9%", "rejected(lamps) > 5%"),
        ("rejected(rules) = 1", "rejected(rules, trams) > 0"),
        ("rejected(rule:empty_response) = 1", "rejected(rule:no_user_turn) > 0"),
        ("rejected(lamps, rules, review) = 2", "rejected(dedup) > 0"),
        ("edited_upstream = 1", "edited_upstream > 1"),
        ("restored(ada) = 1", "restored(trams) > 0"),
        ("changed(lamps) >= 5", "changed(trams) > 10"),
        ("kept < 50", "kept < 49"),
        ("kept(lamps) = 39", "kept(ferries) > 0"),
        ("kept(ferries) <= -100%", "kept(lamps) < 0%"),
        ("rows = 51", "rows(trams) != 10"),
        ("tokens < -10%", "tokens < -20%"),
        ("share(trams) > 20%", "share(trams) > 21%"),
        ("licence(unknown) = 10", "licence(non-commercial) > 0"),
        ("licence(unknown, permissive) = 100%", "licence(unknown) > 50%"),
        ("leaks = 0", "leaks > 0"),
        ("drift(lamps, tokens) < 0.2", "drift(lamps, turns) > 0"),
        ("reviews(changed) = 1", "reviews(stale, carried) > 0"),
        ("clusters = 0", "clusters(merged) > 0"),
        ("settings = 0", "settings(split) > 0"),
        ("stale = 0", "stale(rules) > 0"),
        ("bump >= minor", "bump < major"),
        ("bump = major and removed > 1", "bump = major and removed > 100"),
        ("removed > 100 or added > 1", "removed > 100 or added > 100"),
        ("(removed > 100 or added > 1) and edited > 0", "(removed > 1 or added > 1) and edited > 100"),
    ],
)
def test_a_rule_holds_or_does_not(account: Account, holds: str, fails: str) -> None:
    assert parse_gate(holds).judge(account).broken
    assert not parse_gate(fails).judge(account).broken


def test_and_binds_closer_than_or() -> None:
    rule = parse_gate("rows > 1 or rows > 2 and rows > 3").rule
    assert isinstance(rule, AnyOf)
    assert [type(part) for part in rule.parts] == [Comparison, AllOf]


def test_blanks_and_case_of_and_or_do_not_matter() -> None:
    both = AllOf((parse_gate("rows>1").rule, parse_gate("kept≥2").rule))
    assert parse_gate(" rows>1 AND  kept≥2 ").rule == both


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("remved > 2", "at character 1, 'remved': no word that counts something"),
        ("removed(dolly > 2", "at character 15, '>': the names do not end; expected ',' or ')'"),
        ("removed() > 2", "at character 9, ')': no name"),
        ("removed 2", "at character 9, '2': no comparison after removed"),
        ("removed > many", "at character 11, 'many': no number"),
        ("removed > 2 added > 1", "at character 13, 'added': the rule could end before it"),
        ("(removed > 2", "at its end: the bracket is not closed"),
        ("removed > 2 and", "at its end: no word that counts something"),
        ("removed > 2 $", "at character 13, '$': nothing that a rule is made of"),
        ("leaks > 2%", "at character 9, '2%': leaks has no percentage"),
        ("share(a) > 2", "at character 12, '2': share is a percentage; expected 2%"),
        ("tokens < -5", "at character 10, '-5': tokens is never below 0"),
        ("bump > 2", "at character 8, '2': no part of a version number"),
        ("removed > 2,5%", "at character 11, '2': no number; expected a limit such as 100, 1,000 or 2.5%"),
        ("removed > 1,00", "at character 11, '1': no number"),
        ("removed > 1000,5", "at character 11, '1000': no number"),
        ("", "at its end"),
        ("(" * 30, "brackets in more than 20 brackets"),
        ("rows > 1 or " * 200, "at most 1,000"),
    ],
)
def test_a_slip_is_pointed_at(rule: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(rule)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("removed(lampz) > 2", "at character 9, 'lampz': no source or stage or reason of that name"),
        ("removed(lampz) > 2", "sources lamps, trams, ferries; stages ingest, normalize"),
        ("removed(lampz) > 2", "Did you mean lamps?"),
        ("kept(rules) > 2", "'rules': no source of that name"),
        ("leaks(lamps) > 2", "leaks takes no names"),
        ("licence(free) > 2", "public-domain, permissive"),
        ("drift(lamps, size) > 2", "tokens, turns, words"),
    ],
)
def test_a_name_that_there_is_not_is_told_with_those_that_there_are(account: Account, rule: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(rule).judge(account)
    assert said in str(caught.value)


pieces = st.sampled_from(
    [*GAUGES, "(", ")", ",", ">", "<=", "2", "-3%", "and", "or", '"', "lamps", "major", " ", "é", "\0"]
)


@given(st.lists(pieces, max_size=12).map("".join) | st.lists(pieces, max_size=12).map(" ".join) | st.text(max_size=20))
def test_whatever_is_typed_is_a_rule_or_one_clear_line(text: str) -> None:
    try:
        said = parse_gate(text).text
    except ConfigError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


def test_the_rows_that_broke_a_gate_are_named_each_once(account: Account) -> None:
    outcome = parse_gate("removed(ferries) > 2% and removed > 3").judge(account)
    assert len(outcome.rows) == 20
    assert {row["word"] for row in outcome.rows} == {"removed"}
    assert {row["place"] for row in outcome.rows} == {f"ferries:{i}" for i in range(1, 21)}
    assert [j.value for j in outcome.tests] == ["100%", "20"]
    gone = parse_gate("kept(lamps) < 40").judge(account)
    assert {row["word"] for row in gone.rows} == {"rejected", "edited_upstream"}
    assert parse_gate("removed > 30").judge(account).rows == ()


def test_a_percentage_of_nothing_is_infinite_and_still_json(account: Account) -> None:
    outcome = parse_gate("added(trams) > 5%").judge(account)
    assert outcome.broken
    assert outcome.to_json()["tests"][0]["value"] is None
    assert not parse_gate("removed(trams) > 0%").judge(account).broken


def test_thousands_may_be_divided_and_names_may_be_numbers() -> None:
    for limit in ("1,234,567.5%", "1_234_567.5%", "1234567.5 %"):
        rule = parse_gate(f"removed > {limit}").rule
        assert isinstance(rule, Comparison)
        assert (rule.limit, rule.percent) == (1_234_567.5, True)
    rule = parse_gate("removed(2,3) > 1").rule
    assert isinstance(rule, Comparison)
    assert [a.name for a in rule.arguments] == ["2", "3"]


def test_neither_name_nor_rule_can_steer_a_terminal() -> None:
    gate = parse_gate('removed("\x1b[2J") > 1', "\x1b[31mred")
    assert "\x1b" not in gate.text + str(gate.name)


def test_what_was_not_measured_is_said_not_to_be(account: Account) -> None:
    assert parse_gate("drift(trams) > 0").judge(account).tests[0].value == "0 (not measured in both versions)"
    plain = replace(account, after=replace(account.after, stages=()))
    assert parse_gate("leaks > 0").judge(plain).tests[0].value.startswith("0 (not looked for")
    assert parse_gate("leaks > 0").judge(account).tests[0].value == "0"


def test_named_limits_are_read_from_a_file(tmp_path: Path, account: Account) -> None:
    file = tmp_path / "gates.toml"
    file.write_text('[gates]\n"few ferries go" = "removed(ferries) > 2%"\nwhole = "leaks > 0"\n')
    found = read_gates(file)
    assert [(gate.name, gate.judge(account).broken) for gate in found] == [("few ferries go", True), ("whole", False)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("= 3", "not TOML"),
        ("x = " + "[" * 5_000, "not TOML"),
        ("[other]\n", "no table [gates]"),
        ("[gates]\n", "no table [gates]"),
        ("[gates]\nfew = 3\n", "'few': 3 is not a text"),
        ('[gates]\nfew = "remved > 1"\n', "'remved'"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "gates.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_gates(file)
    assert said in str(caught.value)


def test_the_documentation_has_every_word() -> None:
    page = DOCS.read_text()
    rows = {line.split("`")[1].partition("(")[0]: line for line in page.splitlines() if line.startswith("| `")}
    assert [word for word in GAUGES if word not in rows] == []
    assert all(gauge.counts in rows[word] for word, gauge in GAUGES.items()), [
        word for word, gauge in GAUGES.items() if gauge.counts not in rows[word]
    ]
