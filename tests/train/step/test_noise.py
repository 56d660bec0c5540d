"""NEFTune: noise on embeddings by the length of the record, while training, repeatable from torch's generator."""

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.world import small_llama
from train.model.trainee import Trainee
from train.step.batch import PackedBatch, make_batch
from train.step.noise import noisy_embeddings
from train.text.tokens import Example

MODEL = small_llama(50)


def batch_of(lengths: list[int], pad_tokens: int | None = None) -> PackedBatch:
    examples = [Example(str(i), "a", 1.0, np.full(n, i, np.int32), np.ones(n, np.bool_)) for i, n in enumerate(lengths)]
    return make_batch(examples, [tuple(range(len(lengths)))], pad_tokens=pad_tokens)


def noise(batch: PackedBatch, alpha: float | None) -> torch.Tensor:
    embeddings = MODEL.get_input_embeddings()
    plain = embeddings(batch.input_ids_1N)
    with noisy_embeddings(MODEL, batch, alpha):
        noisy = embeddings(batch.input_ids_1N)
    assert torch.equal(embeddings(batch.input_ids_1N), plain)  # nothing stays behind
    return (noisy - plain)[0].detach()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.5, 20), st.sampled_from([None, 256]))
def test_noise_is_bounded_by_alpha_over_the_root_of_the_records_size(
    lengths: list[int], alpha: float, pad_tokens: int | None
) -> None:
    MODEL.train()
    batch = batch_of(lengths, pad_tokens)
    found = noise(batch, alpha)
    bounds: list[int] = batch.cu_seqlens_S.tolist()
    for start, end in list(pairwise(bounds))[: len(lengths)]:
        most = alpha / sqrt((end - start) * found.shape[1])
        largest = found[start:end].abs().max().item()
        assert 0.2 * most < largest <= most * (1 + 1e-3) + 1e-6


def test_noise_fills_its_range_evenly_around_zero() -> None:
    MODEL.train()
    torch.manual_seed(0)
    found = noise(batch_of([400, 100]), 5.0)
    for part, length in ((found[:400], 400), (found[400:], 100)):
        most = 5.0 / sqrt(length * 16)
        assert abs(part.mean().item()) < 0.05 * most
        assert abs(part.std().item() / (most / sqrt(3)) - 1) < 0.05


def test_the_generators_state_gives_the_same_noise_again() -> None:
    MODEL.train()
    batch = batch_of([7, 9])
    state = torch.get_rng_state()
    first = noise(batch, 5.0)
    assert not torch.equal(noise(batch, 5.0), first)
    torch.set_rng_state(state)
    assert torch.equal(noise(batch, 5.0), first)


def test_outside_training_and_without_alpha_there_is_none() -> None:
    batch = batch_of([7, 9])
    MODEL.eval()
    assert not noise(batch, 5.0).any()
    MODEL.train()
    assert not noise(batch, None).any()


def test_a_trainee_trains_with_noise_and_scores_without(trainee_of: Callable[..., Trainee]) -> None:
    trainee, batch = trainee_of(method="full", neftune=5.0), batch_of([7, 9])
    trainee.model.train()
    with torch.no_grad():
        assert not torch.equal(trainee.nll(batch), trainee.nll(batch))
        trainee.model.eval()
        assert torch.equal(trainee.nll(batch), trainee.nll(batch))
