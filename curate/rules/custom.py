"""Custom: a dataset's own rules, from a TOML file.

    [[rule]]
    name = "house_style"
    severity = "review"                 # reject, review or fix
    sentence = "The answer greets before it answers."
    on = "answer"                       # prompt, answer, context, system or user
    matches = "(?i)^(hello|hi)\\b"      # a regular expression of the Rust kind, as polars has it
    not_matches = "Tomas"               # optional
    sources = ["dolly"]                 # optional: only rows of these
    answer_words = { max = 200 }        # optional numeric tests, all of which must hold; see NUMBERS
    replace = ""                        # for severity fix: what stands in place of what matches; $1 is a group

The settings of a stage name the file; before anything runs, `pinned` puts what the file says in the place of its name,
so that the version records the rules themselves and another text of the file is another configuration.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from curate.rules.rule import Field, Rewrite, Rule, shown
from schemas.config import CustomRule, RulesConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import of_turns

NUMBERS: dict[str, pl.Expr] = {
    "answer_words": pl.col("answer_count"),
    "answer_characters": pl.col("answer").str.len_chars(),
    "prompt_words": pl.col("composed").str.count_matches(r"\S+"),
    "prompt_characters": pl.col("composed").str.len_chars(),
    "context_words": pl.col("context").fill_null("").str.count_matches(r"\S+"),
    "turns": pl.col("order").str.len_chars(),
}
"""Numbers that a rule may test, each with `min`, `max` or both."""

_COLUMN = {"prompt": "composed", "answer": "answer", "context": "context", "system": "system", "user": "user"}
_FIXED: dict[str, tuple[Field, ...]] = {
    "prompt": ("user", "context"),
    "answer": ("answer",),
    "context": ("context",),
    "system": ("system",),
    "user": ("user",),
}


def pinned(dataset: Dataset, config: RulesConfig) -> RulesConfig:
    """Put what the rules file says in the place of its name, and check it, down to the sources that it names."""
    if config.rules is None:
        return config
    rules = read(config.rules)
    sources = sorted(source.name for source in dataset.manifest.sources)
    for rule in rules:
        if unknown := [name for name in rule.sources if name not in sources]:
            raise ConfigError(
                f"rule {rule.name}, sources", f"no source is named {', '.join(unknown)}", f"one of {', '.join(sources)}"
            )
    text = json.dumps([rule.model_dump(mode="json", exclude_defaults=True) for rule in rules], ensure_ascii=False)
    return config.model_copy(update={"rules": text})


def read(rules: str) -> list[CustomRule]:
    """Read the rules of a file, or those that are pinned already (a JSON array). Raises ConfigError."""
    if rules.startswith('[{"'):  # and not only "[", as a file's name may begin so
        return [_parsed(values, f"rule {i}", "the pinned rules") for i, values in enumerate(json.loads(rules), 1)]
    try:
        found: dict[str, Any] = tomllib.loads(Path(rules).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"rules {rules}", error.strerror or str(error), "a TOML file with [[rule]] tables") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"rules {rules}", f"not TOML ({error})", "[[rule]] tables") from error
    if unknown := [key for key in found if key != "rule"]:
        raise ConfigError(f"rules {rules}", f"{unknown[0]} is not known at the top", "[[rule]] tables and nothing else")
    tables: Any = found.get("rule")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"rules {rules}", "no [[rule]] table", "at least one")
    return [_parsed(table, f"rule {i}", rules) for i, table in enumerate(tables, 1)]


def _parsed(values: dict[str, Any], nth: str, where: str) -> CustomRule:
    name = values.get("name")
    called = f"rules {where}, {f'rule {name}' if isinstance(name, str) else nth}"
    try:
        return CustomRule.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        what = f"{key} is not a known key" if first["type"] == "extra_forbidden" else said
        known = ", ".join(CustomRule.model_fields) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{called}, {key}" if key else called, what[0].lower() + what[1:], known) from error


def custom_rules(rules: str | None, known: Sequence[Rule]) -> list[Rule]:
    """Give the dataset's own rules. Raises ConfigError that names the rule and the key that cannot be."""
    if rules is None:
        return []
    reserved = {rule.name.partition(":")[2] for rule in known}
    made: list[Rule] = []
    for rule in read(rules):
        if rule.name in reserved:
            raise ConfigError(f"rule {rule.name}, name", "a rule that comes with the tool has it", "another name")
        if any(f"custom:{rule.name}" == other.name for other in made):
            raise ConfigError(f"rule {rule.name}, name", "two rules have it", "a name for each")
        made.append(_rule(rule))
    return made


