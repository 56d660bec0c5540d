"""Packs: which rules judge which rows. `general` judges all of them, each other pack the sources of its format."""

from curate.rules import (
    arithmetic,
    endings,
    languages,
    marks,
    options,
    placeholders,
    refusals,
    repetition,
    residue,
    structure,
)
from curate.rules.rule import Rule
from schemas.config import RulesConfig


def built_in(config: RulesConfig) -> list[Rule]:
    """Give the rules that come with the tool, in the order in which they fix and judge: what says most comes first."""
    packs: dict[str, list[Rule]] = {
        "general": [
            *structure.RULES,
            *placeholders.rules(config),
            *residue.RULES,
            *refusals.RULES,
            *marks.RULES,
            *repetition.RULES,
            *arithmetic.RULES,
            *endings.RULES,
            *languages.RULES,
        ],
        "alpaca": [residue.MERGED_INSTRUCTION, placeholders.MISSING_INPUT],
        "dolly": [marks.CITATION_MARKS, endings.CUT_CONTEXT],
        "openorca": [*options.RULES],
    }
    return [rule.of_pack(pack) for pack, rules in packs.items() for rule in rules]
