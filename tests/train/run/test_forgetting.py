"""The set that forgetting is measured on: drawn by ids alone, the same from a store and from plain records."""

from hashlib import blake2b
from pathlib import Path
from typing import Never

import pytest

from schemas.dataset import Slice
from tests.train.text.test_encode import PROCESS, rows, store_of
from train.run import forgetting
from train.run.forgetting import draw_general


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
