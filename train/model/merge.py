"""Adapters merged into their base model, and proven: the same logits before and after.

Merging is done in fp32: in half precision the product of two small matrices is lost in the rounding of a large one
(peft#1388, #2502). What comes out is compared with the adapted model, and refused where it says something else. Only
then are weights cast; what that changes is measured and told.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from schemas.errors import CheckFailedError, ModelError
from train.model import vocabulary
from train.model.adapters import PeftModel, get_peft_model_state_dict
from train.model.base import Base
from train.model.load import LOAD_ERRORS
from train.step import attention

TOLERANCE = 1e-3
"""Largest difference of logits by the merge, in standard deviations of the logits: that of the self-test. fp32 sums in
another order differ by about 1e-6; a wrong scale, or a layer left out, by far more than this."""

PROBE_TEXTS, PROBE_TOKENS = 4, 128
"""Texts to compare logits on, and tokens of each, at most."""

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Cast:
    """What a cast changed: the largest difference of logits, in their standard deviations; the share of positions at
    which the most likely next token stays the same; and how many positions were compared."""

    difference: float
    agreement: float
    positions: int


def probes(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], added: Sequence[int] = ()) -> list[list[int]]:
    """Give token ids to compare logits on: the beginnings of texts, and ids spread over the whole vocabulary."""
    said = [tokenizer.encode(text, add_special_tokens=False)[:PROBE_TOKENS] for text in texts[:PROBE_TEXTS]]
    size = len(tokenizer)
    spread = [i * size // 64 for i in range(64)]
    return [*(ids for ids in said if len(ids) > 1), [*added[:PROBE_TOKENS], *spread]]


def merged(base: Base, folder: Path, texts: Sequence[str] = ()) -> tuple[Base, float]:
    """Merge the adapters of a folder into their base, which is held in fp32. Gives it and the difference of logits.

    Raises ModelError for adapters that cannot be loaded, CheckFailedError where the merged model says something else.
    """
    tokenizer, adapted = _adapted(base, folder)
    nn.Module.to(adapted.eval(), base.device.device)
    base.model.set_attn_implementation("sdpa" if getattr(base.model, "_supports_sdpa", False) else "eager")
    asked = probes(tokenizer, texts, base.added)
    before = logits(base.model, asked)
    model: PreTrainedModel = adapted.merge_and_unload()
    after = logits(model, asked)
    difference = spread(before, after)
    if not difference <= TOLERANCE:
        raise CheckFailedError(
            f"adapters {folder}",
            f"merged into their base they give other logits, by {difference:.2g} standard deviations",
            f"at most {TOLERANCE:g}",
            "use them unmerged, with peft",
        )
    model.set_attn_implementation(attention.NAME)
    return replace(base, model=model, tokenizer=tokenizer), difference


def _adapted(base: Base, folder: Path) -> tuple[PreTrainedTokenizerBase, Any]:
    """Put the adapters of a folder on their base; give their tokenizer and both."""
    where = f"adapters {folder}"
    if not (folder / WEIGHTS).is_file():
        raise ModelError(where, f"no {WEIGHTS}", "adapters saved as safetensors")
    try:
        kind = json.loads((folder / "adapter_config.json").read_bytes())["peft_type"]
        if kind != "LORA":  # others have settings that name more files, or cannot be merged
            raise ModelError(where, f"of the kind {str(kind)[:40]}", "LoRA")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        vocabulary.grow(base.model, tokenizer)
        with warnings.catch_warnings():
            # GPT-2 keeps its linear layers transposed; peft notices, sets fan_in_fan_out itself, and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            # A warning only, and peft goes on with adapters that do nothing: told as an error below.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapted: Any = PeftModel.from_pretrained(base.model, str(folder))
        with safe_open(folder / WEIGHTS, "pt") as file:
            held = set(file.keys())
        asked = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except LOAD_ERRORS as error:
        said = " ".join(str(error).split())[:300]
        remedy = "adapters, their base model and a tokenizer"
        raise ModelError(where, f"cannot be loaded ({type(error).__name__}: {said})", remedy) from error
    odd = sorted(asked - held) or sorted(name for name in held - asked if "lora_" in name)
    if odd:
        what = "lack weights that adapter_config.json asks for" if asked - held else "have weights without a place"
        raise ModelError(where, f"they {what} ({odd[0]})", "adapters of this base model")
    return tokenizer, adapted


def cast(model: PreTrainedModel, dtype: torch.dtype, asked: Sequence[Sequence[int]]) -> Cast:
    """Cast the weights of a model, in place, and measure what that changes.

    Raises CheckFailedError where the model no longer gives finite numbers: fp16 ends at 65,504.
    """
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    before = logits(model, asked)
    nn.Module.to(model, dtype)
    after = logits(model, asked)
    if not after.isfinite().all():
        raise CheckFailedError("the cast", "infinite or no numbers for logits", "finite ones", "--dtype bf16 or fp32")
    same = (before.argmax(-1) == after.argmax(-1)).float().mean().item()
    return Cast(spread(before, after), same, len(before))


def spread(before: Tensor, after: Tensor) -> float:
    """Give the largest difference of logits, in standard deviations of those before."""
    return float((before - after).abs().max() / before.std().clamp_min(1e-12))


def logits(model: PreTrainedModel, asked: Sequence[Sequence[int]]) -> Tensor:
    """Give the logits at each token of each text, one text at a time: (positions, V) fp32."""
    with torch.inference_mode():
        return torch.cat(
            [model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0].float() for ids in asked]
        )
