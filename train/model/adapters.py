"""peft, imported without what it does not need.

peft imports bitsandbytes wherever it is installed, also for adapters over unquantised layers: 2.3 s of a start, and a
line on stderr about a kernel that is not there (measured with peft 0.21 and bitsandbytes 0.50). So it is hidden while
peft is imported, and shown again by `use_bitsandbytes` where it is used. bitsandbytes in turn would fetch compiled code
from the hub and run it where the package `kernels` is installed: that is hidden from it, for good.
"""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError


@contextmanager
def _hidden(name: str) -> Generator[None]:
    """Let imports of a package fail, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # pyright: ignore[reportArgumentType] # Python's own mark for a package that must not be found
    try:
        yield
    finally:
        del sys.modules[name]


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from peft.tuners.lora import Linear as LoraLinear
else:
    with _hidden("bitsandbytes"):
        from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available
        from peft.tuners.lora import Linear as LoraLinear

        # Both remember their first answer, by which peft decides later whether to import it after all.
        is_bnb_available()
        is_bnb_4bit_available()

__all__ = ["LoraConfig", "LoraLinear", "PeftModel", "get_peft_model", "get_peft_model_state_dict", "use_bitsandbytes"]


def use_bitsandbytes(what: str) -> Any:
    """Import bitsandbytes, let peft know of it, and give the module. `what` is the option that asks for it.

    Raises ConfigError where it is not installed, or does not load.
    """
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available  # noqa: PLC0415 # hidden at the top

    if find_spec("bitsandbytes") is None:
        raise ConfigError(what, "bitsandbytes is not installed", "the qlora extra", "pip install 'sft-toolkit[qlora]'")
    absent = logging.getLogger("bitsandbytes.backends.cpu.ops")
    absent.addFilter(_is_no_missing_kernel)
    try:
        with _hidden("kernels"):
            module = import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        found = f"bitsandbytes does not load ({str(error).strip().splitlines()[0][:200]})"
        raise ConfigError(what, found, "a version that fits this machine") from error
    finally:
        absent.removeFilter(_is_no_missing_kernel)
    is_bnb_available.cache_clear()
    is_bnb_4bit_available.cache_clear()
    return module


def _is_no_missing_kernel(record: logging.LogRecord) -> bool:
    """Keep the line about the kernel that was hidden on purpose; all other warnings pass."""
    return not record.getMessage().startswith("Failed to load CPU gemm_4bit_forward")
