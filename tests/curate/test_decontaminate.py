"""Decontaminate: an item is found however it is written; what is found is evidence; a bad file is one clear line."""

import gzip
import io
import json
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import decontaminate
from curate.decontaminate import STAGE, evals
from curate.decontaminate.evals import find_sets, pin, texts_of_row
from curate.decontaminate.evidence import spans_of, word_spans
from curate.decontaminate.index import build_index, need_of, plain_letters
from curate.decontaminate.overlap import cut_texts
from curate.decontaminate.presets import PRESETS
from curate.dedup.texts import texts_in_memory
from curate.stage import run_stage
from curate.store import Store
from schemas.config import DecontaminateConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, CorruptObjectError, InputError, SftError
from tests.curate.conftest import DATA, Apply, chat, make_dataset, read_jsonl, turns, view, with_stage

TEXT = (
    "amber basin cedar delta ember fjord grove heron inlet jetty kiosk ledge maple notch otter plume "
    "quilt ridge slate tulip umber vault wharf yacht zebra acorn birch coral drift easel flint glade "
    "hazel ivory jolly knoll lilac mocha nylon olive pearl quartz raven spire thorn unity velvet willow"
)
WORDS = TEXT.split()
OTHERS = [f"other{word}" for word in WORDS]


def sentence(count: int, start: int = 0) -> str:
    return " ".join(WORDS[(start + 7 * i) % len(WORDS)] for i in range(count))


@pytest.fixture
def eval_file(tmp_path: Path) -> Any:
    def write(items: Sequence[Any], name: str = "exam.jsonl") -> str:
        rows = [{"question": item} if isinstance(item, str) else item for item in items]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def matches_of(dataset: Dataset) -> list[Any]:
    return view(dataset, "matches")["matches"].to_list()


def found(store: Store, rows: Sequence[Mapping[str, Any]], file: str, **settings: Any) -> list[Any]:
    dataset = make_dataset(store, {"a": rows})
    config = DecontaminateConfig(eval=(file,), **settings)
    return matches_of(with_stage(dataset, run_stage(store, dataset, STAGE, config, fresh=True)))


# what is found --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 6, 8, 9, 12, 19, 20, 39, 40, 48])
@pytest.mark.parametrize("how", ["verbatim", "capitals", "other punctuation", "inside of a longer prompt"])
def test_an_item_of_any_length_is_found_in_full_however_it_is_written(
    store: Store, eval_file: Any, count: int, how: str
) -> None:
    item = sentence(count)
    prompt = {
        "verbatim": item,
        "capitals": item.upper(),
        "other punctuation": ", ".join(item.split()) + "?!",
        "inside of a longer prompt": f"Please tell me now: {item}. Thank you for that.",
    }[how]
    [[match]] = found(store, [chat(prompt, "No.")], eval_file([item]))
    assert match["coverage"] == 1.0
    assert match["where"] == "prompt"
    assert match["item"] == "line 1"


@pytest.mark.parametrize("count", [7, 8, 9, 12, 19, 20, 30, 40, 48])
def test_an_item_with_a_tenth_of_its_words_changed_is_found_wherever_they_stand(
    store: Store, eval_file: Any, count: int
) -> None:
    draw = random.Random(count)
    rows = []
    for _ in range(40 if count >= 20 else 9):
        words = sentence(count).split()
        for at in draw.sample(range(count), max(1, round(count / 10))):
            words[at] = OTHERS[at]
        rows.append(chat(" ".join(words), "No."))
    assert all(found(store, rows, eval_file([sentence(count)])))


def test_words_that_were_added_or_left_out_cost_themselves_alone(store: Store, eval_file: Any) -> None:
    words = sentence(30).split()
    longer = " ".join([*words[:10], "added", "here", *words[10:]])
    shorter = " ".join([*words[:10], *words[12:]])
    [a], [b] = found(store, [chat(longer, "No."), chat(shorter, "No.")], eval_file([sentence(30)]))
    assert a["coverage"] == 1.0
    assert b["coverage"] == pytest.approx(28 / 30)


