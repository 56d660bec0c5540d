"""Run folders written by hand, as train/run/folder.py says that a run leaves them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

SOURCES = ("alpaca", "dolly")


def falling(
    steps: int, start: float, end: float, *, noise: float = 0.05, rate: float = 5.0, seed: int = 0
) -> list[float]:
    """A loss that falls and comes to rest, with noise from step to step."""
    x = np.arange(steps) / max(steps - 1, 1)
    clean = end + (start - end) * np.exp(-rate * x)
    return [float(value) for value in clean + np.random.default_rng(seed).normal(0, noise, steps)]


def record_rows(
    count: int, val: int, *, before: float = 2.5, train: float = 1.5, held_out: float = 1.6, seed: int = 0
) -> pl.DataFrame:
    """Losses of records before and after: `train` and `held_out` are the means after."""
    draw = np.random.default_rng(seed)
    n = count + val
    split = ["train"] * count + ["val"] * val
    first = before + draw.normal(0, 0.3, n)
    gain = np.where(np.arange(n) < count, before - train, before - held_out) + draw.normal(0, 0.1, n)
    return pl.DataFrame(
        {
            "id": [f"{i:032x}" for i in range(n)],
            "source": [SOURCES[i % 2] for i in range(n)],
            "split": split,
            "n_target_tokens": [20 + i % 50 for i in range(n)],
            "loss_before": first,
            "loss": first - gain,
            "seen": [3] * count + [0] * val,
        },
        schema_overrides={"n_target_tokens": pl.Int64, "seen": pl.Int64},
    )


def answers(texts: Mapping[int, Sequence[str]]) -> list[dict[str, Any]]:
    """Lines of samples.jsonl: step -> an answer to each prompt."""
    return [
        {
            "step": step,
            "id": f"{i:032x}",
            "source": SOURCES[i % 2],
            "prompt": f"How many lamps has house {i}?",
            "reference": f"House {i} has two lamps.",
            "answer": answer,
            "whole": True,
        }
        for step, own in texts.items()
        for i, answer in enumerate(own)
    ]


def write_run(
    folder: Path,
    *,
    train: Sequence[float | None],
    val: Mapping[int, float] | None = None,
    val_by_source: Mapping[str, Mapping[int, float]] | None = None,
    grad_norm: Sequence[float | None] | None = None,
    records: pl.DataFrame | None = None,
    general: Mapping[str, Any] | None = None,
    spikes: Sequence[Mapping[str, Any]] = (),
    samples: Sequence[Mapping[str, Any]] = (),
    rejected: Sequence[Mapping[str, Any]] = (),
    ended: bool = True,
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    epochs: int = 3,
    sources: Sequence[str] = SOURCES,
) -> Path:
    """Write the folder of a run with these losses, one per step from 1 on, and these evaluations."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = len(train)
    lines: list[dict[str, Any]] = []
    val = val or {}
    by_source = val_by_source or dict.fromkeys(sources, val)

    def evaluation(step: int) -> None:
        own = {source: curve[step] for source, curve in by_source.items() if step in curve}
        lines.append(
            {
                "step": step,
                "val_loss": val[step],
                "val_perplexity": math.exp(min(val[step], 700)),
                "val_loss_by_source": own,
                "val_perplexity_by_source": {s: math.exp(min(v, 700)) for s, v in own.items()},
            }
        )

    if 0 in val:
        evaluation(0)
    for step, loss in enumerate(train, 1):
        norm = grad_norm[step - 1] if grad_norm else 1.0 + 0.1 * math.sin(step)
        lines.append(
            {
                "step": step,
                "epoch": (step - 1) * epochs // steps,
                "loss": loss,
                "lr": 2e-4 * math.cos(math.pi / 2 * step / steps) * min(1, step / (0.03 * steps)),
                "grad_norm": norm,
                "tokens_per_s": 5_000.0 + 200 * math.sin(step / 7),
                "tokens": step * 2_000,
                "seconds": step * 0.4,
                "memory_gb": 3.5,
                "loss_by_source": {source: (loss or 0) + 0.1 * i for i, source in enumerate(sources)},
            }
        )
        if step in val:
            evaluation(step)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {
        "model": "a/model",
        "method": "lora",
        "lr": 2e-4,
        "batch": 16,
        "max_epochs": epochs,
        "max_tokens": 2048,
        "samples": 2 if samples else 0,
        "general": "general" if general else None,
        "seed": 17,
        "clip": 1.0,
        **(settings or {}),
    }
    (folder / "config.json").write_text(json.dumps({"train": config, "dataset": "lamps@3", "store": None}))
    base = {
        "run_id": "20260101T000000-abcdef12",
        "dataset": "lamps",
        "seq": 3,
        "manifest": "3932f8e2" * 8,
        "model": "a/model",
        "method": "lora",
        "versions": {"sft-toolkit": "0.1.0", "torch": "2.13.0"},
        "python": "3.11.7",
        "device": "CPU, fp32 compute",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T01:00:00+00:00" if ended else None,
        "preflight": {
            "train_records": 400,
            "val_records": 60,
            "steps": steps,
            "epochs": epochs,
            "tokens": steps * 2_000,
            "targets": steps * 900,
            "packing_efficiency": 0.97,
            "trainable_weights": 1_000,
            "weights": 9_000,
        },
        **({"steps": steps, "tokens": steps * 2_000, "train_seconds": steps * 0.4} if ended else {}),
    }
    (folder / "run.json").write_text(json.dumps({**base, **(facts or {})}))
    if records is not None:
        records.write_ipc(folder / "records.arrow")
    if general:
        (folder / "general.json").write_text(json.dumps(general))
    for name, held in (("spikes.jsonl", spikes), ("samples.jsonl", samples), ("rejected.jsonl", rejected)):
        if held:
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in held))
    return folder


def healthy_run(folder: Path, **changed: Any) -> Path:
    """A run with which nothing is wrong."""
    given: dict[str, Any] = {
        "train": falling(200, 2.5, 1.5),
        "val": dict(zip(range(0, 201, 20), falling(11, 2.6, 1.6, noise=0.0), strict=True)),
        "records": record_rows(400, 60),
        **changed,
    }
    return write_run(folder, **given)
