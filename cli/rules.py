"""`sft curate rules --list` and `--explain`: what each rule finds, where it comes from, and what it does not find."""

from typing import TYPE_CHECKING, Any

from cli.render import out, print_json, table
from schemas.config import RulesConfig
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from curate.rules.rule import Example, Rule

_WHAT = {
    "fix": "the text is rewritten; `sft why` shows the words that changed",
    "reject": "the row is left out",
    "review": "the row is kept, and the flag is noted with it",
}


def show_list(config: RulesConfig, *, json: bool) -> None:
    """Print every rule by pack: its name, its severity and what it finds."""
    from curate.rules import list_rules

    rules = list_rules(config)
    if json:
        print_json({"rules": [_facts(rule) for rule in rules]})
        return
    for pack in dict.fromkeys(rule.pack for rule in rules):
        rows = [(rule.name, rule.severity, rule.sentence) for rule in rules if rule.pack == pack]
        table(f"{_title(pack)} ({len(rows)})", ["rule", "severity", "what it finds"], rows)
    out("What a rule finds, and what it just does not: sft curate rules --explain RULE")


def explain(name: str, config: RulesConfig, *, json: bool) -> None:
    """Print all about one rule, named in full or by its last part; raise ConfigError for a name that is none."""
    from curate.rules import list_rules

    rules = list_rules(config)
    found = [rule for rule in rules if name in (rule.name, rule.name.partition(":")[2])]
    if not found:
        raise ConfigError(f"rule {name}", "no rule has this name", f"one of {', '.join(rule.name for rule in rules)}")
    if json:
        examples = [
            {"hit": _example(rule.hit), "near": _example(rule.near)} if rule.hit and rule.near else {} for rule in found
        ]
        told = [{**_facts(rule), **pair} for rule, pair in zip(found, examples, strict=True)]
        print_json({"rules": told})
        return
    for rule in found:
        out(rule.name, style="bold")
        out(rule.sentence)
        out(f"  severity  {rule.severity}: {_WHAT[rule.severity]}")
        out(f"  pack      {rule.pack}: {_whom(rule)}")
        out(f"  origin    {rule.origin}")
        for title, example in (("finds", rule.hit), ("not", rule.near)):
            for i, (part, text) in enumerate(_parts(example) if example else []):
                out(f"  {title if i == 0 else '':<9} {part + ':':<11}{text}")
        out(f"  leave out sft curate rules REF --disable {rule.name}")


def _title(pack: str) -> str:
    return {"general": "general: all rows", "custom": "custom: rules of your own"}.get(
        pack, f"{pack}: sources of format {pack}"
    )


def _whom(rule: "Rule") -> str:
    if rule.sources:
        return f"rows of {', '.join(rule.sources)}"
    return (
        "all rows"
        if rule.pack in ("general", "custom")
        else f"sources of format {rule.pack} (all with --packs {rule.pack})"
    )


def _facts(rule: "Rule") -> dict[str, Any]:
    return {
        "name": rule.name,
        "severity": rule.severity,
        "sentence": rule.sentence,
        "pack": rule.pack,
        "origin": rule.origin,
    }


def _example(example: "Example") -> dict[str, Any]:
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in example.messages]
    return {"messages": turns, "context": example.context}


def _parts(example: "Example") -> list[tuple[str, str]]:
    """Give a row as lines: who speaks, and what, with line ends shown."""
    said = [(turn["role"], turn["content"]) for turn in example.messages]
    if example.context is not None:
        said.insert(1 + (said[0][0] == "system"), ("context", example.context))
    return [(who, _line(text)) for who, text in said]


def _line(text: str, limit: int = 90) -> str:
    line = text.replace("\n", "\\n")
    return f'"{line if len(line) <= limit else line[: limit // 2] + " … " + line[-limit // 2 :]}"'
