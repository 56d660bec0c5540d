"""Generated instruction rows in any number, the same for the same seed: for benchmarks of size.

`generated` makes short rows word by word in Python. `conversations` makes rows of the size of OpenOrca's, quickly,
with a known share of planted duplicates, and says which they are.

The bytes of a shard come from one `take` over an Arrow array of words, each with its blank or full stop behind it: the
data buffer of the result is the text, and its offsets at the first word of each turn are the offsets of the turns.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schemas.record import TEXT_SCHEMA, content_hash, lineage_id

SHARD_ROWS = 65_536
WORDS_PER_PROMPT, WORDS_PER_RESPONSE = 18, 60
"""About the mean of Alpaca and Dolly: 420 characters a row."""
OPENORCA_WORDS = (115, 137)
"""Mean words of a question and of an answer: with the system prompt 1,500 characters a row."""

VOCABULARY = 40_000
DRAWS = 1 << 20
"""Words are drawn from a table of this length, in which each stands as often as Zipf's law has it."""
SYSTEM_PROMPTS, OPENINGS = 20, 200
SYSTEM_WORDS, OPENING_WORDS = 30, 8
LEAST_WORDS = (12, 8)
"""Of a question and of an answer: below, two rows with the same system prompt and opening could be near-duplicates."""
SPREAD = 0.6
"""Sigma of the lognormal distribution of lengths."""
KINDS = ("exact", "blanks", "near", "conflict")
KIND_SHARES = (0.15, 0.10, 0.65, 0.10)
JACCARD_RANGE = (0.74, 0.97)
"""The range that the similarity of a near-duplicate is aimed at; what it really is, the truth says."""
ASIDE_ROWS, ASIDE_MOST, ASIDE_SHARE = 256, 8_192, 0.3
"""Rows of a shard that are kept aside for later shards, how many at most, and the share of copies made from them."""
NGRAM = 5

Ints = NDArray[np.int64]


class Planted(NamedTuple):
    """A shard, and the truth about it: row, origin (numbers over all shards), id, origin_id, kind, and the Jaccard
    similarities of the word 5-grams, record_jaccard, exchange_jaccard (without the system prompt) and answer_jaccard.
    """

    frame: pl.DataFrame
    truth: pl.DataFrame


def conversations(
    rows: int,
    *,
    seed: int = 0,
    duplicates: float = 0.15,
    words: tuple[int, int] = OPENORCA_WORDS,
    system: float = 0.9,
    source: str = "generated",
    later: int = 0,
    later_source: str = "later",
) -> Iterator[Planted]:
    """Give shards of system prompt, question and answer, of which a share of `duplicates` copies earlier rows.

    A copy is exact; or differs in case and blanks; or is near, with words of prompt or answer exchanged; or is a
    conflict, the same prompt with another answer. Copies are made of rows that are no copies. After `rows` rows come
    `later` more, of another source, that copy earlier rows in the same way. The content hash is a hash of the row's
    number, or of its origin's where the copy is exact: nothing here reads it.
    """
    lexicon = _Lexicon.drawn(np.random.default_rng([seed, 0]))
    aside: list[_Rows] = []
    starts = [(at, min(SHARD_ROWS, rows - at), source) for at in range(0, rows, SHARD_ROWS)]
    starts += [(rows + at, min(SHARD_ROWS, later - at), later_source) for at in range(0, later, SHARD_ROWS)]
    for number, (start, count, name) in enumerate(starts):
        draw = np.random.default_rng([seed, 1, number])
        shard = _Shard(lexicon, draw, count, start, _joined(aside))
        shard.plan(duplicates if number or count > 1 else 0.0, words, system)
        shard.write()
        aside.append(shard.some(ASIDE_ROWS))
        if len(aside) * ASIDE_ROWS > ASIDE_MOST:
            aside.pop(int(draw.integers(len(aside))))
        yield Planted(shard.frame(name, seed), shard.truth(seed))


