"""The account of two versions tells what was planned, and its parts agree with each other and with the versions."""

import json
from collections import Counter
from pathlib import Path

import pytest

from curate.diff.account import Account, SettingChange
from curate.diff.fates import ABSENT, KEPT
from curate.review.stage import review_stage
from curate.stages import stage
from schemas.dataset import Dataset
from tests.curate.diff.versions import account_between, committed, judged, lamp, sourced, two_versions
from tests.rows import dataset_of, question, staged


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    return two_versions(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def account(versions: tuple[Dataset, Dataset]) -> Account:
    return account_between(*versions, seed=1, samples=3)


def test_every_row_of_each_version_has_one_fate(account: Account) -> None:
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for t in account.transitions:
        before[t.before] += t.rows
        after[t.after] += t.rows
    for side, told in ((account.before, before), (account.after, after)):
        assert told.total() - told[ABSENT] == side.rows
        assert told[KEPT] == side.kept
        assert {f"rejected by {c.stage}": sum(c.rejected.values()) for c in side.stages if c.rejected} == {
            fate: n for fate, n in told.items() if fate not in (KEPT, ABSENT)
        }


def test_what_was_planned_is_told(account: Account) -> None:
    assert {w: n for w, n in account.verdict.counts.items() if n} == {
        "added": 11,
        "removed": 20,
        "edited_upstream": 1,
        "edited": 2,
        "rejected": 2,
        "restored": 1,
    }
    assert [(t.before, t.after, t.rows) for t in account.transitions if t.before != t.after] == [
        (KEPT, "rejected by rules", 1),
        (KEPT, "rejected by review", 1),
        (KEPT, ABSENT, 21),
        ("rejected by review", KEPT, 1),
        (ABSENT, KEPT, 12),
    ]
    assert [(r.reason, r.before, r.after, r.came, r.left) for r in account.reasons] == [
        ("rule:empty_response", 0, 1, 1, 0),
        ("review:rejected", 1, 1, 1, 1),
    ]


def test_the_verdict_names_the_weightiest_first_and_in_good_grammar(account: Account) -> None:
    assert account.verdict.bump == "major"
    assert [s.partition(" (")[0].rstrip(".") for s in account.verdict.sentences] == [
        "20 rows that were kept are gone",
        "1 row was edited by its publisher, and has a new id",
        "2 rows that were kept are rejected now",
        "1 row that is kept in both has another text",
        "11 rows are new and kept",
        "1 row that was rejected is kept now",
    ]


def test_sizes_and_mix_add_up(account: Account) -> None:
    for mixes in (account.sources, account.licences):
        assert sum(m.rows_before for m in mixes) == account.before.kept
        assert sum(m.rows_after for m in mixes) == account.after.kept
        assert sum(m.tokens_before for m in mixes) == account.before.tokens
        assert sum(m.tokens_after for m in mixes) == account.after.tokens
    licences = {m.name: (m.rows_before, m.rows_after) for m in account.licences}
    assert licences == {"permissive": (39, 39), "unknown": (0, 10), "non-commercial": (20, 0)}
    by_name = {m.name: m for m in account.sources}
    assert by_name["ferries"].licence_after is None
    assert by_name["trams"].licence_before is None
    assert account.before.licence.kind == "non-commercial"


def test_moves_are_of_rows_that_both_keep(account: Account) -> None:
    both = sum(t.rows for t in account.transitions if (t.before, t.after) == (KEPT, KEPT))
    assert sum(account.moves.values()) == both
    assert all(old == new for old, new in account.moves), "no row moves because data came and went"
    assert account.leaks == ()


def test_reviews_are_carried_changed_or_stale(versions: tuple[Dataset, Dataset], account: Account) -> None:
    assert {kind: n for kind, n in account.reviews.items() if n} == {"changed": 1, "gone": 1}
    assert {(c.place, c.kind, c.before, c.after) for c in account.review_changes} == {
        ("lamps:1", "changed", "kept", "rejected"),
        ("lamps:2", "gone", "rejected", None),
    }
    rows = [lamp(0, "Nobody has seen it lit for years."), *(lamp(i) for i in range(1, 40))]
    edited = judged(sourced(versions[0], "lamps", rows), review_stage())
    found = account_between(versions[0], edited)
    assert {kind: n for kind, n in found.reviews.items() if n} == {"carried": 1, "stale": 1}
    assert [(c.place, c.kind) for c in found.review_changes] == [("lamps:1", "stale")]


def test_samples_are_drawn_from_the_changes_of_each_word(account: Account) -> None:
    assert {word: len(rows) for word, rows in account.samples.items()} == {
        "added": 3,
        "removed": 3,
        "edited_upstream": 1,
        "edited": 2,
        "rejected": 2,
        "restored": 1,
    }
    assert all(row.place.startswith("ferries:") and row.turns for row in account.samples["removed"])


def test_edits_are_told_word_by_word(account: Account) -> None:
    assert account.edits_total == 3
    words = {row.word for row in account.edits}
    assert words == {"edited", "edited_upstream"}
    assert all(text.pieces for row in account.edits for text in row.texts)


def test_the_json_has_every_part_and_the_keys_of_before(account: Account) -> None:
    told = json.loads(json.dumps(account.to_json(), allow_nan=False))
    known = {"before", "after", "same_dataset", "bump", "trainer_sees_it", "counts", "changes"}
    parts = {name for name in Account.__dataclass_fields__ if name != "diff"}
    assert known | parts <= set(told)
    assert told["before"]["kept"] == 59
    assert len(told["changes"]) == account.diff.changes.height


def test_settings_and_columns_that_differ_are_told_by_key_and_source(tmp_path: Path) -> None:
    rows = [question(f"Which of the {i} lamps is lit?", f"Lamp {i} is lit until {i}.", key=f"k{i}") for i in range(20)]
    plain = dataset_of(tmp_path, {"s": rows})
    before = staged(staged(plain, "signals"), "split")
    after = staged(staged(before, "signals", good_response_words=20), "split", salt="other")
    found = account_between(before, after)
    assert set(found.settings) == {
        SettingChange("signals", "good_response_words", 80, 20),
        SettingChange("split", "salt", "sft", "other"),
    }
    columns = {(c.stage, c.column): (c.rows, dict(c.by_source)) for c in found.columns}
    assert columns["signals", "quality"] == (20, {"s": 20})
    assert columns["split", "split"][0] == sum(n for (a, b), n in found.moves.items() if a != b) > 0
    assert set(columns) == {("signals", "quality"), ("split", "split")}
    added = account_between(plain, before)
    assert added.columns == (), "what only one version says is no difference of opinion"
    assert {c.told for c in added.settings} == {("(the stage)", "did not run", "ran")}


def test_an_ingest_of_the_same_rows_is_compared_by_id(tmp_path: Path) -> None:
    """No text object is shared: rows are found by id, in another order, in other shards, from two sources."""
    rows = [question(f"Which of the {i} lamps is lit?", f"Lamp {i} is lit until {i}.", key=f"k{i}") for i in range(30)]
    one = staged(dataset_of(tmp_path, {"s": rows, "t": rows[:5]}, name="one"), "signals")
    mixed = [{**row, "context": "At night."} if i == 4 else row for i, row in enumerate(rows[::-1])]
    two = staged(dataset_of(tmp_path, {"s": mixed, "t": rows[:4]}, name="two", shard_rows=7), "signals")
    found = account_between(one, two)
    assert [(t.before, t.after, t.rows) for t in found.transitions] == [(KEPT, KEPT, 34), (KEPT, ABSENT, 1)]
    columns = {c.column: dict(c.by_source) for c in found.columns}
    assert columns["context"] == {"s": 1}
    assert found.verdict.sentences[0].startswith("one and two are two datasets")


def test_a_row_with_several_texts_that_differ_is_one_row(tmp_path: Path) -> None:
    rows = [question(f"Which  lamp {i}?\r\n", f"Lamp {i}.\r\n", key=f"k{i}") for i in range(3)]
    plain = dataset_of(tmp_path, {"s": rows})
    found = account_between(plain, staged(plain, "normalize"))
    assert all(len(fields) == 2 for fields in found.diff.changes["fields"])
    assert [(c.column, c.rows) for c in found.columns] == [("messages", 3)]


def test_a_source_that_is_not_judged_yet_hides_nothing_of_the_others(tmp_path: Path) -> None:
    """No text object is shared, and the later version has a source that came after the stage ran."""
    rows = [question(f"Which of the {i} lamps is lit?", f"Lamp {i} is lit until {i}.", key=f"k{i}") for i in range(20)]
    before = staged(dataset_of(tmp_path, {"s": rows}), "signals")
    again = judged(sourced(before, "s", rows[:-1]), stage("signals"), good_response_words=20)
    after = committed(sourced(again, "t", rows), before)
    columns = {(c.stage, c.column): dict(c.by_source) for c in account_between(before, after).columns}
    assert columns["signals", "quality"] == {"s": 19}


def test_a_row_that_its_publisher_repaired_is_told(tmp_path: Path) -> None:
    """It was left out, has a new id, and is kept now: the trainer sees a row more."""
    text = "Which of the lamps along the quay is lit at night when the last boat of the day has come in?"
    before = staged(dataset_of(tmp_path, {"s": [question(text, "", key="a"), lamp(1)]}), "rules")
    again = sourced(before, "s", [question(text, "The third.", key="b"), lamp(1)])
    found = account_between(before, committed(judged(again, stage("rules")), before))
    assert found.verdict.counts["edited_upstream"] == 1
    assert found.verdict.sentences == ("1 row that was left out was edited by its publisher, and is kept now.",)


def test_a_version_does_not_differ_from_itself(versions: tuple[Dataset, Dataset]) -> None:
    found = account_between(versions[1], versions[1])
    assert found.verdict.same
    assert found.verdict.bump is None
    assert found.verdict.sentences == ("Nothing differs.",)
    assert (found.settings, found.columns, found.edits, found.samples) == ((), (), (), {})
    assert all(t.before == t.after for t in found.transitions)
    assert all(d.statistic == 0 for d in found.drift)
