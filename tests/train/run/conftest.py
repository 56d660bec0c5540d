"""A run that is made once, which whoever changes it copies; and runs of 12 steps, as many as a test asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.train_config import TrainConfig
from tests.train.run.short_run import IDENTITY
from tests.train.run.small_run import NEW, train_in
from tests.train.world import Watcher
from train.model.trainee import Trainee
from train.plan import make_plan
from train.run.checkpoint import Identity
from train.run.folder import RunFolder
from train.run.parts import Run
from train.text.template import Encoded
from train.text.tokens import Tokens


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: DoRA adapters and a new token."""
    return train_in(tmp_path_factory.mktemp("left"), method="lora", dora=True, add_tokens=(NEW,))


@pytest.fixture
def run_in(encoded: Encoded, trainee_of: Callable[..., Trainee]) -> Callable[..., Run]:
    """Make a run of 12 steps in a folder; adapters have dropout, so that random numbers matter."""

    def make(path: Path, watcher: Watcher | None = None, identity: Identity = IDENTITY, **settings: Any) -> Run:
        dropout = {} if settings.get("method") == "full" else {"lora_dropout": 0.2}
        chosen = {"batch": 4, "lr": 5e-3, "max_steps": 12, "save_every": 2, "eval_every": 3, **dropout, **settings}
        config = TrainConfig(model="small", device="cpu", **chosen)
        trainee = trainee_of(**chosen)
        train, val = Tokens.of(encoded.examples[:18]), Tokens.of(encoded.examples[18:])
        plan = make_plan(
            train,
            max_tokens=128,
            batch=config.batch,
            max_epochs=config.max_epochs,
            max_steps=config.max_steps,
            seed=config.seed,
        )
        path.mkdir(exist_ok=True)
        return Run(config, trainee, plan, train, val, identity, RunFolder(path), watcher or Watcher(), "go on")

    return make
