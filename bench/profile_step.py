"""Where the time of a training step goes: `python -m bench.profile_step`, on a GPU where there is one, else on a CPU.

A Llama of random weights trains on packed rows of random tokens; torch's profiler says which operators took the time,
and here they are added up by what they are for: on a CPU operators, on a GPU its kernels. As in a run, layers are
compiled on a GPU, where one fused kernel does the work of many operators. Tokens per second are those of steps without
the profiler. The table is what docs/profile.md shows.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import LlamaConfig, LlamaForCausalLM

from schemas.train_config import TrainConfig
from train.step import attention
from train.step.attention import packed_hidden
from train.step.batch import make_batch
from train.step.compiled import compile_layers, fixed_shape
from train.step.loss import head_of, target_nll
from train.step.optimizer import Updater
from train.text.tokens import Example, Tokens

SHAPES: dict[str, dict[str, Any]] = {
    "7m": {"vocab_size": 8000, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
           "num_attention_heads": 8, "num_key_value_heads": 4},
    "1b": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True},
}  # fmt: skip
GROUPS = {
    "attention": ("attend_records", "varlen", "flash", "fmha"),
    "optimizer": ("adam", "foreach", "multi_tensor"),
    "norms, rotary embedding, activation: fused kernels": ("triton",),
    "matrix products": ("mm", "gemm", "nvjet", "cutlass", "linear"),
    "softmax of the loss": ("exp", "amax", "maxops", "scatter", "gather", "logsumexp"),
    "copies and memory": (
        "copy", "memcpy", "memset", "clone", "cat", "index", "embedding", "empty", "zero", "fill", "contiguous",
    ),
    "norms, rotary embedding, activation": ("mul", "add", "silu", "rsqrt", "pow", "mean", "neg", "sum", "div"),
}  # fmt: skip
STEPS, WARM = 3, 2


def main() -> None:
    """Profile some steps after warm-up and print the shares as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument("--shape", choices=SHAPES, default="1b" if cuda else "7m")
    parser.add_argument("--max-tokens", type=int, default=4096 if cuda else 1024)
    parser.add_argument("--rows", type=int, default=4)
    chosen = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    attention.register()
    with device:
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[chosen.shape], max_position_embeddings=chosen.max_tokens))
    model.set_attn_implementation(attention.NAME)
    model.train()
    head = head_of(model.lm_head, model.config)
    updater = Updater(model.named_parameters(), TrainConfig.model_validate({"method": "full"}))
    tokens, rows = made_up(chosen.rows, chosen.max_tokens, model.config.vocab_size)
    shape: dict[str, int] = {}
    if cuda:
        compile_layers(model, say=print)
        longest = int(tokens.lengths.max())
        shape = fixed_shape(sum(map(len, rows)), longest, micro_batch=chosen.rows, max_tokens=chosen.max_tokens)

    def step() -> int:
        with record_function("data"):
            batch = make_batch(tokens, rows, **shape).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            loss = target_nll(head, packed_hidden(model.model, batch), batch).sum() / batch.targets
        loss.backward()
        updater.step(1e-5, loss.detach())
        return batch.tokens

    def steps(count: int) -> int:
        done = sum(step() for _ in range(count))
        if cuda:
            torch.cuda.synchronize()
        return done

    steps(WARM)
    started = time.perf_counter()
    rate = steps(STEPS) / (time.perf_counter() - started)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        steps(STEPS)
    spent: dict[str, float] = {}
    for event in found.key_averages():
        what = group_of(event.key)
        if not cuda:
            spent[what] = spent.get(what, 0.0) + event.self_cpu_time_total
        elif event.device_type.name == "CUDA" and not event.is_user_annotation:  # operators have the time too
            spent[what] = spent.get(what, 0.0) + event.self_device_time_total
    name = f"{torch.cuda.get_device_name()}, layers compiled" if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{chosen.shape} full, {chosen.rows} rows of {chosen.max_tokens} on {name}: {rate:,.0f} tokens/s\n")
    print("| what | share of the time |\n|---|---|")
    total = sum(spent.values())
    for what, time_us in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {what} | {time_us / total:.1%} |")


def group_of(operator: str) -> str:
    """Name what an operator is for."""
    lowered = operator.lower()
    return next((what for what, parts in GROUPS.items() if any(part in lowered for part in parts)), "the rest")


def made_up(rows: int, max_tokens: int, vocabulary: int) -> tuple[Tokens, list[tuple[int, ...]]]:
    """Make rows of records of random tokens, an eighth to a quarter of one long; the latter 60% are targets."""
    random = np.random.default_rng(0)
    examples: list[Example] = []
    laid: list[tuple[int, ...]] = []
    for _ in range(rows):
        row: list[int] = []
        left = max_tokens
        while left > max_tokens // 8:
            length = min(left, int(random.integers(max_tokens // 8, max_tokens // 4)))
            supervised = np.arange(length) >= 0.4 * length
            row.append(len(examples))
            ids = random.integers(0, vocabulary, length).astype(np.int32)
            examples.append(Example(str(len(examples)), "made up", 1.0, ids, supervised))
            left -= length
        laid.append(tuple(row))
    return Tokens.of(examples), laid


if __name__ == "__main__":
    main()
