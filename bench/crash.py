"""Writers at once, and processes killed: what a store is worth when everything goes wrong.

Run: python -m bench.crash [--writers 16] [--commits 50] [--kills 240] [--seed 0]

Writers: each commits again and again to one dataset, rows of a source of its own, as fast as it can. Every commit must
be there once, and `sft verify --all` must find nothing.

Kills: the steps of a store's life (two ingests, a recipe, a tag, a run, a source exchanged, gc), each killed by SIGKILL
at a random call that touches the store, or after a random time. The store must be at the old version or at the new one,
`sft verify --all --deep` must find nothing, and the same step again must lead where it leads undisturbed.
"""

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from curate.verify import verify_store
from schemas.reference import manifest_path, read_manifest, versions_of
from tests.curate.crashing import Job, Jobs
from tests.curate.killing import killed, lived

SHARE_BY_CALL = 2 / 3
"""Of the kills, those at a call; the others come after a time."""


def writers(jobs: Jobs, folder: Path, count: int, commits: int) -> None:
    root = folder / "writers" / "store"
    first = folder / "first.jsonl"
    first.write_text('{"instruction": "Begin.", "output": "Begun."}\n')
    [begun] = jobs.run(Job(str(root), "ingest", ("d", "first", str(first), "refuse")))
    assert begun.error is None, begun.error
    start = time.perf_counter()
    done = jobs.run(*(Job(str(root), "write", ("d", n, commits)) for n in range(count)))
    took = time.perf_counter() - start
    failed = [one.error for one in done if one.error]
    manifests = [read_manifest(manifest_path(f"d@{seq}", root)) for seq in versions_of(root, "d")]
    told = Counter(identity for one in done for identity in one.value or [])
    kept = Counter(m.id for m in manifests)
    once = all(kept[identity] == 1 for identity in told) and len(told) == count * commits
    follow = all(after.parents == (before.id,) for before, after in pairwise(manifests))
    start = time.perf_counter()
    problems = [problem for one in verify_store(root) for problem in one.problems]
    print(f"{count} writers x {commits} commits: {len(manifests)} versions in {took:.0f} s")
    print(f"  errors {len(failed)}; every commit there once: {once}; each follows the one before it: {follow}")
    print(f"  verify --all: {len(problems)} problems, {time.perf_counter() - start:.0f} s")
    for line in (*failed[:5], *problems[:5]):
        print("  ", line)


def kills(jobs: Jobs, folder: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)  # where to kill
    steps = lived(jobs, folder / "life")
    start, problems, where, came = time.perf_counter(), list[str](), Counter[str](), Counter[str]()
    for n in range(count):
        step = steps[n % len(steps)]
        by_call = draw.random() < SHARE_BY_CALL
        at = draw.randint(1, step.done.calls) if by_call else None
        after = None if by_call else draw.uniform(0, step.done.seconds * 1.2)
        found = killed(jobs, step, folder / "killed", at=at, after=after)
        problems += found.problems
        where[f"{step.job.what} {'at a call' if by_call else 'after a time'}"] += 1
        came[f"died at the {'new' if found.new else 'old'} version" if found.died else "came too late"] += 1
    print(f"{count} kills in {time.perf_counter() - start:.0f} s: {len(problems)} problems")
    for what, n in sorted(came.items()):
        print(f"  {n:4} {what}")
    for what, n in sorted(where.items()):
        print(f"  {n:4} {what}")
    for line in problems[:20]:
        print("  ", line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--commits", type=int, default=50)
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as folder, Jobs() as jobs:
        if given.writers:
            writers(jobs, Path(folder), given.writers, given.commits)
        if given.kills:
            kills(jobs, Path(folder), given.kills, given.seed)


if __name__ == "__main__":
    main()
