"""Overlap: the words that an evaluation item and a row have in common, in order. Compiled.

A shared n-gram of an item starts a comparison: item and row are laid beside each other at that place, and the words
that stand in both in the same order are counted, in runs of two and more, so that a changed, added or missing word
costs itself and little else. Only a band around the place is looked at: rows that hold half of an item here and half
of it far away do not count as holding it.
"""

# ruff: noqa: PLR0912, PLR0917
# compiled code is one loop over plain arrays: objects and small functions cost it its speed
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.dedup.compiled import compiled, inlined
from curate.dedup.words import ASSISTANT, MATERIAL, USER, mix, read_row, row_bytes

PROMPT, RESPONSE, QUESTION = range(3)
"""Where in a row a match stands: in what is asked and given, in what is answered, or in the user's turns alone."""

ROW, WHERE, ITEM, SHARED, START, STOP = range(6)
"""Columns of what is found: row; PROMPT, RESPONSE or QUESTION; item; words shared; the row's words [start, stop)."""
COLUMNS = 6

WHOLE_WORDS = 4
"""Items of so many words and fewer match only where they are all that the user says: elsewhere they tell nothing."""
WIDEST_BAND = 64
SCORE, FROM, RUN, RUN_FROM, SINGLE, SINGLE_FROM, PAIR, PAIR_FROM = range(0, 16, 2)
"""Lines of a comparison's working space, two of each: words shared so far, and the row's word that they begin at; the
same with a run that ends here; with a word here that is no run yet; with two such words, one changed between them."""
ROOM = 16

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the multiplier of Fibonacci hashing
_WHOLE = np.uint64(0x5851F42D4C957F2D)
_ONE, _ZERO = np.uint64(1), np.uint64(0)
_63, _32, _6 = np.uint64(63), np.uint64(32), np.uint64(6)
_ROLES = (USER | MATERIAL, ASSISTANT, USER)


class Lookup(NamedTuple):
    """What the search reads. An item is told by its number; so is an n-gram.

    `sizes`: the words in an n-gram, rising. `keys`, `numbers`: the hash table, n-gram -> its number. `bits`: a bitmap
    of the n-grams and of their beginnings that are as long as a smaller size: most words of a row begin none, and one
    look tells. `short`: whether there are items of WHOLE_WORDS or fewer. `posted`: where the entries of each n-gram
    begin in `owners` (items) and `places` (words of the item). `words`, `starts`: the items' words, one item after the
    other. `need`: shared words that make a match, in a prompt and in a response.
    """

    sizes: NDArray[np.int64]
    keys: NDArray[np.uint64]
    numbers: NDArray[np.int32]
    bits: NDArray[np.uint64]
    short: bool
    posted: NDArray[np.int64]
    owners: NDArray[np.int32]
    places: NDArray[np.int32]
    words: NDArray[np.uint64]
    starts: NDArray[np.int64]
    need: NDArray[np.int64]


class Memory(NamedTuple):
    """What one thread writes. `visit`: rows visited; `gram_rows`: rows that an n-gram stands in, of those last seen in
    `gram_seen`; of each item, the visit of its last comparison, where that was, and its line in what is found."""

    visit: NDArray[np.int64]
    gram_seen: NDArray[np.uint32]
    gram_rows: NDArray[np.uint32]
    item_seen: NDArray[np.int64]
    item_shift: NDArray[np.int64]
    item_found: NDArray[np.int64]


@inlined
def extend(gram, words, at, stop):
    """Hash the words [at, stop) on from what was hashed before: order counts."""
    for k in range(at, stop):
        gram = (gram ^ words[k]) * _GOLDEN
        gram ^= gram >> _32
    return gram


@inlined
def whole(words, at, n):
    """Hash a text as a whole: other than the same words within a longer one."""
    return mix(extend(_ZERO, words, at, at + n) ^ _WHOLE)


@compiled
def cut_texts(addresses, segment, index, kinds, folds, words, starts):
    """Write the words of plain texts one after the other; text i has the words from starts[i] to starts[i + 1]."""
    count = 0
    for i in range(len(index)):
        count, _ = read_row(addresses[segment[i]], index[i], MATERIAL, kinds, folds, words, count)
        starts[i + 1] = count
    return count


@compiled
def hash_texts(words, starts, hashes):
    """Hash every text as a whole."""
    for i in range(len(hashes)):
        hashes[i] = whole(words, starts[i], starts[i + 1] - starts[i])


@compiled
def list_grams(words, starts, size, grams, owners, places):
    """Write the n-grams of every item, size[i] words each, with the item and the place in it; give their number."""
    count = 0
    for i in range(len(size)):
        length, n = starts[i + 1] - starts[i], size[i]
        if length <= WHOLE_WORDS:
            grams[count] = whole(words, starts[i], length)
            owners[count], places[count] = i, 0
            count += 1
            continue
        for k in range(length - n + 1):
            grams[count] = extend(_ZERO, words, starts[i] + k, starts[i] + k + n)
            owners[count], places[count] = i, k
            count += 1
    return count


