"""`sft train --replay` and `--curriculum`: what is mixed in, what orders the run, and how they say no."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.curriculum import read_scores
from cli.replay import open_replay
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConfigError, SftError
from schemas.train_config import TrainConfig
from tests.cli.conftest import Sft
from train.model import tiny

STORE = Path("sft-data")


def row(number: int, said: str) -> dict[str, Any]:
    return {
        "instruction": f"Say {said} number {number} please.",
        "response": f"{said} number {number} " * (1 + number % 3),
    }


@pytest.fixture
def datasets(sft: Sft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Dataset]:
    """`mix` of 40 rows about lamps, and `general` of 40 about boats and the first 20 about lamps."""
    monkeypatch.setattr(tiny, "PRETRAIN_STEPS", 5)
    lamps, boats = ([row(i, said) for i in range(40)] for said in ("lamp", "boat"))
    for name, source, rows in (("mix", "lamps", lamps), ("general", "boats", [*boats, *lamps[:20]])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        sft("curate", "ingest", "dolly", f"{name}.jsonl", "--name", name, "--source", source)
        sft("curate", "signals", name)
        sft("curate", "split", name)
    return open_dataset("mix", STORE), open_dataset("general", STORE)


def config_of(**settings: Any) -> TrainConfig:
    return TrainConfig(model="tiny", **settings)


def test_rows_that_train_or_val_hold_too_are_not_replayed(datasets: tuple[Dataset, Dataset]) -> None:
    """They are found by content: the sources differ, so the ids do."""
    mix, general = datasets
    replayed = open_replay(config_of(replay="general:0.2"), mix, STORE)
    assert replayed is not None
    said = {r.id: r.messages[0].content for r in general.records("train")}
    seen = {r.messages[0].content for split in ("train", "val") for r in mix.records(split)}
    assert replayed.known == {name for name, text in said.items() if text in seen}
    assert 0 < len(replayed.known) < len(said)


def test_replay_is_pinned_to_the_version_that_the_run_began_with(datasets: tuple[Dataset, Dataset]) -> None:
    mix, general = datasets
    replayed = open_replay(config_of(replay="general:0.20"), mix, STORE)
    assert replayed is not None
    assert replayed.config.replay == f"general@{general.manifest.seq}:0.20"
    assert open_replay(replayed.config, mix, STORE) == replayed
    assert open_replay(config_of(), mix, STORE) is None


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        ("mix:0.2", "is the version that is trained on"),
        ("mix@2:0.2", "no kept rows in split train"),
        ("absent:0.2", "'absent': not in the store"),
    ],
)
def test_a_dataset_that_cannot_be_replayed_is_refused(
    datasets: tuple[Dataset, Dataset], replay: str, message: str
) -> None:
    with pytest.raises(SftError, match=message):
        open_replay(config_of(replay=replay), datasets[0], STORE)


def test_a_dataset_that_has_nothing_of_its_own_is_refused(sft: Sft, datasets: tuple[Dataset, Dataset]) -> None:
    sft("curate", "ingest", "dolly", "mix.jsonl", "--name", "copy", "--source", "other")
    sft("curate", "split", "copy")
    with pytest.raises(ConfigError, match="train records all stand in mix too"):
        open_replay(config_of(replay="copy:0.2"), whole(datasets[0]), STORE)


def whole(dataset: Dataset) -> Dataset:
    """The dataset with the rows of split test in split train, so that all are known."""

    class Whole(Dataset):
        def scan(self, columns: Any, *, before_stage: str | None = None) -> pl.LazyFrame:
            return super().scan(columns, before_stage=before_stage).with_columns(split=pl.lit("train"))

    return Whole(dataset.manifest, dataset.root)


@pytest.mark.parametrize(
    "replay", ["general", "general:", "general:x", "general:0", "general:1", ":0.2", "general:nan"]
)
def test_a_replay_without_a_possible_share_is_refused(replay: str) -> None:
    with pytest.raises(ValueError, match="must be REF:SHARE with a share above 0 and below 1"):
        config_of(replay=replay)


def test_scores_are_those_of_the_train_records(datasets: tuple[Dataset, Dataset]) -> None:
    mix, _ = datasets
    scores = read_scores(mix, "-response_words")
    assert scores is not None
    expected = mix.scan(["id", "response_words", "split"]).filter(pl.col("split") == "train").collect()
    assert dict(scores.iter_rows()) == dict(expected.select("id", "response_words").iter_rows())
    assert read_scores(mix, None) is read_scores(mix, "-tokens") is None


@pytest.mark.parametrize(
    ("curriculum", "said"),
    [
        ("colour", "no column colour"),
        ("language", "language is no number"),
        ("-perplexity", "no train record has a value of perplexity"),
    ],
)
def test_a_column_that_orders_nothing_is_refused_with_those_that_do(
    datasets: tuple[Dataset, Dataset], curriculum: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_scores(datasets[0], curriculum)
    assert "one of tokens, prompt_words, response_words" in str(caught.value)
    assert "perplexity, " not in str(caught.value.expected)


def test_a_curriculum_without_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="must name a column"):
        config_of(curriculum="-")


def test_what_a_run_forgets_is_measured_on_the_dataset_that_is_typed_and_pinned_to_its_version(
    sft: Sft, datasets: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    general = datasets[1]
    given = ("train", "--manifest", "mix", "--model", "tiny", "--max-steps", "2", "--samples", "0", "--device", "cpu")
    told = sft(*given, "--max-tokens", "256", "--general", "general", "--out", "run", "--json").json["general"]
    pinned = f"general@{general.manifest.seq}"
    left = json.loads((tmp_path / "run" / "general.json").read_text())
    assert len(left.pop("nll_before")) == told["records"]
    assert told == left
    assert (told["reference"], told["records"]) == (pinned, len(general.records("val")))
    assert told["before"]["loss"] != told["after"]["loss"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["general"] == pinned
    sft("train", "--resume", "--out", "run", "--general", "general")
    said = sft("train", "--resume", "--out", "run", "--general", "mix", code=2)
    assert f"general was {pinned} and is mix@" in said.err
    assert "'absent': not in the store" in sft(*given, "--general", "absent", "--out", "other", code=2).err


def test_a_run_replays_its_share_under_its_own_source_and_goes_on_only_with_the_same(
    sft: Sft, datasets: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    general = datasets[1].manifest.seq
    given = ("--manifest", "mix", "--model", "tiny", "--replay", "general:0.25", "--curriculum", "response_words")
    small = ("--max-epochs", "2", "--batch", "8", "--samples", "0", "--device", "cpu", "--max-tokens", "256")
    sft("train", *given, *small, "--out", "run")
    table = pl.read_ipc(tmp_path / "run" / "records.arrow")
    seen = dict(table.group_by("split").agg(pl.col("seen").sum()).iter_rows())
    per_epoch = seen["train"] // 2
    assert abs(seen["replay"] / 2 - 0.25 * (per_epoch + seen["replay"] / 2)) < 1
    replayed = table.filter(pl.col("split") == "replay")
    assert set(replayed["source"]) == {"boats"}
    assert replayed["loss"].null_count() == len(replayed)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("boats" in line.get("loss_by_source", {}) for line in lines)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["replay"] == f"general@{general}:0.25"

    sft("train", "--resume", "--out", "run", "--replay", "general:0.25")
    said = sft("train", "--resume", "--out", "run", "--replay", "general:0.3", code=2)
    assert f"replay was general@{general}:0.25 and is general@{general}:0.3 now" in said.err
