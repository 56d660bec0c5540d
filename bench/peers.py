"""Other near-duplicate tools, each in its best ordinary configuration, and the exact answer that judges all.

Run by bench.dedup in the environment of bench/requirements-dedup.txt: python bench/peers.py TOOL ROWS OUT

ROWS is a folder of two Parquet files with columns id (the row's number) and text. OUT gets result.json and the numbers
of the rows that the tool leaves out, left_out.npy; the oracle writes pairs.npy: row, row, for each pair of rows whose
sets of word 5-grams have a Jaccard similarity of 0.8 or more.

A word is what stands between blanks, in lower case; shingles are 5 words, or all words of a shorter text. Where a tool
has its own definition of words (text-dedup: letters and digits; datatrove: no punctuation), it keeps that.

`run` and `peers_python`, which start these processes and watch their memory, are for the caller.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

THRESHOLD, NGRAM, NUM_PERM, CORES = 0.8, 5, 128, 2
HERE = Path(__file__).parent
PEERS = Path(os.environ.get("SFT_BENCH_PEERS", Path(tempfile.gettempdir()) / "sft-bench-peers"))
POLL_S = 0.1


@dataclass(frozen=True)
class Result:
    """What a tool reports. `seconds` is from texts in memory to rows left out; absent where it cannot be told apart."""

    version: str
    configuration: str
    left_out: Any
    seconds: float | None = None
    parts: dict[str, float] = field(default_factory=dict)


def texts_of(rows: Path) -> list[str]:
    return pq.read_table(rows, columns=["text"])["text"].to_pylist()


def shingled(texts: list[str]) -> Iterator[list[str]]:
    """Give the shingles of each text, as strings."""
    for text in texts:
        words = text.lower().split()
        n = min(NGRAM, len(words))
        yield [" ".join(gram) for gram in zip(*(words[k:] for k in range(n)), strict=False)]


def datasketch(rows: Path, _folder: Path) -> Result:
    """MinHash.bulk, then each row is asked for and, where nothing is found, inserted."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    texts = texts_of(rows)
    start = time.perf_counter()
    sets = [{gram.encode() for gram in grams} for grams in shingled(texts)]
    cut = time.perf_counter()
    made = MinHash.bulk(sets, num_perm=NUM_PERM, hashfunc=xxhash.xxh32_intdigest)
    signed = time.perf_counter()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM)
    left_out = []
    for row, sketch in enumerate(made):
        if index.query(sketch):
            left_out.append(row)
        else:
            index.insert(row, sketch, check_duplication=False)
    end = time.perf_counter()
    parts = {"shingles": cut - start, "signatures": signed - cut, "index": end - signed}
    text = f"MinHash.bulk with xxh32, MinHashLSH with its own {index.b} bands of {index.r}; a hit is left out; one core"
    return Result(version("datasketch"), text, left_out, end - start, parts)


def rensa(rows: Path, _folder: Path) -> Result:
    """Sketches in one batch on all cores, then RMinHashDeduplicator, which checks candidates by their estimate."""
    from rensa import RMinHash, RMinHashDeduplicator

    texts = texts_of(rows)
    start = time.perf_counter()
    sets = list(shingled(texts))
    cut = time.perf_counter()
    made = RMinHash.from_token_sets(sets, num_perm=NUM_PERM, seed=42)
    signed = time.perf_counter()
    kept = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=NUM_PERM, use_lsh=True).add_pairs(
        (str(row), sketch) for row, sketch in enumerate(made)
    )
    end = time.perf_counter()
    parts = {"shingles": cut - start, "signatures": signed - cut, "index": end - signed}
    text = "RMinHash.from_token_sets, then RMinHashDeduplicator(use_lsh=True).add_pairs, its own bands"
    return Result(version("rensa"), text, np.flatnonzero(~np.array(kept)), end - start, parts)


def rensa_rho(rows: Path, _folder: Path) -> Result:
    """Sampled sketches and flags in one shot: rensa's fastest way. It names no keeper: all of a cluster are flagged."""
    from rensa import RMinHash, RMinHashLSH

    texts = texts_of(rows)
    start = time.perf_counter()
    sets = list(shingled(texts))
    cut = time.perf_counter()
    matrix = RMinHash.digest_matrix_from_token_sets_rho(sets, NUM_PERM, 42)
    signed = time.perf_counter()
    flags = RMinHashLSH(THRESHOLD, NUM_PERM, 8).query_duplicate_flags_matrix_one_shot(matrix)
    end = time.perf_counter()
    parts = {"shingles": cut - start, "signatures": signed - cut, "index": end - signed}
    text = "rho sketches, 8 bands as in its benchmark; flags every row that has a duplicate and keeps none of a cluster"
    return Result(version("rensa"), text, np.flatnonzero(np.array(flags)), end - start, parts)


