"""`--model tiny`: a small Llama and a byte-level BPE tokenizer, built from the dataset itself, for smoke tests.

A model of random weights has nothing that adapters could adapt, so the base is first trained on the train split as
plain text (no template, every token a target) for a fixed number of steps, and the log says so. The same records and
seed give the same tokenizer and, on one machine, the same weights.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from schemas.record import Record
from train.plan import make_plan
from train.step import attention
from train.step.attention import packed_hidden
from train.step.batch import make_batch
from train.step.loss import head_of, target_nll
from train.text.tokens import Example, Tokens

VOCABULARY = 1024
LAYERS, HIDDEN, HEADS, KEY_HEADS = 2, 128, 4, 2
INITIAL_STD = 0.05
"""Wider than the usual 0.02, which is for models ten times as wide: here it learns in half the steps."""

CONTEXT = 2048
PAD, START, STOP = "<|pad|>", "<|im_start|>", "<|im_end|>"

NEW_TO_CHAT = ("embed_tokens", "lm_head")
"""Layers that plain text teaches nothing of the template's tokens: under lora they are trained beside the adapters."""

PRETRAIN_STEPS, PRETRAIN_LR, PRETRAIN_TOKENS = 250, 3e-3, 256
"""Steps, peak learning rate and tokens per step of the first training on plain text: about 5 s on one core. At this
size the number of steps is what counts, not the tokens in each."""


def tiny_tokenizer(records: Sequence[Record]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most 1,024 tokens on the records' texts; any text encodes and decodes back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(records), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=STOP,
        additional_special_tokens=[START],
        model_max_length=CONTEXT,
    )


def tiny_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """Make a Llama of two layers, 128 wide, with random weights drawn from the seed."""
    attention.register()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=INITIAL_STD,
        bos_token_id=None,
        eos_token_id=_id(tokenizer, STOP),
        pad_token_id=_id(tokenizer, PAD),
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(attention.NAME)
    return model


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    records: Sequence[Record],
    *,
    seed: int,
    device: torch.device,
    on_step: Callable[[int], None] | None = None,
) -> tuple[float, float]:
    """Train on the records as plain text. Gives the first and the last loss, in nats per token."""
    examples = _plain_examples(tokenizer, records)
    plan = make_plan(
        examples,
        max_tokens=PRETRAIN_TOKENS,
        batch=1,
        max_epochs=1,
        max_steps=PRETRAIN_STEPS,
        seed=seed,
    )
    nn.Module.to(model.train(), device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAIN_LR, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PRETRAIN_LR, total_steps=PRETRAIN_STEPS + 1, pct_start=0.1, cycle_momentum=False
    )
    head = head_of(model.lm_head, model.config)
    losses: list[float] = []
    for i, step in enumerate(plan):
        batch = make_batch(examples, step.rows).to(device)
        loss = target_nll(head, packed_hidden(model.model, batch), batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if on_step:
            on_step(i + 1)
    return losses[0], losses[-1]


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokenizer.get_vocab()[token])


def _texts(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        yield "\n".join(message.content for message in record.messages)


def _plain_examples(tokenizer: PreTrainedTokenizerFast, records: Sequence[Record]) -> Tokens:
    """Make examples in which every token is a target; long texts are cut into pieces, for nothing of them is judged."""
    examples: list[Example] = []
    for i, text in enumerate(_texts(records)):
        ids = np.asarray(tokenizer.encode(text, add_special_tokens=False, verbose=False), np.int32)
        for at in range(0, len(ids), PRETRAIN_TOKENS):
            piece = ids[at : at + PRETRAIN_TOKENS]
            if len(piece) > 1:
                examples.append(Example(f"{i}:{at}", "", 1.0, piece, np.ones(len(piece), np.bool_)))
    return Tokens.of(examples)
