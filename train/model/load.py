"""The base model, loaded: with fp32 master weights, or in half precision or 4 bits and frozen beneath fp32 adapters.

transformers loads a checkpoint in the dtype it was saved in unless told otherwise, and bf16 weights do not move under
small learning rates (measured: 1,000 AdamW steps at 2e-5 left 0.5 at 0.5), so the dtype is always given. On a GPU the
weights are read straight onto it, in that dtype, so that there is never a second copy.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from schemas.errors import ModelError
from schemas.record import Record
from schemas.train_config import TINY, TrainConfig
from train.model import source, tiny, vocabulary
from train.model.adapters import use_bitsandbytes
from train.model.base import Base
from train.model.device import Device, choose_device
from train.model.source import Source
from train.run.folder import whole_folder
from train.step import attention

LOAD_ERRORS = (
    OSError, ValueError, ImportError, LookupError, RuntimeError, TypeError, AttributeError, SyntaxError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What transformers raises for a checkpoint that is absent, broken, or of a kind it does not know."""


def located(model: str) -> str:
    """Give a local model's folder as an absolute path, so that it is found from anywhere; other names as they are."""
    path = source.local(model)
    return str(path.resolve()) if model != TINY and path is not None else model


def load_base(
    config: TrainConfig,
    train: Sequence[Record],
    *,
    tiny_base: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Base:
    """Load the base model and tokenizer that `config.model` names, or build `tiny` from the train records.

    `tiny_base` is the folder of the tiny base: built there, unless it was built before; `on_step` hears of the steps
    that building takes. Raises ModelError for whatever cannot be loaded, ConfigError for the device.
    """
    attention.register()
    device = choose_device(config)
    if config.model != TINY:
        found = source.find(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
        return _load(config, config.model, found, device, digest=found.digest())
    if device.device.type == "cpu":
        # Its matrices are too small to share: on a busy machine two threads took 64 s where one took 4 (measured).
        torch.set_num_threads(1)
    if tiny_base is not None and tiny_base.is_dir():
        return _load_tiny(config, tiny_base, device)
    tokenizer = tiny.tiny_tokenizer(train)
    model = tiny.tiny_model(tokenizer, seed=config.seed)
    first, last = tiny.pretrain(model, tokenizer, train, seed=config.seed, device=device.device, on_step=on_step)
    note = (
        f"tiny: {sum(p.numel() for p in model.parameters()):,} weights, vocabulary {len(tokenizer):,}, first trained "
        f"on the train split as plain text for {tiny.PRETRAIN_STEPS} steps (loss {first:.2f} -> {last:.2f})"
    )
    model.set_attn_implementation("sdpa")
    # Read back what was written: a resumed run starts from these files, so this one does too.
    with TemporaryDirectory() as temporary:
        folder = tiny_base or Path(temporary) / "base"
        with whole_folder(folder) as place:
            model.save_pretrained(str(place))
            tokenizer.save_pretrained(str(place))
        base = _load_tiny(config, folder, device)
    return replace(base, notes=(note, *base.notes))


def _load_tiny(config: TrainConfig, folder: Path, device: Device) -> Base:
    found = source.find(str(folder), revision=None, trust_remote_code=False)
    return _load(config, TINY, found, device, digest=found.digest())


def _load(config: TrainConfig, name: str, found: Source, device: Device, *, digest: str) -> Base:
    trusted = bool(found.code)
    options: dict[str, Any] = {"trust_remote_code": trusted, "local_files_only": True}
    notes = [f"runs the code of {name}: {', '.join(found.code)} (digest {digest[:16]})"] if trusted else []
    part = "its tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.folder, **options)
        part = "it"
        settings = AutoConfig.from_pretrained(found.folder, **options)
        if getattr(settings, "quantization_config", None):
            raise ModelError(
                f"--model {name}", "its weights are quantised already", "whole ones", "name the model it was made from"
            )
        notes += _silence_attention_dropout(settings)
        attention.refuse_unpackable(settings, name)
        from_pretrained: Any = AutoModelForCausalLM.from_pretrained  # its stub knows of no loading info
        model, loaded = from_pretrained(
            found.folder,
            config=settings,
            use_safetensors=True,
            attn_implementation=attention.NAME,
            ignore_mismatched_sizes=True,  # told by _check_weights, which names them
            output_loading_info=True,
            **_held(config, device),
            **options,
        )
    except LOAD_ERRORS as error:
        raise _load_error(name, part, error) from error
    notes += _check_weights(name, loaded)
    added, new = vocabulary.add_tokens(tokenizer, config.add_tokens)
    vocabulary.fit(model, tokenizer, added=added, new=new, name=name)
    if added:
        before = len(added) - len(new)
        known = f" ({before} of them were in the vocabulary before)" if before else ""
        notes.append(f"{len(added)} special tokens whose embeddings are trained{known}: {' '.join(config.add_tokens)}")
    model.name_or_path = model.config._name_or_path = found.name  # what adapters call their base
    if config.method == "qlora":
        _compute_alike(model)
        notes.append("base held in 4 bits (NF4, double quantisation); its embeddings, norms and head are not quantised")
    return Base(model, tokenizer, name, digest, device, tuple(notes), added, found)


def _held(config: TrainConfig, device: Device) -> dict[str, Any]:
    """Say how the weights are held: fp32 where they are trained, else as the computation wants them, or in 4 bits."""
    place = {"device_map": {"": device.device}} if device.device.type == "cuda" else {}
    if config.method == "full":
        return {"dtype": torch.float32, **place}
    if config.method == "lora":
        return {"dtype": device.frozen_dtype(), **place}
    use_bitsandbytes("--method qlora")
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 # needs bitsandbytes

    # fp16 and fp32 compute where asked for; QLoRA (arXiv 2305.14314) computes in bf16.
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.autocast or torch.float32,
    )
    return {
        "dtype": device.frozen_dtype(),
        "quantization_config": quantised,
        "device_map": {"": device.device},
    }


def _compute_alike(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking weights in evaluation: on some CPUs it then computes in bf16 and not in fp32."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 # typed as Module


def _check_weights(name: str, loaded: Mapping[str, Collection[Any]]) -> list[str]:
    """Raise ModelError for weights that the files do not give: transformers fills them with random numbers, silently.

    Gives a note on weights that the files hold and the model has no place for.
    """
    missing = [str(key) for key in loaded["missing_keys"]]
    misshapen = [str(key) for key, *_ in loaded["mismatched_keys"]]
    for keys, what in ((missing, "lacks"), (misshapen, "has other shapes for")):
        if keys:
            raise ModelError(
                f"--model {name}",
                f"it {what} {len(keys)} weights that its config.json asks for ({_first(keys)})",
                "a file for every weight",
                "download or save the model anew",
            )
    spare = [str(key) for key in loaded["unexpected_keys"]]
    return [f"{len(spare)} weights of {name} belong to no layer and are left out: {_first(spare)}"] if spare else []


def _first(keys: Collection[str], most: int = 3) -> str:
    return ", ".join(sorted(keys)[:most]) + (", …" if len(keys) > most else "")


def _load_error(name: str, part: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):  # code that only the tokenizer needs
        remedy = "read that code; if you trust it, give --trust-remote-code"
        return ModelError(
            f"--model {name}", "it runs Python that it brings along", "a model transformers knows", remedy
        )
    said = str(error).strip().splitlines()
    first = f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__
    return ModelError(
        f"--model {name}", f"{part} cannot be loaded ({first})", "a causal language model of transformers"
    )


def _silence_attention_dropout(settings: object) -> list[str]:
    """Set dropout on attention weights to 0: the packed kernels have none. Dropout elsewhere stays."""
    notes: list[str] = []
    for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"):
        if value := getattr(settings, name, 0.0):
            setattr(settings, name, 0.0)
            notes.append(f"{name} {value} set to 0: packed attention has no dropout")
    return notes
