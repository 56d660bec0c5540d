"""Every failure that we expect, as one tree of types. The command line catches this tree and nothing wider.

    SftError                     exit code 2: wrong usage or bad input
    ├── InputError               a file or row that cannot be read as what it is said to be
    ├── ConfigError              a configuration value, a recipe or a name that is not allowed
    ├── UnknownReferenceError    a dataset, version or tag that is not there
    ├── StoreError               the store cannot be read or written
    │   ├── CorruptObjectError   an object's bytes do not match its name
    │   └── ConflictError        another process committed first
    ├── ModelError               a model, tokenizer or chat template that cannot be used
    ├── ReviewError              a review server that cannot be reached, or refuses
    ├── CheckFailedError         exit code 1: verify, preflight or a guard found something
    └── RunInterruptedError      exit code 130: a signal ended a training run after its checkpoint was written

Each error is one line for a person: where it happened, what was found, what was expected, what to do next.
"""


class SftError(Exception):
    """An expected failure, told as one line: where, what was found, what was expected, what to do next."""

    exit_code = 2

    def __init__(self, where: str, found: str, expected: str = "", remedy: str = "") -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        super().__init__(str(self))

    def __reduce__(self) -> tuple[type["SftError"], tuple[str, str, str, str]]:
        return type(self), (self.where, self.found, self.expected, self.remedy)

    def __str__(self) -> str:
        line = f"{self.where}: {self.found}"
        if self.expected:
            line += f"; expected {self.expected}"
        if self.remedy:
            line += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        return " ".join(line.split())


class InputError(SftError):
    """A file or row that cannot be read as what it is said to be."""


class ConfigError(SftError):
    """A configuration value, a recipe or a name that is not allowed."""


class UnknownReferenceError(SftError):
    """A dataset, version or tag that is not there."""


class StoreError(SftError):
    """The store cannot be read or written."""


class CorruptObjectError(StoreError):
    """An object's bytes do not match the hash that names it."""

    exit_code = 1


class ConflictError(StoreError):
    """Another process committed a version first."""


class ModelError(SftError):
    """A model, tokenizer or chat template that cannot be used."""


class ReviewError(SftError):
    """A review server that cannot be reached, or refuses what it is asked."""


class CheckFailedError(SftError):
    """A check found something: verify, preflight, or a guard."""

    exit_code = 1


class RunInterruptedError(SftError):
    """A signal ended a training run after its checkpoint was written. The exit code is the shell's for Ctrl-C."""

    exit_code = 130
