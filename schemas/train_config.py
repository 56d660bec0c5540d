"""Configuration of a training run: defaults of the design, with one reason or source per threshold."""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from schemas.config import Config

Preset = Literal["quick", "small", "gpu"]

PRESETS: dict[str, dict[str, Any]] = {
    # to see that all is well: a minute or two, whatever the model
    "quick": {"max_steps": 50, "micro_batch": 2},
    # one consumer GPU (8 to 24 GB): adapters, short rows, activations recomputed where they do not fit
    "small": {"method": "lora", "max_tokens": 2048, "micro_batch": 1},
    # one data-centre GPU (80 GB): long rows, several at a time
    "gpu": {"max_tokens": 4096, "micro_batch": 4},
}
"""What each preset changes. A configuration file and explicit options stand above it."""

TINY = "tiny"
"""The model that is built from the dataset."""

TINY_DEFAULTS: dict[str, Any] = {"lr": 2e-3, "batch": 4, "max_tokens": 1024}
"""What `--model tiny` changes: a model of half a million weights learns at rates that would ruin a large one."""

FULL_LR, LORA_LR = 2e-5, 2e-4

ADAPTER_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "dora", "rslora")
"""What full training has no use for."""

Tracker = Literal["tensorboard", "trackio"]


class TrainConfig(Config):
    """What decides the weights that come out, but for the dataset: model, method, plan, optimizer."""

    model_config = ConfigDict(allow_inf_nan=False)

    # the model, and how it is trained

    model: str = Field("", examples=["tiny", "HuggingFaceTB/SmolLM2-135M"])
    """Hub id or folder of the base model; `tiny` builds a small Llama and its tokenizer from the dataset itself."""

    revision: str | None = None
    """Commit, tag or branch of a model on the hub; by default its main branch."""

    trust_remote_code: bool = False
    """Run the Python that a model brings along. It can do whatever you can: only for code that you have read."""

    method: Literal["full", "lora", "qlora"] = "lora"
    """full trains every weight; lora trains adapters beside all linear layers except the head; qlora does so over a
    base held in 4 bits (needs bitsandbytes)."""

    unfreeze: int | None = Field(None, ge=1)
    """With full: train the last so many layers, the final norm and the head alone; the rest, and a head that is tied to
    the embeddings, stays as it is."""

    lora_r: int = Field(16, ge=1)
    """Rank of the adapters."""

    lora_alpha: int = Field(32, ge=1)
    """Adapters are scaled by alpha / r."""

    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input while training."""

    lora_targets: tuple[str, ...] = ()
    """Layers that get adapters, by the end of their names (q_proj); by default all linear layers but the head."""

    dora: bool = False
    """Adapters learn direction and size apart (DoRA, arXiv 2402.09353): nearer to full training, and slower."""

    rslora: bool = False
    """Scale adapters by alpha / sqrt(r) (rsLoRA, arXiv 2312.03732): high ranks then learn as fast as low ones."""

    add_tokens: tuple[str, ...] = ()
    """Special tokens that the vocabulary lacks and the template needs; their embeddings are trained under lora too."""

    # the rows, and the order they come in

    max_tokens: int = Field(2048, ge=16)
    """Tokens per packed row, and the most that a record may have; never above what the model was made for. For tiny
    1,024 by default."""

    overlong: Literal["reject", "truncate-left", "split"] = "reject"
    """What becomes of a longer record: reject lists it in rejected.jsonl; truncate-left drops its oldest exchanges
    after the system turn; split parts it before user turns into records ID#1, ID#2, … that each begin with the system
    turn. No answer is cut, and what is left out is listed too."""

    batch: int = Field(32, ge=1)
    """Records per optimizer step, on average: a step takes as many packed rows as hold that many records. For tiny 4 by
    default."""

    micro_batch: int = Field(1, ge=1)
    """Packed rows per forward pass; gradients accumulate over a step's rows, so only memory and speed depend on it."""

    max_epochs: int = Field(3, ge=1, le=1000)
    """Epochs at most; early stopping may end the run before. The learning rate is planned for all of them."""

    max_steps: int | None = Field(None, ge=1)
    """Exactly so many steps, over as many epochs as that takes, instead of max_epochs and early stopping."""

    max_hours: float | None = Field(None, gt=0)
    """Hours that the run may take in all, measuring included; the learning rate is planned to reach 0 there."""

    max_cost: float | None = Field(None, gt=0)
    """As max_hours, in money: needs price_per_hour."""

    price_per_hour: float | None = Field(None, gt=0)
    """What the machine costs per hour, in any currency: preflight and report then say what the run costs."""

    replay: str | None = Field(None, examples=["general:0.15"])
    """REF:SHARE: mix kept rows of another dataset's train split into every epoch, as this share of its records; 0.1 to
    0.2 of general text keeps a model from forgetting."""

    curriculum: str | None = Field(None, examples=["quality", "-perplexity"])
    """Order the first epoch by a column of the dataset, such as quality or perplexity, or by tokens, lowest first; with
    a minus, highest first. Later epochs are shuffled."""

    allow_leakage: bool = False
    """Train although validation rows, or near-duplicates of them, are train rows too; without, that fails preflight."""

    # the optimizer

    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = "adamw"
    """adamw holds two fp32 moments per trained weight; the 8-bit ones a quarter of that, paged ones also in the
    machine's memory (both need bitsandbytes, paged a GPU)."""

    lr: float | None = Field(None, gt=0)
    """Peak learning rate; by default 2e-5 for full, 2e-4 for lora and qlora, which want about ten times more, and 2e-3
    for tiny."""

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

    neftune: float | None = Field(None, gt=0)
    """Noise on the embeddings while training, by this alpha (NEFTune, arXiv 2310.05914; 5 is the paper's)."""

    # the machine

    checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    """Activations that are recomputed in the backward pass instead of held: none; selective recomputes all but the
    matrix products and attention; full holds one tensor per layer and takes a third more time. auto takes the first
    of them that fits the GPU, and none on a CPU."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the decoder layers with torch.compile; auto does so on a GPU."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the computation; auto is bf16 on a GPU that has it, else fp16 with a loss scaler, and fp32 on a CPU.
    Master weights are fp32 in any case."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU where there is one."""

    workers: int | None = Field(None, ge=0)
    """Processes that tokenise; 0 works in this one. By default as many as there are cores, and none for few records."""

    seed: int = Field(17, ge=0, lt=2**63)
    """Decides the order of the records, the adapters' first weights, and dropout."""

    # what is watched, and kept

    patience: int = Field(3, ge=1)
    """Evaluations without a lower validation loss after which training stops."""

    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations; by default a tenth of the run."""

    save_every: int = Field(100, ge=1)
    """Steps between checkpoints; one is also written at the end, and when the run is interrupted."""

    general: str | None = Field(None, examples=["general"])
    """REF of a dataset whose val rows (else test, else train; 2,000 at most) are scored before and after: what was
    forgotten. By default the val rows of replay's dataset."""

    score_train: bool = True
    """Score every train record before and after the run, for records.arrow and sft why: each costs a third of an
    epoch. Without, only the val records are."""

    samples: int = Field(4, ge=0)
    """How many answers to validation prompts (else train prompts) are generated at each evaluation; the verdict looks
    for repetition in 4 or more."""

    sample_tokens: int = Field(96, ge=1)
    """Tokens per generated answer, at most."""

    track: tuple[Tracker, ...] = ()
    """Also write the metrics for a dashboard: tensorboard or trackio, in the run folder (the track extra)."""

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is meant: pydantic would read them as 1 and 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are for settings that are on or off")
        return value

    @field_validator("replay")
    @classmethod
    def _names_a_share(cls, replay: str | None) -> str | None:
        """Refuse what is no REF:SHARE, and shares that no epoch can have."""
        if replay is None:
            return None
        reference, _, share = replay.rpartition(":")
        try:
            possible = 0 < float(share) < 1
        except ValueError:
            possible = False
        if not reference or not possible:
            raise ValueError("must be REF:SHARE with a share above 0 and below 1, such as general:0.15")
        return replay

    @field_validator("curriculum")
    @classmethod
    def _names_a_column(cls, curriculum: str | None) -> str | None:
        """Refuse a minus without a column."""
        if curriculum is not None and not curriculum.removeprefix("-"):
            raise ValueError("must name a column, such as quality or -perplexity")
        return curriculum

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        """Refuse settings of which one would be ignored."""
        if self.unfreeze is not None and self.method != "full":
            raise ValueError(f"unfreeze is for method full, and the method is {self.method}")
        for name in ADAPTER_SETTINGS if self.method == "full" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for adapters, and the method is full")
        if self.max_cost is not None and self.price_per_hour is None:
            raise ValueError("max_cost needs price_per_hour")
        return self

    def replayed(self) -> tuple[str, float] | None:
        """Give the dataset that is replayed, by its reference, and the share of an epoch that its records make up."""
        if self.replay is None:
            return None
        reference, _, share = self.replay.rpartition(":")
        return reference, float(share)

    def resolved_lr(self) -> float:
        """Give the peak learning rate: the one that was set, else the method's."""
        if self.lr is not None:
            return self.lr
        return FULL_LR if self.method == "full" else LORA_LR

    def limit_hours(self) -> float | None:
        """Give the hours of training that the run may take: the lower of max_hours and what max_cost pays for."""
        bounds = [self.max_hours] if self.max_hours is not None else []
        if self.max_cost is not None and self.price_per_hour is not None:
            bounds.append(self.max_cost / self.price_per_hour)
        return min(bounds, default=None)


RESUMABLE = frozenset({"save_every", "samples", "sample_tokens", "workers", "track", "price_per_hour", "allow_leakage"})
"""Fields that may differ when a run is resumed: they leave the weights as they are."""