@pytest.mark.parametrize(("shared", "hit"), [(15, True), (14, False)])
def test_coverage_decides(store: Store, eval_file: Any, shared: int, hit: bool) -> None:
    prompt = " ".join([*sentence(30).split()[:shared], *OTHERS[:15]])
    assert bool(found(store, [chat(prompt, "No.")], eval_file([sentence(30)]), coverage=0.5)[0]) == hit


@pytest.mark.parametrize(("shared", "hit"), [(6, True), (5, False)])
def test_a_short_item_needs_three_quarters_of_its_words(store: Store, eval_file: Any, shared: int, hit: bool) -> None:
    prompt = " ".join([*sentence(8).split()[:shared], *OTHERS[:5]])
    assert bool(found(store, [chat(prompt, "No.")], eval_file([sentence(8)]))[0]) == hit


def test_a_short_item_must_stand_in_a_response_word_for_word(store: Store, eval_file: Any) -> None:
    words = sentence(7)
    rows = [chat("Name some.", f"Such as {words}."), chat("Name some.", f"Such as {words.rpartition(' ')[0]} lamps.")]
    whole, part = found(store, rows, eval_file([words]))
    assert [m["where"] for m in whole] == ["response"]
    assert part == []


def test_the_words_count_in_their_order_only(store: Store, eval_file: Any) -> None:
    backwards = " ".join(reversed(sentence(24).split()))
    assert found(store, [chat(backwards, "No.")], eval_file([sentence(24)])) == [[]]


@pytest.mark.parametrize(
    "row",
    [
        chat(sentence(12), "No.", context=sentence(12, 3)),
        turns(("system", "Be brief."), ("user", f"{sentence(12)}\n{sentence(12, 3)}"), ("assistant", "No.")),
        chat("Hello?", "Hello.", f"{sentence(12)} {sentence(12, 3)}", "No."),
    ],
    ids=["prompt and context", "after a system prompt", "a later turn"],
)
def test_every_turn_and_the_context_are_searched(store: Store, eval_file: Any, row: dict[str, Any]) -> None:
    file = eval_file([{"instruction": sentence(12), "input": sentence(12, 3)}])
    [[match]] = found(store, [row], file)
    assert (match["coverage"], match["where"]) == (1.0, "prompt")


@pytest.mark.parametrize(
    ("row", "hit"),
    [
        (chat("What is 2 + 2?", "4"), True),
        (chat("what is 2+2", "4", context="A sum."), True),
        (chat("What is 2 + 2 + 2?", "6"), False),
        (chat("Sum.", "What is 2+2?"), False),
    ],
)
def test_an_item_of_four_words_or_fewer_is_found_only_as_all_that_the_user_says(
    store: Store, eval_file: Any, row: dict[str, Any], hit: bool
) -> None:
    assert bool(found(store, [row], eval_file(["What is 2+2?"]))[0]) == hit


def test_items_too_short_to_be_searched_for_are_counted_and_named(apply: Apply, store: Store, eval_file: Any) -> None:
    file = eval_file([{"id": "tiny", "question": "2+2?"}, sentence(9)])
    _, result = apply(make_dataset(store, {"a": [chat("2+2?", "4")]}), STAGE, DecontaminateConfig(eval=(file,)))
    assert any("1 items have fewer than 3 words" in n and "exam tiny" in n for n in result.notes)


@given(st.lists(st.integers(0, 6), min_size=0, max_size=30), st.lists(st.integers(0, 6), min_size=5, max_size=12))
def test_shared_words_never_exceed_those_of_the_longest_common_subsequence(row: list[int], item: list[int]) -> None:
    from curate.decontaminate.overlap import ROOM, WIDEST_BAND, align, band_of

    table = [[0] * (len(row) + 1) for _ in range(len(item) + 1)]
    for i, a in enumerate(item):
        for j, b in enumerate(row):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    room = np.zeros((ROOM, 2 * WIDEST_BAND + 1), np.int32)
    a, b = np.array(item, np.uint64), np.array(row, np.uint64)
    shared, start, stop = align(a, 0, len(a), b, len(b), 0, band_of(len(a)), room)
    assert shared <= table[-1][-1]
    assert shared <= stop - start
    contiguous = any(row[k : k + len(item)] == item for k in range(min(9, len(row))))
    assert shared == len(item) or not contiguous


