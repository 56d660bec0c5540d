"""What a search must find, in plain Python over plain records: no SQL, no regular expression, no index.

A record is what `engine_host` loads; a filter, a sort and a query tree are what the tests generate.
"""

import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

Row = dict[str, Any]
Tree = tuple[Any, ...]
"""("words", text, prefix), ("not", tree), ("and" | "or", tree, tree, …)"""

ALONE = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029)),
    *((0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)),
    (0x20000, 0x3FFFF),
)


# ------------------------------------------------------------------------------------------------------- text


def tokens(text: str) -> list[str]:
    """Words of letters, digits and marks; every other visible character alone."""
    found: list[str] = []
    in_word = False
    for char in text.casefold():
        code, category = ord(char), unicodedata.category(char)
        selector = 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF
        alone = any(first <= code <= last for first, last in ALONE)
        if char.isspace() or category in ("Cc", "Cf") or selector:
            in_word = False
        elif (char.isalnum() or category[0] == "M") and not alone:
            found = [*found[:-1], found[-1] + char] if in_word else [*found, char]
            in_word = True
        else:
            found.append(char)
            in_word = False
    return found


def is_word(token: str) -> bool:
    return any(c.isalnum() or unicodedata.category(c)[0] == "M" for c in token)


def holds(text: str, words: str, *, prefix: bool) -> bool:
    """The words stand side by side in the text; the last one may be longer there."""
    there, wanted = tokens(text), tokens(words)
    for start in range(len(there) - len(wanted) + 1):
        window = there[start : start + len(wanted)]
        last = window[-1].startswith(wanted[-1]) if prefix and is_word(wanted[-1]) else window[-1] == wanted[-1]
        if window[:-1] == wanted[:-1] and last:
            return True
    return False


def texts(row: Row, kinds: dict[str, str], field: str | None) -> list[str]:
    seen: list[str] = []
    for name, kind in kinds.items():
        value = row["fields"].get(name)
        if field not in (None, name) or value is None or kind == "image":
            continue
        seen += [value] if kind == "text" else [m["content"] for m in value] if kind == "chat" else leaves(value)
    return seen


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def says(tree: Tree, seen: Sequence[str]) -> bool:
    kind, *parts = tree
    if kind == "words":
        return any(holds(text, parts[0], prefix=parts[1]) for text in seen)
    if kind == "not":
        return not says(parts[0], seen)
    return (all if kind == "and" else any)(says(part, seen) for part in parts)


# ---------------------------------------------------------------------------------------------------- filters


def number(text: str | float) -> float | None:
    try:
        return int(text) if isinstance(text, str) else text
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fits(value: Any, wanted: Row) -> bool:
    """Does a JSON value, or any element of a list, fulfil the filter?"""
    if isinstance(value, list):
        return any(fits(element, wanted) for element in value if not isinstance(element, list))
    if "values" in wanted:
        if isinstance(value, bool):
            return str(value).lower() in wanted["values"]
        if is_number(value):
            return any(number(term) == value for term in wanted["values"])
        return isinstance(value, str) and value in wanted["values"]
    return all(
        side(value, bound, above)
        for bound, above in ((wanted.get("ge"), True), (wanted.get("le"), False))
        if bound is not None
    )


def side(value: Any, bound: str | float, above: bool) -> bool:
    if isinstance(value, str):
        return isinstance(bound, str) and (value >= bound if above else value <= bound)
    limit = number(bound)
    return is_number(value) and limit is not None and (value >= limit if above else value <= limit)


def passes(row: Row, wanted: Row) -> bool:
    scope = wanted["scope"]
    if scope["of"] == "metadata":
        return fits((row["metadata"] or {}).get(scope["metadata_property"]), wanted)
    if scope["of"] == "record":
        name = scope["property"]
        if name in ("inserted_at", "updated_at"):
            return in_time(row[name], wanted)
        return row[name] is not None and fits(
            row[name], {k: str(v) if k in ("ge", "le") else v for k, v in wanted.items()}
        )
    if scope["of"] == "suggestion":
        return any(fits(s[scope["property"]], wanted) for s in row["suggestions"] if s["question"] == scope["question"])
    responses = of_user(row, scope)
    if scope.get("question"):
        return any(fits(answer(r, scope["question"]), wanted) for r in responses)
    pending = "pending" in wanted["values"] and not responses
    return pending or any(r["status"] in wanted["values"] for r in responses)


def in_time(moment: str, wanted: Row) -> bool:
    at = datetime.fromisoformat(moment)
    if "values" in wanted:
        return at in [datetime.fromisoformat(value) for value in wanted["values"]]
    late = wanted.get("le") and wanted["le"] + ("T23:59:59.999999" if len(wanted["le"]) == 10 else "")
    after = wanted.get("ge") is None or at >= datetime.fromisoformat(wanted["ge"])
    return after and (late is None or at <= datetime.fromisoformat(late))


def of_user(row: Row, scope: Row) -> list[Row]:
    return [r for r in row["responses"] if scope.get("user") in (None, r["user"])]


def answer(response: Row, question: str) -> Any:
    return ((response["values"] or {}).get(question) or {}).get("value")


# ------------------------------------------------------------------------------------------------------ order


def order(rows: Sequence[Row], sorts: Sequence[Row]) -> list[Row]:
    """Stable: by the last sort first, and by the time of insertion before all."""
    ordered = sorted(rows, key=lambda row: datetime.fromisoformat(row["inserted_at"]))
    for sort in reversed(sorts):
        largest = sort["order"] == "desc"
        keys = {row["id"]: key(row, sort["scope"], largest) for row in ordered}
        there = [row for row in ordered if keys[row["id"]] is not None]
        absent = [row for row in ordered if keys[row["id"]] is None]
        ordered = sorted(there, key=lambda row, keys=keys: keys[row["id"]], reverse=largest) + absent
    return ordered


def key(row: Row, scope: Row, largest: bool) -> tuple[bool, Any] | None:
    """Numbers come before texts."""
    extreme: Callable[..., Any] = max if largest else min
    if scope["of"] == "response":
        responses = of_user(row, scope)
        if not scope.get("question"):
            return extreme([(True, r["status"]) for r in responses], default=None)
        answers = [a for r in responses for a in several(answer(r, scope["question"]))]
        numbers = [a for a in answers if is_number(a)]
        if numbers:
            return False, sum(numbers) / len(numbers)
        return extreme([(True, a) for a in answers if isinstance(a, str)], default=None)
    if scope["of"] == "metadata":
        value = (row["metadata"] or {}).get(scope["metadata_property"])
    elif scope["of"] == "suggestion":
        value = next((s[scope["property"]] for s in row["suggestions"] if s["question"] == scope["question"]), None)
    else:
        value = row[scope["property"]]
    ranked = [(isinstance(v, str), v) for v in several(value) if is_number(v) or isinstance(v, str)]
    return extreme(ranked, default=None)


def several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
