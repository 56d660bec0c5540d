"""Law 9: every rule has a pair that just passes and just fails; each carries its own, and it is shown to people."""

import re

import pytest

from curate.rules import list_rules
from curate.rules.rule import Rule
from curate.store import Store
from schemas.config import RulesConfig
from tests.curate.rules.conftest import Said

RULES = list_rules()
FORMAT = {"general": "openai", "alpaca": "alpaca", "dolly": "dolly", "openorca": "openorca"}


@pytest.fixture(scope="module")
def said(module_store: Store) -> dict[str, tuple[list[str], list[str]]]:
    """What was said about the hit and the near example of each rule, judged as rows of the format of its pack."""
    by_format = {kind: [rule for rule in RULES if FORMAT[rule.pack] == kind] for kind in FORMAT.values()}
    rows = {f: [e for rule in rules for e in (rule.hit, rule.near) if e is not None] for f, rules in by_format.items()}
    names = Said(module_store, rows).names
    return {
        rule.name: tuple(names[f][2 * i : 2 * i + 2]) for f, rules in by_format.items() for i, rule in enumerate(rules)
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_hit_and_not_its_near_example(
    rule: Rule, said: dict[str, tuple[list[str], list[str]]]
) -> None:
    hit, near = said[rule.name]
    assert rule.name in hit
    assert rule.name not in near


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_near_example_is_a_sound_row(rule: Rule, said: dict[str, tuple[list[str], list[str]]]) -> None:
    """It is one that no other rule finds either, but for the note that its answer is short."""
    assert (
        set(said[rule.name][1]) <= {"flag:short_response", "flag:placeholder_context"} - {rule.name}
        or rule.near is None
    )


def test_a_rule_tells_its_severity_by_its_name_and_where_it_comes_from() -> None:
    for rule in RULES:
        assert rule.name.startswith({"reject": "rule:", "review": "flag:", "fix": "fix:"}[rule.severity])
        assert rule.sentence.endswith(".")
        assert rule.origin
        assert (rule.rewrite is not None) == (rule.severity == "fix")
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_a_pack_judges_the_sources_of_its_format_and_all_where_it_is_asked_to(module_store: Store) -> None:
    [rule] = [rule for rule in RULES if rule.name == "rule:merged_instruction"]
    assert rule.hit is not None
    rows = {"alpaca": [rule.hit], "dolly": [rule.hit]}
    assert [rule.name in names[0] for names in Said(module_store, rows).names.values()] == [True, False]
    everywhere = Said(module_store, rows, RulesConfig(packs=("alpaca",))).names
    assert [rule.name in names[0] for names in everywhere.values()] == [True, True]


def test_each_flag_of_a_kept_row_shows_its_evidence(module_store: Store) -> None:
    rows = [rule.hit for rule in RULES if rule.severity == "review" and rule.pack == "general" and rule.hit]
    said = Said(module_store, {"openai": rows})
    for names, detail in zip(said.names["openai"], said.details["openai"], strict=True):
        flags = [name for name in names if name.startswith("flag:")]
        if not any(name.startswith("rule:") for name in names):
            assert re.findall(r"flag:\w+(?=: )", detail or "") == flags