def _rule(rule: CustomRule) -> Rule:
    tests: list[pl.Expr] = []
    for key, pattern in (("matches", rule.matches), ("not_matches", rule.not_matches)):
        if pattern is None:
            continue
        _check(rule.name, key, pattern)
        if rule.severity == "fix" and rule.on == "prompt":  # each of its texts by itself
            columns = [pl.col(column) for column in ("user", "context")]
        else:
            columns = [pl.col(_COLUMN[rule.on])]
        held = pl.any_horizontal([column.fill_null("").str.contains(pattern) for column in columns])
        if key == "matches" and rule.severity == "fix" and rule.on != "context":  # ^ and $ are also those of each turn
            role = "assistant" if rule.on == "answer" else "system" if rule.on == "system" else "user"
            turn = pl.element().struct
            said = of_turns(turn.field("content"), turn.field("role") == role)
            held |= said.list.eval(pl.element().str.contains(pattern)).list.any()
        tests.append(held if key == "matches" else ~held)
    for name, number in NUMBERS.items():
        bounds = getattr(rule, name)
        if bounds is None:
            continue
        tests += [number >= bounds.min] if bounds.min is not None else []
        tests += [number <= bounds.max] if bounds.max is not None else []
    rewrite = None
    if rule.severity == "fix":
        pattern, value = rule.matches or "", rule.replace or ""
        _check_groups(rule.name, pattern, value)
        skip = rule.not_matches
        rewrite = Rewrite(_FIXED[rule.on], lambda text: _replaced(text, pattern, value, skip))
    return Rule(
        f"custom:{rule.name}",
        rule.severity,
        pl.all_horizontal(tests),
        shown(_COLUMN[rule.on]),
        origin="this dataset's own configuration",
        rewrite=rewrite,
        pack="custom",
        says=rule.sentence,
        sources=rule.sources,
    )


def _replaced(text: str, pattern: str, value: str, skip: str | None) -> str:
    """Replace what matches; a text that what must not match is found in stays as it is."""
    one = pl.Series([text])
    if skip is not None and one.str.contains(skip)[0]:
        return text
    return one.str.replace_all(pattern, value)[0]


def _check(name: str, key: str, pattern: str) -> None:
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        said = re.sub(r"\s+", " ", str(error)).partition(" This error occurred")[0]
        raise ConfigError(
            f"rule {name}, {key}", f"{pattern!r} is no regular expression ({said})", "one of the Rust kind"
        ) from error


def _check_groups(name: str, pattern: str, value: str) -> None:
    """Raise ConfigError for a group that the expression has not: it would stand for nothing, and text be lost."""
    groups = pl.Series([""]).str.extract_groups(pattern).struct.fields
    known = {*groups, *map(str, range(len(groups) + 1))}
    for braced, bare in re.findall(r"\$(?:\{([^}]*)\}|(\w+))", value.replace("$$", "")):
        if (braced or bare) not in known:
            written = f"${{{braced}}}" if braced else f"${bare}"
            raise ConfigError(
                f"rule {name}, replace",
                f"{written} is no group of {pattern!r}",
                "$1 for the first group, ${1} where a letter or digit follows, $$ for a dollar sign",
            )
