"""Contracts of the preview: it tells what the stage does, shows what was compared, and writes nothing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curate.dedup import STAGE
from curate.dedup.preview import Pair, Preview, likeness, preview
from curate.normalize import STAGE as NORMALIZE
from curate.store import Store
from schemas.config import DedupConfig
from schemas.dataset import Dataset
from schemas.record import lineage_id
from tests.curate.conftest import chat, make_dataset, run_on, turns, view

Row = dict[str, Any]
LONG = [f"word{i}" for i in range(60)]


def changed(words: int, tail: str = "x") -> str:
    """LONG with so many words at its end exchanged: each costs one of 56 5-grams."""
    return " ".join([*LONG[: len(LONG) - words], *(f"{tail}{i}" for i in range(words))])


@pytest.fixture
def mixed(store: Store) -> Dataset:
    """Near and exact duplicates in two sources, near misses, conflicts and equal answers."""
    a = [
        chat("q?", changed(0)),
        chat("q?", changed(3)),
        chat("q?", changed(9)),
        chat("Q?", changed(0)),
        chat("Which of the lamps is lit?", "The left one."),
        chat("Which of the lamps is lit?", " ".join(f"lamp{i}" for i in range(12))),
        chat("Which of them is out?", " ".join(f"lamp{i}" for i in range(12))),
    ]
    about = changed(0, "z") + " z " + changed(60, "z")
    b = [
        chat("q?", changed(6)),
        chat(changed(60, "q"), f"It is {changed(20, 'q')}", context=about),
        chat(changed(60, "q"), f"It is {changed(25, 'q')}", context=about),
    ]
    return make_dataset(store, {"a": a, "b": b}, shard_rows=4)


def files(root: Path) -> dict[str, int]:
    """All files of a store but the log of what was checked, with their sizes."""
    return {str(p): p.stat().st_size for p in root.rglob("*") if p.is_file() and p.name != "checked.log"}


def places(pairs: tuple[Pair, ...]) -> list[tuple[str, int, str, int]]:
    return [(p.of.source, p.of.source_row, p.row.source, p.row.source_row) for p in pairs]


def test_it_counts_what_the_stage_does(mixed: Dataset, store: Store) -> None:
    seen = preview(mixed, DedupConfig())
    after, result = run_on(store, mixed, STAGE)
    assert (seen.said,) == result.notes
    done = view(after, "source", "verdict_dedup").rows()
    for source, count in seen.by_source.items():
        of = [verdict for name, verdict in done if name == source]
        assert count.rejected == dict(Counter(filter(None, of)))
        assert (count.rows, count.kept) == (len(of), of.count(None))
    assert sum(cluster.size for cluster in seen.clusters) == len([v for _, v in done if v])


def test_it_writes_nothing(mixed: Dataset, store: Store) -> None:
    before = files(store.root)
    preview(mixed, DedupConfig())
    assert files(store.root) == before


def test_it_is_the_same_every_time_and_is_plain_json(mixed: Dataset) -> None:
    first = preview(mixed, DedupConfig())
    assert preview(mixed, DedupConfig()) == first
    assert json.loads(json.dumps(first.to_json()))["clusters"][0]["kept"]["turns"][0]["role"] == "user"


def test_the_similarities_are_those_of_the_search(mixed: Dataset, store: Store) -> None:
    """Computed anew from the texts that are shown, the first one is what the stage writes down."""
    after, _ = run_on(store, mixed, STAGE)
    told = dict(view(after, "id", "jaccard").rows())
    pairs = [pair for cluster in preview(mixed, DedupConfig()).clusters for pair in cluster.pairs]
    assert len(pairs) == 3
    for pair in pairs:
        assert pair.likeness.record == pytest.approx(told[pair.row.id])


def test_the_parts_are_compared_apart(store: Store) -> None:
    """In 1-grams: 8 words of material and one more of each part are the same, one of each part is not."""
    system = ("system", "s1 s2 s3 s4 s5 s6 s7 s8")
    rows = [turns(system, ("user", f"u1 {x}1"), ("assistant", f"a1 {x}2")) for x in "pq"]
    dataset = make_dataset(store, {"a": rows})
    config = DedupConfig(threshold=0.7, ngram=1, compare="record")
    (cluster,) = preview(dataset, config).clusters
    (pair,) = cluster.pairs
    assert pair.likeness.record == pytest.approx(10 / 14)
    assert pair.likeness.exchange == pytest.approx(2 / 6)
    assert pair.likeness.answer == pytest.approx(1 / 3)
    assert likeness(pair.row, pair.row, 1).answer == 1


def test_a_cluster_shows_the_row_that_stays_and_its_least_alike_first(mixed: Dataset) -> None:
    (cluster,) = preview(mixed, DedupConfig()).clusters
    assert (cluster.size, cluster.kept.turns[1].text) == (3, changed(0))
    levels = [pair.likeness.record for pair in cluster.pairs]
    assert levels == sorted(levels)
    assert [pair.exact for pair in cluster.pairs] == [False, False, True]
    row = cluster.pairs[0].row
    assert (row.source, row.source_file, row.source_row) == ("b", "b.jsonl", 0)
    assert row.id == lineage_id("b", "0")


def test_the_largest_clusters_come_first_and_only_so_many(store: Store) -> None:
    sizes = (2, 4, 3)
    rows = [chat(f"q{c}?", f"{changed(60, f'c{c}x')} {i}") for c, n in enumerate(sizes) for i in range(n)]
    seen = preview(make_dataset(store, {"a": rows}), DedupConfig(), clusters=2)
    assert [cluster.size for cluster in seen.clusters] == [3, 2]
    assert [len(cluster.pairs) for cluster in seen.clusters] == [3, 2]


def test_samples_lie_around_the_threshold(store: Store) -> None:
    """56 n-grams, of which 3, 6, 7 and 9 differ: 0.90, 0.81, 0.78 and 0.72; the nearest to 0.8 come first."""
    rows: list[Row] = []
    for q, lost in enumerate((3, 6, 7, 9)):
        words = [f"q{q}w{i}" for i in range(60)]
        rows.append(chat("", " ".join(words)))
        rows.append(chat("", " ".join([*words[: 60 - lost], *"abcdefghij"[:lost]])))
    seen = preview(make_dataset(store, {"a": rows}), DedupConfig())
    going = [pair.likeness.record for pair in seen.going]
    staying = [pair.likeness.record for pair in seen.staying]
    assert len(going) == len(staying) == 2
    assert 0.8 <= going[0] < going[1]
    assert 0.8 > staying[0] > staying[1]
    assert len(preview(make_dataset(store, {"a": rows}), DedupConfig(), samples=1).going) == 1


def test_samples_name_a_kept_row_once(store: Store) -> None:
    """One family of look-alikes does not stand for all."""
    rows = [chat("q?", f"{changed(0)} {i}") for i in range(9)] + [chat("p?", changed(60, x)) for x in ("y", "y")]
    rows.append(chat("p?", changed(60, "y") + " tail"))
    seen = preview(make_dataset(store, {"a": rows}), DedupConfig())
    assert len(seen.going) == len({pair.of.id for pair in seen.going}) == 2


def test_pairs_that_are_alike_as_records_alone_are_shown_as_rows_that_stay(mixed: Dataset) -> None:
    (pair,) = preview(mixed, DedupConfig()).parted
    assert {pair.of.source_row, pair.row.source_row} == {1, 2}
    assert pair.likeness.record >= 0.8 > pair.likeness.answer
    assert [turn.role for turn in pair.row.turns] == ["user", "context", "assistant"]


def test_conflicts_and_equal_answers_are_shown_with_their_rows(mixed: Dataset) -> None:
    seen = preview(mixed, DedupConfig())
    (conflict,) = [g for g in seen.conflicts if "lamps" in g.first.turns[0].text]
    assert {conflict.first.source_row, conflict.others[0].source_row} == {4, 5}
    (answer,) = seen.answers
    assert {answer.first.source_row, answer.others[0].source_row} == {5, 6}
    assert (conflict.size, answer.size) == (1, 1)


def test_texts_are_those_that_dedup_compares(store: Store) -> None:
    """After normalize, whose edits lie in overlays, and before dedup's own verdict."""
    rows = [chat(" q? ", changed(0) + "  "), chat("q?", changed(0)), chat("Else?", "\x07Nothing.")]
    edited, _ = run_on(store, make_dataset(store, {"a": rows}, shard_rows=2), NORMALIZE)
    after, _ = run_on(store, edited, STAGE)
    (cluster,) = preview(after, DedupConfig()).clusters
    assert cluster.kept.turns == cluster.pairs[0].row.turns
    assert cluster.kept.turns[0].text == "q?"


