"""Fingerprints of what a record asks and of what it answers: 64 bits each, by which two splits are compared.

A record's prompt is its tokens that are no targets, its answer those that are. Both are hashed as normalised text,
straight from the tokens:

    token        ␣The  cat   \n   .        every token is decoded once, without outer space and case;
    word          17   244   -    9        those that read alike are one word, white space is none
    place          0     1   -    2        counted over the tokens that are words
    hash         sum of drawn(word) * drawn(place), modulo 2^64, of 64-bit numbers drawn for each, those of places odd

Two texts that differ have the same hash once in about 2^64 pairs. An edited row has another hash: finding those is the
work of near-duplicate clusters.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

UNSEEN = np.uint64(0)
"""The hash of a text without words."""

Words64 = npt.NDArray[np.uint64]


class Prints:
    """Makes fingerprints of what one tokenizer wrote, remembering what each token reads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._drawn = np.zeros(0, np.uint64)  # of each token; UNSEEN for white space
        self._known = np.zeros(0, np.bool_)

    def __call__(
        self, input_ids: npt.NDArray[np.int32], supervised: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]
    ) -> tuple[Words64, Words64]:
        """Hash the prompts and the answers of P texts, (P,) each; 0 for one without words.

        The texts lie end to end: (N,) tokens, of which those between two `bounds`, (P + 1,), are one text's.
        """
        self._learn(input_ids)
        words = self._drawn[input_ids]
        places = mix(np.arange(int(np.diff(bounds).max(initial=1)), dtype=np.uint64) << np.uint64(32)) | np.uint64(1)
        is_word = words != UNSEEN
        prompts, answers = (
            _hashed(words, places, is_word & part, bounds) for part in (np.logical_not(supervised), supervised)
        )
        return prompts, answers

    def _learn(self, input_ids: npt.NDArray[np.int32]) -> None:
        """Decode the tokens that were not seen before. A piece of a letter stands for itself: many read alike."""
        if (more := int(input_ids.max(initial=-1)) + 1 - len(self._known)) > 0:
            self._drawn = np.concatenate([self._drawn, np.zeros(more, np.uint64)])
            self._known = np.concatenate([self._known, np.zeros(more, np.bool_)])
        new = np.unique(input_ids[~self._known[input_ids]]).tolist()
        if not new:
            return
        reads = self._tokenizer.batch_decode(
            [[i] for i in new], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        for i, text in zip(new, reads, strict=True):
            word = f"\ufffd{i}" if "\ufffd" in text else text.strip().casefold()
            self._drawn[i] = _draw(word) if word else UNSEEN
        self._known[new] = True


def mix(words: Words64) -> Words64:
    """Scatter 64-bit words over all 64-bit words (the finaliser of splitmix64, Steele et al. 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _hashed(words: Words64, places: Words64, part: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]) -> Words64:
    """Hash one part of each text: its words, whatever stands between them."""
    at = np.flatnonzero(part)
    edges = np.searchsorted(at, bounds)  # where the words of each text begin among them
    place = np.arange(len(at)) - np.repeat(edges[:-1], np.diff(edges))
    sums = np.zeros(len(at) + 1, np.uint64)
    np.cumsum(words[at] * places[place], out=sums[1:])
    return sums[edges[1:]] - sums[edges[:-1]]  # modulo 2^64, so the differences are the sums


def _draw(word: str) -> int:
    """Draw 64 bits for a word, which are never 0."""
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little") | 1 << 63
