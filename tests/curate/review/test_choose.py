"""Which rows people should see: what each choice finds, and how it is divided among sources."""

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.review.choose import FOUND, MOST_OF_CLUSTER, STRATEGIES, choose, draw
from curate.review.uncertain import most_uncertain
from curate.rules import STAGE as RULES
from curate.store import Store
from schemas.dataset import Dataset
from schemas.errors import ConfigError
from schemas.record import lineage_id
from schemas.review_config import PushConfig
from tests.curate.conftest import chat, make_dataset, run_on
from tests.curate.review.opinions import with_opinion, with_responses


def rows(n: int, word: str = "lamp", **columns: Any) -> list[dict[str, Any]]:
    return [chat(f"Which {word} is number {i}?", f"It is the {word} with number {i}.", **columns) for i in range(n)]


def keys(dataset: Dataset, config: PushConfig) -> list[str]:
    """Give the chosen rows, as source:number."""
    chosen = choose(dataset, config).rows["id"].to_list()
    names = {r["id"]: f"{r['source']}:{r['source_key']}" for r in _places(dataset)}
    return [names[row] for row in chosen]


def _places(dataset: Dataset) -> list[dict[str, Any]]:
    return dataset.scan(["id", "source", "source_key"]).collect().to_dicts()


def found(*sources: str, groups: list[str | None] | None = None) -> pl.DataFrame:
    ids = [f"{i:04d}" for i in range(len(sources))]
    why = ["test"] * len(sources)
    return pl.DataFrame(
        {"id": ids, "source": sources, "group": groups or [None] * len(sources), "why": why}, schema=FOUND
    )


# dividing -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 80))
def test_every_source_has_its_share_and_at_least_one_row(sources: list[str], n: int) -> None:
    """Shares are met but for less than a row, where no small source needs its one row from the others."""
    drawn = draw(found(*sources), n)
    assert drawn.height == min(n, len(sources))
    assert drawn["id"].is_unique().all()
    taken, there = Counter(drawn["source"]), Counter(sources)
    shares = {s: min(n, len(sources)) * count / len(sources) for s, count in there.items()}
    if n >= len(there):
        assert set(taken) == set(there)
    if all(share >= 1 for share in shares.values()):
        assert all(abs(taken[s] - share) < 1 for s, share in shares.items())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5)), min_size=1, max_size=20), st.integers(1, 40))
def test_groups_are_taken_whole_and_stand_together(groups: list[tuple[str, int]], n: int) -> None:
    sources = [source for source, size in groups for _ in range(size)]
    names = [f"g{i}" for i, (_, size) in enumerate(groups) for _ in range(size)]
    drawn = draw(found(*sources, groups=list(names)), n)
    assert drawn.height <= n
    sizes = Counter(drawn["group"])
    assert all(size == groups[int(name[1:])][1] for name, size in sizes.items())
    together = drawn["group"].rle_id().n_unique()
    assert together == len(sizes)


def test_a_beginning_of_the_drawn_rows_is_divided_like_the_whole() -> None:
    """Whoever stops half-way has seen a fair part."""
    drawn = draw(found(*["a"] * 300, *["b"] * 100), 40)
    assert Counter(drawn["source"]) == {"a": 30, "b": 10}
    assert Counter(drawn["source"].head(20)) == {"a": 15, "b": 5}


def test_rows_are_taken_from_the_front_of_each_source() -> None:
    assert draw(found("a", "a", "a", "b", "b"), 3)["id"].sort().to_list() == ["0000", "0001", "0003"]


# random ---------------------------------------------------------------------------------------------------------------


def test_added_rows_reshuffle_nothing(store: Store) -> None:
    """What is drawn of the rows that were there before was drawn then, too."""
    config = PushConfig(select="random", n=20)
    before = keys(make_dataset(store, {"a": rows(60)}), config)
    after = keys(make_dataset(store, {"a": rows(90)}), config)
    there = {f"a:{i}" for i in range(60)}
    assert set(after) & there <= set(before)
    assert set(after) - there


