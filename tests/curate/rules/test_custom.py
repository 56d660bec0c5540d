"""Custom rules: a file of one's own, recorded by what it says; and each slip in it is one clear line."""

from pathlib import Path
from typing import Any

import pytest

from curate.rules import STAGE, list_rules
from curate.rules.custom import NUMBERS, pinned
from curate.rules.rule import Example
from curate.stage import run_stage
from curate.store import Store
from schemas.config import CustomRule, RulesConfig
from schemas.errors import ConfigError
from tests.curate.conftest import make_dataset
from tests.curate.rules.conftest import Said, of_formats, row

LOUD = """
[[rule]]
name = "loud"
severity = "reject"
sentence = "The answer shouts."
matches = "!{3,}"
not_matches = "(?i)warning"
"""


def written(folder: Path, text: str) -> RulesConfig:
    (folder / "rules.toml").write_text(text)
    return RulesConfig(rules=str(folder / "rules.toml"))


def said(store: Store, config: RulesConfig, *rows: Example, source: str = "alpaca") -> list[list[str]]:
    return Said(store, {source: list(rows)}, config).names[source]


def test_a_rule_finds_what_matches_unless_what_must_not_match_is_there(store: Store, tmp_path: Path) -> None:
    rows = [Example(answer=text) for text in ("It rains and pours!!!", "It rains and pours!!", "Warning: it pours!!!")]
    assert said(store, written(tmp_path, LOUD), *rows) == [["custom:loud"], [], []]


@pytest.mark.parametrize(
    ("on", "hit", "near"),
    [
        (
            "prompt",
            Example("a fox?", context="x"),
            Example("a hen?", "It is a fox of course.", context="x", system="fox"),
        ),
        ("prompt", Example("a hen?", context="a fox"), Example("a hen?", "It is a fox of course.")),
        ("answer", Example("a hen?", "It is a fox of course."), Example("a fox?", context="fox")),
        ("context", Example("a hen?", context="a fox"), Example("a fox?", "It is a fox of course.")),
        ("system", Example("a hen?", system="a fox"), Example("a fox?", "It is a fox of course.")),
        ("user", Example("a fox?"), Example("a hen?", context="a fox")),
    ],
)
def test_a_rule_reads_the_text_that_it_names(
    on: str, hit: Example, near: Example, store: Store, tmp_path: Path
) -> None:
    text = f'[[rule]]\nname = "f"\nseverity = "review"\nsentence = "A fox."\non = "{on}"\nmatches = "fox"\n'
    assert said(store, written(tmp_path, text), hit, near) == [["custom:f"], []]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_numeric_test_has_both_ends(name: str, store: Store, tmp_path: Path) -> None:
    size = {
        "answer_words": 6,
        "answer_characters": 27,
        "prompt_words": 6,
        "prompt_characters": 23,
        "context_words": 3,
        "turns": 2,
    }
    row = Example("What is it?", "It is a long enough answer.", context="one two ten")
    for low, high, found in ((0, 0, True), (0, 1, True), (1, 9, False), (-9, -1, False), (-1, 0, True)):
        bounds = f"{{ min = {size[name] + low}, max = {size[name] + high} }}"
        text = f'[[rule]]\nname = "n"\nseverity = "review"\nsentence = "So long."\n{name} = {bounds}\n'
        assert said(store, written(tmp_path, text), row) == [["custom:n"] if found else []]


def test_all_numbers_of_the_model_are_known() -> None:
    others = {"name", "severity", "sentence", "on", "matches", "not_matches", "sources", "replace"}
    assert set(CustomRule.model_fields) - others == set(NUMBERS)


def test_a_fix_replaces_with_groups_and_is_logged(store: Store, tmp_path: Path) -> None:
    text = '[[rule]]\nname = "date"\nseverity = "fix"\nsentence = "Days last."\n'
    text += 'matches = "(\\\\d+)/(\\\\d+)/(\\\\d+)"\nreplace = "$3-$1-$2"\n'
    found = Said(store, {"a": [Example(answer="It was 5/4/1999 and it rained.")]}, written(tmp_path, text))
    assert found.names["a"] == [["custom:date"]]
    assert found.texts("messages").to_series()[0].struct.field("content")[1] == "It was 1999-5-4 and it rained."


def test_a_rule_for_some_sources_judges_these_alone(store: Store, tmp_path: Path) -> None:
    rows = {name: [Example(answer="It rains and pours!!!")] for name in ("alpaca", "dolly")}
    names = Said(store, rows, written(tmp_path, LOUD + 'sources = ["dolly"]')).names
    assert names == {"alpaca": [[]], "dolly": [["custom:loud"]]}


def test_a_custom_rule_can_be_disabled_and_comes_after_those_of_the_tool(store: Store, tmp_path: Path) -> None:
    config = written(tmp_path, LOUD)
    assert [rule.name for rule in list_rules(config)][-1] == "custom:loud"
    off = config.model_copy(update={"disable": ("custom:loud",)})
    assert said(store, off, Example(answer="It rains and pours!!!")) == [[]]
    both = Example(answer="It rains.<|im_end|>!!!\nAnd pours.")
    assert said(store, config, both) == [["rule:special_tokens"]]


