"""What reviews teach: 300 reviews of rows chosen by `uncertain` against 300 by chance, and the length of the answer.

Run: python -m bench.learning [--seeds N] [--first SEED] [--rows N] [FORMAT:FILE ...]

Rows are generated, or drawn from files such as alpaca:alpaca_data.json (answers of 8 words and more). A quarter is
spoilt in the ways of a hidden rule (tests/curate/review/simulated.py); reviewers follow the rule and err in one review
of ten. AUC is that on rows that nobody reviewed, against the rule itself. 100 rows are reviewed first, by chance, the
same for both; then two rounds of 100. 10 seeds of 1,500 rows and 4 rules take about two minutes.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from bench.cleaning import of_files
from curate.store import Store
from schemas.record import response_text
from tests.curate.review.simulated import RULES, Exchange, Outcome, exchanges, simulate, spoilt

SHARE = 0.25
"""Share of the rows that is spoilt."""

LEAST_WORDS = 8
"""Words of an answer that can be spoilt in all ways."""


def read(named: list[str]) -> list[Exchange]:
    with tempfile.TemporaryDirectory() as folder:
        dataset = of_files(Store(Path(folder) / "store"), named, 1)
        rows = dataset.scan(["messages", "context", "kept"]).filter("kept", pl.col("messages").list.len() == 2)
        long = rows.filter(response_text().str.count_matches(r"\S+") >= LEAST_WORDS).collect()
    return [(asked["content"], context, said["content"]) for (asked, said), context, _ in long.iter_rows()]


def mean(values: list[float]) -> str:
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FORMAT:FILE")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1500)
    given = parser.parse_args()
    real = read(given.files) if given.files else []
    print("AUC, mean ± standard error; by chance without reviews: 0.500")
    print(f"{'hidden rule':12} {'length':14} {'300 by chance':14} {'300 uncertain':14} {'difference':14} better in")
    for rule in RULES:
        found: list[Outcome] = []
        for seed in range(given.first, given.first + given.seeds):
            draw = random.Random(seed)  # by seed, for nobody to guess
            rows = draw.sample(real, given.rows) if real else exchanges(given.rows, seed)
            found.append(simulate(spoilt(rows, rule, SHARE, seed), seed))
        better = [one.uncertain - one.random for one in found]
        columns = ([one.length for one in found], [one.random for one in found], [one.uncertain for one in found])
        told = " ".join(f"{mean(column):14}" for column in (*columns, better))
        print(f"{rule:12} {told} {sum(b > 0 for b in better)} of {len(better)}", flush=True)


if __name__ == "__main__":
    main()
