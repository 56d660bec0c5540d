"""`sft train`, as a person would type it: what it prints, what it leaves, and how it says no."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors import SafetensorError

from cli import render
from cli.display import Display
from cli.preflight import shared_clusters
from cli.train import resolve
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError
from tests.cli.conftest import Sft
from tests.train.world import make_records, small_llama
from train.model import tiny
from train.run import checkpoint
from train.run import prepare as prepare_module
from train.run import run as run_module
from train.run.reading import StepMetrics

SETTINGS = ("--max-steps", "30", "--batch", "4", "--sample-tokens", "8", "--device", "cpu")


@pytest.fixture
def dataset(sft: Sft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A split dataset of 60 rows that are alike."""
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 30)
    rows = [
        {"instruction": f"Say number {i % 6} please, {i}.", "response": f"the number is {i % 6}"} for i in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "mix")
    sft("curate", "split", "mix")
    return "mix"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder with a small Llama and its tokenizer."""
    tokenizer = tiny.tiny_tokenizer(make_records(24))
    network = small_llama(len(tokenizer))
    network.set_attn_implementation("sdpa")
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return "model"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_json_is_one_object_with_the_figures_of_the_run_which_is_registered(
    sft: Sft, dataset: str, tmp_path: Path, method: str
) -> None:
    said = sft(
        "train", "--manifest", dataset, "--model", "tiny", "--method", method, "--out", "run", *SETTINGS, "--json"
    )
    found = said.json
    assert found["steps"] == 30
    assert found["loss_last"] < found["loss_first"]
    assert found["val_perplexity_last"] < found["val_perplexity_first"] / 2
    assert found["run"] == "run"
    assert {"tokens", "seconds", "val_loss_first", "val_loss_last"} <= found.keys()
    registered = json.loads((tmp_path / "sft-data" / "runs" / f"{found['run_id']}.json").read_text())
    shown = sft("show", dataset, "--json").json
    assert registered["manifest"] == shown["id"]
    assert len(list((tmp_path / "sft-data" / "objects").glob(f"*/{registered['records']}*"))) == 1


def test_a_person_gets_losses_two_answers_and_the_paths(sft: Sft, dataset: str) -> None:
    said = sft("train", "--manifest", dataset, "--model", "tiny", "--out", "run", *SETTINGS)
    for word in ("train loss", "val perplexity", "tokens/s", "run/final", "run/best"):
        assert word in said.out
    assert said.out.count("prompt:") == said.out.count("answer:") == 2
    assert "step 30/30" in said.err
    assert "self-test: packed and alone differ" in said.err


def test_on_a_terminal_bars_show_work_and_steps_with_loss_and_speed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    render.console.cache_clear()
    with Display(quiet=False) as display:
        for total in (2, 0):
            done = display.work(f"work of {total}", total)
            done(1)
            done(1)
        for step in (1, 2):
            display.step(StepMetrics(step, 4, 1.25, 1e-3, 1.0, 10 * step, 1234.0))
        assert display.bars
        display.bars.refresh()
        display.bars.live.transient = False
    render.console.cache_clear()
    told = capfd.readouterr().err
    assert "loss 1.250  1,234 tokens/s" in told
    assert "2/4" in told


def test_a_dry_run_checks_everything_and_writes_nothing(sft: Sft, dataset: str, model: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = sft("train", "--manifest", dataset, "--model", model, "--out", "run", "--dry-run", "--json")
    assert said.json["preflight"]["train_records"] > 40
    assert sorted(tmp_path.rglob("*")) == before
    assert "max_tokens 2048 lowered to 512, the model's context" in said.json["notes"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    asked = ("train", "--manifest", dataset, "--model", model, "--out", "run", "--dry-run")
    assert "holds other files" in sft(*asked, code=2).err


def test_a_run_that_fails_before_step_0_has_no_report(sft: Sft, dataset: str, model: str, tmp_path: Path) -> None:
    sft("train", "--manifest", dataset, "--model", model, "--out", "run", "--max-tokens", "16", code=1)
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_dry_run_shows_records_counts_memory_and_time(sft: Sft, dataset: str, model: str) -> None:
    said = sft("train", "--manifest", dataset, "--model", model, "--dry-run", "--price-per-hour", "2")
    for words in ("⟦the number is", "the first record", "share of targets", "worst step", "memory", "at its price"):
        assert words in said.out
    assert "nothing was trained or written" in said.out


def test_a_dry_run_writes_the_rows_that_cannot_be_used_where_it_is_told(
    sft: Sft, dataset: str, model: str, tmp_path: Path
) -> None:
    base = ("train", "--manifest", dataset, "--model", model, "--json")
    longest = max(source["longest"] for source in sft(*base, "--dry-run").json["preflight"]["sources"])
    shorter = (*base, "--max-tokens", str(longest - 1), "--rejected", "left.jsonl")
    refused = sft(*shorter, "--dry-run").json["preflight"]["refused"]
    lines = [json.loads(line) for line in (tmp_path / "left.jsonl").read_text().splitlines()]
    assert len(lines) == sum(sum(r["by_source"].values()) for r in refused) > 0
    assert {"split", "id", "source", "reason", "detail"} <= lines[0].keys()
    sft(*base, "--max-tokens", str(longest - 1), "--out", "run", "--max-steps", "1", "--samples", "0")
    assert (tmp_path / "run" / "rejected.jsonl").read_text() == (tmp_path / "left.jsonl").read_text()
    assert "without --dry-run" in sft(*shorter, code=2).err


def test_a_near_duplicate_on_both_sides_is_refused_unless_allowed(
    sft: Sft, dataset: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cli.train.shared_clusters",
        lambda d: ((next(iter(d.records("val"))).id, next(iter(d.records("train"))).id),),
    )
    base = ("train", "--manifest", dataset, "--model", model, "--dry-run")
    assert "have near-duplicates among the train rows" in sft(*base, code=1).err
    assert "warning: 1 of" in sft(*base, "--allow-leakage").out


class Moved:
    """A dataset whose rows read otherwise."""

    def __init__(self, opened: Dataset, rows: pl.LazyFrame) -> None:
        self.manifest, self.rows = opened.manifest, rows

    def scan(self, _: object) -> pl.LazyFrame:
        return self.rows


def test_clusters_on_both_sides_are_read_from_the_dataset(sft: Sft, dataset: str, tmp_path: Path) -> None:
    """A sound dataset has none; one whose rows moved after dedup is told by pairs of ids."""
    opened = open_dataset(dataset, tmp_path / "sft-data")
    assert shared_clusters(opened) == ()  # no dedup has run
    sft("curate", "dedup", dataset)
    sft("curate", "split", dataset)
    opened = open_dataset(dataset, tmp_path / "sft-data")
    assert shared_clusters(opened) == ()
    moved = pl.LazyFrame(
        {
            "id": ["a", "b", "c", "d", "e"],
            "cluster_id": ["1", "1", "2", None, "1"],
            "split": ["train", "val", "val", "val", "val"],
            "kept": [True, True, True, True, False],
        }
    )
    changed: Any = Moved(opened, moved)
    assert shared_clusters(changed) == (("b", "a"),)


def test_bad_input_is_one_line_and_its_exit_code(sft: Sft, dataset: str, model: str, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "bare")
    for file in (tmp_path / "bare").glob("token*"):
        file.unlink()
    base = ("train", "--manifest", dataset, "--out", "run")
    for arguments, code, words in [
        ((*base, "--model", "./nowhere"), 2, "no such folder"),
        ((*base, "--model", "bare"), 2, "no tokenizer in the folder"),
        ((*base, "--model", "rows.jsonl"), 2, "it is a file"),
        ((*base, "--model", "x" * 300), 2, "error: --model x"),
        ((*base[:3], "--out", "x" * 300, "--model", model), 2, "File name too long"),
        (base, 2, "--model: not given"),
        (("train", "--model", model, "--out", "run"), 2, "--manifest: not given"),
        (("train", "--manifest", "nothing", "--model", model), 2, "nothing"),
        ((*base, "--model", model, "--max-tokens", "16"), 1, "no record can be trained on"),
        ((*base, "--model", model, "--lr", "-1"), 2, "--lr -1"),
        ((*base, "--model", model, "--device", "cpu", "--optimizer", "paged_adamw8bit"), 2, "no GPU whose memory"),
        ((*base, "--model", model, "--resume"), 2, "no run in this folder"),
        (("train", "--resume"), 2, "no --out"),
    ]:
        said = sft(*arguments, code=code)
        assert words in said.err
        assert "Traceback" not in said.err
        assert said.out == ""


def test_a_dataset_without_training_rows_is_an_input_error(sft: Sft, model: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "hi", "response": "there"}) + "\n")
    sft("curate", "ingest", "dolly", "rows.jsonl", "--name", "unsplit")
    said = sft("train", "--manifest", "unsplit", "--model", model, code=2)
    assert "no kept rows in split train" in said.err
    assert "sft curate split" in said.err


def test_a_resumed_run_needs_its_folder_alone(sft: Sft, dataset: str, model: str) -> None:
    sft("train", "--manifest", dataset, "--model", model, "--out", "run", "--max-steps", "2", "--samples", "0")
    again = sft("train", "--resume", "--out", "run", "--json").json
    assert again["steps"] == 2
    assert "max_steps was 2 and is 3" in sft("train", "--resume", "--out", "run", "--max-steps", "3", code=2).err


def test_settings_come_from_defaults_then_preset_then_file_then_what_was_typed(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text("[train]\nmicro_batch = 3\nlr = 0.5\n")
    assert resolve({"model": "x"}).micro_batch == 1
    assert resolve({"model": "x"}, preset="quick").micro_batch == 2
    assert resolve({"model": "x"}, preset="quick").max_steps == 50
    assert resolve({"model": "x"}, preset="quick", file=file).micro_batch == 3
    assert resolve({"model": "x", "micro_batch": 4}, preset="quick", file=file).micro_batch == 4
    assert resolve({"model": "x"}).resolved_lr() == 2e-4
    assert resolve({"model": "x", "method": "full"}).resolved_lr() == 2e-5
    assert resolve({"model": "tiny"}).batch == 4
    assert resolve({"model": "tiny"}, file=file).lr == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr =", "not TOML"),
        ("train = 3", "train is not a table"),
        ("learning_rate = 1.0", "learning_rate: no such setting"),
        ("max-tokens = 300", r"max-tokens: no such setting \(there is max_tokens\)"),
        ("[train]\nlr = 'fast'", "--lr fast"),
        ("lr = 1e-3\n[train]\nbatch = 4", r"lr outside of \[train\]"),
        ("lora_targets = 'q_proj'", r"--lora-targets q_proj: should be a list, such as \['q_proj'\]"),
        ("batch = true", "--batch True: true and false are for settings that are on or off"),
        ("method = 'full'\ndora = true", "dora is for adapters, and the method is full"),
        ("method = 'full'\nlora_r = 4", "lora_r is for adapters, and the method is full"),
    ],
)
def test_a_settings_file_that_is_wrong_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"train\.toml.*{said}"):
        resolve({"model": "x"}, file=file)


def test_a_settings_file_may_be_a_recipe_and_begin_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('\ufeffdataset = "mix"\n[split]\nval = 0.2\n[train]\nbatch = 9\ndora = false\n')
    assert resolve({"model": "x"}, file=file).batch == 9


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `sft` as a process of its own, which a signal can end."""
    here = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(here), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from cli.main import run; run()", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_steps(process: subprocess.Popen[str], metrics: Path, steps: int) -> None:
    while process.poll() is None:
        if metrics.is_file() and metrics.read_text().count('"loss"') >= steps:
            return
        time.sleep(0.01)


