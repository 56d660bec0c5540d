import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.errors import CheckFailedError, ConfigError, InputError, SftError
from schemas.record import Record
from schemas.run_files import General, read_run
from schemas.train_config import TrainConfig
from tests.train.world import Watcher, make_records, record
from train.model import tiny
from train.model.trainee import Trainee
from train.run import checkpoint
from train.run import prepare as prepare_module
from train.run import run as run_module
from train.run.budget import Clock
from train.run.data import Data
from train.run.folder import RunFolder
from train.run.forgetting import Forgetting
from train.run.prepare import prepare
from train.run.run import run

MODEL = {"device": "cpu", "batch": 4, "max_tokens": 256, "lr": 5e-3, "sample_tokens": 8, "allow_leakage": True}


@pytest.fixture(autouse=True)
def short_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 30)


def data_of(train: list[Record], val: list[Record] | None = None, **other: Any) -> Data:
    return Data("mix", 3, "m" * 64, "v" * 64, tuple(train), tuple(val or ()), **other)


def config_of(model: str | Path = "tiny", **settings: Any) -> TrainConfig:
    return TrainConfig(model=str(model), **{**MODEL, **settings})


def repeating(count: int) -> list[Record]:
    """Records that are alike, so that even a tiny model learns what is asked of it."""
    return [
        record(
            i, ("user", f"say number {i % 5}"), ("assistant", f"the number is {i % 5} my friend"), source="ab"[i % 2]
        )
        for i in range(count)
    ]


def losses_of(found: Forgetting) -> tuple[float, float]:
    assert found.after is not None
    return found.before.loss, found.after.loss


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21 on transformers 5.23
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_of_tiny_learns_and_leaves_every_file_of_the_design(tmp_path: Path, method: str) -> None:
    watcher = Watcher()
    long = record(99, ("user", "hi"), ("assistant", "word " * 400), source="b")
    records = repeating(60)
    out = tmp_path / "run"
    result = run(config_of(method=method, max_steps=40), data_of([*records[:50], long], records[50:]), out, watcher)

    before, after = result.ending.before, result.ending.after
    assert before is not None
    assert after is not None
    assert after.overall.perplexity < before.overall.perplexity / 3
    assert after.by_source.keys() == {"a", "b"}
    names = {"metrics.jsonl", "training.log", "config.json", "run.json", "records.arrow", "samples.jsonl"}
    assert {p.name for p in out.iterdir()} >= {*names, "rejected.jsonl", "final", "best", "checkpoints", "base"}

    facts = json.loads((out / "run.json").read_text())
    assert facts["manifest"] == "m" * 64
    assert facts["versions"].keys() == {"sft-toolkit", "torch", "transformers", "peft"}
    assert facts["identity"].keys() == set(checkpoint.NAMES)
    assert (facts["ended_by"], facts["cost"]) == ("steps", None)
    assert facts["ended"] >= facts["started"]
    asked_for = json.loads((out / "config.json").read_text())["train"]
    assert (asked_for["lr"], asked_for["checkpointing"], asked_for["eval_every"]) == (5e-3, "auto", None)
    known = {
        "checkpointing": "none",
        "compile": "off",
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 4,
        "lr": 5e-3,
    }
    assert facts["settled"].items() >= known.items()
    assert "| precision | fp32 |" in (out / "final" / "README.md").read_text()
    assert "step 0: validation loss" in (out / "training.log").read_text()
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(r["id"], r["split"], r["reason"]) for r in rejected] == [(long.id, "train", "overlong")]
    assert "1 train records not used (overlong): 1 of b" in (out / "training.log").read_text()

    table = pa.ipc.open_file(pa.memory_map(str(out / "records.arrow"))).read_all()
    assert table.num_rows == 60
    assert sorted(table["id"].to_pylist()) == sorted(r.id for r in records)
    val = [row for row in table.to_pylist() if row["split"] == "val"]
    nll = sum(row["loss"] * row["n_target_tokens"] for row in val)
    assert nll / sum(row["n_target_tokens"] for row in val) == pytest.approx(after.overall.loss)
    assert all(row["loss_before"] > row["loss"] for row in table.to_pylist())
    times = [row["seen"] for row in table.to_pylist()]
    assert sum(times) == result.preflight.records_per_step * 40
    assert set(times[50:]) == {0}

    answers = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in answers] == [step for step in range(0, 41, 4) for _ in range(4)]
    assert {line["id"] for line in answers} == {sample.id for sample in result.samples}  # the same prompts each time
    asked = next(r for r in records[50:] if r.id == result.samples[0].id)
    assert result.samples[0].reference == asked.messages[1].content
    tokenizer = AutoTokenizer.from_pretrained(out / "final")
    loader = AutoPeftModelForCausalLM if method == "lora" else AutoModelForCausalLM
    model = loader.from_pretrained(out / "final")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked.messages[0].content}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    plain = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(plain, skip_special_tokens=True) == result.samples[0].answer


