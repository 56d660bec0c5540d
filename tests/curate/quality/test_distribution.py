"""What is shown of scores: counts, quartiles, the rows at the ends, and how columns go together."""

import pytest

from curate.quality.distribution import Correlation, describe, matrix
from curate.quality.score import score_stage
from curate.store import Store
from schemas.config import ScoreConfig
from tests.curate.conftest import chat, make_dataset, run_on
from tests.curate.quality.counting import CountingScorer


def test_a_column_is_described_by_the_rows_that_have_it(store: Store) -> None:
    """Answers of 6 to 10 characters; one that fails, and one that is not judged."""
    rows = [chat(f"question {i}", "answer" + "!" * i) for i in range(5)]
    rows += [chat("boo", "boo?"), chat("unreadable", "x", broken="ingest:unreadable")]
    config = ScoreConfig(judge="counting", weights={"judge": -1.0})
    after, _ = run_on(store, make_dataset(store, {"s": rows}), score_stage([CountingScorer(fails="boo")]), config)
    found = describe(after, ["judge"])
    judge, score = found.distributions
    ids = after.scan(["id"]).collect()["id"].to_list()
    assert (judge.column, judge.rows, judge.without) == ("judge", 5, 1)
    assert (judge.mean, judge.lowest, judge.quartiles, judge.highest) == (8.0, 6.0, (7.0, 8.0, 9.0), 10.0)
    assert (judge.lowest_row, judge.highest_row) == (ids[0], ids[4])
    assert (score.column, score.lowest_row, score.highest_row) == ("score", ids[4], ids[0])
    (pair,) = found.correlations
    assert (pair.columns, pair.rows, pair.spearman) == (("judge", "score"), 5, pytest.approx(-1.0))
    assert found.to_json()["columns"]["judge"]["quartiles"] == (7.0, 8.0, 9.0)


def test_a_column_that_does_not_vary_has_no_correlation(store: Store) -> None:
    rows = [chat(f"question {i}", "answer") for i in range(3)]
    config = ScoreConfig(judge="counting", weights={"judge": 1.0})
    after, _ = run_on(store, make_dataset(store, {"s": rows}), score_stage([CountingScorer()]), config)
    found = describe(after)
    assert [c.spearman for c in found.correlations] == [None]
    assert list(matrix(found.correlations)) == [("score", "-")]


def test_without_scores_there_is_nothing_to_describe(store: Store) -> None:
    found = describe(make_dataset(store, {"s": [chat("a", "b")]}))
    assert (found.distributions, found.correlations) == ((), ())


def test_the_matrix_has_a_line_for_each_column_after_the_first() -> None:
    pairs = {("a", "b"): 0.5, ("a", "c"): -1.0, ("b", "c"): None}
    lines = list(matrix([Correlation(names, 9, value) for names, value in pairs.items()]))
    assert lines == [("b", "+0.50", ""), ("c", "-1.00", "-")]