@given(st.text(max_size=60))
def test_evidence_is_cut_into_the_very_words_that_compiled_code_reads(text: str) -> None:
    known = plain_letters()
    places = texts_in_memory(pl.Series([text]))
    words, starts = np.zeros(len(text.encode()) + 1, np.uint64), np.zeros(2, np.int64)
    count = cut_texts(places.addresses, places.segment, places.index, known.kinds, known.folds, words, starts)
    assert len(list(word_spans(text, known))) == count


# what is not ----------------------------------------------------------------------------------------------------------


def test_a_phrase_that_stands_in_many_rows_is_a_template_and_no_match(
    apply: Apply, store: Store, eval_file: Any
) -> None:
    file = eval_file([f"Write a short and simple story about the {sentence(4)}"])
    rows = [chat(f"Write a short and simple story about the {OTHERS[i]} number {i}", "No.") for i in range(12)]
    few, _ = apply(make_dataset(store, {"a": rows[:10]}), STAGE, DecontaminateConfig(eval=(file,)))
    many, result = apply(make_dataset(store, {"a": rows}), STAGE, DecontaminateConfig(eval=(file,)))
    assert all(matches_of(few))
    assert not any(matches_of(many))
    assert any("12 look-alikes are templates" in note for note in result.notes)


def test_a_pattern_of_many_rows_is_a_template_though_each_is_nearly_the_item(store: Store, eval_file: Any) -> None:
    rows = [chat(f"Which of the {i} lamps is lit?", "None.") for i in range(12)]
    told = found(store, rows, eval_file(["Which of the 7 lamps is lit?"]))
    assert [bool(matches) for matches in told] == [i == 7 for i in range(12)]
    few = found(store, rows[:3], eval_file(["Which of the 7 lamps is lit?"]))
    assert all(few)


def test_an_item_in_full_is_found_though_it_stands_in_many_rows(store: Store, eval_file: Any) -> None:
    assert all(found(store, [chat(sentence(9), f"No {i}.") for i in range(30)], eval_file([sentence(9)])))


def test_an_ngram_of_many_items_starts_nothing_and_every_item_can_be_found(store: Store, eval_file: Any) -> None:
    opening = "Which of the following answers is the one that fits best"
    items = [f"{opening} {sentence(3, i)}" for i in range(40)]
    index = build_index(
        pl.DataFrame({"eval": "e", "item": [str(i) for i in range(40)], "text": items}), DecontaminateConfig()
    )
    assert np.diff(index.lookup.posted).max() <= 10
    rows = [chat(items[7], "No."), chat(f"{opening} to you", "No.")]
    hit, other = found(store, rows, eval_file(items), coverage=0.9)
    assert hit[0]["item"] == "line 8"
    assert other == []


def test_items_that_are_the_same_words_are_all_named(store: Store, eval_file: Any) -> None:
    file = eval_file([{"id": "x", "question": sentence(9)}, {"id": "y", "question": sentence(9).upper() + "?"}])
    [row] = found(store, [chat(sentence(9), "No.")], file)
    assert [m["item"] for m in row] == ["x", "y"]


# the verdict ----------------------------------------------------------------------------------------------------------


def test_the_verdict_says_what_the_row_holds_in_words_for_a_person(apply: Apply, store: Store, eval_file: Any) -> None:
    rows = [chat(f"Tell me: {sentence(9).upper()}!", "No."), chat("Why is it dark outside?", "It is night.")]
    file = eval_file([{"id": 7, "question": sentence(9)}])
    after, result = apply(make_dataset(store, {"a": rows}), STAGE, DecontaminateConfig(eval=(file,)))
    told = view(after, "kept", "reject_reason", "reject_detail", "matches")
    assert told["reject_reason"].to_list() == ["contaminated:eval", None]
    assert told["reject_detail"][0] == f'100% of exam 7 in the prompt: "{sentence(9).upper()}"'
    assert told["matches"].to_list()[1] == []
    assert any("rows that hold evaluation items: 1 (1 of exam)" in note for note in result.notes)


