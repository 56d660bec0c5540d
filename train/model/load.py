"""The model that is trained: loaded with fp32 master weights, or in half precision and frozen beneath fp32 adapters.

`load_base` finds the base model and its tokenizer (hub id, folder, or `tiny`); `adapt` makes it trainable by the chosen
method. transformers loads a checkpoint in the dtype it was saved in unless told otherwise, and bf16 weights do not move
under small learning rates (measured: 1,000 AdamW steps at 2e-5 left 0.5 at 0.5), so the dtype is always given.
"""

import hashlib
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from schemas.errors import ConfigError, ModelError
from schemas.record import Record
from schemas.train_config import TrainConfig
from train.model import tiny
from train.step import attention
from train.step.batch import PackedBatch
from train.step.loss import Head, head_of, target_nll

TINY = "tiny"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError)
"""What transformers raises for a checkpoint that is absent, broken, or of a kind it does not know."""


PRECISIONS: dict[torch.dtype | None, str] = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What autocast computes in, by name; None is fp32 throughout."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where the run computes, and in which precision: `autocast` is None for fp32 throughout."""

    device: torch.device
    autocast: torch.dtype | None

    def compute(self) -> AbstractContextManager[object]:
        """Give the context in which forward passes run."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {PRECISIONS[self.autocast]} compute"


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A base model as it was found. `digest` says which weights these are; `notes` what a person should know."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    device: Device
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Trainee:
    """What is trained. `model` is what gets saved (a PEFT model under lora), `network` the causal LM inside it."""

    model: PreTrainedModel | PeftModel
    network: PreTrainedModel
    backbone: nn.Module
    head: Head
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: Device
    notes: tuple[str, ...] = field(default=())

    def hidden(self, batch: PackedBatch) -> Tensor:
        """Give the last hidden states of a packed batch, (1, N, C)."""
        return attention.packed_hidden(self.backbone, batch)

    def nll(self, batch: PackedBatch) -> Tensor:
        """Give the negative log-likelihood of each target, (M,) fp32 nats: the one forward pass of training."""
        return target_nll(self.head, self.hidden(batch), batch)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights that training changes, each once, by name."""
        yield from ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @contextmanager
    def stock_attention(self) -> Generator[None]:
        """Swap in transformers' own attention, for generation and as the oracle of the self-test."""
        self.network.set_attn_implementation("sdpa" if getattr(self.network, "_supports_sdpa", False) else "eager")
        try:
            yield
        finally:
            self.network.set_attn_implementation(attention.NAME)


def choose_device(config: TrainConfig) -> Device:
    """Choose device and precision. Raises ConfigError for a device that is not there, or a precision it has not."""
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError("--device", "cuda, but torch sees no GPU", "cpu or auto")
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    has_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bf16" and not has_bf16:
        raise ConfigError("--precision", "bf16, but this GPU has none", "fp32 or auto")
    fits = ("bf16" if has_bf16 else "fp16") if device.type == "cuda" else "fp32"
    named = {name: dtype for dtype, name in PRECISIONS.items()}
    return Device(device, named[fits if config.precision == "auto" else config.precision])


