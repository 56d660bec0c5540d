"""Where the files of a base model lie: a folder, or a snapshot of a repository on the hub, fetched by its commit.

Weights are read from safetensors alone: a pickle can run code when it is opened. Of a repository come the small files
first, then the weights that their index names, so that nothing is downloaded twice in two formats. Python that a model
brings along is fetched, and run, only where it was asked for.
"""

import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import CONFIG_MAPPING

from schemas.errors import ModelError
from train.model.digest import folder_digest

SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "README.md")
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
PLAIN_NAME = re.compile(r"[\w][\w.-]*\.safetensors")
"""A file beside its index: no path, no pattern, no other format."""

CONVERT = (
    "convert it where you trust it: AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER), "
    "and give that FOLDER"
)


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a base model. `name` finds them again from anywhere; `commit` is the hub's, None for a folder."""

    name: str
    folder: Path
    commit: str | None = None
    code: tuple[str, ...] = ()
    """Python files that came with the model and are run."""

    def digest(self) -> str:
        """Say which configuration, weights and code these are: the commit on the hub, else a digest of the files."""
        return f"hub:{self.commit}" if self.commit else folder_digest(self.folder, code=bool(self.code))

    def license(self) -> str | None:
        """Give the licence that the model's own card states, None where it states none."""
        try:
            text = (self.folder / "README.md").read_text(encoding="utf-8")
            found: Any = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
        except (OSError, ValueError, IndexError, yaml.YAMLError):
            return None
        stated = found.get("license") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] # somebody's YAML
        return stated if isinstance(stated, str) else None


def local(model: str) -> Path | None:
    """Give the folder that a name means; None where it means none, but a model on the hub, or nothing."""
    try:
        path = Path(model).expanduser()
        return path if path.is_dir() else None
    except (OSError, RuntimeError):  # longer than a name may be; the home of nobody
        return None


def find(model: str, *, revision: str | None, trust_remote_code: bool) -> Source:
    """Find the files of a model, on this machine or on the hub. Raises ModelError that says what to do."""
    path = local(model)
    if path is not None:
        if revision:
            raise ModelError(f"--revision {revision}", f"{model} is a folder", "a model on the hub", "leave it out")
        source = Source(str(path.resolve()), path.resolve())
    elif model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"--model {model}", "no such folder", "a model's folder, a hub id, or tiny")
    elif os.path.isfile(model):  # noqa: PTH113 # pathlib raises where a text is too long for a name
        raise ModelError(f"--model {model}", "it is a file", "a model's folder, a hub id, or tiny")
    else:
        source = _fetch(model, revision, code=trust_remote_code)
    _check_files(model, source.folder)
    return Source(source.name, source.folder, source.commit, _code(model, source.folder, trusted=trust_remote_code))


