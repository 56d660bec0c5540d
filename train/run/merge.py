"""A finished run's adapters as one whole model, checked first: nothing is merged that the run did not leave so.

Base model, tokenizer and chat template must be those that the run recorded, and every file of the adapters too. The
folder that comes out loads with plain transformers; it is written whole or not at all.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import torch
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from schemas.errors import ConfigError
from train.model.base import Base
from train.model.merge import cast, merged, probes
from train.model.tuned import base_of
from train.run import card
from train.run.card import MergedFacts
from train.run.folder import RunFolder, whole_folder
from train.text.template import Template

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Merge:
    """What was merged, where it lies, and what merging and the cast changed."""

    run: Path
    weights: str
    folder: Path
    base: str
    method: str
    found: MergedFacts


def merge_run(
    folder: RunFolder, *, out: Path | None, dtype: Dtype, best: bool, say: Callable[[str], None] = lambda _: None
) -> Merge:
    """Merge the adapters of a finished run into their base model. `out` is by default a folder in that of the run.

    Raises what `RunFolder.finished` raises, ConfigError for a run without adapters and a folder that is there already,
    ModelError for another base or template, CheckFailedError for files that are not those of the run, and where the
    merged model says something else; nothing is then written.
    """
    facts = folder.finished()
    which = "best" if best else "final"
    adapters = folder.path / which
    if facts["method"] == "full":
        raise ConfigError(
            f"run {folder.path}",
            "it trained the weights themselves: nothing to merge",
            "adapters",
            f"its model is {adapters}",
        )
    target = out or folder.path / ("merged-best" if best else "merged")
    if target.exists():
        raise ConfigError(f"--out {target}", "it is there already", "a new folder", "remove it, or name another")
    _check_place(target)
    card.check_files(folder, facts, which)
    settings = folder.settings()
    settings = settings.model_copy(update={"device": "cpu", "precision": "fp32"})
    say("loading the base model in fp32")
    base = base_of(settings, adapters / "adapter_config.json")
    card.check_same(folder, facts, base=base.digest)
    stored = _stored_dtype(base)
    say("merging, and comparing logits")
    texts = [str(line["prompt"]) for line in folder.lines("samples.jsonl") if line.get("prompt")]
    whole, difference = merged(base, adapters, texts)
    template = Template(whole.tokenizer, whole.name)
    card.check_same(folder, facts, template=template.digest, tokenizer=template.tokenizer_digest)
    name = stored if dtype == "auto" else dtype
    changed = cast(whole.model, DTYPES[name], probes(whole.tokenizer, texts))
    found = MergedFacts(name, difference, changed.difference, changed.agreement, changed.positions)
    _write(whole, target, adapters, lambda place: card.write(place, folder, facts, which=which, merged=found))
    return Merge(folder.path, which, target, str(facts["model"]), str(facts["method"]), found)


def _check_place(target: Path) -> None:
    """Raise ConfigError where no folder can be made, before all the work."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(mkdtemp(prefix=f".{target.name[:99]}.", dir=target.parent)).rmdir()
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> ConfigError:
    said = error.strerror or str(error)
    return ConfigError(f"--out {target}", f"cannot be written ({said})", "a folder with space for it")


def _write(base: Base, target: Path, adapters: Path, leave_card: Callable[[Path], None]) -> None:
    model = base.model
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    if (adapters / GENERATION_CONFIG_NAME).is_file():  # it knows which tokens the run was taught to stop at
        model.generation_config = GenerationConfig.from_pretrained(str(adapters))
    try:
        with whole_folder(target) as place:
            model.save_pretrained(str(place))
            base.tokenizer.save_pretrained(str(place))
            leave_card(place)
    except OSError as error:
        raise _unwritable(target, error) from error


def _stored_dtype(base: Base) -> str:
    """Name the dtype that the base model's configuration states; fp32 where it states none that is written here."""
    if base.source is None:
        return "fp32"
    stated: dict[str, Any] = json.loads((base.source.folder / "config.json").read_bytes())
    name = str(stated.get("dtype") or stated.get("torch_dtype"))
    return next((short for short, dtype in DTYPES.items() if str(dtype) == f"torch.{name}"), "fp32")