def test_another_seed_draws_other_rows_and_the_same_seed_the_same(store: Store) -> None:
    dataset = make_dataset(store, {"a": rows(60)})
    one, again, other = (keys(dataset, PushConfig(select="random", n=10, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert set(one) != set(other)


def test_the_order_of_shards_does_not_count(store: Store) -> None:
    config = PushConfig(select="random", n=10)
    whole, parts = (make_dataset(store, {"a": rows(30)}, shard_rows=size) for size in (30, 7))
    assert keys(whole, config) == keys(parts, config)


def test_rows_that_could_not_be_read_are_never_shown(store: Store) -> None:
    broken = {"messages": [], "extra": "{", "broken": "ingest:broken_json"}
    dataset = make_dataset(store, {"a": [*rows(3), broken]})
    for select in ("random", "uncertain"):
        assert "a:3" not in keys(dataset, PushConfig(select=select))
    with pytest.raises(ConfigError, match="broken_json"):
        choose(dataset, PushConfig(select="ingest:broken_json"))


def test_rejected_rows_are_not_drawn_at_random(store: Store) -> None:
    dataset, _ = run_on(store, make_dataset(store, {"a": [*rows(3), chat("Why?", "")]}), RULES)
    assert sorted(keys(dataset, PushConfig(select="random"))) == ["a:0", "a:1", "a:2"]


def test_decided_rows_are_left_out_unless_again(store: Store) -> None:
    decided = {
        "0": {"override": "keep", "review_status": "decided"},
        "1": {"override": "reject", "verdict": "review:rejected", "review_status": "decided"},
    }
    dataset = with_opinion(store, make_dataset(store, {"a": rows(3)}), "review", decided)
    assert keys(dataset, PushConfig(select="random")) == ["a:2"]
    assert sorted(keys(dataset, PushConfig(select="random", again=True))) == ["a:0", "a:2"]


def test_when_all_is_decided_the_error_says_so(store: Store) -> None:
    decided = {str(i): {"override": "keep", "review_status": "decided"} for i in range(3)}
    dataset = with_opinion(store, make_dataset(store, {"a": rows(3)}), "review", decided)
    with pytest.raises(ConfigError, match=r"3 rows are decided already.*--again"):
        choose(dataset, PushConfig(select="random"))


def test_one_source_alone(store: Store) -> None:
    dataset = make_dataset(store, {"a": rows(5), "b": rows(5, "pot")})
    assert {k[0] for k in keys(dataset, PushConfig(select="random", source="b"))} == {"b"}
    with pytest.raises(ConfigError, match="one of a, b"):
        choose(dataset, PushConfig(source="c"))


def test_fewer_rows_than_asked_for_are_told(store: Store) -> None:
    choice = choose(make_dataset(store, {"a": rows(5)}), PushConfig(select="random", n=9))
    assert choice.rows.height == 5
    assert any("found: 5, where 9" in note for note in choice.notes)


def test_a_version_without_rows_is_told(store: Store) -> None:
    dataset = make_dataset(store, {})
    with pytest.raises(ConfigError, match="no rows"):
        choose(dataset, PushConfig(select="random"))


def test_an_unknown_choice_names_those_there_are(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"borderline.*rule:NAME"):
        choose(make_dataset(store, {"a": rows(1)}), PushConfig(select="best"))


# rules ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ruled(store: Store) -> Dataset:
    """Rows that rules rejected (3), flagged (4) and mended (5), and three that are well."""
    bad = [
        chat("Why is that?", ""),
        chat("Is it raining there?", "No."),
        chat("What do you see there?", "I see it all, and it is Ã© as I said before."),
    ]
    return run_on(store, make_dataset(store, {"a": [*rows(3), *bad]}), RULES)[0]


@pytest.mark.parametrize(
    ("select", "row"),
    [
        ("rule:empty_response", "a:3"),
        ("rule:rule:empty_response", "a:3"),
        ("rule:short_response", "a:4"),
        ("flag:short_response", "a:4"),
        ("rule:mojibake", "a:5"),
        ("fix:mojibake", "a:5"),
    ],
)
def test_rows_that_a_rule_found(ruled: Dataset, select: str, row: str) -> None:
    """Whether it rejected, flagged or mended them; named in full, or by the last part."""
    choice = choose(ruled, PushConfig(select=select))
    assert row in keys(ruled, PushConfig(select=select))
    assert len(keys(ruled, PushConfig(select=select))) == (2 if "short" in select else 1)  # "" is short, too
    assert select.rpartition(":")[2] in choice.rows["why"][0]


def test_a_rule_without_rows_names_those_that_have_some(ruled: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"flag:refusal found no row here.*flag:short_response 2"):
        choose(ruled, PushConfig(select="rule:refusal"))


def test_an_unknown_rule_names_those_that_have_rows(ruled: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"no reason goes by that name.*rule:empty_response 1"):
        choose(ruled, PushConfig(select="rule:nonsense"))


def test_personal_data_that_is_only_reported_is_found(store: Store) -> None:
    entity = {"kind": "email", "turn": 1, "start": 0, "end": 3}
    dataset = with_opinion(store, make_dataset(store, {"a": rows(3)}), "pii", {"1": {"entities": [entity]}})
    assert keys(dataset, PushConfig(select="pii:email")) == ["a:1"]


# duplicates -----------------------------------------------------------------------------------------------------------


def row_id(number: int, source: str = "a") -> str:
    return lineage_id(source, str(number))


def test_groups_that_are_all_too_large_are_an_error(store: Store) -> None:
    """Nothing would be sent; the number that shows one is named."""
    same = [chat("Same?", f"Answer {i}, unlike the others: {'x' * i}.", source_key=str(i)) for i in range(3)]
    opinion = {str(i): {"conflict_id": "c"} for i in range(3)}
    dataset = with_opinion(store, make_dataset(store, {"a": same}), "dedup", opinion)
    with pytest.raises(ConfigError, match=r"no group of rows fits into 2.*--n 3"):
        choose(dataset, PushConfig(select="conflicts", n=2))
    assert choose(dataset, PushConfig(select="conflicts", n=3)).rows.height == 3


def test_conflicts_stand_together(store: Store) -> None:
    groups = {str(i): {"conflict_id": row_id(i // 2 * 2)} for i in range(6)}
    dataset = with_opinion(store, make_dataset(store, {"a": rows(9)}), "dedup", groups)
    choice = choose(dataset, PushConfig(select="conflicts", n=5))
    assert choice.rows.height == 4
    assert Counter(choice.rows["group"]).most_common() == [
        (g, 2) for g in choice.rows["group"].unique(maintain_order=True)
    ]
    assert any("no further group fits" in note for note in choice.notes)


def test_a_conflict_of_which_one_row_is_left_is_none(store: Store) -> None:
    groups = {"0": {"conflict_id": row_id(0)}, "1": {"conflict_id": row_id(0)}}
    dataset = with_opinion(store, make_dataset(store, {"a": rows(3)}), "dedup", groups)
    dataset = with_opinion(store, dataset, "score", {"1": {"verdict": "duplicate:semantic"}})
    with pytest.raises(ConfigError, match="no row to show"):
        choose(dataset, PushConfig(select="conflicts"))


@pytest.mark.parametrize("select", ["conflicts", "cluster"])
def test_what_needs_dedup_says_so(store: Store, select: str) -> None:
    with pytest.raises(ConfigError, match=r"the stage dedup has not run.*[Rr]un sft curate dedup test"):
        choose(make_dataset(store, {"a": rows(2)}), PushConfig(select=select))


def test_clusters_come_largest_first_and_the_row_that_stays_before_those_that_went(store: Store) -> None:
    gone = {"verdict": "duplicate:near", "jaccard": 0.9}
    small = {str(i): {"cluster_id": row_id(1), **(gone if i == 0 else {})} for i in (0, 1)}
    large = {str(i): {"cluster_id": row_id(12), **({} if i == 12 else gone)} for i in range(2, 22)}
    dataset = with_opinion(store, make_dataset(store, {"a": rows(30)}), "dedup", {**small, **large})
    chosen = keys(dataset, PushConfig(select="cluster"))
    assert chosen[0] == "a:12"
    assert len(chosen) == MOST_OF_CLUSTER + 2
    assert chosen[-2:] == ["a:1", "a:0"]


# scores ---------------------------------------------------------------------------------------------------------------


def scored(store: Store, **columns: list[float | None]) -> Dataset:
    """Rows with columns of the score stage; quality is of the signals."""
    count = len(next(iter(columns.values())))
    dataset = make_dataset(store, {"a": rows(count)})
    if quality := columns.pop("quality", None):
        dataset = with_opinion(store, dataset, "signals", {str(i): {"quality": q} for i, q in enumerate(quality)})
    if columns:
        opinions = {str(i): {name: values[i] for name, values in columns.items()} for i in range(count)}
        dataset = with_opinion(store, dataset, "score", opinions)
    return dataset


def test_borderline_takes_the_rows_nearest_to_the_cut_on_both_sides(store: Store) -> None:
    dataset = scored(store, score=[i / 10 for i in range(10)])
    out = {str(i): {"verdict": "select:not_in_top"} for i in range(7)}
    dataset = with_opinion(store, dataset, "select", out, {"by": "score", "top": 0.3})
    assert set(keys(dataset, PushConfig(select="borderline", n=2))) == {"a:6", "a:7"}


def test_borderline_without_a_cut_takes_the_middle(store: Store) -> None:
    dataset = scored(store, quality=[i / 10 for i in range(11)])
    chosen = choose(dataset, PushConfig(select="borderline", n=3))
    assert set(keys(dataset, PushConfig(select="borderline", n=3))) == {"a:4", "a:5", "a:6"}
    assert "as select cuts nothing" in chosen.rows["why"][0]


def test_borderline_takes_each_kind_of_doubt_in_turn(store: Store) -> None:
    """Also what rules left out, and duplicates just above the threshold: nobody sees these otherwise."""
    dataset = make_dataset(store, {"a": rows(30)})
    judged = {"0": {"verdict": "rule:merged_instruction"}, "1": {"flags": ["flag:unfinished"]}}
    dataset = with_opinion(store, dataset, "rules", judged)
    dataset = with_opinion(store, dataset, "signals", {str(i): {"quality": i / 30} for i in range(1, 30)})
    near = {"3": {"verdict": "duplicate:near", "jaccard": 0.97}, "4": {"verdict": "duplicate:near", "jaccard": 0.81}}
    dataset = with_opinion(store, dataset, "dedup", near, {"threshold": 0.8})
    assert {"a:0", "a:1", "a:4"} <= set(keys(dataset, PushConfig(select="borderline", n=4)))


def test_borderline_on_a_version_without_stages_names_one(store: Store) -> None:
    with pytest.raises(ConfigError, match="signals has not run"):
        choose(make_dataset(store, {"a": rows(2)}), PushConfig(select="borderline"))


def test_disagreement_takes_the_rows_that_scorers_place_furthest_apart(store: Store) -> None:
    dataset = scored(store, quality=[0.1, 0.2, 0.3, 0.9], judge=[2.0, 3.0, 4.0, 1.0])
    choice = choose(dataset, PushConfig(select="disagreement", n=1))
    assert keys(dataset, PushConfig(select="disagreement", n=1)) == ["a:3"]
    assert "judge" in choice.rows["why"][0]


def test_disagreement_needs_two_scorers(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"only quality scores the rows.*sft curate score test"):
        choose(scored(store, quality=[0.1, 0.2]), PushConfig(select="disagreement"))


def test_rows_that_reviewers_disagreed_about_come_first(store: Store) -> None:
    """About the text as it stands: what was said of an earlier text does not count."""
    dataset = scored(store, quality=[0.1, 0.2, 0.3, 0.9], judge=[2.0, 3.0, 4.0, 1.0])
    texts = dataset.scan(["id", "content_hash"]).collect()
    told = [
        {"id": texts["id"][i], "content_hash": texts["content_hash"][i] if i else "0" * 32, "reviewer": r, "verdict": v}
        for i in (0, 1)
        for r, v in (("alice", "keep"), ("bob", "reject"))
    ]
    assert keys(with_responses(store, dataset, told), PushConfig(select="disagreement", n=2)) == ["a:1", "a:3"]


def test_uncertain_without_a_learnt_score_draws_by_chance_and_says_so(store: Store) -> None:
    choice = choose(make_dataset(store, {"a": rows(9), "b": rows(3, "pot")}), PushConfig(n=4))
    assert Counter(choice.rows["source"]) == {"a": 3, "b": 1}
    assert any("at random" in note for note in choice.notes)


def test_uncertain_leaves_out_rows_that_somebody_answered(store: Store) -> None:
    dataset = make_dataset(store, {"a": rows(4)})
    texts = dataset.scan(["id", "content_hash"]).collect()
    told = [{"id": texts["id"][0], "content_hash": texts["content_hash"][0], "reviewer": "alice", "verdict": "keep"}]
    assert sorted(keys(with_responses(store, dataset, told), PushConfig())) == ["a:1", "a:2", "a:3"]


def test_uncertain_takes_of_each_source_what_teaches_most(store: Store) -> None:
    """Which rows these are is decided in curate.review.uncertain."""
    dataset = make_dataset(store, {"a": rows(30), "b": rows(10, "pot")})
    learned = {str(i): {"learned": 0.3 + i / 50} for i in range(30)}
    dataset = with_opinion(store, dataset, "score", learned)
    choice = choose(dataset, PushConfig(n=8))
    read = dataset.scan(["id", "source", "learned", "messages", "context"]).collect()
    for source, n in (("a", 6), ("b", 2)):
        own = choice.rows.filter(pl.col("source") == source)["id"]
        assert own.to_list() == list(most_uncertain(read.filter(pl.col("source") == source), n, seed=1).ids)
    assert all("learnt so far" in why for why in choice.rows["why"])


def test_every_choice_is_of_the_help() -> None:
    """The option's help names them all."""
    told = PushConfig.model_fields["select"].description or ""
    assert all(name in told for name in STRATEGIES)


@pytest.mark.realdata
def test_real_rows(store: Store, real_rows: dict[str, list[dict[str, Any]]]) -> None:
    """Every source comes up, by its share."""
    dataset, _ = run_on(store, make_dataset(store, real_rows), RULES)
    for select in ("random", "rule:short_response", "borderline"):
        chosen = choose(dataset, PushConfig(select=select)).rows
        assert set(chosen["source"]) == {"alpaca", "dolly", "openorca"}
        assert chosen.height == 200
