"""Clusters: stars around kept rows. Compiled.

Rows come in the order of preference. A row that is alike to a row kept before it goes with it; otherwise it is kept,
and others may go with it. A row is compared with kept rows only, never with one that went: chains of alike rows do not
melt into one (transitive closure took a set of 859,092 rows to 2: marin-community/marin#6854).

The same walk finds duplicates, conflicts and equal answers; what counts as alike differs (`curate.dedup.compare`).
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from curate.dedup.bucket import NONE, Buckets
from curate.dedup.compare import FIELDS, RECORD, fill_sets, similarity
from curate.dedup.compiled import compiled
from curate.dedup.letters import letters
from curate.dedup.scratch import Scratch
from curate.dedup.texts import Texts
from schemas.config import DedupConfig

MOST_CANDIDATES = 128
"""Candidates of a row that are compared exactly, those that share most bands: bounds the work where many are."""

NEAR_MISS = 0.15
"""How far below the threshold a pair is still worth showing."""

_STEP = 1 << 7
"""Members that are decided before the mapped pages are let go. The system maps many at a time."""

_PAIRS = 1 << 9
"""Pairs that are compared before the mapped pages are let go, where the pairs are given."""

LANES = 2
"""Into how many parts the work is cut, whatever the number of threads: more need more memory."""

_SHORTEST_RING = 1 << 16
RING = 1 << 25
"""n-grams that are held for the next comparison, 8 bytes each: 256 MB, room for the sets of about 60,000 long rows."""


@dataclass(frozen=True)
class Rows:
    """What is known of the rows of `texts`: how many words they have, hashes of the whole record and of its tools."""

    texts: Texts
    words: NDArray[np.uint32]
    key_hi: NDArray[np.uint64]
    key_lo: NDArray[np.uint64]
    tools: NDArray[np.uint64]


@dataclass(frozen=True)
class Stars:
    """What became of the members of buckets, by member.

    `star`: the member that it goes with, or NONE. `similarity`: with that one. `missed`, `miss`: the kept member that
    it came nearest to without going with it (NONE where nothing came near), and how near. `capped`: rows that had more
    candidates than are compared.
    """

    star: NDArray[np.int32]
    similarity: NDArray[np.float64]
    missed: NDArray[np.int32]
    miss: NDArray[np.float32]
    capped: int


@compiled
def _candidates(m, of, starts, filled, slots, counts, touched):
    """List the kept members that share a bucket with member m, with the number of buckets shared. Gives how many."""
    found = 0
    for band in range(of.shape[1]):
        bucket = of[m, band]
        if bucket == NONE:
            continue
        for k in range(starts[bucket], starts[bucket] + filled[bucket]):
            other = slots[k]
            if counts[other] == 0:
                touched[found] = other
                found += 1
            counts[other] += 1
    return found


@compiled
def _best(found, touched, counts, most, bands):
    """Put the candidates that share most bands first; of equals, the most preferred. Gives how many are left."""
    if found > most:
        histogram = np.zeros(bands + 2, np.int64)
        for k in range(found):
            histogram[counts[touched[k]]] += 1
        least, above = bands, 0
        while above + histogram[least] < most:
            above += histogram[least]
            least -= 1
        ties = np.empty(histogram[least], np.int32)
        kept, tied = 0, 0
        for k in range(found):
            other = touched[k]
            if counts[other] > least:
                touched[kept] = other
                kept += 1
            elif counts[other] == least:
                ties[tied] = other
                tied += 1
            counts[other] = 0
        ties.sort()
        for k in range(most - above):
            touched[kept + k] = ties[k]
        found = most
    else:
        for k in range(found):
            counts[touched[k]] = 0
    touched[:found].sort()
    return found


@compiled
def _same_record(row, found, touched, row_of, key_hi, key_lo, tools):
    """Give the candidate that says the same word for word, or NONE."""
    for k in range(found):
        other = row_of[touched[k]]
        if key_hi[row] == key_hi[other] and key_lo[row] == key_lo[other] and tools[row] == tools[other]:
            return touched[k]
    return NONE


@compiled
def _walk(
    members, how, threshold, floor, ngram, most, fixed, closed, addresses, segment, index, kinds, folds,
    n_words, key_hi, key_lo, tools, row_of, of, starts, filled, slots, counts, touched,
    ring, begun, shapes, state, star, alike, missed, miss,
):  # fmt: skip
    """Decide some members, in order. The first `fixed` of all stay without a comparison; `closed`: only with them."""
    bands, capacity = of.shape[1], len(ring)
    head = state[0]  # positions in the ring count on; what begins more than a round behind is overwritten
    words = np.empty(1 << 12, np.uint64)
    tables, spare = np.zeros((3, 1 << 14), np.uint64), np.zeros((3, 1 << 14), np.uint64)
    own, big = np.empty(1 << 14, np.uint64), np.empty(1, np.uint64)
    mine, big_shape = np.zeros(6, np.int32), np.zeros(6, np.int32)
    for m in members:
        row = row_of[m]
        found = _candidates(m, of, starts, filled, slots, counts, touched) if m >= fixed else 0
        state[1] += found > most
        found = _best(found, touched, counts, most, bands)
        if found and how in (FIELDS, RECORD):
            same = _same_record(row, found, touched, row_of, key_hi, key_lo, tools)
            if same != NONE:
                star[m], alike[m] = same, 1.0
                continue
        if found:
            place, r = addresses[segment[row]], np.int64(index[row])
            room = np.int64(n_words[row]) + 1
            if room > len(words):
                words = np.empty(2 * room, np.uint64)
            if 4 * room > tables.shape[1]:
                tables = np.zeros((3, 8 * room), np.uint64)
            if 3 * room > len(own):
                own = np.empty(6 * room, np.uint64)
            fill_sets(how, ngram, place, r, kinds, folds, words, tables, own, 0, mine)
        for k in range(found):
            other = touched[k]
            if tools[row] != tools[row_of[other]]:
                continue
            sets, shape, begin = ring, shapes[other], begun[other]
            if begin < 0 or begin + capacity < head:  # not made yet, or overwritten
                place, r = addresses[segment[row_of[other]]], np.int64(index[row_of[other]])
                room = np.int64(n_words[row_of[other]]) + 1
                if room > len(words):
                    words = np.empty(2 * room, np.uint64)
                if 4 * room > spare.shape[1]:
                    spare = np.zeros((3, 8 * room), np.uint64)
                if 12 * room > capacity:  # too long to be held
                    big = np.empty(3 * room, np.uint64)
                    sets, shape, begin = big, big_shape, np.int64(0)
                    fill_sets(how, ngram, place, r, kinds, folds, words, spare, sets, 0, shape)
                else:
                    if head % capacity + 3 * room > capacity:
                        head += capacity - head % capacity
                    begin = head
                    begun[other] = begin
                    end = fill_sets(how, ngram, place, r, kinds, folds, words, spare, sets, begin % capacity, shape)
                    head += end - begin % capacity
            level, is_alike = similarity(how, threshold, floor, tables, mine, sets, begin % capacity, shape)
            if is_alike and (star[m] == NONE or level > alike[m]):
                star[m], alike[m] = other, level
            elif not is_alike and level >= floor and level > miss[m]:
                missed[m], miss[m] = other, level
        if star[m] == NONE and (m < fixed or not closed):
            for band in range(bands):
                bucket = of[m, band]
                if bucket != NONE:
                    slots[starts[bucket] + filled[bucket]] = m
                    filled[bucket] += 1
    state[0] = head


@compiled
def _compare_pairs(
    how, threshold, ngram, addresses, segment, index, kinds, folds,
    first, last, x, y, words_x, words_y, asked, level, alike,
):  # fmt: skip
    words = np.empty(1 << 12, np.uint64)
    tables, spare = np.zeros((3, 1 << 14), np.uint64), np.zeros((3, 1 << 14), np.uint64)
    sets = np.empty(1 << 14, np.uint64)
    mine, shape = np.zeros(6, np.int32), np.zeros(6, np.int32)
    filled = NONE
    for k in range(first, last):
        if not asked[k]:
            continue
        for side in range(2):
            row = x[k] if side == 0 else y[k]
            if side == 0 and row == filled:
                continue
            place, r = addresses[segment[row]], np.int64(index[row])
            room = np.int64(words_x[k] if side == 0 else words_y[k]) + 1
            if room > len(words):
                words = np.empty(2 * room, np.uint64)
            if 3 * room > len(sets):
                sets = np.empty(6 * room, np.uint64)
            if side == 0:
                if 4 * room > tables.shape[1]:
                    tables = np.zeros((3, 8 * room), np.uint64)
                fill_sets(how, ngram, place, r, kinds, folds, words, tables, sets, 0, mine)
                filled = row
            else:
                if 4 * room > spare.shape[1]:
                    spare = np.zeros((3, 8 * room), np.uint64)
                fill_sets(how, ngram, place, r, kinds, folds, words, spare, sets, 0, shape)
        level[k], alike[k] = similarity(how, threshold, threshold, tables, mine, sets, 0, shape)


def compare_pairs(
    how: int,
    config: DedupConfig,
    texts: Texts,
    workers: Executor,
    *,
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    words: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    asked: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compare rows x with rows y, of so many words, pair by pair, where asked. Gives how alike, and whether enough."""
    level, alike = np.zeros(len(x)), np.zeros(len(x), bool)
    place = texts.addresses, texts.segment, texts.index

    def work(first: int) -> None:
        part = first, min(first + _PAIRS, len(x))
        _compare_pairs(
            how, config.threshold, config.ngram, *place, *letters(), *part, x, y, *words, asked, level, alike
        )

    for _ in workers.map(work, range(0, len(x), _PAIRS)):
        texts.let_go()
    return level, alike


