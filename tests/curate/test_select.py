"""What stays is the top of one order within one budget; what goes says why; chance does not depend on the order."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import curate.quality.embed
from curate.select import STAGE, chance
from curate.signals import STAGE as SIGNALS
from curate.store import Store
from curate.walk import BLOCK_ROWS, BUDGET, QUOTA, SIMILAR, TAKEN, Cap, walk
from schemas.config import SelectConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import lineage_id
from tests.curate.conftest import Apply, chat, make_dataset, run_on, view

COLUMNS = ("id", "source", "task", "quality", "verdict_select", "detail_select", "weight")
WORDS = [f"word{i}" for i in range(400)]


def answers(*lengths: int, prompt: str = "Explain tides.", **columns: Any) -> list[dict[str, Any]]:
    """Rows whose quality grows with the number of words in the answer, up to 80."""
    return [
        chat(prompt, " ".join(WORDS[:length]), source_key=f"{prompt}{i}", **columns) for i, length in enumerate(lengths)
    ]


def measured(store: Store, sources: dict[str, list[dict[str, Any]]], **options: Any) -> Dataset:
    return run_on(store, make_dataset(store, sources, **options), SIGNALS)[0]


def selected(apply: Apply, dataset: Dataset, **config: Any) -> pl.DataFrame:
    after, _ = apply(dataset, STAGE, SelectConfig(**config))
    return view(after, *COLUMNS)


def kept(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("verdict_select").is_null())


@pytest.fixture
def mix(store: Store) -> Dataset:
    """Two sources, 40 rows each, of two tasks: facts and code."""
    facts = answers(*range(1, 41))
    code = answers(*range(1, 41), prompt="Write a Python function that counts.")
    return measured(store, {"a": facts[:30] + code[:10], "b": facts[30:] + code[10:]}, shard_rows=17)


def test_without_any_option_all_rows_stay_and_no_signals_are_needed(store: Store, apply: Apply) -> None:
    frame = selected(apply, make_dataset(store, {"a": answers(1, 2, 3)}))
    assert frame["verdict_select"].null_count() == frame["weight"].null_count() == 3


def test_top_keeps_that_share_of_the_rows_and_none_below_one_that_goes(apply: Apply, mix: Dataset) -> None:
    frame = selected(apply, mix, top=0.3)
    stays, goes = kept(frame), frame.filter(pl.col("verdict_select") == "select:not_in_top")
    assert (stays.height, stays.height + goes.height) == (24, 80)
    assert stays["quality"].min() >= goes["quality"].max()
    cut = f"cut at {stays['quality'].min():.4f}"
    assert goes["detail_select"].str.starts_with("quality 0.").all()
    assert goes["detail_select"].str.ends_with(cut.rstrip("0")).all()


def test_ties_go_by_id(store: Store, apply: Apply) -> None:
    frame = selected(apply, measured(store, {"a": answers(*[9] * 20)}), rows=5)
    assert kept(frame)["id"].to_list() == sorted(frame["id"])[:5] or set(kept(frame)["id"]) == set(
        sorted(frame["id"])[:5]
    )


def test_a_column_can_order_the_other_way_round(apply: Apply, mix: Dataset) -> None:
    low, high = (kept(selected(apply, mix, rows=10, by=by)) for by in ("-response_words", "response_words"))
    assert low["quality"].max() < high["quality"].min()


def test_rows_without_a_value_stand_below_all_others_and_are_told(store: Store) -> None:
    """A row has no signals where it came in after they were measured."""
    rows = answers(*range(1, 11))
    dataset = measured(
        store, {"a": [{**row, "broken": "ingest:wrong_type"} if i < 4 else row for i, row in enumerate(rows)]}
    )
    restored = make_dataset(store, {"a": rows})
    files = [f for f in dataset.manifest.files if f.stage == "signals"]
    joined = restored.manifest.model_copy(
        update={
            "files": tuple(sorted([*restored.manifest.files, *files], key=lambda f: f.order)),
            "stages": dataset.manifest.stages,
        }
    )
    after, result = run_on(store, Dataset(joined, store.root), STAGE, SelectConfig(rows=8))
    frame = view(after, *COLUMNS)
    assert kept(frame)["quality"].null_count() == 2
    assert frame.filter(pl.col("quality").is_not_null())["verdict_select"].null_count() == 6
    assert "4 rows have no quality and stand below all others; 2 of them are taken" in result.notes


@pytest.mark.parametrize("config", [{}, {"control": "random"}, {"control": "longest"}], ids=str)
def test_a_token_budget_is_kept_and_spent_to_within_one_row(apply: Apply, mix: Dataset, config: Any) -> None:
    after, result = apply(mix, STAGE, SelectConfig(tokens=900, **config))
    lengths = view(after, "messages", "verdict_select").with_columns(
        tokens=pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n").str.len_chars() / 4
    )
    spent = lengths.filter(pl.col("verdict_select").is_null())["tokens"].ceil().sum()
    assert 900 - lengths["tokens"].max() - 1 <= spent <= 900
    assert f"{int(spent):,} of" in result.notes[0]


def test_a_budget_below_the_first_row_is_an_error(store: Store, mix: Dataset) -> None:
    with pytest.raises(ConfigError, match="first row has"):
        run_on(store, mix, STAGE, SelectConfig(tokens=3))


def test_quotas_are_exact_where_the_rows_are_there(apply: Apply, mix: Dataset) -> None:
    frame = selected(apply, mix, quota=("a=12", "task:coding=20"))
    stays = kept(frame)
    assert stays.filter(source="a").height == 12
    assert stays.filter(task="coding").height == 20
    assert set(frame["detail_select"].drop_nulls()) <= {"quota a=12 is full", "quota task:coding=20 is full"}


def test_a_quota_with_a_point_is_a_share_of_the_budget(apply: Apply, mix: Dataset) -> None:
    stays = kept(selected(apply, mix, rows=20, quota=("task:coding=0.2",)))
    assert (stays.height, stays.filter(task="coding").height) == (20, 4)


def test_a_row_that_a_quota_leaves_out_makes_room_for_the_next(apply: Apply, mix: Dataset) -> None:
    assert kept(selected(apply, mix, top=0.5, quota=("a=10",))).height == 40


def test_a_budget_that_the_rows_do_not_fill_is_told(apply: Apply, mix: Dataset) -> None:
    notes = {n: apply(mix, STAGE, SelectConfig(rows=n, quota=("a=12",)))[1].notes for n in (52, 53)}
    said = "the rows ended before the budget of 53 rows was spent"
    assert (said in notes[53], any("ended before" in note for note in notes[52])) == (True, False)


def test_samples_are_exact_nested_and_drawn_before_all_else(apply: Apply, mix: Dataset) -> None:
    small, large = (kept(selected(apply, mix, sample=(f"a={n}",))) for n in (5, 15))
    assert [part.filter(source="a").height for part in (small, large)] == [5, 15]
    assert small.filter(source="b").height == 40
    assert set(small["id"]) < set(large["id"])
    both = selected(apply, mix, sample=("a=5",), top=0.2)
    assert (kept(both).height, both.filter(verdict_select="select:not_sampled").height) == (9, 35)


def test_another_seed_draws_other_rows(apply: Apply, mix: Dataset) -> None:
    first, second = (set(kept(selected(apply, mix, sample=("a=10",), seed=s))["id"]) for s in (1, 2))
    assert first != second


def test_added_rows_move_few_in_a_sample_of_a_number_and_none_in_a_share(store: Store, apply: Apply) -> None:
    rows = answers(*[5] * 200)
    drawn: dict[tuple[str, int], set[str]] = {}
    for count in (150, 200):
        dataset = make_dataset(store, {"a": rows[:count]})
        for sample in ("a=60", "a=0.4"):
            drawn[sample, count] = set(kept(selected(apply, dataset, sample=(sample,)))["id"])
    old = set(view(make_dataset(store, {"a": rows[:150]}), "id")["id"])
    assert drawn["a=0.4", 200] & old == drawn["a=0.4", 150]
    assert drawn["a=60", 200] & old <= drawn["a=60", 150]  # the new ones push a few out, and draw no old one in
    assert len(drawn["a=60", 200] & drawn["a=60", 150]) >= 40


def test_shards_sources_and_the_order_of_rows_change_nothing(store: Store, apply: Apply) -> None:
    rows = [row for length in range(1, 61) for row in answers(length, prompt=f"Explain tide {length}.")]
    config: dict[str, Any] = {"top": 0.5, "sample": ("a=40",), "quota": ("task:factual=15",)}
    found: list[dict[str, str | None]] = []
    for order, shard_rows in ((1, 1 << 30), (-1, 7)):
        dataset = measured(store, {"a": rows[::order], "b": answers(3, 4)[::order]}, shard_rows=shard_rows)
        frame = selected(apply, dataset, **config)
        found.append(
            dict(
                frame.select(
                    "id",
                    pl.format("{} {}", pl.col("verdict_select").fill_null("-"), pl.col("detail_select").fill_null("-")),
                ).iter_rows()
            )
        )
    assert found[0] == found[1]


def test_the_weight_of_a_row_is_the_product_of_what_is_said_about_it(apply: Apply, mix: Dataset) -> None:
    frame = selected(apply, mix, rows=70, weight=("a=0.5", "task:coding=3"))
    assert frame.filter(pl.col("verdict_select").is_not_null())["weight"].null_count() == 10
    weights = kept(frame).group_by("source", "task").agg(pl.col("weight").unique().alias("w")).sort("source", "task")
    assert weights["w"].to_list() == [[1.5], [0.5], [3.0], [1.0]]


def test_the_random_control_does_not_favour_a_source_that_was_sampled(store: Store, apply: Apply) -> None:
    dataset = measured(store, {"a": answers(*[5] * 1000), "b": answers(*[5] * 1000, prompt="Explain tides once more.")})
    rows = kept(selected(apply, dataset, sample=("a=0.1",), control="random", rows=200))
    assert rows.filter(pl.col("source") == "a").height < 40  # about 18 = 200 · 100 / 1100


def test_the_longest_control_takes_the_longest_answers(store: Store, apply: Apply) -> None:
    dataset = measured(store, {"a": answers(100, 300, 200, 50, 250)})
    after, _ = apply(dataset, STAGE, SelectConfig(control="longest", rows=2))
    assert sorted(view(after, "kept", "response_words").filter("kept")["response_words"]) == [250, 300]


def unit(*rows: list[float]) -> pl.Series:
    matrix = np.array(rows, np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return pl.Series(matrix, dtype=pl.Array(pl.Float32, matrix.shape[1]))


def test_diverse_leaves_out_what_is_too_similar_to_a_row_above_it(
    store: Store, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cosine 0.9 is allowed, a little more is not; the second row is taken as nothing like it was taken."""
    dataset = measured(store, {"a": answers(50, 40, 30, 20)})
    hashes = view(dataset, "content_hash")["content_hash"]
    vectors = unit([1, 0], [0, 1], [0.9, np.sqrt(1 - 0.9**2)], [0.91, np.sqrt(1 - 0.91**2)])
    stored = pl.DataFrame({"content_hash": hashes, "vector": vectors})
    monkeypatch.setattr(curate.quality.embed, "stored_vectors", lambda _: stored.head(4))
    frame = selected(apply, dataset, diverse=True)
    assert frame["verdict_select"].to_list() == [None, None, None, "select:too_similar"]
    third = frame["id"][2]
    assert frame["detail_select"][3] == f"similarity 0.9997 with {third}"
    monkeypatch.setattr(curate.quality.embed, "stored_vectors", lambda _: stored.head(3))
    assert kept(selected(apply, dataset, diverse=True)).height == 4


