"""The embedded search engine finds what a plain evaluation of the same filters, sorts and queries finds.

The engine runs in the server's private environment, on a database of the server's own models.
"""

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import curate.review.server
from curate.review.server.environment import Environment, UnreachableIndexError
from tests.curate.review.server.engine_reference import is_number, order, passes, says, several, texts
from tests.curate.review.server.engine_strategies import (
    FIELDS,
    PROPERTY,
    QUESTIONS,
    USERS,
    fields,
    filters,
    queries,
    records,
    rendered,
    sorts,
)

Row = dict[str, Any]

INSIDE = Path(curate.review.server.__file__).parent / "inside"
PROPERTIES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Engine:
    """Asks the engine at the other end of a pipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def told(self) -> Row:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the engine's process has ended"
        return json.loads(line)

    def ask(self, op: str, **arguments: Any) -> Row:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        return self.told()

    def load(self, rows: list[Row], **more: Any) -> None:
        given_ = {"fields": list(FIELDS.items()), "questions": QUESTIONS, "users": USERS, **more}
        assert self.ask("load", records=rows, **given_) == {}

    def ids(self, **arguments: Any) -> list[str]:
        answer = self.ask("search", **arguments)
        assert "error" not in answer, answer
        return answer["ids"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    try:
        python = Environment().ensure()
    except UnreachableIndexError as error:
        pytest.skip(str(error))
    host = Path(__file__).with_name("engine_host.py")
    command = [str(python), str(host), str(tmp_path_factory.mktemp("engine")), str(INSIDE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        engine = Engine(process)
        assert engine.told() == {"ready": True}
        yield engine


def rows(count: int, **each: Any) -> list[Row]:
    """Records that are alike but for `each`: a column and a function of the number."""
    made = []
    for number in range(count):
        row = {
            "id": f"{number:032x}",
            "fields": {"prompt": f"number {number}"},
            "metadata": {},
            "external_id": str(number),
        }
        row |= {"status": "pending", "inserted_at": "2026-01-01", "updated_at": "2026-01-01"}
        made.append(row | {name: make(number) for name, make in each.items()})
    return [
        {**row, "id": f"{row['id'][:8]}-{row['id'][8:12]}-{row['id'][12:16]}-{row['id'][16:20]}-{row['id'][20:]}"}
        for row in made
    ]


@PROPERTIES
@given(records(), st.lists(st.lists(filters(), min_size=1, max_size=2), min_size=1, max_size=12))
def test_filters_find_what_the_plain_evaluation_finds(engine: Engine, held: list[Row], asked: list[list[Row]]) -> None:
    engine.load(held)
    for wanted in asked:
        expected = [r["id"] for r in order(held, []) if all(passes(r, f) for f in wanted)]
        assert engine.ids(filters=wanted) == expected, wanted


@PROPERTIES
@given(records(), st.lists(sorts(), min_size=1, max_size=6))
def test_sorts_put_records_where_the_plain_evaluation_does(
    engine: Engine, held: list[Row], asked: list[list[Row]]
) -> None:
    engine.load(held)
    for wanted in asked:
        assert engine.ids(sort=wanted) == [r["id"] for r in order(held, wanted)], wanted


@PROPERTIES
@given(
    st.lists(fields(), max_size=5), st.lists(queries(), min_size=1, max_size=6), st.none() | st.sampled_from([*FIELDS])
)
def test_text_queries_find_what_the_plain_evaluation_finds(
    engine: Engine, held: list[Row], asked: list[tuple[Any, ...]], field: str | None
) -> None:
    made = rows(len(held), fields=lambda number: held[number])
    engine.load(made)
    for tree in asked:
        expected = [r["id"] for r in made if says(tree, texts(r, FIELDS, field))]
        assert engine.ids(query=rendered(tree), field=field) == expected, (tree, rendered(tree))


@PROPERTIES
@given(records(), filters(), sorts(), st.tuples(st.integers(0, 7), st.integers(1, 4)))
def test_a_page_is_a_piece_of_the_whole_and_the_total_is_its_length(
    engine: Engine, held: list[Row], wanted: Row, sort: list[Row], part: tuple[int, int]
) -> None:
    engine.load(held)
    whole = engine.ids(filters=[wanted], sort=sort)
    offset, limit = part
    page = engine.ask("search", filters=[wanted], sort=sort, offset=offset, limit=limit)
    assert page == {"ids": whole[offset : offset + limit], "total": len(whole)}


@PROPERTIES
@given(records(), PROPERTY)
def test_metrics_count_each_record_once_for_each_term(engine: Engine, held: list[Row], name: str) -> None:
    held_values = [[v for v in several((r["metadata"] or {}).get(name)) if v is not None] for r in held]
    engine.load(held, metadata=[[name, "terms"]])
    counts: dict[str, int] = {}
    for found in held_values:
        for term in {str(v) for v in found if isinstance(v, str) or is_number(v)}:
            counts[term] = counts.get(term, 0) + 1
    expected = [{"term": t, "count": n} for t, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    metrics = engine.ask("metrics", property=name)
    assert metrics == {"type": "terms", "total": sum(counts.values()), "values": expected}
    numbers = [float(v) for found in held_values for v in found if is_number(v)]
    engine.load(held, metadata=[[name, "float"]])
    metrics = engine.ask("metrics", property=name)
    assert (metrics["min"], metrics["max"]) == (min(numbers, default=None), max(numbers, default=None))


@PROPERTIES
@given(records())
def test_progress_counts_records_and_responses_by_status(engine: Engine, held: list[Row]) -> None:
    engine.load(held)
    assert engine.ask("progress") == counted([r["status"] for r in held])
    for user in USERS:
        given_ = [x["status"] for r in held for x in r["responses"] if x["user"] == user]
        assert engine.ask("progress", user=user) == counted(given_)


def counted(statuses: list[str]) -> dict[str, int]:
    return {"total": len(statuses), **{status: statuses.count(status) for status in sorted(set(statuses))}}


def test_a_draft_has_no_progress(engine: Engine) -> None:
    engine.load(rows(2), status="draft")
    assert engine.ask("progress") == {}


VECTORS = st.lists(st.none() | st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=6)


@PROPERTIES
@given(VECTORS, st.tuples(st.integers(-3, 3), st.integers(1, 3)), st.sampled_from(["most_similar", "least_similar"]))
def test_similar_records_are_those_of_the_nearest_vectors(
    engine: Engine, vectors: list[tuple[int, int] | None], aim: tuple[int, int], which: str
) -> None:
    made = rows(len(vectors), vector=lambda number: vectors[number])
    engine.load(made)
    sign = -1 if which == "least_similar" else 1
    expected = {r["id"]: (1 + sign * cosine(v, aim)) / 2 for r, v in zip(made, vectors, strict=True) if v is not None}
    found = engine.ask("similar", value=aim, how={"order": which})["found"]
    assert {i: pytest.approx(score) for i, score in found} == expected
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    best = engine.ask("similar", value=aim, how={"order": which, "max_results": 2, "threshold": 0.5})["found"]
    assert best == [f for f in found[:2] if f[1] >= 0.5]


def cosine(v: tuple[int, int], w: tuple[int, int]) -> float:
    return (v[0] * w[0] + v[1] * w[1]) / math.hypot(*v) / math.hypot(*w) if any(v) else 0.0


def test_a_record_is_not_similar_to_itself_and_filters_hold(engine: Engine) -> None:
    made = rows(4, vector=lambda number: [1, number], metadata=lambda number: {"plain": number % 2})
    engine.load(made)
    odd = [{"scope": {"of": "metadata", "metadata_property": "plain"}, "values": ["1"]}]
    found = engine.ask("similar", record=made[3]["id"], filters=odd, query="number", how={})
    assert [i for i, _ in found["found"]] == [made[1]["id"]]
    assert "either a vector or a record" in engine.ask("similar", how={})["error"]


def test_without_a_sort_each_user_has_an_order_of_their_own_that_stays(engine: Engine) -> None:
    """Reviewers who share a queue start at different records; new records do not move the others."""
    made = rows(40)
    engine.load(made[:30])
    before = {user: engine.ids(me=user) for user in USERS}
    assert len({tuple(ids) for ids in before.values()}) == len(USERS)
    assert engine.ids() == [r["id"] for r in made[:30]]
    engine.load(made)
    for user, ids in before.items():
        assert sorted(engine.ids(me=user)) == [r["id"] for r in made]
        assert [i for i in engine.ids(me=user) if i in ids] == ids


def test_records_that_sqlite_cannot_read_as_json_are_left_out_and_the_others_are_found(engine: Engine) -> None:
    """Python writes Infinity, which is no JSON: such a row has no metadata for the search."""
    engine.load(rows(3, metadata=lambda number: {"plain": math.inf if number == 1 else number}))
    scope = {"of": "metadata", "metadata_property": "plain"}
    assert engine.ids(filters=[{"scope": scope, "ge": 0}]) == [r["id"] for r in rows(3) if r["external_id"] != "1"]
    assert engine.ids(sort=[{"scope": scope, "order": "desc"}]) == [rows(3)[n]["id"] for n in (2, 0, 1)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"filters": [{"scope": {"of": "record", "property": "inserted_at"}, "ge": "soon"}]},
            "a date such as 2026-01-31",
        ),
        ({"filters": [{"scope": {"of": "response", "property": "status"}, "ge": 1}]}, "lists statuses"),
        ({"query": "a" * 10_001}, "at most 10,000"),
        ({"query": "a", "field": "nowhere"}, "Field `nowhere` not found"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(engine: Engine, asked: Row, message: str) -> None:
    engine.load(rows(1))
    error = engine.ask("search", **asked)["error"]
    assert error.startswith("UnprocessableEntityError: ")
    assert message in error


def test_a_very_long_query_is_still_answered(engine: Engine) -> None:
    """SQLite bounds the depth of an expression and the number of its parameters."""
    engine.load(rows(2))
    assert engine.ids(query="number 1 " * 1_000) == [rows(2)[1]["id"]]
    assert engine.ids(query="nothing | " * 900 + "1") == [rows(2)[1]["id"]]
    assert engine.ids(query=f'"{"number " * 1_000}"') == []
    assert engine.ids(query="я" * 10_000) == []


def test_an_offset_beyond_the_integers_of_sqlite_is_a_page_beyond_the_end(engine: Engine) -> None:
    engine.load(rows(2))
    assert engine.ask("search", offset=2**63) == {"ids": [], "total": 2}


def test_a_day_as_the_upper_bound_holds_the_whole_day(engine: Engine) -> None:
    moments = ("2026-01-01T23:59:59.999999", "2026-01-02", "2026-01-02T23:59:59.999999", "2026-01-03")
    engine.load(rows(4, inserted_at=lambda number: moments[number]))
    scope = {"of": "record", "property": "inserted_at"}
    bounded = [{"scope": scope, "ge": "2026-01-02", "le": "2026-01-02"}]
    assert engine.ids(filters=bounded) == [r["id"] for r in rows(4)[1:3]]


def test_terms_as_many_as_the_server_allows_are_answered(engine: Engine) -> None:
    engine.load(rows(2, metadata=lambda number: {"plain": number}))
    scope = {"of": "metadata", "metadata_property": "plain"}
    wanted = [{"scope": scope, "values": [str(n) for n in range(1, 251)]}] * 50
    assert engine.ids(filters=wanted) == [rows(2)[1]["id"]]


def test_a_database_that_is_not_sqlite_is_refused(engine: Engine) -> None:
    error = engine.ask("elsewhere", database_url="postgresql+asyncpg://nobody@127.0.0.1/none")["error"]
    assert "ARGILLA_DATABASE_URL names a postgresql database" in error
