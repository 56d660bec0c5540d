"""The self-test: two records in one packed row must get the logits that they get alone, from the model's own forward.

The packed row goes through our attention and our head, the single records through transformers' own attention and the
model's whole forward. It finds a leak between records, a layer that ignores the bounds, a head that does more than
ours, whatever the cause: what is not known to be packable is not believed to be.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from schemas.errors import CheckFailedError, SftError
from train.model.trainee import Trainee
from train.step.batch import PackedBatch, make_batch
from train.text.tokens import Example, Tokens

TOLERANCE = {None: 1e-3, torch.float16: 1e-1, torch.bfloat16: 1e-1}
"""Largest difference of a token's logits (root mean square over the vocabulary), in standard deviations of the logits.
Of Llamas of 4 and 24 layers, rounding alone made 3e-5 of it in fp32 and 5e-2 in bf16, a leak between records 1.3; the
largest difference of a single logit would be 0.2 in bf16 without any leak."""

SELF_TEST_TOKENS = 256
"""Tokens per record of the self-test, at most, so that it takes no time. A leak shows at a record's first token."""


def self_test(trainee: Trainee, examples: Sequence[Example]) -> float:
    """Compare logits of two records in one packed row with those of each alone, by the model's own forward.

    Gives the largest difference in standard deviations of the logits. Raises CheckFailedError where it is too large, or
    where the model cannot run packed at all.
    """
    lengths = Tokens.of(examples).lengths
    pair = [_head_of_record(examples[int(i)]) for i in lengths.argsort(kind="stable")[len(examples) // 2 :][:2]]
    pair = pair * 2 if len(pair) == 1 else pair
    was_training = trainee.model.training
    trainee.model.eval()
    try:
        with torch.inference_mode(), trainee.device.compute():
            batch = make_batch(pair, [(0, 1)]).to(trainee.device.device)
            packed_NV = trainee.head(trainee.hidden(batch)[0])
            alone_NV = _alone(trainee, batch)
    except SftError:
        raise
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"the model does not run on packed rows ({type(error).__name__}: {str(error).strip()[:200]})",
            "a model whose attention goes through transformers' AttentionInterface",
        ) from error
    finally:
        trainee.model.train(was_training)
    if not alone_NV.isfinite().all():
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"the model gives {'NaN' if alone_NV.isnan().any() else 'infinite'} logits, packed or not",
            "finite numbers",
            "its weights are broken, or too large for this --precision: choose another model",
        )
    spread = alone_NV.std().clamp_min(1e-12)
    difference = float((packed_NV - alone_NV).square().mean(1).sqrt().max() / spread)
    allowed = TOLERANCE[trainee.device.autocast]
    if not difference <= allowed:
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"logits of packed records differ from those alone by {difference:.2g} standard deviations",
            f"at most {allowed:g}: records leak into each other, or the head is not understood",
            "choose another model",
        )
    return difference


def _alone(trainee: Trainee, batch: PackedBatch) -> Tensor:
    """Logits (N, V) of each record by itself: stock attention, the whole model, no packing."""
    bounds: list[int] = batch.cu_seqlens_S.tolist()
    with trainee.stock_attention():
        parts = [
            trainee.network(input_ids=batch.input_ids_1N[:, start:end], use_cache=False).logits[0].float()
            for start, end in pairwise(bounds)
        ]
    return torch.cat(parts)


def _head_of_record(example: Example) -> Example:
    cut = slice(0, SELF_TEST_TOKENS)
    return Example(example.id, example.source, 1.0, example.input_ids[cut], example.supervised[cut])
