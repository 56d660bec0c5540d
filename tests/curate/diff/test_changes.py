"""Diffs: exactly the planned changes are found, each by its word, and the semver bump follows from the kept rows."""

from pathlib import Path
from typing import Any

import pytest

from curate.diff.changes import WORDS, Diff, compare
from curate.diff.upstream import pair_upstream
from curate.version import bumped
from tests.rows import dataset_of, question, staged


def rows(n: int = 30) -> list[dict[str, Any]]:
    return [
        question(
            f"Which of the {i} lamps along the quay is lit?",
            f"Lamp {i} is lit, and it is lit until {i} o'clock.",
            key=f"k{i}",
        )
        for i in range(n)
    ]


def found(diff: Diff) -> dict[str, int]:
    return {word: n for word, n in diff.counts.items() if n}


def test_a_version_does_not_differ_from_itself(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": rows()})
    diff = compare(dataset, dataset)
    assert diff.changes.height == 0
    assert diff.counts == dict.fromkeys(WORDS, 0)
    assert not diff.trainer_sees_it


def test_every_planted_change_is_found_and_nothing_else(tmp_path: Path) -> None:
    """Two rows added, one removed, one edited, and one that gains a rejection; the others stay unnamed."""
    before = staged(dataset_of(tmp_path, {"s": rows()}), "rules")
    changed = rows()
    gone = changed.pop(3)
    changed[5] = {
        **changed[5],
        "messages": [("user", "Another question?"), ("assistant", "Another answer, at length.")],
    }
    changed[7] = {**changed[7], "messages": [*changed[7]["messages"][:1], ("assistant", "")]}
    changed += [question(f"Something about ship {i}?", "It sails at noon with wool.", key=f"new{i}") for i in (1, 2)]
    after = staged(dataset_of(tmp_path, {"s": changed}), "rules")
    diff = compare(before, after)
    assert found(diff) == {"added": 2, "removed": 1, "edited": 2, "rejected": 1}
    assert diff.bump == "major"
    assert gone["key"] == "k3"
    [rejected] = diff.changes.filter(diff.changes["word"] == "rejected").to_dicts()
    assert (rejected["after"], rejected["stage"]) == ("rule:empty_response", "rules")
    back = compare(after, before)
    assert found(back) == {"added": 1, "removed": 2, "edited": 2, "restored": 1}


def test_an_added_row_is_minor_and_new_annotations_are_a_patch(tmp_path: Path) -> None:
    first = dataset_of(tmp_path, {"s": rows(10)})
    second = dataset_of(tmp_path, {"t": rows(2)})
    assert compare(first, second).bump == "minor"
    third = staged(second, "signals")
    assert compare(second, third).bump == "patch"
    assert [d.manifest.semver for d in (first, second, third)] == ["1.0.0", "1.1.0", "1.1.1"]


def test_removing_a_row_that_was_rejected_anyway_is_no_major_change(tmp_path: Path) -> None:
    bad = question("What is lit?", "", key="bad")
    before = staged(dataset_of(tmp_path, {"s": [*rows(5), bad]}), "rules")
    after = staged(dataset_of(tmp_path, {"s": rows(5)}), "rules")
    assert found(compare(before, after)) == {"removed": 1}
    assert compare(before, after).bump == "patch"


def test_another_salt_resplits_and_the_trainer_sees_it(tmp_path: Path) -> None:
    plain = staged(dataset_of(tmp_path, {"s": rows(60)}), "split")
    other = staged(plain, "split", salt="other")
    diff = compare(plain, other)
    assert set(found(diff)) == {"resplit"}
    assert diff.trainer_sees_it
    assert diff.bump == "major"


def test_the_first_split_is_not_a_resplit(tmp_path: Path) -> None:
    before = dataset_of(tmp_path, {"s": rows()})
    assert found(compare(before, staged(before, "split"))) == {}


def test_a_row_that_was_edited_upstream_is_paired_with_what_it_was(tmp_path: Path) -> None:
    """A source without ids gives an edited row another id: similar rows are paired, others stay added and removed."""
    old = rows(6)
    new = rows(6)
    new[2] = question(old[2]["messages"][0][1], old[2]["messages"][1][1] + " Then the quay is dark.", key="edited")
    new[4] = question("Entirely new?", "Nothing is shared with any of the rows before.", key="new")
    before, after = dataset_of(tmp_path, {"s": old}), dataset_of(tmp_path, {"s": new})
    assert found(compare(before, after)) == {"added": 2, "removed": 2}
    diff = pair_upstream(compare(before, after))
    assert found(diff) == {"added": 1, "removed": 1, "edited_upstream": 1}
    [pair] = diff.changes.filter(diff.changes["word"] == "edited_upstream").to_dicts()
    assert pair["id"] in before.scan(["id"]).collect()["id"].to_list()
    assert pair["match"] in after.scan(["id"]).collect()["id"].to_list()
    assert 0.5 <= pair["confidence"] < 1.0


def test_versions_of_two_datasets_compare_by_row(tmp_path: Path) -> None:
    one = dataset_of(tmp_path, {"s": rows(4)}, name="one")
    two = dataset_of(tmp_path, {"s": rows(5)}, name="two")
    diff = compare(one, two)
    assert found(diff) == {"added": 1}
    assert diff.to_json()["same_dataset"] is False


@pytest.mark.parametrize(("bump", "to"), [("major", "2.0.0"), ("minor", "1.3.0"), ("patch", "1.2.4")])
def test_a_bump_raises_one_part_and_clears_those_after_it(bump: Any, to: str) -> None:
    assert bumped("1.2.3", bump) == to
