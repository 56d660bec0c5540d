"""What a run saves of its weights: the same run, the same bytes."""

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize("which", ["final", "best"])
def test_the_layers_of_the_adapters_are_named_in_one_order(left: Path, which: str) -> None:
    """peft keeps them as a set, whose order changes with each start of Python."""
    layers = json.loads((left / which / "adapter_config.json").read_text())["target_modules"]
    assert layers == sorted(layers)
    assert len(layers) == 14