@dataclass(frozen=True)
class _Lexicon:
    """All that a token number can stand for.

    Below 6 * VOCABULARY: a word and its form: blank behind it, question mark, full stop, capital, two blanks, capitals
    and a new line. Above: the system prompts, then the openings of questions, each one token.
    """

    tokens: Any
    table: NDArray[np.int32]
    system: int = 6 * VOCABULARY
    opening: int = 6 * VOCABULARY + SYSTEM_PROMPTS

    @classmethod
    def drawn(cls, draw: np.random.Generator) -> "_Lexicon":
        consonants, vowels = list("bdfghklmnprstvz"), list("aeiou")
        words: dict[str, None] = {}
        while len(words) < VOCABULARY:  # short words come first, and so are the frequent ones
            syllables = 1 + (len(words) >= 150) + (len(words) > 2_000) * int(draw.integers(3))
            made = "".join(draw.choice(consonants) + draw.choice(vowels) for _ in range(syllables))
            words[made + str(draw.choice(["", "n", "s", "r"]))] = None
        plain = list(words)
        shares = 1.0 / np.arange(1, VOCABULARY + 1)
        times = np.maximum(1, np.round(shares / shares.sum() * (DRAWS - VOCABULARY // 2))).astype(np.int64)
        table = np.resize(np.repeat(np.arange(VOCABULARY, dtype=np.int32), times), DRAWS)
        forms = ["{} ", "{}?", "{}.", None, "{}  ", None]
        tokens = [
            (form.format(word) if form else f"{word.capitalize()} " if i == 3 else f"{word.upper()}\n")
            for i, form in enumerate(forms)
            for word in plain
        ]
        for many, length, end in ((SYSTEM_PROMPTS, SYSTEM_WORDS, "."), (OPENINGS, OPENING_WORDS, " ")):
            picks = table[draw.integers(DRAWS, size=(many, length))]
            tokens += [" ".join(plain[i] for i in row).capitalize() + end for row in picks]
        return cls(pa.array(tokens, pa.large_string()), table)

    def words(self, draw: np.random.Generator, count: int) -> NDArray[np.int32]:
        return self.table[draw.integers(DRAWS, size=count, dtype=np.uint32)]


@dataclass
class _Rows:
    """Rows as tokens: row i has `tokens[starts[i]:]`: [system prompt], [opening], question, answer."""

    tokens: NDArray[np.int32]
    starts: Ints
    has_system: Ints
    has_opening: Ints
    asked: Ints
    answered: Ints
    number: Ints

    @property
    def sizes(self) -> Ints:
        return self.has_system + self.has_opening + self.asked + self.answered

    def taken(self, chosen: Ints) -> "_Rows":
        sizes = self.sizes[chosen]
        starts = np.cumsum(sizes) - sizes
        parts = (self.has_system, self.has_opening, self.asked, self.answered, self.number)
        return _Rows(self.tokens[_ranges(self.starts[chosen], sizes)], starts, *(part[chosen] for part in parts))


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """Give starts[0], starts[0] + 1, … (sizes[0] numbers), starts[1], …"""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def _joined(parts: list[_Rows]) -> _Rows:
    if not parts:
        return _Rows(np.zeros(0, np.int32), *(np.zeros(0, np.int64) for _ in range(6)))
    shifts = np.cumsum([0] + [len(part.tokens) for part in parts[:-1]])
    starts = np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=True)])
    names = ("has_system", "has_opening", "asked", "answered", "number")
    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return _Rows(np.concatenate([part.tokens for part in parts]), starts, *rest)