def test_report_finds_the_same_and_rejects_nothing(apply: Apply, store: Store, eval_file: Any) -> None:
    dataset = make_dataset(store, {"a": [chat(sentence(9), "No.")]})
    after, _ = apply(dataset, STAGE, DecontaminateConfig(eval=(eval_file([sentence(9)]),), action="report"))
    told = view(after, "kept", "detail_decontaminate", "matches")
    assert told["kept"].to_list() == [True]
    assert told["detail_decontaminate"][0].startswith("100% of exam")
    assert len(told["matches"][0]) == 1


def test_long_evidence_is_cut(store: Store, eval_file: Any) -> None:
    [[match]] = found(store, [chat(sentence(48), "No.")], eval_file([sentence(48)]))
    assert len(match["text"]) == 160
    assert match["text"].endswith("…")


def test_rows_that_were_rejected_before_are_not_judged(apply: Apply, store: Store, eval_file: Any) -> None:
    rows = [chat(sentence(9), "No.", broken="ingest:broken_json"), chat(sentence(9), "No.")]
    after, _ = apply(make_dataset(store, {"a": rows}), STAGE, DecontaminateConfig(eval=(eval_file([sentence(9)]),)))
    assert [m is None for m in matches_of(after)] == [True, False]
    assert view(after, "verdict_decontaminate")["verdict_decontaminate"].to_list() == [None, "contaminated:eval"]


def test_rows_without_turns_and_empty_turns_pass(store: Store, eval_file: Any) -> None:
    rows = [{"messages": []}, chat("", ""), chat("  ", "?!")]
    assert found(store, rows, eval_file([sentence(9)])) == [[], [], []]


@pytest.mark.parametrize("line", ["q7", "exam:q7", sentence(9).upper() + "."])
def test_what_is_allowed_is_counted_and_not_kept(
    apply: Apply, store: Store, eval_file: Any, tmp_path: Path, line: str
) -> None:
    allow = tmp_path / "allow.txt"
    allow.write_text(f"# known and fine\n\n{line}\n")
    file = eval_file([{"id": "q7", "question": sentence(9)}, {"id": "q8", "question": sentence(9, 5)}])
    dataset = make_dataset(store, {"a": [chat(sentence(9), "No."), chat(sentence(9, 5), "No.")]})
    after, result = apply(dataset, STAGE, DecontaminateConfig(eval=(file,), allow=str(allow)))
    assert [len(m) for m in matches_of(after)] == [0, 1]
    assert any("1 matches are excused by the allow-list" in note for note in result.notes)


def test_without_an_evaluation_set_nothing_is_searched_for_and_that_is_said(apply: Apply, store: Store) -> None:
    after, result = apply(make_dataset(store, {"a": [chat("Why?", "So.")]}), STAGE)
    assert matches_of(after) == [None]
    assert "nothing was searched for" in result.notes[0]


# laws -----------------------------------------------------------------------------------------------------------------


