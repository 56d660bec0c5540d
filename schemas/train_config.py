"""Configuration of a training run: defaults of the design, with one reason or source per threshold."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from schemas.config import Config

Preset = Literal["quick", "small", "gpu"]

PRESETS: dict[str, dict[str, Any]] = {
    # to see that all is well: a minute or two, whatever the model
    "quick": {"max_steps": 50, "micro_batch": 2},
    # one consumer GPU (8 to 24 GB): adapters, short rows, activations recomputed
    "small": {"method": "lora", "max_tokens": 2048, "micro_batch": 1, "gradient_checkpointing": True},
    # one data-centre GPU (80 GB): long rows, several at a time
    "gpu": {"max_tokens": 4096, "micro_batch": 4, "gradient_checkpointing": True},
}
"""What each preset changes. A configuration file and explicit options stand above it."""

TINY_DEFAULTS: dict[str, Any] = {"lr": 2e-3, "batch": 4, "max_tokens": 1024}
"""What `--model tiny` changes: a model of half a million weights learns at rates that would ruin a large one."""

FULL_LR, LORA_LR = 2e-5, 2e-4


class TrainConfig(Config):
    """What decides the weights that come out, but for the dataset: model, method, plan, optimizer."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field("", examples=["tiny", "HuggingFaceTB/SmolLM2-135M"])
    """Hub id or folder of the base model; `tiny` builds a small Llama and its tokenizer from the dataset itself."""

    method: Literal["full", "lora"] = "lora"
    """full trains every weight; lora trains adapters beside all linear layers except the head."""

    max_tokens: int = Field(2048, ge=16)
    """Tokens per packed row, and the most that a record may have; never above what the model was made for. A longer
    record is listed in rejected.jsonl, never cut."""

    batch: int = Field(32, ge=1)
    """Records per optimizer step, on average: a step takes as many packed rows as hold that many records."""

    micro_batch: int = Field(1, ge=1)
    """Packed rows per forward pass; gradients accumulate over a step's rows, so only memory and speed depend on it."""

    max_epochs: int = Field(3, ge=1)
    """Epochs at most; early stopping may end the run before."""

    max_steps: int | None = Field(None, ge=1)
    """Exactly so many steps, over as many epochs as that takes, instead of max_epochs and early stopping."""

    lr: float | None = Field(None, gt=0)
    """Peak learning rate; by default 2e-5 for full and 2e-4 for lora, which wants about ten times more."""

    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0; after it, a cosine to 0."""

    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled weight decay, on matrices only."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's memory of the gradient."""

    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's memory of the squared gradient: 0.95 forgets a spike within a hundred steps."""

    clip: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""

    lora_r: int = Field(16, ge=1)
    """Rank of the adapters."""

    lora_alpha: int = Field(32, ge=1)
    """Adapters are scaled by alpha / r."""

    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input while training."""

    patience: int = Field(3, ge=1)
    """Evaluations without a lower validation loss after which training stops."""

    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations; by default a tenth of the run."""

    save_every: int = Field(100, ge=1)
    """Steps between checkpoints; one is also written at the end, and when the run is interrupted."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, a fraction of the memory."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the computation; auto is bf16 on a GPU that has it, else fp16 with a loss scaler, and fp32 on a CPU.
    Master weights are fp32 in any case."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU where there is one."""

    seed: int = Field(17, ge=0, lt=2**63)
    """Decides the order of the records, the adapters' first weights, and dropout."""

    samples: int = Field(2, ge=0)
    """How many answers to validation prompts are generated at the end."""

    sample_tokens: int = Field(96, ge=1)
    """Tokens per generated answer, at most."""

    def resolved_lr(self) -> float:
        """Give the peak learning rate: the one that was set, else the method's."""
        if self.lr is not None:
            return self.lr
        return FULL_LR if self.method == "full" else LORA_LR


RESUMABLE = frozenset({"save_every", "samples", "sample_tokens"})
"""Fields that may differ when a run is resumed: they leave the weights as they are."""
