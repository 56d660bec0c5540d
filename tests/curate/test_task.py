"""What kind of task a prompt asks for, and the cue that says so."""

from typing import Any

import polars as pl
import pytest

from curate.cues import CUES
from curate.task import DOLLY_TASKS, HEAD, LEAST_TEXT_WORDS, TAIL, TASKS, classify, explain

EXAMPLES = {
    "coding": ["Write a Python function that reverses a string.", "Create an SQL query that lists all late orders."],
    "maths": ["Calculate 17% of 250.", "A train covers 120 km in 2 hours. How far does it go in 5 hours?"],
    "reasoning": ["Compare trains with ferries.", "What conclusion can be drawn if all ravens are black?"],
    "creative": ["Compose a poem about a ferry in the fog.", "Come up with a name for a bakery."],
    "factual": ["What is a fjord?", "List three rivers of Norway.", "Explain how tides work."],
    "summarising": ["Summarize the text below in two sentences.", "What are the main points of this letter?"],
    "extraction": ["Extract all the dates from the letter.", "Find the names in the following text: Ann met Ole."],
    "classification": ["Classify these animals: hen, cod.", "Is the sentiment of this note positive or negative?"],
    "rewriting": ["Rewrite the sentence in the passive voice.", "Translate into Danish: good morning."],
    "roleplay": ["You are a lighthouse keeper. A storm comes up.", "Pretend to be a pirate and greet me."],
    "other": ["Hello!", "", "Guten Morgen, meine Damen und Herren."],
}


def rows(*prompts: str, context: str | None = None, category: str | None = None) -> pl.DataFrame:
    asked: list[list[dict[str, Any]]] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return pl.DataFrame(
        {"messages": asked, "context": [context] * len(prompts), "category": [category] * len(prompts)},
        schema_overrides={"context": pl.String, "category": pl.String},
    )


@pytest.mark.parametrize(("task", "prompt"), [(task, prompt) for task, group in EXAMPLES.items() for prompt in group])
def test_a_prompt_is_of_its_task_and_politeness_changes_nothing(task: str, prompt: str) -> None:
    assert explain(prompt).task == task
    if prompt and task != "other":
        polite = f"Please, {prompt}" if prompt.startswith("You") else f"Could you please {prompt}"
        assert explain(polite).task == task


def test_an_explanation_names_the_cue_and_the_words_that_it_was_found_in() -> None:
    first = explain("Summarize the Python code below.").fired[0]
    assert (first.task, first.cue, first.words) == ("summarising", "summarise", "summarize")


def test_the_heaviest_cue_decides_and_the_first_of_the_tasks_where_two_are_as_heavy() -> None:
    found = explain("Write a poem about a function in Python.")
    assert found.fired[0].weight == max(f.weight for f in found.fired)
    weights = [(f.weight, TASKS.index(f.task)) for f in found.fired]
    assert weights == sorted(weights, key=lambda pair: (-pair[0], pair[1]))


def test_explain_and_classify_say_the_same() -> None:
    prompts = [prompt for group in EXAMPLES.values() for prompt in group]
    assert classify(rows(*prompts)).to_list() == [explain(prompt).task for prompt in prompts]


def test_a_question_beside_a_text_asks_to_find_something_in_it() -> None:
    text = " ".join(["word"] * LEAST_TEXT_WORDS)
    assert explain("Who wrote it?", text).task == "extraction"
    assert explain("Who wrote it?", text[5:]).task == "factual"


def test_the_category_of_dolly_decides_where_it_names_a_task() -> None:
    assert classify(rows("What is a fjord?", category="creative_writing")).to_list() == ["creative"]
    assert classify(rows("What is a fjord?", category="brainstorming")).to_list() == ["factual"]
    assert set(DOLLY_TASKS.values()) <= set(TASKS)


def test_of_a_long_prompt_the_beginning_and_the_end_are_read() -> None:
    filler = "word " * (HEAD + TAIL)
    assert explain(f"{filler} Extract the dates.").task == "extraction"
    assert explain(f"Summarize this. {filler}").task == "summarising"
    assert explain(f"{filler} {'Extract the dates.'} {filler}").task == "other"


def test_a_row_without_a_user_turn_or_without_messages_is_other() -> None:
    odd = pl.DataFrame(
        {
            "messages": [[{"role": "system", "content": "Classify."}], [], None],
            "context": pl.Series([None] * 3, dtype=pl.String),
            "category": pl.Series([None] * 3, dtype=pl.String),
        }
    )
    assert classify(odd).to_list() == ["other"] * 3


def test_every_cue_belongs_to_a_task_and_every_task_but_other_has_cues() -> None:
    assert {cue.task for cue in CUES} == set(TASKS) - {"other"}
    assert len({(cue.task, cue.name) for cue in CUES}) == len(CUES)


@pytest.mark.realdata
def test_on_dolly_the_cues_agree_with_its_annotators(real_rows: dict[str, list[dict[str, Any]]]) -> None:
    """Without the category column, 85% of the rows whose category names a task (docs/coverage.md has the table)."""
    frame = pl.DataFrame(
        [{"messages": r["messages"], "context": r["context"], "category": r["category"]} for r in real_rows["dolly"]],
        schema_overrides={"context": pl.String},
    )
    told = frame["category"].replace_strict(DOLLY_TASKS, default=None, return_dtype=pl.String)
    found = classify(frame.with_columns(category=pl.lit(None, dtype=pl.String)))
    assert (found == told).mean() > 0.85
