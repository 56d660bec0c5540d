"""One of two processes of test_sharding.py: trains some steps, saves what it measured, and is left by the other."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from schemas.errors import ConfigError, SftError
from schemas.train_config import TrainConfig
from tests.train.world import make_records, small_llama
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import choose_device
from train.model.tiny import tiny_tokenizer
from train.plan import make_plan
from train.run import checkpoint
from train.run.feed import fed
from train.run.loop import launch
from train.run.weights import gathered
from train.step import attention, processes, sharding
from train.step.optimizer import Updater, lr_at
from train.text.template import Template, encode

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({"method": "full", "lr": 1e-2}, {}),
    "tied": ({"method": "full", "lr": 1e-2, "checkpointing": "full", "clip": 0.5}, {"tie_word_embeddings": True}),
    "lora": ({"method": "lora", "lora_r": 4, "lr": 1e-2, "checkpointing": "selective", "micro_batch": 2}, {}),
    "last": ({"method": "full", "unfreeze": 1, "lr": 1e-2}, {}),
}
"""Settings and model of each case. Rows are odd in number, so that passes without rows occur."""


SLOW_S = 0.5
"""How long the leader takes to write a checkpoint: ages for a process that does not wait for it."""


def trained(kind: str, checkpoints: Path | None = None) -> dict[str, torch.Tensor]:
    """Train five steps; give losses and norms of the steps, and the weights after them.

    With a folder for checkpoints also `early`: how many processes left `checkpoint.save` before one was there.
    """
    settings, shape = KINDS[kind]
    config = TrainConfig(model="small", device="cpu", batch=14, max_steps=5, max_tokens=64, **settings)
    records = make_records(21)
    tokenizer = tiny_tokenizer(records)
    model = small_llama(len(tokenizer), **shape)
    model.set_attn_implementation(attention.NAME)
    trainee = adapt(Base(model, tokenizer, "small", "digest", choose_device(config)), config)
    examples = encode(records, Template(tokenizer, "test"), max_tokens=64).examples
    plan = make_plan(
        examples, max_tokens=64, batch=config.batch, max_epochs=9, max_steps=config.max_steps, seed=config.seed
    )
    sharding.shard(trainee.network, device=trainee.device.device, autocast=None)
    trainee.model.train()
    updater = Updater(trainee.trainable(), config)
    found: dict[str, list[torch.Tensor]] = {"losses": [], "norms": []}
    idle = 0
    ranks, rank = processes.ranks(), processes.rank()
    for each in fed(examples, plan, first=0, micro_batch=config.micro_batch, pinned=False, ranks=ranks, rank=rank):
        idle += sum(not batch.records for batch in each.passes)
        reading = launch(trainee, updater, each, lr_at((each.number - 1) / len(plan), config))
        found["losses"].append(reading.host[2:].sum() / each.targets)
        found["norms"].append(reading.host[0])
    idles = processes.add_up(torch.tensor(idle))
    stacked = {name: torch.stack(values) for name, values in found.items()}
    weights = gathered(trainee)
    elsewhere = 0 if processes.leads() else sum(map(torch.numel, weights.values()))
    made = {**stacked, **weights, "idle": idles, "elsewhere": processes.add_up(torch.tensor(elsewhere))}
    if checkpoints is not None:
        identity = checkpoint.Identity("", "", "", "", "")
        saved = checkpoint.save(checkpoints, checkpoint.Cursor(5), identity, trainee=trainee, updater=updater)
        made["early"] = processes.add_up(torch.tensor(int(not saved.is_dir())))
    return made


def slowly(*arguments: Any) -> None:
    time.sleep(SLOW_S)
    save_file(*arguments)


def main() -> None:
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    checkpoint.save_file = slowly
    try:
        with processes.together(cuda=False):
            for kind in KINDS:
                made = trained(kind, place / "checkpoints" if kind == "full" else None)
                if processes.leads():
                    held = {name: tensor.contiguous() for name, tensor in made.items()}
                    save_file(held, place / f"{kind}.safetensors")
            if not processes.leads():
                raise ConfigError("the second process", "an error of its own")
            processes.wait()
    except SftError as error:
        told = f"{processes.ranks()} joined; {type(error).__name__}: {error}"
        (place / f"{processes.started_as()}.txt").write_text(told)


if __name__ == "__main__":
    main()
