"""Learning from reviews: what counts as a lesson, what is measured, and what the version keeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from curate.quality.score import STAGE, score_stage
from curate.review.auc import auc, compare
from curate.review.features import MEASURES, WIDTH, matrix, measure, scales
from curate.review.learn import (
    GROUPS,
    LEAST_OF_EACH,
    LEAST_ROWS,
    ReviewLearner,
    _calibrate,
    group_rows,
    learn,
    read_reviews,
    report,
    verdicts,
)
from curate.review.model import Model
from curate.review.responses import LEDGER, RESPONSES
from curate.stage import StageResult
from curate.store import Store
from schemas.config import ScoreConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.stages import ANNOTATION_COLUMNS
from tests.curate.conftest import Apply, chat, make_dataset, run_on, view
from tests.curate.review.simulated import exchanges, reviews_of, spoilt

ASKED = ScoreConfig(from_reviews=True, weights={"learned": 1.0})
POOL = spoilt(exchanges(160, 5), "careless", 0.4, 5)
ROWS: list[dict[str, Any]] = POOL.rows.select("messages", "context").to_dicts()


def response(row: dict[str, Any], verdict: str | None, reviewer: str = "ann", **more: Any) -> dict[str, Any]:
    facts = {"id": row["id"], "content_hash": row["content_hash"], "reviewer": reviewer, "status": "submitted"}
    return {**dict.fromkeys(RESPONSES), **facts, "verdict": verdict, "updated_at": "2026-01-01T00:00:00Z", **more}


def reviewed(store: Store, dataset: Dataset, responses: Sequence[dict[str, Any]]) -> Dataset:
    """Give the dataset with a ledger of responses, as a pull leaves it."""
    file = store.put(pl.DataFrame(responses, schema=RESPONSES), role="index", stage="review", made_from=LEDGER)
    others = [f for f in dataset.manifest.files if (f.stage, f.role) != ("review", "index")]
    files = tuple(sorted([*others, file], key=lambda f: f.order))
    return Dataset(dataset.manifest.model_copy(update={"files": files}), dataset.root)


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return view(dataset, "id", "content_hash").to_dicts()


def truthful(dataset: Dataset, rows: int = 120) -> list[dict[str, Any]]:
    """Responses by somebody who follows the hidden rule; what is spoilt is to be fixed or rejected, in turn."""
    said = [("keep" if good else ("fix", "reject")[i % 2]) for i, good in enumerate(POOL.good)]
    return [response(row, verdict) for row, verdict in zip(rows_of(dataset), said, strict=True)][:rows]


def scored(store: Store, dataset: Dataset, config: ScoreConfig = ASKED) -> tuple[Dataset, StageResult]:
    return run_on(store, dataset, score_stage([], ReviewLearner(dataset)), config)


@pytest.fixture
def dataset(store: Store) -> Dataset:
    plain = make_dataset(store, {"s": ROWS}, shard_rows=70)
    return reviewed(store, plain, truthful(plain))


# what counts as a lesson ----------------------------------------------------------------------------------------------


def test_a_verdict_is_the_share_of_reviewers_who_keep_the_row(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS[:3]})
    one, two, three = rows_of(dataset)
    said = [
        *(response(one, verdict, who) for verdict, who in (("keep", "ann"), ("keep", "bob"), ("fix", "cid"))),
        response(two, "keep"),
        response(two, "reject", updated_at="2026-02-01T00:00:00Z"),
        response(two, "keep", "bob", status="discarded"),
        response(three, None),
    ]
    found = {row: (keep, n) for row, _, keep, n in verdicts(reviewed(store, dataset, said)).rows()}
    assert found == {one["id"]: (pytest.approx(2 / 3), 3), two["id"]: (0.0, 1)}


def test_without_a_ledger_there_are_no_verdicts(store: Store) -> None:
    assert verdicts(make_dataset(store, {"s": ROWS[:3]})).height == 0


def test_keep_is_the_positive_verdict_and_fix_and_reject_are_not(dataset: Dataset) -> None:
    found = dict(read_reviews(dataset).rows.select("id", "keep").iter_rows())
    ids = view(dataset, "id")["id"]
    assert found == {ids[i]: bool(POOL.good[i]) for i in range(120)}


def test_a_row_edited_since_its_review_teaches_nothing_and_is_counted(store: Store, dataset: Dataset) -> None:
    said = [{**r, "content_hash": "0" * 32} if i < 7 else r for i, r in enumerate(truthful(dataset))]
    found = read_reviews(reviewed(store, dataset, said))
    assert (found.stale, found.rows.height) == (7, 113)
    notes = scored(store, reviewed(store, dataset, said))[1].notes
    assert any("7 whose text was edited since" in note for note in notes)


def test_a_row_reviewed_before_and_after_an_edit_counts_by_its_text_of_now(store: Store, dataset: Dataset) -> None:
    first = truthful(dataset)[0]
    contrary = "reject" if first["verdict"] == "keep" else "keep"
    said = [*truthful(dataset), {**first, "content_hash": "0" * 32, "verdict": contrary}]
    found = read_reviews(reviewed(store, dataset, said))
    assert found.stale == 0
    assert found.key == read_reviews(dataset).key


def test_rows_that_reviewers_are_split_on_or_that_are_not_scored_are_left_out(store: Store) -> None:
    broken = [*ROWS[:140], *({**row, "broken": "ingest:unreadable"} for row in ROWS[140:])]
    dataset = make_dataset(store, {"s": broken})
    said = truthful(dataset, 160)
    contrary = "reject" if said[0]["verdict"] == "keep" else "keep"
    elsewhere = response({"id": "f" * 32, "content_hash": "f" * 32}, "keep")
    said += [{**said[0], "reviewer": "bob", "verdict": contrary}, elsewhere]
    found = read_reviews(reviewed(store, dataset, said))
    assert (found.split, found.gone, found.rows.height) == (1, 21, 139)


@pytest.mark.parametrize(
    ("rows", "least", "words"),
    [
        (0, 0, "0 reviewed rows: 0 to keep, 0 to fix or to reject"),
        (LEAST_ROWS - 1, 12, f"expected at least {LEAST_ROWS}, and of each kind {LEAST_OF_EACH}"),
        (LEAST_ROWS, LEAST_OF_EACH - 1, f"{LEAST_ROWS} reviewed rows: 41 to keep, 9 to fix or to reject"),
        (LEAST_ROWS, 0, "all verdicts are the same, which teaches nothing"),
    ],
)
def test_too_few_reviews_or_all_alike_is_an_error_that_says_how_many_are_needed(
    store: Store, rows: int, least: int, words: str
) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    said = [response(row, "fix" if i < least else "keep") for i, row in enumerate(rows_of(dataset)[:rows])]
    with pytest.raises(ConfigError) as told:
        read_reviews(reviewed(store, dataset, said))
    assert words in str(told.value)
    assert "sft curate review push test" in str(told.value)


def test_just_enough_reviews_are_enough(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    said = [response(r, "fix" if i < LEAST_OF_EACH else "keep") for i, r in enumerate(rows_of(dataset)[:LEAST_ROWS])]
    assert learn(read_reviews(reviewed(store, dataset, said))) is not None


def test_rows_of_one_text_stand_in_one_group(store: Store) -> None:
    rows = [*ROWS[:100], *ROWS[:5]]
    dataset = make_dataset(store, {"s": rows})
    said = [response(row, "keep" if POOL.good[i % 100] else "fix") for i, row in enumerate(rows_of(dataset))]
    found = read_reviews(reviewed(store, dataset, said)).rows
    assert found["group"].n_unique() == 100
    assert found.group_by("content_hash").agg(pl.col("group").n_unique())["group"].to_list() == [1] * 100


def test_rows_that_dedup_found_alike_stand_in_one_group_also_through_a_third() -> None:
    """One and two share a cluster, two and three a prompt, four and five an answer; six is alone."""
    alike = [("a", "x", None, None), ("b", "x", "p", None), ("c", None, "p", None)]
    others = [("d", None, None, "s"), ("e", "y", None, "s"), ("f", None, None, None)]
    rows = pl.DataFrame([*alike, *others], schema=dict.fromkeys(GROUPS, pl.String), orient="row")
    one, two, three, four, five, six = group_rows(rows)
    assert one == two == three
    assert four == five
    assert len({one, four, six}) == 3


# what the version gets ------------------------------------------------------------------------------------------------


def test_every_kept_row_gets_a_probability_and_the_weights_take_it(store: Store, apply: Apply) -> None:
    plain = make_dataset(store, {"s": [*ROWS, chat("unreadable", "x", broken="ingest:unreadable")]}, shard_rows=70)
    dataset = reviewed(store, plain, truthful_of(plain))
    after, _ = apply(dataset, score_stage([], ReviewLearner(dataset)), ASKED)
    found = view(after, "learned", "score", "kept")
    assert found["learned"].dtype == ANNOTATION_COLUMNS["score"]["learned"]
    assert found["learned"].is_null().to_list() == [False] * 160 + [True]
    assert found["learned"].drop_nulls().is_between(0, 1).all()
    assert found.filter("kept").select(pl.corr("learned", "score", method="spearman")).item() == pytest.approx(1)


def truthful_of(dataset: Dataset) -> list[dict[str, Any]]:
    kept = rows_of(dataset)[:120]
    return [response(row, "keep" if good else "reject") for row, good in zip(kept, POOL.good[:120], strict=True)]


def test_rows_that_nobody_reviewed_are_ranked_better_than_by_length(store: Store, dataset: Dataset) -> None:
    found = view(scored(store, dataset)[0], "learned")["learned"].to_numpy()[120:]
    by_length = auc(POOL.good[120:], POOL.lengths[120:])
    assert auc(POOL.good[120:], found) > max(by_length, 1 - by_length) + 0.15


def test_the_model_is_an_object_that_gives_the_same_column_without_training(store: Store, dataset: Dataset) -> None:
    after, result = scored(store, dataset)
    (file,) = [f for f in result.files if f.role == "model"]
    model = Model.of(pl.read_ipc(after.path(file)))
    again = model.learned(view(after, "messages", "context"))
    assert again.to_list() == view(after, "learned")["learned"].to_list()


def test_a_version_with_the_model_of_the_same_reviews_is_not_taught_again(
    store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, first = scored(store, dataset)
    monkeypatch.setattr("curate.review.learn.learn", None)
    again, second = scored(store, after)
    assert [f.sha256 for f in second.files] == [f.sha256 for f in first.files]
    assert second.notes == first.notes
    assert again.manifest.id == after.manifest.id


def test_another_verdict_is_another_model_and_the_manifest_tells_them_apart(store: Store, dataset: Dataset) -> None:
    changed = truthful(dataset)
    changed[0]["verdict"] = "reject" if changed[0]["verdict"] == "keep" else "keep"
    one, other = scored(store, dataset)[1], scored(store, reviewed(store, dataset, changed))[1]
    assert one.entry.config["from_reviews"] is True
    assert one.entry.config["scorers"]["reviews"]["key"] != other.entry.config["scorers"]["reviews"]["key"]


def test_who_reviewed_and_in_which_order_makes_no_difference(store: Store, dataset: Dataset) -> None:
    others = [{**r, "reviewer": "zoe", "updated_at": "2027"} for r in reversed(truthful(dataset))]
    assert read_reviews(reviewed(store, dataset, others)).key == read_reviews(dataset).key


def test_the_same_reviews_give_the_same_model_whatever_the_threads() -> None:
    reviews = reviews_of(POOL, POOL.good, np.arange(100))
    tables: list[pl.DataFrame] = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            learnt = learn(reviews)
            tables.append(learnt.model.to_frame({"auc": learnt.comparison.score.value}))
    assert tables[0].equals(tables[1])


def test_many_reviews_are_calibrated_alike_whatever_the_threads() -> None:
    """Libraries of linear algebra divide long sums among threads."""
    draw = np.random.default_rng(0)
    keep = draw.random(50_000) < 0.4
    scores = draw.normal(size=50_000) + keep
    found: set[tuple[float, float]] = set()
    for threads in (1, 2, 3, 4):
        with threadpool_limits(threads):
            found.add(_calibrate(scores, keep))
    assert len(found) == 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_calibration_is_the_least_log_loss_with_platts_targets(scale: float) -> None:
    """Also of scores that part the kinds without a mistake, and whatever their scale."""
    draw = np.random.default_rng(2)
    keep = draw.random(80) < 0.3
    for scores in (draw.normal(size=80) + keep, draw.random(80) + 5 * keep):
        slope, shift = _calibrate(scores * scale, keep)
        yes, no = int(keep.sum()), int((~keep).sum())
        targets = np.where(keep, (yes + 1) / (yes + 2), 1 / (no + 2))
        off = 1 / (1 + np.exp(-(slope * scores * scale + shift))) - targets
        assert abs(off.mean()) < 1e-6
        assert abs((off * scores).mean()) < 1e-6


def test_a_table_gives_the_model_back() -> None:
    model = learn(reviews_of(POOL, POOL.good, np.arange(100))).model
    again = Model.of(model.to_frame({"auc": 0.5}))
    assert (again.weights == model.weights).all()
    assert (again.intercept, again.slope, again.shift) == (model.intercept, model.slope, model.shift)


def test_what_was_measured_is_told_and_kept(store: Store, dataset: Dataset) -> None:
    after, result = scored(store, dataset)
    told = report(after)
    assert told["rows"] == 120
    assert told["auc_low"] < told["auc"] < told["auc_high"]
    assert told["difference"] == pytest.approx(told["auc"] - told["length_auc"])
    interval = f"{told['auc']:.3f} ({told['auc_low']:.3f} to"
    assert any(interval in note and "by chance 0.500" in note for note in result.notes)
    assert not any("WARNING" in note for note in result.notes)


def test_verdicts_by_length_alone_or_by_chance_are_told_loudly(store: Store) -> None:
    dataset = make_dataset(store, {"s": ROWS})
    middle = np.median(POOL.lengths)
    draws = np.random.default_rng(0).random(len(ROWS)) < 0.5
    for keep in (POOL.lengths > middle, draws):
        said = [response(r, "keep" if k else "reject") for r, k in zip(rows_of(dataset), keep, strict=True)]
        _, result = scored(store, reviewed(store, dataset, said))
        assert any("WARNING: NOT BETTER THAN LENGTH" in note for note in result.notes)


def test_a_stage_that_is_asked_to_learn_needs_somebody_who_does(store: Store, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="no scorer was made"):
        run_on(store, dataset, STAGE, ASKED)


def test_learned_cannot_be_weighed_where_nothing_was_learnt(store: Store, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="learned, which no scorer of this run gives"):
        run_on(store, dataset, STAGE, ScoreConfig(weights={"learned": 1.0}))


# probabilities, features, AUC -----------------------------------------------------------------------------------------


def test_probabilities_are_calibrated() -> None:
    """Of unseen rows with a mean probability of p, a share near p is good."""
    pool = spoilt(exchanges(1500, 9), "careless", 0.3, 9)
    found = learn(reviews_of(pool, pool.good, np.arange(300))).model.learned(pool.rows[300:]).to_numpy()
    good = pool.good[300:]
    for part in np.array_split(np.argsort(found), 4):
        assert abs(found[part].mean() - good[part].mean()) < 0.12


def test_where_the_reviews_teach_nothing_all_rows_get_the_share_that_is_kept() -> None:
    """The probabilities never turn a ranking around that is worse than chance."""
    for seed in range(20):
        said = np.random.default_rng(seed).random(len(POOL.good)) < 0.5
        learnt = learn(reviews_of(POOL, said, np.arange(100)))
        assert learnt.model.slope >= 0
        if learnt.model.slope == 0:
            found = learnt.model.learned(POOL.rows).unique().to_list()
            assert found == [pytest.approx((said[:100].sum() + 1) / 102)]
            return
    pytest.fail("no draw was worse than chance: this test tests nothing")


def test_the_features_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    whole = measure(POOL.rows)
    means, deviations = scales(whole)
    (features,) = matrix(whole, means, deviations)
    (alone,) = matrix(measure(POOL.rows[7:8]), means, deviations)
    assert features.shape == (POOL.rows.height, WIDTH)
    assert abs(features[7:8] - alone).max() < 1e-12


def test_rows_without_words_turns_or_answers_have_finite_measures() -> None:
    rows = [chat("", ""), chat("only a question"), chat(None, None), chat("?", "!!!\n\n"), {"messages": []}]
    frame = pl.DataFrame([{"context": None, **r} for r in rows], schema=POOL.rows.select("messages", "context").schema)
    found = measure(frame).select(MEASURES).to_numpy()
    assert np.isfinite(found).all()


def test_auc_is_that_of_scikit_learn_ties_included() -> None:
    draw = np.random.default_rng(3)
    good, score = draw.random(80) < 0.4, draw.integers(0, 9, 80).astype(np.float64)
    assert auc(good, score) == pytest.approx(roc_auc_score(good, score))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """AUC of two normal distributions one deviation apart: 0.760. 400 draws; 95% of the intervals, within 4 errors."""
    draw = np.random.default_rng(8)
    good = np.arange(60) < 30
    covered = 0
    for _ in range(400):
        found = compare(good, draw.normal(size=60) + good, draw.normal(size=60)).score
        covered += found.low <= 0.7602 <= found.high
    assert 0.905 < covered / 400 < 0.99


def test_twins_make_no_interval_narrower() -> None:
    """Each row three times, in one group, is known no better than once."""
    draw = np.random.default_rng(4)
    good = np.arange(60) < 25
    score, length = draw.normal(size=60) + good, draw.normal(size=60)
    once = compare(good, score, length)
    thrice = compare(*(np.repeat(column, 3) for column in (good, score, length)), np.repeat(np.arange(60), 3))
    for one, other in zip((once.score, once.difference), (thrice.score, thrice.difference), strict=True):
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_delongs_variance_is_that_of_its_definition_where_rows_are_alone() -> None:
    draw = np.random.default_rng(6)
    good = draw.random(90) < 0.4
    score = np.round(draw.normal(size=90) + good, 1)
    wins = (score[good][:, None] > score[~good]) + 0.5 * (score[good][:, None] == score[~good])
    variance = wins.mean(1).var(ddof=1) / good.sum() + wins.mean(0).var(ddof=1) / (~good).sum()
    found = compare(good, score, score).score
    assert found.high - found.low == pytest.approx(2 * 1.959964 * variance**0.5, rel=1e-6)


def test_a_score_does_not_differ_from_itself() -> None:
    score = np.random.default_rng(1).random(50)
    found = compare(np.arange(50) < 20, score, score).difference
    assert (found.value, found.low, found.high) == (0.0, pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))
