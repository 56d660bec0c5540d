"""Contracts of split: no leak between splits, no row that moves, no empty evaluation."""

import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import STAGE as DEDUP
from curate.split import LEDGER_SCHEMA, STAGE, components
from curate.store import Store
from schemas.config import SplitConfig
from schemas.dataset import Dataset
from tests.curate.conftest import Apply, chat, make_dataset, run_on, view
from tests.rows import dataset_of, question, staged

Row = dict[str, Any]
HALVES = SplitConfig(train=0.4, val=0.3, test=0.3)


def numbered(count: int, start: int = 0) -> list[Row]:
    return [chat(f"Question number {i}?", f"Answer {i}.", source_key=f"k{i}") for i in range(start, start + count)]


def splits(dataset: Dataset) -> dict[str, str]:
    return dict(view(dataset, "id", "split").drop_nulls().iter_rows())


def ledger(dataset: Dataset) -> pl.DataFrame:
    (file,) = [f for f in dataset.manifest.files if (f.stage, f.role) == ("split", "index")]
    return pl.read_ipc(dataset.path(file))


def dealt(store: Store, rows: list[Row], config: SplitConfig = HALVES, after: Dataset | None = None) -> Dataset:
    """Dedup and split, going on from another dataset's ledger."""
    dataset, _ = run_on(store, make_dataset(store, {"a": rows}, after=after), DEDUP)
    return run_on(store, dataset, STAGE, config)[0]


# dealing --------------------------------------------------------------------------------------------------------------


def test_shares_are_met_and_every_readable_row_has_a_split(store: Store, apply: Apply) -> None:
    rows = [*numbered(2000), chat("x", "y", broken="ingest:wrong_type")]
    after, result = apply(make_dataset(store, {"a": rows}), STAGE)
    frame = view(after, "split", "verdict_split")
    counts = dict(frame["split"].value_counts().iter_rows())
    assert counts.pop(None) == 1
    assert counts["train"] == pytest.approx(1600, abs=60)
    assert counts["val"] == pytest.approx(200, abs=45)
    assert counts["test"] == pytest.approx(200, abs=45)
    assert frame["verdict_split"].null_count() == 2001
    assert "train: 1," in result.notes[-1]


def test_a_row_that_an_earlier_stage_left_out_is_dealt_but_not_judged(store: Store, apply: Apply) -> None:
    rows = numbered(3)
    rows.append({**rows[0], "source_key": "copy"})
    dataset, _ = apply(make_dataset(store, {"a": rows}), DEDUP)
    after, _ = apply(dataset, STAGE)
    frame = view(after, "split", "kept", "verdict_split")
    assert frame["kept"].to_list().count(False) == 1
    assert frame["split"].null_count() == 0
    assert frame["split"][0] == frame["split"][3]


def test_the_ledger_holds_each_id_once_sorted(store: Store, apply: Apply) -> None:
    after, _ = apply(make_dataset(store, {"a": numbered(50)}), STAGE)
    frame = ledger(after)
    assert frame.schema == LEDGER_SCHEMA
    assert frame.equals(frame.sort("id_hi", "id_lo"))
    ids = [f"{hi:016x}{lo:016x}" for hi, lo, _ in frame.iter_rows()]
    assert sorted(ids) == sorted(splits(after))
    assert "split-ledger" in STAGE.features


def test_test_may_have_no_share(store: Store, apply: Apply) -> None:
    after, _ = apply(make_dataset(store, {"a": numbered(100)}), STAGE, SplitConfig(train=0.7, val=0.3, test=0.0))
    assert set(splits(after).values()) == {"train", "val"}


@pytest.mark.parametrize(("count", "expected"), [(1, {"train"}), (2, {"train", "val"}), (3, {"train", "val", "test"})])
@pytest.mark.parametrize("salt", ["a", "b", "c", "d"])
def test_small_sets_fill_train_then_val_then_test_and_say_so(
    count: int, expected: set[str], salt: str, store: Store, apply: Apply
) -> None:
    after, result = apply(make_dataset(store, {"a": numbered(count)}), STAGE, SplitConfig(salt=salt))
    assert set(splits(after).values()) == expected
    assert any("small" in note or "too few" in note for note in result.notes)


def test_an_empty_dataset_has_nothing_to_deal(store: Store, apply: Apply) -> None:
    after, _ = apply(make_dataset(store, {"a": []}), STAGE)
    assert ledger(after).height == 0


# groups ---------------------------------------------------------------------------------------------------------------


