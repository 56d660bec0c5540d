"""How people name rows: ids, their first letters, SOURCE:ROW; every name that is of no one row is told."""

from pathlib import Path

import pytest

from curate.naming import find_row, find_rows, unique
from schemas.dataset import Dataset
from schemas.errors import UnknownReferenceError
from tests.rows import dataset_of, question

ROWS = [question(f"What is {n}?", f"It is {n}.") for n in range(5)]


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path, {"s": ROWS, "t": ROWS}, shard_rows=2)


def ids(dataset: Dataset) -> list[str]:
    return dataset.scan(["id"]).collect()["id"].to_list()


def test_all_three_names_of_a_row_find_it(mix: Dataset) -> None:
    third = ids(mix)[2]
    for name in (third, third[:6], third[:20].upper(), "s:3"):
        row = find_row(mix, name)
        assert (row.id, row.place, row.index, row.shard.number) == (third, "s:3", 0, 1)


def test_rows_come_in_the_order_of_their_names_each_once(mix: Dataset) -> None:
    last = ids(mix)[9]
    assert [row.place for row in find_rows(mix, ["t:5", "s:1", last, last[:8]])] == ["t:5", "s:1"]


def test_every_name_of_no_row_is_told_at_once(mix: Dataset) -> None:
    with pytest.raises(UnknownReferenceError) as error:
        find_rows(mix, ["s:1", "s:99", "ffffffff", "abc"])
    assert str(error.value).startswith("3 names of rows: s:99, ffffffff, abc (too short for an id)")


def test_a_name_of_several_rows_is_told_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = dataset_of(tmp_path, {"s": [question(f"What is {n}?", "It is.") for n in range(40)]})
    monkeypatch.setattr("curate.naming.SHORTEST_PREFIX", 1)
    letter = max("0123456789abcdef", key=lambda first: sum(i.startswith(first) for i in ids(many)))
    with pytest.raises(UnknownReferenceError, match=rf"row '{letter}': \d+ rows go by that name: {letter}"):
        find_row(many, letter)


@pytest.mark.parametrize("name", ["", "s", "s:", "s:²", ":1", "nope:1", "é" * 40, "'; drop", "z" * 32, "a" * 33])
def test_whatever_is_typed_is_a_row_or_a_clear_error(mix: Dataset, name: str) -> None:
    with pytest.raises(UnknownReferenceError, match="row "):
        find_row(mix, name)


def test_blanks_and_repetitions_are_no_names() -> None:
    assert unique([" a ", "", "b", "a", "  "]) == ["a", "b"]
