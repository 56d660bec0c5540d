"""Contracts of the stage `review`: decisions in the view, corrections as edits, and reviews carried over new texts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.diff.changes import compare
from curate.export import export
from curate.lineage import why
from curate.pipeline import apply_stage, run_recipe
from curate.quality.combine import weighable
from curate.review.agreement import read_agreement
from curate.review.pull import fetch, pull
from curate.review.responses import RESPONSES, ledger_of, read_ledger
from curate.review.stage import STAGE, review_stage, told_restored
from curate.stage import StageResult, run_stage
from curate.stages import stage
from curate.store import Store
from curate.summary import summarise
from curate.verify import verify
from curate.version import Commit, Draft
from schemas.config import NormalizeConfig, RulesConfig, SplitConfig
from schemas.dataset import Dataset
from schemas.manifest import StageEntry
from schemas.recipe import Recipe
from schemas.record import VERDICT_SCHEMA
from schemas.review_config import PullConfig, ReviewConfig
from schemas.stages import ANNOTATION_COLUMNS, before
from tests.curate.conftest import chat, make_dataset, run_on
from tests.curate.review.said import FakeReview, answer, keeps
from tests.rows import dataset_of, question, staged

ROWS = [question(f"What is {n} of the many things?", f"The answer to {n} is a good one.") for n in range(8)]


@pytest.fixture
def mix(tmp_path: Path) -> Dataset:
    return staged(dataset_of(tmp_path, {"s": ROWS[:5], "t": ROWS[5:]}, name="mix", shard_rows=3), "split")


def pulled(dataset: Dataset, review: FakeReview, **settings: Any) -> Dataset:
    done = pull(Store(dataset.root), dataset, review, PullConfig(**settings))
    return Dataset(done.commit.manifest, dataset.root)


def view(dataset: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    return dataset.scan(columns).collect().rows()


def reviewed(dataset: Dataset) -> FakeReview:
    """Row 0 kept, row 1 corrected, row 2 rejected, row 3 without majority, row 6 waiting."""
    review = FakeReview(min_submitted=1)
    review.add(dataset, 0, *keeps("alice", "bob"))
    review.add(dataset, 1, answer("alice", "fix", correction="A better answer.", rating=2, at=1))
    review.add(dataset, 2, answer("bob", "reject", issues=["flag:refusal"], at=2))
    review.add(dataset, 3, answer("alice", "keep"), answer("bob", "reject"))
    review.add(dataset, 6, answer("bob", "keep"), min_submitted=2)
    return review


def test_a_decision_is_a_column_a_rejection_and_an_edit(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    columns = ("override", "review_status", "kept", "reject_reason", "reject_detail", "reviewers", "corrected_by")
    assert view(after, *columns)[:5] == [
        ("keep", "decided", True, None, None, ["alice", "bob"], None),
        ("keep", "decided", True, None, None, ["alice"], ["alice"]),
        ("reject", "decided", False, "review:rejected", "by bob: flag:refusal", ["bob"], None),
        (None, "unresolved", True, None, None, ["alice", "bob"], None),
        (None, None, True, None, None, None, None),
    ]
    assert [m[-1]["content"] for (m,) in view(after, "messages")[:2]] == [
        "The answer to 0 is a good one.",
        "A better answer.",
    ]
    assert view(after, "rating", "labels", "agreement", "reviewed_at")[2] == (
        None,
        ["flag:refusal"],
        1.0,
        "2026-01-02T00:00:02.000000Z",
    )


def test_a_person_restores_a_row_that_a_stage_left_out_and_the_diff_tells_all_of_it(mix: Dataset) -> None:
    short = staged(dataset_of(mix.root, {"u": [question("Hi?", "N/A"), *ROWS[:3]]}, name="short"), "rules")
    short = staged(short, "split")
    assert view(short, "kept")[0] == (False,)
    review = FakeReview()
    review.add(short, 0, answer("alice", "keep"))
    review.add(short, 1, answer("alice", "reject"))
    review.add(short, 2, answer("alice", "fix", correction="Another."))
    after = pulled(short, review)
    words = compare(short, after).counts
    assert {word: n for word, n in words.items() if n} == {"edited": 1, "rejected": 1, "restored": 1}
    assert after.manifest.train_visible != short.manifest.train_visible
    assert verify(after, deep=True) == []
    assert summarise(after).rejected == {"review:rejected": 1}
    count = after.manifest.counts[-1]
    assert (count.stage, count.edited, count.rejected) == ("review", 1, {"review:rejected": 1})


MAIL = "jane.roe@acme-mail.org"


def restored(root: Path, action: str, rows: list[dict[str, Any]]) -> Dataset:
    """A dataset whose rows that the rules leave out were never looked through for personal data."""
    dataset = dataset_of(root, {"p": [*rows, *ROWS[:3]]}, name="p")
    return staged(staged(staged(dataset, "rules"), "pii", action=action), "split")


@pytest.mark.parametrize("action", ["redact", "reject"])
def test_a_restored_row_in_which_pii_never_looked_does_not_bring_personal_data_back(
    tmp_path: Path, action: str
) -> None:
    before = restored(tmp_path, action, [question(f"Write to {MAIL}", "N/A"), question("Say it?", "N/A")])
    assert view(before, "stage")[:2] == [("rules",), ("rules",)]
    review = FakeReview()
    review.add(before, 0, *keeps("alice", "bob"))
    review.add(before, 1, *keeps("alice", "bob"))
    done = pull(Store(before.root), before, review, PullConfig())
    after = Dataset(done.commit.manifest, before.root)
    assert view(after, "kept", "override", "review_status")[:2] == [
        (False, None, "unresolved"),
        (True, "keep", "decided"),
    ]
    [(why_not,)] = view(after, "detail_review")[:1]
    assert "by alice and bob, but nobody redacted its personal data: e-mail j…@a….org" in why_not
    assert MAIL not in str(view(after, "detail_review"))
    assert [row.why for row in done.tally.open] == [why_not]
    assert done.tally.restored == {"rule:placeholder_response": 1}
    assert verify(after, deep=True) == []


def test_where_pii_only_reports_a_person_restores_what_they_like(tmp_path: Path) -> None:
    before = restored(tmp_path, "report", [question(f"Write to {MAIL}", "N/A")])
    review = FakeReview()
    review.add(before, 0, answer("alice", "keep"))
    assert view(pulled(before, review), "kept", "override")[0] == (True, "keep")


def test_what_pii_rejected_before_their_eyes_people_may_restore(tmp_path: Path) -> None:
    """Also with a correction, unless that brings in something new."""
    rows = [question(f"Who has {MAIL}?", f"It is Jane {n}.") for n in range(3)]
    before = restored(tmp_path, "reject", rows)
    assert view(before, "reject_reason")[:3] == [("pii:email",)] * 3
    review = FakeReview()
    review.add(before, 0, answer("alice", "keep"))
    review.add(before, 1, answer("alice", "fix", correction="Jane Roe."))
    review.add(before, 2, answer("alice", "fix", correction="Jane Roe, or john.roe@acme-mail.org."))
    assert view(pulled(before, review), "kept", "override")[:3] == [(True, "keep"), (True, "keep"), (False, None)]


def test_a_correction_with_personal_data_is_not_applied_where_all_of_it_is_redacted(tmp_path: Path) -> None:
    before = restored(tmp_path, "redact", [question(f"Who is {MAIL}?", "It is Jane.")])
    review = FakeReview()
    review.add(before, 0, answer("alice", "fix", correction=f"Ask {MAIL}."))
    review.add(before, 1, answer("alice", "fix", correction="Ask nobody."))
    after = pulled(before, review)
    assert view(after, "kept", "review_status", "corrected_by")[:2] == [
        (True, "unresolved", None),
        (True, "decided", ["alice"]),
    ]
    assert MAIL not in str(view(after, "messages", "detail_review"))
    assert verify(after, deep=True) == []


def test_a_training_row_that_would_leak_stays_out_whatever_people_say(tmp_path: Path) -> None:
    """They cannot know what is in an evaluation split."""
    after = bridged(tmp_path)
    leaks = [i for i, (reason,) in enumerate(view(after, "reject_reason")) if reason == "leak:bridge"]
    assert leaks
    review = FakeReview()
    for row in leaks:
        review.add(after, row, answer("alice", "keep"))
    done = pulled(after, review)
    assert [view(done, "kept", "review_status")[row] for row in leaks] == [(False, "unresolved")] * len(leaks)
    assert "it would be a leak" in view(done, "detail_review")[leaks[0]][0]


def test_what_people_keep_makes_no_budget_larger(tmp_path: Path) -> None:
    """That a row is fit to learn from is no reason to take more rows than were asked for; its correction is applied."""
    rows = [question(f"What is number {n}?", f"It is {n}.") for n in range(10)]
    before = staged(staged(dataset_of(tmp_path, {"a": rows}, name="b"), "signals"), "select", top=0.5)
    out = [i for i, (reason,) in enumerate(view(before, "reject_reason")) if reason == "select:not_in_top"]
    assert len(out) == 5
    review = FakeReview()
    review.add(before, out[0], answer("alice", "keep"))
    review.add(before, out[1], answer("alice", "fix", correction="It is another one."))
    after = pulled(before, review)
    states = view(after, "kept", "reject_reason", "override", "review_status")
    assert [states[i] for i in out[:2]] == [(False, "select:not_in_top", None, "decided")] * 2
    assert [row[-1]["content"] for (row,) in view(after, "messages")][out[1]] == "It is another one."
    assert verify(after, deep=True) == []


def bridged(root: Path) -> Dataset:
    """A dataset in which a cluster found later joins a training row and a row of an evaluation split."""
    words = [f"Tell me of the {n} rivers that run to the sea in spring" for n in range(40)]
    first = staged(dataset_of(root, {"a": [question(text, f"River {text}.") for text in words]}, name="b"), "split")
    splits = [split for (split,) in view(first, "split")]
    train, test = splits.index("train"), splits.index("test")
    cluster = pl.DataFrame(
        {"cluster_id": ["c" if i in (train, test) else None for i in range(40)]}, schema={"cluster_id": pl.String}
    )
    schema = {**VERDICT_SCHEMA, **ANNOTATION_COLUMNS["dedup"]}
    missing = [pl.lit(None, dtype=t).alias(n) for n, t in schema.items() if n != "cluster_id"]
    file = Store(root).put(
        cluster.with_columns(missing).select(list(schema)), role="annotation", stage="dedup", source="a", shard=0
    )
    entry = StageEntry(name="dedup", version=1, config={}, reads="0" * 64, seconds=0)
    draft = Draft.of(first.manifest).with_stage(StageResult(entry, (file,)))
    return staged(Dataset(draft.manifest(seq=2), root), "split")


def test_the_pull_warns_of_restored_rows_that_hold_an_evaluation_or_that_no_later_stage_saw() -> None:
    found = list(told_restored({"contaminated:eval": 2, "custom:mine": 1, "rule:empty_response": 3, "select:quota": 4}))
    assert found[0] == "restored by people: 2 contaminated:eval, 1 custom:mine, 3 rule:empty_response, 4 select:quota"
    assert [line.split(":")[0] for line in found[1:]] == ["warning", "warning"]
    assert "2 restored rows hold items of an evaluation" in found[1]
    assert "never saw 4 of the restored rows" in found[2]
    assert list(told_restored({})) == []


def test_a_row_that_could_not_be_read_is_never_decided_on(store: Store) -> None:
    dataset = make_dataset(store, {"a": [{"messages": [], "broken": "ingest:no_messages"}, chat("a", "b")]})
    review = FakeReview()
    review.add(dataset, 0, answer("alice", "keep"))
    after, _ = run_on(store, dataset, review_stage(ledger_of(fetch(review).responses)))
    assert view(after, "kept", "override") == [(False, None), (True, None)]


def test_the_ledger_and_the_agreement_are_objects_of_the_version(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    ledger = read_ledger(after)
    assert ledger.schema == RESPONSES
    assert ledger.height == 7
    assert read_agreement(after).filter(pl.col("measure") == "alpha").height > 0
    assert {f.made_from for f in after.manifest.files_of("review") if f.role == "index"} == {"responses", "agreement"}


def test_law_the_stage_over_its_own_result_changes_nothing(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    again = run_stage(Store(mix.root), after, STAGE, ReviewConfig(), fresh=True)
    assert [f.sha256 for f in again.files] == [f.sha256 for f in after.manifest.files_of("review")]
    assert Draft.of(after.manifest).with_stage(again).manifest().id == after.manifest.id


def rerun(dataset: Dataset, name: str, config: object) -> tuple[Dataset, StageResult, Commit]:
    result, commit = apply_stage(Store(dataset.root), dataset, name, config)
    return Dataset(commit.manifest, dataset.root), result, commit


def test_another_stage_that_changes_nothing_leaves_the_version_as_it_is(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    _, result, commit = rerun(after, "split", SplitConfig())
    assert not commit.is_new
    assert result.notes[-1] == "review: rows that people reviewed: 2 kept, 1 corrected, 1 rejected, 1 unresolved"


def test_reviews_are_carried_over_new_stages_in_the_same_version(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    flagged, _, commit = rerun(after, "rules", RulesConfig())
    assert (commit.is_new, flagged.manifest.seq) == (True, after.manifest.seq + 1)
    columns = ("override", "review_status", "corrected_by", "content_hash", "kept")
    assert view(flagged, *columns) == view(after, *columns)
    assert flagged.stale() == ["split"]  # rules come before it; the review was applied again
    assert verify(flagged, deep=True) == []


def edited(tmp_path: Path) -> tuple[Dataset, Dataset]:
    """A dataset reviewed before normalize ran, which then edits row 1; row 0 stays as it was."""
    rows = [ROWS[0], question("Where is it?", "Here.  \r\n"), question("Who is it?", "Me.\r\n")]
    dataset = staged(dataset_of(tmp_path, {"s": rows}, name="mix"), "split")
    review = FakeReview()
    review.add(dataset, 0, answer("alice", "reject"))
    review.add(dataset, 1, answer("alice", "fix", correction="There."))
    review.add(dataset, 2, answer("alice", "reject"))
    before = pulled(dataset, review)
    return before, rerun(before, "normalize", NormalizeConfig())[0]


def test_a_decision_about_a_text_that_was_edited_since_is_stale_and_not_applied(tmp_path: Path) -> None:
    """Neither the correction covers the newer text, nor is the row left out for what another text said."""
    before, after = edited(tmp_path)
    assert [m[-1]["content"] for (m,) in view(before, "messages")][1] == "There."
    assert [m[-1]["content"] for (m,) in view(after, "messages")][1:] == ["Here.", "Me."]
    assert view(after, "override", "review_status", "kept") == [
        ("reject", "decided", False),
        (None, "stale", True),
        (None, "stale", True),
    ]
    assert verify(after, deep=True) == []


def test_a_decision_holds_again_when_the_text_is_again_what_was_reviewed(tmp_path: Path) -> None:
    """Nothing was lost while it was stale."""
    before, after = edited(tmp_path)
    again, _, _ = rerun(after, "normalize", NormalizeConfig(**dict.fromkeys(NormalizeConfig.model_fields, False)))
    columns = ("content_hash", "override", "review_status", "kept")
    assert view(again, *columns) == view(before, *columns)


def test_a_recipe_carries_reviews_in_its_one_version_and_says_so(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    recipe = Recipe.model_validate({"dataset": "mix", "signals": {}, "split": {}})
    store = Store(mix.root)
    done = run_recipe(store, recipe)
    assert done.commit.manifest.seq == after.manifest.seq + 1
    assert done.notes[-1].startswith("review: rows that people reviewed: 2 kept, 1 corrected")
    assert view(Dataset(done.commit.manifest, mix.root), "override") == view(after, "override")
    assert not run_recipe(store, recipe).commit.is_new


def test_a_draft_never_keeps_decisions_about_the_text_of_before(mix: Dataset) -> None:
    """Also where somebody forgets to carry them: the opinions go, the ledger stays."""
    after = pulled(mix, reviewed(mix))
    result = run_stage(Store(mix.root), after, stage("normalize"), NormalizeConfig())
    draft = Draft.of(after.manifest).with_stage(result)
    assert {f.role for f in draft.files if f.stage == "review"} == {"index"}


def test_rows_that_take_the_place_of_reviewed_ones_are_covered_by_nothing(mix: Dataset) -> None:
    """An upstream release: other texts under the same ids. What was said is there again with the texts."""
    before = pulled(mix, reviewed(mix))
    release = [*ROWS[:1], *(question(f"What is {n} now?", "Something else.") for n in range(4))]
    replaced = dataset_of(mix.root, {"s": release}, name="mix")
    assert "A better answer." not in str(view(replaced, "messages"))
    assert "review" in replaced.stale()
    carried = rerun(replaced, "split", SplitConfig())[0]
    assert [status for (status,) in view(carried, "review_status")][:4] == ["decided", "stale", "stale", "stale"]
    assert carried.stale() == []
    again = rerun(dataset_of(mix.root, {"s": ROWS[:5]}, name="mix", shard_rows=3), "split", SplitConfig())[0]
    columns = ("override", "review_status", "content_hash")
    assert view(again, *columns) == view(before, *columns)


def test_rows_that_are_added_leave_every_decision_as_it_is(mix: Dataset) -> None:
    before = pulled(mix, reviewed(mix))
    more = rerun(dataset_of(mix.root, {"new": ROWS[:2]}, name="mix"), "split", SplitConfig())[0]
    columns = ("id", "override", "review_status", "content_hash", "kept")
    assert [row for row in view(more, *columns) if row in view(before, *columns)] == view(before, *columns)
    assert verify(more, deep=True) == []


def test_a_version_that_nobody_reviewed_has_no_object_of_a_review(mix: Dataset) -> None:
    flagged, result, _ = rerun(mix, "rules", RulesConfig())
    assert flagged.manifest.stage("review") is None
    assert not flagged.manifest.files_of("review")
    assert not any(note.startswith("review") for note in result.notes)


def test_an_older_version_is_carried_with_its_own_ledger(mix: Dataset) -> None:
    """Not with what a later pull of the same rows brought."""
    first = pulled(mix, reviewed(mix))
    other = FakeReview()
    other.add(mix, 0, answer("carol", "reject", at=9))
    pulled(first, other)
    store = Store(mix.root)
    latest = store.latest("mix")
    _, commit = apply_stage(store, first, "split", SplitConfig(), latest=latest)
    assert commit.manifest.id == first.manifest.id


def test_a_reviewed_version_is_exported_as_corrected(mix: Dataset, tmp_path: Path) -> None:
    after = pulled(mix, reviewed(mix))
    export(after, "alpaca", tmp_path / "out", splits=None)
    written = "".join(path.read_text() for path in (tmp_path / "out").glob("*.json*"))
    assert "A better answer." in written
    assert "The answer to 1 is" not in written
    assert "The answer to 2 is" not in written


def test_why_tells_who_said_what_and_the_correction_with_its_author(mix: Dataset) -> None:
    after = pulled(mix, reviewed(mix))
    life = why(after, Store(mix.root), "s:2").to_json()
    told = [e for e in life["history"] if e["stage"] == "review"]
    assert [e["what"] for e in told] == [
        "alice, 2026-01-02 00:00:01 UTC: fix, rating 2",
        "edited by alice: The last answer replaced by one that a reviewer wrote.",
        "kept (corrected by alice)",
    ]
    assert told[0]["correction"] == "A better answer."
    assert ("added", "A better answer.") in told[1]["changes"]["messages[1] assistant"]
    rejected = [e.what for e in why(after, Store(mix.root), "s:3").history if e.stage == "review"]
    assert rejected == [
        "bob, 2026-01-02 00:00:02 UTC: reject; issues: flag:refusal",
        "rejected: People decided to leave the row out. (by bob: flag:refusal)",
    ]
    opened = [e["what"] for e in why(after, Store(mix.root), "s:4").to_json()["history"] if e["stage"] == "review"]
    assert opened[-1] == "unresolved (no majority: keep by alice, reject by bob)"


def test_why_tells_of_a_stale_response_that_it_was_about_an_earlier_text(tmp_path: Path) -> None:
    _, after = edited(tmp_path)
    told = [e.what for e in why(after, Store(tmp_path), "s:2").history if e.stage == "review"]
    assert told == [
        "alice, 2026-01-02 00:00:00 UTC: fix; of an earlier text",
        "stale (the text was edited since)",
    ]


def test_what_people_decided_orders_and_weighs_nothing() -> None:
    """The stages that choose rows come before it; a rating is no score."""
    after_all = set(ANNOTATION_COLUMNS["review"])
    assert not after_all & set(weighable())
    assert not after_all & {c for name in before("review") for c in ANNOTATION_COLUMNS[name]}


def test_law_the_size_of_shards_changes_no_decision(tmp_path: Path) -> None:
    found: list[tuple[list[tuple[Any, ...]], dict[str, Any]]] = []
    for rows in (1, 3, 1000):
        root = tmp_path / f"{rows}"
        plain = staged(dataset_of(root, {"s": ROWS[:5], "t": ROWS[5:]}, name="mix", shard_rows=rows), "split")
        done = pull(Store(root), plain, reviewed(plain), PullConfig())
        after = Dataset(done.commit.manifest, root)
        columns = ("id", "kept", "reject_detail", "messages", "content_hash", *ANNOTATION_COLUMNS["review"])
        found.append((view(after, *columns), done.tally.to_json()))
        assert verify(after, deep=True) == []
    assert found[0] == found[1] == found[2]


def hashes(folder: str) -> str:
    """Make a reviewed dataset in a new store; give the hashes of all objects, one per line."""
    dataset = staged(dataset_of(Path(folder), {"s": ROWS[:5], "t": ROWS[5:]}, name="mix", shard_rows=3), "split")
    flagged = rerun(pulled(dataset, reviewed(dataset)), "rules", RulesConfig())[0]
    return "\n".join(f"{f.stage} {f.role} {f.source} {f.shard} {f.sha256}" for f in flagged.manifest.files)


def test_law_threads_hash_seed_and_time_zone_change_no_byte(tmp_path: Path) -> None:
    script = "import sys; from tests.curate.review.test_stage import hashes; print(hashes(sys.argv[1]))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / f"{threads}")],
            cwd=Path(__file__).parents[3],
            env={"POLARS_MAX_THREADS": str(threads), "PYTHONHASHSEED": str(threads), "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for threads, zone in ((1, "Asia/Tokyo"), (2, "America/St_Johns"))
    ]
    assert printed[0] == printed[1] == hashes(str(tmp_path / "here"))
    assert "review overlay" in printed[0]
