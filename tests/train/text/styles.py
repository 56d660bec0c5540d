"""Chat templates in the styles of well-known models, in our own words, and tokenizers of both kinds to go with them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on a mat and saw one red bird fly over two old trees near the sea while rain fell",
    "USER: ASSISTANT: ### Instruction: ### Response: [INST] [/INST] <<SYS>> <</SYS>> user assistant system model tool",
    '{"name": "look_up", "arguments": {"word": "cat"}}',
] * 3

EACH = "{%- for message in messages -%}"
END = "{%- endfor -%}"
SYSTEM_FIRST = (
    "{%- if messages[0]['role'] == 'system' -%}{%- set said = messages[0]['content'] -%}"
    "{%- set turns = messages[1:] -%}{%- else -%}{%- set said = '' -%}{%- set turns = messages -%}{%- endif -%}"
)
ALTERNATES = (
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('roles must alternate') -}}{%- endif -%}"
)

CHATML = EACH + "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}" + END

LLAMA2 = (
    SYSTEM_FIRST + "{%- for message in turns -%}" + ALTERNATES + "{%- set content = message['content'] -%}"
    "{%- if loop.index0 == 0 and said -%}"
    "{%- set content = '<<SYS>>\\n' + said + '\\n<</SYS>>\\n\\n' + message['content'] -%}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + content.strip() + ' ' + eos_token -}}{%- endif -%}" + END
)

LLAMA3 = (
    "{{- bos_token -}}" + EACH + "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}"
    "{{- message['content'] | trim + '<|eot_id|>' -}}" + END
)

MISTRAL1 = (
    "{{- bos_token -}}" + EACH + ALTERNATES + "{%- if message['role'] == 'user' -%}"
    "{{- '[INST] ' + message['content'] + ' [/INST]' -}}"
    "{%- else -%}{{- message['content'] + eos_token -}}{%- endif -%}" + END
)

MISTRAL3 = (  # the system text stands in the last user turn, and so do the tools
    "{{- bos_token -}}" + SYSTEM_FIRST + "{%- set ns = namespace(last=-1) -%}"
    "{%- for message in turns -%}{%- if message['role'] == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}"
    "{%- if tools and loop.index0 == ns.last -%}"
    "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}"
    "{{- '[INST] ' -}}{%- if said and loop.index0 == ns.last -%}{{- said + '\\n\\n' -}}{%- endif -%}"
    "{{- message['content'] + '[/INST]' -}}"
    "{%- elif message['tool_calls'] is defined -%}"
    "{{- '[TOOL_CALLS] [' -}}{%- for call in message['tool_calls'] -%}{{- call['function'] | tojson -}}"
    "{{- '' if loop.last else ', ' -}}{%- endfor -%}{{- ']' + eos_token -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- ' ' + message['content'] | trim + eos_token -}}"
    "{%- elif message['role'] == 'tool' -%}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + message['content'] + '}[/TOOL_RESULTS]' -}}{%- endif -%}" + END
)

GEMMA = (
    "{{- bos_token -}}{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('no system role') -}}{%- endif -%}"
    + EACH
    + ALTERNATES
    + "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' -}}" + END
)

PHI3 = EACH + "{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}" + END + "{{- eos_token -}}"

ZEPHYR = EACH + "{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' -}}" + END

ALPACA = (
    SYSTEM_FIRST + "{{- said + '\\n\\n' if said else '' -}}{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}"
    "{%- else -%}{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' -}}{%- endif -%}" + END
)

VICUNA = (
    "{{- bos_token -}}" + SYSTEM_FIRST + "{{- said + ' ' if said else '' -}}{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}{{- 'USER: ' + message['content'] + ' ' -}}"
    "{%- else -%}{{- 'ASSISTANT: ' + message['content'] + eos_token -}}{%- endif -%}" + END
)


@dataclass(frozen=True)
class Style:
    """A template with the special tokens of its tokenizer. `closing` is what stands between an answer and the next turn
    and is a target: the stop token, with what the template puts before it."""

    name: str
    template: str
    closing: str
    special: tuple[str, ...] = ()
    system: bool = True
    tools: bool = False
    trims: bool = False


STYLES = (
    Style("chatml", CHATML, "<|im_end|>", ("<|im_start|>", "<|im_end|>"), tools=True),
    Style("llama 2", LLAMA2, " </s>", trims=True),
    Style("llama 3", LLAMA3, "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), trims=True),
    Style("mistral 1", MISTRAL1, "</s>", system=False),
    Style(
        "mistral 3",
        MISTRAL3,
        "</s>",
        (
            *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
            *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ),
        tools=True,
        trims=True,
    ),
    Style("gemma", GEMMA, "<end_of_turn>", ("<start_of_turn>", "<end_of_turn>"), system=False, trims=True),
    Style("phi 3", PHI3, "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"), tools=True),
    Style("zephyr", ZEPHYR, "</s>"),
    Style("alpaca", ALPACA, "</s>"),
    Style("vicuna", VICUNA, "</s>"),
)

KINDS = ("byte-level", "prefix space")


def tokenizer_of(style: Style, kind: str) -> PreTrainedTokenizerFast:
    """Make a small tokenizer that has a style's special tokens: byte-level as GPT-2's, or as Llama 2's, where every
    part of a text begins with a space and what the vocabulary lacks is spelt in bytes."""
    base = _byte_level() if kind == "byte-level" else _prefix_space()
    base.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "</s>", *style.special)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>")  # noqa: S106 # no password
    tokenizer.chat_template = style.template
    return tokenizer


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def _prefix_space() -> Tokenizer:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 # no password
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = [word for line in CORPUS for word in line.split()]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator(words, trainer)
    state: dict[str, Any] = json.loads(trained.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    steps: Sequence[Any] = (
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    )
    tokenizer.decoder = decoders.Sequence(list(steps))
    return tokenizer