class _Shard:
    """One shard in the making. The rows kept aside stand before its own in all arrays, so that both can be copied."""

    def __init__(self, lexicon: _Lexicon, draw: np.random.Generator, count: int, start: int, aside: _Rows) -> None:
        self.lexicon, self.draw, self.count, self.start, self.aside = lexicon, draw, count, start, aside
        self.first = len(aside.number)

    def plan(self, duplicates: float, words: tuple[int, int], system: float) -> None:
        """Decide which rows are copies of which, and how long all rows are."""
        draw, n, aside = self.draw, self.count, self.aside
        copy = draw.random(n) < duplicates
        if self.first == 0:
            copy[0] = False
        own = np.flatnonzero(~copy)
        self.copies = np.flatnonzero(copy)
        earlier = np.searchsorted(own, self.copies)
        inside = own[(draw.random(len(earlier)) * np.maximum(earlier, 1)).astype(np.int64)] + self.first
        outside = draw.integers(max(self.first, 1), size=len(earlier))
        aside_share = ASIDE_SHARE if self.first else 0.0
        self.origins = np.where((draw.random(len(earlier)) < aside_share) | (earlier == 0), outside, inside)
        self.kinds = draw.choice(len(KINDS), size=len(self.copies), p=KIND_SHARES)
        lengths = [
            np.maximum(least, draw.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, n)).astype(np.int64)
            for mean, least in zip(words, LEAST_WORDS, strict=True)
        ]
        has = [(draw.random(n) < share).astype(np.int64) for share in (system, 0.5)]
        names = ("has_system", "has_opening", "asked", "answered")
        parts = {m: np.concatenate([getattr(aside, m), v]) for m, v in zip(names, (*has, *lengths), strict=True)}
        at = self.copies + self.first
        for name in names[:3]:
            parts[name][at] = parts[name][self.origins]
        kept_answer = self.kinds != KINDS.index("conflict")
        parts["answered"][at[kept_answer]] = parts["answered"][self.origins[kept_answer]]
        numbers = np.concatenate([aside.number, np.arange(self.start, self.start + n)])
        sizes = sum(parts.values())
        starts = np.cumsum(sizes) - sizes
        self.rows = _Rows(np.empty(int(sizes.sum()), np.int32), starts, **parts, number=numbers)

    def write(self) -> None:
        """Draw the words of all rows, then put the copies in place and exchange words in the near ones."""
        rows, draw, lexicon, first = self.rows, self.draw, self.lexicon, self.first
        tokens, before = rows.tokens, len(self.aside.tokens)
        tokens[:before] = self.aside.tokens
        tokens[before:] = lexicon.words(draw, len(tokens) - before)
        ends = (rows.starts + rows.sizes)[first:]
        tokens[ends - rows.answered[first:] - 1] += VOCABULARY
        tokens[ends - 1] += 2 * VOCABULARY
        for has, base, many, at in (
            (rows.has_system, lexicon.system, SYSTEM_PROMPTS, rows.starts),
            (rows.has_opening, lexicon.opening, OPENINGS, rows.starts + rows.has_system),
        ):
            places = at[first:][has[first:] == 1]
            tokens[places] = base + draw.integers(many, size=len(places))
        at = self.copies + first
        size = np.where(self.kinds == KINDS.index("conflict"), rows.sizes[at] - rows.answered[at], rows.sizes[at])
        tokens[_ranges(rows.starts[at], size)] = tokens[_ranges(rows.starts[self.origins], size)]
        blanks = at[self.kinds == KINDS.index("blanks")]
        places = _ranges(rows.starts[blanks], rows.sizes[blanks])
        places = places[(draw.random(len(places)) < 0.1) & (tokens[places] < VOCABULARY)]
        tokens[places] += (VOCABULARY * draw.integers(3, 6, size=len(places))).astype(np.int32)
        self._exchange(np.flatnonzero(self.kinds == KINDS.index("near")))

    def _exchange(self, near: Ints) -> None:
        """Exchange words of the near copies, in the question, the answer or both, and count the 5-grams that change."""
        rows, draw, tokens = self.rows, self.draw, self.rows.tokens
        at = self.copies[near] + self.first
        asked, answered = rows.asked[at], rows.answered[at]
        ahead = rows.has_system[at] * SYSTEM_WORDS + rows.has_opening[at] * OPENING_WORDS
        place = draw.integers(3, size=len(at))  # 0 the question, 1 the answer, 2 both
        low, high = np.where(place == 1, asked, 0), np.where(place == 0, asked, asked + answered)
        aim = draw.uniform(*JACCARD_RANGE, len(at))
        lost = (ahead + asked + answered - NGRAM + 1) * (1 - aim) / (1 + aim)
        many = np.clip(np.round(lost / NGRAM), 1, np.maximum(1, (high - low) // NGRAM)).astype(np.int64)
        owner = np.repeat(np.arange(len(at)), many)
        nth = _ranges(np.zeros(len(at), np.int64), many)
        width = ((high - low) / many)[owner]  # one word in each stretch, and no two in one 5-gram where there is room
        offset = (nth + 0.8 * draw.random(len(owner)) * np.maximum(0.0, 1 - NGRAM / width)) * width
        word = low[owner] + offset.astype(np.int64)
        places = (rows.starts + rows.has_system + rows.has_opening)[at][owner] + word
        old, new = tokens[places], self.lexicon.words(draw, len(places))
        new = np.where(new == old % VOCABULARY, (new + 1) % VOCABULARY, new)
        tokens[places] = new + old - old % VOCABULARY
        ones = np.ones(len(self.copies))
        self.jaccards = {"record": ones.copy(), "exchange": ones.copy(), "answer": ones.copy()}
        exchange = rows.has_opening[at] * OPENING_WORDS
        for part, shift, length in (
            ("record", ahead, ahead + asked + answered),
            ("exchange", exchange, exchange + asked + answered),
            ("answer", -asked, answered),
        ):
            self.jaccards[part][near] = _jaccard_after(word + shift[owner], owner, length)

    def truth(self, seed: int) -> pl.DataFrame:
        rows, at = self.rows, self.copies + self.first
        conflict = self.kinds == KINDS.index("conflict")  # how alike the other answer leaves the row, counted likewise
        for part, extra in (("record", rows.has_system * SYSTEM_WORDS), ("exchange", 0 * rows.has_system)):
            given = (extra + rows.has_opening * OPENING_WORDS + rows.asked)[at]
            shared = given - NGRAM + 1
            union = 2 * given + rows.answered[at] + rows.answered[self.origins] - 2 * (NGRAM - 1) - shared
            self.jaccards[part][conflict] = (shared / union)[conflict]
        self.jaccards["answer"][conflict] = 0.0
        row, origin = rows.number[at], rows.number[self.origins]
        return pl.DataFrame(
            {
                "row": row,
                "origin": origin,
                "id": _ids(row, seed),
                "origin_id": _ids(origin, seed),
                "kind": np.array(KINDS)[self.kinds],
                **{f"{part}_jaccard": values for part, values in self.jaccards.items()},
            }
        )

    def some(self, count: int) -> _Rows:
        """Give rows of this shard that are no copies, for later shards to copy."""
        own = np.setdiff1d(np.arange(self.count), self.copies) + self.first
        return self.rows.taken(np.sort(self.draw.choice(own, size=min(count, len(own)), replace=False)))

    def frame(self, source: str, seed: int) -> pl.DataFrame:
        rows, first, n = self.rows, self.first, self.count
        taken = self.lexicon.tokens.take(pa.array(rows.tokens[len(self.aside.tokens) :]))
        offsets = np.frombuffer(taken.buffers()[1], np.int64, len(taken) + 1)
        has = rows.has_system[first:]
        turns = 2 + has
        last = np.cumsum(turns)
        sizes = np.empty(int(last[-1]), np.int64)
        sizes[last - 1], sizes[last - 2] = rows.answered[first:], (rows.asked + rows.has_opening)[first:]
        sizes[(last - 3)[has == 1]] = 1
        role = np.full(len(sizes), 0)
        role[last - 1], role[last - 2] = 2, 1
        content = pa.Array.from_buffers(
            pa.large_string(),
            len(sizes),
            [None, pa.py_buffer(offsets[np.concatenate([[0], np.cumsum(sizes)])]), taken.buffers()[2]],
        )
        roles = pa.array(["system", "user", "assistant"], pa.large_string()).take(pa.array(role))
        absent = pa.nulls(len(sizes), pa.large_string())
        turn = pa.StructArray.from_arrays([roles, content, absent, absent], ["role", "content", "name", "tool_calls"])
        messages = pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], last])), turn)
        number = rows.number[first:]
        said = number.copy()
        exact = self.kinds == KINDS.index("exact")
        said[self.copies[exact]] = rows.number[self.origins[exact]]
        ids = _ids(number, seed)
        known = {
            "id": ids,
            "source": pl.repeat(source, n, eager=True),
            "source_key": ids,
            "source_file": pl.repeat(f"{source}.jsonl", n, eager=True),
            "source_row": number + 1,
            "messages": pl.Series(pl.from_arrow(messages)),
            "content_hash": _ids(said, seed + 1),
        }
        return pl.DataFrame({c: known.get(c, pl.Series([None] * n, dtype=t)) for c, t in TEXT_SCHEMA.items()})


