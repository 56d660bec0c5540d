"""Cards: a row as reviewers see it, with what the pipeline suggests, within the limits that Argilla sets."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.review.form import (
    AGENT_CHARACTERS,
    CHAT_CHARACTERS,
    CHAT_MESSAGES,
    ROLE_CHARACTERS,
    Card,
    Suggestion,
    as_html,
)
from curate.review.markdown import block, clean, cut, difference, line
from curate.review.responses import external_id
from curate.review.rows import Alike, Row
from schemas.reasons import sentence
from schemas.record import Message

EMPTY = "(empty)"
"""Stands for a message without text: the server takes none."""

FIRST_MESSAGES = 100
"""Messages at the beginning of a conversation that is too long; of the rest the last ones are shown."""

CONVERSATION_CHARACTERS = 400_000
"""Characters of a conversation that are shown: longer messages are cut first. Nobody reads more, and a request of a
hundred records must not become too long for the server."""

FIELD_CHARACTERS = 200_000
"""Characters after which a field of Markdown goes on no further, for the same reason."""

MOST_MATCHES = 20
"""Matches with an evaluation set that are shown."""

TERM_CHARACTERS = 200
"""Characters of a property that is a word."""

BY_BUDGET = frozenset({"select:not_sampled", "select:quota", "leak:bridge"})
"""Reasons that say nothing about the row itself, so that nothing is suggested from them."""

_BEFORE_REDACTION = ("normalize", "rules")
"""Stages whose evidence quotes the text as it was before personal data was taken out."""

_UNUSUAL = re.compile(r"[^\w. -]")
"""What stands in no name of a role."""

_AGENT = re.compile(r"[^a-zA-Z0-9_:./\s-]")


@dataclass(frozen=True)
class View:
    """How rows are shown: what is known of the version, and what the form has.

    `reasons`: sentence of each reason, the dataset's own rules too. `judge`: the model that gave the score of that
    name. `options`: values of the question about issues. `properties`: names of the form's properties. `whole`: a
    command that shows the whole of a row, with `{}` for its id.
    """

    reasons: Mapping[str, str]
    options: frozenset[str]
    properties: frozenset[str]
    chosen: str = ""
    blind: bool = False
    judge: str | None = None
    whole: str = "sft why REF {}"


@dataclass(frozen=True)
class Shown:
    """A conversation as the chat field has it; `cut`: "answer" where a correction could not stand for the last answer,
    "other" where something else is not shown whole, else null."""

    messages: tuple[tuple[str, str], ...]
    cut: str | None = None


@dataclass(frozen=True)
class Asked:
    """Why a row is shown, the group it belongs to, and the share of the kept rows below it, by column."""

    why: str
    group: str | None = None
    standing: Mapping[str, float | None] = field(default_factory=dict[str, float | None])


def make_card(row: Row, asked: Asked, view: View) -> Card:
    """Make the card of a row. It keeps every limit of the server, whatever the row holds."""
    shown = conversation(row, view.whole.format(row.id))
    fields: dict[str, Any] = {"conversation": shown.messages, "about": "\n\n".join(_about(row, asked, view, shown))}
    alike = [a for a in row.alike if not view.blind or a.asks_the_same]
    if alike:
        fields["match"] = _within(_matches(alike, blind=view.blind), view.whole.format(row.id))
    if row.edits and not view.blind:
        fields["edits"] = _within(_edits(row, view), view.whole.format(row.id))
    known = {n: v for n, v in _properties(row, asked, view, shown) if n in view.properties and v not in (None, [], "")}
    suggestions = () if view.blind else tuple(_suggestions(row, view, shown))
    return Card(external_id(row.id, row.content_hash), fields, known, suggestions)


# the conversation -----------------------------------------------------------------------------------------------------


def conversation(row: Row, whole: str) -> Shown:
    """Show a conversation as messages of role and text; `whole`: the command that shows what is cut."""
    count = len(row.messages)
    at = max((i for i, m in enumerate(row.messages) if m.role == "assistant"), default=-1)
    most = min(CHAT_CHARACTERS, max(1_000, CONVERSATION_CHARACTERS // max(count, 1)))
    messages: list[tuple[str, str]] = []
    was_cut: str | None = None
    for i, message in enumerate(row.messages):
        text = clean(flattened(message))
        limit = CHAT_CHARACTERS if i == at else most
        fitting = _fitted(text, limit, whole)
        if i == at and (fitting != text or clean(message.content) != message.content):
            was_cut = "answer"
        elif fitting != text:
            was_cut = was_cut or "other"
        messages.append((_role(message.role), fitting if text.strip() else EMPTY))
    if count > CHAT_MESSAGES:
        last = CHAT_MESSAGES - FIRST_MESSAGES - 1
        missing = f"[… {count - FIRST_MESSAGES - last:,} messages are not shown; {whole}]"
        hidden = FIRST_MESSAGES <= at < count - last
        messages = [*messages[:FIRST_MESSAGES], ("system", missing), *messages[-last:]]
        was_cut = "answer" if hidden else was_cut or "other"
    return Shown(tuple(messages) or (("nobody", "(the row has no messages)"),), was_cut)


def _fitted(text: str, limit: int, whole: str) -> str:
    """Cut a text so that it fits as it is sent: by the share that it is too long, again where its front is longer."""
    shown, most = text, len(text)
    while most and (length := len(as_html(shown))) > limit:
        most = most * limit // length
        shown = cut(text, most, whole)
    return shown


def _role(role: str) -> str:
    return _UNUSUAL.sub("-", role.strip())[:ROLE_CHARACTERS] or "nobody"


def flattened(message: Message) -> str:
    """Write a message with its tool calls as one text: the chat field has role and content alone."""
    parts = [message.content] if message.content.strip() else []
    if message.role == "tool" and message.name:
        parts.insert(0, f"[result of {message.name}]")
    elif message.name and message.role not in ("assistant", "tool"):
        parts.insert(0, f"[{message.name}]")
    return "\n".join([*parts, *_calls(message.tool_calls)])


def _calls(tool_calls: str | None) -> Iterator[str]:
    if not tool_calls:
        return
    try:
        calls: Any = json.loads(tool_calls)
    except (ValueError, RecursionError):
        calls = None
    if not isinstance(calls, list):
        yield f"[calls a tool: {tool_calls}]"
        return
    for call in calls:
        made = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(made, dict) or "name" not in made:
            yield f"[calls a tool: {json.dumps(call, ensure_ascii=False)}]"
            continue
        given = made.get("arguments", {})
        yield f"[calls {made['name']}: {given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)}]"


# what is told about a row ---------------------------------------------------------------------------------------------


def _about(row: Row, asked: Asked, view: View, shown: Shown) -> Iterator[str]:
    origin = [line(row.source), line(row.place), *([f"category {line(row.category)}"] if row.category else [])]
    if view.blind:
        yield f"**From** {' · '.join(origin)}"
    else:
        yield f"**Why you see it:** {line(asked.why)}"
        yield _verdict(row, view)
        yield from _flags(row, view)
        yield from _numbers(row, asked, view)
        yield f"**From** {' · '.join([*origin, *_standing(row)])}"
    if row.tools:
        yield f"**Tools it may call:** {_tools(row.tools)}"
    if shown.cut:
        yield f"**Not shown whole.** The whole row: {line(view.whole.format(row.id))}"
    if shown.cut == "answer":
        yield "The last answer cannot be corrected here, as a correction would lose what is not shown: keep or reject."


def _standing(row: Row) -> Iterator[str]:
    for name in ("split", "task", "language"):
        if value := row.facts.get(name):
            yield f"{name} {line(str(value))}"


def _verdict(row: Row, view: View) -> str:
    if row.reason is None:
        return "**The pipeline kept it.**"
    quotes_earlier_text = row.is_redacted and row.stage in _BEFORE_REDACTION
    evidence = f" — {line(row.detail)}" if row.detail and not quotes_earlier_text else ""
    said = f"{line(_sentence(row.reason, view))} ({line(row.reason)}){evidence}"
    return f"**The pipeline left it out**, stage {line(row.stage or '')}: {said}"


def _sentence(reason: str, view: View) -> str:
    return view.reasons.get(reason) or sentence(reason)


def _flags(row: Row, view: View) -> Iterator[str]:
    flags: Sequence[str] = row.facts.get("flags", [])
    lines = [f"- {line(_sentence(flag, view))} ({line(flag)})" for flag in flags]
    if lines and row.stage != "rules" and row.facts.get("detail_rules") and not row.is_redacted:
        lines.append(f"- seen: {line(row.facts['detail_rules'])}")
    kinds = dict.fromkeys(f"pii:{e['kind']}" for e in row.facts.get("entities", []))
    lines.extend(f"- {line(_sentence(kind, view))} ({line(kind)})" for kind in kinds)
    for match in row.facts.get("matches", [])[:MOST_MATCHES]:
        share = f"{match['coverage']:.0%} of an item of {line(match['eval'])}"
        lines.append(f"- holds {share}, in {line(match['where'])}: {line(match['text'])}")
    if lines:
        yield "**To look at:**\n\n" + "\n".join(lines)


_MEASURES = {
    "quality": "quality, from simple measures (0 to 1)",
    "score": "combined score (0 to 1)",
    "learned": "chance that reviewers would keep it",
    "judge": "judge (1 to 5)",
    "ifd": "IFD: how little the prompt helps",
    "perplexity": "perplexity of the answer",
}


def _numbers(row: Row, asked: Asked, view: View) -> Iterator[str]:
    lines: list[str] = []
    for name, what in _MEASURES.items():
        value = row.facts.get(name)
        if value is None or not math.isfinite(value):
            continue
        below = asked.standing.get(name)
        who = f", {line(view.judge)}" if name == "judge" and view.judge else ""
        place = "" if below is None else f", above {below:.0%} of the kept rows"
        lines.append(f"- {what}{who}: {value:.3g}{place}")
    if lines:
        yield "**Measured:**\n\n" + "\n".join(lines)
    if reason := row.facts.get("judge_reason"):
        yield f"**The judge says:** {line(reason, 1_000)}"


def _tools(tools: str) -> str:
    try:
        listed: Any = json.loads(tools)
    except (ValueError, RecursionError):
        listed = None
    functions = [t.get("function", t) for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
    names = [str(f["name"]) for f in functions if isinstance(f, dict) and "name" in f]
    return line(", ".join(names) or tools)


def _within(parts: Iterable[str], whole: str) -> str:
    """Join paragraphs for as long as there is room; `whole`: the command that shows what is missing."""
    shown: list[str] = []
    room = FIELD_CHARACTERS
    for part in parts:
        if room <= 0:
            shown.append(f"**More is not shown here:** {line(whole)}")
            break
        shown.append(part)
        room -= len(part)
    return "\n\n".join(shown)


def _matches(some: Sequence[Alike], *, blind: bool) -> Iterator[str]:
    for i, alike in enumerate(some):
        if i:
            yield "---"
        fate = "" if blind else " (kept)" if alike.kept else " (left out)"
        yield f"**{alike.how[0].upper()}{alike.how[1:]}:** {line(alike.source)} · {line(alike.place)}{fate}"
        for message in alike.messages:
            if message.role == "assistant" or not alike.asks_the_same:
                yield f"*{line(message.role)}:*\n\n{block(flattened(message))}"


def _edits(row: Row, view: View) -> Iterator[str]:
    for edit in row.edits:
        names = "; ".join(f"{line(_sentence(name, view))} ({line(name)})" for name in edit.edits)
        yield f"**{line(edit.stage)}:** {names}"
        if row.is_redacted:
            continue  # the text before, or around it, may hold what was taken out
        for what, before, after in edit.texts:
            yield f"*{line(what)}:*\n\n{difference(before, after)}"


# what is known of a row, and suggested --------------------------------------------------------------------------------


def _properties(row: Row, asked: Asked, view: View, shown: Shown) -> Iterator[tuple[str, Any]]:
    facts = row.facts
    yield "source", _term(row.source)
    yield "category", _term(row.category)
    yield "cut", shown.cut
    yield "turns", len(row.messages)
    yield "words", sum(len(m.content.split()) for m in row.messages if m.role == "assistant")
    for name in ("split", "task", "language"):
        yield name, _term(facts.get(name))
    if view.blind:
        return
    yield "pipeline", _term(row.reason or "kept")
    yield "flags", [_term(flag) for flag in facts.get("flags", [])]
    yield "chosen", _term(view.chosen)
    yield "group", asked.group
    for name in _MEASURES:
        value = facts.get(name)
        yield name, float(value) if value is not None and math.isfinite(value) else None


def _term(value: Any) -> str | None:
    return clean(str(value))[:TERM_CHARACTERS] if value else None


def agent(name: str) -> str:
    """Write a name as the server takes it: letters, digits, blanks and _:./-, at least one letter or digit."""
    return _AGENT.sub("-", name)[:AGENT_CHARACTERS] if re.search("[a-zA-Z0-9]", name) else "sft"


def _suggestions(row: Row, view: View, shown: Shown) -> Iterator[Suggestion]:
    if row.reason not in BY_BUDGET:
        who, score = _grounds(row, view)
        yield Suggestion("verdict", "reject" if row.reason else "keep", agent(who), score)
    judge = row.facts.get("judge")
    if judge is not None and math.isfinite(judge):
        yield Suggestion("rating", min(5, max(1, math.floor(judge + 0.5))), agent(_judge(view)))
    kinds = [f"pii:{e['kind']}" for e in row.facts.get("entities", [])]
    issues = dict.fromkeys([*([row.reason] if row.reason else []), *row.facts.get("flags", []), *kinds])
    if offered := [issue for issue in issues if issue in view.options]:
        yield Suggestion("issues", offered, "sft-rules")
    if row.answer and row.answer.strip() and shown.cut != "answer":
        yield Suggestion("correction", row.answer, "sft")


def _grounds(row: Row, view: View) -> tuple[str, float | None]:
    """Say who suggests the verdict, and how sure that is: of a rejected row its evidence, of a kept row its scores."""
    facts = row.facts
    if row.reason:
        matches = [m["coverage"] for m in facts.get("matches", [])]
        score = facts.get("jaccard") if row.stage == "dedup" else max(matches, default=None)
        return f"sft-{row.stage}", _share(score if row.stage in ("dedup", "decontaminate") else None)
    if facts.get("learned") is not None:
        return "sft-learned", _share(facts["learned"])
    if facts.get("judge") is not None:
        return _judge(view), _share((facts["judge"] - 1) / 4)
    if facts.get("quality") is not None:
        return "sft-signals", _share(facts["quality"])
    return "sft", None


def _judge(view: View) -> str:
    return f"judge:{view.judge}" if view.judge else "judge"


def _share(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else min(1.0, max(0.0, float(value)))


# limits ---------------------------------------------------------------------------------------------------------------


def refused(card: Card) -> str | None:
    """Say what a server would refuse in a card, and with it all records of the request; null for nothing."""
    chat = card.fields.get("conversation", ())
    for role, content in chat if not isinstance(chat, str) else ():
        if not 1 <= len(role) <= ROLE_CHARACTERS or not 1 <= len(as_html(content)) <= CHAT_CHARACTERS:
            return f"a message of {len(content):,} characters, role {role[:ROLE_CHARACTERS]!r}"
    if not 1 <= len(chat) <= CHAT_MESSAGES:
        return f"{len(chat):,} messages"
    texts = [*(v for v in card.fields.values() if isinstance(v, str)), *(t for pair in chat for t in pair)]
    texts += [s.value for s in card.suggestions if isinstance(s.value, str)]
    if any("\0" in text or not _encodes(text) for text in texts):
        return "characters that cannot be stored"
    if any(isinstance(v, float) and not math.isfinite(v) for v in card.properties.values()):
        return "a property that is no number"
    return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
