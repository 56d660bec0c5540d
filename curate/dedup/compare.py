"""Comparison: the exact Jaccard similarity of two rows, part by part. Compiled.

A row's n-gram sets are made from its words when they are asked for. The row that is compared with many others has its
sets in hash tables; those of the others lie in a ring, where the latest stay until they are overwritten.

How two rows are compared depends on what is looked for; the similarity is that of the first part:

    FIELDS   duplicates: the records, what is asked and answered, and the answers, all alike
    RECORD   duplicates by the whole record alone
    PROMPT   conflicts: the prompts and what is asked alike, the answers not
    ANSWER   the same answer: the answers alike
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

import numpy as np

from curate.dedup.compiled import compiled
from curate.dedup.words import ASSISTANT, MATERIAL, USER, has_material, read_row, roll

FIELDS, RECORD, PROMPT, ANSWER = range(4)

SAME = -1
"""Size of a set that is the same as the first one."""
_MASK = 3
"""A row's shape: the sizes of its three sets, then the masks of their hash tables."""
_ONE = np.uint64(1)


@compiled
def _fill(words, start, stop, ngram, table, out, at, shape, part):
    """Write the set of n-grams of words [start, stop) to `out`, from `at` on, and to the table of this part."""
    n = min(ngram, stop - start)
    size = 64
    while size < 2 * (stop - start):
        size *= 2
    mask = np.uint64(size - 1)
    table[:size] = 0
    count = 0
    for k in range(start, stop - n + 1 if n else start):
        gram = max(_ONE, roll(words, k, n))
        slot = gram & mask
        while table[slot] != 0 and table[slot] != gram:
            slot = (slot + _ONE) & mask
        if table[slot] == 0:
            table[slot] = gram
            out[at + count] = gram
            count += 1
    shape[part], shape[_MASK + part] = count, size - 1
    return at + count


@compiled
def fill_sets(how, ngram, place, r, kinds, folds, words, tables, out, at, shape):
    """Write a row's sets to `out`, one after the other from `at` on, and to the three tables; fill in its shape.

    For a row of so many words there is room for as many in `words`, three times as many in `out`, and four times as
    many in each table.
    """
    shape[1], shape[2] = SAME, SAME
    if how == ANSWER:
        w, _ = read_row(place, r, ASSISTANT, kinds, folds, words, 0)
        return _fill(words, 0, w, ngram, tables[0], out, at, shape, 0)
    p, _ = read_row(place, r, USER | MATERIAL, kinds, folds, words, 0)
    w, _ = read_row(place, r, ASSISTANT, kinds, folds, words, p)
    at = _fill(words, 0, p if how == PROMPT else w, ngram, tables[0], out, at, shape, 0)
    if how == RECORD:
        return at
    at = _fill(words, p, w, ngram, tables[2], out, at, shape, 2)
    if has_material(place, r):
        w, _ = read_row(place, r, USER, kinds, folds, words, 0)
        if how == FIELDS:
            w, _ = read_row(place, r, ASSISTANT, kinds, folds, words, w)
        at = _fill(words, 0, w, ngram, tables[1], out, at, shape, 1)
    return at


@compiled
def _jaccard(table, mask, size, other, start, other_size):
    """Give the Jaccard similarity of a set in a table and one in an array; two empty sets are alike."""
    if size == 0 and other_size == 0:
        return 1.0
    shared = 0
    for k in range(start, start + other_size):
        gram = other[k]
        slot = gram & mask
        while table[slot] != 0 and table[slot] != gram:
            slot = (slot + _ONE) & mask
        shared += table[slot] == gram
    return shared / (size + other_size - shared)


@compiled
def _part(part, tables, mine, out, start, shape):
    """Compare one part of two rows; a set that is the same as the first one is looked up there."""
    own = part if mine[part] != SAME else 0
    if shape[part] == SAME:
        begin, size = start, shape[0]
    else:
        begin = start
        for before in (0, 2, 1):  # the order in which `fill_sets` writes them
            if before == part:
                break
            if shape[before] != SAME:
                begin += shape[before]
        size = shape[part]
    return _jaccard(tables[own], np.uint64(mine[_MASK + own]), mine[own], out, begin, size)


@compiled
def similarity(how, threshold, floor, tables, mine, out, start, shape):
    """Compare the row in the tables (of shape `mine`) with the one in `out` from `start` on.

    Gives (the similarity of the first part, whether they are what is looked for). Where the sizes alone put it below
    `floor`, the similarity is given as 0.
    """
    small, large = min(mine[0], shape[0]), max(mine[0], shape[0])
    if large and small / large < floor:
        return 0.0, False
    first = _part(0, tables, mine, out, start, shape)
    if first < threshold:
        return first, False
    if how in (RECORD, ANSWER):
        return first, True
    if not (mine[1] == SAME and shape[1] == SAME) and _part(1, tables, mine, out, start, shape) < threshold:
        return first, False
    answers_alike = _part(2, tables, mine, out, start, shape) >= threshold
    return first, answers_alike if how == FIELDS else not answers_alike