def test_without_validation_records_best_is_final(model_folder: Path, tmp_path: Path) -> None:
    result = run(config_of(model_folder, max_steps=2), data_of(make_records(12)), tmp_path / "run", Watcher())
    assert result.ending.after is None
    names = ("final", "best")
    one, other = ((tmp_path / "run" / n / "adapter_model.safetensors").read_bytes() for n in names)
    assert one == other


def test_a_dry_run_writes_nothing(model_folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    report = prepare(config_of(model_folder), data_of(make_records(12)), Watcher()).report
    assert report.train_records == 12
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_a_run_is_left_alone(model_folder: Path, tmp_path: Path) -> None:
    data = data_of(make_records(12))
    run(config_of(model_folder, max_steps=1), data, tmp_path / "run", Watcher())
    with pytest.raises(ConfigError, match=re.escape("already holds a run") + ".*--resume"):
        run(config_of(model_folder, max_steps=1), data, tmp_path / "run", Watcher())


def test_a_folder_with_other_files_is_left_alone(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        run(config_of(model_folder), data_of(make_records(12)), tmp_path / "thesis", Watcher())


def test_after_a_failed_preflight_the_same_folder_can_be_used(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(CheckFailedError, match=r"no record can be trained on: 12 train records not used \(overlong\)"):
        run(config_of(model_folder, max_tokens=16), data_of([long_one(i) for i in range(12)]), out, Watcher())
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 12
    run(config_of(model_folder, max_steps=1), data_of(make_records(12)), out, Watcher())


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("spent_on", ["loading", "measuring"])
def test_a_limit_that_is_over_before_step_1_leaves_the_folder_free_for_a_start_with_more(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spent_on: str, *, resumed: bool
) -> None:
    data, out, config = data_of(make_records(12)), tmp_path / "run", config_of(model_folder, max_steps=1, max_hours=1.0)
    measure, spent = run_module.measure_before, [0.0]
    monkeypatch.setattr(Clock, "seconds", lambda _: spent[0])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def slow(*arguments: Any) -> Any:
        spent[0] = 7200.0
        return measure(*arguments)

    if resumed:
        monkeypatch.setattr(run_module, "measure_before", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, data, out, Watcher())
    spent[0] = 7200.0 if spent_on == "loading" else 0.0
    monkeypatch.setattr(run_module, "measure_before", slow if spent_on == "measuring" else killed)
    with pytest.raises(ConfigError, match=r"over before the first step.*Nothing was trained"):
        run(config, data, out, Watcher(), resume=resumed)
    with pytest.raises(ConfigError, match=r"no run in this folder.*Start it without --resume"):
        run(config, data, out, Watcher(), resume=True)
    monkeypatch.setattr(run_module, "measure_before", measure)
    more = config.model_copy(update={"max_hours": 3.0})
    assert run(more, data, out, Watcher()).ending.cursor.step == 1


def test_a_limit_never_frees_the_folder_of_a_run_that_ended(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, config = data_of(make_records(12)), tmp_path / "run", config_of(model_folder, max_steps=1, max_hours=1.0)
    facts = run(config, data, out, Watcher()).facts
    shutil.rmtree(out / "checkpoints")
    monkeypatch.setattr(Clock, "seconds", lambda _: 7200.0)
    with pytest.raises(ConfigError, match="over before the first step"):
        run(config, data, out, Watcher(), resume=True)
    assert RunFolder(out).facts()["run_id"] == facts["run_id"]


def long_one(number: int) -> Record:
    return record(number, ("user", "hi"), ("assistant", "the cat sat on a mat " * 9))


def test_no_training_rows_is_an_input_error(model_folder: Path) -> None:
    with pytest.raises(InputError, match="no kept rows in split train") as error:
        prepare(config_of(model_folder), data_of([], make_records(3)), Watcher())
    assert error.value.exit_code == 2


def test_stale_stages_are_said(model_folder: Path) -> None:
    watcher = Watcher()
    prepare(config_of(model_folder), data_of(make_records(12), warnings=("stale stages: dedup",)), watcher)
    assert "warning: stale stages: dedup" in watcher.lines


def test_rows_are_never_longer_than_the_model_was_made_for(model_folder: Path) -> None:
    watcher = Watcher()
    found = prepare(config_of(model_folder, max_tokens=4096), data_of(make_records(12)), watcher)
    assert found.plan.max_tokens == 512
    assert "max_tokens 4096 lowered to 512, the model's context" in watcher.lines


def test_resuming_with_another_setting_or_dataset_is_refused_by_name(model_folder: Path, tmp_path: Path) -> None:
    data = data_of(make_records(12))
    out = tmp_path / "run"
    run(config_of(model_folder, max_steps=2), data, out, Watcher())
    with pytest.raises(ConfigError, match="max_steps was 2 and is 3 now"):
        run(config_of(model_folder, max_steps=3), data, out, Watcher(), resume=True)
    with pytest.raises(ConfigError, match="the manifest was mmmm"):
        run(config_of(model_folder, max_steps=2), replace(data, manifest="n" * 64), out, Watcher(), resume=True)
    with pytest.raises(ConfigError, match="no run in this folder"):
        run(config_of(model_folder), data, tmp_path / "nowhere", Watcher(), resume=True)


def test_a_run_of_tiny_killed_and_resumed_ends_as_one_never_killed(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(step: int) -> None:
        if step == 5:
            raise KilledError

    records = repeating(24)
    data = data_of(records[:20], records[20:], general=tuple(make_records(6)))
    config = config_of(max_steps=8, save_every=3, general="talk@2", workers=0, price_per_hour=3600.0)
    whole = run(config, data, tmp_path / "whole", Watcher())
    with pytest.raises(KilledError):
        run(config, data, tmp_path / "killed", Watcher(kill))
    others = config.model_copy(update={"workers": 2})
    resumed = run(others, data, tmp_path / "killed", Watcher(), resume=True)
    for name in ("final/adapter_model.safetensors", "samples.jsonl", "general.json", "records.arrow"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert resumed.ending.before is not None
    assert resumed.ending.cost == pytest.approx(resumed.ending.seconds)
    forgotten = whole.ending.forgetting
    assert forgotten is not None
    assert forgotten.after is not None
    assert (forgotten.reference, forgotten.before.records) == ("talk@2", 6)
    assert forgotten.se is not None
    assert read_run(tmp_path / "killed").general == General("talk@2", 6, *losses_of(forgotten), forgotten.se)
    assert forgotten.after.loss != forgotten.before.loss
    again = run(config, data, tmp_path / "killed", Watcher(), resume=True)
    assert again.run_id == resumed.run_id


def test_losses_before_training_that_were_removed_are_measured_again_and_nothing_else_changes(
    model_folder: Path, tmp_path: Path
) -> None:
    """As the message about a broken file advises; what was told of the steps so far stays."""

    class KilledError(Exception):
        pass

    def kill(step: int) -> None:
        if step == 3:
            raise KilledError

    records = make_records(16)
    data, config = data_of(records[:12], records[12:]), config_of(model_folder, max_steps=4, save_every=2, eval_every=1)
    run(config, data, tmp_path / "whole", Watcher())
    out = tmp_path / "killed"
    with pytest.raises(KilledError):
        run(config, data, out, Watcher(kill))
    (out / "loss_before.arrow").unlink()
    run(config, data, out, Watcher(), resume=True)
    for name in ("samples.jsonl", "records.arrow"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    told = [
        [(line["step"], line.get("loss"), line.get("val_loss")) for line in RunFolder(tmp_path / name).metrics()]
        for name in ("whole", "killed")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("where", ["a step", "an evaluation"])
def test_out_of_memory_in_a_run_is_one_line_with_numbers_and_the_last_checkpoint_stands(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    records = make_records(16)
    nll, steps = Trainee.nll, 0

    def greedy(self: Trainee, batch: Any) -> Any:
        nonlocal steps
        steps += self.model.training
        if steps > 6 and self.model.training == (where == "a step"):  # the rehearsal's two passes are counted too
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return nll(self, batch)

    monkeypatch.setattr(Trainee, "nll", greedy)
    config = config_of(model_folder, max_steps=8, save_every=1, eval_every=8, micro_batch=99, samples=0)
    with pytest.raises(
        SftError, match=r"memory of the machine.*CUDA out of memory. Tried to allocate 2.00 GiB.*--micro-batch 1"
    ):
        run(config, data_of(records[:12], records[12:]), tmp_path / "run", Watcher())
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft 0.21 on transformers 5.23
@pytest.mark.parametrize(
    ("generation", "said", "kept"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, "without do_sample", True),
        ({"num_beams": 1, "length_penalty": 2.0, "early_stopping": True}, "contradicts itself", None),
    ],
)
def test_a_base_whose_generation_config_contradicts_itself_is_mended_before_step_0_and_saved(
    model_folder: Path, tmp_path: Path, generation: dict[str, Any], said: str, kept: bool | None
) -> None:
    (model_folder / "generation_config.json").write_text(json.dumps(generation))
    watcher = Watcher()
    run(config_of(model_folder, method="full", max_steps=1), data_of(make_records(12)), tmp_path / "run", watcher)
    assert [line for line in watcher.lines if said in line]
    saved = json.loads((tmp_path / "run" / "final" / "generation_config.json").read_text())
    assert saved.get("do_sample") == kept


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_records_stay_within_the_length_up_to_which_rope_is_one_for_all(model_folder: Path, kind: str) -> None:
    file = model_folder / "config.json"
    config = json.loads(file.read_text())
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
    if kind == "longrope":
        rope |= {"short_factor": [1.0, 1.0], "long_factor": [4.0, 4.0]}
    file.write_text(json.dumps({**config, "rope_parameters": rope}))
    watcher = Watcher()
    assert prepare(config_of(model_folder), data_of(make_records(12)), watcher).plan.max_tokens == 128
    assert any("max_tokens 256 lowered to 128" in line and kind in line for line in watcher.lines)


def test_another_tokenizer_is_refused_and_other_versions_are_a_warning(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config, out = data_of(make_records(12)), config_of(model_folder, max_steps=1), tmp_path / "run"
    run(config, data, out, Watcher())
    watcher = Watcher()
    version = run_module._version
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "_version", lambda name: "9.9" if name == "transformers" else version(name))
        run(config, data, out, watcher, resume=True)
    (warning,) = [line for line in watcher.lines if "is 9.9 now" in line]
    assert warning.startswith("warning: transformers was")
    load = prepare_module.load_base

    def load_other(*arguments: Any, **named: Any) -> Any:
        base = load(*arguments, **named)
        base.tokenizer.backend_tokenizer.add_tokens([AddedToken("never said", normalized=False)])
        return base

    monkeypatch.setattr(prepare_module, "load_base", load_other)
    with pytest.raises(ConfigError, match=r"the tokenizer was .* in the checkpoint"):
        run(config, data, out, Watcher(), resume=True)


@pytest.mark.parametrize("model", ["model", "tiny"])
def test_a_run_by_relative_paths_leaves_absolute_ones(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run(config_of(model, max_steps=1, samples=0), data_of(make_records(12)), Path("run"), Watcher())
    base = model_folder if model == "model" else tmp_path / "run" / "base"
    adapter = json.loads((tmp_path / "run" / "final" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(base.resolve())
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["model"]
    assert saved == (str(base.resolve()) if model == "model" else "tiny")
