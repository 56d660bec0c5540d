"""A step of LoRA with each adapted layer as one operator, beside peft's own layer: `python -m bench.adapter`.

The model, its rows and its adapters are the same ones; only the layer's forward is exchanged, from step to step, so
that both are seen under the same load. Frozen Llama of random weights, adapters beside all linear layers but the head.
As in a run, a GPU holds the frozen weights in the precision of the computation; other than there, nothing is compiled.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench.profile_step import SHAPES, made_up
from train.step import attention
from train.step.adapter import AdaptedLinear
from train.step.attention import packed_hidden
from train.step.batch import make_batch
from train.step.loss import head_of, target_nll

LAYERS = {"one operator": AdaptedLinear.forward, "peft's layer": Linear.forward}
WARM = 2


def main() -> None:
    """Time steps of both layers in turn, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument("--shape", choices=SHAPES, default="1b" if cuda else "7m")
    parser.add_argument("--max-tokens", type=int, default=4096 if cuda else 1024)
    parser.add_argument("--rank", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{given.shape}, 2 rows of {given.max_tokens}, {given.steps} steps each, on {name}\n")
    print("| rank | compute | layer | least time | median | held for the backward pass |\n|---|---|---|---|---|---|")
    for rank in given.rank:
        for dtype in (torch.bfloat16,) if cuda else (torch.float32, torch.bfloat16):
            step = Step(given.shape, given.max_tokens, rank, dtype, device)
            seconds: dict[str, list[float]] = {layer: [] for layer in LAYERS}
            for turn in range(WARM + given.steps):
                for layer in sorted(LAYERS, reverse=bool(turn % 2)):
                    took = step.time(layer)
                    if turn >= WARM:
                        seconds[layer].append(took)
            for layer, all_s in seconds.items():
                told = f"{min(all_s):.3f} s | {statistics.median(all_s):.3f} s | {step.held(layer) / 2**20:,.1f} MiB"
                print(f"| {rank} | {str(dtype).removeprefix('torch.')} | {layer} | {told} |", flush=True)
            del step  # before the next model is made


class Step:
    """A forward and a backward pass over two packed rows."""

    def __init__(self, shape: str, max_tokens: int, rank: int, dtype: torch.dtype, device: torch.device) -> None:
        attention.register()
        torch.manual_seed(0)
        with device:
            model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], max_position_embeddings=max_tokens))
        if device.type == "cuda":
            torch.nn.Module.to(model, dtype)
        model.set_attn_implementation(attention.NAME)
        model.requires_grad_(False)
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        lora._register_custom_module({torch.nn.Linear: AdaptedLinear})  # pyright: ignore[reportPrivateUsage] # the one way that peft documents
        adapted: Any = get_peft_model(model, lora)
        self.model, self.network, self.device, self.dtype = adapted, adapted.get_base_model(), device, dtype
        self.head = head_of(self.network.lm_head, self.network.config)
        tokens, rows = made_up(2, max_tokens, self.network.config.vocab_size)
        self.batch = make_batch(tokens, rows).to(device)

    def time(self, layer: str) -> float:
        """Give the seconds of a step."""
        self._wait()
        began = time.perf_counter()
        self._loss(layer).backward()
        self._wait()
        took = time.perf_counter() - began
        self.model.zero_grad()
        return took

    def held(self, layer: str) -> int:
        """Give the bytes of what a forward pass keeps for the backward pass, weights left out."""
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self._loss(layer)
        del loss
        return sum(size for place, size in kept.items() if place not in weights)

    def _loss(self, layer: str) -> Tensor:
        AdaptedLinear.forward = LAYERS[layer]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            hidden = packed_hidden(self.network.model, self.batch)
            return target_nll(self.head, hidden, self.batch).sum() / self.batch.targets

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
