"""Attribution: each change is put down to the stage that made it, by what it said, and for the one cause that holds."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from curate.diff.account import SettingChange
from curate.diff.attribution import CAUSES, attribute, differing_keys
from curate.diff.changes import Diff, compare
from curate.diff.columns import setting_changes
from curate.diff.upstream import pair_upstream
from curate.version import Draft
from schemas.dataset import Dataset
from tests.rows import dataset_of, question, staged

MAIL = "jane.roe@acme-mail.org"


def rows(n: int = 6) -> list[dict[str, Any]]:
    return [
        question(f"Where does boat {i} lie?", f"Boat {i} lies at quay {i} of the old port.", key=f"k{i}")
        for i in range(n)
    ]


def told(before: Dataset, after: Dataset) -> list[tuple[Any, ...]]:
    """Give (word, stage, by, cause, keys, fields) of every change."""
    diff = attribute(pair_upstream(compare(before, after)))
    return diff.changes.select("word", "stage", "by", "cause", "keys", "fields").rows()


def without(dataset: Dataset, stage: str) -> Dataset:
    draft = Draft.of(dataset.manifest)
    stages = tuple(s for s in draft.stages if s.name != stage)
    draft = dataclasses.replace(draft, stages=stages, files=tuple(f for f in draft.files if f.stage != stage))
    return Dataset(draft.manifest(), dataset.root)


def test_a_stage_that_ran_for_the_first_time_is_an_added_one_and_back_a_removed_one(tmp_path: Path) -> None:
    plain = dataset_of(tmp_path, {"s": [*rows(), question("What?", "", key="bad")]})
    judged = staged(plain, "rules")
    assert told(plain, judged) == [("rejected", "rules", ["rule:empty_response"], "stage added", [], [])]
    assert told(judged, without(judged, "rules")) == [
        ("restored", "rules", ["rule:empty_response"], "stage removed", [], [])
    ]


def test_a_stage_that_had_not_judged_the_row_yet_is_an_added_one(tmp_path: Path) -> None:
    """A source that came after the stage ran has no opinion of it, though the version has the stage."""
    judged = staged(dataset_of(tmp_path, {"s": rows()}), "rules")
    more = dataset_of(tmp_path, {"t": [question("What?", "", key="bad")]})
    assert told(more, staged(more, "rules")) == [("rejected", "rules", ["rule:empty_response"], "stage added", [], [])]
    assert judged.manifest.stage("rules") is not None


def test_settings_are_named_by_stage_and_key(tmp_path: Path) -> None:
    plain = dataset_of(tmp_path, {"s": [*rows(), question("What?", "", key="bad")]})
    lax = staged(plain, "rules", disable=("rule:empty_response",), short_words=2)
    strict = staged(lax, "rules")
    assert differing_keys(lax.manifest, strict.manifest) == {"rules": ["disable", "short_words"]}
    keys = ["rules.disable", "rules.short_words"]
    assert told(lax, strict) == [("rejected", "rules", ["rule:empty_response"], "configuration", keys, [])]


def test_a_setting_that_a_release_did_not_know_yet_is_no_difference_while_it_is_off(tmp_path: Path) -> None:
    judged = staged(dataset_of(tmp_path, {"s": rows()}), "rules", short_words=5)

    def known_since(value: Any) -> Dataset:
        stages = tuple(s.model_copy(update={"config": s.config | {"late": value}}) for s in judged.manifest.stages)
        return Dataset(judged.manifest.model_copy(update={"stages": stages}), judged.root)

    assert differing_keys(judged.manifest, known_since(value=False).manifest) == {}
    assert differing_keys(judged.manifest, known_since(3).manifest) == {"rules": ["late"]}
    assert setting_changes(judged.manifest, known_since(value=False).manifest) == ()
    assert setting_changes(judged.manifest, known_since({"a": 1}).manifest) == (
        SettingChange("rules", "late.a", None, 1),
    )
    assert differing_keys(known_since(3).manifest, known_since(4).manifest) == {"rules": ["late"]}


def test_another_version_of_a_stage_comes_before_its_settings(tmp_path: Path) -> None:
    plain = dataset_of(tmp_path, {"s": [*rows(), question("What?", "", key="bad")]})
    lax = staged(plain, "rules", disable=("rule:empty_response",))
    stages = tuple(s.model_copy(update={"version": 1}) for s in lax.manifest.stages)
    older = Dataset(lax.manifest.model_copy(update={"stages": stages}), lax.root)
    [change] = told(older, staged(lax, "rules"))
    assert change[3:5] == ("stage version", [])


def test_a_stage_that_judged_another_text_is_not_to_blame(tmp_path: Path) -> None:
    before = staged(dataset_of(tmp_path, {"s": rows()}), "rules")
    edited = rows()
    edited[2] = question(edited[2]["messages"][0][1], "", key="k2")
    after = staged(dataset_of(tmp_path, {"s": edited}), "rules")
    assert told(before, after) == [
        ("edited", "ingest", ["replaced"], "source", [], ["messages[1] assistant"]),
        ("rejected", "rules", ["rule:empty_response"], "text", [], []),
    ]


def test_what_hangs_on_other_rows_is_put_down_to_them(tmp_path: Path) -> None:
    """A duplicate is restored since the row that it repeated is gone: nothing about itself or the stage is other."""
    twin = rows()[0] | {"key": "twin"}
    before = staged(dataset_of(tmp_path, {"s": rows(), "t": [twin]}), "dedup")
    [gone] = before.scan(["source", "kept"]).filter("kept").filter(source="t").collect().rows() or [None]
    left_out, stays = ("s", "t") if gone else ("t", "s")
    kept_source = {left_out: rows(1) if left_out == "s" else [twin]}
    if stays == "t":
        kept_source["s"] = rows()
    after = staged(without_source(before, stays, {"s": rows()[1:]} if stays == "s" else {}), "dedup")
    changes = told(before, after)
    assert ("restored", "dedup", ["duplicate:exact"], "other rows", [], []) in changes
    assert {change[0] for change in changes} == {"removed", "restored"}


def without_source(dataset: Dataset, source: str, instead: dict[str, Any]) -> Dataset:
    if instead:
        return dataset_of(dataset.root, instead)
    draft = Draft.of(dataset.manifest)
    sources = tuple(s for s in draft.sources if s.name != source)
    draft = dataclasses.replace(draft, sources=sources, files=tuple(f for f in draft.files if f.source != source))
    return Dataset(draft.manifest(), dataset.root)


def test_an_edit_that_an_earlier_verdict_had_kept_away_is_put_down_to_the_verdict(tmp_path: Path) -> None:
    """A row that the rules left out before was not redacted then; its redaction now is no setting of pii."""
    short = question("Write?", f"Write to {MAIL}", key="mail")
    plain = dataset_of(tmp_path, {"s": [*rows(), short]})
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nname = "write"\nseverity = "reject"\nsentence = "It says write."\nmatches = "^Write"\n')
    before = staged(staged(plain, "rules", rules=str(path)), "pii", action="redact")
    after = staged(staged(before, "rules"), "pii", action="redact")
    assert told(before, after) == [
        ("edited", "pii", ["redact:email"], "verdict", [], ["messages[1] assistant"]),
        ("restored", "rules", ["custom:write"], "configuration", ["rules.rules"], []),
    ]


def test_rows_that_came_say_how_their_source_came_by_them(tmp_path: Path) -> None:
    before = dataset_of(tmp_path, {"s": rows(2)})
    assert told(before, dataset_of(tmp_path, {"t": rows(1)})) == [("added", "ingest", ["new source"], "source", [], [])]
    replaced = dataset_of(tmp_path, {"s": [rows(2)[0], question("Is it new?", "Nothing like it was there.", key="n")]})
    assert [change[:3] for change in told(before, replaced) if change[2] != ["new source"]] == [
        ("added", "ingest", ["replaced"]),
        ("removed", "ingest", ["replaced"]),
    ]


@pytest.mark.parametrize("back", [False, True])
def test_every_change_has_a_stage_and_one_of_the_causes_and_none_is_lost(tmp_path: Path, *, back: bool) -> None:
    one = staged(staged(dataset_of(tmp_path, {"s": rows(12)}), "rules"), "split")
    other = staged(staged(dataset_of(tmp_path, {"s": rows(20)[4:], "t": rows(3)}), "signals"), "split", salt="x")
    diff: Diff = compare(*((other, one) if back else (one, other)))
    found = attribute(diff)
    assert found.changes["cause"].is_in(CAUSES).all()
    assert found.changes["stage"].null_count() == 0
    same = ["word", "id", "before", "after", "detail", "kept_before", "kept_after"]
    assert found.changes.select(same).equals(diff.changes.select(same))


def test_nothing_is_made_of_no_change(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"s": rows()})
    assert attribute(compare(dataset, dataset)).changes.height == 0
