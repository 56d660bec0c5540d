"""Coverage counts the kept rows, each once in every table, names examples, and points out what is thin."""

from typing import Any

import pytest

from curate.coverage import MESSAGES, SHOWN_CHARACTERS, THIN_SHARE, WORDS, Coverage, buckets, cover
from curate.select import STAGE as SELECT
from curate.signals import STAGE as SIGNALS
from curate.store import Store
from curate.task import TASKS
from schemas.config import SelectConfig
from schemas.errors import ConfigError
from tests.curate.conftest import chat, make_dataset, run_on, turns, with_stage

ENGLISH = "The answer to this is that it was in the harbour, where we had been waiting for you."


def facts(count: int) -> list[dict[str, Any]]:
    return [chat(f"What is harbour {i}?", ENGLISH) for i in range(count)]


def covered(store: Store, sources: dict[str, list[dict[str, Any]]], **options: Any) -> Coverage:
    return cover(run_on(store, make_dataset(store, sources, **options), SIGNALS)[0])


def test_every_kept_row_is_counted_once_in_each_table(store: Store) -> None:
    rows = [
        chat("Write a Python function.", "def f(): return 1"),
        chat("Calculate 2 + 2.", "4"),
        chat("Hello!", ""),
        turns(
            ("system", "Be brief."),
            ("user", "Why?"),
            ("assistant", "Je ne sais pas, mais vous le savez."),
            ("user", "?"),
        ),
        chat("What?", "No.", broken="ingest:wrong_type"),
    ]
    found = covered(store, {"a": rows, "b": facts(4)}, shard_rows=2)
    assert found.rows == 8
    assert found.sources == {"a": 4, "b": 4}
    assert sum(t.rows for t in found.tasks) == 8
    assert {t.task: t.by_source for t in found.tasks if t.rows} == {
        "factual": {"b": 4, "a": 1},
        "coding": {"a": 1},
        "maths": {"a": 1},
        "other": {"a": 1},
    }
    assert found.languages == {"en": 4, "fr": 1}
    assert found.undecided == 3
    assert found.words == {"0": 1, "1-4": 2, "5-19": 5}
    assert found.messages == {"1-2": 7, "3-4": 1}


def test_buckets_meet_without_a_gap() -> None:
    assert list(buckets(WORDS)) == ["1-4", "5-19", "20-49", "50-99", "100-199", "200-499", "500+"]
    assert list(buckets(MESSAGES)) == ["1-2", "3-4", "5-8", "9+"]
    assert list(buckets((1, 2))) == ["1", "2+"]


def test_a_task_just_under_one_percent_is_thin_and_one_of_one_percent_is_not(store: Store) -> None:
    maths = [chat("Calculate 2 + 2.", "4"), chat("Calculate 3 + 3.", "6")]
    assert "maths: 2 rows, 0.99%" in covered(store, {"a": facts(200) + maths}).thin
    found = covered(store, {"a": facts(198) + maths})
    assert not [line for line in found.thin if line.startswith("maths")]
    assert THIN_SHARE == 0.01
    assert "coding: none" in found.thin
    assert not [line for line in found.thin if line.startswith("other")]


def test_examples_are_the_rows_with_the_smallest_ids_whatever_the_shards(store: Store) -> None:
    whole = covered(store, {"a": facts(30)})
    parts = covered(store, {"a": facts(30)}, shard_rows=4)
    (task,) = [t for t in whole.tasks if t.rows]
    assert [t.examples for t in parts.tasks] == [t.examples for t in whole.tasks]
    assert len(task.examples) == 3
    assert [e.id for e in task.examples] == sorted(e.id for e in task.examples)
    number = task.examples[0].prompt.removeprefix("What is harbour ").removesuffix("?")
    assert task.examples[0].place == f"a:{number}"


def test_a_long_prompt_is_cut_and_stands_on_one_line(store: Store) -> None:
    found = covered(store, {"a": [chat("What is\n\nthis " + "word " * 40, "A word.")]})
    (prompt,) = [e.prompt for t in found.tasks for e in t.examples]
    assert prompt.startswith("What is this word")
    assert len(prompt) <= SHOWN_CHARACTERS
    assert prompt.endswith("…")


def test_rows_that_a_later_stage_left_out_are_not_counted(store: Store) -> None:
    dataset, _ = run_on(store, make_dataset(store, {"a": facts(10)}), SIGNALS)
    after, _ = run_on(store, dataset, SELECT, SelectConfig(rows=4))
    assert cover(after).rows == 4


def test_without_signals_or_with_those_of_an_earlier_release_the_command_is_named(store: Store) -> None:
    plain = make_dataset(store, {"a": facts(2)})
    with pytest.raises(ConfigError, match=r"signals has not run.*sft curate signals test"):
        cover(plain)
    _, result = run_on(store, plain, SIGNALS)
    old = result.entry.model_copy(update={"version": 1})
    with pytest.raises(ConfigError, match="earlier release"):
        cover(with_stage(plain, type(result)(old, result.files)))


def test_a_version_without_kept_rows_is_covered(store: Store) -> None:
    found = covered(store, {"a": [chat("What?", "No.", broken="ingest:wrong_type")]})
    assert (found.rows, found.thin, found.languages) == (0, (), {})


def test_it_is_plain_values_for_json(store: Store) -> None:
    found = covered(store, {"a": facts(3)}).to_json()
    assert {"rows", "tasks", "languages", "words", "messages", "thin", "undecided"} <= set(found)
    assert {task["task"] for task in found["tasks"]} == set(TASKS)
