"""A store's life in steps, each of them killed somewhere and repeated: what must hold afterwards.

`lived` takes the steps once without disturbance and keeps the store before and after each. `killed` takes one step from
its beginning, has it killed, and gives all that is wrong: with the store as it is then, and after the same step again.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from curate.store import Store
from curate.verify import verify_store
from schemas.errors import SftError
from schemas.reference import dataset_names, manifest_path, read_manifest, read_tags, versions_of
from tests.curate.crashing import ROOT, Done, Job, Jobs

GRACE_S = 3600.0
ALPACA, DOLLY = (str(ROOT / "sample_data" / name) for name in ("alpaca.json", "dolly.jsonl"))


def told(root: Path) -> dict[str, Any]:
    """Give what a store holds for those who ask it: versions by id, tags, runs."""
    versions = {
        name: [read_manifest(manifest_path(f"{name}@{seq}", root)).id for seq in versions_of(root, name)]
        for name in dataset_names(root)
    }
    tags = {name: read_tags(root, name) for name in versions}
    return {"versions": versions, "tags": tags, "runs": Store(root).runs()}


def objects(root: Path) -> set[str]:
    """Name all files that lie where objects do, in the cache, and in tmp."""
    return {str(path.relative_to(root)) for sub in ("objects", "cache", "tmp") for path in (root / sub).rglob("*.*")}


def age(root: Path) -> None:
    """Make all files old enough for gc."""
    past = time.time() - 2 * GRACE_S
    for path in root.rglob("*"):
        os.utime(path, (past, past))


@dataclass(frozen=True)
class Step:
    """A step: its job, and the store before and after it."""

    job: Job
    before: Path
    after: Path
    done: Done


def lived(jobs: Jobs, folder: Path) -> list[Step]:
    """Take all steps once: two ingests, a recipe, a tag, a run, a source exchanged, gc."""
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "records.arrow"
    pl.DataFrame({"id": ["a"], "loss": [1.5]}).write_ipc(records)
    few = folder / "few.jsonl"
    rows = [{"instruction": f"Name the number after {n}.", "output": f"It is {n + 1}."} for n in range(5)]
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan: list[tuple[str, tuple[Any, ...]]] = [
        ("ingest", ("d", "alpaca", ALPACA, "refuse")),
        ("ingest", ("d", "dolly", DOLLY, "refuse")),
        ("recipe", ("d", {"normalize": {}, "split": {}})),
        ("tag", ("d", "golden", 3)),
        ("register", ("run-1", str(records))),
        ("ingest", ("d", "dolly", str(few), "replace")),
        ("gc", (GRACE_S,)),
    ]
    root = folder / "store"
    root.mkdir()
    steps: list[Step] = []
    for number, (what, given) in enumerate(plan):
        if what == "gc":
            store = Store(root)
            for n in range(5):
                store.put(pl.DataFrame({"stray": [n]}), role="index", stage="dedup")
            (root / "tmp" / "left.arrow").write_bytes(b"ARROW1")
            age(root)
        before, after = folder / f"{number}-before", folder / f"{number}-after"
        shutil.copytree(root, before)
        [done] = jobs.run(Job(str(root), what, given))
        assert done.error is None, done.error
        shutil.copytree(root, after)
        steps.append(Step(Job(str(root), what, given), before, after, done))
    return steps


@dataclass(frozen=True)
class Outcome:
    """What a kill led to: did it come before the step was done, was the store new by then, and what is wrong."""

    died: bool
    new: bool
    problems: tuple[str, ...]


def killed(jobs: Jobs, step: Step, root: Path, *, at: int | None = None, after: float | None = None) -> Outcome:
    """Take a step from its beginning and kill it; list what is wrong then, and after the step again."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(step.before, root)
    job = replace(step.job, store=str(root))
    [died] = jobs.run(replace(job, at=at, after=after))
    where = f"{step.job.what} killed at {f'call {at}' if at else f'{after:.3f} s'}"
    problems = [f"{where}: {died.error}"] if died.error else []
    old, new = told(step.before), told(step.after)
    try:
        found = told(root)
    except SftError as error:
        return Outcome(died.killed, new=False, problems=(f"{where}: {error}",))
    for what, value in found.items():
        if value not in (old[what], new[what]):
            problems.append(f"{where}: {what} are neither the old ones nor the new ones")
    problems += [f"{where}: {problem}" for one in verify_store(root, deep=True) for problem in one.problems]
    [again] = jobs.run(job)
    came_before = found["versions"] == new["versions"] and "it is there already" in (again.error or "")
    if again.error and not came_before:
        problems.append(f"{where}: repeated, it fails: {again.error}")
    if told(root) != new:
        problems.append(f"{where}: repeated, it does not lead to where it leads undisturbed")
    problems += [f"{where}: {problem}" for problem in _tidied(root, step)]
    return Outcome(died.killed, found == new, tuple(problems))


def _tidied(root: Path, step: Step) -> list[str]:
    """Let gc take what was left over: then the store holds what it holds undisturbed, after gc there."""
    undisturbed = root.with_name(f"{root.name}-undisturbed")
    shutil.rmtree(undisturbed, ignore_errors=True)
    shutil.copytree(step.after, undisturbed)
    for place in (root, undisturbed):
        age(place)
        store = Store(place)
        store.remove(store.garbage(GRACE_S))
    try:
        left = sorted(objects(root) ^ objects(undisturbed))
    except SftError as error:
        return [str(error)]
    return [f"after gc, {', '.join(left)} make the difference"] if left else []
