"""Stop tokens and BOS are checked for every record, however the columns lie."""

from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckFailedError
from tests.train.world import record
from train.preflight import masks
from train.preflight.masks import check_bos, check_stops, pieces
from train.text.template import Encoded, Template, encode
from train.text.tokens import Example, Tokens


def without_last_target(example: Example) -> Example:
    cut = example.supervised.copy()
    cut[np.flatnonzero(cut)[-1]] = False
    return Example(example.id, example.source, 1.0, example.input_ids, cut)


@pytest.mark.parametrize("piece", [50, 1 << 22])
def test_a_turn_without_its_stop_token_among_the_targets_is_refused_by_name(
    encoded: Encoded, template: Template, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(masks, "PIECE_TOKENS", piece)
    examples = list(encoded.examples)
    check_stops(Tokens.of(examples), template)
    examples[5], examples[9] = without_last_target(examples[5]), without_last_target(examples[9])
    with pytest.raises(CheckFailedError, match="does not end in a stop token") as error:
        check_stops(Tokens.of(examples), template)
    assert examples[5].id in str(error.value)
    assert "2 of 24 records" in str(error.value)


def test_an_inner_turn_without_its_stop_token_is_refused_too(encoded: Encoded, template: Template) -> None:
    examples = list(encoded.examples)
    several = next(e for e in examples if (np.diff(e.supervised.astype(int)) == 1).sum() == 3)
    ends = np.flatnonzero(several.supervised[:-1] & ~several.supervised[1:])
    cut = several.supervised.copy()
    cut[ends[0]] = False
    broken = Example(several.id, several.source, 1.0, several.input_ids, cut)
    with pytest.raises(CheckFailedError, match=several.id):
        check_stops(Tokens.of([broken]), template)


def test_targets_up_to_the_end_of_one_record_do_not_run_into_the_next(template: Template) -> None:
    """Without the newline after the stop token, records whose all tokens are targets lie next to each other."""
    stop = next(iter(sorted(template.stop_ids)))
    plain = next(i for i in range(1000) if i not in template.stop_ids)
    all_targets = np.asarray([True, True])
    good = Example("1", "a", 1.0, np.asarray([plain, stop], np.int32), all_targets)
    bad = Example("2", "a", 1.0, np.asarray([plain, plain], np.int32), all_targets)
    check_stops(Tokens.of([good, good]), template)
    with pytest.raises(CheckFailedError, match="record 2 of a"):
        check_stops(Tokens.of([good, bad, good]), template)


def test_two_bos_are_refused(tokenizer: Any) -> None:
    tokenizer.bos_token = "<|pad|>"  # noqa: S105 # no password
    tokenizer.chat_template = (
        "{{ bos_token + bos_token }}{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
    )
    template = Template(tokenizer, "test")
    found = encode([record(1, ("user", "hi"), ("assistant", "there"))], template, max_tokens=99)
    with pytest.raises(CheckFailedError, match="begins with two"):
        check_bos(Tokens.of(found.examples), template)


def test_pieces_hold_every_example_once_as_it_is(encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens.of(encoded.examples)
    for size in (1, 60, 1000):
        monkeypatch.setattr(masks, "PIECE_TOKENS", size)
        for columns in (tokens, tokens.chosen(np.asarray([1, 5, 3, 20]))):
            seen: list[int] = []
            for piece in pieces(columns):
                for at, a, b in zip(piece.at, piece.bounds[:-1], piece.bounds[1:], strict=True):
                    seen.append(int(at))
                    assert (piece.input_ids[a:b] == columns[int(at)].input_ids).all()
                    assert (piece.supervised[a:b] == columns[int(at)].supervised).all()
            assert sorted(seen) == list(range(len(columns)))
