"""On real rows: each documented defect is found with at least the documented count, and right answers survive."""

from collections import Counter
from typing import Any

import polars as pl
import pytest

from curate.rules import STAGE
from curate.store import Store
from tests.curate.conftest import make_dataset, run_on, view
from tests.curate.rules.conftest import of_formats

pytestmark = pytest.mark.realdata

Found = dict[str, Counter[str]]


@pytest.fixture(scope="module")
def judged(module_store: Store, real_rows: dict[str, list[dict[str, Any]]]) -> Any:
    after, _ = run_on(module_store, of_formats(make_dataset(module_store, real_rows)), STAGE)
    return after


@pytest.fixture(scope="module")
def found(judged: Any) -> Found:
    counts: Found = {}
    for shard in judged.shards:
        rows = shard.view(["verdict_rules", "flags"]).collect()
        names = Counter(rows["verdict_rules"].drop_nulls()) + Counter(rows["flags"].explode().drop_nulls())
        if overlay := shard.overlays.get("rules"):
            names += Counter(pl.read_ipc(overlay)["edits"].explode())
        counts[shard.source] = names
    return counts


@pytest.mark.parametrize(
    ("documented", "names"),
    [
        (127, ("fix:placeholder_context", "flag:placeholder_context")),
        (28, ("flag:url_only_context",)),
        (10, ("rule:merged_instruction",)),
        (8, ("rule:placeholder_response",)),
        (11, ("flag:missing_media",)),
        (13, ("flag:response_equals_context",)),
    ],
)
def test_what_is_documented_of_alpaca_is_found(found: Found, documented: int, names: tuple[str, ...]) -> None:
    """And not many more: the counts were made with looser and with stricter patterns."""
    assert documented <= sum(found["alpaca"][name] for name in names) <= documented * 2


def test_contexts_of_dolly_that_are_cut_are_found(found: Found) -> None:
    """20 of 434 end without the end of a sentence; 7 of them with a list, a heading or an address, which is no cut."""
    assert 11 <= found["dolly"]["flag:cut_context"] <= 20
    assert found["dolly"]["fix:citation_marks"] >= 10


def test_few_rows_are_rejected(found: Found) -> None:
    rejected = {
        source: sum(n for name, n in counts.items() if name.startswith("rule:")) for source, counts in found.items()
    }
    assert rejected["alpaca"] <= 35
    assert rejected["dolly"] == rejected["openorca"] == 0


def test_right_answers_of_one_word_survive(judged: Any) -> None:
    """1,025 outputs have under 5 words; those that are rejected are empty or placeholders."""
    rows = view(judged, "source", "messages", "kept", "verdict_rules").filter(pl.col("source") == "alpaca")
    answer = pl.col("messages").list.last().struct.field("content")
    short = rows.with_columns(answer=answer).filter(pl.col("answer").str.count_matches(r"\S+") < 5)
    assert short.height >= 1_000
    gone = short.filter(~pl.col("kept"))
    assert set(gone["verdict_rules"]) == {"rule:empty_response", "rule:placeholder_response"}
    assert gone.height <= 20
    assert {"Yes", "No", "True", "Positive", "Negative"} <= {a.strip(" .") for a in short.filter("kept")["answer"]}


def test_the_rules_over_their_own_outcome_change_nothing(judged: Any, module_store: Store) -> None:
    columns = ["source", "messages", "context", "flags", "kept"]
    rows: dict[str, list[dict[str, Any]]] = {}
    flags: list[list[str]] = []
    for source, messages, context, noted, kept in view(judged, *columns).iter_rows():
        if kept:
            rows.setdefault(source, []).append({"messages": messages, "context": context})
            flags.append(noted)
    again, _ = run_on(module_store, of_formats(make_dataset(module_store, rows)), STAGE)
    assert not any("rules" in shard.overlays for shard in again.shards)
    found = view(again, "verdict_rules", "flags")
    assert found["verdict_rules"].null_count() == found.height
    assert found["flags"].to_list() == flags
