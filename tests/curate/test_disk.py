"""A disk that is full, and a store that may only be read: a clear line, no damage, and what only reads goes on.

These mount file systems in a namespace of their own, so that nothing is seen outside it and nothing stays; where the
system lets nobody do that, they skip.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.store import Store
from curate.verify import verify_store
from schemas.reference import versions_of
from tests.curate.crashing import ROOT
from tests.rows import dataset_of, question

ALONE = ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount() -> bool:
    try:
        tried = subprocess.run([*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount in a namespace of their own")


_STEPS = """
import contextlib, io, json, subprocess, sys
from cli import main, render
for line in json.load(sys.stdin):
    if not line.startswith("sft "):
        subprocess.run(line, shell=True, check=True)
        continue
    out, err, code = io.StringIO(), io.StringIO(), 0
    render.console.cache_clear()
    sys.argv = line.split()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.run()
        except SystemExit as ended:
            code = ended.code or 0
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}))
"""


def alone(folder: Path, *lines: str) -> list[dict[str, Any]]:
    """Run `sft` and shell lines in a namespace; gives exit code, stdout and stderr of each `sft`."""
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", _STEPS],
        input=json.dumps(lines),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_mount
def test_a_full_disk_is_a_clear_line_and_the_store_stays_whole(tmp_path: Path) -> None:
    """A tmpfs that takes the store and hardly more; freed again, the same command succeeds."""
    root = dataset_of(tmp_path / "made", {"s": [question(f"q {n}", f"a {n}") for n in range(50)]}).root
    rows = [{"instruction": f"Ask {n}", "output": f"Answer {n} " + "at length " * 40} for n in range(800)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest = "sft curate ingest auto more.jsonl --source more --name d --store disk/store"
    full, tag, whole, freed, after = alone(
        tmp_path,
        "mkdir disk after",
        "mount -t tmpfs -o size=256k tmpfs disk",
        f"cp -r {shlex.quote(str(root))} disk/store",
        ingest,
        "cp -r disk/store after/full",
        "head -c 1000000 /dev/zero > disk/filler || true",
        "sft tag d golden --store disk/store",
        "sft verify --all --deep --store disk/store",
        "rm disk/filler",
        "mount -o remount,size=8m disk",
        ingest,
        "sft verify --all --deep --store disk/store",
        "cp -r disk/store after/freed",
    )
    assert (full["code"], full["out"]) == (2, "")
    assert "No space left on device" in full["err"]
    assert "Free some space" in full["err"]
    assert full["err"].count("\n") == 1
    assert tag["code"] == 2
    assert "Free some space" in tag["err"]
    assert (whole["code"], freed["code"], after["code"]) == (0, 0, 0)
    assert versions_of(tmp_path / "after/full", "d") == [1]
    assert list((tmp_path / "after/full/tmp").iterdir()) == []
    assert versions_of(tmp_path / "after/freed", "d") == [1, 2]


@needs_mount
def test_a_store_that_may_only_be_read_is_read_and_says_so_when_it_is_written(tmp_path: Path) -> None:
    rows = [question(f"question {n}", f"answer {n}") for n in range(5)]
    root = dataset_of(tmp_path / "made", {"s": rows}).root
    dataset_of(root, {"s": rows[:4]})
    stray = root / Store(root).put(pl.DataFrame({"a": [1]}), role="index", stage="dedup").path
    os.utime(stray, (1, 1))
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    reads = ["show d", "log d", "why d s:1", "diff d@1 d@2", "verify d --deep", "verify --all", "gc --dry-run"]
    reads.append("export d --format jsonl --to out")
    (tmp_path / "more.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    writes = [
        "curate ingest auto more.jsonl --source more --name d",
        "curate normalize d",
        "tag d golden",
        "gc --grace-hours 0",
    ]
    told = alone(
        tmp_path,
        "mkdir store",
        f"mount --bind {shlex.quote(str(root))} store",
        "mount -o remount,bind,ro store",
        *(f"sft {line} --store store" for line in (*reads, *writes)),
    )
    for line, said in zip(reads, told, strict=False):
        assert (line, said["code"], said["err"]) == (line, 0, said["err"])
        assert said["out"]
    for line, said in zip(writes, told[len(reads) :], strict=True):
        assert (line, said["code"], said["out"]) == (line, 2, "")
        assert "Read-only file system" in said["err"]
        assert "Name a place that can be written with --store" in said["err"]
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before
    assert [problem for one in verify_store(root, deep=True) for problem in one.problems] == []