def test_rows_with_the_same_prompt_share_a_split(store: Store, apply: Apply) -> None:
    rows = [chat(f"Why {i % 20}?", f"Because {i}.") for i in range(200)]
    after, _ = apply(make_dataset(store, {"a": rows}), STAGE, HALVES)
    frame = view(after, "split").with_columns(prompt=pl.Series([i % 20 for i in range(200)]))
    assert frame.group_by("prompt").agg(pl.col("split").n_unique())["split"].max() == 1
    assert frame["split"].n_unique() == 3


def test_rows_in_conflict_share_a_split_although_their_prompts_differ(store: Store) -> None:
    rows: list[Row] = []
    for i in range(40):
        prompt = " ".join(f"p{i}w{k}" for k in range(60))
        rows += [chat(prompt, "Yes, it is."), chat(f"{prompt} please", "No, never.")]
    frame = view(dealt(store, rows), "conflict_id", "split", "kept")
    assert frame["kept"].all()
    assert frame["conflict_id"].n_unique() == 40
    assert frame.group_by("conflict_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_rows_without_a_prompt_are_no_group(store: Store, apply: Apply) -> None:
    rows = [chat("", f"Text number {i}.") for i in range(60)]
    after, _ = apply(make_dataset(store, {"a": rows}), STAGE, HALVES)
    assert len(set(splits(after).values())) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.none() | st.integers(0, 9).map(str)] * 3), min_size=1, max_size=30))
def test_components_are_those_of_the_graph(links: list[tuple[str | None, ...]]) -> None:
    label = components([pl.Series(column, dtype=pl.String) for column in zip(*links, strict=True)])
    expected = list(range(len(links)))
    for _ in links:  # Floyd's way: spread the least label until nothing changes
        for i, row in enumerate(links):
            for j, other in enumerate(links):
                if any(a is not None and a == b for a, b in zip(row, other, strict=True)):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert label.tolist() == expected


