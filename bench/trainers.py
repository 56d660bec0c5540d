"""Trainers side by side: this one, TRL's SFTTrainer, the plain transformers Trainer, and a bare loop of torch.

    python -m bench.trainers NAME SPEC.json OUT.json

Each runs in a process of its own on the same rows, model, optimizer and number of steps, and reports what it took:
tokens are those of records (padding does not count), seconds those of the steps after the warm-up. TRL is taken from
the folder that `peers` makes on first use: TRL alone, so that all use the same torch and transformers.

`bench.train_cpu` and `bench.train_gpu` write the specification, start the processes in turns and print the tables.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("SFT_BENCH_TRAINERS", Path(tempfile.gettempdir()) / "sft-bench-trainers"))
TRL = "trl==1.16.0"
ATTENTIONS = {
    "sdpa": "sdpa",
    "flex_attention": "flex_attention",
    "varlen": "torch varlen, in place of FlashAttention 2",
}
"""What TRL and transformers can attend with. `varlen` is the kernel that our own trainer uses, for packed rows only."""
TAIL = 4000
"""Characters of what a contestant said before it died that are shown."""


@dataclass(frozen=True)
class Spec:
    """What all contestants do. A step is `rows_per_step` packed rows of `max_tokens`, or the records that fill them."""

    model: str  # a folder: weights, tokenizer, chat template
    rows: str  # JSON Lines of {"messages": [...]}, one question and one answer each
    method: str  # full or lora
    max_tokens: int
    rows_per_step: int
    micro_batch: int
    records_per_row: float
    steps: int
    warmup: int
    lr: float
    precision: str  # fp32 or bf16
    checkpointing: str  # none or full
    threads: int
    device: str  # cpu or cuda
    lora_r: int = 16
    attention: str = "sdpa"  # one of ATTENTIONS, for TRL and transformers
    unpacked_rows: int = 0  # records of like length per forward pass; 0: as many as packed rows hold, in any order


@dataclass
class Outcome:
    """What a contestant reports. `slots` are positions computed, padding included; memory is in GiB."""

    name: str
    version: str
    configuration: str
    tokens: int = 0
    slots: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    memory_gib: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of records per second."""
        return self.tokens / self.seconds


class Clock:
    """Counts tokens and seconds of the steps after the warm-up, and the most memory that they took."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.cuda = spec, spec.device == "cuda"
        self.step, self.slots, self.start, self.seconds, self.memory_gib = 0, 0, 0.0, 0.0, 0.0
        self.tokens: Any = 0  # a tensor where the device counts

    def passed(self, tokens: Any, slots: int) -> None:
        """Hear of a forward pass. `tokens` may be a tensor, so that nobody waits for it."""
        if self.step >= self.spec.warmup:
            self.tokens, self.slots = self.tokens + tokens, self.slots + slots

    def stepped(self, *, over: bool = False) -> None:
        """Hear that a step has ended; unless it is `over` on the device too, the device is waited for."""
        import torch

        self.step += 1
        if self.step not in (self.spec.warmup, self.spec.steps):
            return
        if self.cuda and not over:
            torch.cuda.synchronize()
        if self.step == self.spec.steps:
            self.seconds = time.perf_counter() - self.start
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.memory_gib = (torch.cuda.max_memory_allocated() if self.cuda else resident) / 2**30
            return
        self.start = time.perf_counter()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()


def read_rows(spec: Spec) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in Path(spec.rows).read_text().splitlines()]


class _MeasuredError(Exception):
    """The last step is measured: what a run does after it is not asked for."""


def ours(spec: Spec) -> Outcome:
    """Run `sft train`'s own run: preflight, plan, packed rows, loss at the targets alone."""
    from schemas.record import Message, Record
    from schemas.train_config import TrainConfig
    from train.run.data import Data
    from train.run.reading import StepMetrics
    from train.run.run import run

    clock = Clock(spec)

    class Watch:
        last = 0

        def note(self, line: str) -> None:
            if line.startswith("warning") and "no validation records" not in line:  # there are none on purpose
                told.append(line)

        def work(self, what: str, total: int) -> Callable[[int], None]:  # noqa: ARG002 # a Listener's signature
            return lambda _: None

        def step(self, metrics: StepMetrics) -> None:
            new = metrics.tokens - self.last
            self.last = metrics.tokens
            losses.append(metrics.loss)
            clock.passed(new, spec.rows_per_step * spec.max_tokens if spec.device == "cuda" else new)
            clock.stepped(over=True)  # a run reads a step once the device has done it, while the next one runs
            if clock.step == spec.steps:
                raise _MeasuredError

        def evaluated(self, found: object) -> None: ...

    losses: list[float] = []
    told = ["packed rows, loss at the targets"]
    records = tuple(
        Record(f"{i:032x}", "rows", tuple(Message(m["role"], m["content"]) for m in messages))
        for i, messages in enumerate(read_rows(spec))
    )
    config = TrainConfig.model_validate(
        {
            "model": spec.model,
            "method": spec.method,
            "lora_r": spec.lora_r,
            "max_tokens": spec.max_tokens,
            "batch": max(1, round(spec.rows_per_step * spec.records_per_row)),
            "micro_batch": spec.micro_batch,
            "max_steps": spec.steps,
            "lr": spec.lr,
            "warmup_ratio": 0.0,
            "precision": spec.precision,
            "checkpointing": spec.checkpointing,
            "device": spec.device,
            "samples": 0,
            "score_train": False,
            "workers": 0,
            "eval_every": spec.steps,
            "save_every": spec.steps,
        }
    )
    with tempfile.TemporaryDirectory() as folder, suppress(_MeasuredError):
        run(config, Data("bench", 1, "bench", "bench", records, ()), Path(folder) / "run", Watch())
    own = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
    return _outcome("sft", own, "; ".join(told), clock, losses)


