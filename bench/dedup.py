"""Near-duplicates: our dedup beside other tools on the same rows, and by itself at the size of OpenOrca.

    python -m bench.dedup [--rows 200000] [--texts ALPACA.json] [--only ours,rensa,…] [--plot FOLDER]
    python -m bench.dedup --scale 0.1,0.5,1,2,4.2 [--plot FOLDER]     (millions of rows of 1,500 characters)
    python -m bench.dedup --increment 1                               (millions of rows, then 1% more)

Every tool runs in a fresh process, one after the other, on the same files. The others live in an environment of their
own (--peers FOLDER, or SFT_BENCH_PEERS), which is made on first use; scipy there finds the exact answer too. Ours
compiles its kernels once for each machine: a run over a few rows does that first, and its time is told apart.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.peers import HERE, PEERS, THRESHOLD, Run, peers_python, run
from bench.rows import SHARD_ROWS, conversations
from curate.store import Store
from curate.version import Draft, commit_version
from schemas.dataset import open_dataset
from schemas.manifest import FileEntry, Source
from schemas.record import TEXT_SCHEMA, VERDICT_SCHEMA

TOOLS = ("ours", "ours-command", "datasketch", "rensa", "rensa-rho", "text-dedup", "datatrove")
ALPACA_WORDS = (25, 50)
"""Mean words of question and answer: 420 characters a row."""
WARM_ROWS = 2_000
HEAVY, LIGHT = 0.25, 0.015
"""Share of the words exchanged in a copy of a given text: one that is to be told apart, and one that is a duplicate."""


# stores ---------------------------------------------------------------------------------------------------------------


def committed(root: Path, shards: Iterable[pl.DataFrame], source: str = "generated") -> None:
    """Commit text shards as dataset `bench` of a store, or add them to it as one more source."""
    store = Store(root)
    files: list[FileEntry] = []
    for number, frame in enumerate(shards):
        nothing = pl.DataFrame({c: pl.Series([None] * frame.height, dtype=t) for c, t in VERDICT_SCHEMA.items()})
        files.append(store.put(frame, role="text", stage="ingest", source=source, shard=number))
        files.append(store.put(nothing, role="annotation", stage="ingest", source=source, shard=number))
    parent = Store(root).latest("bench")
    draft = Draft.of(parent) if parent else Draft("bench")
    commit_version(store, draft.with_source(Source(name=source, format="generated"), files), parent, "bench")


def dedup_command(root: Path, *options: str, tree: bool = False) -> tuple[Run, dict[str, Any]]:
    """Run `sft curate dedup` on dataset `bench`; give the process and what it printed as JSON."""
    sft = Path(sys.executable).with_name("sft")
    done = run([sft, "curate", "dedup", "bench", "--store", root, "--json", *options], tree=tree)
    return done, json.loads(done.output)


def left_out_of(root: Path) -> pl.DataFrame:
    """Give id and verdict of all rows that dedup leaves out, with `row`, their number."""
    view = open_dataset("bench", root).scan(["id", "verdict_dedup"]).with_row_index("row")
    return view.filter(pl.col("verdict_dedup").is_not_null()).collect()


# the comparison -------------------------------------------------------------------------------------------------------


def given_rows(file: Path, rows: int, seed: int = 0) -> list[pl.DataFrame]:
    """Make `rows` rows of a list of Alpaca-like dicts: the texts, then copies of them with words exchanged.

    Of the copies, 15% have few words exchanged and are near-duplicates; the others have every fourth.
    """
    draw = np.random.default_rng(seed)
    given = [(f"{r['instruction']}\n{r.get('input') or ''}".strip(), r["output"]) for r in json.loads(file.read_text())]
    pool = np.array([word for pair in given[:2_000] for text in pair for word in text.split(" ")], object)

    def edited(text: str, share: float) -> str:
        words = np.array(text.split(" "), object)
        other = draw.random(len(words)) < share
        words[other] = pool[draw.integers(len(pool), size=int(other.sum()))]
        return " ".join(words)

    pairs = given[:rows]
    while len(pairs) < rows:
        share = LIGHT if draw.random() < 0.15 else HEAVY
        prompt, answer = given[len(pairs) % len(given)]
        pairs.append((edited(prompt, share), edited(answer, share)))
    frames = []
    for start in range(0, rows, SHARD_ROWS):
        turns = [
            [
                {"role": r, "content": t, "name": None, "tool_calls": None}
                for r, t in zip(("user", "assistant"), pair, strict=True)
            ]
            for pair in pairs[start : start + SHARD_ROWS]
        ]
        ids = [f"{start + i:032x}" for i in range(len(turns))]
        fixed = {"source": ["given"] * len(turns), "source_file": [file.name] * len(turns)}
        known = {
            "id": ids,
            "source_key": ids,
            "source_row": range(start + 1, start + 1 + len(turns)),
            "content_hash": ids,
        }
        columns = {**known, **fixed, "messages": turns}
        frames.append(
            pl.DataFrame({c: pl.Series(columns.get(c, [None] * len(turns)), dtype=t) for c, t in TEXT_SCHEMA.items()})
        )
    return frames


def write_rows(frames: list[pl.DataFrame], folder: Path) -> int:
    """Write the texts (prompt and answer joined by a blank) as two Parquet files; give the mean characters."""
    said = pl.element().struct.field("content")
    texts = pl.concat([f.select(text=pl.col("messages").list.eval(said).list.join(" ")) for f in frames])
    table = texts.with_row_index("id").with_columns(pl.col("id").cast(pl.String))
    folder.mkdir()
    half = table.height // 2
    table[:half].write_parquet(folder / "part-0.parquet")
    table[half:].write_parquet(folder / "part-1.parquet")
    return round(float(table["text"].str.len_chars().mean()))


def ours_in_memory(rows: str, out: str) -> None:
    """Be the child process that runs our function over texts in memory."""
    from curate.dedup.plain import near_duplicates
    from schemas.config import DedupConfig

    texts = pl.read_parquet(f"{rows}/*.parquet", columns=["text"])["text"]
    texts = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    near_duplicates(texts[:100], DedupConfig(threshold=THRESHOLD))  # loads the machine code, as an import does
    start = time.perf_counter()
    found = near_duplicates(texts, DedupConfig(threshold=THRESHOLD))
    seconds = time.perf_counter() - start
    np.save(Path(out) / "left_out.npy", found["row"].to_numpy().astype(np.int64))
    text = "near_duplicates(texts), default configuration, an Arrow array of strings"
    told = {"version": "", "configuration": text, "seconds": seconds, "parts": {}}
    (Path(out) / "result.json").write_text(json.dumps(told))


@dataclass
class Outcome:
    """What one tool did: `told` is its own report."""

    run: Run
    told: dict[str, Any]
    left_out: Any


def outcome(tool: str, rows: Path, frames: list[pl.DataFrame], work: Path, peers: Path) -> Outcome:
    out = work / tool
    out.mkdir()
    if tool == "ours-command":
        committed(out / "store", frames, frames[0]["source"][0])
        done, told = dedup_command(out / "store", "--compare", "record", tree=True)
        text = "sft curate dedup --compare record on a store, reading and committing included"
        left_out = left_out_of(out / "store")["row"].to_numpy()
        return Outcome(done, {"version": "", "configuration": text, "seconds": told["seconds"], "parts": {}}, left_out)
    command = [sys.executable, "-m", "bench.dedup", "--child", rows, out]
    done = run(command if tool == "ours" else [peers_python(peers), HERE / "peers.py", tool, rows, out])
    return Outcome(done, json.loads((out / "result.json").read_text()), np.load(out / "left_out.npy"))


def judged(left_out: Any, pairs: Any, rows: int, *, keeps_one: bool = True) -> tuple[float, float]:
    """Give (recall, precision): the share of alike pairs of which a row is left out, and the share of rows left out
    that are alike to a kept row (to any row, for a tool that keeps none of a cluster).
    """
    out = np.zeros(rows, bool)
    out[left_out] = True
    a, b = pairs[:, 0], pairs[:, 1]
    right = np.zeros(rows, bool)
    for one, other in ((a, b), (b, a)):
        right[one[out[one] & (~out[other] | (not keeps_one))]] = True
    return float((out[a] | out[b]).mean()), float(right.sum() / max(1, out.sum()))


def warm_up(frames: list[pl.DataFrame], folder: Path) -> None:
    """Have our kernels compiled, where they are not yet, and say what that takes."""
    folder.mkdir()
    write_rows([frames[0][:WARM_ROWS]], folder / "rows")
    first, second = (run([sys.executable, "-m", "bench.dedup", "--child", folder / "rows", folder]) for _ in range(2))
    print(f"ours on {WARM_ROWS:,} rows, whole process: first {first.seconds:.1f} s, second {second.seconds:.1f} s\n")


def comparison(rows: int, texts: Path | None, only: Sequence[str], peers: Path, plot: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-dedup-") as name:
        work = Path(name)
        made = [p.frame for p in conversations(rows, words=ALPACA_WORDS, system=0.0)] if not texts else None
        frames = made or given_rows(texts or Path(), rows)
        length = write_rows(frames, work / "rows")
        oracle = run([peers_python(peers), HERE / "peers.py", "oracle", work / "rows", work])
        pairs = np.load(work / "pairs.npy")
        print(
            f"{rows:,} rows of {length} characters; pairs at {THRESHOLD} or more: {len(pairs):,} "
            f"(exact, found in {oracle.seconds:.0f} s)\n"
        )
        if "ours" in only:
            warm_up(frames, work / "warm")
        columns = ("tool", "in memory, s", "rows/s", "whole process, s", "peak memory, GB", "left out")
        columns += ("recall", "precision")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        rates: dict[str, float] = {}
        notes = []
        for tool in only:
            try:
                found = outcome(tool, work / "rows", frames, work, peers)
            except RuntimeError as error:
                print(f"| {tool} | failed | | | | | | |", flush=True)
                print(error, file=sys.stderr)
                continue
            recall, precision = judged(found.left_out, pairs, rows, keeps_one=tool != "rensa-rho")
            inner = found.told["seconds"]
            named = f"{tool} {found.told['version']}".strip()
            rates[tool] = rows / (inner or found.run.seconds)
            print(
                f"| {named} | {f'{inner:.2f}' if inner else ''} | {rates[tool]:,.0f} "
                f"| {found.run.seconds:.1f} | {found.run.shared / 1e9:.2f} | {len(found.left_out):,} "
                f"| {recall:.2%} | {precision:.2%} |",
                flush=True,
            )
            parts = ", ".join(f"{part} {s:.2f} s" for part, s in found.told["parts"].items())
            notes.append(f"- {tool}: {found.told['configuration']}{f' ({parts})' if parts else ''}")
        print("", *notes, sep="\n")
        if plot:
            bars(rates, f"Near-duplicates, {rows:,} rows of {length} characters, 2 cores", plot / "dedup_tools.svg")


# size -----------------------------------------------------------------------------------------------------------------


def planted_store(root: Path, rows: int, later: int = 0) -> tuple[pl.DataFrame, float]:
    """Commit generated conversations; give the truth about the copies and the GB of text. `later` rows come as a
    second source that is not committed: they are kept in the file later.arrow of the folder.
    """
    truths, size, after = [], 0, []

    def shards() -> Iterable[pl.DataFrame]:
        nonlocal size
        for frame, truth in conversations(rows, later=later):
            truths.append(truth)
            size += int(frame["messages"].explode().struct.field("content").str.len_bytes().sum())
            if frame["source"][0] == "generated":
                yield frame
            else:
                after.append(frame)

    committed(root, shards())
    if after:
        pl.concat(after).write_ipc(root / "later.arrow")
    return pl.concat(truths), size / 1e9


def found_share(truth: pl.DataFrame, root: Path) -> dict[str, float]:
    """Give the share of planted pairs of which a row is left out, by kind; of conflicts it should be 0.

    Near are those that the stage's three similarities (record, exchange, answer) all find at the threshold or above.
    """
    out = left_out_of(root)["id"]
    hit = pl.col("id").is_in(out.implode()) | pl.col("origin_id").is_in(out.implode())
    near = pl.min_horizontal("record_jaccard", "exchange_jaccard", "answer_jaccard") >= THRESHOLD
    kind = pl.col("kind")
    return truth.select(
        copies=hit.filter(kind.is_in(["exact", "blanks"])).mean(),
        near=hit.filter((kind == "near") & near).mean(),
        conflicts=pl.col("id").is_in(out.implode()).filter(kind == "conflict").mean(),
    ).row(0, named=True)


def warm_command() -> None:
    """Have the kernels of the command compiled, where they are not yet, and say what that takes."""
    with tempfile.TemporaryDirectory(prefix="bench-dedup-") as name:
        planted_store(Path(name), WARM_ROWS)
        print(f"sft curate dedup on {WARM_ROWS:,} rows: {dedup_command(Path(name))[0].seconds:.1f} s the first time\n")


def scale(millions: Sequence[float], plot: Path | None, work: Path | None) -> None:
    warm_command()
    columns = ("million rows", "text, GB", "stage, s", "rows/s", "whole command, s", "peak resident, GB")
    columns += ("its own, GB", "copies found", "near found", "conflicts left out")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    points = []
    for million in millions:
        rows, start = round(million * 1e6), time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="bench-dedup-", dir=work) as name:
            root = Path(name)
            truth, size = planted_store(root, rows)
            print(f"{rows:,} rows generated and committed in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            done, told = dedup_command(root)
            share = found_share(truth, root)
        points.append((million, told["seconds"], done.seconds, done.resident / 1e9, done.own / 1e9))
        print(
            f"| {million:g} | {size:.2f} | {told['seconds']:.1f} | {rows / told['seconds']:,.0f} | {done.seconds:.1f} "
            f"| {done.resident / 1e9:.2f} | {done.own / 1e9:.2f} | {share['copies']:.2%} | {share['near']:.2%} "
            f"| {share['conflicts']:.2%} |",
            flush=True,
        )
    if plot:
        x, stage, command, resident, own = zip(*points, strict=True)
        lines(
            x,
            {"stage": stage, "whole command": command},
            "seconds",
            "Time of sft curate dedup",
            plot / "dedup_time.svg",
        )
        memory = {"resident, mapped files included": resident, "its own (RssAnon)": own}
        lines(x, memory, "GB", "Peak memory of sft curate dedup", plot / "dedup_memory.svg")


def added_to(root: Path, rows: int) -> tuple[Any, Any, pl.DataFrame, float]:
    """Run the command on rows and, with 1% more of them, again. Gives what both told, the truth, and the GB of text."""
    truth, size = planted_store(root, rows, later=rows // 100)
    full = dedup_command(root)
    committed(root, pl.read_ipc(root / "later.arrow").iter_slices(SHARD_ROWS), "later")
    return full, dedup_command(root), truth, size


def increment(million: float, work: Path | None) -> None:
    warm_command()
    with tempfile.TemporaryDirectory(prefix="bench-dedup-", dir=work) as name:
        added_to(Path(name), WARM_ROWS)  # the kernels of growth
    rows = round(million * 1e6)
    with tempfile.TemporaryDirectory(prefix="bench-dedup-", dir=work) as name:
        (full, told), (again, told_again), truth, size = added_to(Path(name), rows)
        share = found_share(truth.filter(pl.col("row") >= rows), Path(name))
    print(f"{rows:,} rows ({size:.2f} GB), then {rows // 100:,} more\n")
    print("| run | stage, s | whole command, s | peak resident, GB |")
    print("|---|---|---|---|")
    for what, done, found in (("all rows", full, told), ("1% more", again, told_again)):
        print(f"| {what} | {found['seconds']:.1f} | {done.seconds:.1f} | {done.resident / 1e9:.2f} |")
    print(f"\nof the copies among the new rows: {share['copies']:.2%} exact and {share['near']:.2%} near found")
    for note in told_again["notes"]:
        print(note)


# plots ----------------------------------------------------------------------------------------------------------------


def _figure(title: str, file: Path, draw: Callable[[Any], None]) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    plt.rcParams["svg.hashsalt"] = "bench"
    figure, axes = plt.subplots(figsize=(7, 4), facecolor="white")
    draw(axes)
    axes.set_title(title, loc="left")
    axes.grid(axis="both", alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)
    print(f"plot: {file}", file=sys.stderr)


def lines(x: Sequence[float], series: dict[str, Sequence[float]], unit: str, title: str, file: Path) -> None:
    def draw(axes: Any) -> None:
        for label, values in series.items():
            axes.plot(x, values, marker="o", label=label)
        axes.set(xlabel="rows (millions)", ylabel=unit, xlim=(0, None), ylim=(0, None))
        axes.legend()

    _figure(title, file, draw)


def bars(rates: dict[str, float], title: str, file: Path) -> None:
    def draw(axes: Any) -> None:
        drawn = axes.barh(list(rates), list(rates.values()))
        axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axes.set(xlabel="rows per second")
        axes.invert_yaxis()
        axes.margins(x=0.2)

    _figure(title, file, draw)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", type=int, default=200_000, help="rows of the comparison")
    asked.add_argument(
        "--texts", type=Path, help="JSON list of instruction, input, output: take these, not generated rows"
    )
    asked.add_argument("--only", default=",".join(TOOLS), help="tools of the comparison")
    asked.add_argument("--peers", type=Path, default=PEERS, help="environment of the other tools")
    asked.add_argument("--plot", type=Path, help="folder for plots (SVG)")
    asked.add_argument("--scale", help="millions of rows, by commas: time, memory and recall of sft curate dedup")
    asked.add_argument("--increment", type=float, help="millions of rows, deduplicated, then 1%% more")
    asked.add_argument("--work", type=Path, help="folder for stores (4.2 million rows: 8 GB); default the system's")
    asked.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.child:
        ours_in_memory(*given.child)
    elif given.scale:
        scale([float(m) for m in given.scale.split(",")], given.plot, given.work)
    elif given.increment:
        increment(given.increment, given.work)
    else:
        comparison(given.rows, given.texts, given.only.split(","), given.peers, given.plot)


if __name__ == "__main__":
    main()
