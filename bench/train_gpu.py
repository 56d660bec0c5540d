"""Training on a GPU, side by side: tokens per second, memory and MFU of this trainer, TRL and transformers.

    python -m bench.train_gpu [--shapes 1b-full 8b-lora] [--steps 14] [--plot docs/plots]

One command makes all it needs: rows of drawn lengths, a tokenizer, and Llama shapes with random weights; nothing is
downloaded. Every contestant gets the same rows, model, optimizer, precision, recomputation of activations and number
of packed rows per step. TRL and transformers run with torch.compile and with each attention that they can use there;
the fastest counts.

MFU: model FLOPs per second over the device's dense bf16 peak. Per token of a row of T tokens, with N weights in
matrices (the embedding is a look-up), L layers and C hidden: forward 2N + 2LTC (causal: half of the T x T scores),
backward twice that under full; under LoRA the weights' gradients are left out: 4N + 6LTC in all (the 4N convention).
Recomputed activations count as nothing.
"""

import argparse
import json
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.train_cpu import CHATML, plot
from bench.trainers import CONTESTANTS, Outcome, Spec, contest

MAX_TOKENS = 4096
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16, from the data sheets, by a part of the device's name."""


@dataclass(frozen=True)
class Shape:
    """A Llama by its numbers, and how it is trained."""

    name: str
    method: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    tied: bool
    micro_batch: int
    rows_per_step: int
    checkpointing: str
    vocabulary: int = 128_256

    @property
    def matrices(self) -> int:
        """Weights in matrix products, the head included."""
        size = self.hidden // self.heads
        attention = self.hidden * self.hidden * 2 + self.hidden * self.key_heads * size * 2
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocabulary * self.hidden

    @property
    def flops_per_token(self) -> float:
        """FLOPs of forward and backward, by the convention above."""
        weights = 6 if self.method == "full" else 4
        return weights * self.matrices + 6 * self.layers * MAX_TOKENS * self.hidden


SHAPES = {
    "1b-full": Shape("Llama-3.2-1B", "full", 2048, 8192, 16, 32, 8, True, 4, 8, "none"),
    "8b-lora": Shape("Llama-3.1-8B", "lora", 4096, 14336, 32, 32, 8, False, 2, 4, "full"),
    # to try the script where there is no GPU
    "tiny": Shape("a few thousand weights", "full", 64, 128, 2, 4, 2, True, 2, 4, "none", 600),
}


def make_rows(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Make exchanges whose lengths are spread as instruction data's are: most short, some of thousands of tokens."""
    draw = random.Random(seed)
    letters = "bcdfghklmnprstvw"
    words = [
        "".join(draw.choice(letters) + draw.choice("aeiou") for _ in range(draw.randint(1, 4))) for _ in range(3000)
    ]

    def text(median: float) -> str:
        return " ".join(draw.choice(words) for _ in range(max(2, min(1400, int(draw.lognormvariate(0, 1.0) * median)))))

    return [[{"role": "user", "content": text(60)}, {"role": "assistant", "content": text(120)}] for _ in range(count)]


def make_model(shape: Shape, folder: Path, rows: list[list[dict[str, str]]]) -> None:
    """Save random weights in bf16 and a tokenizer made from the rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    size = min(8000, shape.vocabulary)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator((m["content"] for row in rows for m in row), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=special[0], eos_token=special[2])
    tokenizer.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=2 * MAX_TOKENS,
        tie_word_embeddings=shape.tied,
        rope_theta=500_000.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def lengths(folder: Path, rows: list[list[dict[str, str]]]) -> tuple[list[list[dict[str, str]]], float]:
    """Give the rows that fit, and how many of them fill a packed row."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = [len(tokenizer.apply_chat_template(row, return_dict=False)) for row in rows]
    kept = [row for row, size in zip(rows, sizes, strict=True) if size <= MAX_TOKENS]
    return kept, len(kept) / (sum(size for size in sizes if size <= MAX_TOKENS) / MAX_TOKENS)


def run_shape(shape: Shape, names: list[str], steps: int, rounds: int, work: Path) -> dict[str, Outcome]:
    """Let the contestants run one shape; give the best outcome of each."""
    import torch

    cuda = torch.cuda.is_available()
    rows = make_rows(shape.rows_per_step * steps * 40, seed=0)
    make_model(shape, work / "model", rows)
    rows, per_row = lengths(work / "model", rows)
    file = work / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    spec = Spec(
        model=str(work / "model"),
        rows=str(file),
        method=shape.method,
        max_tokens=MAX_TOKENS,
        rows_per_step=shape.rows_per_step,
        micro_batch=shape.micro_batch,
        records_per_row=per_row,
        steps=steps,
        warmup=4,
        lr=1e-5 if shape.method == "full" else 1e-4,
        precision="bf16" if cuda else "fp32",
        checkpointing=shape.checkpointing,
        threads=2,
        device="cuda" if cuda else "cpu",
    )
    best: dict[str, Outcome] = {}
    ways = ["sdpa", "flex_attention"] if cuda else ["sdpa"]
    for way in ways:
        here = [name for name in names if way == ways[0] or name not in ("sft", "bare")]
        for who, found in contest(replace(spec, attention=way), here, rounds, timeout_s=540):
            if isinstance(found, str):
                print(f"{who} ({way}): did not run: {found}", flush=True)
                continue
            print(f"{who} ({way}): {found.tokens_per_s:,.0f} tokens/s, {found.memory_gib:.1f} GiB", flush=True)
            if who not in best or found.tokens_per_s > best[who].tokens_per_s:
                best[who] = found
    shutil.rmtree(work / "model")
    return best


def table(shape: Shape, best: dict[str, Outcome]) -> None:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = next((value for part, value in PEAK_TFLOPS.items() if part in device), None)
    print(f"\n{shape.name}, {shape.method}, rows of {MAX_TOKENS}, on {device}, torch {torch.__version__}\n")
    print("| trainer | version | tokens/s | against TRL packed | MFU | padding | peak GiB | first, last loss |")
    print("|---|---|---|---|---|---|---|---|")
    against = best["trl-packed"].tokens_per_s if "trl-packed" in best else None
    for found in best.values():
        ratio = f"{found.tokens_per_s / against:.2f}" if against else ""
        mfu = f"{found.tokens_per_s * shape.flops_per_token / peak / 1e12:.1%}" if peak else ""
        print(
            f"| {found.name} ({found.configuration}) | {found.version} | {found.tokens_per_s:,.0f} | {ratio} | {mfu} "
            f"| {1 - found.tokens / found.slots:.1%} | {found.memory_gib:.1f} "
            f"| {found.losses[0]:.2f}, {found.losses[-1]:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=["1b-full", "8b-lora"])
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=["sft", "trl-packed", "transformers"])
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="folder for the loss curves")
    given = parser.parse_args()
    for name in given.shapes:
        with tempfile.TemporaryDirectory() as folder:
            best = run_shape(SHAPES[name], given.only, given.steps, given.rounds, Path(folder))
        table(SHAPES[name], best)
        if given.plot:
            plot(best, given.plot / f"train-gpu-{name}.svg")


if __name__ == "__main__":
    main()
