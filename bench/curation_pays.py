"""Does curation pay? The same tiny model, fine-tuned on clean, damaged and curated rows, at equal tokens.

    python -m bench.curation_pays --work DIR [--seeds 5] [--plot docs/plots]

A small world of people, sums and words. A Llama of 0.9 M weights is first trained from scratch on plain statements
about all of it ("Mira lives in Oslo.", "12 + 31 = 43.", "Reverse the word kelo. olek."): it then knows the answers and
cannot be asked in the form of a chat. Fine-tuning on questions about one half of the world teaches it to answer; exact
match is measured on questions about the other half, in other phrasings too. The arms:

    clean     rows without a fault
    damaged   the same, until 30% of all rows are faulty or copies
    curated   damaged, after `sft curate run` with the default recipe; its kept rows
    strict    the same with three lines more: rows with a refusal or with repeated words are left out by a rule, and by
              `[select]` the tenth of the rows whose answers the base model finds least likely
    again     strict, with the model that was tuned on strict's rows in place of the base model, and a sixth left out:
              train, look at what the model finds unlikely, curate, and train again
    random    as many rows of damaged as curated has, drawn
    longest   as many rows of damaged as curated has, by the length of the answer

Every run sees the same number of tokens, whatever the number of rows. Results are kept below --work as they come, so an
interrupted run goes on. The defects are ours and so are the rules that find them: this shows that the machinery pays
where its defects are found, and what is left where they are not; the last table says which were.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.questions import Row, clean_rows, damaged_rows, halves, world

ROOT = Path(__file__).parent.parent
PRETRAIN_TOKENS = 12_000_000
TUNE_TOKENS = 400_000
LR = 2e-3
"""Of 1e-4, 2e-4, 5e-4, 1e-3 and 2e-3 the one with the most exact matches on clean rows of a seed that is none of the
experiment's (99; 5e-4 on seed 0)."""
ROWS = 1_200
SIZES = (150, 300, 600, 1_200)
QUESTIONS = 400
CONTEXT = 256
ARMS = ("clean", "damaged", "curated", "strict", "again", "random", "longest")
CURVE = ARMS[:4]

STRICT_RULES = """
[[rule]]
name = "refuses"
severity = "reject"
sentence = "The answer refuses."
on = "answer"
matches = "(?i)language model|can't assist"

[[rule]]
name = "repeats"
severity = "reject"
sentence = "The answer says one thing over and over."
on = "answer"
matches = '^(\\S+ ){7,}\\S+$'
"""


def strict_recipe(model: Path, keep: float, folder: Path) -> Path:
    """Write the default recipe with rules of its own, perplexity under a model, and a budget."""
    folder.mkdir(parents=True, exist_ok=True)
    rules, recipe = folder / "rules.toml", folder / "recipe.toml"
    rules.write_text(STRICT_RULES)
    text = (ROOT / "recipes/default.toml").read_text()
    text = text.replace("[rules]", f'[rules]\nrules = "{rules}"')
    text = text.replace("[score]", f'[score]\ndifficulty = "{model}"')
    recipe.write_text(text.replace("[select]", f'[select]\ntop = {keep}\nby = "-perplexity"'))
    return recipe


def curated_rows(rows: Sequence[Row], recipe: Path, folder: Path) -> list[Row]:
    """Run a recipe over the rows with the command itself, and read back what it keeps."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    raw, store, out = folder / "rows.jsonl", folder / "store", folder / "out"
    lines = [
        {
            "messages": [{"role": "user", "content": r.question}, {"role": "assistant", "content": r.answer}],
            "row": i,
        }
        for i, r in enumerate(rows)
    ]
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    name = ["--name", "pays", "--store", str(store)]
    _sft("curate", "ingest", "openai", str(raw), *name)
    _sft("curate", "run", str(recipe), *name)
    _sft("export", "pays", "--format", "openai", "--to", str(out), "--store", str(store))
    kept: list[Row] = []
    for file in sorted(out.rglob("*.jsonl")):
        for line in file.read_text().splitlines():
            found = json.loads(line)
            row = rows[found["row"]]
            kept.append(Row(found["messages"][0]["content"], found["messages"][-1]["content"], row.kind, row.fault))
    return kept


def _sft(*words: str) -> None:
    command = [str(Path(sys.executable).with_name("sft")), *words]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"sft {' '.join(words)}: {done.stderr}")


def rows_of(arm: str, seed: int, count: int, base: Path, folder: Path) -> list[Row]:
    """Make the rows of an arm; what curation keeps is read back from `folder` where it was found before."""
    clean = clean_rows(seed, count)
    damaged = damaged_rows(seed, clean)
    if arm in ("clean", "damaged"):
        return clean if arm == "clean" else damaged
    if arm in ("random", "longest"):
        many = len(rows_of("curated", seed, count, base, folder))
        longest = sorted(damaged, key=lambda r: -len(r.answer))
        return longest[:many] if arm == "longest" else random.Random(f"random {seed}").sample(damaged, many)
    file, place = folder / f"{arm}.json", folder / arm
    if not file.is_file():
        if arm == "curated":
            recipe = ROOT / "recipes/default.toml"
        elif arm == "strict":
            recipe = strict_recipe(base, 9 / 10, folder / "strict-recipe")
        else:
            recipe = strict_recipe(_tuned_on_strict(seed, count, base, folder), 5 / 6, folder / "again-recipe")
        found = curated_rows(damaged, recipe, place)
        file.write_text(json.dumps([asdict(r) for r in found]))
    return [Row(**line) for line in json.loads(file.read_text())]


def _tuned_on_strict(seed: int, count: int, base: Path, folder: Path) -> Path:
    model = folder / "strict-run"
    if not (model / "final").is_dir():
        shutil.rmtree(model, ignore_errors=True)
        tune(base, rows_of("strict", seed, count, base, folder), seed, model)
    return model / "final"


def make_base(folder: Path) -> None:
    """Train the base model on statements, from scratch, letter by letter. Deterministic on one machine."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE())
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=0, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token=special[0], eos_token=special[2])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * CONTEXT,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    per_step = 16 * CONTEXT
    steps = PRETRAIN_TOKENS // per_step
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps + 1, pct_start=0.05, cycle_momentum=False
    )
    stream = _statements(tokenizer)
    model.train()
    for step in range(steps):
        ids = torch.from_numpy(np.stack([np.fromiter(stream, np.int64, CONTEXT) for _ in range(16)]))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"base: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder / "part")
    tokenizer.save_pretrained(folder / "part")
    (folder / "part").rename(folder / "base")


