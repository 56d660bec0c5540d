"""Words: a row's text, read from Arrow's buffers, as an array of 64-bit word hashes. Compiled.

Nothing is copied: a segment is an object in memory-mapped form, given as the addresses of its buffers, and a row is
read from there whenever its words are needed. Words become n-grams by rolling their hashes.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# compiled functions take the types of their arguments at the call; those that Python code calls are typed.

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import numpy_support

from curate.dedup.compiled import compiled, inlined
from curate.dedup.letters import ALONE, IGNORED, LETTER, SPACE, SYMBOL
from schemas.record import ROLE_NAMES

TURNS, ROLES, ROLE_BYTES, CONTENT, CONTENT_BYTES, CALLS, CALL_BYTES, CONTEXT, CONTEXT_BYTES = range(9)
"""The buffers of a segment: offsets (int64) of turns by row; offsets by turn, and bytes, of roles, contents and tool
calls; offsets by row, and bytes, of contexts. An address of 0 stands for a column of nulls."""
FIELDS = 9

USER, MATERIAL, ASSISTANT = 1, 2, 4
"""Roles as bits: what is asked, what is given besides (system prompts, tool results, the context), what is answered."""

carray: Any = numpy_support.carray
"""An array over memory that is there already."""

_PRIME = np.uint64(1099511628211)
_BASIS = np.uint64(14695981039346656037)  # FNV-1a, 64 bits
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the multiplier of Fibonacci hashing
_MIX1, _MIX2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # MurmurHash3's 64-bit finaliser
_33, _32 = np.uint64(33), np.uint64(32)


def _from_address(_context, address):  # noqa: ARG001 # what it is called with, as numba reads it
    def code(_ctx, builder, _signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


pointer: Any = intrinsic(_from_address)
"""Turn an address into a pointer that `carray` can read from."""


@inlined
def mix(h):
    """Spread all bits of a 64-bit hash (MurmurHash3's finaliser)."""
    h ^= h >> _33
    h *= _MIX1
    h ^= h >> _33
    h *= _MIX2
    return h ^ (h >> _33)


@compiled
def _cut(data, start, stop, kinds, folds, words, count):
    """Append the word hashes of bytes [start, stop) of UTF-8; give the new count."""
    limit = len(kinds)
    word, inside = _BASIS, False
    run, run_length = np.uint32(0), 0  # of one symbol
    p = start
    while p < stop:
        point = np.uint32(data[p])
        if point < 0x80:
            p += 1
        elif point < 0xE0:
            point = ((point & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(data[p + 1]) & np.uint32(0x3F))
            p += 2
        elif point < 0xF0:
            point = (
                ((point & np.uint32(0x0F)) << np.uint32(12))
                | ((np.uint32(data[p + 1]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(data[p + 2]) & np.uint32(0x3F))
            )
            p += 3
        else:
            point = (
                ((point & np.uint32(0x07)) << np.uint32(18))
                | ((np.uint32(data[p + 1]) & np.uint32(0x3F)) << np.uint32(12))
                | ((np.uint32(data[p + 2]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(data[p + 3]) & np.uint32(0x3F))
            )
            p += 4
        # beyond the tables, tags and variation selectors are not to be seen
        kind = kinds[point] if point < limit else np.uint8(IGNORED if point >> np.uint32(12) == 0xE0 else SYMBOL)
        if kind == LETTER:
            word = (word ^ np.uint64(folds[point])) * _PRIME
            if run_length:
                words[count] = _symbol(run, run_length)
                count += 1
                run_length = 0
            inside = True
            continue
        if kind == IGNORED:
            continue
        if inside:
            words[count] = mix(word)
            count += 1
            word, inside = _BASIS, False
        if run_length and point != run:
            words[count] = _symbol(run, run_length)
            count += 1
            run_length = 0
        if kind == ALONE:
            words[count] = mix((_BASIS ^ np.uint64(folds[point])) * _PRIME)
            count += 1
        elif kind != SPACE:
            run = point
            run_length += 1
    if inside:
        words[count] = mix(word)
        count += 1
    elif run_length:
        words[count] = _symbol(run, run_length)
        count += 1
    return count


@inlined
def _symbol(point, length):
    """Hash a run of one symbol: `==` is not `=`."""
    return mix((_BASIS ^ np.uint64(point)) * _PRIME + np.uint64(length))


def role_hash(name: str) -> int:
    """Hash the name of a role as compiled code does: FNV-1a of its lower-case bytes."""
    h = int(_BASIS)
    for byte in name.lower().encode():
        h = (h ^ byte) * int(_PRIME) % 2**64
    return h


def _hashes(role: str) -> tuple[np.uint64, ...]:
    names = [role, *(other for other, name in ROLE_NAMES.items() if name == role)]
    return tuple(np.uint64(role_hash(name)) for name in names)


_USERS, _ASSISTANTS = _hashes("user"), _hashes("assistant")


@compiled
def _role(offsets, data, turn):
    """Give the bit of a turn's role; whoever is neither user nor assistant gives material."""
    h = _BASIS
    for p in range(offsets[turn], offsets[turn + 1]):
        letter = data[p]
        if letter >= 65 and letter <= 90:  # two plain comparisons compile to faster code
            letter |= 32
        h = (h ^ np.uint64(letter)) * _PRIME
    for known in _USERS:
        if h == known:
            return USER
    for known in _ASSISTANTS:
        if h == known:
            return ASSISTANT
    return MATERIAL


@compiled
def row_bytes(segment, i):
    """Give the bytes of a row's texts, all together: no less than the number of its words."""
    turns = carray(pointer(segment[TURNS]), i + 2, np.int64)
    first, last = turns[i], turns[i + 1]
    total = np.int64(0)
    for column in (CONTENT, CALLS):
        if segment[column]:
            offsets = carray(pointer(segment[column]), last + 1, np.int64)
            total += offsets[last] - offsets[first]
    if segment[CONTEXT]:
        offsets = carray(pointer(segment[CONTEXT]), i + 2, np.int64)
        total += offsets[i + 1] - offsets[i]
    return total


@compiled
def read_row(segment, i, roles, kinds, folds, words, count):
    """Append the words of a row's turns of some roles (bits), in order, and its context where MATERIAL is asked for.

    `words` has room for `row_bytes`. Gives (the new count, characters of an answer).
    """
    turns = carray(pointer(segment[TURNS]), i + 2, np.int64)
    first, last = turns[i], turns[i + 1]
    named = carray(pointer(segment[ROLES]), last + 1, np.int64)
    names = carray(pointer(segment[ROLE_BYTES]), named[last] if last > first else 0, np.uint8)
    chars = np.int64(0)
    for turn in range(first, last):
        if not _role(named, names, turn) & roles:
            continue
        for column in (CONTENT, CALLS):
            if segment[column]:
                offsets = carray(pointer(segment[column]), last + 1, np.int64)
                start, stop = offsets[turn], offsets[turn + 1]
                data = carray(pointer(segment[column + 1]), stop, np.uint8)
                count = _cut(data, start, stop, kinds, folds, words, count)
                if roles == ASSISTANT:
                    chars += _characters(data, start, stop)
    if roles & MATERIAL and segment[CONTEXT]:
        offsets = carray(pointer(segment[CONTEXT]), i + 2, np.int64)
        data = carray(pointer(segment[CONTEXT_BYTES]), offsets[i + 1], np.uint8)
        count = _cut(data, offsets[i], offsets[i + 1], kinds, folds, words, count)
    return count, chars


@inlined
def _characters(data, start, stop):
    count = 0
    for p in range(start, stop):
        count += (data[p] & 0xC0) != 0x80
    return count


@compiled
def has_material(segment, i):
    """Whether a row holds more than questions and answers."""
    turns = carray(pointer(segment[TURNS]), i + 2, np.int64)
    last = turns[i + 1]
    named = carray(pointer(segment[ROLES]), last + 1, np.int64)
    names = carray(pointer(segment[ROLE_BYTES]), named[last] if last > turns[i] else 0, np.uint8)
    for turn in range(turns[i], last):
        if _role(named, names, turn) == MATERIAL:
            return True
    if segment[CONTEXT]:
        offsets = carray(pointer(segment[CONTEXT]), i + 2, np.int64)
        return offsets[i + 1] > offsets[i]
    return False


@inlined
def roll(words, at, n):
    """Hash the n words from `at` on: order counts."""
    gram = np.uint64(0)
    for k in range(at, at + n):
        gram = (gram ^ words[k]) * _GOLDEN
        gram ^= gram >> _32
    return gram


@compiled
def fold(words, middle, stop):
    """Hash a record of two parts, the words [0, middle) and [middle, stop), to two times 64 bits."""
    high, low = np.uint64(middle) + _GOLDEN, np.uint64(stop) + _PRIME
    for k in range(stop):
        high = (high ^ words[k]) * _MIX1
        low = (low ^ words[k]) * _MIX2
        high ^= high >> _32
        low ^= low >> _33
    return mix(high + np.uint64(middle) * _MIX2), mix(low ^ np.uint64(middle) * _GOLDEN)
