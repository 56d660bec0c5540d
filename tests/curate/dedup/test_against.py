"""Contracts of --against: what another dataset holds is left out, each row by name; the other one stays as it is."""

from typing import Any

import pytest

from curate.dedup import STAGE
from curate.dedup.against import pin
from curate.dedup.guard import BlastRadiusError
from curate.dedup.preview import preview, stopped_by
from curate.lineage import why
from curate.normalize import STAGE as NORMALIZE
from curate.rules import STAGE as RULES
from curate.stage import run_stage
from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, CorruptObjectError, UnknownReferenceError
from schemas.record import lineage_id
from tests.curate.conftest import Apply, chat, make_dataset, run_on, turns, view

Row = dict[str, Any]
LONG = " ".join(f"word{i}" for i in range(60))
OTHER = " ".join(f"other{i}" for i in range(60))
AGAINST = DedupConfig(against="eval")


def commit(store: Store, dataset: Dataset, name: str = "eval", seq: int = 1) -> Dataset:
    manifest = dataset.manifest.model_copy(update={"name": name, "seq": seq})
    store.commit(manifest)
    return Dataset(manifest, store.root)


def compared(apply: Apply, store: Store, own: list[Row], other: list[Row], **settings: Any) -> list[str | None]:
    """Give the verdicts on `own` where another dataset holds `other`."""
    commit(store, make_dataset(store, {"b": other}))
    config = DedupConfig(against="eval", **settings)
    after, _ = apply(make_dataset(store, {"a": own}), STAGE, config)
    return view(after, "verdict_dedup")["verdict_dedup"].to_list()


def test_rows_of_the_other_dataset_go_and_name_the_row_there(store: Store, apply: Apply) -> None:
    commit(store, make_dataset(store, {"b": [chat("Unlike?", OTHER), chat("q?", LONG)]}))
    own = [chat("Q?", LONG), chat("q?", LONG + " tail"), chat("Why?", "Because of the rain.")]
    after, result = apply(make_dataset(store, {"a": own}), STAGE, AGAINST)
    frame = view(after, "verdict_dedup", "duplicate_of", "detail_dedup", "jaccard", "cluster_id", "kept")
    twin = lineage_id("b", "1")
    assert frame["verdict_dedup"].to_list() == ["overlap:exact", "overlap:near", None]
    assert frame["duplicate_of"].to_list() == [twin, twin, None]
    assert frame["detail_dedup"][0] == f"the same as {twin} (b b.jsonl:1 of eval@1)"
    assert frame["detail_dedup"][1] == f"0.983 with {twin} (b b.jsonl:1 of eval@1)"
    assert frame["jaccard"][1] == pytest.approx(58 / 59)
    assert frame["cluster_id"].null_count() == 3  # a cluster has its kept row in the dataset
    assert "left out as in the other dataset already: 2" in result.notes[0]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (chat("q?", LONG + " tail"), chat("q?", LONG)),  # the longer answer would stay within a dataset
        (chat("q?", LONG, context=None), chat("q?", LONG, context="None")),  # as would the one with fewer flags
    ],
)
def test_the_other_dataset_stays_whatever_its_rows_are_like(own: Row, other: Row, store: Store, apply: Apply) -> None:
    flagged, _ = run_on(store, make_dataset(store, {"b": [other]}), RULES)
    there = commit(store, flagged)
    config = DedupConfig(against="eval", source_priority=("a",))
    after, _ = apply(make_dataset(store, {"a": [own]}), STAGE, config)
    assert view(after, "verdict_dedup")["verdict_dedup"].to_list() == ["overlap:near"]
    assert view(there, "kept")["kept"].to_list() == [True]


def test_duplicates_inside_the_other_dataset_do_no_harm(store: Store, apply: Apply) -> None:
    other = [chat("q?", LONG), chat("q?", LONG), chat("q?", LONG + " tail")]
    own = [chat("q?", LONG), chat("Unlike?", OTHER)]
    assert compared(apply, store, own, other) == ["overlap:exact", None]


def test_the_datasets_own_duplicates_are_found_as_ever(store: Store, apply: Apply) -> None:
    own = [chat("q?", LONG), chat("Unlike?", OTHER), chat("Unlike?", OTHER + " tail")]
    assert compared(apply, store, own, [chat("q?", LONG)]) == ["overlap:exact", "duplicate:near", None]


def test_rejected_rows_of_the_other_dataset_count_for_nothing(store: Store, apply: Apply) -> None:
    other = [chat("q?", LONG, broken="ingest:wrong_type"), chat("Unlike?", OTHER)]
    assert compared(apply, store, [chat("q?", LONG)], other) == [None]


def test_rows_that_the_other_dataset_left_out_itself_count_for_nothing(store: Store, apply: Apply) -> None:
    repeats = chat(LONG, LONG)  # rule:response_equals_prompt
    judged, _ = run_on(store, make_dataset(store, {"b": [repeats, chat("Unlike?", OTHER)]}), RULES)
    assert view(judged, "kept")["kept"].to_list() == [False, True]
    commit(store, judged)
    after, _ = apply(make_dataset(store, {"a": [repeats]}), STAGE, AGAINST)
    assert view(after, "kept")["kept"].to_list() == [True]


