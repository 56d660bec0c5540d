"""Steps: what each stage did to a version, in a sentence and in counts, for people who were not there."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from curate.rules.custom import read
from schemas.dataset import Dataset
from schemas.reasons import sentence


@dataclass(frozen=True)
class Named:
    """A reason or an edit: its name, its sentence, and the rows that it was given to."""

    name: str
    sentence: str
    rows: int


@dataclass(frozen=True)
class Step:
    """One stage: what it does, rows in, rows kept, and what it rejected and rewrote."""

    stage: str
    did: str
    entered: int
    kept: int
    edited: int
    rejected: tuple[Named, ...]
    edits: tuple[Named, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the step as plain values."""
        return asdict(self)


def placeless(name: str) -> str:
    """Name a file, a folder or a version without the place on somebody's disk; a name of the hub stays as it is."""
    path = name.replace("\\", "/").rstrip("/")
    return path.rpartition("/")[2] if re.match(r"/|\.|~|[A-Za-z]:/", path) else name


def _normalize(config: Mapping[str, Any]) -> str:  # noqa: ARG001 # one signature for all
    return "Texts were brought to one way of writing: Unicode form, line ends, blanks, names of roles, prompt formats."


def _rules(config: Mapping[str, Any]) -> str:
    own = " of the general packs, of the formats, and of the dataset's own" if config.get("rules") else ""
    off = config.get("disable") or ()
    return f"Rules{own} judged the rows, and mended what is certain." + (
        f" Not applied: {', '.join(off)}." if off else ""
    )


def _pii(config: Mapping[str, Any]) -> str:
    done = {"report": "reported, and left as they stand", "redact": "replaced by placeholders", "reject": "left out"}
    kinds = ", ".join(config.get("kinds", ()))
    return (
        f"Personal data and secrets ({kinds}) were searched for and {done.get(config.get('action', ''), 'reported')}."
    )


def _signals(config: Mapping[str, Any]) -> str:  # noqa: ARG001 # one signature for all
    return "Language, kind of task, lengths and a heuristic quality were measured."


def _dedup(config: Mapping[str, Any]) -> str:
    against = f", and what is in {placeless(config['against'])} was left out" if config.get("against") else ""
    return (
        f"Of rows whose word {config.get('ngram')}-grams are alike (Jaccard similarity of {config.get('threshold')} or "
        f"more), one was kept{against}."
    )


def evaluation_sets(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Give the evaluation sets of a configuration with their SHA-256, which stands behind the name where they ran."""
    found = (re.fullmatch(r"(.*?)(?::([0-9a-f]{64}))?", str(name), re.DOTALL) for name in config.get("eval", ()))
    return {placeless(match[1]): match[2] for match in found if match}


def _decontaminate(config: Mapping[str, Any]) -> str:
    names = ", ".join(evaluation_sets(config)) or "no evaluation set"
    done = "left out" if config.get("action", "reject") == "reject" else "reported, and kept"
    return f"Rows that hold an item of {names} were searched for and {done}."


def _score(config: Mapping[str, Any]) -> str:
    models = [f"{name} by {placeless(config[name])}" for name in ("difficulty", "judge", "embed") if config.get(name)]
    return "Rows were scored" + (f": {', '.join(models)}." if models else " by their heuristic quality.")


def _select(config: Mapping[str, Any]) -> str:
    limits = [f"{name} {config[name]:g}" for name in ("top", "rows", "tokens") if config.get(name) is not None]
    limits += [f"{name}" for name in ("diverse",) if config.get(name)]
    limits += [
        f"{name} {', '.join(map(str, config[name]))}" for name in ("quota", "sample", "weight") if config.get(name)
    ]
    return (
        f"Rows were chosen: {'; '.join(limits)}."
        if limits
        else "Rows could have been chosen within a budget; all stayed."
    )


def _split(config: Mapping[str, Any]) -> str:
    shares = " / ".join(f"{config.get(name, 0):g}" for name in ("train", "val", "test"))
    return f"Near-duplicates together, rows were divided into train / validation / test, {shares}."


def _review(config: Mapping[str, Any]) -> str:  # noqa: ARG001 # one signature for all
    return "People looked at rows, and kept, rejected or corrected them."


_DID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "normalize": _normalize,
    "rules": _rules,
    "pii": _pii,
    "signals": _signals,
    "dedup": _dedup,
    "decontaminate": _decontaminate,
    "score": _score,
    "select": _select,
    "split": _split,
    "review": _review,
}


def in_words(stage: str, config: Mapping[str, Any]) -> str:
    """Say in a sentence or two what a stage does with this configuration; "" for one that is not known here."""
    return _DID[stage](config) if stage in _DID else ""


def steps_of(dataset: Dataset) -> tuple[Step, ...]:
    """Say what the stages of a version did, in their order. Reads: the edits of the overlays."""
    m = dataset.manifest
    rules = m.stage("rules")
    own = (
        {f"custom:{r.name}": r.sentence for r in read(rules.config["rules"])}
        if rules and rules.config.get("rules")
        else {}
    )

    def named(counts: Mapping[str, int]) -> tuple[Named, ...]:
        return tuple(
            Named(name, own.get(name) or sentence(name), rows)
            for name, rows in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        )

    steps: list[Step] = []
    for count in m.counts:
        stage = m.stage(count.stage)
        did = in_words(count.stage, stage.config) if stage else ""
        if count.stage == "ingest":
            did = "Rows were read; what could not be read is a rejected row."
        edits = named(_edits(dataset, count.stage))
        steps.append(Step(count.stage, did, count.entered, count.kept, count.edited, named(count.rejected), edits))
    return tuple(steps)


def _edits(dataset: Dataset, stage: str) -> Counter[str]:
    """Count the rows of each edit in the overlays of a stage."""
    found: Counter[str] = Counter()
    for shard in dataset.shards:
        if stage in shard.overlays:
            edits = pl.scan_ipc(shard.overlays[stage]).select(pl.col("edits").list.unique().explode()).collect()
            found.update(str(name) for name in edits["edits"].drop_nulls())
    return found
