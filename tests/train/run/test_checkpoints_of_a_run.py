"""What a run leaves to go on from: the last good state, of this run alone, whatever happens while it is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from schemas.errors import ConfigError, InputError, StoreError
from tests.train.run.short_run import IDENTITY, lines, same, weights_of
from train.run import checkpoint, folder, interruption, loop
from train.run.parts import Run


def test_checkpoints_hold_no_pickle_and_the_last_two_are_kept(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    loop.train(run_in(tmp_path / "run"), resume=False)
    places = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [p.name for p in places] == ["step-10", "step-12"]
    assert {f.suffix for f in places[0].iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("field", ["manifest", "train_visible", "template", "plan", "base", "tokenizer"])
def test_a_checkpoint_of_another_run_is_refused_saying_what_differs(
    tmp_path: Path, run_in: Callable[..., Run], field: str
) -> None:
    loop.train(run_in(tmp_path / "run", max_steps=2), resume=False)
    other = replace(IDENTITY, **{field: "other"})
    with pytest.raises(ConfigError, match=r"was .* in the checkpoint and is other now"):
        loop.train(run_in(tmp_path / "run", identity=other, max_steps=2), resume=True)


def test_a_broken_checkpoint_is_one_line_with_the_way_out(tmp_path: Path, run_in: Callable[..., Run]) -> None:
    loop.train(run_in(tmp_path / "run", max_steps=2), resume=False)
    weights = tmp_path / "run" / "checkpoints" / "step-2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(InputError, match=r"weights.safetensors is not what was written.*remove this folder"):
        loop.train(run_in(tmp_path / "run", max_steps=2), resume=True)


NO_SPACE = OSError(28, "No space left on device")

IN_RUST = SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(("fatal_call", "error"), [(0, IN_RUST), (1, NO_SPACE), (2, IN_RUST)])
def test_a_disk_full_at_a_checkpoint_leaves_the_one_before_it_and_the_run_goes_on_to_the_same_weights(
    tmp_path: Path, run_in: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, fatal_call: int, error: Exception
) -> None:
    """Whichever of a checkpoint's files does not fit: half of it is written, and then the disk is full."""
    settings = {"max_steps": 6, "method": "full", "eval_every": 100}
    whole = run_in(tmp_path / "whole", **settings)
    loop.train(whole, resume=False)
    left = iter([None] * (3 + fatal_call))  # the first checkpoint has three files

    def fill(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save_file(tensors, file)
        if next(left, error) is not None:
            file.write_bytes(file.read_bytes()[:100])
            raise error

    full = run_in(tmp_path / "full", **settings)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", fill)
        full_disk = pytest.raises(StoreError, match="the disk is full; the last checkpoint is step-2")
        with full_disk, interruption.told(full.folder, "go on"):
            loop.train(full, resume=False)
    assert [p.name for p in full.folder.checkpoints.iterdir()] == ["step-2"]
    resumed = run_in(tmp_path / "full", **settings)
    loop.train(resumed, resume=True)
    assert same(weights_of(resumed), weights_of(whole))
    assert lines(resumed) == lines(whole)


def test_leftovers_of_a_killed_write_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-8.tmp").mkdir()
    (tmp_path / "step-4").mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-4"


def test_a_folder_whose_writing_fails_leaves_the_one_before_it_and_no_leftover(tmp_path: Path) -> None:
    with folder.whole_folder(tmp_path / "best") as place:
        (place / "weights").write_text("good")

    def fill() -> None:
        with folder.whole_folder(tmp_path / "best") as place:
            (place / "weights").write_text("ha")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "weights").read_text() == "good"
