"""The two models of a finished run, its tuned one and its base, each loaded when it is asked.

Both read a prompt as the run rendered it: the run's own tokenizer, chat template and stop tokens. What is loaded must
be what the run was made with, and what it left.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from schemas.errors import ConfigError
from schemas.manifest import digest
from schemas.train_config import TINY, TrainConfig
from train.model.adapt import adapt
from train.model.base import Base
from train.model.load import load_base
from train.model.merge import WEIGHTS
from train.model.trainee import Trainee
from train.model.tuned import load_trained, trained_digest
from train.run.card import check_files, check_same
from train.run.folder import RunFolder
from train.text.template import Template

Weights = Literal["final", "best"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A finished run, to be asked: `facts` is its run.json, `settings` its configuration with this machine's device."""

    folder: RunFolder
    facts: dict[str, Any]
    settings: TrainConfig
    weights: Weights = "final"

    @classmethod
    def open(cls, folder: RunFolder, *, device: str, precision: str, weights: Weights = "final") -> "Pair":
        """Open a run. Raises what `RunFolder.finished` raises, and ConfigError where the weights asked for are gone."""
        facts = folder.finished()
        if not (folder.path / weights).is_dir():
            raise ConfigError(
                f"run {folder.path}", f"it has no {weights} weights", "a run with them", "leave --best out"
            )
        settings = folder.settings().model_copy(update={"device": device, "precision": precision})
        return cls(folder, facts, settings, weights)

    @property
    def place(self) -> Path:
        """Where the tuned weights lie."""
        return self.folder.path / self.weights

    def check_files(self) -> dict[str, str]:
        """Give the sha256 of the tuned weights' files. Raises CheckFailedError where one is not what the run left."""
        return check_files(self.folder, self.facts, self.weights)

    def tuned_key(self) -> str:
        """Digest the tuned weights as they lie there, and the base below them: 64 hex digits."""
        files = self.check_files()
        return digest([self.base_key(), {name: sha for name, sha in files.items() if name.endswith(".safetensors")}])

    def base_key(self) -> str:
        """Name the base weights: the digest that the run recorded."""
        return str(self.facts["identity"]["base"])

    def tuned(self) -> tuple[Trainee, Template]:
        """Load the tuned model, adapters merged. Raises CheckFailedError for files that are not those the run left,
        ModelError for what cannot be loaded or a template that is another one."""
        files = self.check_files()
        model = str(self.place if self.weights == "best" else self.folder.path)
        base = load_trained(self.settings.model_copy(update={"model": model}))
        if WEIGHTS in files and base.digest != trained_digest(self.base_key(), self.place):
            check_same(self.folder, self.facts, base=base.digest)  # the base below the adapters is another one by now
        template = Template(base.tokenizer, base.name)
        check_same(self.folder, self.facts, template=template.digest, tokenizer=template.tokenizer_digest)
        return ready(base), template

    def base(self) -> Trainee:
        """Load the base model. Raises ModelError where it is another one than the run's."""
        # Whole and unquantised, as the tuned one was merged; tokens that the run added are there, and untrained.
        settings = self.settings.model_copy(update={"method": "full", "unfreeze": None})
        base = load_base(settings, (), tiny_base=self.folder.base if settings.model == TINY else None)
        check_same(self.folder, self.facts, base=base.digest)
        return ready(base)


def ready(base: Base) -> Trainee:
    """Give a base, or merged, model in the shape that scoring and generation take; nothing of it is trained."""
    plain = TrainConfig.model_validate({"method": "full", "checkpointing": "none", "compile": "off"})
    return adapt(replace(base, added=()), plain)


def in_its_precision(trainee: Trainee) -> Trainee:
    """Hold the weights in the precision that is computed in, as a model that is served does, and give the same trainee.

    Generation would else cast every weight anew for every token: autocast keeps no cast of weights without gradients.
    """
    if trainee.device.autocast is not None:
        nn.Module.to(trainee.model, trainee.device.autocast)
    return trainee