def _statements(tokenizer: Any) -> Iterator[int]:
    """Yield the letters of statements without end; every fact as often as every other."""
    draw = random.Random(1)
    facts = list(world())
    while True:
        draw.shuffle(facts)
        for fact in facts:
            told = (*fact.statements, *(f"{question} {fact.answer}." for question in fact.questions[:2]))
            yield from tokenizer(draw.choice(told) + "\n", add_special_tokens=False)["input_ids"]


def tune(base: Path, rows: Sequence[Row], seed: int, folder: Path) -> dict[str, Any]:
    """Fine-tune on rows with the project's own run, and answer the test's questions. Gives exact match and tokens."""
    from schemas.record import Message, Record
    from schemas.train_config import TrainConfig
    from train.run.data import Data
    from train.run.run import run

    usable = [r for r in rows if r.question.strip() and r.answer.strip()]
    records = tuple(
        Record(f"{i:032x}", "rows", (Message("user", r.question), Message("assistant", r.answer)))
        for i, r in enumerate(usable)
    )
    characters = mean(len(r.question) + len(r.answer) for r in usable) + 32  # the template's own
    per_step = 8 * CONTEXT
    config = TrainConfig.model_validate(
        {
            "model": str(base),
            "method": "full",
            "lr": LR,
            "max_tokens": CONTEXT,
            "micro_batch": 8,
            "batch": max(1, round(per_step / characters)),
            "max_steps": TUNE_TOKENS // per_step,
            "seed": seed,
            "device": "cpu",
            "samples": 0,
            "score_train": False,
            "save_every": 10**6,
        }
    )
    result = run(config, Data("pays", 1, "pays", "pays", records, ()), folder, Silent())
    found = exact_match(folder / "final")
    return {**found, "tokens": result.ending.cursor.tokens, "rows": len(records)}


class Silent:
    def note(self, line: str) -> None: ...

    def work(self, what: str, total: int) -> Callable[[int], None]:  # noqa: ARG002 # a Listener's signature
        return lambda _: None

    def step(self, metrics: object) -> None: ...

    def evaluated(self, found: object) -> None: ...


def exact_match(model: Path) -> dict[str, Any]:
    """Ask a model about the half of the world that no row asked about; the share of answers that are right, by kind."""
    from schemas.record import Message, Record
    from schemas.train_config import TrainConfig
    from train.evaluation.generation import generate
    from train.evaluation.samples import prompt_ids
    from train.model.adapt import adapt
    from train.model.load import load_base
    from train.text.template import Template

    config = TrainConfig(model=str(model), method="full", device="cpu")
    base = load_base(config, ())
    template = Template(base.tokenizer, "pays")
    trainee = adapt(base, config)
    draw = random.Random("test")
    facts = draw.sample(halves()[1], QUESTIONS)
    asked = [(fact, draw.choice(fact.questions)) for fact in facts]
    prompts = [
        prompt_ids(Record("", "", (Message("user", q), Message("assistant", ""))), 1, template) for _, q in asked
    ]
    answers = generate(trainee, template, prompts, new_tokens=16, batch_tokens=8192)
    right = [a.text.strip() == fact.answer for (fact, _), a in zip(asked, answers, strict=True)]
    kinds: dict[str, list[bool]] = {}
    for (fact, _), found in zip(asked, right, strict=True):
        kinds.setdefault(fact.kind, []).append(found)
    return {"exact_match": mean(right), "by_kind": {kind: mean(found) for kind, found in sorted(kinds.items())}}