def test_the_recall_is_told_at_the_threshold_and_around_it(mixed: Dataset) -> None:
    config = DedupConfig(threshold=0.85, recall=0.9)
    seen = preview(mixed, config)
    told = {point.similarity: point.probability for point in seen.recall}
    assert list(told) == sorted(told)
    assert list(told.values()) == sorted(told.values())
    assert told[0.85] >= 0.9
    assert told[0.6] < 0.9
    assert told[1.0] == 1
    assert told[0.6] == pytest.approx(1 - (1 - 0.6**seen.band_rows) ** seen.bands)


def test_what_the_guard_would_say_is_told_and_stops_nothing(mixed: Dataset) -> None:
    assert preview(mixed, DedupConfig()).stopped is None
    stopped = preview(mixed, DedupConfig(guard_rows=2, max_source_loss=0.2)).stopped
    assert stopped is not None
    assert "source a would lose 2 of 7 rows" in stopped


def test_it_reports_as_many_rows_as_there_are(mixed: Dataset) -> None:
    done: list[int] = []
    preview(mixed, DedupConfig(), done.append)
    assert sum(done) == mixed.rows


def test_where_nothing_is_alike_there_is_nothing_to_show(store: Store) -> None:
    seen: Preview = preview(make_dataset(store, {"a": [chat("Why?", "So."), chat("Who?", "Me.")]}), DedupConfig())
    assert (seen.clusters, seen.going, seen.staying, seen.parted, seen.conflicts, seen.answers) == ((),) * 6
    assert seen.by_source["a"].kept == 2


@pytest.mark.realdata
def test_on_real_rows_every_pair_that_is_shown_is_what_its_heading_says(
    store: Store, real_rows: dict[str, list[Row]]
) -> None:
    threshold = 0.6
    seen = preview(
        make_dataset(store, {"dolly": real_rows["dolly"]}), DedupConfig(threshold=threshold), clusters=50, samples=50
    )
    near = [pair for cluster in seen.clusters for pair in cluster.pairs] + list(seen.going)
    assert near
    assert seen.staying
    assert seen.parted
    assert all(min(vars(pair.likeness).values()) >= threshold for pair in near)
    assert all(pair.likeness.record < threshold for pair in seen.staying)
    for pair in seen.parted:
        assert pair.likeness.record >= threshold > min(pair.likeness.exchange, pair.likeness.answer)