@compiled
def _lanes(of, buckets, count):
    """Deal the members to lanes, so that no two of different lanes share a bucket, even by way of others.

    What hangs together goes to one lane, whichever has the fewest members so far.
    """
    members = of.shape[0]
    parent, last = np.arange(members), np.full(buckets, NONE, np.int64)
    for m in range(members):
        for band in range(of.shape[1]):
            bucket = of[m, band]
            if bucket == NONE:
                continue
            if last[bucket] != NONE:
                one, other = m, last[bucket]
                while parent[one] != one:
                    parent[one] = parent[parent[one]]
                    one = parent[one]
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                parent[max(one, other)] = min(one, other)
            last[bucket] = m
    size = np.zeros(members, np.int64)
    for m in range(members):
        while parent[parent[m]] != parent[m]:
            parent[m] = parent[parent[m]]
        size[parent[m]] += 1
    lane, held = np.zeros(members, np.uint8), np.zeros(count, np.int64)
    for m in range(members):
        if parent[m] == m:
            lane[m] = np.argmin(held)
            held[lane[m]] += size[m]
        else:
            lane[m] = lane[parent[m]]  # the smallest member of what hangs together came before
    return lane


def find_stars(
    how: int,
    config: DedupConfig,
    rows: Rows,
    row_of: NDArray[np.uint32],
    buckets: Buckets,
    scratch: Scratch,
    workers: Executor,
    *,
    fixed: int = 0,
    closed: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Stars:
    """Decide, in the order of preference, which members stay and which go with one that stays.

    `row_of`: the row of each member. The first `fixed` members stay in any case; if `closed`, the others are compared
    with those alone.
    """
    count, threshold = len(row_of), config.threshold
    stars = Stars(
        np.full(count, NONE, np.int32), np.ones(count), np.full(count, NONE, np.int32), np.zeros(count, np.float32), 0
    )
    settings = how, threshold, max(0.0, threshold - NEAR_MISS), config.ngram, MOST_CANDIDATES, fixed, closed
    texts = rows.texts
    place = texts.addresses, texts.segment, texts.index, *letters()
    facts = rows.words, rows.key_hi, rows.key_lo, rows.tools, row_of, buckets.of, buckets.starts
    held = np.zeros(len(buckets.starts), np.int32), scratch.empty(buckets.slots, np.int32), np.zeros(count, np.uint16)
    made = np.full(count, -1, np.int64), np.zeros((count, 6), np.int32)
    said = stars.star, stars.similarity, stars.missed, stars.miss
    lane_of = _lanes(buckets.of, len(buckets.starts), LANES)
    ring = max(_SHORTEST_RING, min(RING, scratch.limit // 32) // LANES)
    reported, stopped = Lock(), Event()

    def walk(lane: int) -> int:
        """Decide the members of a lane: no other lane reads or writes what is theirs. Gives the rows capped."""
        members = np.flatnonzero(lane_of == lane)
        own = np.empty(len(members), np.int32), np.empty(ring, np.uint64)
        state = np.zeros(2, np.int64)
        for first in range(0, len(members), _STEP):
            if stopped.is_set():
                break
            part = members[first : first + _STEP]
            _walk(part, *settings, *place, *facts, *held, own[0], own[1], *made, state, *said)
            texts.let_go()
            with reported:
                progress(len(part))
        return int(state[1])

    try:
        return replace(stars, capped=sum(workers.map(walk, range(LANES))))
    finally:
        stopped.set()  # Ctrl-C does not wait for the lanes
