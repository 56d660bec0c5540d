"""The score stage: every text is asked about once, what was said lasts, and the combined score is what it says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.quality.combine import combined, rank, weighable
from curate.quality.ledger import open_ledger
from curate.quality.score import STAGE, score_stage
from curate.quality.scorer import Scorer
from curate.signals import STAGE as SIGNALS
from curate.stage import StageResult, run_stage
from curate.store import Store
from schemas.config import ScoreConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, ConflictError, StoreError
from tests.curate.conftest import Apply, chat, make_dataset, run_on, view, with_stage
from tests.curate.quality.counting import CountingScorer, KilledError

ROOT = Path(__file__).parents[3]
JUDGED = ScoreConfig(judge="counting", weights={"judge": 1.0})
ROWS = [chat(f"question {i}", "answer" + "!" * i) for i in range(9)]


def scored(store: Store, dataset: Dataset, scorer: Scorer, config: ScoreConfig = JUDGED) -> tuple[Dataset, StageResult]:
    return run_on(store, dataset, score_stage([scorer]), config)


def test_the_scorers_columns_stand_beside_their_rows_and_nothing_is_rejected(store: Store, apply: Apply) -> None:
    rows = [*ROWS, chat("unreadable", "x", broken="ingest:unreadable")]
    after, _ = apply(make_dataset(store, {"s": rows}, shard_rows=4), score_stage([CountingScorer()]), JUDGED)
    found = view(after, "judge", "judge_error", "perplexity", "kept", "verdict_score")
    assert found["judge"].to_list() == [*(6.0 + i for i in range(9)), None]
    assert found["kept"].to_list() == [True] * 9 + [False]
    assert found["judge_error"].null_count() == found["perplexity"].null_count() == found["verdict_score"].null_count()


def test_a_text_that_stands_in_many_rows_and_shards_is_asked_about_once(store: Store) -> None:
    scorer = CountingScorer()
    rows = [chat("same", "same"), chat("other", "other"), chat("same", "same")]
    dataset = make_dataset(store, {"a": rows, "b": rows}, shard_rows=2)
    after, _ = scored(store, dataset, scorer)
    assert scorer.asked == {"same": 1, "other": 1}
    assert view(after, "judge")["judge"].to_list() == [4.0, 5.0, 4.0] * 2


def test_only_new_rows_are_asked_about_when_a_dataset_grows(store: Store) -> None:
    before, _ = scored(store, make_dataset(store, {"s": ROWS}), CountingScorer())
    grown = make_dataset(store, {"s": ROWS, "t": [chat("new", "new")]})
    again = CountingScorer()
    after, _ = scored(store, grown, again)
    assert again.asked == {"new": 1}
    assert set(view(before, "id", "judge").rows()) < set(view(after, "id", "judge").rows())


@pytest.mark.parametrize("memory", ["the version", "the store"])
def test_either_memory_alone_is_enough(store: Store, memory: str) -> None:
    """The index objects of the version, or the store's cache, which other datasets share."""
    dataset = make_dataset(store, {"s": ROWS})
    after, _ = scored(store, dataset, CountingScorer())
    if memory == "the version":
        for file in (store.root / "cache").iterdir():
            file.unlink()
        dataset = after
    again = CountingScorer()
    scored(store, dataset, again)
    assert again.asked.total() == 0


def test_another_key_is_another_ledger(store: Store) -> None:
    after, _ = scored(store, make_dataset(store, {"s": ROWS}), CountingScorer())
    other = CountingScorer(key="characters/2")
    scored(store, after, other)
    assert other.asked.total() == 9


def test_the_same_text_with_other_tools_is_another_text(store: Store) -> None:
    rows = [chat("a", "b"), chat("a", "b", tools='[{"name": "x"}]'), chat("a", "b", tools='[{"name": "y"}]')]
    for reads_tools, times in ((True, 3), (False, 1)):
        scorer = CountingScorer(key=str(reads_tools), reads_tools=reads_tools)
        after, _ = scored(store, make_dataset(store, {"s": rows}), scorer)
        assert scorer.asked == {"b": times}
        assert view(after, "judge")["judge"].to_list() == [1.0] * 3


