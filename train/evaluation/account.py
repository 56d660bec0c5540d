"""What the rows of a measurement come to: each measure of both models, per source and category, and how sure it is.

A measure is a quantity of sums over records, so that all of them, corpus BLEU and perplexity too, are drawn anew
together (`train.evaluation.bootstrap`). Only records that both models have a number for count in a difference; with the
tuned model alone there is none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import median
from typing import Any

import numpy as np

from train.evaluation import metrics
from train.evaluation.bootstrap import DRAWS, LEAST_RECORDS, Floats, Interval, intervals, verdict
from train.evaluation.labels import LabelScores, label_scores, labels_of

Row = dict[str, Any]

SHORT_WORDS = 3
"""Words of the median reference up to which an answer is right or wrong, and exact match is what counts."""

LARGEST_LOSS = 700.0
"""Nats per target from which on perplexity is more than a float holds."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: `sums` gives what a side adds up for a record, (S,), and `value` makes the measure of such sums."""

    name: str
    title: str
    better: str
    """Which way is better: higher, lower, or "" where neither is."""
    unit: str
    """How it is written: share (0 to 1), score (0 to 100), loss, perplexity, ratio, tokens."""
    sums: Callable[[Row, str], Sequence[float] | None]
    value: Callable[[Floats], Floats]


def _losses(row: Row, side: str) -> Sequence[float] | None:
    found = row[side]
    return None if not found or found["nll"] is None else (found["nll"], found["targets"])


def _of_answer(read: Callable[[Row, Row], float]) -> Callable[[Row, str], Sequence[float] | None]:
    """Make the sums of a mean over answers."""

    def sums(row: Row, side: str) -> Sequence[float] | None:
        answer = row[side] and row[side]["answer"]
        return (read(answer, row), 1.0) if answer else None

    return sums


def _lengths(row: Row, side: str) -> Sequence[float] | None:
    answer = row[side] and row[side]["answer"]
    return (answer["tokens"], row["reference_tokens"]) if answer else None


def _bleu_counts(row: Row, side: str) -> Sequence[float] | None:
    answer = row[side] and row[side]["answer"]
    return metrics.bleu_counts(answer["text"], row["reference"]) if answer else None