def test_diverse_without_embeddings_names_the_command_that_makes_them(store: Store, mix: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"no embeddings.*sft curate score test --embed MODEL"):
        run_on(store, mix, STAGE, SelectConfig(diverse=True))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"top": 0.1, "rows": 5}, "top and rows exclude each other"),
        ({"rows": 5, "tokens": "1k"}, "rows and tokens exclude each other"),
        ({"control": "random"}, "control needs a budget"),
        ({"control": "random", "rows": 5, "by": "quality"}, "leave by out"),
        ({"control": "longest", "rows": 5, "diverse": True}, "leave diverse out"),
        ({"by": "quality"}, "by orders nothing"),
        ({"rows": 5, "max_similarity": 0.5}, "does nothing without diverse"),
        ({"tokens": "many"}, "whole number such as"),
        ({"rows": "0.5"}, "whole number such as"),
        ({"top": 0}, "greater than 0"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_errors(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SelectConfig(**config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quota": ("c=5",)}, "there is no source 'c'; expected one of a, b"),
        ({"quota": ("task:cooking=5",)}, "there is no task 'cooking'"),
        ({"quota": ("a",)}, "names no rows and number"),
        ({"quota": ("a=many",)}, "is no number"),
        ({"quota": ("a=1.5",)}, "a share from 0.0 to 1.0"),
        ({"quota": ("a=1", "a=2")}, "about the same rows"),
        ({"sample": ("task:coding=5",)}, "there is no source"),
        ({"weight": ("a=0",)}, "a number above 0"),
        ({"weight": ("a=-1",)}, "a number above 0"),
        ({"weight": ("a=nan",)}, "a number above 0"),
        ({"weight": ("a=1e39",)}, "at most 1,000,000"),
        ({"weight": ("a=1e-60",)}, "a number above 0"),
        ({"quota": ("a=-1",)}, "0 or above"),
        ({"rows": 5, "by": "messages"}, "no such column of numbers"),
        ({"rows": 5, "by": "ifd"}, "score has not run"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, "no such file"),
    ],
    ids=str,
)
def test_what_the_dataset_does_not_have_is_named(store: Store, mix: Dataset, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_on(store, mix, STAGE, SelectConfig(**config))


def test_without_signals_the_remedy_is_named(store: Store) -> None:
    plain = make_dataset(store, {"a": answers(1, 2)})
    for config, said in (
        (SelectConfig(rows=1), "neither score nor signals ran"),
        (SelectConfig(weight=("task:maths=2",)), "signals has not run"),
    ):
        with pytest.raises(ConfigError, match=f"{said}.*sft curate signals test"):
            run_on(store, plain, STAGE, config)


@pytest.mark.parametrize(("word", "number"), [("5M", 5_000_000), ("50_000", 50_000), ("1.5k", 1_500), (7, 7)])
def test_amounts_may_have_a_suffix(word: str | int, number: int) -> None:
    assert SelectConfig.model_validate({"tokens": word}).tokens == number


def test_a_tokenizer_counts_where_it_is_named_and_is_recorded_by_digest(
    store: Store, apply: Apply, tmp_path: Any
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 # a vocabulary's word
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    dataset = measured(store, {"a": answers(10, 20, 30)})
    after, result = apply(dataset, STAGE, SelectConfig(tokens=50, tokenizer=str(tmp_path)))
    assert "1 of 3 rows, 33 of 69 tokens (counted)" in result.notes[0]  # two words of the prompt and its full stop
    entry = after.manifest.stage("select")
    assert entry is not None
    assert (entry.config["tokenizer"], len(entry.config["tokenizer_sha256"])) == (tmp_path.name, 64)
    with pytest.raises(ConfigError, match="is another one"):
        run_on(store, dataset, STAGE, SelectConfig(tokenizer=str(tmp_path), tokenizer_sha256="0" * 64))


def plain_walk(costs: list[int], budget: int | None, caps: list[tuple[set[int], int]], vectors: Any) -> list[int]:
    taken: list[int] = []
    out: list[int] = []
    for row, cost in enumerate(costs):
        if any(row in group and len(group & set(taken)) >= most for group, most in caps):
            out.append(QUOTA)
        elif vectors is not None and any(vectors[row] @ vectors[t] > 0.9 for t in taken):
            out.append(SIMILAR)
        elif budget is not None and sum(costs[t] for t in taken) + cost > budget:
            return out + [BUDGET] * (len(costs) - row)
        else:
            taken.append(row)
            out.append(TAKEN)
    return out


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_walk_is_that_of_a_plain_one(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12)) * data.draw(st.sampled_from([1, BLOCK_ROWS // 6]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    costs = rng.integers(1, 9, n)
    budget = data.draw(st.one_of(st.none(), st.integers(1, 5 * n)))
    groups = [rng.random(n) < 0.5 for _ in range(data.draw(st.integers(0, 2)))]
    most = [data.draw(st.integers(0, n)) for _ in groups]
    matrix = rng.normal(size=(n, 3)) if data.draw(st.booleans()) else None
    units = None if matrix is None else matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    series = None if units is None else pl.Series(units.astype(np.float32), dtype=pl.Array(pl.Float32, 3))
    walked = walk(costs, budget, [Cap(g, m, by_cost=False) for g, m in zip(groups, most, strict=True)], series, 0.9)
    rounded = None if units is None else np.rint(units.astype(np.float32).astype(np.float64) * 10_000) / 10_000
    caps = [(set(np.flatnonzero(g).tolist()), m) for g, m in zip(groups, most, strict=True)]
    plain = plain_walk(costs.tolist(), budget, caps, rounded)
    assert walked.reason.tolist() == plain
    for row in np.flatnonzero(walked.reason == SIMILAR):
        assert walked.taken[walked.which[row]]
        assert walked.which[row] < row


def test_chance_spreads_evenly_and_is_fixed_by_seed() -> None:
    ids = pl.Series([lineage_id("a", str(i)) for i in range(4000)])
    places = chance(ids, 1) / 2**64
    assert (places == chance(ids, 1) / 2**64).all()
    assert np.histogram(places, bins=4, range=(0, 1))[0].min() > 900
    assert abs(np.corrcoef(places, chance(ids, 2) / 2**64)[0, 1]) < 0.06
