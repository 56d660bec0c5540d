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
from schemas.train_config import TrainConfig
from train.model.load import LOAD_ERRORS, TINY, Base, load_base
from train.model.merge import WEIGHTS, merged


def load_trained(config: TrainConfig, records: Sequence[Record] = ()) -> Base:
    """Load what `config.model` names: what training starts from, and also what it left.

    What it left is a run folder (its `final`) or a folder of adapters; adapters are merged into their base model, which
    for a run of `tiny` lies in the run folder. `tiny` itself is built from `records`. Raises ModelError for what cannot
    be loaded, ConfigError for the device, CheckFailedError where the merged model is not the adapted one.
    """
    folder = Path(config.model).expanduser()
    folder = folder / "final" if (folder / "run.json").is_file() else folder
    adapter = folder / "adapter_config.json"
    if not folder.is_dir() or not adapter.is_file() or (folder / "config.json").is_file():
        here = {"model": str(folder), "revision": None}  # a revision is of what it was made from
        return load_base(config.model_copy(update=here) if folder.is_dir() else config, records)
    try:
        whole, _ = merged(base_of(config, adapter, records), folder)
        weights = digest([whole.digest, file_sha256(folder / WEIGHTS)])
        nn.Module.to(whole.model, whole.device.frozen_dtype())
        return replace(whole, name=str(folder), digest=weights, added=())
    except LOAD_ERRORS as error:
        found = f"adapters that cannot be loaded ({type(error).__name__}: {str(error).strip()[:300]})"
        raise ModelError(f"--model {config.model}", found, "adapters, their base model and a tokenizer") from error


def base_of(config: TrainConfig, adapter: Path, records: Sequence[Record] = ()) -> Base:
    """Load the base model of adapters, in fp32 and whole, as they are merged into it.

    The one of a tiny run lies beside them, wherever the run folder was moved.
    """
    whole = {"method": "full", "unfreeze": None, "add_tokens": ()}
    beside = adapter.parent.parent / "base"
    if beside.is_dir():
        return load_base(config.model_copy(update={**whole, "model": TINY}), records, tiny_base=beside)
    saved = json.loads(adapter.read_bytes())
    named = {"model": str(saved["base_model_name_or_path"]), "revision": saved.get("revision")}
    return load_base(config.model_copy(update={**whole, **named}), records)
