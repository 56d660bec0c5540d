"""Contracts of the wrappers: a conversation that was rendered in a known format comes back; all else stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.export import export
from curate.lineage import why
from curate.normalize import STAGE, candidates, normalize_row, normalize_text
from curate.wrappers import SIGNS, WRAPPERS, unwrap
from schemas.config import NormalizeConfig
from tests.curate.conftest import Apply, chat, make_dataset, turns, view
from tests.curate.test_normalize import one_row
from tests.rows import dataset_of, staged

Pair = tuple[str, str]
CONFIG = NormalizeConfig()

ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
ALPACA_ALONE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


def alpaca(said: list[Pair]) -> str:
    names = {"user": "Instruction", "context": "Input", "assistant": "Response"}
    opening = ALPACA_INPUT if any(role == "context" for role, _ in said) else ALPACA_ALONE
    return opening + "\n\n".join(f"### {names[role]}:\n{text}" for role, text in said)


def vicuna(said: list[Pair]) -> str:
    return VICUNA + "".join(f"USER: {t} " if role == "user" else f"ASSISTANT: {t}</s>" for role, t in said)


def llama_2(said: list[Pair]) -> str:
    text, system = "", ""
    for role, t in said:
        if role == "system":
            system = f"<<SYS>>\n{t}\n<</SYS>>\n\n"
        elif role == "user":
            text, system = f"{text}<s>[INST] {system}{t} [/INST]", ""
        else:
            text += f" {t} </s>"
    return text


def llama_3(said: list[Pair]) -> str:
    return "<|begin_of_text|>" + "".join(
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{t}<|eot_id|>" for role, t in said
    )


def chatml(said: list[Pair]) -> str:
    return "".join(f"<|im_start|>{role}\n{t}<|im_end|>\n" for role, t in said)


def zephyr(said: list[Pair]) -> str:
    return "".join(f"<|{role}|>\n{t}</s>\n" for role, t in said)


def phi_3(said: list[Pair]) -> str:
    return "".join(f"<|{role}|>\n{t}<|end|>\n" for role, t in said)


def gemma(said: list[Pair]) -> str:
    names = {"user": "user", "assistant": "model"}
    return "<bos>" + "".join(f"<start_of_turn>{names[role]}\n{t}<end_of_turn>\n" for role, t in said)


def guanaco(said: list[Pair]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"### {names[role]}: {t}" for role, t in said)


def hh(said: list[Pair]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[role]}: {t}" for role, t in said)


OPENINGS: dict[Callable[[list[Pair]], str], str] = {
    alpaca: "\n\n### Response:\n",
    vicuna: "ASSISTANT:",
    llama_2: "",
    llama_3: "<|start_header_id|>assistant<|end_header_id|>\n\n",
    chatml: "<|im_start|>assistant\n",
    zephyr: "<|assistant|>\n",
    phi_3: "<|assistant|>\n",
    gemma: "<start_of_turn>model\n",
    guanaco: "### Assistant:",
    hh: "\n\nAssistant:",
}
"""How each format asks for the answer."""
WITH_SYSTEM = (llama_2, llama_3, chatml, zephyr, phi_3)
WITH_END = (*WITH_SYSTEM, vicuna, gemma)

MARKS = ("<|", "|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "_of_turn>", "</s>", "<s>", "<eos>", "<bos>")
MARKS += ("USER:", "ASSISTANT:", "Human:", "Assistant:", "### Instruction:", "### Input:", "### Response:")
PIECES = st.sampled_from(
    [
        "a",
        "Why?",
        "  ",
        " ",
        "\n",
        "\n\n",
        "    x = 1",
        "###",
        "[INST",
        "<|",
        "USER",
        "Human",
        ":",
        "é",
        "```",
        "<s",
        "{}",
        "1.",
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=8).map("".join)


def plain(text: str) -> str:
    """Make a text one that normalising leaves alone and that holds no piece of a format."""
    text = normalize_text(text, CONFIG, set())
    return text if text and not any(mark in text for mark in MARKS) else "a"


@st.composite
def conversations(draw: st.DrawFn) -> list[Pair]:
    rounds = draw(st.integers(1, 3))
    said = [(role, draw(TEXTS.map(plain))) for _ in range(rounds) for role in ("user", "assistant")]
    return ([("system", draw(TEXTS.map(plain)))] if draw(st.booleans()) else []) + said


def pairs(messages: list[dict[str, Any]]) -> list[Pair]:
    return [(m["role"], m["content"]) for m in messages]


def fitting(render: Callable[[list[Pair]], str], said: list[Pair]) -> list[Pair]:
    return said if render in WITH_SYSTEM else [turn for turn in said if turn[0] != "system"]


def normalized(row: dict[str, Any]) -> Any:
    return normalize_row(row["messages"], row.get("context"), CONFIG)


@pytest.mark.parametrize("render", OPENINGS, ids=lambda f: f.__name__)
@settings(max_examples=60)
@given(said=conversations())
def test_a_whole_conversation_in_one_field_comes_back(render: Callable[[list[Pair]], str], said: list[Pair]) -> None:
    said = fitting(render, said)
    text = render(said)
    for row in (chat(text), chat(text, ""), chat("", text)):
        after = normalized(row)
        assert pairs(after.messages) == said
        assert "edit:unwrapped" in after.edits
        assert normalize_row(after.messages, after.context, CONFIG).edits == ()
        assert candidates(one_row(row["messages"], None)).height == 1


@pytest.mark.parametrize("render", OPENINGS, ids=lambda f: f.__name__)
@settings(max_examples=60)
@given(said=conversations())
def test_a_prompt_up_to_the_answer_and_the_answer_in_its_own_field_come_back(
    render: Callable[[list[Pair]], str], said: list[Pair]
) -> None:
    said = fitting(render, said)
    prompt = render(said[:-1]) + OPENINGS[render]
    answer = said[-1][1]
    for row in (chat(prompt, answer), chat(prompt.rstrip(), f"{answer}</s>")):
        after = normalized(row)
        assert pairs(after.messages) == said
        assert normalize_row(after.messages, after.context, CONFIG).edits == ()


@pytest.mark.parametrize("render", WITH_END, ids=lambda f: f.__name__)
@settings(max_examples=60)
@given(said=conversations(), cut=st.floats(0.0, 1.0))
def test_a_conversation_that_is_cut_is_never_taken_for_a_longer_one(
    render: Callable[[list[Pair]], str], said: list[Pair], cut: float
) -> None:
    """A part is recognised only where it ends with a whole answer, or where the answer begins."""
    said = fitting(render, said)
    text = render(said)
    part = text[: int(cut * len(text))]
    found = unwrap(chat(part)["messages"], None)
    if found is not None:
        back = pairs(found.messages)
        assert back == said[: len(back)]


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([*MARKS, *SIGNS, "<|im_end|>", "hi", " ", "\n", "\n\n", "user", "<|user|>\n"]), max_size=12
    )
)
def test_normalising_any_mixture_of_markers_twice_changes_nothing(pieces: list[str]) -> None:
    text = "".join(pieces)
    for row in (chat(text), chat(text, "yes"), chat("", text)):
        once = normalize_row(row["messages"], None, CONFIG)
        assert normalize_row(once.messages, once.context, CONFIG).edits == ()


def test_the_input_of_alpaca_becomes_the_context() -> None:
    text = alpaca([("user", "Add the numbers."), ("context", "1 and 2"), ("assistant", "")])
    after = normalized(chat(text, "3"))
    assert (pairs(after.messages), after.context) == ([("user", "Add the numbers."), ("assistant", "3")], "1 and 2")


def test_a_wrapper_inside_a_wrapper_is_taken_apart_too() -> None:
    inner = alpaca([("user", "Name a colour."), ("assistant", "")])
    after = normalized(chat(chatml([("user", inner), ("assistant", "Blue.")])))
    assert pairs(after.messages) == [("user", "Name a colour."), ("assistant", "Blue.")]


def test_a_system_prompt_of_the_row_stays_and_one_more_inside_the_wrapper_leaves_the_row_alone() -> None:
    kept = normalized(turns(("system", "Be brief."), ("user", "[INST] Hi [/INST]"), ("assistant", "Hello.")))
    assert pairs(kept.messages) == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")]
    two = llama_2([("system", "Be kind."), ("user", "Hi")])
    assert normalized(turns(("system", "Be brief."), ("user", two), ("assistant", "Hello."))).edits == ()


@pytest.mark.parametrize(
    "row",
    [
        chat("What does [INST] mean?", "It opens an instruction."),
        chat("[INST] What does this mark mean?", "It opens an instruction."),
        chat("Explain this prompt:\n[INST] Hi [/INST]", "It is Llama-2's."),
        chat("[INST] Hi [/INST] Is this format right?", "Yes."),
        chat("```\n<|im_start|>user\nHi<|im_end|>\n```\nWhich format is this?", "ChatML."),
        chat("<|im_start|>user\nHi<|im_end|>\nWhich format is this?", "ChatML."),
        chat("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>", "This is ChatML."),
        chat("<|im_start|>narrator\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello"),
        chat("<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nHello<|im_end|>"),
        chat("<|im_start|>user\nHi\n<|im_start|>assistant\n", "Hello"),
        chat("USER: Hi ASSISTANT: Hello"),  # Vicuna's answers end with </s>
        chat("Write a play.\n\nHuman: Hi\n\nAssistant: Hello", ""),
        chat("Human: Hi\nAssistant: Hello\nHuman: Bye\nAssistant: Bye", ""),  # a script; HH-RLHF has blank lines
        chat("Human: Hi\n\nHuman: Are you there?\n\nAssistant:", "Yes."),
        chat("The Human: a study", "A book."),
        chat("### Instruction:\nAdd.\n\n### Instruction:\nSubtract.\n\n### Response:", "1"),
        chat("### Input:\n1\n\n### Instruction:\nAdd.\n\n### Response:", "1"),
        chat("### Instruction:\nAdd.\n\n### Input:\n1", "1"),
        chat("[INST] Hi [/INST]", "The prompt was [INST] Hi [/INST]."),
        chat("[INST] Hi [/INST]", "Hello.", context="A context of its own."),
        chat("[INST] Hi [/INST]", "Hello.", "And again?", "Yes."),
        chat("[INST] [/INST]", "Hello."),
        chat("[INST] <<SYS>> Be kind. <</SYS>> [/INST]", "Hello."),
        chat(None, None),
    ],
    ids=lambda row: str(row["messages"][0]["content"])[:40],
)
def test_what_is_no_whole_wrapper_stays_as_it_is(row: dict[str, Any]) -> None:
    assert "edit:unwrapped" not in normalized(row).edits


def test_calls_and_names_are_never_lost() -> None:
    row = chat("[INST] Hi [/INST]", "Hello.")
    row["messages"][1]["tool_calls"] = '[{"name": "wave"}]'
    assert normalized(row).edits == ()


def test_unwrapping_can_be_switched_off() -> None:
    row = chat("[INST] Hi [/INST]", "Hello.")
    assert normalize_row(row["messages"], None, NormalizeConfig(unwrap=False)).edits == ()


def test_every_format_has_a_sign_of_its_own() -> None:
    assert len(SIGNS) == len(WRAPPERS)


def test_the_stage_writes_an_overlay_of_the_unwrapped_rows_alone(store: Any, apply: Apply) -> None:
    rows = [chat("Hi", "Hello."), chat("[INST] Hi [/INST]", "Hello. </s>"), chat("What is [INST]?", "A mark.")]
    after, _ = apply(make_dataset(store, {"s": rows}), STAGE)
    said = [pairs(m) for m in view(after, "messages")["messages"].to_list()]
    assert said == [
        [("user", "Hi"), ("assistant", "Hello.")],
        [("user", "Hi"), ("assistant", "Hello.")],
        [("user", "What is [INST]?"), ("assistant", "A mark.")],
    ]
    assert sum(f.rows for f in after.manifest.files_of("normalize") if f.role == "overlay") == 1


def test_an_unwrapped_row_tells_its_life_and_goes_out_again(tmp_path: Path) -> None:
    """The number of turns changes; lineage and export take it."""
    from curate.store import Store

    text = chatml(
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "Bye.")]
    )
    dataset = staged(dataset_of(tmp_path, {"s": [{"messages": [("user", text), ("assistant", "")]}]}), "normalize")
    life = why(dataset, Store(tmp_path), "s:1")
    assert life.history[-1].facts["edits"] == ["edit:unwrapped"]
    assert {"messages[0].role", "messages[4] assistant"} <= set(life.history[-1].facts["changes"])
    done = export(dataset, "openai", tmp_path / "out")
    line = json.loads((tmp_path / "out/all.jsonl").read_text())
    assert done.rows == 1
    assert [m["role"] for m in line["messages"]] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.realdata
def test_no_real_row_is_taken_for_a_wrapper_and_each_comes_back_from_half_of_the_formats(
    real_rows: dict[str, list[dict[str, Any]]],
) -> None:
    """Rows that hold a mark of a format themselves are left out: they cannot be told from it."""
    unlike = 0
    for number, row in enumerate(row for rows in real_rows.values() for row in rows):
        before = normalize_row(row["messages"], row.get("context"), CONFIG)
        assert "edit:unwrapped" not in before.edits
        said = pairs(before.messages)
        if any(mark in text for _, text in said for mark in MARKS) or any(not text for _, text in said):
            continue
        for render in [*OPENINGS][number % 2 :: 2]:
            fit = fitting(render, said)
            after = normalized(chat(render(fit)))
            unlike += pairs(after.messages) != fit
    assert unlike == 0
