"""Must hold: nearly every pair at the threshold is found, and nothing goes that is not at the threshold.

The oracle compares all pairs, by its own words and n-grams (`reference`). A pair is found when not both of its rows
stay: whoever goes names a row that stays, at a similarity that the oracle gives again.
"""

import random
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from curate.dedup import STAGE
from curate.dedup.plain import near_duplicates
from curate.store import Store
from schemas.config import DedupConfig
from tests.curate.conftest import chat, make_dataset, run_on, view
from tests.curate.dedup.reference import alike_pairs, grams, jaccard, tokens

THRESHOLDS = (0.7, 0.8, 0.9)


def edited(texts: Sequence[str], draw: random.Random, *, copies: float) -> list[str]:
    """Texts, and copies of some with words exchanged, left out or put in: from nearly the same to half the same."""
    made = list(texts)
    for text in texts:
        while draw.random() < copies:
            words = text.split(" ")
            for _ in range(draw.randint(0, max(1, len(words) // 12))):
                at = draw.randrange(len(words))
                words[at : at + draw.choice([0, 1, 1, 2])] = draw.choice([[], ["instead"], ["of", "that"]])
                words = words or ["instead"]
            made.append(" ".join(words))
    draw.shuffle(made)
    return made


def assert_found(texts: list[str], threshold: float, ngram: int, *, least: int) -> None:
    pairs = alike_pairs(texts, ngram, threshold)
    assert len(pairs) >= least, "too few pairs to say anything about recall"
    config = DedupConfig(threshold=threshold, ngram=ngram)
    gone = near_duplicates(pl.Series(texts), config)
    stays = set(range(len(texts))) - set(gone["row"])
    missed = [pair for pair in pairs if set(pair) <= stays]
    assert len(missed) <= 0.01 * len(pairs), f"{len(missed)} of {len(pairs)} pairs stay"
    for row, of, level in gone.iter_rows():
        assert of in stays
        one, other = (list(tokens(texts[at])) for at in (row, of))
        assert level >= threshold
        assert level == jaccard(grams(one, ngram), grams(other, ngram))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_nearly_all_pairs_are_found_among_generated_texts(threshold: float) -> None:
    draw = random.Random(3)
    vocabulary = [f"word{i}" for i in range(4000)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(3, 120))) for _ in range(2000)]
    assert_found(edited(texts, draw, copies=0.4), threshold, 5, least=300)


@pytest.mark.realdata
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_nearly_all_pairs_are_found_in_alpaca(threshold: float, real_rows: dict[str, list[dict[str, Any]]]) -> None:
    """No two of these rows share 0.6 of their 5-grams, so copies of some are planted among them."""
    texts = [
        " ".join([*(turn["content"] for turn in row["messages"]), row["context"] or ""]) for row in real_rows["alpaca"]
    ]
    assert_found(edited(texts, random.Random(5), copies=0.3), threshold, 5, least=900)


def test_what_goes_from_a_dataset_is_alike_in_record_exchange_and_answer(store: Store) -> None:
    """And of every pair that is alike in all three, one goes: 99 of 100 at least."""
    draw = random.Random(8)
    words = [f"w{i}" for i in range(900)]
    rows: list[dict[str, Any]] = []
    for _ in range(400):
        system, asked, answer = (draw.choices(words, k=draw.randint(8, 60)) for _ in range(3))
        for _ in range(draw.randint(1, 3)):
            parts = [edited([" ".join(part)], draw, copies=0.5)[0] for part in (system, asked, answer)]
            row = chat(parts[1], parts[2], context=draw.choice([None, parts[0]]))
            rows.append({**row, "source_key": f"k{len(rows)}"})
    after, _ = run_on(store, make_dataset(store, {"a": rows}, shard_rows=100), STAGE, DedupConfig(guard_rows=10**6))
    frame = view(after, "id", "kept", "duplicate_of", "jaccard")
    at = {id_: i for i, id_ in enumerate(frame["id"])}
    parts = [_parts(row) for row in rows]
    kept = frame["kept"].to_list()
    alike = missed = 0
    for i in range(len(rows)):
        for j in range(i):
            if all(jaccard(a, b) >= 0.8 for a, b in zip(parts[i], parts[j], strict=True)):
                alike += 1
                missed += kept[i] and kept[j]
    assert alike > 100
    assert missed <= 0.01 * alike
    for i, (_, stays, of, level) in enumerate(frame.iter_rows()):
        if not stays:
            levels = [jaccard(a, b) for a, b in zip(parts[i], parts[at[of]], strict=True)]
            assert min(levels) >= 0.8
            assert level == pytest.approx(levels[0], abs=1e-6)


def _parts(row: dict[str, Any]) -> list[set[tuple[str, ...]]]:
    asked, answer = (list(tokens(turn["content"])) for turn in row["messages"])
    context = list(tokens(row["context"] or ""))
    return [grams(words, 5) for words in ([*asked, *context, *answer], [*asked, *answer], answer)]
