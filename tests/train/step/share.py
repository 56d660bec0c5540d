"""One of two processes of test_sharding.py: trains some steps, and saves what it measured."""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from schemas.train_config import TrainConfig
from tests.train.world import make_records, small_llama
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import choose_device
from train.model.tiny import tiny_tokenizer
from train.plan import make_plan
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


def trained(kind: str) -> dict[str, torch.Tensor]:
    """Train five steps; give losses and norms of the steps, and the weights after them."""
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
    return {**stacked, **gathered(trainee), "idle": idles}


def main() -> None:
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    with processes.together(cuda=False):
        for kind in KINDS:
            made = trained(kind)
            if processes.leads():
                save_file({name: tensor.contiguous() for name, tensor in made.items()}, place / f"{kind}.safetensors")


if __name__ == "__main__":
    main()