def trl_packed(spec: Spec) -> Outcome:
    """Run SFTTrainer with packing (best fit)."""
    return _trl(spec, packing=True)


def trl_unpacked(spec: Spec) -> Outcome:
    """Run SFTTrainer with one record per row, padded to the longest of the batch."""
    return _trl(spec, packing=False)


def _trl(spec: Spec, *, packing: bool) -> Outcome:
    sys.path.insert(0, str(peers()))
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports] # it lies in that folder

    rows = Dataset.from_list([{"prompt": m[:-1], "completion": m[-1:]} for m in read_rows(spec)])
    per_pass, passes = _batch(spec, packed=packing)
    # Passes of one length: what is compiled is made once, as ours is.
    fixed = spec.micro_batch * spec.max_tokens if packing and spec.device == "cuda" else None
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            packing=packing,
            max_length=spec.max_tokens,
            pad_to_multiple_of=fixed,
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=passes,
            **_arguments(spec, packed=packing),
        )
        model = _model(spec)
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=rows, processing_class=_tokenizer(spec), peft_config=_lora(spec)
        )
        return _timed(spec, trainer, f"trl {'packed' if packing else 'unpacked'}", "trl", settings)


def transformers_plain(spec: Spec) -> Outcome:
    """Run transformers' Trainer: padded batches, the model's own loss over all positions."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = _tokenizer(spec)
    examples: list[dict[str, list[int]]] = []
    for messages in read_rows(spec):
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(messages, return_dict=False)[: spec.max_tokens]
        labels = [-100] * len(prompt) + list(ids[len(prompt) :])
        examples.append({"input_ids": list(ids), "labels": labels[: len(ids)], "attention_mask": [1] * len(ids)})
    per_pass, passes = _batch(spec, packed=False)
    model = _model(spec)
    if lora := _lora(spec):
        from peft import get_peft_model

        model = get_peft_model(model, lora)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=passes,
            **_arguments(spec, packed=False),
        )
        trainer = Trainer(
            model=model,
            args=settings,
            train_dataset=examples,  # type: ignore[arg-type] # a list of dicts is a dataset to it
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        )
        return _timed(spec, trainer, "transformers", "transformers", settings)


def bare(spec: Spec) -> Outcome:
    """Run the model on full rows without regard to records: no padding, no bounds, loss at the targets. The ceiling."""
    import torch
    import torch.nn.functional as F

    tokenizer = _tokenizer(spec)
    stream: list[int] = []
    targets: list[bool] = []
    for messages in read_rows(spec):
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        stream += ids
        targets += [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    model = _model(spec).to(spec.device)
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=spec.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    clock, losses = Clock(spec), []
    size = spec.max_tokens * spec.micro_batch
    at = 0
    for _ in range(spec.steps):
        total = 0.0
        passes = spec.rows_per_step // spec.micro_batch
        for _ in range(passes):
            at = 0 if at + size > len(stream) else at
            ids = torch.tensor(stream[at : at + size], device=spec.device).view(spec.micro_batch, -1)
            marked = torch.tensor(targets[at : at + size], device=spec.device).view(spec.micro_batch, -1)[:, 1:]
            at += size
            with torch.autocast(spec.device, torch.bfloat16, enabled=spec.precision == "bf16"):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][marked]
                loss = F.cross_entropy(model.lm_head(hidden).float(), ids[:, 1:][marked]) / passes
            loss.backward()
            total += loss.item()
            clock.passed(size, size)
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        clock.stepped()
    return _outcome("bare loop", version("torch"), "full rows, records run into each other", clock, losses)


CONTESTANTS: dict[str, Callable[[Spec], Outcome]] = {
    "sft": ours,
    "trl-packed": trl_packed,
    "trl-unpacked": trl_unpacked,
    "transformers": transformers_plain,
    "bare": bare,
}


def _batch(spec: Spec, *, packed: bool) -> tuple[int, int]:
    """Give rows per forward pass and passes per step: unpacked ones have as many records as packed ones would hold."""
    if packed:
        return spec.micro_batch, max(1, spec.rows_per_step // spec.micro_batch)
    rows = spec.unpacked_rows or max(1, round(spec.micro_batch * spec.records_per_row))
    return rows, max(1, round(spec.rows_per_step * spec.records_per_row / rows))


def _arguments(spec: Spec, *, packed: bool) -> dict[str, Any]:
    return {
        "max_steps": spec.steps,
        "learning_rate": spec.lr,
        "lr_scheduler_type": "cosine",
        "adam_beta2": 0.95,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": spec.precision == "bf16",
        "use_cpu": spec.device == "cpu",
        "gradient_checkpointing": spec.checkpointing == "full",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "torch_compile": spec.device == "cuda",
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 17,
        **({} if packed or not spec.unpacked_rows else _alike()),
    }


def _alike() -> dict[str, Any]:
    """Give the argument that makes passes of records of like length, by the name that this transformers has for it."""
    from transformers import TrainingArguments

    if "train_sampling_strategy" in {each.name for each in fields(TrainingArguments)}:
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def _model(spec: Spec) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from train.step import attention

    attention.register()
    cuda = spec.device == "cuda"
    model: Any = AutoModelForCausalLM.from_pretrained(
        spec.model,
        dtype=torch.bfloat16 if spec.method == "lora" and cuda else torch.float32,
        attn_implementation=attention.NAME if spec.attention == "varlen" else spec.attention,
        device_map={"": 0} if cuda else None,
    )
    model.config.use_cache = False
    return model


def _tokenizer(spec: Spec) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(spec.model)


def _lora(spec: Spec) -> Any:
    if spec.method != "lora":
        return None
    from peft import LoraConfig

    return LoraConfig(r=spec.lora_r, lora_alpha=2 * spec.lora_r, target_modules="all-linear", task_type="CAUSAL_LM")


def _timed(spec: Spec, trainer: Any, name: str, package: str, settings: Any) -> Outcome:
    """Run a trainer of transformers' family, and count what its forward passes hold."""
    from transformers import TrainerCallback

    clock = Clock(spec)
    step, pad = trainer.training_step, trainer.model.config.pad_token_id

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        ids = inputs["input_ids"]
        clock.passed((ids != pad).sum(), ids.numel())
        return step(model, inputs, *rest, **named)

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stepped()

    trainer.training_step = counted
    trainer.add_callback(Steps())
    trainer.train()
    losses = [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]
    told = (
        f"attention {ATTENTIONS[spec.attention]}, loss {getattr(settings, 'loss_type', 'of the model')}, "
        f"{settings.per_device_train_batch_size} rows a pass"
    )
    return _outcome(name, version(package) if package != "trl" else TRL.split("==")[1], told, clock, losses)


