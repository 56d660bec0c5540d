"""Plain texts: near-duplicates among texts that are no rows of a dataset, by the whole text alone."""

from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import polars as pl

from curate.dedup.band import choose_bands
from curate.dedup.bucket import NONE, find_buckets
from curate.dedup.cluster import Rows, find_stars
from curate.dedup.compare import RECORD
from curate.dedup.scratch import Scratch
from curate.dedup.search import workers_of
from curate.dedup.sketch import sketch
from curate.dedup.texts import texts_in_memory
from schemas.config import DedupConfig


def near_duplicates(texts: Any, config: DedupConfig, *, firsts: int | None = None) -> pl.DataFrame:
    """Find the texts, a polars Series or an Arrow array of large strings, that say what an earlier one says.

    Adds: row, duplicate_of (places in `texts`), jaccard; one line for each text that is left out, in order. With
    `firsts`, only the first so many are compared with, and all of them stay: every later text finds the likest of them.
    """
    shape = choose_bands(config.threshold, config.recall, config.num_perm)
    places = texts_in_memory(texts)
    scratch = Scratch(int(config.memory * 1e9), Path(gettempdir()))
    with workers_of() as workers:
        made = sketch(places, range(len(texts)), config, shape, workers, parts=1)
        whole = np.maximum(made.key_hi >> np.uint64(32), np.uint64(1)).astype(np.uint32)
        columns = [partial(made.bands.__getitem__, band) for band in range(shape[0])]
        buckets = find_buckets([*columns, lambda: whole], len(texts), scratch, workers)
        rows = Rows(places, made.words, made.key_hi, made.key_lo, np.zeros(len(texts), np.uint64))
        fixed = 0 if firsts is None else int(np.searchsorted(buckets.ranks, firsts))
        closed = firsts is not None
        stars = find_stars(RECORD, config, rows, buckets.ranks, buckets, scratch, workers, fixed=fixed, closed=closed)
    went = np.flatnonzero(stars.star != NONE)
    found = {
        "row": buckets.ranks[went],
        "duplicate_of": buckets.ranks[stars.star[went]],
        "jaccard": stars.similarity[went],
    }
    return pl.DataFrame(found)
