import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.step.batch import IGNORE, make_batch
from train.text.tokens import Example

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