def _outcome(name: str, found: str, configuration: str, clock: Clock, losses: Sequence[float]) -> Outcome:
    seen = (int(clock.tokens), clock.slots, clock.seconds, list(losses), clock.memory_gib)
    return Outcome(name, found, configuration, *seen)


def peers() -> Path:
    """Give the folder that TRL lies in, installed there on first use and without what it needs, which is here."""
    if not (PEERS / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEERS), TRL]
        subprocess.run(command, check=True)
    return PEERS


def attempt(name: str, spec: Spec, *, limit_s: float) -> Outcome | str:
    """Run a contestant in a process of its own; give its outcome, or in a line what it died of.

    The end of what it said is then shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        said, out, log = (Path(folder) / file for file in ("spec.json", "out.json", "log"))
        said.write_text(json.dumps(asdict(spec)))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(spec.threads),
            "HF_HUB_OFFLINE": "1",
            "SFT_CACHE": folder,  # nobody finds tokens that were made before
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "true",  # layer by layer, as ours does
        }
        command = [sys.executable, "-m", "bench.trainers", name, str(said), str(out)]
        try:
            with log.open("w") as errors:  # a file: compilers that outlive a killed contestant would hold a pipe open
                subprocess.run(
                    command,
                    check=True,
                    cwd=HERE.parent,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    timeout=limit_s,
                )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            heard = log.read_text(errors="replace")
            print(heard[-TAIL:], file=sys.stderr, flush=True)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"over {limit_s:.0f} s"
            return next((line for line in reversed(heard.splitlines()) if "Error" in line), f"exit {error.returncode}")
        return Outcome(**json.loads(out.read_text()))


def main() -> None:
    name, said, out = sys.argv[1:]
    spec = Spec(**json.loads(Path(said).read_text()))
    import torch

    torch.set_num_threads(spec.threads)
    torch.manual_seed(17)
    outcome = CONTESTANTS[name](spec)
    Path(out).write_text(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