def text_dedup(rows: Path, folder: Path) -> Result:
    """Run its command, reading and writing included."""
    output = folder / "kept"
    settings = {
        "path": "parquet",
        "data_files": f"{rows}/*.parquet",
        "split": "train",
        "cache_dir": folder / "cache",
        "output": output,
        "column": "text",
        "ngram": NGRAM,
        "min_length": 1,  # its default, 5, drops shorter rows
        "num_perm": NUM_PERM,
        "threshold": THRESHOLD,
        "hash_func": "xxh3",
        "num_proc": CORES,
    }
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "text_dedup.minhash", *options]
    wide = {**os.environ, "COLUMNS": "200"}  # its log is read below, and breaks lines at the terminal's width
    done = subprocess.run(command, cwd=folder, env=wide, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    import datasets

    kept = datasets.load_from_disk(str(output))["id"]
    parts = {name: float(s) for name, s in re.findall(r"(\w+)\s+: (\d+\.\d+)s", done.stdout + done.stderr)}
    seconds = sum(parts[name] for name in ("MinHashing", "Clustering", "Filtering"))
    text = f"python -m text_dedup.minhash, xxh3, its own bands, --min_length 1, --num_proc {CORES}"
    return Result(version("text-dedup"), text, _missing(rows, kept), seconds, parts)


def datatrove(rows: Path, folder: Path) -> Result:
    """Run the four steps of its MinHash pipeline, each with two workers, over files."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import dedup
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Blanks(WordTokenizer):
        """Words between blanks: faster than its default, spaCy, and the same as what the others do."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    bands = 16
    config = dedup.MinhashConfig(n_grams=NGRAM, num_buckets=bands, hashes_per_bucket=NUM_PERM // bands)
    at = {name: str(folder / name) for name in ("signatures", "buckets", "remove", "kept")}
    reader = ParquetReader(str(rows), text_key="text", id_key="id")
    steps: list[tuple[str, int, list[Any]]] = [
        ("signature", CORES, [reader, dedup.MinhashDedupSignature(at["signatures"], config, language=Blanks())]),
        ("buckets", bands, [dedup.MinhashDedupBuckets(at["signatures"], at["buckets"], config=config)]),
        ("cluster", 1, [dedup.MinhashDedupCluster(at["buckets"], at["remove"], config=config)]),
        ("filter", CORES, [reader, dedup.MinhashDedupFilter(at["remove"]), ParquetWriter(at["kept"])]),
    ]
    parts = {}
    for name, tasks, pipeline in steps:
        start = time.perf_counter()
        logs = str(folder / "logs" / name)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(CORES, tasks), logging_dir=logs).run()
        parts[name] = time.perf_counter() - start
    kept = pq.read_table(at["kept"], columns=["id"])["id"].to_pylist()
    text = f"its four steps with {CORES} workers, {bands} buckets of {NUM_PERM // bands}, words split at blanks"
    return Result(version("datatrove"), text, _missing(rows, kept), None, parts)


def _missing(rows: Path, kept: list[Any]) -> Any:
    every = pq.read_table(rows, columns=["id"]).num_rows
    return np.setdiff1d(np.arange(every), np.array(kept, dtype=np.int64))


def oracle(rows: Path, folder: Path) -> Result:
    """Find all pairs of similarity `THRESHOLD` or more, exactly.

    Two sets of size s and t that are so alike share one of their s - ceil(0.8 s) + 1 rarest elements, whatever order
    the elements are in, and 0.8 s <= t (Bayardo et al. 2007): only those pairs are compared. Shingles are numbered
    without hashing, so that no two are taken for one.
    """
    from scipy import sparse

    start = time.perf_counter()
    row, gram = _numbered(texts_of(rows))
    n, many = int(row.max()) + 1, int(gram.max()) + 1
    counts = np.bincount(gram)
    rank = np.empty(many, np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(many)  # the rarest first
    key = np.unique(row * many + rank[gram])
    row, gram = key // many, key % many
    sizes = np.bincount(row, minlength=n)
    starts = np.cumsum(sizes) - sizes
    prefix = sizes - np.ceil(THRESHOLD * sizes - 1e-9).astype(np.int64) + 1
    chosen = np.arange(len(row)) - starts[row] < prefix[row]
    order = np.argsort(gram[chosen], kind="stable")
    holder, token = row[chosen][order], gram[chosen][order]
    after = np.searchsorted(token, token, side="right") - np.arange(len(token)) - 1
    table = sparse.csr_matrix((np.ones(len(row), np.int32), gram, np.append(starts, len(row))), shape=(n, many))
    found, seen = [], np.zeros(0, np.int64)
    cuts = np.searchsorted(np.cumsum(after), np.arange(0, int(after.sum()) + 1, 10_000_000), side="left")
    for low, high in zip(cuts, [*cuts[1:], len(after)], strict=True):
        left = np.repeat(np.arange(low, high), after[low:high])
        nth = np.arange(len(left)) - np.repeat(np.cumsum(after[low:high]) - after[low:high], after[low:high])
        a, b = holder[left], holder[left + 1 + nth]
        fits = np.minimum(sizes[a], sizes[b]) >= THRESHOLD * np.maximum(sizes[a], sizes[b]) - 1e-9
        pair = np.unique((np.minimum(a, b) * n + np.maximum(a, b))[fits])
        seen = np.union1d(seen, pair)
    for at in range(0, len(seen), 100_000):
        a, b = seen[at : at + 100_000] // n, seen[at : at + 100_000] % n
        shared = np.asarray(table[a].multiply(table[b]).sum(axis=1)).ravel()
        alike = shared / (sizes[a] + sizes[b] - shared) >= THRESHOLD - 1e-12
        found.append(np.stack([a[alike], b[alike]], axis=1))
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    np.save(folder / "pairs.npy", pairs)
    parts = {"candidates": float(len(seen)), "pairs": float(len(pairs))}
    return Result("", "exact", [], time.perf_counter() - start, parts)


def _numbered(texts: list[str]) -> tuple[Any, Any]:
    """Give (row, number of the shingle) for each shingle of each text; equal shingles have equal numbers."""
    numbers: dict[str, int] = {}
    words, lengths = [], np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        own = [numbers.setdefault(word, len(numbers) + 1) for word in text.lower().split()]
        lengths[row] = len(own)
        words.extend(own + [0] * (NGRAM - len(own) if own else 0))  # 0 is no word: a short text is one shingle
    held = np.where(lengths > 0, np.maximum(lengths, NGRAM), 0)
    flat = np.array(words, np.int64)
    row = np.repeat(np.arange(len(texts)), held)
    grams, position = flat, np.arange(len(flat)) - np.repeat(np.cumsum(held) - held, held)
    for k in range(1, NGRAM):  # the number of k words and the number of the next word make that of k + 1 words
        grams = np.unique(grams * (len(numbers) + 1) + np.roll(flat, -k), return_inverse=True)[1].ravel()
    whole = position <= held[row] - NGRAM
    return row[whole], grams[whole]


@dataclass
class Run:
    """A finished process and its children. Memory in bytes: `shared` is the peak of the sum of their Pss (each page
    counted once), `resident` the highest VmHWM of one of them, `own` the peak of the sum of their RssAnon.
    """

    seconds: float
    output: str
    shared: int = 0
    resident: int = 0
    own: int = 0


def run(command: Sequence[str | Path], *, tree: bool = True) -> Run:
    """Run a command to its end and watch its memory; raise RuntimeError with its last words where it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(c) for c in command], stdout=out, stderr=err, start_new_session=True, cwd=HERE.parent
        )
        found = Run(0.0, "")
        while process.poll() is None:
            members = _session(process.pid) if tree else [process.pid]
            status = [_fields(pid, "status") for pid in members]
            found.own = max(found.own, sum(s.get("RssAnon", 0) for s in status))
            found.resident = max(found.resident, *(s.get("VmHWM", 0) for s in status), 0)
            if tree:
                found.shared = max(found.shared, sum(_fields(pid, "smaps_rollup").get("Pss", 0) for pid in members))
            time.sleep(POLL_S)
        found.seconds = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}\n{err.read()[-3000:]}")
        found.output = out.read()
        return found


def _session(leader: int) -> list[int]:
    """Give the processes of a session: those that a process started, and theirs, whoever is their parent by now."""
    members = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                members.append(int(entry.name))
        except OSError:
            continue
    return members


def _fields(pid: int, name: str) -> dict[str, int]:
    """Read the sizes of a file of /proc/PID in bytes; nothing where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {p[0].rstrip(":"): int(p[1]) * 1024 for p in parts if len(p) == 3 and p[2] == "kB"}


def peers_python(folder: Path) -> Path:
    """Give the Python of the other tools' environment; make that first where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing the other tools into {folder.name} (some minutes)", file=sys.stderr)
        venv.create(folder, with_pip=True)
        wanted = HERE / "requirements-dedup.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", wanted], check=True, stdout=sys.stderr)
    return python


TOOLS: dict[str, Callable[[Path, Path], Result]] = {
    "datasketch": datasketch,
    "rensa": rensa,
    "rensa-rho": rensa_rho,
    "text-dedup": text_dedup,
    "datatrove": datatrove,
    "oracle": oracle,
}


def main(tool: str, rows: str, out: str) -> None:
    folder = Path(out)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        result = TOOLS[tool](Path(rows), folder if tool == "oracle" else Path(work))
    np.save(folder / "left_out.npy", np.asarray(result.left_out, dtype=np.int64))
    told = {name: value for name, value in asdict(result).items() if name != "left_out"}
    (folder / "result.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:4])
