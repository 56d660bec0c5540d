"""Training on a CPU, side by side: tokens per second of this trainer, TRL, transformers and a bare loop.

    python -m bench.train_cpu --rows dolly.jsonl [--rounds 3] [--steps 12] [--plot docs/plots]

A Llama of 7 M weights (4 layers, 256 wide, a vocabulary of 8,000 made from the rows), random weights, full fine-tuning
in fp32, four rows of 1,024 tokens per step. The contestants take turns, so that a ratio holds on a machine that does
other work too; the fastest round of each counts.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.trainers import CONTESTANTS, Outcome, Spec, attempt

MAX_TOKENS, ROWS_PER_STEP, VOCABULARY = 1024, 4, 8000
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def read_dolly(file: Path) -> list[list[dict[str, str]]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        [
            {"role": "user", "content": f"{row['instruction']}\n\n{row.get('context') or ''}".strip()},
            {"role": "assistant", "content": row["response"].strip()},
        ]
        for row in rows
        if row["instruction"].strip() and row["response"].strip()
    ]


def make_model(folder: Path, rows: Sequence[Sequence[dict[str, str]]]) -> None:
    """Save the 7 M Llama with random weights, and a tokenizer trained on the rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((m["content"] for row in rows for m in row), trainer)
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=special[0], eos_token=special[2])
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def short_enough(model: Path, rows: Sequence[Sequence[dict[str, str]]]) -> tuple[list[Sequence[dict[str, str]]], float]:
    """Give the rows that fit a packed row, so that nobody cuts any, and how many of them a packed row holds."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(tokenizer.apply_chat_template(list(row), return_dict=False)) for row in rows]
    chosen = [row for row, length in zip(rows, lengths, strict=True) if length <= MAX_TOKENS]
    held = sum(length for length in lengths if length <= MAX_TOKENS)
    return chosen, len(chosen) / (held / MAX_TOKENS)


def table(best: dict[str, Outcome], failed: dict[str, str]) -> None:
    print("| trainer | version | tokens/s | against TRL packed | padding | peak GiB | first, last loss |")
    print("|---|---|---|---|---|---|---|")
    against = best["trl-packed"].tokens_per_s if "trl-packed" in best else None
    for found in best.values():
        ratio = f"{found.tokens_per_s / against:.2f}" if against else ""
        padding = 1 - found.tokens / found.slots
        losses = f"{found.losses[0]:.2f}, {found.losses[-1]:.2f}" if found.losses else ""
        print(
            f"| {found.name} ({found.configuration}) | {found.version} | {found.tokens_per_s:,.0f} | {ratio} "
            f"| {padding:.1%} | {found.memory_gib:.2f} | {losses} |"
        )
    for name, why in failed.items():
        print(f"| {name} | | did not run: {why} | | | | |")


def plot(best: dict[str, Outcome], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for who, found in best.items():
        axes.plot(range(1, len(found.losses) + 1), found.losses, label=who)
    axes.set_xlabel("step (each trainer takes the rows in an order of its own)")
    axes.set_ylabel("loss, nats per target")
    axes.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=Path, default=Path("sample_data/dolly.jsonl"), help="Dolly rows, JSON Lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--plot", type=Path, help="folder for the loss curves")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = read_dolly(given.rows)
        make_model(folder / "model", rows)
        rows, per_row = short_enough(folder / "model", rows)
        file = folder / "rows.jsonl"
        file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        spec = Spec(
            model=str(folder / "model"),
            rows=str(file),
            method="full",
            max_tokens=MAX_TOKENS,
            rows_per_step=ROWS_PER_STEP,
            micro_batch=ROWS_PER_STEP,
            records_per_row=per_row,
            steps=given.steps,
            warmup=2,
            lr=1e-3,
            precision="fp32",
            checkpointing="none",
            threads=2,
            device="cpu",
        )
        print(f"{len(rows):,} rows, {per_row:.1f} to a packed row, {given.steps} steps, {given.rounds} rounds\n")
        best: dict[str, Outcome] = {}
        failed: dict[str, str] = {}
        for who in given.only * given.rounds:  # in turns
            found = attempt(who, spec, limit_s=1800)
            if isinstance(found, str):
                failed[who] = found
                print(f"{who}: did not run: {found}", flush=True)
            else:
                print(f"{who}: {found.tokens_per_s:,.0f} tokens/s", flush=True)
                if who not in best or found.tokens_per_s > best[who].tokens_per_s:
                    best[who] = found
        print()
        table(best, failed)
        if given.plot:
            plot(best, given.plot / "train-cpu.svg")


if __name__ == "__main__":
    main()