def test_the_version_records_what_the_rules_were_and_not_where_they_lay(store: Store, tmp_path: Path) -> None:
    """The same text elsewhere is the same configuration; another text in the same place is another one."""
    dataset = of_formats(make_dataset(store, {"alpaca": [row(Example(answer="It rains and pours!!!"))]}))
    results: list[Any] = []
    for folder, text in (("a", LOUD), ("b", "# words about it\n" + LOUD), ("a", LOUD.replace("{3,}", "{4,}"))):
        (tmp_path / folder).mkdir(exist_ok=True)
        results.append(run_stage(store, dataset, STAGE, written(tmp_path / folder, text)))
    first, same, other = results
    assert "!{3,}" in first.entry.config["rules"]
    assert str(tmp_path) not in first.entry.config["rules"]
    assert same.cached
    assert same.entry.config == first.entry.config
    assert not other.cached
    assert other.entry.config != first.entry.config
    again = STAGE.config.model_validate(first.entry.config)  # as the manifest has it, without the file
    (tmp_path / "a/rules.toml").unlink()
    assert pinned(dataset, again) == again
    assert run_stage(store, dataset, STAGE, again).cached


RULE = '[[rule]]\nname = "x"\nseverity = "review"\nsentence = "So."\n'
BROKEN = {
    "unknown column": (RULE + 'on = "title"\nmatches = "a"', "rule x, on"),
    "bad regex": (RULE + 'matches = "(a"', "rule x, matches"),
    "bad regex of what must not match": (RULE + 'not_matches = "[z-a]"', "rule x, not_matches"),
    "look-around, which this kind has not": (RULE + 'matches = "(?<=a)b"', "rule x, matches"),
    "unknown key": (RULE + 'match = "a"', "rule x, match"),
    "unknown severity": (RULE.replace("review", "warn") + 'matches = "a"', "rule x, severity"),
    "no sentence": ('[[rule]]\nname = "x"\nseverity = "review"\nmatches = "a"', "rule x, sentence"),
    "no name": ('[[rule]]\nseverity = "review"\nsentence = "So."\nmatches = "a"', "rule 1, name"),
    "a name with a blank": (RULE.replace('"x"', '"x y"') + 'matches = "a"', "rule x y, name"),
    "nothing to test": (RULE, "rule x"),
    "the same name twice": (RULE + 'matches = "a"\n' + RULE + 'matches = "b"', "rule x, name"),
    "a name of the tool's own": (RULE.replace('"x"', '"refusal"') + 'matches = "a"', "rule refusal, name"),
    "replace without fix": (RULE + 'matches = "a"\nreplace = "b"', "rule x"),
    "fix without replace": (RULE.replace("review", "fix") + 'matches = "a"', "rule x"),
    "a number that is none": (RULE + 'answer_words = { max = "few" }', "rule x, answer_words.max"),
    "a range that holds nothing": (RULE + "answer_words = { min = 5, max = 2 }", "rule x, answer_words"),
    "a group that is not there": (
        RULE.replace("review", "fix") + 'matches = "(a)"\nreplace = "$1b"',
        "rule x, replace: $1b is no group",
    ),
    "a range without ends": (RULE + "answer_words = {}", "rule x, answer_words"),
    "a fix without end": (RULE.replace("review", "fix") + 'matches = "a"\nreplace = "aa"', "rule custom:x"),
    "unknown source": (RULE + 'matches = "a"\nsources = ["nobody"]', "rule x, sources"),
    "no TOML": ("[[rule", "rules.toml"),
    "no rule": ("title = 1", "title is not known"),
    "an empty file": ("", "no [[rule]] table"),
    "rule is no list": ("rule = 3", "no [[rule]] table"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_slip_is_one_line_that_names_the_rule_and_the_key(case: str, store: Store, tmp_path: Path) -> None:
    text, named = BROKEN[case]
    with pytest.raises(ConfigError) as caught:
        said(store, written(tmp_path, text), Example(answer="An answer that has an a."))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        said(store, RulesConfig(rules="nowhere.toml"), Example())


def test_a_fix_reads_each_turn_from_its_own_beginning(store: Store, tmp_path: Path) -> None:
    text = RULE.replace("review", "fix") + 'matches = "^Sure, "\nreplace = ""'
    turns = (("user", "a?"), ("assistant", "It is so."), ("user", "b?"), ("assistant", "Sure, it is so."))
    assert said(store, written(tmp_path, text), Example(turns=turns)) == [["custom:x"]]


def test_a_file_may_have_a_bracket_ahead_of_its_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "[loud].toml").write_text(LOUD)
    monkeypatch.chdir(tmp_path)
    row = Example(answer="It rains and pours!!!")
    assert said(store, RulesConfig(rules="[loud].toml"), row) == [["custom:loud"]]
