"""An evaluation of a run: measured, summed up, and written down in RUN/eval, each file whole or not at all.

    eval/said.jsonl       every answer and loss, as they came (train.evaluation.said)
    eval/test-1.json      the account: measures, verdict, what was left out; docs/evaluation.md has its keys
    eval/test-1.jsonl     a row for each record: prompt, reference, both answers and their measures
    eval/test-1.html      the same for people

An evaluation is named by its split, with the dataset before it where that is not the run's own, and a number. The same
inputs have the same number, so a rerun writes the same files; other ones get the next.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.eval_config import EvalConfig
from schemas.manifest import digest
from schemas.record import Record
from train.evaluation.account import account
from train.evaluation.measure import Measured, measure
from train.evaluation.pair import Pair
from train.run.folder import whole_file
from train.run.parts import Listener

FORMAT = 1
"""Goes up when a key of the account means something else."""

NO_PART = frozenset({"device", "batch_tokens"})
"""Settings that decide nothing about what comes out."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out: the account, the rows, and the file of the account; the rows lie beside it."""

    summary: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    file: Path

    def files(self) -> dict[str, str]:
        """Name the files."""
        return {"account": str(self.file), "rows": str(self.file.with_suffix(".jsonl"))}


def evaluate(
    pair: Pair,
    records: Sequence[Record],
    config: EvalConfig,
    listener: Listener,
    *,
    name: str,
    categories: Mapping[str, str],
    data: Mapping[str, Any],
) -> Evaluation:
    """Measure a run on records and write down what comes out. `data` says where they come from, and goes into it.

    Raises what `measure` raises, and ConfigError where no record can be scored or asked.
    """
    found = measure(pair, records, config, listener, categories=categories)
    if not any(row["tuned"]["nll"] is not None or row["tuned"]["answer"] for row in found.rows):
        reasons = "; ".join(f"{n} without {reason}" for reason, n in _left_out(found).items())
        raise ConfigError(f"run {pair.folder.path}", f"no row can be scored or asked ({reasons})", "rows that fit")
    key = digest([FORMAT, found.models, _settings(config), [[r.id, _said(r)] for r in records], dict(data)])
    summary: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "run": {
            "run_id": pair.facts["run_id"],
            "model": pair.facts["model"],
            "method": pair.facts["method"],
            "dataset": f"{pair.facts['dataset']}@{pair.facts['seq']}",
            "weights": pair.weights,
        },
        "data": dict(data),
        "settings": _settings(config),
        "models": found.models,
        "base": config.base,
        "notes": list(found.notes),
        "left_out": _left_out(found),
        **account(found.rows, base=config.base, samples=config.samples),
    }
    file = _place(pair.folder.path / "eval", name, key)
    with whole_file(file.with_suffix(".jsonl")) as place:
        place.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows), encoding="utf-8")
    with whole_file(file) as place:
        place.write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return Evaluation(summary, found.rows, file)


def _left_out(found: Measured) -> dict[str, int]:
    """Count the rows without a loss, and without an answer, by reason."""
    reasons = Counter(f"a loss ({row['refused'].split(':')[0]})" for row in found.rows if row["refused"])
    reasons.update(f"an answer: {row['skipped']}" for row in found.rows if row["skipped"])
    return dict(sorted(reasons.items()))


def _settings(config: EvalConfig) -> dict[str, Any]:
    return {name: value for name, value in config.model_dump().items() if name not in NO_PART}


def _said(record: Record) -> str:
    return digest([[m.role, m.content, m.name, m.tool_calls] for m in record.messages])


def _place(folder: Path, name: str, key: str) -> Path:
    """Give the file of an evaluation: the one that has its key, else the next number."""
    number = 1
    while (file := folder / f"{name}-{number}.json").exists():
        try:
            if json.loads(file.read_text(encoding="utf-8"))["key"] == key:
                break
        except (OSError, ValueError, KeyError, TypeError):
            pass  # somebody else's file, or a broken one: it is left alone
        number += 1
    return file