def _jaccard_after(word: Ints, owner: Ints, length: Ints) -> NDArray[np.float64]:
    """Give the Jaccard similarity of texts of `length` words before and after other words stand at `word`.

    Each exchanged word changes the 5-grams over it; `word` rises within an owner, may be outside of its text, and the
    new words make no 5-gram that was there before.
    """
    grams = np.maximum(length - NGRAM + 1, 1)
    previous = np.where(np.concatenate([[False], owner[1:] == owner[:-1]]), np.concatenate([[0], word[:-1]]), -1)
    begin = np.maximum(np.maximum(word - NGRAM + 1, previous + 1), 0)
    end = np.minimum(word, grams[owner] - 1)
    changed = np.where((word >= 0) & (word < length[owner]), np.maximum(0, end - begin + 1), 0)
    lost = np.bincount(owner, weights=changed, minlength=len(length))
    return (grams - lost) / (grams + lost)


def _ids(numbers: Ints, seed: int) -> pl.Series:
    """Give 32 hex digits for each number, no two the same for a seed (splitmix64 is one to one)."""
    halves = []
    for half in (0, 1):
        x = numbers.astype(np.uint64) + np.uint64((2 * seed + half) << 40)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        halves.append(x ^ (x >> np.uint64(31)))
    octets = np.stack(halves, axis=1).view(np.uint8)
    digits = np.array([f"{i:02x}" for i in range(256)], "S2")[octets]
    ends = np.arange(len(numbers) + 1, dtype=np.int64) * 32
    text = pa.Array.from_buffers(
        pa.large_string(), len(numbers), [None, pa.py_buffer(ends), pa.py_buffer(digits.tobytes())]
    )
    return pl.Series(pl.from_arrow(text))


