"""The rules against planted defects: each finds nearly all of its own, and hardly anything else."""

import pytest

from curate.rules import list_rules
from curate.store import Store
from tests.curate.rules.conftest import Said
from tests.curate.rules.stress import FORMATS, PLANTS, Planted, stress_set

ROWS = 6_000
RECALL, PRECISION = 0.98, 0.95

SAYS_THE_SAME = {
    "flag:short_response": None,  # a fact about the answer, whatever else is wrong with it
    "flag:ai_self_reference": {"rule:provider_identity", "flag:refusal"},
    "flag:response_equals_context": {"rule:response_equals_prompt"},
    "flag:missing_media": {"flag:url_only_context"},
    "flag:refusal": {"flag:ai_self_reference", "rule:provider_identity"},
    "flag:unfinished": {"rule:merged_instruction", "flag:repeated_words"},
    "flag:broken_fence": {"fix:open_fence"},
    "flag:speaker_leak": {"rule:template_residue"},
    "flag:repeated_words": {"flag:repeated_sentences"},
}
"""Rules that are right to find a row which was planted for another one."""

Outcome = list[tuple[Planted, list[str]]]


@pytest.fixture(scope="module")
def outcome(module_store: Store) -> Outcome:
    made = stress_set(ROWS)
    by_format = {kind: [p for p in made if p.format == kind] for kind in FORMATS}
    said = Said(module_store, {kind: [p.row for p in some] for kind, some in by_format.items()})
    return [pair for kind, some in by_format.items() for pair in zip(some, said.names[kind], strict=True)]


def test_at_least_twenty_kinds_are_planted_each_in_a_hundredth_of_the_rows(outcome: Outcome) -> None:
    assert len(PLANTS) >= 20
    planted = [p.rule for p, _ in outcome]
    assert all(planted.count(name) == ROWS // 100 for name in PLANTS)
    assert planted.count(None) > ROWS // 2


def test_each_rule_finds_its_defects_and_hardly_anything_else(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, failed = [f"{'rule':<32}{'planted':>8}{'recall':>8}{'found':>7}{'precision':>10}"], []
    for name in PLANTS:
        own = [names for p, names in outcome if p.rule == name]
        recall = sum(name in names for names in own) / len(own)
        same = SAYS_THE_SAME.get(name) or set()
        found = [p for p, names in outcome if name in names and p.rule not in same]
        precision = sum(p.rule == name for p in found) / max(1, len(found))
        lines.append(f"{name:<32}{len(own):>8}{recall:>8.3f}{len(found):>7}{precision:>10.3f}")
        failed += [name] if recall < RECALL or precision < PRECISION else []
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert failed == []


def test_clean_rows_are_kept_and_hardly_flagged(outcome: Outcome) -> None:
    clean = [names for p, names in outcome if p.rule is None]
    assert not any(name.startswith("rule:") for names in clean for name in names)
    other = [name for names in clean for name in names if name != "flag:short_response"]
    assert len(other) <= len(clean) * 0.002


def test_every_rule_but_two_of_structure_is_planted() -> None:
    """No assistant turn cannot be had of a row with an answer; short answers are no defect."""
    assert {rule.name for rule in list_rules()} - set(PLANTS) == {"rule:no_assistant_turn", "flag:short_response"}
