"""Growth: rows come to a dataset whose duplicates are known. Only what they touch is decided again.

Whether a row stays depends on the alike rows that are preferred to it, and on nothing else. So it is enough to decide
the new rows, then the old ones that are alike to a row that now stays and did not, or stays no more and did, and so on
until nothing changes. The outcome is that of a search over all rows, for a small part of the work: the bands of the
old rows are looked through, and not one of their texts is read that has no new look-alike. (One thing differs: an old
row that gets more look-alikes than are compared, by the added rows alone, keeps its decision.)

Where so much is touched that this would not pay, `grow` gives None, and all rows are searched.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.dedup.cluster import MOST_CANDIDATES, compare_pairs
from curate.dedup.compare import ANSWER, FIELDS, PROMPT, RECORD
from curate.dedup.compiled import compiled, inlined
from curate.dedup.index import Index, band_name
from curate.dedup.search import LINKS, PARTS_OF, Found, Search
from curate.dedup.words import carray, pointer
from schemas.dataset import Dataset
from schemas.stages import ANNOTATION_COLUMNS

MOST_TOUCHED = 0.2
"""Share of the rows that may be decided anew; beyond it, a search over all rows is about as fast."""

MOST_PAIRS = 1 << 23
"""Candidate pairs, 16 bytes each, counted in every band that they share; more come from large sets of look-alikes,
which a search over all rows decides in bounded time and memory."""

_LARGEST_FILTER = 1 << 16
"""64-bit words of the filter of a band, 512 KB, which a core's own cache holds. A word for four rows passes about one
hash in a hundred that is not sought."""

_SAID = ["verdict_dedup", *ANNOTATION_COLUMNS["dedup"]]

_SAID_SCHEMA = pl.Schema({"row": pl.UInt32, "verdict_dedup": pl.String, **ANNOTATION_COLUMNS["dedup"]})

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """What the last run found, in the row numbers of today. `old`: which rows it knew."""

    old: Mask
    duplicates: pl.DataFrame
    conflicts: pl.DataFrame
    answers: pl.DataFrame


def known(dataset: Dataset, search: Search) -> Known:
    """Read what the version's annotations say. Reads: the columns of dedup."""
    old = np.zeros(search.own_rows, bool)
    parts: list[pl.LazyFrame] = []
    first = 0
    for shard in dataset.shards:
        if "dedup" in shard.annotations:
            old[first : first + shard.rows] = True
            said = shard.view(_SAID).with_row_index("row", offset=first)
            parts.append(said.filter(pl.any_horizontal(pl.col(_SAID).is_not_null())))
        first += shard.rows
    said = pl.concat([pl.DataFrame(schema=_SAID_SCHEMA), *pl.collect_all(parts)])
    keepers = said.filter(pl.col("duplicate_of").is_null() & pl.col("cluster_id").is_not_null())
    duplicates = said.filter(pl.col("duplicate_of").is_not_null()).select(
        "row",
        "duplicate_of",
        jaccard=pl.col("jaccard").cast(pl.Float64),
        exact=pl.col("verdict_dedup").str.ends_with("exact"),
    )
    links = duplicates.join(
        keepers.select(pl.col("row").alias("of"), pl.col("cluster_id").alias("duplicate_of")), on="duplicate_of"
    )
    return Known(
        old, links.select(list(LINKS)), *(_groups(search, said, column) for column in ("conflict_id", "answer_id"))
    )


def _groups(search: Search, said: pl.DataFrame, column: str) -> pl.DataFrame:
    """Give the links of a group's rows to its first one, which is the row whose own id names the group."""
    members = said.filter(pl.col(column).is_not_null()).select("row", column)
    rows = members["row"].to_numpy().astype(np.int64)
    own = {name: search.take(name, rows) for name in ("id_hi", "id_lo")}
    named = {
        name: pl.col(column).str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) == pl.Series(own[name])
        for name, at in (("id_hi", 0), ("id_lo", 16))
    }
    members = members.with_columns(is_first=named["id_hi"] & named["id_lo"])
    firsts = members.filter("is_first").select(pl.col("row").alias("of"), column)
    links = members.filter(~pl.col("is_first")).join(firsts, on=column)
    return links.select("row", "of", jaccard=pl.lit(1.0), exact=pl.lit(value=False)).select(list(LINKS))