def test_a_long_chain_of_links_is_one_component() -> None:
    count = 5000
    order = [i * 1237 % count for i in range(count)]  # 1237 and 5000 share no factor: every number once
    pairs = [pl.Series([str((order[i] + shift) // 2) for i in range(count)]) for shift in (0, 1)]
    assert set(components(pairs).tolist()) == {0}


# what never moves -----------------------------------------------------------------------------------------------------


def test_added_rows_follow_their_group_and_the_rest_is_dealt(store: Store) -> None:
    first = dealt(store, numbered(30))
    second = dealt(
        store, [*numbered(60), chat("Question number 7?", "Another answer.", source_key="more")], after=first
    )
    before, after = splits(first), splits(second)
    assert {id_: after[id_] for id_ in before} == before
    frame = view(second, "source_key", "split")
    by_key = dict(frame.iter_rows())
    assert by_key["more"] == by_key["k7"]


def test_a_row_that_was_gone_has_its_old_split_when_it_comes_back(store: Store) -> None:
    first = dealt(store, numbered(40))
    second = dealt(store, numbered(20), after=first)
    assert ledger(second).equals(ledger(first))
    third = dealt(store, numbered(40), after=second)
    assert splits(third) == splits(first)


@pytest.mark.parametrize("evaluation", ["val", "test"])
def test_a_bridge_leaves_evaluation_as_it_is_and_takes_the_training_row_out(evaluation: str, store: Store) -> None:
    """Two rows with other answers are dealt apart; a third has the prompt of the first and the answer of the second."""
    one, other = (" ".join(f"{letter}{i:02}" for i in range(60)) for letter in "ab")
    training = chat("How do I learn to ski quickly?", one, source_key="x")
    evaluated = chat("How do I learn to ski fast?", other, source_key="y")
    bridge = chat("How do I learn to ski quickly?", other, source_key="z")
    for salt in map(str, range(200)):
        config = SplitConfig(train=0.4, val=0.3, test=0.3, salt=salt)
        first = dealt(store, [training, evaluated, *numbered(6)], config)
        if view(first, "split")["split"].to_list()[:2] == ["train", evaluation]:
            break
    after = dealt(store, [training, evaluated, *numbered(6), bridge], config, after=first)
    frame = view(after, "id", "split", "verdict_split", "detail_split", "kept")
    assert frame["verdict_split"].to_list() == ["leak:bridge"] + [None] * 8
    assert frame["split"].to_list()[:2] == ["train", evaluation]
    assert frame["split"][8] == evaluation
    assert frame["kept"][1] != frame["kept"][8]  # one of them is the other's duplicate
    assert frame["detail_split"][0] == f"now joined to {frame['id'][1]} (a a.jsonl:1), a row of {evaluation}"
    again, result = run_on(store, after, STAGE, config)
    assert view(again, "verdict_split", "split").equals(view(after, "verdict_split", "split"))
    assert "bridges to evaluation rows: 1" in result.notes[-1]


@pytest.mark.parametrize("change", [{"salt": "other"}, {"train": 0.5, "val": 0.25, "test": 0.25}])
def test_another_salt_or_share_deals_anew_and_says_so(change: dict[str, Any], store: Store) -> None:
    first = dealt(store, numbered(200), SplitConfig())
    after, result = run_on(store, first, STAGE, SplitConfig(**change))
    assert any("dealt anew" in note for note in result.notes)
    assert splits(after) != splits(first)
    assert ledger(after).height == 200


# laws -----------------------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "one two three", "four five six"]), min_size=1, max_size=5)
ROW = st.tuples(WORDS, WORDS).map(lambda t: (" ".join(t[0]), " ".join(t[1])))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(ROW, max_size=8), min_size=2, max_size=4), st.sampled_from(["x", "y", "z"]))
def test_a_row_never_changes_split_because_data_was_added_and_no_group_leaks(
    batches: list[list[tuple[str, str]]], salt: str
) -> None:
    config = SplitConfig(train=0.4, val=0.3, test=0.3, salt=salt)
    with tempfile.TemporaryDirectory() as folder:
        store, rows, dataset = Store(Path(folder)), list[Row](), None
        known: dict[str, str] = {}
        for batch in batches:
            rows += [chat(q, a, source_key=f"k{len(rows) + i}") for i, (q, a) in enumerate(batch)]
            dataset = dealt(store, rows, config, after=dataset)
            now = splits(dataset)
            assert {id_: now[id_] for id_ in known} == known
            known = now
            kept = view(dataset, "kept", "split", "cluster_id", "conflict_id").with_columns(
                prompt=pl.Series([row["messages"][0]["content"] for row in rows], dtype=pl.String)
            )
            kept = kept.filter("kept").with_columns(training=pl.col("split") == "train")
            for link in ("cluster_id", "conflict_id", "prompt"):
                sides = kept.drop_nulls(link).group_by(link).agg(pl.col("training").n_unique())["training"]
                assert sides.max() in (None, 1)


@settings(max_examples=20, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_rows(rows: list[tuple[str, str]], shuffler: random.Random) -> None:
    made = [chat(q, a, source_key=f"k{i}") for i, (q, a) in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        assert splits(dealt(store, made)) == splits(dealt(store, shuffler.sample(made, len(made))))


@pytest.mark.realdata
def test_on_real_rows_the_shares_are_met_and_more_data_moves_nothing(
    store: Store, real_rows: dict[str, list[Row]]
) -> None:
    half = {source: rows[: len(rows) // 2] for source, rows in real_rows.items()}
    first, _ = run_on(store, make_dataset(store, half), STAGE)
    second, _ = run_on(store, make_dataset(store, real_rows, after=first), STAGE)
    before, after = splits(first), splits(second)
    assert {id_: after[id_] for id_ in before} == before
    counts = pl.Series(list(after.values())).value_counts()
    shares = {name: count / len(after) for name, count in counts.iter_rows()}
    assert shares["train"] == pytest.approx(0.8, abs=0.015)
    assert shares["val"] == pytest.approx(0.1, abs=0.01)


def test_a_row_that_is_left_out_of_the_evaluation_leaks_nothing(tmp_path: Path) -> None:
    """A rejected row stands in an evaluation split; new data joins it to a training row: the training row stays."""
    words = " ".join(f"word{i}" for i in range(200))
    filler = [question(f"Filler question number {i} of many?", f"Filler answer {i}.", key=f"f{i}") for i in range(20)]
    for n in range(100):  # until ids come that put the one row into train and the other into an evaluation split
        rows = [
            question(f"{words} one", "The answer of the row that is trained on.", key=f"t{n}"),
            question(f"{words} two", "", key=f"v{n}"),
            *filler,
        ]
        root = tmp_path / str(n)
        before = chain(dataset_of(root, {"s": rows}))
        splits = dict(before.scan(["source_key", "split"]).collect().iter_rows())
        if splits[f"t{n}"] == "train" and splits[f"v{n}"] != "train":
            break
    else:
        pytest.fail("no ids put the two rows into different splits")
    new = question(f"{words} two", "Quite another answer, given by the new row.", key="b")
    after = chain(dataset_of(root, {"s": [*rows, new]}))
    told = {r["source_key"]: r for r in after.scan(["source_key", "split", "kept", "conflict_id"]).collect().to_dicts()}
    assert told["b"]["conflict_id"] == told[f"t{n}"]["conflict_id"] is not None
    assert (told[f"t{n}"]["kept"], told[f"t{n}"]["split"], told["b"]["split"]) == (True, "train", "train")


def chain(dataset: Dataset) -> Dataset:
    for name in ("rules", "dedup", "split"):
        dataset = staged(dataset, name)
    return dataset
