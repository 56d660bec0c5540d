"""What was said stays: a line that a crash cut short is left out, and what comes after it stands on its own."""

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import InputError
from train.evaluation.generation import Answer
from train.evaluation.said import Said, answer_key, loss_key
from train.text.tokens import Example


def test_what_was_written_is_known_again_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "eval" / "said.jsonl"
    with Said(path) as said:
        said.add([{"key": "a", "id": "1", "text": "héllo\n", "whole": True, "tokens": 3}])
        said.add([{"key": "l", "id": "1", "targets": 4, "nll": 0.1}])
    path.write_bytes(path.read_bytes() + b'{"key": "b", "te')
    with Said(path) as said:
        assert said.answer("a") == Answer("héllo\n", True, 3)
        assert said.loss("l") == (4, 0.1)
        assert said.answer("b") is None
        said.add([{"key": "b", "id": "2", "text": "", "whole": False, "tokens": 0}])
    with Said(path) as said:
        assert said.answer("a") == Answer("héllo\n", True, 3)
        assert said.answer("b") == Answer("", False, 0)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "eval").write_text("a file")
    with pytest.raises(InputError, match="expected a folder to write to"), Said(tmp_path / "eval" / "said.jsonl"):
        pass


def test_a_key_is_of_all_that_decides() -> None:
    answers = {
        answer_key("w", [1, 2], 8, "fp32"),
        answer_key("v", [1, 2], 8, "fp32"),
        answer_key("w", [1, 3], 8, "fp32"),
        answer_key("w", [1, 2], 9, "fp32"),
        answer_key("w", [1, 2], 8, "bf16"),
    }
    assert len(answers) == 5
    ids = np.asarray([1, 2, 3], np.int32)
    masks = [np.asarray(mask, np.bool_) for mask in ([0, 1, 1], [0, 0, 1])]
    assert len({loss_key("w", Example("x", "a", 1.0, ids, mask), "fp32") for mask in masks}) == 2
