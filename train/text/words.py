"""Texts as token ids with their places, quickly: each word is tokenised once, and looked up from then on.

A byte-level BPE tokenizer cuts a text in pieces and tokenises each by itself. First it cuts at special tokens. Then its
pattern cuts, and in the patterns listed here no match goes on over a blank that follows something visible: a blank is
matched at the beginning of a piece, or within blanks alone. So a text may be cut before every such blank beforehand,
and the tokens of the parts, end to end, are those of the whole:

    <|im_end|>  Ada, the   first\\n one          the text
    <|im_end|>| Ada,| the|   first\\n one        where it may be cut (|)

Any other tokenizer gets the texts whole. Either way ids and places are those that the tokenizer gives: tests compare
them on texts that hypothesis makes up, and one record in SAMPLE is compared in every run.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.errors import ModelError
from train.text.chat import Template

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = frozenset({GPT2, *(CONTRACTIONS + digits + REST for digits in (r"\p{N}{1,3}", r"\p{N}"))})
"""The patterns of GPT-2, of Llama 3, and of Qwen 2: what most byte-level tokenizers cut by."""

PART = re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*\Z)?|\s+")
"""A part ends before a blank that follows something visible; other white space does not end it."""

MARK = "\0"
"""Stands before every blank where a text is cut quickly; texts that hold it are cut by PART."""

MOST_WORDS = 400_000
"""Words that are remembered; beyond, the memory is emptied: it holds about 200 bytes for each."""

MOST_LETTERS = 1 << 22
"""Letters of all words that are remembered, for texts whose words are long or have no blanks: ten in a word."""

SAMPLE = 64
"""One text in so many is tokenised whole as well, and compared."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """Texts as tokens, end to end. `starts` and `ends` are characters, counted over all texts joined."""

    ids: npt.NDArray[np.int32]  # (N,)
    starts: Ints  # (N,)
    ends: Ints  # (N,)
    bounds: Ints  # (T + 1,) where the tokens of each text begin, and the end
    bases: Ints  # (T + 1,) where the characters of each text begin, and the end
    exact: npt.NDArray[np.bool_]  # (N,) known to read, decoded, as the text at its place, whatever stands beside it


class Words:
    """A tokenizer that remembers words, where its kind allows that."""

    def __init__(self, template: Template) -> None:
        self._backend, self._name = template.backend, template.name
        self._backend.no_truncation()
        self._backend.no_padding()
        added = sorted((t.content for t in template.tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._reads: dict[int, str] = {}
        self.remembers = may_cut(json.loads(self._backend.to_str()))
        self._added = added
        self._splits = re.compile(f"({'|'.join(map(re.escape, added))})" if added else r"((?!))")
        self._forget()

    def _forget(self) -> None:
        self._word = pl.Categorical(pl.Categories.random())
        self._held = pl.Series([], dtype=self._word)  # polars forgets categories that no series has
        self._number = np.zeros(0, np.int64)  # of each category; -1 for one that is not known
        self._letters = 0
        self._ids, self._starts, self._ends = (np.zeros(0, np.int32) for _ in range(3))
        self._exact = np.zeros(0, np.bool_)
        self._long = np.zeros(0, np.int64)  # letters of each word
        self._open = np.zeros(0, np.bool_)  # words that end in white space
        self._blank = np.zeros(0, np.bool_)  # words that begin with a blank
        self._first = np.zeros(1, np.int64)  # where the tokens of each word begin, and the end

    def __len__(self) -> int:
        return len(self._long)

    def __call__(self, texts: Sequence[str]) -> Tokenised:
        """Tokenise texts, adding no special tokens. Raises ModelError where a word reads otherwise within its text."""
        if not self.remembers:
            return self._whole(texts)
        found = self._by_word(texts)
        for i in range(0, len(texts), SAMPLE):
            whole = self._whole(texts[i : i + 1])
            here = slice(int(found.bounds[i]), int(found.bounds[i + 1]))
            same = np.array_equal(whole.ids, found.ids[here])
            if not same or not np.array_equal(whole.ends, found.ends[here] - found.bases[i]):
                raise ModelError(
                    f"tokenizer of {self._name}",
                    f"a text has other tokens as a whole than word by word: {texts[i][:80]!r}",
                    "the same",
                    "report this: words.py takes this tokenizer for one that it knows",
                )
        return found

    def _whole(self, texts: Sequence[str]) -> Tokenised:
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        bounds, bases = _sums(map(len, ids), len(ids)), _sums(map(len, texts), len(texts))
        offsets = np.fromiter(
            chain.from_iterable(chain.from_iterable(e.offsets for e in encodings)), np.int64, 2 * int(bounds[-1])
        ).reshape(-1, 2)
        base = np.repeat(bases[:-1], np.diff(bounds))
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(bounds[-1]))
        unknown = np.zeros(len(flat), np.bool_)
        return Tokenised(flat, offsets[:, 0] + base, offsets[:, 1] + base, bounds, bases, unknown)

    def _by_word(self, texts: Sequence[str]) -> Tokenised:
        if len(self) > MOST_WORDS or self._letters > MOST_LETTERS:
            self._forget()
        number, ends = self._numbered(*self._cut_quickly(texts))
        if wrong := self._wrong(number, ends):
            careful, at = self._numbered(*self._cut([texts[i] for i in wrong]))
            of_text = [number[a:b] for a, b in pairwise(ends.tolist())]
            for k, i in enumerate(wrong):
                of_text[i] = careful[at[k] : at[k + 1]]
            number, ends = np.concatenate(of_text), _sums(map(len, of_text), len(of_text))
        counts = self._first[number + 1] - self._first[number]
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])  # tokens before each word
        at = np.repeat(self._first[number] - before[:-1], counts) + np.arange(before[-1])
        long = self._long[number]
        place = np.repeat(np.cumsum(long) - long, counts)
        bounds = before[ends]
        bases = _sums(map(len, texts), len(texts))
        return Tokenised(
            self._ids[at], self._starts[at] + place, self._ends[at] + place, bounds, bases, self._exact[at]
        )

    def _numbered(self, words: pl.Series, ends: Ints) -> tuple[Ints, Ints]:
        """Give the number of every word, learning those that are new; and `ends` as it came."""
        category = words.cast(self._word).to_physical().to_numpy()
        if (more := int(category.max(initial=0)) + 1 - len(self._number)) > 0:
            self._number = np.concatenate([self._number, np.full(more, -1)])
        number = self._number[category]
        unknown = np.flatnonzero(number < 0)
        if len(unknown):
            new, first = np.unique(category[unknown], return_index=True)
            known = len(self)
            try:
                self._learn(words.gather(unknown[first]).to_list())
            except BaseException:
                self._forget()  # some columns may have them, others not
                raise
            self._number[new] = np.arange(known, len(self))
            number = self._number[category]
        return number, ends

    def _wrong(self, number: Ints, ends: Ints) -> list[int]:
        """Name the texts that were not cut, or before a blank after white space: that is no place to cut."""
        after = np.flatnonzero(self._open[number[:-1]] & self._blank[number[1:]]) + 1
        of = np.searchsorted(ends, after, side="right") - 1
        empty = np.flatnonzero(np.diff(ends) == 0)
        return np.union1d(of[after > ends[of]], empty).tolist()

    def _cut_quickly(self, texts: Sequence[str]) -> tuple[pl.Series, Ints]:
        """Cut texts at their special tokens, and before every blank; texts that hold a MARK become no words at all.

        Gives the words of all, and where those of each text begin and the end: (T + 1,).
        """
        whole = pl.Series(texts, dtype=pl.String)
        whole = whole.set(whole.str.contains(MARK, literal=True), "")
        places = [*(MARK + token + MARK for token in self._added), MARK + " "]
        cut = whole.str.replace_many([*self._added, " "], places, leftmost=True).str.split(MARK)
        words = cut.explode()
        filled = words != ""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(filled.to_numpy())])
        return words.filter(filled), before[_sums(cut.list.len().to_list(), len(texts))]

    def _cut(self, texts: Sequence[str]) -> tuple[pl.Series, Ints]:
        """Cut as `_cut_quickly` does, but only before blanks that follow something visible."""
        of_text = [
            [
                word
                for i, part in enumerate(self._splits.split(text))
                for word in ([part] if i % 2 else PART.findall(part))
            ]
            for text in texts
        ]
        words = pl.Series(list(chain.from_iterable(of_text)), dtype=pl.String)
        return words, _sums(map(len, of_text), len(of_text))

    def _learn(self, words: list[str]) -> None:
        new = self._whole(words)
        self._letters += int(new.bases[-1])
        self._long = np.concatenate([self._long, np.diff(new.bases)])
        self._open = np.concatenate([self._open, [word[-1].isspace() for word in words]])
        self._blank = np.concatenate([self._blank, [word[0] == " " for word in words]])
        base = np.repeat(new.bases[:-1], np.diff(new.bounds))
        self._ids = np.concatenate([self._ids, new.ids])
        self._starts = np.concatenate([self._starts, (new.starts - base).astype(np.int32)])
        self._ends = np.concatenate([self._ends, (new.ends - base).astype(np.int32)])
        self._exact = np.concatenate([self._exact, self._decoded(words, new)])
        self._first = np.concatenate([self._first, self._first[-1] + new.bounds[1:]])

    def _decoded(self, words: list[str], new: Tokenised) -> npt.NDArray[np.bool_]:
        """Decode each token by itself and compare it with the text at its place; one that is part of a letter, or does
        not begin where the one before ends, is not exact. A byte-level decoder puts what tokens read end to end."""
        seen = [i for i in np.unique(new.ids).tolist() if i not in self._reads]
        self._reads.update(
            zip(seen, self._backend.decode_batch([[i] for i in seen], skip_special_tokens=False), strict=True)
        )
        text = "".join(words)
        places = zip(new.ids.tolist(), new.starts.tolist(), new.ends.tolist(), strict=True)
        exact = np.fromiter((self._reads[i] == text[a:b] for i, a, b in places), np.bool_, len(new.ids))
        exact[1:] &= new.starts[1:] == new.ends[:-1]
        exact[:1] &= new.starts[:1] == 0
        counts = np.diff(new.bounds)
        whole = np.zeros(len(words), np.bool_)  # words whose tokens end where they do
        some = counts > 0
        whole[some] = new.ends[new.bounds[1:][some] - 1] == new.bases[1:][some]
        return exact & np.repeat(whole, counts)


@lru_cache(maxsize=4)
def words_of(template: Template) -> Words:
    """Give what is remembered for a template: those who encode a few records at a time share it."""
    return Words(template)


def may_cut(tokenizer: dict[str, Any]) -> bool:
    """Say whether a text may be cut before blanks: by the parts of a tokenizer.json, all of which must be known."""
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    return (
        model["type"] == "BPE"
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and _keeps_cuts(tokenizer["normalizer"], added)
        and (tokenizer["decoder"] or {}).get("type") == "ByteLevel"
        and _cuts_at_blanks(tokenizer["pre_tokenizer"])
        and not any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added)
        and len({token["normalized"] for token in added}) < 2  # else some are looked for before others
        and not _moves_places(tokenizer["post_processor"])
    )


def _keeps_cuts(normalizer: dict[str, Any] | None, added: list[dict[str, Any]]) -> bool:
    """Say whether parts cut before blanks are normalised as the whole is: NFC composes nothing with a blank."""
    if normalizer is None:
        return True
    return normalizer == {"type": "NFC"} and not any(token["normalized"] for token in added)


def _cuts_at_blanks(step: dict[str, Any] | None) -> bool:
    """Say whether a pre-tokenizer cuts before every blank that follows something visible, and looks no further back."""
    steps: list[dict[str, Any]] = step["pretokenizers"] if step and step["type"] == "Sequence" else [step or {}]
    cuts = False
    for one in steps:
        kind = one.get("type")
        if kind == "ByteLevel" and not one["add_prefix_space"]:
            cuts |= one["use_regex"]
        elif kind == "Split" and one["behavior"] == "Isolated" and not one["invert"]:
            if one["pattern"].get("Regex") not in PATTERNS:
                return False
            cuts = True
        elif kind != "Digits":  # cuts around digits, whatever stands beside them
            return False
    return cuts


def _moves_places(step: dict[str, Any] | None) -> bool:
    """Say whether a post-processor may move the places of tokens by where they stand in the text."""
    steps: list[dict[str, Any]] = step["processors"] if step and step["type"] == "Sequence" else [step] if step else []
    return any(
        one["type"] != "TemplateProcessing"
        and not (one["type"] == "ByteLevel" and not (one["add_prefix_space"] and one["trim_offsets"]))
        for one in steps
    )


def _sums(counts: Any, length: int) -> Ints:
    """Give the running sums of counts, from 0: (length + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.fromiter(counts, np.int64, length))])
