"""However records are encoded (here, in processes, from the cache), the outcome is the same."""

import errno
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import Records, open_dataset
from schemas.errors import ModelError
from schemas.manifest import Source
from schemas.record import TEXT_SCHEMA, Record, content_hash
from tests.train.text.styles import STYLES, tokenizer_of
from tests.train.world import make_records, record
from train.text import cache as cache_module
from train.text import encode as encode_module
from train.text import shard
from train.text import workers as workers_module
from train.text.cache import TokenCache
from train.text.refusal import Refusal
from train.text.template import Encoded, Encoder, Template, encode
from train.text.workers import Job, Workers

PROCESS = Template(tokenizer_of(STYLES[0], "byte-level"), "test")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "SHARD", 7)
    monkeypatch.setattr(encode_module, "CACHED", 1)


def store_of(root: Path, records: list[Record]) -> Records:
    """Commit records as a dataset whose rows are all in split train, two shards of each source."""
    store, draft = Store(root), Draft("mix")
    for source in sorted({r.source for r in records}):
        own = [r for r in records if r.source == source]
        files = []
        annotations = []
        for number, some in enumerate((own[: len(own) // 2], own[len(own) // 2 :])):
            rows = [_row(r) for r in some]
            frame = pl.DataFrame(rows, schema=TEXT_SCHEMA, orient="row")
            files.append(store.put(frame, role="text", stage="ingest", source=source, shard=number))
            none = pl.Series([None] * len(some), dtype=pl.String)
            split = pl.DataFrame({"verdict": none, "detail": none, "split": ["train"] * len(some)})
            annotations.append(store.put(split, role="annotation", stage="split", source=source, shard=number))
        draft = draft.with_source(Source(name=source, format="test"), [*files, *annotations])
    commit_version(store, draft, None, "made up")
    return open_dataset("mix", root).records("train")


def _row(one: Record) -> dict[str, Any]:
    messages = [asdict(message) for message in one.messages]
    known = {"id": one.id, "source": one.source, "messages": messages, "tools": one.tools, "source_key": one.id}
    return {**dict.fromkeys(TEXT_SCHEMA), **known, "content_hash": content_hash(messages, None)}


@pytest.fixture
def stored(tmp_path: Path) -> Records:
    return store_of(tmp_path / "store", rows())


def rows() -> list[Record]:
    """Records of two sources, in the order of a store, some of which no template can use."""
    made = [*make_records(30), record(98, ("user", "hi")), record(99, ("user", "</s>"), ("assistant", "x"), source="b")]
    return sorted(made, key=lambda r: r.source)


def told(found: Encoded) -> list[Any]:
    examples = [
        (e.id, e.source, e.weight, e.input_ids.tolist(), e.supervised.tolist(), e.targets) for e in found.examples
    ]
    return [examples, found.examples.keys.tolist(), list(found.refusals), found.trimmed, list(found.cut)]


# records that are read from a store -----------------------------------------------------------------------------------


def test_records_of_a_store_are_those_that_were_put_there(stored: Records) -> None:
    assert list(stored) == rows()
    assert list(stored.ids()) == [r.id for r in rows()]
    assert len(stored) == len(rows())
    assert [one for part in stored.slices(5) for one in part] == rows()
    assert stored[3] == rows()[3]
    assert stored[-1] == rows()[-1]
    assert stored[2:9:3] == tuple(rows()[2:9:3])
    assert stored.find([rows()[4].id, rows()[20].id, "nobody"]) == {rows()[i].id: rows()[i] for i in (4, 20)}


def test_the_digest_of_records_tells_every_change(tmp_path: Path, stored: Records) -> None:
    again = store_of(tmp_path / "again", rows())
    assert again.digest == stored.digest
    others = [rows()[:-1], [*rows()[:-1], record(99, ("user", "</s>"), ("assistant", "y"), source="b")]]
    with_tools = [Record(r.id, r.source, r.messages, tools='[{"name": "x"}]') for r in rows()]
    digests = {store_of(tmp_path / str(i), some).digest for i, some in enumerate([*others, with_tools])}
    assert len({stored.digest, *digests}) == 4
    assert stored.dataset.records("val").digest != stored.digest


# the same outcome -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [40, 1000])
def test_shards_of_any_size_and_a_store_give_what_plain_records_give(
    stored: Records, monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    plain = told(encode(rows(), PROCESS, max_tokens=max_tokens))
    assert told(encode(stored, PROCESS, max_tokens=max_tokens)) == plain
    monkeypatch.setattr(encode_module, "SHARD", 1000)
    monkeypatch.setattr(shard, "BATCH", 3)
    assert told(encode(rows(), PROCESS, max_tokens=max_tokens)) == plain


def test_processes_give_what_one_gives_and_end(stored: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "FEW", 1)
    with Encoder(PROCESS, workers=2) as encoder:
        found = encoder.encode(stored, max_tokens=40, overlong="split")
        started = encoder._workers._started
        assert len(started) == 2
    assert told(found) == told(encode(rows(), PROCESS, max_tokens=40, overlong="split"))
    assert not any(process.is_alive() for process in started)


class Deadly:
    """Records whose reading ends the process."""

    def __iter__(self) -> Iterator[Record]:
        os._exit(9)


def test_a_worker_that_dies_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "FEW", 1)
    with (
        pytest.raises(ModelError, match=r"one of 2 worker processes died .*--workers 0"),
        Workers(PROCESS, 2) as workers,
    ):
        list(workers.made([Job(rows()), Job(Deadly())], 40))  # pyright: ignore[reportArgumentType] # no rows, by design


# the cache ------------------------------------------------------------------------------------------------------------


def cached(records: Records, folder: Path, **settings: Any) -> tuple[Encoded, list[str]]:
    said: list[str] = []
    encoder = Encoder(settings.pop("template", PROCESS), cache=TokenCache(folder, said.append))
    return encoder.encode(records, **{"max_tokens": 1000, **settings}), said


@pytest.mark.parametrize("settings", [{}, {"max_tokens": 40}, {"max_tokens": 40, "overlong": "split"}])
def test_a_second_start_reads_no_text_and_has_the_same_tokens(
    stored: Records, tmp_path: Path, settings: dict[str, Any]
) -> None:
    first, said = cached(stored, tmp_path / "cache", **settings)
    for file in stored.dataset.manifest.files:
        if file.role == "text":
            (stored.dataset.root / file.path).unlink()
    again = open_dataset("mix", stored.dataset.root).records("train")
    second, _ = cached(again, tmp_path / "cache", **settings)
    assert told(second) == told(first)
    assert not said


def test_one_entry_serves_every_bound_on_length(stored: Records, tmp_path: Path) -> None:
    for most in (1000, 40, 20):
        cached(stored, tmp_path, max_tokens=most)
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_another_template_or_tokenizer_is_another_entry(stored: Records, tmp_path: Path) -> None:
    cached(stored, tmp_path)
    for style, kind in ((STYLES[0], "prefix space"), (STYLES[2], "byte-level")):
        template = Template(tokenizer_of(style, kind), "test")
        found, _ = cached(stored, tmp_path, template=template)
        assert told(found) == told(encode(rows(), template, max_tokens=1000))
    assert len(list((tmp_path / "tokens").iterdir())) == 3


def _flip(file: Path) -> None:
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize("name", ["00000.arrow", "00001.arrow", "entry.json"])
@pytest.mark.parametrize("spoil", [_flip, _cut, Path.unlink])
def test_a_spoilt_entry_is_noticed_and_made_anew(stored: Records, tmp_path: Path, name: str, spoil: Any) -> None:
    first = told(cached(stored, tmp_path)[0])
    (place,) = (tmp_path / "tokens").iterdir()
    spoil(place / name)
    second, said = cached(stored, tmp_path)
    assert told(second) == first
    assert len(said) == 1
    assert "not what was written: made anew" in said[0]
    assert cached(stored, tmp_path)[1] == []


def test_a_full_disk_or_a_folder_that_cannot_be_written_is_said_and_done_without(
    stored: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = told(encode(rows(), PROCESS, max_tokens=1000))
    (tmp_path / "file").write_text("")
    found, said = cached(stored, tmp_path / "file")
    assert told(found) == plain
    assert len(said) == 1
    write, written = shard.write, list[Path]()

    def full(table: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path)

    monkeypatch.setattr(shard, "write", full)
    found, said = cached(stored, tmp_path / "full")
    assert told(found) == plain
    assert [line.rpartition(": ")[2] for line in said] == ["No space left on device"]
    assert list((tmp_path / "full" / "tokens").iterdir()) == []


def test_a_run_that_ends_while_it_writes_leaves_no_entry(
    stored: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TokenCache, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(stored, tmp_path)
    assert list((tmp_path / "tokens").iterdir()) == []


def test_of_two_runs_at_once_one_entry_stays_and_both_have_their_tokens(
    stored: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = TokenCache.keep

    def later(self: TokenCache, *arguments: Any) -> Any:
        monkeypatch.setattr(TokenCache, "keep", keep)
        cached(stored, tmp_path)  # another run, from beginning to end
        return keep(self, *arguments)

    monkeypatch.setattr(TokenCache, "keep", later)
    found, said = cached(stored, tmp_path)
    assert told(found) == told(encode(rows(), PROCESS, max_tokens=1000))
    assert not said
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_the_longest_unused_entry_goes_first_and_that_is_said(
    stored: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(stored, tmp_path)
    (first,) = (tmp_path / "tokens").iterdir()
    second = Template(tokenizer_of(STYLES[0], "prefix space"), "test")
    cached(stored, tmp_path, template=second)
    os.utime(first, (1, 1))
    size = sum(file.stat().st_size for file in (tmp_path / "tokens").rglob("*.arrow"))
    monkeypatch.setattr(cache_module, "MOST_BYTES", int(1.2 * size))
    _, said = cached(stored, tmp_path, template=Template(tokenizer_of(STYLES[2], "byte-level"), "test"))
    assert not first.exists()
    assert len(list((tmp_path / "tokens").iterdir())) == 2
    assert said == [line for line in said if "the longest unused" in line] != []


# refusals -------------------------------------------------------------------------------------------------------------


def test_a_template_that_fails_stops_at_the_first_shard_and_without_strict_all_are_told() -> None:
    template = Template(tokenizer_of(STYLES[5], "byte-level"), "gemma")  # knows no system turn
    records = [record(i, ("system", "x"), ("user", "y"), ("assistant", "z")) for i in range(20)]
    with pytest.raises(ModelError, match="7 of 7 records"):
        encode(records, template, max_tokens=99)
    found = encode(records, template, max_tokens=99, strict=False)
    assert [r.id for r in found.refusals] == [r.id for r in records]
    assert isinstance(found.refusals[3], Refusal)
    assert found.refusals.by_reason() == {"template_error": {"a": 20}}  # pyright: ignore[reportAttributeAccessIssue] # refusals in columns count themselves


def test_the_tokens_of_cached_examples_are_views_of_mapped_files(stored: Records, tmp_path: Path) -> None:
    examples = cached(stored, tmp_path)[0].examples
    assert len(examples.chunks) > 1
    assert not any(chunk.input_ids.flags.owndata or chunk.supervised.flags.owndata for chunk in examples.chunks)
    np.testing.assert_array_equal(examples.tokens_at(0), [e.input_ids[0] for e in examples])


def test_a_cache_that_can_only_be_read_is_read(
    stored: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = cached(stored, tmp_path)

    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module.os, "utime", denied)
    again, said = cached(stored, tmp_path)
    assert told(again) == told(first)
    assert not said
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_long_records_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by letters, not by records alone; the tokens are the same."""
    whole = told(encode(rows(), PROCESS, max_tokens=1000))
    sizes: list[int] = []
    batch = shard._batch

    def counted(records: Any, *others: Any) -> Any:
        sizes.append(len(records))
        return batch(records, *others)

    monkeypatch.setattr(shard, "_batch", counted)
    monkeypatch.setattr(shard, "BATCH_LETTERS", 0)
    assert told(encode(rows(), PROCESS, max_tokens=1000)) == whole
    assert set(sizes) == {0, 1}
