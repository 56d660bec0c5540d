"""Records, filters, sorts and queries that hold what breaks search engines."""

import json
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from tests.curate.review.server.engine_reference import is_word, tokens

FIELDS = {"prompt": "text", "chat": "chat", "we\"ird.100%'🙂": "text", "custom": "custom", "image": "image"}
METADATA = ("plain", 'qu"ote', "it's", "a.b", "100%", "_", "back\\slash", "🙂", "ключ", "$[0]", " ", "")
QUESTIONS = ("verdict", "stars", 'labels "of"', "🙂.%")
USERS = tuple(str(UUID(int=number)) for number in (1, 2, 3))
TERMS = ("a", "A", "5", "5.5", "-1", "true", "null", "100%", "_", "é", '"', "'; DROP TABLE records; --", "🙂", "")
MOMENTS = ("2026-01-01", "2026-01-02", "2026-01-02T12:30:00.000001", "2026-01-03T00:00:00")
STATUSES = ("submitted", "discarded", "draft")

ALPHABET = "".join(
    (
        "aAbkKKsSſßfiİıﬁﬆéÉйЙǅ\U00010428\U00010400",  # letters whose cases are trouble
        "1٣学ひก\u0301\u093f🙂👩",
        " \n\t\u00a0\x1f\u200d\ufe0f\u00ad",  # what nobody sees
        ".,%_'\"\\|-+()*~{}:",
    )
)
OPERATORS = '"|-+()*\\'


def spelled() -> st.SearchStrategy[str]:
    """Texts with much to trip over, and any texts."""
    return st.text(ALPHABET, max_size=8) | st.text(max_size=4)


def fields() -> st.SearchStrategy[dict[str, Any]]:
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "a"]), "content": spelled()})
    custom = st.recursive(
        spelled() | st.integers(0, 9) | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=3,
    )
    kinds = {"text": spelled(), "chat": st.lists(message, max_size=2), "custom": custom, "image": spelled()}
    return st.fixed_dictionaries({}, optional={name: kinds[kind] | st.none() for name, kind in FIELDS.items()})


# ------------------------------------------------------------------------------------------------------- text


