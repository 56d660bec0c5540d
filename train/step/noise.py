"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings while training, so that less is learnt by heart.

Legend: N tokens of a batch, S records + 1, C embedding size.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from train.step.batch import PackedBatch


@contextmanager
def noisy_embeddings(backbone: PreTrainedModel, batch: PackedBatch, alpha: float | None) -> Generator[None]:
    """Add noise to what the embedding layer gives for `batch`; none without an alpha, and none outside training.

    Each number is drawn from [-1, 1] times alpha / sqrt(L x C), L being the tokens of its record: a record gets the
    noise that it would get alone, however long the row is that it lies in. torch's own generator draws it, whose state
    is in every checkpoint.
    """
    if alpha is None or not backbone.training:
        yield
        return
    length_N = batch.cu_seqlens_S.diff()[batch.segment_N]

    def add(_layer: nn.Module, _inputs: object, embedded_1NC: Tensor) -> Tensor:
        size_N1 = alpha * (length_N * embedded_1NC.shape[-1]).rsqrt()[:, None]
        return embedded_1NC + torch.empty_like(embedded_1NC).uniform_(-1, 1) * size_N1.to(embedded_1NC.dtype)

    hook = backbone.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
