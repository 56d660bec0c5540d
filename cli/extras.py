"""The optional parts of the installation: are they there, and how are they taken in quickly and kept quiet."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec

from schemas.errors import ConfigError

TRAIN = ("torch", "transformers", "peft")
"""The packages of the extra `train`."""


def needs_torch(command: str) -> None:
    """Raise ConfigError that says what to install, where the packages of the extra `train` are not all there."""
    missing = [name for name in TRAIN if find_spec(name) is None]
    if missing:
        found = f"{', '.join(missing)} not installed"
        raise ConfigError(command, found, "the train extra", "pip install 'sft-toolkit[train]'")


@contextmanager
def importing() -> Generator[None]:
    """Import large libraries in the block, which Python does not look through for cycles while they come in.

    They stay; and looking again and again, whenever there are 700 new objects, takes about a fifth of the time that
    torch and transformers need.
    """
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()


def quiet_transformers() -> None:
    """Keep the libraries' own bars and hints off the screen; what matters is said by us."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
