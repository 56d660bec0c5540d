"""`sft merge`, as a person would type it."""

import json
from pathlib import Path

from tests.cli.conftest import Sft
from tests.train.run.small_run import train_in


def test_merge_says_what_it_found_and_where_the_model_lies(sft: Sft, tmp_path: Path) -> None:
    train_in(tmp_path, method="lora")
    said = sft("merge", "run", "--dtype", "bf16")
    assert "merging in fp32 moved logits by" in said.out
    assert "the cast to bf16 moved them by" in said.out
    assert "written to run/merged" in said.out
    assert "Traceback" not in said.err
    again = sft("merge", "run", "--out", "other", "--best", "--json")
    assert again.err == ""
    assert again.json.keys() == {
        "run", "weights", "merged", "model", "method", "dtype", "difference", "cast_difference", "agreement",
        "positions",
    }  # fmt: skip
    assert (tmp_path / "other" / "model.safetensors").is_file()
    refused = sft("merge", "run", code=2)
    assert refused.err.startswith("error: --out run/merged: it is there already")
    early = sft("merge", "run", "--out", "run/run.json/x", code=2)
    assert early.err.startswith("error: --out run/run.json/x: cannot be written (")  # and nothing was merged before
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "final" / "adapter_config.json").write_text("{}")
    assert facts["weights"]["final"]
    assert "final/adapter_config.json was changed" in sft("merge", "run", "--out", "x", code=1).err
