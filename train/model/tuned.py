"""A model as training left it, loaded again: whole weights, or adapters merged into their base model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from schemas.errors import ModelError
from schemas.manifest import digest
from schemas.objects import file_sha256
from schemas.record import Record
from schemas.train_config import TINY, TrainConfig
from train.model.base import Base
from train.model.load import load_base
from train.model.merge import WEIGHTS, merged
from train.model.source import local
from train.run.folder import RunFolder


def load_trained(config: TrainConfig, records: Sequence[Record] = ()) -> Base:
    """Load what `config.model` names: what training starts from, and also what it left.

    What it left is a run folder (its `final`) or a folder of adapters; adapters are merged into their base model, which
    for a run of `tiny` lies in the run folder. `tiny` itself is built from `records`. Raises ModelError for what cannot
    be loaded, ConfigError for the device, CheckFailedError where the merged model is not the adapted one.
    """
    folder = local(config.model)
    if folder is None:
        return load_base(config, records)
    folder = folder / "final" if (folder / "run.json").is_file() else folder
    adapter = folder / "adapter_config.json"
    if not adapter.is_file() or (folder / "config.json").is_file():
        here = {"model": str(folder), "revision": None}  # a revision is of what it was made from
        return load_base(config.model_copy(update=here) if folder.is_dir() else config, records)
    whole, _ = merged(base_of(config, adapter, records), folder)
    nn.Module.to(whole.model, whole.device.frozen_dtype())
    return replace(whole, name=str(folder), digest=trained_digest(whole.digest, folder), added=())


def trained_digest(base: str, adapters: Path) -> str:
    """Say which weights the adapters of a folder make of a base model, by its digest: 64 hex digits."""
    return digest([base, file_sha256(adapters / WEIGHTS), file_sha256(adapters / "adapter_config.json")])


def base_of(config: TrainConfig, adapter: Path, records: Sequence[Record] = ()) -> Base:
    """Load the base model of adapters, in fp32 and whole, as they are merged into it.

    The one of a tiny run lies beside them, wherever the run folder was moved. Raises ModelError for adapters that name
    no base model.
    """
    whole = {"method": "full", "unfreeze": None, "add_tokens": ()}
    run = RunFolder(adapter.parent.parent)
    if run.holds_run() and run.read_json("run.json").get("model") == TINY:
        return load_base(config.model_copy(update={**whole, "model": TINY}), records, tiny_base=run.base)
    try:
        saved = json.loads(adapter.read_bytes())
        name, revision = saved["base_model_name_or_path"], saved.get("revision")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(str(adapter), f"cannot be read ({error!r})", "what peft writes beside adapters") from error
    if not isinstance(name, str) or name == TINY or not isinstance(revision, str | None):
        raise ModelError(str(adapter), f"names no base model ({name!r})", "a folder or a hub id")
    return load_base(config.model_copy(update={**whole, "model": name, "revision": revision}), records)
