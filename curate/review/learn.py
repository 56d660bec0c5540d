"""Learning from reviews: a small classifier of rows, trained on what people decided, for the score stage.

    the ledger of responses ──> a verdict for each row whose text is still the one that was reviewed
         └──> features ──> logistic regression, cross-validated so that near-duplicates stay together
                    └──> AUC against the length of the answer; calibrated probabilities; the column `learned`

**What is learnt**: whether reviewers would keep a row as it stands. `keep` is the positive verdict, `fix` and `reject`
are the negative one: a row that needs a correction is not fit to be trained on, whatever becomes of it later. Of
several reviewers the majority counts; a row on which they are evenly split teaches nothing and is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from curate.quality.scorer import Learner
from curate.review.auc import Comparison, Interval, compare
from curate.review.features import FEATURES_VERSION, Matrix, Numbers, matrix, measure, scales
from curate.review.model import Model, report_of
from curate.review.responses import read_ledger
from curate.stage import Progress
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.manifest import FileEntry, digest
from schemas.stages import ANNOTATION_COLUMNS

LEARN_VERSION = 2
"""Goes up whenever the same reviews would give another model."""

LEAST_ROWS = 50
"""Reviewed rows that are needed: with 10 of one kind, an AUC of 0.75 is known to ±0.19 then (Hanley, McNeil 1982)."""

LEAST_OF_EACH = 10
"""Rows, in groups of near-duplicates, of each kind: two for each fold."""

FOLDS = 5
"""Parts of the cross-validation; five is the usual number, and leaves 80% to learn from."""

PENALTY = 0.1
"""C of the logistic regression. Measured with 300 reviews of real rows with planted defects: 0.05 to 0.2 differ by at
most 0.01 in AUC."""

SEED = 1
"""Seed of the folds and of the solver: the same reviews give the same model."""

GROUPS = ("content_hash", "cluster_id", "conflict_id", "answer_id")
"""Rows that share one of these are kept in one fold: equal texts, and what dedup found alike."""


@dataclass(frozen=True)
class Reviews:
    """What there is to learn from: `rows` (id, content_hash, messages, context, keep, group), sorted by id; and the
    numbers of reviewed rows that are left out: their text was edited since, reviewers are evenly split, or they are not
    in the version or were rejected before the score stage."""

    rows: pl.DataFrame
    stale: int
    split: int
    gone: int
    deduplicated: bool

    @property
    def keep(self) -> NDArray[np.bool_]:
        """Whether reviewers keep each row."""
        return self.rows["keep"].to_numpy().astype(np.bool_)

    @property
    def key(self) -> str:
        """Digest of all that the model depends on."""
        taught = self.rows.select("id", "content_hash", "keep", "group").rows()
        settings = [FEATURES_VERSION, LEARN_VERSION, FOLDS, PENALTY, SEED, self.deduplicated]
        return digest(["reviews", settings, [list(row) for row in taught]])


def verdicts(dataset: Dataset) -> pl.DataFrame:
    """Give what reviewers decided: id, content_hash (of the text that they saw), keep (share who said keep), n.

    Only submitted responses with a verdict count; of several by one reviewer about the same text, the latest.
    """
    return (
        read_ledger(dataset)
        .filter((pl.col("status") == "submitted") & pl.col("verdict").is_not_null())
        .sort("updated_at", "verdict", nulls_last=False)
        .unique(["id", "content_hash", "reviewer"], keep="last", maintain_order=True)
        .group_by("id", "content_hash")
        .agg(keep=(pl.col("verdict") == "keep").mean(), n=pl.len())
        .sort("id", "content_hash")
    )


def read_reviews(dataset: Dataset) -> Reviews:
    """Read the reviews of a version, with the texts that they are about.

    Raises ConfigError where there are too few, or too few of one kind, to learn and to measure from.
    """
    decided = verdicts(dataset)
    deduplicated = dataset.manifest.stage("dedup") is not None
    wanted = decided.select(pl.col("id").unique())
    there = (
        dataset.scan(["id", "messages", "context", *GROUPS, "kept"], before_stage="score")
        .join(wanted.lazy(), on="id", how="semi")
        .filter("kept")
        .collect(engine="streaming")
    )
    known = there.join(decided, on=["id", "content_hash"], how="inner")
    rows = known.filter(pl.col("keep") != 0.5).with_columns(keep=pl.col("keep") > 0.5).sort("id")
    reviews = Reviews(
        rows.select("id", "content_hash", "messages", "context", "keep", group_rows(rows)),
        stale=there.height - known.height,
        split=known.height - rows.height,
        gone=wanted.height - there.height,
        deduplicated=deduplicated,
    )
    _check(reviews, dataset.manifest.name)
    return reviews


def group_rows(rows: pl.DataFrame) -> pl.Series:
    """Number the groups of rows that share a text or what dedup found alike. Reads: GROUPS."""
    joined: list[Matrix] = []
    for name in GROUPS:
        codes = rows[name].rank("dense").cast(pl.Int64).to_numpy(allow_copy=True)
        at = np.flatnonzero(~np.isnan(codes.astype(np.float64)))
        first = {code: row for row, code in zip(at[::-1], codes[at][::-1], strict=True)}
        to = [first[code] for code in codes[at]]
        joined.append(sparse.csr_matrix((np.ones(len(at)), (at, to)), shape=(rows.height, rows.height)))
    _, numbers = connected_components(sum(joined[1:], joined[0]), directed=False)
    return pl.Series("group", numbers, dtype=pl.Int64)


def _check(reviews: Reviews, name: str) -> None:
    """Raise ConfigError where there is too little to learn from."""
    rows = reviews.rows
    keep, other = (rows.filter(pl.col("keep") == kind)["group"].n_unique() for kind in (True, False))
    if rows.height >= LEAST_ROWS and min(keep, other) >= LEAST_OF_EACH:
        return
    kept = int(rows["keep"].sum())
    found = f"{rows.height} reviewed rows: {kept} to keep, {rows.height - kept} to fix or to reject{_left_out(reviews)}"
    if rows.height and not min(keep, other):
        found += "; all verdicts are the same, which teaches nothing"
    elif rows.height >= LEAST_ROWS and min(kept, rows.height - kept) >= LEAST_OF_EACH:
        found += f", in {keep} and {other} groups of near-duplicates"
    expected = f"at least {LEAST_ROWS}, and of each kind {LEAST_OF_EACH} that are not near-duplicates"
    remedy = f"review more rows (sft curate review push {name} --select random), then sft curate review pull {name}"
    raise ConfigError("score, from_reviews", found, expected, remedy)


def _left_out(reviews: Reviews) -> str:
    """Name the reviewed rows that do not count; "" where all do."""
    counts = {
        "whose text was edited since": reviews.stale,
        "on which reviewers are evenly split": reviews.split,
        "that are not among the rows to score": reviews.gone,
    }
    named = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
    return f" (not counted: {named})" if named else ""


@dataclass(frozen=True)
class Learnt:
    """A model, and how well it does on rows that it was not taught: AUC beside that of the length of the answer."""

    model: Model
    comparison: Comparison


def learn(reviews: Reviews) -> Learnt:
    """Train, cross-validate and calibrate. The same reviews give the same model, whatever the threads.

    AUC and calibration come from the rows of each fold as a model sees them that was taught the other folds (Platt
    scaling with his smoothed targets, 1999); the model itself is taught all rows.
    """
    measured = measure(reviews.rows)
    means, deviations = scales(measured)
    features = sparse.csr_matrix(sparse.vstack(list(matrix(measured, means, deviations))))
    keep = reviews.keep
    unseen = np.zeros(len(keep))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    for taught, left in folds.split(features, keep, reviews.rows["group"].to_numpy()):
        weights, intercept = _fit(features[taught], keep[taught])
        unseen[left] = features[left] @ weights + intercept
    slope, shift = _calibrate(unseen, keep)
    weights, intercept = _fit(features, keep)
    lengths = measured["answer_length"].to_numpy()
    return Learnt(
        Model(means, deviations, weights, intercept, slope, shift),
        compare(keep, unseen, _better_way_round(keep, lengths), reviews.rows["group"].to_numpy()),
    )


def _fit(features: Matrix, keep: NDArray[np.bool_]) -> tuple[Numbers, float]:
    """Fit a logistic regression; gives weights, shape (WIDTH,), and intercept.

    In the dual: coordinate descent over few rows, with no library of linear algebra whose threads change a digit.
    """
    fitted = LogisticRegression(C=PENALTY, solver="liblinear", dual=True, random_state=SEED, max_iter=1000)
    fitted.fit(features, keep)
    return np.asarray(fitted.coef_, np.float64)[0], float(np.asarray(fitted.intercept_)[0])


def _calibrate(scores: Numbers, keep: NDArray[np.bool_]) -> tuple[float, float]:
    """Give slope and shift that turn scores into probabilities (Platt 1999).

    Each row counts as (n + 1) / (n + 2) of its own kind, with n rows of that kind, so that no probability is 0 or 1.
    Where low scores are kept more often than high ones, the slope is 0: all rows get the share that is kept.
    """
    sizes = np.where(keep, keep.sum(), (~keep).sum())
    own = (sizes + 1) / (sizes + 2)
    wanted = np.where(keep, own, 1 - own)
    share = float((keep.sum() + 1) / (len(keep) + 2))
    level = math.log(share / (1 - share))

    def loss(line: Numbers) -> tuple[float, Numbers]:
        """Give the mean of the log loss, and its slope. Sums by numpy alone, in one order whatever the threads."""
        z = line[0] * scores + line[1]
        off = expit(z) - wanted
        return float((np.logaddexp(0, z) - wanted * z).mean()), np.array([(off * scores).mean(), off.mean()])

    found = minimize(loss, np.array([0.0, level]), jac=True, method="BFGS", options={"gtol": 1e-9})
    slope, shift = map(float, found.x)
    return (slope, shift) if slope > 0 else (0.0, level)


def _better_way_round(keep: NDArray[np.bool_], lengths: Numbers) -> Numbers:
    """Give the baseline its better direction: longer answers first, or shorter ones."""
    found = compare(keep, lengths, lengths).score.value
    return lengths if found >= 0.5 else -lengths


class ReviewLearner:
    """What reviews teach, as the score stage asks for it; see `curate.quality.scorer.Learner`.

    A version that holds the model of the very same reviews is not taught again.
    """

    name = "reviews"
    columns = pl.Schema({"learned": ANNOTATION_COLUMNS["score"]["learned"]})

    def __init__(self, dataset: Dataset) -> None:
        self._reviews = read_reviews(dataset)
        self.key = self._reviews.key
        known = _model_file(dataset, self.key)
        if known is not None:
            self.model = pl.read_ipc(dataset.path(known))
        else:
            learnt = learn(self._reviews)
            self.model = learnt.model.to_frame(_reported(self._reviews, learnt.comparison))
        self._model = Model.of(self.model)

    @property
    def provenance(self) -> dict[str, Any]:
        """Say what it was taught."""
        rows = self._reviews.rows
        return {
            "model": f"logistic regression on {rows.height} reviewed rows",
            "keep": int(rows["keep"].sum()),
            "fix_or_reject": rows.height - int(rows["keep"].sum()),
            "features_version": FEATURES_VERSION,
        }

    def learned(self, dataset: Dataset, progress: Progress) -> pl.DataFrame:
        """Score the rows that are kept before the score stage, in their order. Adds: learned."""
        scored = [pl.Series("learned", [], pl.Float32)]
        for shard in dataset.shards:
            rows = shard.view(["messages", "context", "kept"], before_stage="score").filter("kept").collect()
            scored.append(self._model.learned(rows))
            progress(shard.rows)
        return pl.concat(scored).to_frame()

    def notes(self) -> list[str]:
        """Say what was learnt from, how good it is, and what weighs most."""
        reviews, told = self._reviews, report_of(self.model)
        kept = int(reviews.rows["keep"].sum())
        others = reviews.rows.height - kept
        who = f"{reviews.rows.height:,} reviewed rows: {kept:,} to keep, {others:,} to fix or reject"
        folds = "near-duplicates in one fold" if reviews.deduplicated else "dedup has not run, so twins may leak"
        found, length, better = (_interval(told, name) for name in ("auc", "length_auc", "difference"))
        notes = [
            f"learnt from {who}{_left_out(reviews)}",
            f"AUC on reviewed rows that it was not taught: {found}, length of the answer alone {length}, by chance "
            f"0.500 (95% intervals by DeLong; {FOLDS}-fold, {folds})",
        ]
        if better.low <= 0:
            notes.append(
                f"WARNING: NOT BETTER THAN LENGTH: the AUC differs by {better}. Do not rely on `learned`: more reviews "
                "are needed, or the verdicts hang on what the text does not show"
            )
        return [*notes, f"what weighs most: {', '.join(_strongest(self.model))}"]


def _model_file(dataset: Dataset, key: str) -> FileEntry | None:
    """Give the model of the version that was learnt from the very same reviews."""
    own = (f for f in dataset.manifest.files_of("score") if f.role == "model" and f.made_from == key)
    return next(own, None)


def report(dataset: Dataset) -> dict[str, float]:
    """Give what was measured of the version's model: AUCs with their intervals, rows; empty where it has none."""
    files = [f for f in dataset.manifest.files_of("score") if f.role == "model"]
    return report_of(pl.read_ipc(dataset.path(files[0]))) if files else {}


def _reported(reviews: Reviews, comparison: Comparison) -> dict[str, float]:
    named: Mapping[str, Interval] = {
        "auc": comparison.score,
        "length_auc": comparison.baseline,
        "difference": comparison.difference,
    }
    numbers = {"rows": float(reviews.rows.height), "keep": float(reviews.rows["keep"].sum())}
    for name, interval in named.items():
        value, low, high = asdict(interval).values()
        numbers |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return numbers


def _interval(told: Mapping[str, float], name: str) -> Interval:
    return Interval(told[name], told[f"{name}_low"], told[f"{name}_high"])


def _strongest(frame: pl.DataFrame, most: int = 4) -> list[str]:
    """Name the measures that move the score most, each with its weight per standard deviation."""
    own = frame.filter(pl.col("part") == "measure").sort(pl.col("weight").abs(), descending=True).head(most)
    return [f"{name} {weight:+.2f}" for name, weight in own.select("name", "weight").iter_rows()]


def make_learner(dataset: Dataset) -> Learner:
    """Make the learner of a version; raises ConfigError where there are too few reviews."""
    return ReviewLearner(dataset)