T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a 95% interval, by the number of seeds."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Give the mean and half the width of its 95% interval over seeds."""
    if len(values) < 2:
        return mean(values), float("nan")
    return mean(values), T_95[len(values)] * stdev(values) / len(values) ** 0.5


def experiment(work: Path, seeds: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Run what is not done yet; give all results."""
    file = work / "results.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    known = {(r["arm"], r["size"], r["seed"]) for r in done}
    asked = product(sorted(sizes, reverse=True), range(seeds), ARMS)
    for size, seed, arm in asked:
        if (arm, size, seed) in known or (size != max(sizes) and arm not in CURVE):
            continue
        folder = work / f"rows-{size}-{seed}"
        rows = rows_of(arm, seed, size, work / "base", folder)
        place = folder / "strict-run" if arm == "strict" else work / "run"
        shutil.rmtree(place, ignore_errors=True)
        found = tune(work / "base", rows, seed, place)
        faults = dict(Counter(r.fault for r in rows if r.fault))
        result = {"arm": arm, "size": size, "seed": seed, "given": len(rows), "faults": faults, **found}
        with file.open("a") as stream:
            stream.write(json.dumps(result) + "\n")
        done.append(result)
        print(f"{arm:>8} {size:>5} seed {seed}: exact match {found['exact_match']:.3f}", flush=True)
    return done


def report(results: Sequence[dict[str, Any]], sizes: Sequence[int]) -> None:
    """Print the tables of docs/benchmarks.md."""
    largest = max(sizes)
    by = {(r["arm"], r["size"], r["seed"]): r for r in results}
    seeds = sorted({r["seed"] for r in results})
    print("\n| arm | rows | tokens | exact match, mean ± 95% | against damaged, paired |")
    print("|---|---|---|---|---|")
    for arm in ARMS:
        found = [by[arm, largest, s] for s in seeds if (arm, largest, s) in by]
        if not found:
            continue
        level, half = interval([r["exact_match"] for r in found])
        both = [s for s in seeds if (arm, largest, s) in by and ("damaged", largest, s) in by]
        gain, width = interval(
            [by[arm, largest, s]["exact_match"] - by["damaged", largest, s]["exact_match"] for s in both]
        )
        paired = "" if arm == "damaged" else f"{gain:+.3f} ± {width:.3f}"
        rows, tokens = mean(r["rows"] for r in found), mean(r["tokens"] for r in found)
        print(f"| {arm} | {rows:,.0f} | {tokens:,.0f} | {level:.3f} ± {half:.3f} | {paired} |")
    print(f"\n| clean rows | {' | '.join(CURVE)} |\n|---|---|---|---|---|")
    for size in sorted(sizes):
        cells: list[str] = []
        for arm in CURVE:
            values = [by[arm, size, s]["exact_match"] for s in seeds if (arm, size, s) in by]
            cells.append("{:.3f} ± {:.3f}".format(*interval(values)) if values else "")
        print(f"| {size:,} | {' | '.join(cells)} |")
    told = ("curated", "strict", "again")
    print(f"\n| fault | planted | {' | '.join(f'left in {arm}' for arm in told)} |\n|---|---|---|---|---|")
    left = {arm: _faults([by[arm, largest, s] for s in seeds if (arm, largest, s) in by]) for arm in ("damaged", *told)}
    for fault, count in left["damaged"].most_common():
        print(f"| {fault} | {count} | {' | '.join(str(left[arm][fault]) for arm in told)} |")


def _faults(results: Sequence[dict[str, Any]]) -> Counter[str]:
    return sum((Counter(r["faults"]) for r in results), Counter[str]())


def plot(results: Sequence[dict[str, Any]], sizes: Sequence[int], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    largest = max(sizes)
    for i, arm in enumerate(ARMS):
        values = [r["exact_match"] for r in results if r["arm"] == arm and r["size"] == largest]
        level, half = interval(values)
        left.bar(i, level, yerr=half, capsize=4)
        left.plot([i] * len(values), values, "k.", markersize=3)
    left.set_xticks(range(len(ARMS)), ARMS, rotation=30)
    left.set_ylabel("exact match, questions never trained on")
    for arm in CURVE:
        points = [
            (size, *interval([r["exact_match"] for r in results if r["arm"] == arm and r["size"] == size]))
            for size in sorted(sizes)
            if any(r["arm"] == arm and r["size"] == size for r in results)
        ]
        right.errorbar([p[0] for p in points], [p[1] for p in points], [p[2] for p in points], label=arm, capsize=3)
    right.set_xscale("log")
    right.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)])
    right.minorticks_off()
    right.set_xlabel("clean rows to begin with")
    right.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder that results are kept in")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(2)
    given.work.mkdir(parents=True, exist_ok=True)
    if not (given.work / "base").is_dir():
        make_base(given.work)
    results = experiment(given.work, given.seeds, given.sizes)
    print(f"\nthe base model alone: {exact_match(given.work / 'base')['exact_match']:.3f}")
    report(results, given.sizes)
    if given.plot:
        plot(results, given.sizes, given.plot / "curation-pays.svg")


if __name__ == "__main__":
    main()
