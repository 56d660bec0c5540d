"""`torchrun … sft train`: two processes, ended by SIGTERM, go on as one process to the weights of a run that never was
shared out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Sft
from tests.train.world import make_records, small_llama
from train.model import tiny
from train.run.folder import RunFolder

SETTINGS = (
    "--manifest", "mix", "--model", "model", "--method", "full", "--lr", "1e-2", "--max-steps", "9", "--batch", "5",
    "--max-tokens", "128", "--eval-every", "4", "--samples", "1", "--sample-tokens", "4", "--device", "cpu",
)  # fmt: skip
TOLERANCE = 1e-5
DEADLINE_S = 120


@pytest.fixture
def dataset(sft: Sft, tmp_path: Path) -> None:
    """A split dataset `mix` of 40 rows, and a folder `model` with a small Llama whose head is tied."""
    rows = [{"instruction": f"Say number {i % 6} please, {i}.", "response": f"it is {i % 6}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "mix")
    sft("curate", "split", "mix")
    tokenizer = tiny.tiny_tokenizer(make_records(24))
    network = small_llama(len(tokenizer), tie_word_embeddings=True)
    network.set_attn_implementation("sdpa")
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start two processes as a person would."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    return subprocess.Popen(
        [*torchrun, sys.executable, "-c", "from cli.main import run; run()", "train", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("dataset")
def test_two_processes_ended_by_sigterm_and_resumed_by_one_give_the_weights_of_one(sft: Sft, tmp_path: Path) -> None:
    sft("train", *SETTINGS, "--out", "one")
    process = start(tmp_path, *SETTINGS, "--out", "two")
    folder = RunFolder(tmp_path / "two")
    until = time.monotonic() + DEADLINE_S
    try:
        while len(folder.metrics()) < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    assert said.count("SIGTERM after step") == 1, said  # the leader alone speaks
    assert "Go on with: sft train --resume --out two" in said
    steps = [line["step"] for line in folder.metrics()]
    assert 0 < steps[-1] < 9, said
    sft("train", "--resume", "--out", "two")
    found, expected = (load_file(tmp_path / run / "final" / "model.safetensors") for run in ("two", "one"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= TOLERANCE * tensor.norm(), name
    losses = [
        [line["loss"] for line in RunFolder(tmp_path / run).metrics() if "loss" in line] for run in ("two", "one")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE)


@pytest.mark.usefixtures("dataset")
def test_what_several_processes_cannot_do_is_refused_before_they_meet(
    sft: Sft, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    assert "MASTER_PORT is not set" in sft("train", *SETTINGS, "--out", "run", code=2).err
    monkeypatch.setenv("MASTER_PORT", "1")
    assert "--dry-run: in 2 processes" in sft("train", *SETTINGS, "--out", "run", "--dry-run", code=2).err
    assert "--out: not given" in sft("train", *SETTINGS, code=2).err
