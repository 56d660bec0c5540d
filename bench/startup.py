"""What `sft train` does before its first step, on many rows: seconds of each phase, memory of all its processes.

Run: python -m bench.startup [--rows 1000000] [--work FOLDER] [--workers N]

Rows are made up from a seed, nine of the size of Alpaca's and Dolly's for one of OpenOrca's. The store, a byte-level
BPE of 8,000 tokens made from the rows, and a Llama of 7 M random weights are made once, in the work folder. Then come
two starts, each a process of its own: the first makes the tokens, the second finds them in the cache.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from schemas.dataset import Dataset, open_dataset

VOCABULARY = 8_000
BPE_ROWS = 50_000
"""Rows that the tokenizer is made from."""
SHORT, LONG = (18, 60), (115, 137)
"""Mean words of a question and an answer: of Alpaca and Dolly, of OpenOrca."""
LONG_SHARE = 0.1
SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
POLL_S = 0.2


def make_store(folder: Path, rows: int) -> Dataset:
    """Make a store of rows of two sources, split in train, val and test; or open the one that is there."""
    if (folder / "datasets" / "bench").is_dir():
        return open_dataset("bench", folder)
    from bench.rows import conversations
    from curate.stage import run_stage
    from curate.stages import stage
    from curate.store import Store
    from curate.version import Draft, commit_version
    from schemas.manifest import FileEntry, Source

    store, draft = Store(folder), Draft("bench")
    long = round(rows * LONG_SHARE)
    for source, count, words, system in (("short", rows - long, SHORT, 0.0), ("long", long, LONG, 0.9)):
        made = conversations(count, words=words, system=system, duplicates=0.0, source=source, seed=len(source))
        files: list[FileEntry] = []
        for number, planted in enumerate(made):
            files.append(store.put(planted.frame, role="text", stage="ingest", source=source, shard=number))
        draft = draft.with_source(Source(name=source, format="generated"), files)
    split = stage("split")
    draft = draft.with_stage(run_stage(store, Dataset(draft.manifest(), store.root), split, split.config(), fresh=True))
    commit_version(store, draft, None, "made up")
    return open_dataset("bench", folder)


def make_model(folder: Path, dataset: Dataset) -> None:
    """Make the tokenizer and the model, unless they are there."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = islice(iter(dataset.records("train")), BPE_ROWS)
    tokenizer.train_from_iterator((message.content for record in some for message in record.messages), trainer)
    special = {"pad_token": "<|pad|>", "eos_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, **SHAPE)  # pyright: ignore[reportArgumentType] # a dict of numbers
    LlamaForCausalLM(config).save_pretrained(folder)


class Phases:
    """A listener that remembers when it heard what."""

    def __init__(self, started: float) -> None:
        self.started, self.said = started, list[tuple[float, str]]()

    def note(self, line: str) -> None:
        """Hear a line."""
        self.said.append((time.time() - self.started, line))

    def work(self, what: str, total: int) -> Callable[[int], None]:
        """Hear of work."""
        self.note(f"{what} ({total:,})")
        return lambda _: None

    def step(self, metrics: Any) -> None:
        """Hear of a step."""
        self.note(f"step {metrics.step}")

    def evaluated(self, found: Any) -> None:
        """Hear of an evaluation."""
        self.note(f"evaluated at step {found.step}")


def start(folder: Path, workers: int | None, began: float) -> None:
    """Do what comes before step 0, then one step, and print when each thing was done."""
    phases = Phases(began)
    phases.note("python started")
    from cli.train import _data  # pyright: ignore[reportPrivateUsage] # what sft train does
    from schemas.train_config import TrainConfig

    dataset = open_dataset("bench", folder / "store")
    data = _data(dataset, "bench")
    from train.run.prepare import prepare
    from train.step.batch import make_batch

    phases.note("imports, dataset")
    settings = {"method": "full", "device": "cpu", "workers": workers, "max_epochs": 1}
    config = TrainConfig.model_validate({"model": str(folder / "model"), **settings})
    prepared = prepare(config, data, phases)  # pyright: ignore[reportArgumentType] # it listens to notes and work alone
    phases.note("prepared")
    batch = make_batch(prepared.train.examples, prepared.plan[0].rows[:1])
    prepared.trainee.nll(batch).mean().backward()
    phases.note(f"first forward and backward pass done ({batch.tokens} tokens)")
    targets = int(prepared.train.examples.targets.sum())
    print(json.dumps({"said": phases.said, "tokens": int(prepared.train.examples.lengths.sum()), "targets": targets}))


def measured(folder: Path, workers: int | None, cache: Path) -> dict[str, Any]:
    """Start in a process of its own; give its wall clock, its processor time, and the most memory of its tree."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bench.startup", "--work", str(folder), "--begin", str(time.time())]
    command += [] if workers is None else ["--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "SFT_CACHE": str(cache)})
    most = {"pss": 0, "anonymous": 0}
    done = threading.Event()

    def poll() -> None:
        while not done.wait(POLL_S):
            for name, held in _memory(process.pid).items():
                most[name] = max(most[name], held)

    watcher = threading.Thread(target=poll)
    watcher.start()
    begun = time.time()
    out, _ = process.communicate()
    wall = time.time() - begun
    done.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(process.returncode)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(out.splitlines()[-1]), "wall": wall, "cpu": cpu, **most}


def _memory(pid: int) -> dict[str, int]:
    """Sum the memory of a process and all below it, in bytes; shared pages are shared out among their holders."""
    found = {"pss": 0, "anonymous": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("Pss", "Pss_Anon"):
                found["pss" if name == "Pss" else "anonymous"] += int(value.split()[0]) * 1024
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in below:
        for name, held in _memory(int(child)).items():
            found[name] += held
    return found


def main() -> None:
    """Measure both starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("startup-work"))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--begin", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.begin is not None:
        start(given.work, given.workers, given.begin)
        return
    folder: Path = given.work / str(given.rows)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    make_model(folder / "model", make_store(folder / "store", given.rows))
    print(f"store and model in {folder}: {time.time() - begun:.0f} s (made once)")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for name in ("first start", "second start"):
        found = measured(folder, given.workers, folder / "cache")
        print(f"\n{name}: {found['wall']:.1f} s, {found['cpu']:.1f} s of processor time")
        print(f"  most memory {found['pss'] / 1e9:.2f} GB with mapped files, {found['anonymous'] / 1e9:.2f} GB without")
        print(f"  {found['tokens']:,} tokens to train on, {found['targets']:,} targets")
        for (at, line), (then, _) in zip(found["said"], [*found["said"][1:], (found["wall"], "")], strict=True):
            print(f"  {at:7.1f} s  +{then - at:5.1f}  {line[:100]}")


if __name__ == "__main__":
    main()