@inlined
def _mark(gram, bits):
    bit = mix(gram) & np.uint64(64 * len(bits) - 1)
    bits[bit >> _6] |= _ONE << (bit & _63)


@compiled
def fill_table(grams, keys, numbers, bits):
    """Put distinct n-grams into a hash table (open addressing), and into a bitmap that is asked first."""
    mask = np.uint64(len(keys) - 1)
    for g in range(len(grams)):
        slot = grams[g] & mask
        while numbers[slot] >= 0:
            slot = (slot + _ONE) & mask
        keys[slot], numbers[slot] = grams[g], g
        _mark(grams[g], bits)


@compiled
def mark_beginnings(words, starts, owners, places, size, sizes, bits):
    """Put the beginnings of the items' n-grams into the bitmap, those of every smaller size."""
    for e in range(len(owners)):
        i = owners[e]
        gram, done = _ZERO, starts[i] + places[e]
        for n in sizes:
            if n >= size[i]:
                break
            stop = starts[i] + places[e] + n
            gram = extend(gram, words, done, stop)
            done = stop
            _mark(gram, bits)


@inlined
def is_marked(gram, bits):
    """Whether an n-gram may be one, or the beginning of one, that an item has."""
    bit = mix(gram) & np.uint64(64 * len(bits) - 1)
    return (bits[bit >> _6] >> (bit & _63)) & _ONE != _ZERO


@inlined
def find_gram(gram, keys, numbers):
    """Give the number of an n-gram; -1 where no item has it."""
    mask = np.uint64(len(keys) - 1)
    slot = gram & mask
    while numbers[slot] >= 0:
        if keys[slot] == gram:
            return numbers[slot]
        slot = (slot + _ONE) & mask
    return -1