def _mean(sums_BS: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return sums_BS[:, 0] / sums_BS[:, 1]


def _perplexity(sums_BS: Floats) -> Floats:
    loss_B = _mean(sums_BS)
    return np.where(loss_B < LARGEST_LOSS, np.exp(np.minimum(loss_B, LARGEST_LOSS)), np.inf)


def _bleu(sums_BS: Floats) -> Floats:
    return np.asarray([metrics.bleu(sums_S) for sums_S in sums_BS.tolist()])


def _named(key: str) -> Callable[[Row, Row], float]:
    return lambda answer, _: float(answer[key])


MEASURES: tuple[Measure, ...] = (
    Measure("loss", "Loss", "lower", "loss", _losses, _mean),
    Measure("perplexity", "Perplexity", "lower", "perplexity", _losses, _perplexity),
    Measure("exact_match", "Exact match", "higher", "share", _of_answer(_named("exact_match")), _mean),
    Measure("token_f1", "Token F1", "higher", "share", _of_answer(_named("token_f1")), _mean),
    Measure("rouge_l", "ROUGE-L", "higher", "share", _of_answer(_named("rouge_l")), _mean),
    Measure("bleu", "BLEU", "higher", "score", _bleu_counts, _bleu),
    Measure("chrf", "chrF", "higher", "score", _of_answer(_named("chrf")), _mean),
    Measure("repetition", "Repeated 4-grams", "lower", "share", _of_answer(_named("repetition")), _mean),
    Measure("loops", "Ends in a loop", "lower", "share", _of_answer(_named("loop")), _mean),
    Measure("unstopped", "Never stopped", "lower", "share", _of_answer(lambda a, _: float(not a["whole"])), _mean),
    Measure("empty", "Empty", "lower", "share", _of_answer(lambda a, _: float(not a["text"].strip())), _mean),
    Measure("tokens", "Tokens per answer", "", "tokens", _of_answer(_named("tokens")), _mean),
    Measure("length", "Length against reference", "", "ratio", _lengths, _mean),
)
"""All measures, in the order in which they are told."""

OF_LOSS = ("loss", "perplexity")

_WEIGHTY = ("too few records", "better", "worse", "no clear difference", "not finite")
"""What can be said of a measure, the words first that decide what is said of the whole."""


def account(rows: Sequence[Row], *, base: bool, samples: int) -> dict[str, Any]:
    """Sum up rows: see docs/evaluation.md for what comes out. `base`: whether there is a base to compare with."""
    sources = sorted({row["source"] for row in rows})
    categories = sorted({row["category"] for row in rows if row["category"]})
    overall = _group(rows, base=base)
    answered = [row for row in rows if row["tuned"]["answer"]]
    ranked = _ranked(answered) if base else []
    return {
        "all": overall,
        "by_source": {s: _group([r for r in rows if r["source"] == s], base=base) for s in sources},
        "by_category": {c: _group([r for r in rows if r["category"] == c], base=base) for c in categories},
        "verdict": _verdict(overall, answered) if base else None,
        "most_improved": [row["id"] for gain, row in ranked[:samples] if gain > 0],
        "most_worsened": [row["id"] for gain, row in ranked[::-1][:samples] if gain < 0],
        "samples": [row["id"] for row in sorted(answered, key=lambda row: _drawn(row["id"]))[:samples]],
        "measures": {m.name: {"title": m.title, "better": m.better, "unit": m.unit} for m in MEASURES},
        "signatures": metrics.signatures(),
        "bootstrap": {"draws": DRAWS, "least_records": LEAST_RECORDS, "interval": 0.95},
    }


def _group(rows: Sequence[Row], *, base: bool) -> dict[str, Any]:
    """Give each measure of some records, and of those that are labels how they were named."""
    answered = [row for row in rows if row["tuned"]["answer"]]
    references = [row["reference"] for row in answered]
    labels = labels_of(references)
    sides = ("tuned", "base") if base else ("tuned",)
    return {
        "records": len(rows),
        "scored": sum(row["tuned"]["nll"] is not None for row in rows),
        "answered": len(answered),
        "measures": _measures(rows, sides),
        "reference": {
            "repetition": _average([metrics.repetition(text) for text in references]),
            "tokens": _average([row["reference_tokens"] for row in answered]),
        },
        "labels": {
            "names": list(labels),
            **{s: _told(label_scores([r[s]["answer"]["text"] for r in answered], references, labels)) for s in sides},
        }
        if labels
        else None,
    }


@np.errstate(invalid="ignore")  # losses may be infinite, or no numbers: then so is what is made of them
def _measures(rows: Sequence[Row], sides: Sequence[str]) -> dict[str, Any]:
    """Measure all sides on the records that each of them has numbers for, and draw them anew together.

    Losses and answers are two sets of records: some have no answer, and some no loss.
    """
    found: dict[str, Any] = {}
    for losses in (True, False):
        chosen = [measure for measure in MEASURES if (measure.name in OF_LOSS) == losses]
        parts: list[list[float]] = []
        for row in rows:
            sums = [measure.sums(row, side) for side in sides for measure in chosen]
            if all(part is not None for part in sums):
                parts.append([value for part in sums if part is not None for value in part])
        if not parts:
            found |= {measure.name: None for measure in chosen}
            continue
        sums_RS = np.asarray(parts, np.float64)
        widths = [len(measure.sums(rows[_first(rows, chosen, sides)], sides[0]) or ()) for measure in chosen]
        read = _reader(chosen, widths, len(sides))
        values = read(sums_RS.sum(0, keepdims=True))[:, :, 0]
        spread = intervals(sums_RS, lambda s, read=read: (read(s)[0] - read(s)[1]).T) if len(sides) == 2 else []
        for i, measure in enumerate(chosen):
            one: dict[str, Any] = {"records": len(parts), "tuned": _number(values[0][i])}
            if len(sides) == 2:
                interval = spread[i]
                one["base"] = _number(values[1][i])
                one["difference"] = _number(values[0][i] - values[1][i])
                one["low"], one["high"] = (interval.low, interval.high) if interval else (None, None)
                one["verdict"] = _compared(values[0][i], values[1][i], interval, measure.better)
            found[measure.name] = one
    return {measure.name: found[measure.name] for measure in MEASURES}


def _compared(tuned: float, base: float, interval: Interval | None, better: str) -> str:
    """Say what a difference comes to. What is infinite, or no number, is worse than any number."""
    if math.isfinite(tuned) and math.isfinite(base):
        return verdict(interval, better)
    if math.isfinite(tuned) == math.isfinite(base):
        return "not finite"
    return "better" if math.isfinite(tuned) else "worse"


def _first(rows: Sequence[Row], chosen: Sequence[Measure], sides: Sequence[str]) -> int:
    """Give the first record that all sides have numbers for."""
    return next(i for i, row in enumerate(rows) if all(m.sums(row, s) is not None for s in sides for m in chosen))


def _reader(chosen: Sequence[Measure], widths: Sequence[int], sides: int) -> Callable[[Floats], Any]:
    """Make what reads sums (B, S) as values, (sides, measures, B): of all records, or of draws."""

    def read(sums_BS: Floats) -> Any:
        values: list[list[Floats]] = []
        at = 0
        for _ in range(sides):
            own: list[Floats] = []
            for measure, width in zip(chosen, widths, strict=True):
                own.append(measure.value(sums_BS[:, at : at + width]))
                at += width
            values.append(own)
        return np.asarray(values)

    return read


def _number(value: float) -> float | None:
    """Give a number as JSON has it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _told(scores: LabelScores) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy,
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "unnamed": scores.unnamed,
        "confusion": [list(row) for row in scores.confusion],
    }


def _verdict(overall: dict[str, Any], answered: Sequence[Row]) -> dict[str, Any]:
    """Say in one word what the whole comes to: by the loss, and by the measure of answers that fits the references."""
    words = [len(metrics.words(row["reference"])) for row in answered]
    answers = "exact_match" if words and median(words) <= SHORT_WORDS else "token_f1"
    by = [name for name in ("loss", answers) if overall["measures"][name]]
    said = {overall["measures"][name]["verdict"] for name in by}
    if {"better", "worse"} <= said:
        word = "mixed"
    else:
        word = next((word for word in _WEIGHTY if word in said), "too few records")
    return {"word": word, "by": by}


def _ranked(answered: Sequence[Row]) -> list[tuple[float, Row]]:
    """Order records by how much nearer the tuned answer is to the reference (token F1), then by loss, then by id."""

    def gain(row: Row) -> tuple[float, float, str]:
        nearer = row["tuned"]["answer"]["token_f1"] - row["base"]["answer"]["token_f1"]
        losses = [row[side]["nll"] for side in ("tuned", "base")]
        easier = losses[1] - losses[0] if None not in losses else 0.0
        return -nearer, -easier / max(row["tuned"]["targets"] or 1, 1), row["id"]

    return [(-gain(row)[0], row) for row in sorted(answered, key=gain)]


def _drawn(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8, key=b"samples").digest()