def grow(search: Search, last: Known) -> Found | None:
    """Find what a search over all rows would find; None where that is the better way."""
    judged = search.judged_rows
    how = RECORD if search.config.compare == "record" else FIELDS
    duplicates = _Relation(search, how, judged & last.old, judged).regrown(last.duplicates)
    if duplicates is None:
        return None
    kept = [judged.copy(), judged & last.old]
    for stay, links in zip(kept, (duplicates, last.duplicates), strict=True):
        stay[links["row"].to_numpy()] = False
    conflicts = _Relation(search, PROMPT, kept[1], kept[0]).regrown(last.conflicts)
    answers = _Relation(search, ANSWER, kept[1], kept[0]).regrown(last.answers)
    if conflicts is None or answers is None:
        return None
    return Found(duplicates, conflicts, answers, pl.DataFrame(schema=LINKS), 0)


@dataclass
class _Pairs:
    """Pairs of rows that were compared, each once: the `worse` row may go with the `better` one, which is preferred.

    `level`: how alike; `alike`: alike enough; `exact`: the same record.
    """

    worse: Rows
    better: Rows
    level: NDArray[np.float64]
    alike: Mask
    exact: Mask

    @classmethod
    def none(cls) -> "_Pairs":
        return cls(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.float64, bool, bool)))

    def __add__(self, other: "_Pairs") -> "_Pairs":
        return _Pairs(*(np.concatenate([a, b]) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class _Relation:
    """One kind of link. `before`: the rows it was looked for among, last time; `now`: this time."""

    search: Search
    how: int
    before: Mask
    now: Mask

    def regrown(self, links: pl.DataFrame) -> pl.DataFrame | None:
        """Give the links as they are now; None where too much is touched.

        Look-alikes are looked up of the new rows, and of those whose star does not stay. Any other row that is decided
        anew can only go with its star, the best of those that stayed, or with what has come to stay since.
        """
        row, of = (links[name].to_numpy().astype(np.int64) for name in ("row", "of"))
        stayed = self.before & self.now
        stayed[row] = False
        added = self.now & ~self.before
        stays, anew, looked = stayed, added, np.zeros_like(added)
        pairs, chosen = _Pairs.none(), np.zeros(0, np.int64)
        moved = np.zeros_like(added)  # anew with a star that stays
        while True:
            sought = added.copy()
            sought[row[~stays[of]]] = True
            sought &= self.now & ~looked
            if not sought.any() and not moved.any():
                break
            anew, looked = anew | sought | moved, looked | sought
            found = self._candidates(np.flatnonzero(sought))
            if anew.sum() > MOST_TOUCHED * len(anew) or found is None or len(found[0]) + len(pairs.level) > MOST_PAIRS:
                return None
            with_star = moved[row] & self.now[of]
            one, other = np.concatenate([found[0], row[with_star]]), np.concatenate([found[1], of[with_star]])
            rank = self._ranks(anew, one, other, pairs.better)
            behind = rank(one) > rank(other)
            worse, better = np.where(behind, one, other), np.where(behind, other, one)
            worth = anew[better] | stays[better]  # another one that went is not coming back
            pairs += self._compared(*_without(worse[worth], better[worth], pairs))
            stays, chosen = self._decided(anew, stayed, pairs, rank)
            if (np.bincount(pairs.worse[stays[pairs.better] & anew[pairs.worse]]) > MOST_CANDIDATES).any():
                return None
            moved = np.zeros_like(anew)
            moved[pairs.worse[pairs.alike & (stays & ~stayed)[pairs.better]]] = True
            moved &= self.now & ~anew
        old = links.filter(pl.Series(self.now[row] & ~anew[row]))
        new = {
            "row": pairs.worse[chosen],
            "of": pairs.better[chosen],
            "jaccard": pairs.level[chosen],
            "exact": pairs.exact[chosen],
        }
        return pl.concat([old, pl.DataFrame(new, schema_overrides=LINKS)]).sort("row")

    def _ranks(self, anew: Mask, *rows: Rows) -> Callable[[Rows], Rows]:
        """Rank all rows that play a part, most preferred first."""
        involves = anew.copy()
        involves[np.concatenate(rows)] = True
        involved = np.flatnonzero(involves)
        rank = np.empty(len(involved), np.int64)
        rank[self.search.order(involved)] = np.arange(len(involved))
        return lambda some: rank[np.searchsorted(involved, some)]

    def _decided(self, anew: Mask, stayed: Mask, pairs: _Pairs, rank: Callable[[Rows], Rows]) -> tuple[Mask, Rows]:
        """Decide the rows anew, in the order of preference. Gives which rows stay, and the pairs of those that go."""
        usable = np.flatnonzero(pairs.alike & anew[pairs.worse])
        # by the row in its order; then the better match first: the same record, the most alike, the most preferred
        worse, better = rank(pairs.worse[usable]), rank(pairs.better[usable])
        usable = usable[np.lexsort([better, -pairs.level[usable], ~pairs.exact[usable], worse])]
        stays = stayed | anew
        chosen = _choose(pairs.worse[usable], pairs.better[usable], stays)
        return stays, usable[chosen]

    def _candidates(self, rows: Rows) -> tuple[Rows, Rows] | None:
        """Give the pairs (one of the rows, a row of now) that share a band; None where there are too many."""
        if not len(rows):
            return rows, rows
        search, part = self.search, PARTS_OF[self.how]
        names = [band_name(part, band) for band in range(search.bands)]
        if self.how in (FIELDS, RECORD):
            names.append("key_hi")
        probe = _Probe.of(rows, [search.take(name, rows) for name in names])

        def look(place: tuple[int, Index]) -> NDArray[np.uint64]:
            first, index = place
            asked = self.now[first : first + index.rows]
            sought = probe.filters, probe.heads, probe.ends, probe.hashes, probe.rows
            found = _look(index.addresses(names), asked, first, *sought, MOST_PAIRS)
            index.let_go()
            return found

        pairs: list[NDArray[np.uint64]] = []
        total = 0
        for found in search.workers.map(look, search.numbered()):
            total += len(found)
            if total >= MOST_PAIRS:
                return None
            pairs.append(_distinct(found))
        both = np.sort(np.concatenate(pairs))
        return (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def _compared(self, worse: Rows, better: Rows) -> _Pairs:
        """Compare pairs."""
        facts: dict[str, Any] = {}
        for name in ("key_hi", "key_lo", "tools"):
            facts[name] = [self.search.take(name, side) for side in (worse, better)]
        same = {name: mine == yours for name, (mine, yours) in facts.items()}
        exact = same["key_hi"] & same["key_lo"] & same["tools"] & (self.how in (FIELDS, RECORD))
        asked = same["tools"] & ~exact
        search = self.search
        words = search.take("words", worse), search.take("words", better)
        level, alike = compare_pairs(
            self.how, search.config, search.texts, search.workers, x=worse, y=better, words=words, asked=asked
        )
        return _Pairs(worse, better, np.where(exact, 1.0, level), alike | exact, exact)


def _without(worse: Rows, better: Rows, pairs: _Pairs) -> tuple[Rows, Rows]:
    """Give pairs once each, in order, without those that were compared before."""
    new, old = ((one << 32) | other for one, other in ((worse, better), (pairs.worse, pairs.better)))
    left = _distinct(new)
    left = left[~np.isin(left, old, kind="sort")]
    return left >> 32, left & 0xFFFFFFFF


def _distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """Sort numbers and leave out repeats (numpy.unique hashes them, which takes ten times as long for many)."""
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


def _folded(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Give bands as they are, and of the hash of a whole record the upper half, never 0."""
    if values.dtype == np.uint32:
        return values
    return np.maximum(values >> np.uint64(32), np.uint64(1)).astype(np.uint32)


@dataclass(frozen=True)
class _Probe:
    """Rows by their hash in each band, sorted: band b is `hashes[ends[b]:ends[b + 1]]`, and the rows likewise.

    `filters`: (bands, words), two bits of a word for each hash; others seldom have both. `heads`: (bands, a power of
    two), where the hashes begin that have the same upper bits.
    """

    filters: NDArray[np.uint64]
    heads: NDArray[np.uint32]
    ends: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    rows: NDArray[np.uint64]

    @classmethod
    def of(cls, rows: Rows, bands: Sequence[NDArray[Any]]) -> "_Probe":
        size = min(_LARGEST_FILTER, 1 << (len(rows) // 4).bit_length())
        filters = np.zeros((len(bands), size), np.uint64)
        hashes: list[NDArray[np.uint32]] = []
        sorted_rows: list[NDArray[np.uint64]] = []
        for band, words in zip(bands, filters, strict=True):
            folded = _folded(band)
            order = np.argsort(folded, kind="stable")
            order = order[folded[order] != 0]
            hashes.append(folded[order])
            sorted_rows.append(rows[order].astype(np.uint64))
            _let_pass(folded[order], words)
        ends = np.cumsum([0, *(len(part) for part in hashes)])
        upper = len(rows).bit_length()
        of_head = [np.bincount(part >> np.uint32(32 - upper), minlength=1 << upper) for part in hashes]
        heads = np.stack([end + np.cumsum(n) - n for end, n in zip(ends, of_head, strict=False)])
        return cls(filters, heads.astype(np.uint32), ends, np.concatenate(hashes), np.concatenate(sorted_rows))


@compiled
def _look(addresses, asked, first, filters, heads, ends, hashes, rows, most):
    """Give the pairs (row << 32 | other row) that share a band, of the rows asked for in a shard, some repeatedly; no
    more than `most` of them.

    `addresses`: of the shard's columns, by band; one more than there are bands stands for the hash of whole records.
    """
    pairs, count = np.empty(1 << 10, np.uint64), 0
    passed = np.empty(len(asked), np.uint32)
    shift = np.uint32(32)
    while heads.shape[1] >> (32 - shift) > 1:
        shift -= np.uint32(1)
    folded = np.empty(len(asked), np.uint32)
    for band in range(len(ends) - 1):
        column = carray(pointer(addresses[band]), len(asked), np.uint32)
        if addresses[len(ends) - 1] == band:
            whole = carray(pointer(addresses[band]), 2 * len(asked), np.uint32)
            for i in range(len(asked)):
                folded[i] = max(whole[2 * i + 1], np.uint32(1))
            column = folded
        for k in range(_pass(column, filters[band], asked, passed)):
            i = passed[k]
            value = column[i]
            at, end = heads[band, value >> shift], ends[band + 1]
            while at < end and hashes[at] < value:
                at += 1
            while at < end and hashes[at] == value:
                if rows[at] != np.uint64(first + i):
                    if count == most:
                        return pairs
                    if count == len(pairs):
                        longer = np.empty(2 * count, np.uint64)
                        longer[:count] = pairs
                        pairs = longer
                    pairs[count] = rows[at] << np.uint64(32) | np.uint64(first + i)
                    count += 1
                at += 1
    return pairs[:count].copy()


@inlined
def _two_bits(value):
    """Give two bits of 64 by the upper bits of a hash; the lower ones choose the word."""
    one, other = value >> np.uint32(26), value >> np.uint32(20) & np.uint32(63)
    return np.uint64(1) << np.uint64(one) | np.uint64(1) << np.uint64(other)


@compiled
def _let_pass(hashes, words):
    """Set the bits of hashes that are sought."""
    for value in hashes:
        words[value & np.uint32(len(words) - 1)] |= _two_bits(value)


@compiled
def _pass(hashes, words, asked, passed):
    """List the rows asked for whose hash may be sought. Gives how many."""
    mask = np.uint32(len(words) - 1)
    count = 0
    for i in range(len(asked)):
        value = hashes[i]
        bits = _two_bits(value)
        if words[value & mask] & bits == bits and asked[i] and value:
            passed[count] = i
            count += 1
    return count


@compiled
def _choose(x, y, stays):
    """Walk through pairs, by row and best match first: a row goes with the first match that stays."""
    chosen = np.empty(len(x), np.int64)
    count = 0
    for k in range(len(x)):
        if stays[x[k]] and stays[y[k]]:
            stays[x[k]] = False
            chosen[count] = k
            count += 1
    return chosen[:count].copy()
