"""The model that is trained, as the loop sees it."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from train.model.adapters import PeftModel
from train.model.device import Device
from train.step import attention, sharding
from train.step.batch import PackedBatch
from train.step.loss import Head, target_nll
from train.step.noise import noisy_embeddings


@dataclass(frozen=True, slots=True, eq=False)
class Trainee:
    """What is trained. `model` is what gets saved (a PEFT model under adapters), `network` the causal LM inside it."""

    model: PreTrainedModel | PeftModel
    network: PreTrainedModel
    backbone: nn.Module
    head: Head
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: Device
    notes: tuple[str, ...] = field(default=())
    neftune: float | None = None

    def hidden(self, batch: PackedBatch) -> Tensor:
        """Give the last hidden states of a packed batch, (1, N, C)."""
        with noisy_embeddings(self.network, batch, self.neftune):
            return attention.packed_hidden(self.backbone, batch)

    def nll(self, batch: PackedBatch) -> Tensor:
        """Give the negative log-likelihood of each target, (M,) fp32 nats: the one forward pass of training."""
        return sharding.passed(self.network, self._nll, batch)

    def _nll(self, batch: PackedBatch) -> Tensor:
        return target_nll(self.head, self.hidden(batch), batch)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights that training changes, each once, by name. Not while a pass is under way."""
        sharding.settle(self.network)
        yield from ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @contextmanager
    def stock_attention(self) -> Generator[None]:
        """Swap in transformers' own attention, for generation and as the oracle of the self-test."""
        self.network.set_attn_implementation("sdpa" if getattr(self.network, "_supports_sdpa", False) else "eager")
        try:
            yield
        finally:
            self.network.set_attn_implementation(attention.NAME)