def test_shards_and_threads_change_nothing(store: Store, eval_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [sentence(6 + i % 30, i) for i in range(60)]
    rows = [chat(f"{sentence(3, i)} {items[i % 60]}" if i % 3 else sentence(20, i), "No.") for i in range(150)]
    told = []
    for shard_rows, threads in ((1000, 1), (7, 1), (7, 3)):
        monkeypatch.setattr(pl, "thread_pool_size", lambda n=threads: n)
        dataset = make_dataset(store, {"a": rows}, shard_rows=shard_rows)
        config = DecontaminateConfig(eval=(eval_file(items),))
        told.append(matches_of(with_stage(dataset, run_stage(store, dataset, STAGE, config, fresh=True))))
    assert told[0] == told[1] == told[2]
    assert sum(map(bool, told[0])) > 50


def test_more_matches_than_there_was_room_for_are_all_found(
    store: Store, eval_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [chat(sentence(12, i), "No.") for i in range(20)]
    file = eval_file([sentence(12, i) for i in range(20)])
    before = found(store, rows, file)
    monkeypatch.setattr("curate.decontaminate._FIRST_FOUND", 1)
    assert found(store, rows, file) == before
    assert all(before)


def test_the_version_records_name_and_hash_of_each_file_and_no_folder(store: Store, eval_file: Any) -> None:
    dataset = make_dataset(store, {"a": [chat("Why?", "So.")]})
    result = run_stage(store, dataset, STAGE, DecontaminateConfig(eval=(eval_file([sentence(9)]),)))
    [recorded] = result.entry.config["eval"]
    assert re.fullmatch(r"exam\.jsonl:[0-9a-f]{64}", recorded)


def test_a_changed_file_is_another_run_and_the_same_file_is_not(store: Store, eval_file: Any) -> None:
    dataset = make_dataset(store, {"a": [chat(sentence(9), "No.")]})
    config = DecontaminateConfig(eval=(eval_file([sentence(12, 5)]),))
    first = run_stage(store, dataset, STAGE, config)
    assert run_stage(store, dataset, STAGE, config).cached
    eval_file([sentence(9)])
    second = run_stage(store, dataset, STAGE, config)
    assert not second.cached
    assert second.entry.config != first.entry.config


def test_a_file_that_changes_between_pinning_and_reading_is_refused(store: Store, eval_file: Any) -> None:
    dataset = make_dataset(store, {"a": [chat(sentence(9), "No.")]})
    config = pin(dataset, DecontaminateConfig(eval=(eval_file([sentence(12, 5)]),)))
    eval_file([sentence(9)])
    with pytest.raises(CorruptObjectError, match="has changed"):
        list(STAGE.run(dataset, config, lambda _: None))


# evaluation files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "fields", "texts"),
    [
        ({"question": "Q?", "answer": "A"}, (), ["Q?"]),
        ({"instruction": "Do", "input": "this", "output": "done"}, (), ["Do\nthis"]),
        ({"question": "Q?", "choices": ["x", "y"], "answer": 1}, (), ["Q?\nx\ny"]),
        ({"question": "Q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}, (), ["Q?\nx\ny"]),
        ({"instruction": "Do", "instances": [{"input": "a", "output": "b"}]}, (), ["Do\na"]),
        ({"instruction": "Do", "instances": [{"input": "a"}, {"input": "c"}]}, (), ["Do\na", "Do\nc"]),
        ({"turns": ["First?", "Then?"], "category": "x"}, (), ["First?\nThen?"]),
        ({"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A"}]}, (), ["Q?"]),
        ({"question": "Q?", "solution": "S"}, ("solution",), ["S"]),
        ({"question": "Q?", "deep": {"inner": "S"}}, ("deep.inner",), ["S"]),
        ({"other": "Q?"}, (), [""]),
        ({"question": None, "text": "T"}, (), ["T"]),
        ({"question": 4}, (), [""]),
        ({"instruction": "Do", "instances": 5}, (), ["Do"]),
        ({"instruction": "Do", "instances": [5, None]}, (), ["Do"]),
    ],
)
def test_the_text_of_an_item_is_what_a_model_is_asked_with(
    row: dict[str, Any], fields: tuple[str, ...], texts: list[str]
) -> None:
    assert texts_of_row(row, fields) == texts


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "jsonl.gz", "glob"])
def test_every_container_that_ingest_reads_is_read(store: Store, tmp_path: Path, kind: str) -> None:
    items = [{"id": "q1", "question": sentence(9)}, {"id": "q2", "question": sentence(9, 5)}]
    path = tmp_path / f"exam.{'jsonl' if kind == 'glob' else kind}"
    lines = "".join(json.dumps(item) + "\n" for item in items)
    if kind == "json":
        path.write_text(json.dumps(items))
    elif kind == "csv":
        pl.DataFrame(items).write_csv(path)
    elif kind == "parquet":
        pl.DataFrame(items).write_parquet(path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    given_as = str(tmp_path / "ex*.jsonl") if kind == "glob" else str(path)
    [[match]] = found(store, [chat(sentence(9, 5), "No.")], given_as)
    assert (match["eval"], match["item"]) == ("exam", "q2")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_reads_its_fields_from_its_files_on_the_hub(
    name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is not asked: its files are exchanged for one local file with the preset's fields."""
    preset = PRESETS[name]
    asked: list[str] = []
    words = sentence(30).split()
    parts = [" ".join(part) for part in np.array_split(words, len(preset.fields))]
    local = tmp_path / "test-00000-of-00001.jsonl"
    local.write_text(json.dumps({"noise": "x", **dict(zip(preset.fields, parts, strict=True))}) + "\n")

    from curate.ingest.inputs import find_inputs

    def nearby(paths: Sequence[str], base: Path | None = None) -> Any:
        asked.extend(paths)
        return find_inputs([str(local)], base)

    monkeypatch.setattr("curate.decontaminate.evals.find_inputs", nearby)
    [[match]] = found(store, [chat(sentence(30), "No.")], name)
    assert (match["eval"], match["coverage"]) == (name, 1.0)
    assert set(asked) == set(preset.paths)
    assert all(path.startswith("hf://datasets/") for path in asked)


def test_hub_paths_go_through_the_same_opener_as_ingest(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    from curate.ingest import inputs

    class Files:
        def info(self, path: str) -> dict[str, Any]:
            return {"type": "file", "size": 10, "name": path}

        def open(self, path: str, mode: str) -> io.BytesIO:
            assert (path, mode) == ("datasets/some/one/exam.jsonl", "rb")
            return io.BytesIO(json.dumps({"instruction": sentence(9)}).encode() + b"\n")

    def file_system(uri: str) -> tuple[Files, str]:
        return Files(), uri.partition("://")[2]

    monkeypatch.setattr(inputs, "_file_system", file_system)
    [[match]] = found(store, [chat(sentence(9), "No.")], "hf://datasets/some/one/exam.jsonl")
    assert match["eval"] == "exam"


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        ("", {}, "empty"),
        ('{"other": "x"}\n', {}, "no text: its rows have other; expected text in instruction"),
        ('{"question": "x"}\n', {"eval_field": ("nope",)}, "expected text in nope"),
        ('{"question": "x y z"}\n{"question": "x\n', {}, "line 2"),
        ("[1, 2]\n", {}, "no object with named fields"),
        ("just words", {}, "no JSON"),
    ],
)
def test_a_bad_evaluation_file_is_one_clear_line(
    store: Store, tmp_path: Path, content: str, settings: dict[str, Any], says: str
) -> None:
    path = tmp_path / "exam.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        found(store, [chat("Why?", "So.")], str(path), **settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_items_without_text_among_others_are_counted(apply: Apply, store: Store, eval_file: Any) -> None:
    file = eval_file([{"id": "blank", "question": " "}, sentence(9)])
    _, result = apply(make_dataset(store, {"a": [chat("Why?", "So.")]}), STAGE, DecontaminateConfig(eval=(file,)))
    assert any("1 items without text were not searched for (blank)" in note for note in result.notes)


@pytest.mark.parametrize("name", ["nothing.jsonl", "gsm9k", "-"])
def test_a_set_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(SftError, match=re.escape(name)):
        list(find_sets(name, ()))


def test_a_folder_that_is_called_like_a_preset_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math").mkdir()
    monkeypatch.chdir(tmp_path)

    def no_files(_paths: Sequence[str]) -> tuple[()]:
        return ()

    monkeypatch.setattr(evals, "find_inputs", no_files)
    [found_set] = find_sets("math", ())
    assert (found_set.name, found_set.fields) == ("math", PRESETS["math"].fields)


def test_half_a_character_in_an_evaluation_file_is_no_crash(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_text(f'{{"id": "q\\ud800", "question": "\\udfff {sentence(9)}"}}\n')
    [[match]] = found(store, [chat(sentence(9), "No.")], str(path))
    assert match["item"] == "q?"


def test_an_evaluation_file_with_accents_apart_is_found_in_rows_with_them_joined(store: Store, eval_file: Any) -> None:
    item = "Énumérez les étapes nécessaires à la création d'une société à Genève"
    [[match]] = found(store, [chat(item, "Non.")], eval_file([unicodedata.normalize("NFD", item)]))
    assert match["coverage"] == 1.0


def test_a_row_that_holds_many_items_is_cut_into_words_once(
    store: Store, eval_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[int] = []

    def counted(row: Any, where: int, known: Any) -> Any:
        cut.append(where)
        return spans_of(row, where, known)

    monkeypatch.setattr(decontaminate, "spans_of", counted)
    items = [sentence(9, start) for start in range(15)]
    rows = [chat(". ".join(items), "No.")]
    assert len(found(store, rows, eval_file(items))[0]) == decontaminate.MOST_MATCHES
    assert cut == [0]


def test_two_sets_of_one_name_are_refused(store: Store, eval_file: Any, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    files = (eval_file([sentence(9)]), eval_file([sentence(12)], "more/exam.jsonl"))
    with pytest.raises(ConfigError, match="two sets go by the name exam"):
        run_stage(store, make_dataset(store, {"a": []}), STAGE, DecontaminateConfig(eval=files))


def test_a_missing_or_unreadable_allow_list_is_refused(store: Store, eval_file: Any, tmp_path: Path) -> None:
    dataset, file = make_dataset(store, {"a": [chat("Why?", "So.")]}), eval_file([sentence(9)])
    with pytest.raises(InputError, match="no such file"):
        run_stage(store, dataset, STAGE, DecontaminateConfig(eval=(file,), allow=str(tmp_path / "no.txt")))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        run_stage(store, dataset, STAGE, DecontaminateConfig(eval=(file,), allow=str(tmp_path / "bytes.txt")))


def test_what_is_needed_never_falls_as_items_grow() -> None:
    need = need_of(np.arange(1, 200), 0.5)
    assert (np.diff(need, axis=0) >= 0).all()
    assert need[[2, 4, 7, 15, 16, 39]].tolist() == [[3, 3], [4, 5], [6, 8], [8, 8], [9, 9], [20, 20]]


# real rows ------------------------------------------------------------------------------------------------------------


def rewritten(text: str, draw: random.Random) -> str:
    """Give a text in capitals, its punctuation exchanged or left out."""
    return re.sub(r"[.,!?;:'\"()-]", lambda _: draw.choice(["", ";", "!", "…", " - "]), text).upper()


def changed(parts: Sequence[str], draw: random.Random) -> list[str]:
    """Exchange a tenth of the words of several texts, taken together."""
    words = [(i, word) for i, part in enumerate(parts) for word in part.split()]
    for at in draw.sample(range(len(words)), max(1, round(len(words) / 10))):
        words[at] = (words[at][0], f"qz{at}x")
    return [" ".join(word for i, word in words if i == n) for n in range(len(parts))]


@pytest.mark.realdata
@pytest.mark.parametrize("seed", [11, 12])
def test_all_252_items_planted_three_ways_are_found_in_12000_real_rows(
    store: Store, real_rows: dict[str, list[dict[str, Any]]], seed: int
) -> None:
    draw = random.Random(seed)
    planted = []
    for item in read_jsonl("eval_self_instruct_252.jsonl"):
        parts = (item["instruction"], item["instances"][0]["input"])
        for how, (asked, material) in {
            "verbatim": parts,
            "case": [rewritten(part, draw) for part in parts],
            "changed": changed(parts, draw),
        }.items():
            answer = item["instances"][0]["output"] or "-"
            planted.append(chat(asked, answer, context=material or None, source_key=f"{how}/{item['id']}"))
    dataset = make_dataset(store, {**real_rows, "planted": planted}, shard_rows=5000)
    file = str(DATA / "eval_self_instruct_252.jsonl")
    result = run_stage(store, dataset, STAGE, DecontaminateConfig(eval=(file,)), fresh=True)
    told = view(with_stage(dataset, result), "source", "source_key", "kept", "matches")
    mine = told.filter(pl.col("source") == "planted")
    missed = [
        key
        for key, kept, matches in mine.select("source_key", "kept", "matches").iter_rows()
        if kept or key.partition("/")[2] not in {match["item"] for match in matches}
    ]
    assert missed == []
    assert told.filter(pl.col("source") != "planted", ~pl.col("kept")).height == 0