def test_edited_rows_of_the_other_dataset_count_as_edited(store: Store, apply: Apply) -> None:
    """A bell inside every word parts it in two, until normalize takes it out."""
    spoilt = chat("q?", LONG.replace("word", "wo\x07rd"))
    raw = make_dataset(store, {"b": [spoilt]})
    commit(store, raw)
    own = make_dataset(store, {"a": [chat("q?", LONG)]})
    after, _ = apply(own, STAGE, AGAINST)
    assert view(after, "kept")["kept"].to_list() == [True]
    edited, _ = run_on(store, raw, NORMALIZE)
    commit(store, edited, seq=2)
    after, _ = apply(own, STAGE, AGAINST)
    assert view(after, "verdict_dedup")["verdict_dedup"].to_list() == ["overlap:exact"]
    (pair,) = preview(own, AGAINST).clusters[0].pairs
    assert (pair.of.turns[1].text, pair.of.version) == (LONG, "eval@2")


@pytest.mark.parametrize("against", ["test", "test@1", "test@2"])
def test_the_dataset_itself_is_refused_in_any_version(against: str, store: Store) -> None:
    dataset = make_dataset(store, {"a": [chat("q?", LONG)]})
    commit(store, dataset, "test")
    commit(store, make_dataset(store, {"a": [chat("q?", OTHER)]}), "test", seq=2)
    with pytest.raises(ConfigError, match="the dataset itself; expected another one"):
        run_on(store, dataset, STAGE, DedupConfig(against=against))


def test_an_unknown_reference_names_the_datasets_that_there_are(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [chat("q?", LONG)]}))
    dataset = make_dataset(store, {"a": [chat("q?", LONG)]})
    with pytest.raises(UnknownReferenceError, match=r"evil.*\(eval\)"):
        run_on(store, dataset, STAGE, DedupConfig(against="evil"))
    with pytest.raises(UnknownReferenceError, match="no version '7'"):
        run_on(store, dataset, STAGE, DedupConfig(against="eval@7"))


@pytest.mark.parametrize("named", ["eval", "eval@1", "eval@golden"])
def test_the_settings_name_the_version_exactly_and_go_on_naming_it(named: str, store: Store) -> None:
    """As recorded they lead to the same version, though the other dataset has a later one; run again, the same id."""
    there = commit(store, make_dataset(store, {"b": [chat("q?", LONG)]}))
    store.tag("eval", "golden", 1)
    dataset = make_dataset(store, {"a": [chat("q?", LONG)]})
    after, result = run_on(store, dataset, STAGE, DedupConfig(against=named))
    pinned = result.entry.config["against"]
    assert pinned == f"{'eval@1' if named == 'eval' else named}:{there.manifest.id[:16]}"
    commit(store, make_dataset(store, {"b": [chat("q?", OTHER)]}), seq=2)
    again, _ = run_on(store, after, STAGE, DedupConfig.model_validate(result.entry.config))
    assert again.manifest.id == after.manifest.id


def test_a_pinned_version_that_is_another_one_here_is_an_error(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [chat("q?", LONG)]}))
    dataset = make_dataset(store, {"a": [chat("q?", LONG)]})
    with pytest.raises(CorruptObjectError, match="the version that the settings name"):
        pin(dataset, DedupConfig(against=f"eval@1:{'0' * 16}"))


def test_a_later_version_of_the_other_dataset_is_not_answered_from_the_cache(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [chat("Unlike?", OTHER)]}))
    dataset = make_dataset(store, {"a": [chat("q?", LONG)]})
    first = run_stage(store, dataset, STAGE, AGAINST)
    assert run_stage(store, dataset, STAGE, AGAINST).cached
    commit(store, make_dataset(store, {"b": [chat("q?", LONG)]}), seq=2)
    second = run_stage(store, dataset, STAGE, AGAINST)
    assert not second.cached
    assert second.entry.config != first.entry.config


def test_why_shows_the_row_there_and_names_its_version(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [chat("q?", LONG), chat("Unlike?", OTHER)]}))
    own = [chat("q?", LONG + " tail"), chat("Who?", "I did."), chat("who?", "I did.")]
    after, _ = run_on(store, make_dataset(store, {"a": own}), STAGE, AGAINST)
    commit(store, make_dataset(store, {"b": [chat("Later?", "Much later.")]}), seq=2)
    event = why(after, store, "a:0").history[-1]
    assert event.facts["against"] == event.facts["match"]["dataset"] == "eval@1"
    assert event.facts["match"]["messages"][1]["content"] == LONG
    assert event.facts["jaccard"] == pytest.approx(58 / 59)
    gone = next(row for row in ("a:1", "a:2") if not why(after, store, row).kept)
    inside = why(after, store, gone).history[-1].facts
    assert "dataset" not in inside["match"]
    assert inside["match"]["source"] == "a"


def test_why_goes_on_where_the_other_dataset_is_gone(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [chat("q?", LONG)]}))
    after, _ = run_on(store, make_dataset(store, {"a": [chat("q?", LONG)]}), STAGE, AGAINST)
    (store.root / "datasets/eval/versions/000001.json").unlink()
    facts = why(after, store, "a:0").history[-1].facts
    assert "eval@1" in facts["detail"]
    assert "not in the store" in facts["match_not_found"]
    assert "match" not in facts


def test_the_guard_counts_overlaps_and_shows_the_row_there(store: Store) -> None:
    commit(store, make_dataset(store, {"b": [turns(("user", "q?"), ("assistant", LONG))]}))
    dataset = make_dataset(store, {"a": [chat("q?", f"{LONG} {i}") for i in range(3)]})
    with pytest.raises(BlastRadiusError, match="source a would lose 3 of 3 rows") as stopped:
        run_on(store, dataset, STAGE, DedupConfig(against="eval", guard_rows=1))
    (cluster,) = stopped_by(stopped.value, store.root)
    assert (cluster.size, cluster.kept.version, cluster.kept.turns[1].text) == (3, "eval@1", LONG)
