from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from train.model.trainee import Trainee
from train.step.batch import IGNORE, PackedBatch, make_batch
from train.step.loss import target_nll
from train.text.template import Encoded
from train.text.tokens import Example, Tokens

RECORDS = st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=8)


def examples_of(masks: list[list[bool]]) -> list[Example]:
    """Records whose token ids tell record and place: 1000 * record + place."""
    return [
        Example(str(r), "a", 1.0, np.asarray([1000 * r + t for t in range(len(m))], np.int32), np.asarray(m, np.bool_))
        for r, m in enumerate(masks)
    ]


@given(RECORDS)
def test_no_target_crosses_a_record_boundary(masks: list[list[bool]]) -> None:
    examples = examples_of(masks)
    batch = make_batch(examples, [tuple(range(len(examples)))])
    ids, labels = batch.input_ids_1N[0].tolist(), batch.labels_1N[0].tolist()
    targets = [(ids[t], labels[t + 1]) for t in range(len(ids) - 1) if labels[t + 1] != IGNORE]
    expected = [(1000 * r + t, 1000 * r + t + 1) for r, m in enumerate(masks) for t in range(len(m) - 1) if m[t + 1]]
    assert targets == expected
    assert batch.targets == len(expected) == sum(e.targets for e in examples)


@given(RECORDS)
def test_positions_restart_and_bounds_mark_every_record(masks: list[list[bool]]) -> None:
    examples = examples_of(masks)
    batch = make_batch(examples, [tuple(range(len(examples)))])
    assert batch.position_ids_1N[0].tolist() == [t for m in masks for t in range(len(m))]
    assert batch.cu_seqlens_S.dtype == torch.int32
    assert batch.cu_seqlens_S.diff().tolist() == [len(m) for m in masks]
    assert batch.segment_N.tolist() == [r for r, m in enumerate(masks) for _ in m]
    assert batch.max_seqlen == max(map(len, masks))


def test_making_a_batch_leaves_the_examples_as_they_were() -> None:
    examples = examples_of([[True, True], [True, True]])
    make_batch(examples, [(0, 1)])
    assert all(example.supervised.all() for example in examples)


@given(RECORDS, st.randoms(use_true_random=False))
def test_columns_in_several_chunks_give_the_batch_that_single_examples_give(
    masks: list[list[bool]], random: object
) -> None:
    examples = examples_of(masks)
    order = list(range(len(examples)))
    random.shuffle(order)  # type: ignore[attr-defined] # a random.Random
    columns = Tokens.joined([Tokens.of(examples[:3]), Tokens.of(examples[3:])])
    one, other = make_batch(examples, [tuple(order)]), make_batch(columns, [tuple(order)])
    for field in fields(PackedBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@given(RECORDS, st.integers(0, 200), st.integers(0, 20))
def test_padding_gives_every_batch_the_same_shapes_and_leaves_its_records_as_they_are(
    masks: list[list[bool]], more: int, left: int
) -> None:
    examples = examples_of(masks)
    rows = [tuple(range(len(examples)))]
    plain = make_batch(examples, rows)
    tokens, records = plain.tokens + more, len(examples) + bool(more) + left
    padded = make_batch(examples, rows, pad_tokens=tokens, pad_records=records)
    for name in ("input_ids_1N", "labels_1N", "position_ids_1N"):
        assert getattr(padded, name).shape == (1, tokens)
        assert torch.equal(getattr(padded, name)[:, : plain.tokens], getattr(plain, name))
    assert padded.segment_N.shape == (tokens,)
    assert padded.cu_seqlens_S.shape == (records + 1,)
    assert torch.equal(padded.cu_seqlens_S[: len(examples) + 1], plain.cu_seqlens_S)
    for name in ("targets_M", "records_M"):
        assert torch.equal(getattr(padded, name), getattr(plain, name))
    assert (padded.records, padded.targets, padded.tokens) == (plain.records, plain.targets, plain.tokens)


@given(RECORDS, st.integers(1, 200), st.integers(1, 20))
def test_padding_is_nobodys_target_in_segments_of_its_own(masks: list[list[bool]], more: int, left: int) -> None:
    examples = examples_of(masks)
    held = sum(map(len, masks))
    batch = make_batch(
        examples, [tuple(range(len(examples)))], pad_tokens=held + more, pad_records=len(examples) + left
    )
    assert (batch.labels_1N[0, held:] == IGNORE).all()
    assert (batch.segment_N[held:] == len(examples)).all()
    assert int(batch.position_ids_1N.max()) < max(map(len, masks)), "no position beyond those of the records"
    lengths = batch.cu_seqlens_S.diff()
    assert int(batch.cu_seqlens_S[-1]) == held + more
    assert (lengths >= 0).all()
    longest = max(map(len, masks))
    if left >= -(-more // longest):
        assert int(lengths.max()) <= longest
    assert int(lengths.max()) <= batch.max_seqlen < 2 * int(lengths.max())


@pytest.mark.parametrize(
    ("tokens", "records", "message"),
    [(6, 9, "7 tokens, more than the 6"), (9, 2, "2 records and padding"), (7, 1, "2 records")],
)
def test_rows_that_a_padded_batch_does_not_hold_are_an_error(tokens: int, records: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_batch(examples_of([[True] * 4, [True] * 3]), [(0, 1)], pad_tokens=tokens, pad_records=records)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_and_gradients_are_those_without_padding(
    encoded: Encoded, trainee_of: Callable[..., Trainee], method: str
) -> None:
    found: list[tuple[Tensor, list[Tensor]]] = []
    for settings in ({}, {"pad_tokens": 900, "pad_records": 12}, {"pad_tokens": 900}, {"pad_records": 8}):
        trainee = trainee_of(method=method)
        batch = make_batch(encoded.examples, [(3, 1), (4, 0, 2)], **settings)
        nll_M = target_nll(trainee.head, trainee.hidden(batch), batch)
        nll_M.sum().backward()
        found.append((nll_M, [p.grad for _, p in trainee.trainable() if p.grad is not None]))
    (plain, gradients), *others = found
    for nll_M, padded in others:
        torch.testing.assert_close(nll_M, plain, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(padded, gradients, rtol=1e-5, atol=1e-6)
