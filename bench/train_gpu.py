"""Training on a GPU, side by side: tokens per second, memory and MFU of this trainer, TRL and transformers.

    python -m bench.train_gpu [--shapes 1b-full 8b-lora] [--minutes 9] [--out outcomes] [--plot docs/plots]

One command makes all it needs: rows of drawn lengths, a tokenizer, and Llama shapes with random weights; nothing is
downloaded. Every contestant gets the same rows, model, optimizer, precision, recomputation of activations and number
of records per step. TRL and transformers have their layers compiled, as ours are. Packed TRL runs once with each
attention of --ways; what is not packed comes in passes of records of like length.

Four calls fill half an hour of a GPU; the first shows whether all contestants run there:

    python -m bench.train_gpu --shapes tiny --only sft trl-packed trl-unpacked transformers --minutes 3 --out outcomes
    python -m bench.train_gpu --shapes 1b-full --minutes 8 --out outcomes
    python -m bench.train_gpu --shapes 8b-lora --minutes 9 --out outcomes
    python -m bench.profile_step && python -m bench.adapter

A checkout will do. Beside torch, transformers, peft, pyarrow and scipy, ours needs the wheels of polars and pydantic;
TRL needs accelerate and those of datasets, dill, multiprocess, pandas and xxhash. TRL itself is read from the folder
that SFT_BENCH_TRAINERS names: where it is not there, pip is asked for it.

MFU: model FLOPs per second over the device's dense bf16 peak. A token of a record of s tokens, with N weights in
matrices (the embedding is a look-up), L layers and C hidden, takes forward 2N + 2LsC (causal: half of the s x s
scores), backward twice that under full; under LoRA the weights' gradients are left out: 4N + 6LsC in all (the 4N
convention). Over all tokens s is sum(s * s) / sum(s) of the records, which attend within themselves and not across a
row. The head is counted at all positions, though only targets need it; adapters' own work and recomputed activations
count as nothing. The peaks are those of the boards named: an H100 that is a PCIe or NVL card has another.
"""

import argparse
import gc
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.train_cpu import CHATML, plot
from bench.trainers import ATTENTIONS, CONTESTANTS, Outcome, Spec, attempt