def queries() -> st.SearchStrategy[tuple[Any, ...]]:
    words = st.builds(lambda text, star: ("words", text, star and _may_go_on(text)), _searchable(), st.booleans())

    def grown(inner: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[tuple[Any, ...]]:
        several = st.lists(inner, min_size=2, max_size=3)
        joined = st.builds(lambda kind, parts: (kind, *parts), st.sampled_from(["and", "or"]), several)
        return joined | inner.map(lambda tree: ("not", tree))

    return st.recursive(words, grown, max_leaves=5)


def _searchable() -> st.SearchStrategy[str]:
    return st.text(ALPHABET, min_size=1, max_size=4).filter(tokens)


def _may_go_on(text: str) -> bool:
    last = tokens(text[-1])
    return not any(c.isspace() for c in text) and bool(last) and is_word(last[-1])


def rendered(tree: tuple[Any, ...]) -> str:
    """The tree as somebody would type it."""
    kind, *parts = tree
    if kind == "words":
        text, star = parts
        if any(c.isspace() for c in text):
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return "".join(f"\\{c}" if c in OPERATORS else c for c in text) + "*" * star
    if kind == "not":
        return "-" + rendered(parts[0])
    return "(" + {"and": " ", "or": " | "}[kind].join(map(rendered, parts)) + ")"


# -------------------------------------------------------------------------------------------- records, filters


VALUES = (*TERMS, 5, 5.5, -1, 0, 2**53 + 1, True, False, None)
POOL = st.shared(st.lists(st.sampled_from(VALUES), min_size=2, max_size=3), key="values")
"""Few values, names and questions in each example: else what is asked for hardly ever meets what is there."""
PROPERTY = st.shared(st.sampled_from(METADATA), key="property")
QUESTION = st.shared(st.sampled_from(QUESTIONS), key="question")


def values() -> st.SearchStrategy[Any]:
    return POOL.flatmap(st.sampled_from) | st.sampled_from(VALUES)


def terms() -> st.SearchStrategy[str]:
    return values().map(lambda value: value if isinstance(value, str) else json.dumps(value))


def bounds() -> st.SearchStrategy[str | float]:
    return values().filter(lambda value: value is not None and not isinstance(value, bool))


def records() -> st.SearchStrategy[list[dict[str, Any]]]:
    suggestion = st.fixed_dictionaries(
        {
            "value": values() | st.lists(values(), max_size=3),
            "score": st.sampled_from([None, 0.1, 0.5, 1.0, [0.1, 0.9], []]),
            "agent": st.sampled_from([None, "gpt", "it's", "100%"]),
            "type": st.sampled_from([None, "model", "human"]),
        }
    )
    answers = st.dictionaries(
        QUESTION | st.sampled_from(QUESTIONS),
        st.fixed_dictionaries({"value": values() | st.lists(values(), max_size=3)}),
        max_size=3,
    )
    response = st.fixed_dictionaries({"status": st.sampled_from(STATUSES), "values": st.none() | answers})
    metadata = st.dictionaries(
        PROPERTY | st.sampled_from(METADATA), values() | st.lists(values(), max_size=3), max_size=4
    )
    suggestions = st.dictionaries(QUESTION | st.sampled_from(QUESTIONS), suggestion, max_size=2)
    row = st.fixed_dictionaries(
        {
            "id": st.integers(10, 2**128 - 1).map(lambda number: str(UUID(int=number))),
            "external_id": st.none() | st.text("ab%'\"_🙂", min_size=1, max_size=3),
            "status": st.sampled_from(["pending", "completed"]),
            "inserted_at": st.sampled_from(MOMENTS),
            "updated_at": st.sampled_from(MOMENTS),
            "fields": st.just({"prompt": "x"}),
            "metadata": st.none() | metadata,
            "suggestions": suggestions.map(_listed("question")),
            "responses": st.dictionaries(st.sampled_from(USERS), response, max_size=3).map(_listed("user")),
        }
    )
    return st.lists(row, max_size=6, unique_by=(lambda r: r["id"], lambda r: r["external_id"] or object()))


def _listed(name: str) -> Any:
    return lambda found: [{name: key, **rest} for key, rest in found.items()]


def scopes() -> st.SearchStrategy[dict[str, Any]]:
    metadata = st.fixed_dictionaries({"of": st.just("metadata"), "metadata_property": PROPERTY})
    record = st.fixed_dictionaries(
        {
            "of": st.just("record"),
            "property": st.sampled_from(["id", "external_id", "status", "inserted_at", "updated_at"]),
        }
    )
    suggestion = st.fixed_dictionaries(
        {
            "of": st.just("suggestion"),
            "question": QUESTION,
            "property": st.sampled_from(["value", "score", "agent", "type"]),
        }
    )
    user = st.none() | st.sampled_from(USERS)
    status = st.fixed_dictionaries({"of": st.just("response"), "property": st.just("status"), "user": user})
    answer = st.fixed_dictionaries({"of": st.just("response"), "question": QUESTION, "user": user})
    return metadata | record | suggestion | status | answer


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    scope = draw(scopes())
    of, name = scope["of"], scope.get("property")
    if of == "response" and name == "status":
        chosen = st.lists(st.sampled_from([*STATUSES, "pending"]), min_size=1, unique=True)
        return {"scope": scope, "values": draw(chosen)}
    term, bound = terms(), bounds()
    if name in ("inserted_at", "updated_at"):
        term, bound = st.sampled_from(MOMENTS), st.sampled_from(MOMENTS)
    elif of == "record" and name == "id":
        term, bound = st.sampled_from([*USERS, "nobody"]), st.integers(0, 2**128 - 1).map(lambda n: str(UUID(int=n)))
    elif of == "record" or name in ("agent", "type"):
        term = st.sampled_from(["pending", "completed", "model", "gpt", "it's", "100%", "a", "%"])
        bound = st.sampled_from(["a", "gpt", "model", "pending"])
    elif name == "score":
        term, bound = st.sampled_from(["0.1", "0.5", "1"]), st.sampled_from([0.1, 0.5, 1, "0.5"])
    if draw(st.booleans()):
        return {"scope": scope, "values": draw(st.lists(term, min_size=1, max_size=3))}
    ends = draw(st.fixed_dictionaries({}, optional={"ge": bound, "le": bound}))
    return {"scope": scope, **(ends or {"ge": draw(bound)})}


def sorts() -> st.SearchStrategy[list[dict[str, Any]]]:
    sort = st.fixed_dictionaries({"scope": scopes(), "order": st.sampled_from(["asc", "desc"])})
    return st.lists(sort, max_size=3)
