"""Texts of edited rows: which differ, how word by word, and alike many of each kind where not all are shown."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.diff.attribution import attribute
from curate.diff.changes import Diff, compare
from curate.diff.texts import edited_rows
from curate.diff.upstream import pair_upstream
from curate.store import Store
from curate.version import Draft
from schemas.dataset import Dataset
from schemas.manifest import Source
from schemas.record import TEXT_SCHEMA, content_hash
from tests.rows import dataset_of, messages, question, staged, text_frame


def rows(n: int) -> list[dict[str, Any]]:
    return [question(f"Where is boat {i}?", f"Boat {i} lies at quay {i} of the port.", key=f"k{i}") for i in range(n)]


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    """Two rows edited by their publisher under one key, one under another, and six by normalize."""
    root = tmp_path_factory.mktemp("texts")
    old = [*rows(9), *(question(f"Where is ship {i}?", f"Ship {i} is at  sea. ", key=f"s{i}") for i in range(6))]
    before = staged(dataset_of(root, {"s": old}, name="a", shard_rows=4), "normalize", surrounding_blanks=False)
    new = [dict(r) for r in old]
    for i in (0, 1):
        new[i] = {**question(f"Where is boat {i}?", f"Boat {i} has left.", key=f"k{i}"), "context": "A log."}
    new[2] = {**new[2], "messages": [*new[2]["messages"], ("user", "Sure?")], "key": "n2"}
    after = staged(dataset_of(root, {"s": new}, name="b", shard_rows=5), "normalize")
    return attribute(pair_upstream(compare(before, after)))


def test_the_texts_that_differ_are_named(edited: Diff) -> None:
    named = {tuple(fields) for fields in edited.changes.filter(stage="ingest")["fields"]}
    assert named == {("messages[1] assistant", "context"), ("messages[2] user",)}
    assert {tuple(f) for f in edited.changes.filter(stage="normalize")["fields"]} == {("messages[1] assistant",)}


def test_the_pieces_of_a_text_give_both_texts_again(edited: Diff) -> None:
    found, total = edited_rows(edited, 100)
    assert (len(found), total) == (9, 9)
    before = dict(edited.before.scan(["id", "messages"]).collect().iter_rows())
    after = dict(edited.after.scan(["id", "messages"]).collect().iter_rows())
    for row in found:
        for text in row.texts:
            old = "".join(piece for kind, piece in text.pieces if kind != "added")
            new = "".join(piece for kind, piece in text.pieces if kind != "removed")
            if text.where == "messages[1] assistant":
                assert (old, new) == (before[row.id][1]["content"], after[row.match or row.id][1]["content"])
            else:
                assert (old, new) in (("", "A log."), ("", "Sure?"))


def test_where_there_are_more_each_word_and_stage_has_alike_many_by_smallest_id(edited: Diff) -> None:
    found, total = edited_rows(edited, 4)
    assert total == 9
    kinds = [(row.word, row.stage) for row in found]
    assert kinds == [("edited_upstream", "ingest"), *[("edited", "ingest")] * 2, ("edited", "normalize")]
    shown = [row.id for row in found if row.stage == "normalize"]
    assert shown == sorted(edited.changes.filter(stage="normalize")["id"])[: len(shown)]
    assert edited_rows(edited, 4) == (found, total)


def test_each_shard_is_read_once_however_many_rows_are_shown(edited: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[Path] = Counter()
    scan_ipc = pl.scan_ipc

    def counted(path: Path) -> pl.LazyFrame:
        read[path] += 1
        return scan_ipc(path)

    monkeypatch.setattr(pl, "scan_ipc", counted)
    assert len(edited_rows(edited, 100)[0]) == 9
    shards = [*edited.before.shards, *edited.after.shards]
    assert max(read[shard.text] for shard in shards) == 1


def test_a_call_of_a_tool_that_changed_is_shown(tmp_path: Path) -> None:
    call = '[{"name": "tide", "arguments": {"quay": 4}}]'
    versions = [called(tmp_path, calls) for calls in (call, call.replace("4", "5"))]
    diff = attribute(compare(*versions))
    assert diff.changes["fields"].to_list() == [["messages[1].tool_calls"]]
    [row], _ = edited_rows(diff, 5)
    [text] = row.texts
    assert (text.where, text.pieces[1:]) == ("messages[1].tool_calls", (("removed", "4}}]"), ("added", "5}}]")))


def called(root: Path, calls: str) -> Dataset:
    said = messages(("user", "When is high tide?"), ("assistant", ""))
    said[1]["tool_calls"] = calls
    frame = text_frame([question("", "")], "s").with_columns(
        messages=pl.Series([said], dtype=TEXT_SCHEMA["messages"]), content_hash=pl.lit(content_hash(said, None))
    )
    file = Store(root).put(frame, role="text", stage="ingest", source="s", shard=0)
    draft = Draft("d").with_source(Source(name="s", format="test"), [file])
    return Dataset(draft.manifest(), root)