def generated(rows: int, *, seed: int = 0, source: str = "generated") -> Iterator[pl.DataFrame]:
    """Give text shards of rows whose words are drawn by Zipf's law from 30,000 made-up words."""
    draw = np.random.default_rng(seed)
    letters = "aeiourtnslkmdpbgf"
    vocabulary = np.array(["".join(draw.choice(list(letters), size=n)) for n in draw.integers(2, 9, 30_000)])
    for start in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - start)
        lengths = draw.poisson((WORDS_PER_PROMPT, WORDS_PER_RESPONSE), (count, 2)) + 3
        picks = np.minimum(draw.zipf(1.2, int(lengths.sum())), len(vocabulary)) - 1
        yield _shard(vocabulary[picks], lengths, start, source)


def _shard(words: np.ndarray, lengths: np.ndarray, start: int, source: str) -> pl.DataFrame:
    ends = np.cumsum(lengths.ravel())
    texts = [" ".join(words[a:b]) for a, b in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)]
    full = []
    for i in range(len(lengths)):
        turns = [
            {"role": role, "content": text, "name": None, "tool_calls": None}
            for role, text in (("user", texts[2 * i] + "?"), ("assistant", texts[2 * i + 1] + "."))
        ]
        key = hashlib.blake2b(str(start + i).encode(), digest_size=16).hexdigest()
        full.append((lineage_id(source, key), key, start + i + 1, turns, content_hash(turns, None)))
    columns = ["id", "source_key", "source_row", "messages", "content_hash"]
    frame = pl.DataFrame(full, schema={c: TEXT_SCHEMA[c] for c in columns}, orient="row")
    fixed = {"source": source, "source_file": "generated.jsonl"}
    absent = [c for c in TEXT_SCHEMA if c not in columns and c not in fixed]
    return frame.with_columns(
        **{c: pl.lit(v) for c, v in fixed.items()}, **{c: pl.lit(None, dtype=TEXT_SCHEMA[c]) for c in absent}
    ).select(list(TEXT_SCHEMA))
