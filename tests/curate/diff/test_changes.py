"""Diffs: exactly the planned changes are found, each by its word, and the semver bump follows from the kept rows."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_a_row_left_out_by_both_for_another_reason_is_rejudged_and_raises_nothing_but_the_patch(tmp_path: Path) -> None:
    """A copy that the rules leave out before is a duplicate after: the stage is the one that let it go."""
    twin = question(*(text for _, text in rows()[3]["messages"]), key="twin")
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nname = "lamp"\nseverity = "reject"\nsentence = "Lamp 3."\nmatches = "^Lamp 3 "\n')
    plain = dataset_of(tmp_path, {"s": [*rows(8), twin]})
    before = staged(staged(plain, "rules", rules=str(path)), "dedup")
    after = staged(staged(before, "rules"), "dedup")
    assert found(compare(before, after)) == {"restored": 1, "rejudged": 1}
    [change] = compare(before, after).changes.filter(word="rejudged").to_dicts()
    told = [change[name] for name in ("before", "after", "stage", "kept_before", "kept_after")]
    assert told == ["custom:lamp", "duplicate:exact", "rules", False, False]
    assert change["place"] in ("s:4", "s:9")


def test_every_number_that_a_stage_gives_is_an_opinion_and_a_first_one_is_no_change(tmp_path: Path) -> None:
    long = [question(f"Where is boat {i}?", " ".join(f"word{i}{n}" for n in range(9 * i + 3))) for i in range(8)]
    plain = dataset_of(tmp_path, {"s": long})
    first = staged(plain, "signals")
    assert found(compare(plain, first)) == {}
    other = staged(first, "signals", good_response_words=200)
    assert found(compare(first, other)) == {"rescored": 8}
    [fields] = compare(first, other).changes["fields"].unique().to_list()
    assert fields == ["quality"]
    scored = staged(other, "score")
    assert found(compare(other, scored)) == {}
    turned = compare(scored, staged(scored, "score", weights={"quality": -1.0}))
    assert {tuple(fields) for fields in turned.changes["fields"]} == {("score",)}


def test_a_row_without_a_weight_is_one_of_weight_1(tmp_path: Path) -> None:
    plain = dataset_of(tmp_path, {"s": rows(4), "t": rows(3)})
    selected = staged(plain, "select")
    assert found(compare(plain, selected)) == {}
    weighed = compare(plain, staged(selected, "select", weight=("t=2",)))
    assert found(weighed) == {"rescored": 3}
    assert set(weighed.changes.select("before", "after").rows()) == {("weight 1.0", "weight 2.0")}


@settings(max_examples=3, deadline=None)
@given(st.data())
def test_versions_that_share_no_text_object_differ_as_those_that_do(data: st.DataObject) -> None:
    """What is side by side is compared by place, the rest by id, in parts: the changes are the same."""
    count = data.draw(st.integers(3, 12))
    empty = data.draw(st.sets(st.integers(0, count - 1)))
    given_rows = [
        r | {"messages": [r["messages"][0], ("assistant", "")]} if i in empty else r for i, r in enumerate(rows(count))
    ]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        before = dataset_of(Path(folder), {"s": given_rows}, shard_rows=5)
        shared = staged(before, "rules")
        apart = staged(dataset_of(Path(folder), {"s": given_rows}, name="other", shard_rows=4), "rules")
        patch.setattr("curate.diff.places._PART_ROWS", data.draw(st.integers(1, 30)))
        one, other = compare(before, shared).changes, compare(before, apart).changes
    assert one.height == len(empty)
    assert one.equals(other)


def test_versions_of_two_datasets_compare_by_row(tmp_path: Path) -> None:
    one = dataset_of(tmp_path, {"s": rows(4)}, name="one")
    two = dataset_of(tmp_path, {"s": rows(5)}, name="two")
    diff = compare(one, two)
    assert found(diff) == {"added": 1}
    assert diff.to_json()["same_dataset"] is False


@pytest.mark.parametrize(("bump", "to"), [("major", "2.0.0"), ("minor", "1.3.0"), ("patch", "1.2.4")])
def test_a_bump_raises_one_part_and_clears_those_after_it(bump: Any, to: str) -> None:
    assert bumped("1.2.3", bump) == to
