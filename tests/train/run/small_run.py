"""A finished run in seconds: two steps on a small Llama with a tied head, saved in bf16, its card beside it."""

from pathlib import Path
from typing import Any

from schemas.train_config import TrainConfig
from tests.train.world import Watcher, make_records, small_llama
from train.model.tiny import tiny_tokenizer
from train.run.data import Data, Origin
from train.run.run import run

NEW = "<|think|>"
"""A token that the base model's tokenizer lacks."""

ORIGINS = (
    Origin("a", "cc-by-4.0", ("hf://datasets/org/rows/a.jsonl",)),
    Origin("b", None, ("hf://datasets/org/rows@v2/b.jsonl",)),
)


def train_in(folder: Path, **settings: Any) -> Path:
    """Train in `folder/run` on the base model in `folder/base-model`; give the run folder."""
    tokenizer = tiny_tokenizer(make_records(24))
    model: Any = small_llama(len(tokenizer), tie_word_embeddings=True)
    model.set_attn_implementation("sdpa")
    model.bfloat16().save_pretrained(folder / "base-model")
    tokenizer.save_pretrained(folder / "base-model")
    (folder / "base-model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    config = TrainConfig(
        model=str(folder / "base-model"),
        device="cpu",
        batch=4,
        max_tokens=256,
        max_steps=2,
        samples=1,
        sample_tokens=4,
        lr=1e-2,
        **settings,
    )
    records = make_records(24)
    data = Data("mix", 3, "m" * 64, "v" * 64, records[:18], records[18:], origins=ORIGINS)
    run(config, data, folder / "run", Watcher())
    return folder / "run"
