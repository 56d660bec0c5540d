"""The audit counts what a run would do: the same records, the same tokens, the same refusals."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from schemas.errors import ModelError
from schemas.record import Message, Record
from tests.train.text.test_template import DROPS_SYSTEM, NO_STOP, PLAIN, REFUSES_SYSTEM
from tests.train.world import WORDS, make_records, record
from train.model.tiny import tiny_tokenizer
from train.text import audit as audit_module
from train.text.audit import Audit, audit, load_tokenizer
from train.text.template import FATAL, Template, encode

ALL = 1 << 20


def train(records: list[Record]) -> Iterator[tuple[str, Record]]:
    return (("train", one) for one in records)


def found(records: list[Record], template: Template, max_tokens: int = ALL) -> Audit:
    return audit(train(records), template, max_tokens=max_tokens)


@pytest.mark.parametrize("max_tokens", [40, 60, ALL])
def test_rows_tokens_and_targets_are_those_that_a_run_would_have(
    records: list[Record], template: Template, max_tokens: int
) -> None:
    told, run = found(records, template, max_tokens), encode(records, template, max_tokens=max_tokens)
    assert told.total.rows == len(records)
    assert told.total.usable == len(run.examples)
    assert told.total.tokens == sum(len(e) for e in run.examples)
    assert told.total.targets == sum(e.targets for e in run.examples)
    assert told.total.refused.total() == len(run.refusals)
    assert [refusal for _, refusal in told.named] == list(run.refusals)


def test_sources_and_splits_add_up_to_the_whole(records: list[Record], template: Template) -> None:
    splits = ("train", "val", "test")
    told = audit(((splits[i % 3], r) for i, r in enumerate(records)), template, max_tokens=60)
    for parts in (told.by_source.values(), told.by_split.values()):
        for name in ("rows", "usable", "tokens", "targets", "cut", "masked"):
            assert sum(getattr(part, name) for part in parts) == getattr(told.total, name)
        assert sorted(n for part in parts for n in part.lengths) == sorted(told.total.lengths)
    assert set(told.by_source) == {"a", "b"}
    assert set(told.by_split) == set(splits)


def test_the_size_of_the_chunks_changes_nothing(
    records: list[Record], template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(records, template, 60).to_json()
    monkeypatch.setattr(audit_module, "CHUNK", 5)
    assert found(records, template, 60).to_json() == whole


def test_an_empty_dataset_has_an_empty_audit(template: Template) -> None:
    told = found([], template).to_json()
    assert (told["rows"], told["trainable"], told["lengths"]["max"]) == (0, None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(DROPS_SYSTEM, "dropped"), (REFUSES_SYSTEM, "template_error"), (NO_STOP, "no_stop")],
)
def test_what_stops_a_run_is_counted_here(records: list[Record], template: Template, text: str, reason: str) -> None:
    """A run would stop at the first of them; the audit says how many there are."""
    template.tokenizer.chat_template = text
    with pytest.raises(ModelError):
        encode(records, template, max_tokens=ALL)
    told = found(records, template)
    without_system = [r for r in records if r.messages[0].role != "system"]
    hit = len(records) if reason == "no_stop" else len(records) - len(without_system)
    assert reason in FATAL
    assert dict(told.total.refused) == {reason: hit}
    assert told.total.usable == len(records) - hit


def test_records_that_no_template_can_use_are_counted_by_reason(template: Template) -> None:
    rows = [
        record(1, ("user", "the cat?"), ("assistant", "sat.")),
        record(2, ("user", "the cat <|im_end|>?"), ("assistant", "sat.")),
        record(3, ("user", "the cat?"), ("assistant", " ")),
        record(4, ("user", "the cat?"), source="b"),
    ]
    told = found(rows, template)
    assert dict(told.total.refused) == {"special_token": 1, "no_targets": 2}
    assert told.total.masked == 2
    assert [(r.id, split) for split, r in told.named] == [(rows[i].id, "train") for i in (1, 2, 3)]
    assert told.by_source["b"].usable == 0


def test_a_row_that_just_fits_is_used_and_one_token_less_cuts_its_stop(template: Template) -> None:
    one = record(1, ("user", "the cat?"), ("assistant", "sat on a mat."))
    length = len(encode([one], template, max_tokens=ALL).examples[0])
    closing = 1  # the template's line end after the stop token, which is no target
    fits, tight = found([one], template, length), found([one], template, length - closing - 1)
    assert (fits.total.usable, fits.total.cut) == (1, 0)
    assert (tight.total.usable, tight.total.refused["overlong"], tight.total.cut) == (0, 1, 1)
    assert tight.total.masked == 0


def test_a_row_whose_prompt_fills_the_bound_would_be_fully_masked_if_it_were_cut(template: Template) -> None:
    one = record(1, ("user", " ".join(WORDS * 3)), ("assistant", "sat."))
    told = found([one], template, 20)
    assert (told.total.masked, told.total.cut, told.total.usable) == (1, 1, 0)


def test_a_second_bos_is_counted(records: list[Record]) -> None:
    tokenizer = tiny_tokenizer(records)
    tokenizer.bos_token = "<|im_start|>"  # noqa: S105 # a token of text
    template = Template(tokenizer, "test")
    tokenizer.chat_template = "{{ bos_token }}" + PLAIN
    assert found(records, template).total.double_bos == len(records)
    tokenizer.chat_template = PLAIN
    assert found(records, template).total.double_bos == 0


def test_blanks_that_the_template_trims_are_counted(template: Template) -> None:
    template.tokenizer.chat_template = PLAIN.replace("message['content']", "message['content'] | trim")
    told = found([record(1, ("user", " the cat? "), ("assistant", "sat."))], template)
    assert told.total.trimmed == 1


def test_the_histogram_and_percentiles_hold_every_row(records: list[Record], template: Template) -> None:
    told = found(records, template).total
    lengths = np.array(told.lengths)
    assert sum(n for _, n in told.histogram()) == len(records)
    assert told.percentile(1.0) == lengths.max()
    p50 = told.percentile(0.5)
    assert p50 is not None
    assert (lengths <= p50).mean() >= 0.5 > (lengths < p50).mean()
    below = dict(told.histogram())
    assert below["64"] == ((lengths > 32) & (lengths <= 64)).sum()


def test_refused_rows_are_named_up_to_a_bound_and_counted_beyond_it(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MOST_NAMED", 2)
    rows = [record(i, ("user", "the cat?")) for i in range(5)]
    told = found(rows, template)
    assert (len(told.named), told.total.refused["no_targets"]) == (2, 5)


# tokenizers -----------------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template_is_told_which_one_is_used(tokenizer: PreTrainedTokenizerFast) -> None:
    told = found(make_records(3), Template(tokenizer, "bare"))
    assert told.notes == ("bare has no chat template: using ChatML with stop token '<|im_end|>'",)


def test_tiny_is_made_from_the_records_as_a_run_makes_it(records: list[Record]) -> None:
    assert load_tokenizer("tiny", lambda: iter(records)).get_vocab() == tiny_tokenizer(records).get_vocab()


def test_a_folder_that_holds_a_tokenizer_alone_is_enough(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.save_pretrained(tmp_path / "t")
    loaded = load_tokenizer(str(tmp_path / "t"), lambda: iter(()))
    assert loaded.get_vocab() == tokenizer.get_vocab()


def _empty(folder: Path) -> str:
    return str(folder)


def _absent(folder: Path) -> str:
    return str(folder / "nothing")


def _broken(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{")
    (folder / "tokenizer_config.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("make", [_empty, _absent, _broken])
def test_a_tokenizer_that_cannot_be_loaded_is_one_clear_line(tmp_path: Path, make: Callable[[Path], str]) -> None:
    with pytest.raises(ModelError) as error:
        load_tokenizer(make(tmp_path), lambda: iter(()))
    assert str(error.value).startswith("--tokenizer ")
    assert "\n" not in str(error.value)


def test_a_tool_call_that_the_template_leaves_out_is_a_dropped_row(template: Template) -> None:
    template.tokenizer.chat_template = PLAIN
    call: Any = '[{"function": {"name": "look_up", "arguments": "{}"}}]'
    one = record(1, ("user", "the cat?"), ("assistant", "sat."))
    calling = dataclasses.replace(one, messages=(*one.messages[:1], Message("assistant", "sat.", None, call)))
    assert dict(found([calling], template).total.refused) == {"dropped": 1}