def test_a_run_ended_by_a_signal_and_resumed_has_the_weights_of_one_left_in_peace(
    dataset: str, model: str, tmp_path: Path
) -> None:
    train = ("train", "--manifest", dataset, "--model", model, "--device", "cpu", "--batch", "4", "--max-steps", "60")
    train = (*train, "--samples", "0", "--save-every", "7")
    whole = start(tmp_path, *train, "--out", "whole")
    for number in (signal.SIGTERM, signal.SIGKILL):
        out = number.name
        ended = start(tmp_path, *train, "--out", out)
        wait_for_steps(ended, tmp_path / out / "metrics.jsonl", 8)
        ended.send_signal(number)
        _, told = ended.communicate()
        assert ended.returncode == (130 if number == signal.SIGTERM else -number), told
        if number == signal.SIGTERM:
            assert f"a checkpoint is written. Go on with: sft train --resume --out {out}" in told
        assert not (tmp_path / out / "final").exists()
        _, told = whole.communicate()
        assert whole.returncode == 0, told
        resumed = start(tmp_path, "train", "--resume", "--out", out)
        _, told = resumed.communicate()
        assert resumed.returncode == 0, told
        assert "resumed from step-" in told
        name = "final/adapter_model.safetensors"
        assert (tmp_path / out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


SHORT = ("--max-steps", "3", "--batch", "4", "--samples", "0", "--device", "cpu")


def test_a_resumed_run_refuses_a_preset_or_file_that_says_otherwise(sft: Sft, dataset: str, model: str) -> None:
    sft("train", "--manifest", dataset, "--model", model, "--out", "run", *SHORT)
    assert "micro_batch was 1 and is 2" in sft("train", "--resume", "--out", "run", "--preset", "quick", code=2).err
    Path("other.toml").write_text("[train]\nlr = 0.5\n")
    told = sft("train", "--resume", "--out", "run", "--config", "other.toml", code=2).err
    assert "lr was 0.0002 and is 0.5" in told


@pytest.mark.parametrize("by", ["name", "path", "copy"])
def test_a_run_is_resumed_from_any_folder(
    sft: Sft, dataset: str, model: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    tmp_path = Path.cwd()
    manifest = max((tmp_path / "sft-data" / "datasets" / dataset / "versions").glob("*.json"))
    if by == "copy":
        manifest = Path(shutil.copy(manifest, tmp_path / "mine.json"))
    reference = dataset if by == "name" else str(manifest.relative_to(tmp_path))
    sft("train", "--manifest", reference, "--model", model, "--out", "a run", *SHORT)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("SFT_STORE", "not-here")
    assert sft("train", "--resume", "--out", "../a run", "--json").json["steps"] == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device"), 2),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 2),
    ],
)
def test_what_ends_a_run_outside_its_steps_is_one_line_with_the_way_on(
    sft: Sft, dataset: str, model: str, error: BaseException, code: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    train = ("train", "--manifest", dataset, "--model", model, "--out", "a run", *SHORT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepare_module, "load_base", fail)
        told = sft(*train, code=code).err
    assert "there is no checkpoint yet" in told
    assert "tart anew with the same command" in told
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "save", fail)
        told = sft(*train, code=code).err
    assert "the last checkpoint is step-3" in told
    assert "o on with: sft train --resume --out 'a run'" in told
    assert "Traceback" not in told
    assert sft("train", "--resume", "--out", "a run", "--json").json["steps"] == 3