PEAK_TFLOPS = {"H100 80GB HBM3": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16, from the data sheets, by a part of the device's name."""

WARMUP_STEPS = 4
"""Compilation, and the allocator's first round."""

EPOCH_STEPS = 22
"""Steps that the rows are enough for. transformers sorts a fourth of them by length, longest first, then the next: the
ten measured steps are two such rounds, so that they have short and long records alike."""

UNPACKED_ROWS = 7
"""Records per forward pass where nothing is packed: what logits of a large vocabulary leave room for in 80 GB."""


@dataclass(frozen=True)
class Shape:
    """A Llama by its numbers, and how it is trained. `least_s`: the seconds without which no contestant is started."""

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
    lr: float
    vocabulary: int = 128_256
    max_tokens: int = 4096
    least_s: int = 150

    @property
    def matrices(self) -> int:
        """Weights in matrix products, the head included."""
        size = self.hidden // self.heads
        attention = self.hidden * self.hidden * 2 + self.hidden * self.key_heads * size * 2
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocabulary * self.hidden

    def flops_per_token(self, record_tokens: float) -> float:
        """FLOPs of forward and backward, by the convention above."""
        weights = 6 if self.method == "full" else 4
        return weights * self.matrices + 6 * self.layers * record_tokens * self.hidden


SHAPES = {
    "1b-full": Shape("Llama-3.2-1B", "full", 2048, 8192, 16, 32, 8, True, 4, 8, "none", 1e-5),
    "8b-lora": Shape("Llama-3.1-8B", "lora", 4096, 14336, 32, 32, 8, False, 2, 4, "full", 1e-4),
    # to see that all of them run, with or without a GPU
    "tiny": Shape(
        "tiny", "full", 64, 128, 2, 4, 2, True, 2, 4, "none", 1e-2, vocabulary=2000, max_tokens=1024, least_s=30
    ),
}

Conversation = list[dict[str, str]]


def make_rows(count: int, seed: int) -> list[Conversation]:
    """Make exchanges whose lengths are spread as instruction data's are: most short, some of thousands of tokens."""
    draw = random.Random(seed)
    letters = "bcdfghklmnprstvw"
    words = [
        "".join(draw.choice(letters) + draw.choice("aeiou") for _ in range(draw.randint(1, 4))) for _ in range(3000)
    ]

    def text(median: float) -> str:
        return " ".join(draw.choice(words) for _ in range(max(2, min(1400, int(draw.lognormvariate(0, 1.0) * median)))))

    return [[{"role": "user", "content": text(60)}, {"role": "assistant", "content": text(120)}] for _ in range(count)]


def make_model(shape: Shape, folder: Path, rows: Sequence[Conversation]) -> None:
    """Save random weights in bf16 and a tokenizer made from the rows. Nothing stays on the device."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    size = min(8000, shape.vocabulary)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((m["content"] for row in rows for m in row), trainer)
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=special[0], eos_token=special[2])
    tokenizer.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=2 * shape.max_tokens,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def prepare(shape: Shape, steps: int, work: Path) -> tuple[Spec, float]:
    """Make model and rows of a shape in a folder, unless the model is there; give the contest, and s of the docstring.

    Rows that no packed row holds are left out, so that nobody cuts any.
    """
    import torch
    from transformers import AutoTokenizer

    cuda = torch.cuda.is_available()
    model = work / shape.name
    rows = make_rows(16 * shape.rows_per_step * EPOCH_STEPS, seed=0)
    if not model.is_dir():
        make_model(shape, work / f"{shape.name}.part", rows)
        (work / f"{shape.name}.part").rename(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    sizes = [len(tokenizer.apply_chat_template(row, return_dict=False)) for row in rows]
    fitting = [(row, size) for row, size in zip(rows, sizes, strict=True) if size <= shape.max_tokens]
    per_row = shape.max_tokens * len(fitting) / sum(size for _, size in fitting)
    fitting = fitting[: round(EPOCH_STEPS * shape.rows_per_step * per_row)]
    file = work / f"{shape.name}.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row, _ in fitting))
    spec = Spec(
        model=str(model),
        rows=str(file),
        method=shape.method,
        max_tokens=shape.max_tokens,
        rows_per_step=shape.rows_per_step,
        micro_batch=shape.micro_batch,
        records_per_row=per_row,
        steps=steps,
        warmup=WARMUP_STEPS,
        lr=shape.lr,
        precision="bf16" if cuda else "fp32",
        checkpointing=shape.checkpointing,
        threads=8 if cuda else 1,  # a CPU runs the tiny shape, whose matrices are too small to share
        device="cuda" if cuda else "cpu",
        unpacked_rows=UNPACKED_ROWS,
    )
    return spec, sum(size * size for _, size in fitting) / sum(size for _, size in fitting)


def entries(names: Sequence[str], ways: Sequence[str], spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    """Give what each table row is called, who runs for it, and with what: packed TRL once with each attention."""
    for name in names:
        if name == "trl-packed":
            yield from ((f"{name}, {way}", name, replace(spec, attention=way)) for way in ways)
        else:
            yield name, name, spec


def compete(
    shape: Shape, turns: Sequence[tuple[str, str, Spec]], end: float, out: Path | None
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Let contestants run in turns until a time: the best outcome of each, and why others have none.

    With `out`, what each one said is written there at once.
    """
    best: dict[str, Outcome] = {}
    failed: dict[str, str] = {}
    for who, name, spec in turns:
        left_s = end - time.monotonic()
        found = run_until(end, name, spec) if left_s > shape.least_s else f"only {left_s:.0f} s were left"
        if isinstance(found, str):
            print(f"{who}: did not run: {found}", flush=True)
            failed[who] = found
        else:
            print(f"{who}: {found.tokens_per_s:,.0f} tokens/s, {found.memory_gib:.1f} GiB", flush=True)
            best[who] = max(best.get(who, found), found, key=lambda outcome: outcome.tokens_per_s)
        if out:
            said = {"failed": found} if isinstance(found, str) else asdict(found)
            out.mkdir(parents=True, exist_ok=True)
            with (out / "outcomes.jsonl").open("a") as file:
                file.write(json.dumps({"shape": shape.name, "contestant": who, **said}) + "\n")
    return best, {who: why for who, why in failed.items() if who not in best}


def run_until(end: float, name: str, spec: Spec) -> Outcome | str:
    """Run a contestant; one that finds no memory for its unpacked rows runs again with half of them."""
    found = attempt(name, spec, limit_s=max(1.0, end - time.monotonic()))
    unpacked = name in {"trl-unpacked", "transformers"} and spec.unpacked_rows > 1
    if unpacked and isinstance(found, str) and "out of memory" in found:
        return run_until(end, name, replace(spec, unpacked_rows=math.ceil(spec.unpacked_rows / 2)))
    return found


def table(shape: Shape, record_tokens: float, best: dict[str, Outcome], failed: dict[str, str]) -> None:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = next((value for part, value in PEAK_TFLOPS.items() if part in device), None)
    print(f"\n{shape.name}, {shape.method}, rows of {shape.max_tokens}, on {device}, torch {torch.__version__}\n")
    print("| trainer | version | tokens/s | against TRL packed | MFU | padding | peak GiB | first, last loss |")
    print("|---|---|---|---|---|---|---|---|")
    against = max((found.tokens_per_s for who, found in best.items() if who.startswith("trl-packed")), default=None)
    for found in best.values():
        ratio = f"{found.tokens_per_s / against:.2f}" if against else ""
        mfu = f"{found.tokens_per_s * shape.flops_per_token(record_tokens) / peak / 1e12:.1%}" if peak else ""
        print(
            f"| {found.name} ({found.configuration}) | {found.version} | {found.tokens_per_s:,.0f} | {ratio} | {mfu} "
            f"| {1 - found.tokens / found.slots:.1%} | {found.memory_gib:.1f} "
            f"| {found.losses[0]:.2f}, {found.losses[-1]:.2f} |"
        )
    for who, why in failed.items():
        print(f"| {who} | | did not run: {why[:200]} | | | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=["1b-full", "8b-lora"])
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=["sft", "trl-packed", "transformers"])
    parser.add_argument("--ways", nargs="*", choices=list(ATTENTIONS), default=["varlen", "flex_attention"])
    parser.add_argument("--steps", type=int, default=WARMUP_STEPS + 10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=9, help="all that this may take, tables not counted")
    parser.add_argument("--work", type=Path, help="folder for models and rows, kept for the next call")
    parser.add_argument("--out", type=Path, help="folder for outcomes.jsonl, a line for each contestant that ran")
    parser.add_argument("--plot", type=Path, help="folder for the loss curves")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.shapes:
            spec, record_tokens = prepare(SHAPES[name], given.steps, given.work or Path(temporary))
            turns = list(entries(given.only, given.ways, spec)) * given.rounds
            best, failed = compete(SHAPES[name], turns, end, given.out)
            table(SHAPES[name], record_tokens, best, failed)
            if given.plot:
                plot(best, given.plot / f"train-gpu-{name}.svg")


if __name__ == "__main__":
    main()
