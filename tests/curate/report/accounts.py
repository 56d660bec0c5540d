"""Accounts and portraits made by hand, with everything in them that a page must be able to show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from curate.diff.account import (
    Account,
    ClusterChange,
    ColumnChange,
    Drift,
    EditedRow,
    Leak,
    MixChange,
    ReasonChange,
    ReviewChange,
    SettingChange,
    Side,
    TextChange,
    Transition,
    Verdict,
    makers,
)
from curate.diff.changes import CHANGES, ROWS, Diff
from curate.licences import Licence
from curate.measures import Histogram, Shares
from curate.portrait import SampleRow
from schemas.dataset import Dataset
from schemas.manifest import StageCount
from schemas.reasons import sentence
from schemas.record import lineage_id
from tests.rows import dataset_of, question, staged

SCRIPT = "<script>window.owned = true</script>"
IMAGE = '"><img src="https://example.invalid/x.png" onerror="window.owned = true">'
OVERRIDE = "abc\u202edef\u0000"
ARABIC = "كم عدد أيام السنة؟ 365 يومًا (تقريبًا)."
HOSTILE = (SCRIPT, IMAGE, OVERRIDE, ARABIC)

FREE = Licence("CC0-1.0", "public-domain", True, (), "CC0-1.0 allows any use.")
SHARED = Licence("CC-BY-SA-3.0", "share-alike", True, (), "CC-BY-SA-3.0 asks that what is made of it is shared alike.")
CLOSED = Licence(
    "CC-BY-NC-4.0", "non-commercial", False, ("a provider's terms",), "CC-BY-NC-4.0 allows no commercial use."
)


def _rows(source: str, count: int) -> list[dict[str, Any]]:
    return [
        question(
            f"Which lamp is number {n} of the {source} street?", f"It is the lamp beside house {n * 7 + 1}.", key=str(n)
        )
        for n in range(count)
    ]


def _with_split(root: Path, sources: Mapping[str, Sequence[Mapping[str, Any]]]) -> Dataset:
    return staged(staged(dataset_of(root, sources, name="lamps"), "rules"), "split")


def versions(root: Path) -> tuple[Dataset, Dataset]:
    """Two versions: two sources, and one more."""
    first = {"harbour": _rows("harbour", 60), "market": [*_rows("market", 25), question("Say nothing.", "", key="x")]}
    before = _with_split(root, first)
    return before, _with_split(root, {**first, "tower": _rows("tower", 20)})


def change(word: str, place: str, **columns: Any) -> dict[str, Any]:
    """One line of the changes."""
    source = place.partition(":")[0]
    base: dict[str, Any] = dict.fromkeys(CHANGES) | {
        "word": word,
        "id": lineage_id(source, place),
        "source": source,
        "place": place,
        "by": [],
        "keys": [],
        "fields": [],
        "kept_before": word != "added",
        "kept_after": word != "removed",
    }
    return base | columns


def changes(extra: int = 0) -> pl.DataFrame:
    """Changes of every kind, the hostile texts among them; `extra`: so many more added rows."""
    rejected = {"after": "rule:empty_response", "stage": "rules", "by": ["rule:empty_response"]}
    rows = [
        *(change("added", f"tower:{n}", stage="ingest", by=["new source"], cause="source") for n in range(20 + extra)),
        change("removed", "market:3", stage="ingest", by=["replaced"], cause="source"),
        change(
            "edited_upstream",
            "market:4",
            match="f" * 32,
            confidence=0.91,
            stage="ingest",
            by=["replaced"],
            cause="source",
        ),
        *(
            change(
                "edited",
                f"harbour:{n}",
                before="a" * 32,
                after="b" * 32,
                stage="normalize",
                by=["edit:nfc"],
                cause="configuration",
                keys=["normalize.nfc"],
                fields=["messages[1] assistant"],
            )
            for n in range(30)
        ),
        *(
            change("rejected", f"harbour:{n}", detail=text, cause="stage version", **rejected)
            for n, text in enumerate(HOSTILE, 40)
        ),
        change(
            "restored",
            "harbour:50",
            before="duplicate:near",
            stage="dedup",
            by=["duplicate:near"],
            cause="configuration",
            keys=["dedup.threshold"],
        ),
        change(
            "resplit",
            "harbour:51",
            before="train",
            after="val",
            stage="split",
            cause="configuration",
            keys=["split.salt"],
        ),
        change(
            "rescored", "harbour:52", before="0.51", after="0.74", stage="signals", cause="text", fields=["quality"]
        ),
        change("rejected", "market:9", after="review:rejected", stage="review", by=["alice"], cause="review"),
    ]
    return pl.DataFrame(rows, schema=CHANGES)


def _edits() -> tuple[EditedRow, ...]:
    long = "The lamps of the harbour are lit at dusk and put out at dawn. " * 20
    texts: list[tuple[tuple[str, str], ...]] = [
        (("same", "Say "), ("removed", SCRIPT), ("added", IMAGE), ("same", " and go on.")),
        (("same", "Before "), ("removed", OVERRIDE), ("added", "abc"), ("same", " after.")),
        (("same", ARABIC + " "), ("removed", "نعم"), ("added", "لا"), ("same", " شكرا.")),
        (("same", long), ("removed", "at  dawn"), ("added", "at dawn"), ("same", long)),
        (("same", "two words"), ("removed", " \n\t"), ("added", "\n"), ("same", "on two lines")),
    ]
    texts += [(("same", f"Lamp {n} is "), ("removed", "dark"), ("added", "lit"), ("same", ".")) for n in range(25)]
    normal = [
        EditedRow(
            lineage_id("harbour", str(n)),
            f"harbour:{n}",
            "harbour",
            "edited",
            "normalize",
            ("edit:nfc",),
            "configuration",
            None,
            None,
            (TextChange("messages[1] assistant", pieces),),
        )
        for n, pieces in enumerate(texts)
    ]
    upstream = EditedRow(
        lineage_id("market", "4"), "market:4", "market", "edited_upstream", "ingest", ("replaced",), "source", "f" * 32,
        0.91, (TextChange("context", (("removed", "old"), ("added", "new"))),),
    )  # fmt: skip
    person = EditedRow(
        lineage_id("market", "8"), "market:8", "market", "edited", "review", ("alice",), "review", None, None,
        (TextChange("context", (("same", "The tower is "), ("removed", "tall"), ("added", "40 metres tall"))),),
    )  # fmt: skip
    return (*normal, upstream, person)


def histogram(*counts: int, width: float = 10) -> Histogram:
    """A histogram of buckets of one width."""
    rows = sum(counts)
    edges = tuple(width * n for n in range(len(counts) + 1))
    mean = sum(c * width * (n + 0.5) for n, c in enumerate(counts)) / rows if rows else None
    return Histogram(edges, counts, rows, 2, mean, (width, width * 2, width * 3) if rows else None)


def _side(dataset: Dataset, licence: Licence, tokens: int, stale: tuple[str, ...] = ()) -> Side:
    m = dataset.manifest
    rows = dataset.scan(["kept"]).collect()
    counts: tuple[StageCount, ...] = m.counts
    return Side(
        m.name,
        m.seq,
        m.id,
        m.semver,
        m.created,
        m.message,
        rows.height,
        int(rows["kept"].sum()),
        tokens,
        counts,
        stale,
        licence,
    )


def sample(place: str, *turns: tuple[str, str], reason: str | None = None) -> SampleRow:
    """A row as an example."""
    return SampleRow(lineage_id("s", place), place, reason is None, reason, None, turns)


def account(root: Path, *, extra: int = 0) -> Account:
    """An account with something in every part."""
    before, after = versions(root)
    diff = Diff(before, after, changes(extra), pl.DataFrame(schema=ROWS))
    reason = "rule:empty_response"
    languages = Shares({"en": 70, "de": 12, "fr": 3}, 85, 1), Shares({"en": 80, "ar": 15, "de": 10}, 105, 0)
    return Account(
        diff=diff,
        before=_side(before, SHARED, 4_100),
        after=_side(after, CLOSED, 5_020, ("split",)),
        verdict=Verdict(False, "major", True, diff.counts, ("5 rows are rejected.", "30 kept rows were edited.")),
        makers=makers(diff),
        transitions=(
            Transition("kept", "kept", 70),
            Transition("kept", "rejected by rules", 4),
            Transition("kept", "rejected by review", 1),
            Transition("rejected by dedup", "kept", 1),
            Transition("rejected by rules", "rejected by dedup", 2),
            Transition("not there", "kept", 20),
            Transition("kept", "not there", 2),
        ),
        reasons=(ReasonChange("rules", reason, sentence(reason), 1, 5, 5, 1),),
        settings=(SettingChange("dedup", "threshold", 0.8, 0.7), SettingChange("rules", "drop", None, [SCRIPT, "b"])),
        columns=(
            ColumnChange("quality", "signals", 1, {"harbour": 1}),
            ColumnChange("messages", "normalize", 30, {"harbour": 30}),
        ),
        edits=_edits(),
        edits_total=40,
        drift=(
            Drift("market", "tokens", histogram(5, 9, 7, 3), histogram(2, 4, 9, 8), "Kolmogorov-Smirnov", 0.28, 0.2),
            Drift("harbour", "language", *languages, "total variation", 0.14, 0.0001),
            Drift("harbour", "turns", histogram(60, 0), histogram(60, 0), "Kolmogorov-Smirnov", 0.0, 1.0),
            Drift("tower", "quality", histogram(0, 0), histogram(3, 17, width=0.5), "Kolmogorov-Smirnov", 1.0, None),
        ),
        clusters={"born": 1, "gone": 0, "merged": 1, "split": 0, "grown": 0, "shrunk": 0},
        cluster_examples=(ClusterChange("merged", 4, 5, (("1" * 32, "market:5"), ("2" * 32, "market:6"))),),
        sources=(
            MixChange("harbour", FREE, FREE, 60, 56, 3_000, 2_800),
            MixChange("market", SHARED, CLOSED, 25, 24, 1_100, 1_060),
            MixChange("tower", None, FREE, 0, 20, 0, 1_160),
        ),
        licences=(
            MixChange("public-domain", FREE, FREE, 60, 76, 3_000, 3_960),
            MixChange("share-alike", SHARED, None, 25, 0, 1_100, 0),
            MixChange("non-commercial", None, CLOSED, 0, 24, 0, 1_060),
        ),
        moves={("train", "train"): 60, ("train", "val"): 1, ("val", "val"): 9, ("test", "test"): 8},
        leaks=(Leak("c" * 32, (("1" * 32, "market:5", "train"), ("2" * 32, "market:6", "val"))),),
        reviews={"carried": 6, "new": 1, "changed": 0, "gone": 0, "stale": 1},
        review_changes=(ReviewChange("3" * 32, "market:9", "new", None, "reject", ("alice", SCRIPT)),),
        samples={"added": (sample("tower:1", ("user", "Which lamp?"), ("assistant", ARABIC)),), "removed": ()},
        seed=0,
    )  # fmt: skip


def hostile_version(root: Path) -> Dataset:
    """A version with signals, whose rows, source and message hold what must be shown as text."""
    rows = [
        *_rows("harbour", 30),
        *(question(text, text + " and so on", key=f"h{n}") for n, text in enumerate(HOSTILE)),
    ]
    dataset = dataset_of(
        root, {"harbour": rows, "market": [*_rows("market", 12), question("Say nothing.", "", key="x")]}, name="v"
    )
    for stage in ("rules", "signals", "dedup", "split"):
        dataset = staged(dataset, stage)
    return dataset