def test_a_disk_that_fills_up_at_a_checkpoint_leaves_the_one_before(
    sft: Sft, dataset: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file = checkpoint.save_file

    def full(values: Any, path: Path) -> None:
        save_file(values, path)
        if path.parent.name == ".step-2.tmp":
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    train = ("train", "--manifest", dataset, "--model", model, "--out", "run", *SHORT, "--save-every", "1")
    assert "the last checkpoint is step-1" in sft(*train, code=2).err
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]
    assert (tmp_path / "run" / "best").is_dir()


def test_sigterm_after_the_last_step_is_told_as_ctrl_c_is(
    sft: Sft, dataset: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(run_module, "save", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    told = sft("train", "--manifest", dataset, "--model", model, "--out", "run", *SHORT, code=130).err
    assert "Go on with: sft train --resume --out run" in told
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_way_on_names_a_store_that_the_run_does_not_know(
    sft: Sft, dataset: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    sft("train", "--manifest", dataset, "--model", model, "--out", "run", *SHORT)
    (tmp_path / "sft-data").rename(tmp_path / "my data")
    monkeypatch.setattr(run_module, "save", stop)
    told = sft("train", "--resume", "--out", "run", "--store", "my data", code=130).err
    assert f"sft train --resume --out run --store '{tmp_path.resolve() / 'my data'}'" in told
