"""Filters, sorts and text queries of Argilla's search as SQL over the server's own SQLite tables.

Every value and every name is a bound parameter. What a filter means follows Argilla's Elasticsearch engine: terms and
ranges hold when any of several values does; a response may be anybody's, or one user's; `pending` is no response at
all; sorts put what has no value last, and take a list's smallest value upwards, its largest downwards. Differences:
numbers are compared as they are, not as 32-bit floats, and a text is never within a range of numbers.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false
# runs in the private environment of the server: argilla_server and SQLAlchemy are not in the project's own.

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from hashlib import blake2b
from typing import Any, TypeAlias
from uuid import UUID

import query as words
import sqlalchemy as sa
from argilla_server.enums import FieldType, ResponseStatusFilter, SortOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Question, Record, Response, Suggestion
from argilla_server.search_engine.base import (
    AndFilter,
    Filter,
    FilterScope,
    MetadataFilterScope,
    Order,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)

TEXT_FUNCTION = "record_matches"
"""The name under which SQL knows `query.record_matches`."""

Sql: TypeAlias = Any
"""An SQLAlchemy ColumnElement."""

Bounds: TypeAlias = tuple[Sql, Sql]
"""What a record fulfils at least when it matches, and what makes it match for certain."""

_NUMBERS = ("integer", "real")
_DATES = ("inserted_at", "updated_at")
_INT64 = 2**63


def refused(what: str) -> UnprocessableEntityError:
    """Return the error that the server answers as 422, with one sentence."""
    return UnprocessableEntityError(what)


# ---------------------------------------------------------------------------------------------- values in JSON


class Member:
    """A value inside a JSON column: of what kind it is, and what of it may be compared.

    Of `names`, only the first is anybody's choice. A document that is no JSON for SQLite (Python writes NaN and
    Infinity) has no members.
    """

    def __init__(self, document: Sql, *names: str) -> None:
        document = sa.type_coerce(document, sa.Text)
        document = sa.case((sa.func.json_valid(document) == 1, document))
        if names and not _PLAIN.fullmatch(names[0]):
            # a path cannot name every key, and how it quotes differs between versions of SQLite: so by value
            document, names = _wrapped(document, names[0]), ("value", *names[1:])
        self.path = "$" + "".join(f'."{name}"' for name in names)
        self.document = document
        self.kind = sa.func.json_type(document, self.path)
        self.value = sa.func.json_extract(document, self.path)

    def meets(self, holds: Callable[[Sql, Sql], Sql]) -> Sql:
        """Return whether `holds(value, kind)` for the value, or for any element where it is a list."""
        item = self.items()
        any_item = sa.exists(sa.select(sa.literal(1)).select_from(item).where(holds(item.c.value, item.c.type)))
        return sa.case((self.kind == "array", any_item), else_=holds(self.value, self.kind))

    def items(self) -> Any:
        """Return the value as a table: a row for each element of a list, one for anything else."""
        return sa.func.json_each(self.document, self.path).table_valued("value", "type")

    def key(self, *, largest: bool) -> Sql:
        """Return what to sort by: a number or a text; of a list the largest or the smallest."""
        item = self.items()
        extreme = (sa.func.max if largest else sa.func.min)(item.c.value)
        of_list = sa.select(extreme).select_from(item).where(_comparable(item.c.type)).scalar_subquery()
        return sa.case((self.kind == "array", of_list), (_comparable(self.kind), self.value))


_PLAIN = re.compile(r"[\w-]+", re.ASCII)


def _comparable(kind: Sql) -> Sql:
    return kind.in_((*_NUMBERS, "text"))


def _wrapped(document: Sql, name: str) -> Sql:
    """Return {"value": the member `name` of `document`}, null where there is none."""
    entry = sa.func.json_each(document).table_valued("key", "value", "type")
    nested = sa.case(
        (entry.c.type.in_(("array", "object")), sa.func.json(entry.c.value)),
        (entry.c.type.in_(("true", "false")), sa.func.json(entry.c.type)),
        else_=entry.c.value,
    )
    found = sa.select(sa.func.json_object("value", nested)).select_from(entry).where(entry.c.key == name).limit(1)
    return found.scalar_subquery()


def _number(value: object) -> float | int | None:
    """Return the number that a term or a bound states, exact where SQLite has it so; None for what states none."""
    text = str(value)
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not -_INT64 <= number < _INT64:
        return number
    whole = int(text) if text.lstrip("+-").isdigit() else int(number) if number.is_integer() else number
    return whole if -_INT64 <= whole < _INT64 else number


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", re.ASCII | re.IGNORECASE)


def _condition(limits: Filter) -> Callable[[Sql, Sql], Sql]:
    """Return what a JSON value of some kind must fulfil."""
    if isinstance(limits, TermsFilter):
        terms = [str(value) for value in limits.values]
        numbers = [n for n in map(_number, terms) if n is not None and math.isfinite(n)]
        logical = [t for t in terms if t in ("true", "false")]

        def among(value: Sql, kind: Sql) -> Sql:
            return sa.or_(sa.and_(_comparable(kind), _one_of(value, [*terms, *numbers])), kind.in_(logical))

        return among

    def within(value: Sql, kind: Sql) -> Sql:
        sides: list[Sql] = []
        for bound, above in ((limits.ge, True), (limits.le, False)):
            if bound is None:
                continue
            chosen: list[Sql] = []
            if isinstance(bound, str):
                chosen.append(sa.and_(kind == "text", _side(value, bound, above=above)))
            if (number := _number(bound)) is not None:
                chosen.append(sa.and_(kind.in_(_NUMBERS), _side(value, number, above=above)))
            sides.append(sa.or_(sa.false(), *chosen))
        return sa.and_(sa.true(), *sides)

    return within


def _one_of(value: Sql, values: Sequence[str | float]) -> Sql:
    """Return whether a value is among others: one parameter, as many as they are, numbers read as in the documents."""
    listed = sa.func.json_each(json.dumps(values)).table_valued("value")
    return value.in_(sa.select(listed.c.value))


def _side(value: Sql, bound: Any, *, above: bool) -> Sql:
    bound = sa.literal(bound, sa.types.NullType())
    return value >= bound if above else value <= bound


# ---------------------------------------------------------------------------------------------------- filters


def filtered(wanted: Filter, dataset_id: UUID) -> Sql:
    """Return the condition on the `records` of a dataset that a filter states.

    Raises: UnprocessableEntityError for what no filter can mean: a range of statuses, a date that is none.
    """
    if isinstance(wanted, AndFilter):
        return sa.and_(sa.true(), *(filtered(part, dataset_id) for part in wanted.filters))
    scope = wanted.scope
    if isinstance(scope, MetadataFilterScope):
        return Member(Record.metadata_, scope.metadata_property).meets(_condition(wanted))
    if isinstance(scope, RecordFilterScope):
        return _of_record(scope.property, wanted)
    if isinstance(scope, SuggestionFilterScope):
        return _of_suggestion(scope, wanted, dataset_id)
    if isinstance(scope, ResponseFilterScope):
        return _of_response(scope, wanted)
    raise refused(f"There are no filters on {type(scope).__name__}.")


def _of_record(name: str, wanted: Filter) -> Sql:
    column = getattr(Record, name)
    if name in _DATES:
        if isinstance(wanted, TermsFilter):
            return column.in_([_moment(value, name) for value in wanted.values])
        sides = [column >= _moment(wanted.ge, name)] if wanted.ge is not None else []
        sides += [column <= _moment(wanted.le, name, end=True)] if wanted.le is not None else []
        return sa.and_(sa.true(), *sides)
    if name == "id":
        if isinstance(wanted, TermsFilter):
            return column.in_([u for u in map(_uuid, wanted.values) if u is not None])
        text = sa.type_coerce(column, sa.String)
        return _plain_condition(text, wanted, spelled=lambda bound: bound.replace("-", "").lower())
    return _plain_condition(sa.type_coerce(column, sa.String), wanted)


def _plain_condition(column: Sql, wanted: Filter, spelled: Callable[[str], str] = str) -> Sql:
    """Return the condition on a column that holds a text."""
    if isinstance(wanted, TermsFilter):
        return column.in_([spelled(str(value)) for value in wanted.values])
    sides = [column >= spelled(str(wanted.ge))] if wanted.ge is not None else []
    sides += [column <= spelled(str(wanted.le))] if wanted.le is not None else []
    return sa.and_(sa.true(), *sides)


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None


def _moment(value: object, name: str, *, end: bool = False) -> datetime:
    """Return a date as the server stores it, without a zone, in UTC. A bare day as an upper bound includes the day."""
    try:
        if not isinstance(value, str) or re.fullmatch(r"-?\d{5,}(\.\d*)?|-?\d+\.\d*", value):
            return datetime.fromtimestamp(float(value) / 1000, UTC).replace(tzinfo=None)  # type: ignore[arg-type] # what is no number raises, and is told below
        moment = datetime.fromisoformat(value.strip())
        if end and re.fullmatch(r"\d{4}-?\d\d-?\d\d", value.strip()):
            moment = datetime.combine(moment, time.max)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, TypeError, OverflowError, OSError) as error:
        expected = "a date such as 2026-01-31 or 2026-01-31T12:00:00Z, or milliseconds since 1970"
        raise refused(f"A filter on {name} needs {expected}; found {value!r}.") from error


def _suggested(scope: SuggestionFilterScope, dataset_id: UUID) -> tuple[Sql, Sql]:
    asked = sa.select(Question.id).where(Question.name == scope.question, Question.dataset_id == dataset_id)
    return Suggestion.record_id == Record.id, Suggestion.question_id == asked.scalar_subquery()


def _property(scope: SuggestionFilterScope) -> Member | Sql:
    name = scope.property if scope.property not in (None, "None") else "value"
    if name in ("value", "score"):
        return Member(getattr(Suggestion, name))
    return sa.type_coerce(getattr(Suggestion, name), sa.String)


def _of_suggestion(scope: SuggestionFilterScope, wanted: Filter, dataset_id: UUID) -> Sql:
    value = _property(scope)
    held = value.meets(_condition(wanted)) if isinstance(value, Member) else _plain_condition(value, wanted)
    return sa.exists(sa.select(sa.literal(1)).where(*_suggested(scope, dataset_id), held))


def _of_response(scope: ResponseFilterScope, wanted: Filter) -> Sql:
    whose = [Response.user_id == scope.user.id] if scope.user else []
    if scope.question:
        held = Member(Response.values, scope.question, "value").meets(_condition(wanted))
        return sa.exists(sa.select(sa.literal(1)).where(Response.record_id == Record.id, *whose, held))
    if not isinstance(wanted, TermsFilter) or scope.property not in (None, "status"):
        raise refused(
            "A filter on responses names a question, or lists statuses: pending, draft, submitted, discarded."
        )
    statuses = [str(status) for status in wanted.values]
    answered = sa.select(Response.record_id).where(*whose)
    chosen = Record.id.in_(answered.where(sa.type_coerce(Response.status, sa.String).in_(statuses)))
    if ResponseStatusFilter.pending in statuses:
        return sa.or_(Record.id.not_in(answered), chosen)
    return chosen


# ------------------------------------------------------------------------------------------------------ order


def ordered(sort: Sequence[Order], dataset_id: UUID, user_id: UUID | None = None) -> list[Sql]:
    """Return what records are ordered by: the sorts, what has no value last, then as they came in.

    Without sorts each user has an order of their own, always the same, as with Argilla's other engines: reviewers who
    share a queue would otherwise all stand before the same record. It is rowid x key modulo a prime.
    """
    keys = [
        (key.desc() if order.order == SortOrder.desc else key.asc()).nulls_last()
        for order in sort
        for key in [_sort_key(order.scope, dataset_id, largest=order.order == SortOrder.desc)]
    ]
    rowid = sa.literal_column("records.rowid", sa.Integer)
    if not sort and user_id is not None:
        key = int.from_bytes(blake2b(user_id.bytes, digest_size=8).digest()) % (_PRIME - 1) + 1
        keys.append((rowid % _PRIME * key % _PRIME).asc())
    return [*keys, Record.inserted_at.asc(), rowid.asc()]


_PRIME = 2**31 - 1  # a product of two smaller numbers stays below 2^63, SQLite's largest


def _sort_key(scope: FilterScope, dataset_id: UUID, *, largest: bool) -> Sql:
    if isinstance(scope, MetadataFilterScope):
        return Member(Record.metadata_, scope.metadata_property).key(largest=largest)
    if isinstance(scope, RecordFilterScope):
        return sa.type_coerce(getattr(Record, scope.property), sa.String)
    if isinstance(scope, SuggestionFilterScope):
        value = _property(scope)
        key = value.key(largest=largest) if isinstance(value, Member) else value
        return sa.select(key).where(*_suggested(scope, dataset_id)).limit(1).scalar_subquery()
    if isinstance(scope, ResponseFilterScope):
        return _response_key(scope, largest=largest)
    raise refused(f"Records cannot be sorted by {type(scope).__name__}.")


def _response_key(scope: ResponseFilterScope, *, largest: bool) -> Sql:
    """Return the mean of the numbers that were answered; of texts and statuses the first, or last, by alphabet."""
    whose = [Response.record_id == Record.id] + ([Response.user_id == scope.user.id] if scope.user else [])
    extreme = sa.func.max if largest else sa.func.min
    if not scope.question:
        return sa.select(extreme(sa.type_coerce(Response.status, sa.String))).where(*whose).scalar_subquery()
    item = Member(Response.values, scope.question, "value").items()
    mean = sa.func.avg(sa.case((item.c.type.in_(_NUMBERS), item.c.value)))
    text = extreme(sa.case((item.c.type == "text", item.c.value)))
    joined = sa.join(Response, item, sa.true())
    return sa.select(sa.func.coalesce(mean, text)).select_from(joined).where(*whose).scalar_subquery()


# ------------------------------------------------------------------------------------------------------- text


def said(query: str, kinds: Mapping[str, str]) -> Sql:
    """Return whether a record's visible texts match the query. `kinds`: name and type of the fields that are searched.

    Raises: UnprocessableEntityError for a query that is no search.
    """
    try:
        tree = words.parse(query)
    except words.QueryError as error:
        raise refused(str(error)) from error
    if tree is None:
        return sa.true()
    fields = sa.type_coerce(Record.fields, sa.Text)
    possible, certain = _bounds(tree, fields, 0)
    exact = getattr(sa.func, TEXT_FUNCTION)(query, json.dumps(kinds), fields)
    # CASE, unlike AND, says what comes first: Python sees only what SQL could not decide
    return sa.case((certain, sa.true()), (sa.not_(possible), sa.false()), else_=exact == 1)


_MAX_PARTS, _MAX_LEVELS = 20, 5  # what a query is narrowed down by; the rest is left to the exact match
_UNKNOWN: Bounds = (sa.true(), sa.false())


def _bounds(node: words.Node, fields: Sql, level: int) -> Bounds:
    if level > _MAX_LEVELS:
        return _UNKNOWN
    if isinstance(node, words.Words):
        last = len(node.tokens) - 1
        likes = [
            words.like(token, open_ended=node.prefix and place == last)
            for place, token in enumerate(node.tokens[:_MAX_PARTS])
        ]
        return sa.and_(*(_like(like, fields) for like in likes)), sa.false()
    if isinstance(node, words.Not):
        possible, certain = _bounds(node.part, fields, level + 1)
        return sa.not_(certain), sa.not_(possible)
    bounds = [_bounds(part, fields, level + 1) for part in node.parts[:_MAX_PARTS]]
    whole = len(node.parts) <= _MAX_PARTS
    possible, certain = zip(*bounds, strict=True)
    if node.every:
        return sa.and_(*possible), sa.and_(*certain) if whole else sa.false()
    return sa.or_(*possible) if whole else sa.true(), sa.or_(*certain)


def _like(like: words.Like, fields: Sql) -> Sql:
    return sa.or_(fields.like(like.pattern, escape=words.ESCAPE), *(fields.like(other) for other in like.others))


def searched(fields: Sequence[Any], name: str | None) -> dict[str, str]:
    """Return name and type of the fields that a text query looks at: one, or all but images."""
    return {f.name: str(f.type) for f in fields if name in (None, f.name) and f.type != FieldType.image}
