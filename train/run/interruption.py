"""What can end a run anywhere, told as one line: Ctrl-C, SIGTERM, a full disk.

Within the training loop a signal first lets the step end and writes a checkpoint (see `train/run/loop.py`); here is the
rest of the run: loading, scoring, saving.
"""

import errno
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

from schemas.errors import RunInterruptedError, StoreError
from train.run import checkpoint
from train.run.folder import RunFolder


@contextmanager
def told(folder: RunFolder, resume_with: str) -> Generator[None]:
    """Turn what can end a run anywhere, Ctrl-C, SIGTERM and a full disk, into one line that says how to go on."""
    with _terminations():
        try:
            yield
        except KeyboardInterrupt as error:
            raise RunInterruptedError(
                f"run {folder.path}", f"interrupted; {_state(folder)}", remedy=_way_on(folder, resume_with)
            ) from error
        except Exception as error:
            if not _disk_is_full(error):
                raise
            raise StoreError(
                f"run {folder.path}",
                f"the disk is full; {_state(folder)}",
                "room for the weights and three checkpoints",
                f"free some space, then {_way_on(folder, resume_with)}",
            ) from error


@contextmanager
def _terminations() -> Generator[None]:
    """Let SIGTERM end the block as Ctrl-C does. Signals go to the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _state(folder: RunFolder) -> str:
    found = checkpoint.latest(folder.checkpoints)
    return f"the last checkpoint is {found.name}" if found else "there is no checkpoint yet"


def _way_on(folder: RunFolder, resume_with: str) -> str:
    """Say how to go on: resume a run that got as far as step 0, else start anew."""
    return f"go on with: {resume_with}" if folder.holds_run() else "start anew with the same command"


def _disk_is_full(error: Exception) -> bool:
    """Whether an error says so: by its number, or in the words of the libraries that write weights and tokenizers."""
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return full or "No space left" in str(error) or "os error 28" in str(error)
