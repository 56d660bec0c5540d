"""How `sft why` tells the life of a row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.render import console, out

if TYPE_CHECKING:
    from curate.lineage import Event, Life

INDENT = 14
"""Columns that the name of a stage takes."""

CONTEXT = 120
"""Characters of an unchanged passage that are shown before and after a change."""

_SIGNS = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}
"""Control characters become their pictures (Unicode block 2400); the later ones and those of direction U+FFFD."""

_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_TOLD_BY_THE_LINE = ("edits", "before_hash", "after_hash", "verdict", "run", "version", "loss", "loss_before")


def show_life(life: "Life") -> None:
    """Print what a row says now, what happened to it stage by stage, and what became of it version by version."""
    where = f", in {life.split}" if life.kept and life.split else ""
    fate = f"kept{where}" if life.kept else f"rejected: {life.reject_reason}"
    out(f"{life.id}  {life.source}  {life.source_file} row {life.source_row}  {fate}", style="bold")
    for role, text in _turns(life.text):
        _print(text, label=(f"{role}: ", "cyan"), indent=2)
    if not life.text["messages"] and life.text["extra"]:
        _print(life.text["extra"], label=("as it stood: ", "cyan"), indent=2)
    out("")
    for event in life.history:
        _event(event, life)
    if life.versions:
        out("")
        out("Through the versions", style="bold")
        width = max(len(f"@{step.seq}") for step in life.versions)
        for step in life.versions:
            head = f"{f'@{step.seq}':>{width}}  {step.created[:16].replace('T', ' ')}  "
            by = f" ({step.message})"
            _print("; ".join(step.what), (by, "dim"), label=(head, "bold"), hang=len(head))


def _turns(text: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what a row says: each turn with its role, then the context."""
    for message in text["messages"] or ():
        yield message["role"], "\n".join(t for t in (message["content"], message.get("tool_calls")) if t)
    if text.get("context"):
        yield "context", text["context"]


def _print(*parts: Any, label: Any = "", indent: int = 0, hang: int | None = None) -> None:
    """Print parts (texts, or texts with their style), wrapped with a hanging indent; a label stands in the indent.

    `indent`: columns before the first line; `hang`: before the others, two more where it is not given.
    """
    from rich.text import Text

    later = indent + 2 if hang is None else hang
    start = Text(" " * indent) + Text.assemble(label)
    seen = [visible(p) if isinstance(p, str) else (visible(p[0]), p[1]) for p in parts]
    for paragraph in Text.assemble(*seen).split("\n", allow_blank=True):
        for line in paragraph.wrap(console(), max(20, console().width - max(later, start.cell_len))):
            line.rstrip()
            console().print(start + line, soft_wrap=True)
            start = Text(" " * later)


def visible(text: str) -> str:
    """Show what would command a terminal, or turn the direction of the text, as signs that do nothing."""
    return text.translate(_SIGNS)


def _event(event: "Event", life: "Life") -> None:
    facts = dict(event.facts)
    changes = facts.pop("changes", {})
    match = facts.pop("match", None)
    if event.stage == "review":  # the line says it; a correction that was not taken stands nowhere else
        facts = {"correction": facts["correction"]} if "correction_not_taken" in facts else {}
    told = [
        _shown(value) if name == event.stage else f"{name} {_shown(value)}"
        for name, value in facts.items()
        if value is not None and name not in _TOLD_BY_THE_LINE
    ]
    name = (f"{event.stage:<{INDENT}}", "bold")
    if event.what == "noted":
        _print(", ".join(told) or "noted", label=name, hang=INDENT)
    else:
        _print(event.what, label=name, hang=INDENT)
        if told:
            _print((", ".join(told), "dim"), indent=INDENT, hang=INDENT)
    for where, pieces in changes.items():
        _diff(where, pieces)
    if match:
        _match(match, life)


def _diff(where: str, pieces: Sequence[tuple[str, str]]) -> None:
    """Print a word diff; long passages that are the same are cut, and say how much is left out."""
    parts: list[Any] = []
    last = len(pieces) - 1
    for i, (kind, text) in enumerate(pieces):
        begin, end = ("", "") if console().is_terminal else _MARKS[kind]
        shown = _cut(text, first=i == 0, last=i == last) if kind == "same" else repr(text)[1:-1]
        parts.append((begin + shown + end, _STYLES[kind]))
    _print(*parts, label=(f"{where}: ", "cyan"), indent=INDENT)


def _cut(text: str, *, first: bool, last: bool) -> str:
    """Cut a passage that is the same before and after, away from the changes."""
    head, tail = (0 if first else CONTEXT), (0 if last else CONTEXT)
    if len(text) <= head + tail + CONTEXT:
        return text
    left_out = f"[… {len(text) - head - tail:,} characters …]"
    return text[:head] + left_out + (text[-tail:] if tail else "")


def _match(match: Mapping[str, Any], life: "Life") -> None:
    """Print the row that is kept in place of this one: what it says otherwise."""
    from curate.change import changed_texts, word_diff

    of = f" of {match['dataset']}" if "dataset" in match else ""
    place = f"{match['source_file']} row {match['source_row']}{of}"
    changed = list(changed_texts(life.text, match))
    same = "; it says the same, letter for letter" if not changed else "; it says instead:"
    _print(f"the row that is kept: {match['id']} ({place}){same}", indent=INDENT)
    for text in changed:
        part = f" {text.roles[1] or text.roles[0]}" if text.field == "content" else f".{text.field}"
        where = "context" if text.turn is None else f"messages[{text.turn}]{part}"
        _diff(where, word_diff(text.before, text.after))


def _shown(value: Any) -> str:
    """Write a fact for people: numbers to three places, lists and their parts on one line."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        parts: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType] # an Arrow struct: by field name
        return "(" + ", ".join(f"{k} {_shown(v)}" for k, v in parts.items() if v is not None) + ")"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))  # pyright: ignore[reportUnknownArgumentType] # an Arrow list
    return str(value)
