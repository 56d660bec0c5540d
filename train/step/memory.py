"""Memory that runs out: how it is told from other failures, and given back."""

import gc

import torch

_SAID = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What errors say that are about memory and no OutOfMemoryError: the CPU's allocator and cuBLAS raise RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other failures."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
