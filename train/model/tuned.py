"""A model as training left it, loaded again: whole weights, or adapters merged into their base model."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoTokenizer

from schemas.errors import ModelError
from schemas.manifest import digest
from schemas.objects import file_sha256
from schemas.record import Record
from schemas.train_config import TrainConfig
from train.model.load import LOAD_ERRORS, TINY, Base, load_base


def load_trained(config: TrainConfig, records: Sequence[Record] = ()) -> Base:
    """Load what `config.model` names: what training starts from, and also what it left.

    What it left is a run folder (its `final`) or a folder of adapters; adapters are merged into their base model, which
    for a run of `tiny` lies in the run folder. `tiny` itself is built from `records`. Raises ModelError for what cannot
    be loaded, ConfigError for the device.
    """
    folder = Path(config.model).expanduser()
    folder = folder / "final" if (folder / "run.json").is_file() else folder
    adapter = folder / "adapter_config.json"
    if not folder.is_dir() or not adapter.is_file() or (folder / "config.json").is_file():
        return load_base(config.model_copy(update={"model": str(folder)}) if folder.is_dir() else config, records)
    try:
        base = _base_of(config, adapter, records)
        with warnings.catch_warnings():
            # GPT-2 keeps its linear layers transposed; peft notices, sets fan_in_fan_out itself, and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            adapted: Any = PeftModel.from_pretrained(base.model, str(folder))
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        weights = digest([base.digest, file_sha256(folder / "adapter_model.safetensors")])
        return Base(adapted.merge_and_unload(), tokenizer, str(folder), weights, base.device, base.notes)
    except LOAD_ERRORS as error:
        found = f"adapters that cannot be loaded ({type(error).__name__}: {str(error).strip()[:300]})"
        raise ModelError(f"--model {config.model}", found, "adapters, their base model and a tokenizer") from error


def _base_of(config: TrainConfig, adapter: Path, records: Sequence[Record]) -> Base:
    """Load the base model of adapters. The one of a tiny run lies beside them, wherever the run folder was moved."""
    beside = adapter.parent.parent / "base"
    if beside.is_dir():
        return load_base(config.model_copy(update={"model": TINY}), records, tiny_base=beside)
    base_name = str(json.loads(adapter.read_bytes())["base_model_name_or_path"])
    return load_base(config.model_copy(update={"model": base_name}), records)
