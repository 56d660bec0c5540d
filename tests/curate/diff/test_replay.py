"""Replay: the keys that make a change alone; those that only do so together; and what no setting makes. It commits
nothing."""

from pathlib import Path
from typing import Any

import polars as pl

from curate.diff.attribution import attribute
from curate.diff.changes import Diff, compare
from curate.diff.replay import replay
from curate.store import Store
from schemas.dataset import Dataset
from schemas.reference import versions_of
from tests.rows import dataset_of, question, staged


def rows(n: int = 6) -> list[dict[str, Any]]:
    return [question(f"Where is boat {i}?", f"Boat {i} lies at quay {i} of the port.", key=f"k{i}") for i in range(n)]


def replayed(before: Dataset, after: Dataset) -> Diff:
    had = versions_of(before.root, "d")
    diff = replay(Store(before.root), attribute(compare(before, after)))
    assert versions_of(before.root, "d") == had
    return diff


def told(diff: Diff) -> list[tuple[Any, ...]]:
    return diff.changes.select("word", "stage", "cause", "keys").rows()


def test_of_several_keys_the_one_that_makes_the_change_is_left(tmp_path: Path) -> None:
    plain = dataset_of(tmp_path, {"s": [*rows(), question("What?", "", key="bad")]})
    before = staged(plain, "rules", disable=("rule:empty_response",), short_words=2)
    diff = replayed(before, staged(before, "rules"))
    assert told(diff) == [("rejected", "rules", "configuration", ["rules.disable"])]
    assert diff.notes == ()


def test_a_change_that_no_key_makes_alone_is_one_of_all_together(tmp_path: Path) -> None:
    """An edit by two keys of normalize: each alone gives another text."""
    plain = dataset_of(tmp_path, {"s": [*rows(), question("Is it a cafe\u0301?", "A cafe\u0301. ", key="two")]})
    before = staged(plain, "normalize", nfc=False, surrounding_blanks=False)
    diff = replayed(before, staged(before, "normalize"))
    assert told(diff) == [("edited", "normalize", "together", ["normalize.nfc", "normalize.surrounding_blanks"])]
    [note] = diff.notes
    assert note.startswith("1 changes are made by no key alone")


def test_stages_after_the_exchanged_one_are_run_too(tmp_path: Path) -> None:
    """The rules let a row go that is a duplicate: only with dedup run again does the row have its new reason."""
    twins = [question("Where is it?", f"It lies at the {old} quay.", key=old) for old in ("old", "OLD")]
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rule]]\nname = "old"\nseverity = "reject"\nsentence = "It says old."\nmatches = "(?i)old quay"\n'
    )
    plain = dataset_of(tmp_path, {"s": [*rows(), *twins]})
    before = staged(staged(plain, "rules", rules=str(path)), "dedup")
    after = staged(staged(before, "rules"), "dedup", num_perm=64)
    found = set(map(str, told(replayed(before, after))))
    keys = ["rules.rules"]
    assert found == {str((word, "rules", "configuration", keys)) for word in ("restored", "rejudged")}


def test_what_no_setting_makes_comes_of_other_rows(tmp_path: Path) -> None:
    """Dedup has another setting, but the row is restored since the one that it repeated is gone."""
    twin = question(*(text for _, text in rows()[0]["messages"]), key="twin")
    before = staged(dataset_of(tmp_path, {"s": [*rows(), twin]}), "dedup")
    [gone] = before.scan(["source_key", "kept"]).filter(~pl.col("kept")).collect()["source_key"]
    left = [r for r in [*rows(), twin] if r["key"] in {gone, *(f"k{i}" for i in range(1, 6))}]
    after = staged(dataset_of(tmp_path, {"s": left}), "dedup", num_perm=64)
    assert ("restored", "dedup", "configuration", ["dedup.num_perm"]) in told(attribute(compare(before, after)))
    assert ("restored", "dedup", "other rows", []) in told(replayed(before, after))


def test_a_stage_that_needs_a_model_is_not_run_and_the_diff_says_so(tmp_path: Path) -> None:
    long = [question(f"Where is boat {i}?", " ".join(f"word{i}{n}" for n in range(9 * i + 3))) for i in range(4)]
    before = staged(staged(dataset_of(tmp_path, {"s": long}), "signals"), "score")
    after = staged(before, "score", weights={"quality": -1.0})
    diff = replayed(judged_by_a_model(before), judged_by_a_model(after))
    assert {str(change) for change in told(diff)} == {str(("rescored", "score", "configuration", ["score.weights"]))}
    assert diff.notes == ("score.weights was not exchanged: it needs the models that scored",)


def judged_by_a_model(dataset: Dataset) -> Dataset:
    stages = tuple(
        s.model_copy(update={"config": s.config | {"scorers": {"judge": {"model": "m"}}}}) if s.name == "score" else s
        for s in dataset.manifest.stages
    )
    return Dataset(dataset.manifest.model_copy(update={"stages": stages}), dataset.root)