def _fetch(model: str, revision: str | None, *, code: bool) -> Source:
    """Bring a repository's files here, or find them in the cache of the hub."""
    patterns = [*SMALL_FILES, *(["*.py"] if code else [])]
    try:
        first = snapshot_download(model, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
        folder = Path(first)
        commit = folder.name
        weights = _weight_files(model, folder)
        snapshot_download(model, revision=commit, allow_patterns=weights)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise _hub_error(model, revision, error) from error
    return Source(model, folder, commit)


def _weight_files(model: str, folder: Path) -> list[str]:
    """Name the files that hold the weights."""
    if not (folder / INDEX).is_file():
        return [WHOLE]
    try:
        index = json.loads((folder / INDEX).read_bytes())
        files = sorted({str(file) for file in index["weight_map"].values()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"--model {model}", f"{INDEX} cannot be read ({error})", "an index of weights") from error
    # transformers opens what is named there, whatever it is: a pickle, or a file that no digest of ours is taken over.
    if odd := [name for name in files if not PLAIN_NAME.fullmatch(name)]:
        found = f"{INDEX} names {odd[0][:100]}"
        raise ModelError(f"--model {model}", found, "safetensors files that lie beside it", CONVERT)
    return files


def _hub_error(model: str, revision: str | None, error: Exception) -> ModelError:
    """Say what the hub's refusal means, and what to do about it."""
    where, expected = f"--model {model}", "a model's folder, a hub id, or tiny"
    page = f"{constants.ENDPOINT}/{model}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # it did answer
    match error:
        case GatedRepoError():  # the first of its kind: it is also a RepositoryNotFoundError
            found, expected = "gated, and you have no access", "access"
            remedy = f"accept its terms at {page}, then log in: hf auth login"
        case RepositoryNotFoundError():
            found = "no such folder, and the hub has no such model, or it is private"
            remedy = "check the name; for a private one, log in: hf auth login"
        case RevisionNotFoundError():
            found, expected = f"no revision {revision}", "a commit, branch or tag"
            remedy = f"see those that there are at {page}/tree/main"
        case HFValidationError():
            found, remedy = "no such folder, and no name that the hub could have", ""
        case LocalEntryNotFoundError():
            why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} gives no answer"
            found = f"no such folder, not whole in the hub's cache, and {why}"
            remedy = "check the name and the network, or download it and give the folder"
        case HfHubHTTPError():
            status = getattr(error.response, "status_code", "an error")
            found, remedy = f"{constants.ENDPOINT} answers with {status}", "try again later, or give a folder"
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            found, expected = f"no space left for it in {constants.HF_HUB_CACHE}", ""
            remedy = "free some, or name another folder by HF_HUB_CACHE"
        case _:
            said = str(error).strip().splitlines() or [""]
            found, remedy = f"cannot be fetched ({type(error).__name__}: {said[0][:300]})", "give a folder"
    return ModelError(where, found, expected, remedy)


def _check_files(model: str, folder: Path) -> None:
    """Check that all parts are there, and the weights in a format that runs nothing."""
    where = f"--model {model}"
    files = {p.name for p in folder.iterdir()}
    if "adapter_config.json" in files and "config.json" not in files:
        raise ModelError(where, "an adapter without its base model", "a whole model", "merge it first: sft merge RUN")
    if "config.json" not in files:
        raise ModelError(where, "no config.json in the folder", "a model saved by transformers")
    if "adapter_config.json" in files:  # transformers would put them on, and no digest would say so
        found = "a whole model and adapters in one folder"
        raise ModelError(where, found, "one of the two", "move adapter_config.json and its weights elsewhere")
    if "transformers_weights" in _json(folder / "config.json"):
        found = "its config.json names other weights by transformers_weights"
        raise ModelError(where, found, f"{WHOLE} or {INDEX}", "take that line out, and name the file so")
    if not files & set(TOKENIZER_FILES):
        raise ModelError(
            where,
            "no tokenizer in the folder",
            "tokenizer.json beside the weights",
            "save the tokenizer there: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
        )
    if not files & {WHOLE, INDEX}:
        pickled = sorted(name for name in files if name.startswith("pytorch_model") and name.endswith(".bin"))
        found = f"its weights are pickled ({pickled[0]})" if pickled else f"no {WHOLE}"
        raise ModelError(where, found, "safetensors: a pickle can run code when it is opened", CONVERT)
    missing = sorted(name for name in _weight_files(model, folder) if not (folder / name).is_file())
    if missing:
        raise ModelError(where, f"{missing[0]} is missing, which its index names", "all its files", "download it anew")


def _code(model: str, folder: Path, *, trusted: bool) -> tuple[str, ...]:
    """Name the Python files that must be run to load a model; none for a model that transformers knows itself.

    Raises ModelError where it needs code and was not trusted, or the code lies in another repository.
    """
    settings: Any = _json(folder / "config.json")
    entries = list(_entries(settings))
    if trusted and (folder / "tokenizer_config.json").is_file():
        entries += _entries(_json(folder / "tokenizer_config.json"))
    if not entries or (not trusted and str(settings.get("model_type")) in CONFIG_MAPPING):
        return ()
    elsewhere = sorted({entry.split("--", 1)[0] for entry in entries if "--" in entry})
    if elsewhere:
        raise ModelError(
            f"--model {model}",
            f"its code lies in another repository ({elsewhere[0]})",
            "code beside the weights, so that its digest is known",
            "download both into one folder and give that",
        )
    if not trusted:
        raise ModelError(
            f"--model {model}",
            f"it can be loaded only by Python that it brings along ({', '.join(entries)})",
            "a model that transformers knows",
            "read that code; if you trust it, give --trust-remote-code",
        )
    code = tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.py")))
    if not code and str(settings.get("model_type")) not in CONFIG_MAPPING:
        found = f"its files name Python that is not there ({', '.join(entries)})"
        raise ModelError(f"--model {model}", found, "that code beside the weights", "download it anew")
    return code


def _entries(settings: Any) -> Iterator[str]:
    """Yield the classes that an `auto_map` names; a tokenizer's entry is two, the slow and the fast one."""
    found = settings.get("auto_map")
    for entry in found.values() if isinstance(found, dict) else [found]:  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] # somebody's JSON
        yield from (name for name in (entry if isinstance(entry, list) else [entry]) if isinstance(name, str))  # pyright: ignore[reportUnknownVariableType] # as above


def _json(path: Path) -> Any:
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}", f"cannot be read ({error})", "JSON") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}", "no JSON object", "a model's configuration")
    return found  # pyright: ignore[reportUnknownVariableType] # somebody's JSON
