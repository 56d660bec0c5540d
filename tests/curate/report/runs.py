"""Runs by hand, with everything in them that a page of a run must be able to show."""

import math
from pathlib import Path
from typing import Any

import polars as pl

from curate.samples import SampleRow
from tests.curate.report.accounts import ARABIC, HOSTILE, IMAGE, OVERRIDE, SCRIPT
from tests.runs import answers, falling, healthy_run, record_rows

FINDINGS: list[dict[str, Any]] = [
    {"kind": "instability", "level": "problem", "found": f"It broke {SCRIPT}", "evidence": {"steps": [4, 5]},
     "advice": "Lower the rate."},
    {"kind": "over-fitting", "level": "warning", "found": "It rose.", "evidence": {"gap": {"train": 0.51234567}},
     "advice": "Stop at step 60."},
    {"kind": "forgetting", "level": "note", "found": "A little.", "evidence": {}, "advice": "Replay."},
    {"kind": "healthy", "level": "ok", "found": "All is well.", "evidence": {}, "advice": "Go on."},
]  # fmt: skip


def hostile_run(folder: Path) -> Path:
    """A run in which every text that somebody else wrote is hostile."""
    sources = (SCRIPT, IMAGE, OVERRIDE, ARABIC)
    steps = range(0, 201, 20)
    rows = record_rows(400, 60).with_columns(
        source=pl.Series([sources[i % 4] for i in range(460)]),
        loss=pl.when(pl.int_range(pl.len()) == 0).then(pl.col("loss_before") + 3).otherwise(pl.col("loss")),
    )
    samples = answers({step: [HOSTILE[(step // 60 + i) % 4] + f" at {step // 40}" for i in range(4)] for step in steps})
    for line in samples:
        line |= {"prompt": IMAGE + OVERRIDE, "reference": SCRIPT, "source": SCRIPT, "whole": line["step"] % 40 == 0}
    return healthy_run(
        folder,
        sources=sources,
        records=rows,
        samples=samples,
        spikes=[{"step": 70 + i, "loss": 6.0 + i, "expected": 1.8,
                 "records": [{"id": f"{i:032x}", "source": IMAGE, "loss": 8.0}]} for i in range(12)],
        general={"reference": IMAGE, "records": 99,
                 "before": {"loss": 2.0, "perplexity": math.e**2}, "after": {"loss": 2.2, "perplexity": math.e**2.2}},
        rejected=[{"split": "train", "id": "x", "source": SCRIPT, "reason": IMAGE, "detail": SCRIPT, "tokens": 9}] * 3,
        settings={"model": SCRIPT, "replay": IMAGE},
        facts={"dataset": SCRIPT, "model": IMAGE, "device": OVERRIDE, "versions": {SCRIPT: IMAGE}, "manifest": SCRIPT},
    )  # fmt: skip


def hostile_rows(ids: list[str]) -> dict[str, SampleRow]:
    """Records as the store gives them."""
    return {
        name: SampleRow(name, f"{SCRIPT}:{i}", True, None, None, (("user", IMAGE + ARABIC), ("assistant", OVERRIDE)))
        for i, name in enumerate(ids)
    }


def long_run(folder: Path, *, steps: int, records: int) -> Path:
    """A run as long as real ones are."""
    every = steps // 200
    val = dict(zip(range(0, steps + 1, every), falling(201, 2.6, 1.6, noise=0.005), strict=True))
    names = tuple(f"source-{i}" for i in range(20))
    return healthy_run(
        folder,
        train=falling(steps, 2.5, 1.5, noise=0.2),
        val=val,
        sources=names,
        records=record_rows(records, records // 20),
        samples=answers({step: [f"the answer at {step} {'word ' * 80}{i}" for i in range(8)] for step in val}),
        spikes=[{"step": 9 * i + 1, "loss": 7.0, "expected": 2.0,
                 "records": [{"id": f"{i:032x}", "source": "source-1", "loss": 8.0}] * 40} for i in range(500)],
        rejected=[{"split": "train", "id": f"{i:032x}", "source": names[i % 20], "reason": "overlong",
                   "detail": "long", "tokens": 9000} for i in range(20_000)],
    )  # fmt: skip