@inlined
def band_of(length):
    """Give how far, in words, a row may drift from an item: an eighth of it, and 8 to 64."""
    return min(WIDEST_BAND, 8 + length // 8)


@compiled
def align(item, a, length, row, count, shift, band, room):
    """Count the words of an item that stand in a row in the same order, in runs.

    The item's words are item[a : a + length], the row's row[:count]; word i of the item is looked for at i + shift,
    give or take `band`. A run is two words side by side, or more; one changed word does not end it, and may stand
    beside a single word. `room`: ROOM lines of int32. Gives (words shared, start, stop): words of the row.
    """
    # Along a diagonal the column stays the same: column c of line i is the row's word i + shift - band + c.
    width = 2 * band + 1
    room[:, :width] = 0
    best, begin, end = 0, 0, 0
    for i in range(length):
        word = item[a + i]
        now, last = i & 1, 1 - (i & 1)  # what is two lines old is read before it is overwritten
        for c in range(width):
            j = i + shift - band + c
            # the most words shared so far, without this word of the item, or without this word of the row
            score, start = np.int32(0), np.int32(0)
            if c + 1 < width:
                score, start = room[SCORE + last, c + 1], room[FROM + last, c + 1]
            if c and room[SCORE + now, c - 1] > score:
                score, start = room[SCORE + now, c - 1], room[FROM + now, c - 1]
            if j < 0 or j >= count or row[j] != word:
                room[RUN + now, c], room[PAIR + now, c], room[SINGLE + now, c] = 0, 0, 0
            else:
                held, first = room[RUN + last, c], room[RUN_FROM + last, c]  # a run goes on
                if room[RUN + now, c] > held:  # over a changed word
                    held, first = room[RUN + now, c], room[RUN_FROM + now, c]
                held = held + 1 if held else held
                if room[SINGLE + last, c] and room[SINGLE + last, c] + 1 > held:  # two words side by side
                    held, first = room[SINGLE + last, c] + 1, room[SINGLE_FROM + last, c]
                if room[PAIR + last, c] and room[PAIR + last, c] + 1 > held:  # after one that stood alone before them
                    held, first = room[PAIR + last, c] + 1, room[PAIR_FROM + last, c]
                room[RUN + now, c], room[RUN_FROM + now, c] = held, first
                # a changed word between: this word and the one before it are a run, if the next one is shared, too
                alone = room[SINGLE + now, c]
                room[PAIR + now, c] = alone + 1 if alone else 0
                room[PAIR_FROM + now, c] = room[SINGLE_FROM + now, c]
                before = room[SCORE + last, c]
                room[SINGLE + now, c] = before + 1
                room[SINGLE_FROM + now, c] = room[FROM + last, c] if before else j
                if held > score:
                    score, start = held, first
                    if held > best:
                        best, begin, end = held, first, j + 1
            room[SCORE + now, c], room[FROM + now, c] = score, start
    return best, begin, end


@compiled
def _meet(g, r, where, p, words, length, stamp, lookup, memory, room, found, count):
    """Compare a row with the items that have n-gram g, at its word p; give the new count, or -1 for want of room."""
    if memory.gram_seen[g] != stamp:
        memory.gram_seen[g] = stamp
        memory.gram_rows[g] += np.uint32(1)
    now = memory.visit[0]
    for at in range(lookup.posted[g], lookup.posted[g + 1]):
        i = lookup.owners[at]
        start = lookup.starts[i]
        size = lookup.starts[i + 1] - start
        band = band_of(size)
        shift = 4 * (p - lookup.places[at]) + where
        if memory.item_seen[i] != now:
            memory.item_seen[i], memory.item_found[i] = now, -1
        elif (memory.item_shift[i] & 3) == where and abs(memory.item_shift[i] - shift) <= 2 * band:  # half a band
            continue
        memory.item_shift[i] = shift
        shared, begin, end = length, 0, length
        if size > WHOLE_WORDS:
            shared, begin, end = align(lookup.words, start, size, words, length, p - lookup.places[at], band, room)
        if shared < lookup.need[i, where & 1]:
            continue
        to = memory.item_found[i]
        if to < 0:
            if count == len(found):
                return -1
            to = memory.item_found[i] = count
            found[to, SHARED] = 0
            count += 1
        if shared > found[to, SHARED]:
            found[to, ROW], found[to, WHERE], found[to, ITEM] = r, where, i
            found[to, SHARED], found[to, START], found[to, STOP] = shared, begin, end
    return count


@compiled
def search_rows(addresses, segment, index, judged, first, last, stamp, kinds, folds, lookup, memory, found, count):
    """Search the rows [first, last) of a shard for items, and count the rows that each n-gram stands in.

    `stamp` is the number of the shard's first row over all shards, from 1 on. Appends to `found` from `count` on.
    Gives (the new count, the row to go on with): a row below `last` where `found` is full, and should be made larger.
    """
    sizes, keys, numbers, bits = lookup.sizes, lookup.keys, lookup.numbers, lookup.bits
    room = np.zeros((ROOM, 2 * WIDEST_BAND + 1), np.int32)
    words = np.zeros(1024, np.uint64)
    for r in range(first, last):
        if not judged[r]:
            continue
        place = addresses[segment[r]]
        size = row_bytes(place, index[r])
        if size > len(words):
            words = np.zeros(2 * size, np.uint64)
        memory.visit[0] += 1
        before = count
        length = 0
        if lookup.short:
            length, _ = read_row(place, index[r], USER, kinds, folds, words, 0)
        if 0 < length <= WHOLE_WORDS:
            g = find_gram(whole(words, 0, length), keys, numbers)
            if g >= 0:
                count = _meet(g, r, QUESTION, 0, words, length, stamp + r, lookup, memory, room, found, count)
        if count < 0:
            return before, r
        for where in (PROMPT, RESPONSE):
            length, _ = read_row(place, index[r], _ROLES[where], kinds, folds, words, 0)
            for p in range(length - sizes[0] + 1):
                gram, done = _ZERO, p
                for n in sizes:
                    if p + n > length or count < 0:
                        break
                    gram = extend(gram, words, done, p + n)
                    done = p + n
                    if not is_marked(gram, bits):
                        break
                    g = find_gram(gram, keys, numbers)
                    if g >= 0:
                        count = _meet(g, r, where, p, words, length, stamp + r, lookup, memory, room, found, count)
            if count < 0:
                return before, r
    return count, last


@compiled
def rarest(addresses, segment, index, kinds, folds, lookup, sizes, rows_of, found, least):
    """Give, for each of what is found, in how many rows the rarest n-gram stands that the item and the row share.

    What is found in one row stands together, so that each row is read once.
    """
    words = np.zeros(1024, np.uint64)
    for k in range(len(found)):
        r, i, where = found[k, ROW], found[k, ITEM], found[k, WHERE]
        if k == 0 or r != found[k - 1, ROW] or where != found[k - 1, WHERE]:
            place = addresses[segment[r]]
            size = row_bytes(place, index[r])
            if size > len(words):
                words = np.zeros(2 * size, np.uint64)
            read_row(place, index[r], _ROLES[where], kinds, folds, words, 0)
        for p in range(found[k, START], found[k, STOP] - sizes[i] + 1):
            g = find_gram(extend(_ZERO, words, p, p + sizes[i]), lookup.keys, lookup.numbers)
            if g < 0 or rows_of[g] >= least[k]:
                continue
            for at in range(lookup.posted[g], lookup.posted[g + 1]):
                if lookup.owners[at] == i:
                    least[k] = rows_of[g]
