"""From a conversation to token ids and a proven loss mask: what the rest of the trainer needs of this room.

record      chat.py        rendered once by the tokenizer's own chat template
  text      rendering.py   where each turn stands in it: read, not guessed
  tokens    words.py       tokenised once, each token with its place
  mask      mask.py        the tokens of assistant turns and their stop tokens, decoded and compared
  shard     shard.py       some thousand records as a table; made in processes (workers.py), kept (cache.py)
  Encoded   encode.py      all of them, those that are too long refused or cut (overlong.py)
"""

from train.text.chat import CHATML, PINNED_DATE, Template
from train.text.encode import Encoded, Encoder, encode
from train.text.refusal import FATAL, Refusal

__all__ = ["CHATML", "FATAL", "PINNED_DATE", "Encoded", "Encoder", "Refusal", "Template", "encode"]