def located(model: str) -> str:
    """Give a local model's folder as an absolute path, so that it is found from anywhere; other names as they are."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model != TINY and path.is_dir() else model


def load_base(
    config: TrainConfig,
    train: Sequence[Record],
    *,
    tiny_base: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Base:
    """Load the base model and tokenizer that `config.model` names, or build `tiny` from the train records.

    `tiny_base` is the folder of a tiny base built before, used instead of building it again; `on_step` hears of the
    steps that building takes. Raises ModelError for whatever cannot be loaded, ConfigError for the device.
    """
    attention.register()
    device = choose_device(config)
    if config.model != TINY:
        return _load(config, config.model, device)
    if device.device.type == "cpu":
        # Its matrices are too small to share: on a busy machine two threads took 64 s where one took 4 (measured).
        torch.set_num_threads(1)
    if tiny_base is not None and tiny_base.is_dir():
        base = _load(config, str(tiny_base), device)
        return Base(base.model, base.tokenizer, TINY, _weights_digest(base.model), device)
    tokenizer = tiny.tiny_tokenizer(train)
    model = tiny.tiny_model(tokenizer, seed=config.seed)
    first, last = tiny.pretrain(model, tokenizer, train, seed=config.seed, device=device.device, on_step=on_step)
    note = (
        f"tiny: {sum(p.numel() for p in model.parameters()):,} weights, vocabulary {len(tokenizer):,}, first trained "
        f"on the train split as plain text for {tiny.PRETRAIN_STEPS} steps (loss {first:.2f} -> {last:.2f})"
    )
    return Base(model, tokenizer, TINY, _weights_digest(model), device, (note,))


def adapt(base: Base, config: TrainConfig) -> Trainee:
    """Make the base trainable: all of it, or adapters of rank `lora_r` on every linear layer but the head."""
    notes = list(base.notes)
    network: PreTrainedModel = base.model
    model: PreTrainedModel | PeftModel = network
    torch.manual_seed(config.seed)
    if config.method == "lora":
        lora = LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            # The embeddings of tiny have never seen the template's tokens: adapters alone would have to do without.
            modules_to_save=list(tiny.NEW_TO_CHAT) if base.name == TINY else None,
            task_type="CAUSAL_LM",
        )
        try:
            with warnings.catch_warnings():
                # GPT-2 keeps its linear layers transposed; peft notices, sets fan_in_fan_out itself, and warns.
                warnings.filterwarnings("ignore", message="fan_in_fan_out")
                # peft 0.21 reads an attribute that transformers 5.23 has renamed.
                warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
                model = get_peft_model(network, lora)
        except ValueError as error:
            raise ModelError(
                f"model {base.name}", f"no adapters: {error}", "linear layers", "use --method full"
            ) from error
    if config.checkpointing in ("selective", "full"):
        if not network.supports_gradient_checkpointing:
            raise ConfigError("--checkpointing", f"{base.name} cannot recompute activations", "none")
        with warnings.catch_warnings():
            # Renamed in transformers 5.23; the old name works from 5.17 to v6.
            warnings.filterwarnings("ignore", message="`gradient_checkpointing_enable` is deprecated")
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        notes.append("activations are recomputed in the backward pass")
    layer = network.get_output_embeddings()
    if layer is None:
        raise ModelError(f"model {base.name}", "it has no output layer", "a causal language model")
    nn.Module.to(model, base.device.device)
    return Trainee(
        model=model,
        network=network,
        backbone=network.base_model,
        head=head_of(layer, network.config),
        tokenizer=base.tokenizer,
        name=base.name,
        device=base.device,
        notes=tuple(notes),
    )


def _load(config: TrainConfig, name: str, device: Device) -> Base:
    path = Path(name).expanduser()
    local = path.is_dir()
    if local:
        _check_folder(path)
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"--model {name}", "no such folder", "a model's folder, a hub id, or tiny")
    source = located(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        settings = AutoConfig.from_pretrained(source, trust_remote_code=False)
        notes = _silence_attention_dropout(settings)
        attention.refuse_unpackable(settings, name)
        frozen_half = config.method == "lora" and device.device.type == "cuda" and device.autocast is not None
        from_pretrained: Any = AutoModelForCausalLM.from_pretrained  # its stub knows of no loading info
        model, loaded = from_pretrained(
            source,
            config=settings,
            dtype=device.autocast if frozen_half else torch.float32,
            attn_implementation=attention.NAME,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # told by _check_weights, which names them
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise _load_error(name, local, error) from error
    notes += _check_weights(name, loaded)
    rows = int(getattr(model.get_input_embeddings(), "num_embeddings", len(tokenizer)))
    if len(tokenizer) > rows:
        raise ModelError(f"model {name}", f"{rows} embeddings for a tokenizer of {len(tokenizer)} tokens", "one each")
    digest = _folder_digest(path) if local else f"hub:{getattr(settings, '_commit_hash', None) or 'unknown'}"
    return Base(model, tokenizer, name, digest, device, tuple(notes))


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


def _check_folder(path: Path) -> None:
    files = {p.name for p in path.iterdir()}
    if "adapter_config.json" in files and "config.json" not in files:
        raise ModelError(f"--model {path}", "an adapter without its base model", "a whole model", "merge it first")
    if "config.json" not in files:
        raise ModelError(f"--model {path}", "no config.json in the folder", "a model saved by transformers")
    if not files & set(TOKENIZER_FILES):
        raise ModelError(
            f"--model {path}",
            "no tokenizer in the folder",
            "tokenizer.json beside the weights",
            "save the tokenizer there: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
        )


def _load_error(name: str, local: bool, error: Exception) -> ModelError:
    said = str(error).strip().splitlines()
    first = f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__
    if local:
        return ModelError(f"--model {name}", f"cannot be loaded ({first})", "a causal language model of transformers")
    return ModelError(
        f"--model {name}",
        f"no such folder, and the hub does not give it ({first})",
        "a model's folder, a hub id, or tiny",
        "check the name and the network, or download it and give the folder",
    )


def _silence_attention_dropout(settings: object) -> list[str]:
    """Set dropout on attention weights to 0: the packed kernels have none. Dropout elsewhere stays."""
    notes: list[str] = []
    for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"):
        if value := getattr(settings, name, 0.0):
            setattr(settings, name, 0.0)
            notes.append(f"{name} {value} set to 0: packed attention has no dropout")
    return notes


def _folder_digest(path: Path) -> str:
    """Sha256 over the names and bytes of the configuration and weight files: 64 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.name == "config.json" or file.suffix in {".safetensors", ".bin"}:
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _weights_digest(model: PreTrainedModel) -> str:
    """Sha256 over the names and bytes of the weights: 64 hex digits."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(name.encode() + b"\0" + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
