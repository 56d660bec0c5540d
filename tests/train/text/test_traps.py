"""Traps that cost others a week, as they would show here: two BOS, and a mask that nobody proved."""

from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from schemas.errors import ModelError
from tests.train.text.styles import KINDS, STYLES, tokenizer_of
from tests.train.world import record
from train.evaluation.samples import prompt_ids
from train.text.template import Template, encode
from train.text.words import Words

TALK = record(1, ("user", "who is it?"), ("assistant", "Ada"), ("user", "and?"), ("assistant", "the cat"))
GLUED = (
    "{%- for message in messages -%}{{- message['role'] + message['content'] + eos_token -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'assistant' -}}{%- endif -%}"
)


@pytest.mark.parametrize("printed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_adds_bos_gives_one_bos_and_no_more(kind: str, *, printed: bool) -> None:
    """Trap 6: Llama's tokenizer adds BOS and its template prints one; so does ChatML where there is no template."""
    tokenizer: Any = tokenizer_of(next(style for style in STYLES if style.name == "llama 3"), kind)
    bos = int(tokenizer.bos_token_id)
    adds: Any = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer.backend_tokenizer.post_processor = adds
    assert tokenizer("a")["input_ids"][0] == bos
    if not printed:
        tokenizer.chat_template = None
    template = Template(tokenizer, "adds BOS")
    ids = encode([TALK], template, max_tokens=1 << 20).examples[0].input_ids.tolist()
    assert (ids[0], ids.count(bos)) == (bos, 1)
    assert ids[:4] == prompt_ids(TALK, 1, template)[:4]
    assert prompt_ids(TALK, 1, template).count(bos) == 1


def glued(*, remembers: bool) -> Template:
    """Tokens are single bytes, but for `tA`, which reaches from `assistant` into the answer that follows it."""
    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab={**vocabulary, "tA": 256}, merges=[("t", "A")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=remembers)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("</s>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")  # noqa: S106 # no password
    tokenizer.chat_template = GLUED
    template = Template(tokenizer, "glued")
    assert Words(template).remembers == remembers
    return template


@pytest.mark.parametrize("remembers", [True, False])
def test_a_token_that_reaches_into_a_turn_from_outside_is_refused(*, remembers: bool) -> None:
    """Trap 7: the difference of prefixes would take `tA` for a target, or leave out the A; decoding shows it."""
    template = glued(remembers=remembers)
    other = record(2, ("user", "who?"), ("assistant", "the cat"))
    found = encode([TALK, other], template, max_tokens=1 << 20, strict=False)
    assert [(r.id, r.reason) for r in found.refusals] == [(TALK.id, "unproven")]
    (sound,) = found.examples
    assert template.tokenizer.decode(sound.input_ids[np.flatnonzero(sound.supervised)].tolist()) == "the cat</s>"
    with pytest.raises(ModelError, match=r"where the turn and its stop token are 'Ada</s>'"):
        encode([TALK], template, max_tokens=1 << 20)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_that_read_otherwise_than_the_answer_are_refused(kind: str) -> None:
    """Trap 7: the proof is what the tokens read, decoded; a tokenizer that drops capitals teaches another answer."""
    tokenizer = tokenizer_of(STYLES[0], kind)
    backend: Any = tokenizer.backend_tokenizer
    before = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    found = encode([TALK], Template(tokenizer, "lower"), max_tokens=1 << 20, strict=False)
    ((refused, reason),) = [(r.id, r.reason) for r in found.refusals]
    assert refused == TALK.id
    assert reason in {"unproven", "rewritten"}  # the latter where the tokenizer itself is seen to change the text
