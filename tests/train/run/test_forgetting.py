"""The set that forgetting is measured on: drawn by ids alone, the same from a store and from plain records."""

from hashlib import blake2b
from pathlib import Path
from typing import Never

import numpy as np
import pytest

from schemas.dataset import Slice
from tests.train.text.test_encode import PROCESS, rows, store_of
from train.evaluation.losses import Losses
from train.run import forgetting
from train.run.folder import RunFolder
from train.run.forgetting import General, draw_general, measure
from train.text.tokens import Example, Tokens


def test_how_sure_a_change_is_comes_of_the_records_that_changed(tmp_path: Path) -> None:
    """By hand: targets 1, 3, 2; changes of 0.5, 0.1 and 0.3 nats a target."""
    targets = np.array([1, 3, 2])
    examples = Tokens.of([Example(f"{n}", "a", 1.0, np.arange(n + 1), np.arange(n + 1) > 0) for n in targets])
    general, folder = General("talk@1", examples), RunFolder(tmp_path)
    before, change = np.array([2.0, 6.0, 1.0]), np.array([0.5, 0.1, 0.3])
    measure(folder, general, lambda some: Losses.of(some, before), first=True)
    found = measure(folder, general, lambda some: Losses.of(some, before + change * targets), first=False)
    mean = (change * targets).sum() / 6
    assert found.se == pytest.approx(np.sqrt(((change - mean) ** 2 * targets**2).sum() * 3 / 2) / 6)
    broken = measure(folder, general, lambda some: Losses.of(some, np.array([1.0, np.inf, 1.0])), first=False)
    assert broken.se is None


def test_what_is_drawn_is_the_lowest_hashes_in_their_order_and_no_other_text_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "MOST", 12)
    stored = store_of(tmp_path, rows())

    def read(_: Slice) -> Never:
        raise AssertionError

    monkeypatch.setattr(Slice, "__iter__", read)  # what walks all records goes through it
    for seed in (0, 7):
        lowest = sorted(rows(), key=lambda r: blake2b(f"{seed}\0general\0{r.id}".encode(), digest_size=8).digest())[:12]
        usable = [r.id for r in lowest if int(r.id, 16) < 98]  # no template can use the other two
        for records in (stored, rows()):
            drawn = draw_general(records, "mix", PROCESS, max_tokens=1000, seed=seed)
            assert drawn.examples.ids.to_pylist() == usable