@pytest.mark.parametrize("killed_after", [0, 2, 4, 5, 7])
def test_killed_anywhere_and_run_again_no_row_is_asked_about_twice(store: Store, killed_after: int) -> None:
    dataset = make_dataset(store, {"s": ROWS}, shard_rows=5)
    scorer = CountingScorer(killed_after=killed_after)
    with pytest.raises(KilledError):
        scored(store, dataset, scorer)
    assert scorer.asked.total() >= killed_after
    scorer.killed_after = None
    resumed, _ = scored(store, dataset, scorer)
    assert set(scorer.asked.values()) == {1}
    assert scorer.asked.total() == 9
    other = Store(store.root / "another")
    whole, _ = scored(other, make_dataset(other, {"s": ROWS}, shard_rows=5), CountingScorer())
    assert resumed.manifest.id == whole.manifest.id


def test_a_failure_that_may_heal_is_told_and_asked_again(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    first = CountingScorer(fails="answer!!!!")
    after, result = scored(store, dataset, first)
    assert any("4 scored, 0 known from before, 5 failed and are asked again" in note for note in result.notes)
    found = view(after, "judge", "judge_error", "score")
    assert found["judge"].null_count() == found["score"].null_count() == found["judge_error"].count() == 5
    second = CountingScorer()
    healed, _ = scored(store, after, second)
    assert second.asked.total() == 5
    assert view(healed, "judge")["judge"].null_count() == 0


def test_rows_left_over_by_a_cap_are_told_and_asked_in_the_next_run(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    after, result = scored(store, dataset, CountingScorer(capped_after=4))
    assert "judge (counting): texts: 4 scored, 0 known from before, 5 left for the next run" in result.notes
    assert view(after, "judge")["judge"].null_count() == 5
    again = CountingScorer()
    _, result = scored(store, after, again)
    assert again.asked.total() == 5
    assert "judge (counting): texts: 5 scored, 4 known from before" in result.notes


def test_a_text_that_a_cap_leaves_over_counts_once_however_many_shards_it_stands_in(store: Store) -> None:
    dataset = make_dataset(store, {"s": [chat("q", "x"), chat("q", "y"), chat("q", "z")] * 4}, shard_rows=3)
    _, result = scored(store, dataset, CountingScorer(capped_after=2))
    assert "judge (counting): texts: 2 scored, 0 known from before, 1 left for the next run" in result.notes


def test_one_damaged_object_of_the_ledger_costs_its_own_texts_alone_and_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.quality.ledger.FLUSH_ROWS", 2)
    dataset = make_dataset(store, {"s": ROWS})
    first = CountingScorer(killed_after=8)
    with pytest.raises(KilledError):
        scored(store, dataset, first)
    (listed,) = (store.root / "cache").iterdir()
    segments = json.loads(listed.read_text())["files"]
    assert len(segments) == 4
    damaged = store.root / "objects" / segments[1]["sha256"][:2] / f"{segments[1]['sha256']}.arrow"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    again = CountingScorer()
    _, result = scored(Store(store.root), dataset, again)
    assert again.asked.total() == 3
    assert any("damaged or gone: 1; texts of theirs are asked about again" in note for note in result.notes)


def test_a_run_longer_than_the_grace_period_keeps_its_lock(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    with open_ledger(store, dataset, CountingScorer()) as ledger:
        (lock,) = (store.root / "tmp").glob("*.lock")
        os.utime(lock, (0, 0))
        ledger.flush()
        store.remove(store.garbage())
        with pytest.raises(ConflictError):
            scored(store, dataset, CountingScorer())


def test_many_small_pieces_are_joined_and_none_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.quality.ledger.FLUSH_ROWS", 1)
    monkeypatch.setattr("curate.quality.ledger.SEGMENTS", 3)
    rows = [chat(f"q{i}", f"a{i}") for i in range(30)]
    dataset = make_dataset(store, {"s": rows})
    scored(store, dataset, CountingScorer())
    (listed,) = [p for p in (store.root / "cache").iterdir() if '"scorer"' in p.read_text()]
    assert listed.read_text().count('"sha256"') <= 4
    again = CountingScorer()
    scored(store, dataset, again)
    assert again.asked.total() == 0


def test_gc_keeps_scores_that_no_version_names_yet(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    with pytest.raises(KilledError):
        scored(store, dataset, CountingScorer(killed_after=4))
    store.remove(store.garbage())
    again = CountingScorer()
    scored(store, dataset, again)
    assert again.asked.total() == 5


def test_two_processes_do_not_ask_the_same_scorer_at_once(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    with open_ledger(store, dataset, CountingScorer()), pytest.raises(ConflictError, match="another process is asking"):
        scored(store, dataset, CountingScorer())
    with open_ledger(store, dataset, CountingScorer()):
        scored(store, dataset, CountingScorer(key="another"))


def test_a_store_that_cannot_be_written_is_one_line(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    (store.root / "tmp").rmdir()
    (store.root / "tmp").touch()
    with pytest.raises(StoreError, match="expected a place to write to"):
        scored(store, dataset, CountingScorer())


def test_the_manifest_names_the_scorer_and_the_weights(store: Store) -> None:
    config = ScoreConfig(judge="/home/somebody/counting", judge_concurrency=3, weights={"judge": 2.0})
    _, result = scored(store, make_dataset(store, {"s": ROWS}), CountingScorer(), config)
    recorded = result.entry.config
    assert recorded["scorers"] == {
        "judge": {"key": "characters/1", "model": "counting", "settings": {"key": "characters/1"}}
    }
    assert (recorded["judge"], recorded["weights"]) == ("counting", {"judge": 2.0})
    assert "judge_concurrency" not in recorded
    assert {f.made_from for f in result.files if f.role == "index"} == {"characters/1"}


def test_columns_that_go_because_their_scorer_is_not_named_are_told(store: Store) -> None:
    after, _ = scored(store, make_dataset(store, {"s": ROWS}), CountingScorer())
    later, result = run_on(store, after, STAGE, ScoreConfig())
    assert any("scores of judge (counting), this run leaves them out" in note for note in result.notes)
    assert view(later, "judge")["judge"].null_count() == 9


def test_a_scorer_may_reject_rows(store: Store) -> None:
    class Strict(CountingScorer):
        def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
            low = pl.when(pl.col("judge") < 8)
            return rows.select(
                *self.columns,
                low.then(pl.lit("duplicate:near")).alias("verdict"),
                low.then(pl.lit("low")).alias("detail"),
            )

    after, _ = scored(store, make_dataset(store, {"s": ROWS}), Strict())
    assert view(after, "kept")["kept"].to_list() == [False] * 2 + [True] * 7


# the combined score ---------------------------------------------------------------------------------------------------


def frame(**columns: Sequence[float | None]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float32))


def test_a_rank_is_0_for_the_lowest_and_1_for_the_highest_and_equals_share_theirs() -> None:
    assert frame(a=[5, 1, 5, 9]).select(rank("a"))["a"].to_list() == [0.5, 0.0, 0.5, 1.0]
    assert frame(a=[3, None]).select(rank("a"))["a"].to_list() == [0.5, None]


def test_the_score_is_the_weighted_mean_of_ranks_and_a_negative_weight_turns_one_round() -> None:
    table = frame(a=[1, 2, 3], b=[30, 10, 20])
    assert table.select(combined({"a": 3, "b": -1}))["score"].to_list() == [0.0, 0.625, 0.875]


def test_a_row_that_lacks_a_weighted_column_has_no_score() -> None:
    assert frame(a=[1, 2, None], b=[1, None, 3]).select(combined({"a": 1, "b": 1}))["score"].to_list() == [
        0,
        None,
        None,
    ]


values = st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float)), min_size=1, max_size=20)


@given(values, st.sampled_from([1.0, -2.0]))
def test_the_score_of_one_column_orders_rows_as_the_column_does(column: list[float | None], weight: float) -> None:
    found = frame(a=column).select("a", combined({"a": weight})).drop_nulls("a")
    assert found["score"].is_between(0, 1).all()
    for a, score in found.iter_rows():
        for b, other in found.iter_rows():
            assert (a < b) == ((score < other) if weight > 0 else (score > other))


def test_weights_alone_score_by_what_signals_measured(store: Store, apply: Apply) -> None:
    dataset, _ = apply(make_dataset(store, {"s": ROWS}), SIGNALS)
    after, _ = apply(dataset, STAGE, ScoreConfig(weights="quality=1,response_words=-0.5"))  # pyright: ignore[reportArgumentType] # as typed by a person
    found = view(after, "quality", "response_words", "score")
    expected = found.select(combined({"quality": 1, "response_words": -0.5}))
    assert found["score"].to_list() == expected["score"].to_list()
    assert found["score"].null_count() == 0


def test_without_signals_and_without_weights_there_is_no_score_and_a_note_says_so(store: Store, apply: Apply) -> None:
    after, result = apply(make_dataset(store, {"s": ROWS}), STAGE)
    assert view(after, "score")["score"].null_count() == 9
    assert any("no combined score" in note for note in result.notes)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"qualty": 1.0}, r"qualty is no column of numbers; expected some of prompt_words.*quality.*ifd"),
        ({"judge_reason": 1.0}, "judge_reason is no column of numbers"),
        ({"judge": 1.0}, "judge, which no scorer of this run gives. Name the scorer in the same command"),
        ({"quality": 1.0}, "quality, but signals has not run. Run sft curate signals first"),
    ],
)
def test_a_weight_without_its_column_is_an_error_that_says_what_to_do(
    store: Store, weights: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_stage(store, make_dataset(store, {"s": ROWS}), STAGE, ScoreConfig(weights=weights))


def test_a_setting_that_asks_for_a_scorer_is_not_passed_over(store: Store) -> None:
    with pytest.raises(ConfigError, match="no scorer was made"):
        run_stage(store, make_dataset(store, {"s": ROWS}), STAGE, ScoreConfig(difficulty="gpt2"))


@pytest.mark.parametrize("weights", ["", "quality", "quality=", "=1", "quality=x", "quality=0", "quality=inf", {}])
def test_weights_that_mean_nothing_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="weights"):
        ScoreConfig(weights=weights)


