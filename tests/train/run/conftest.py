"""A run that is made once; whoever changes it takes a copy."""

from pathlib import Path

import pytest

from tests.train.run.small_run import NEW, train_in


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: DoRA adapters and a new token."""
    return train_in(tmp_path_factory.mktemp("left"), method="lora", dora=True, add_tokens=(NEW,))
