"""Memory that runs out: how it is told from other failures, and given back."""

import gc

import torch

_NO_MEMORY = ("not enough memory", "allocate memory")
"""What torch says, in a plain RuntimeError, where a CPU has too little."""


def out_of_memory(error: Exception) -> bool:
    """Tell a lack of memory from other failures."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _NO_MEMORY)


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