def test_every_column_of_numbers_can_have_a_weight() -> None:
    assert {"quality", "response_words", "perplexity", "ifd", "judge", "diversity"} <= weighable().keys()
    assert not {"score", "judge_reason", "nearest"} & weighable().keys()


def test_an_empty_dataset_has_no_scores_and_no_failure(store: Store) -> None:
    dataset = make_dataset(store, {"s": []})
    assert with_stage(dataset, run_stage(store, dataset, STAGE, ScoreConfig())).rows == 0


# killed ---------------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from pathlib import Path
from curate.quality import ledger
from curate.quality.score import score_stage
from curate.stage import run_stage
from curate.store import Store
from schemas.config import ScoreConfig
from tests.curate.conftest import chat, make_dataset
from tests.curate.quality.counting import CountingScorer

ledger.FLUSH_ROWS = 1
root, log, pieces = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class Logging(CountingScorer):
    def score(self, rows):
        for i, piece in enumerate(super().score(rows)):
            if i == pieces:
                os.kill(os.getpid(), signal.SIGKILL)
            with log.open("a") as file:
                file.writelines(f"{text}\\n" for text in piece["content_hash"])
            yield piece

store = Store(root)
dataset = make_dataset(store, {"s": [chat(f"question {i}", f"answer {i}") for i in range(9)]})
run_stage(store, dataset, score_stage([Logging()]), ScoreConfig(judge="counting", weights={"judge": 1.0}))
"""


def test_a_process_killed_by_the_system_loses_nothing_that_was_written(tmp_path: Path) -> None:
    """SIGKILL leaves no chance to tidy up; the next process goes on where the last one was."""
    log = tmp_path / "asked"
    codes: list[int] = []
    for pieces in (2, 1, 99):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "store"), str(log), str(pieces)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        codes.append(done.returncode)
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    asked = log.read_text().split()
    assert len(asked) == len(set(asked)) == 9
