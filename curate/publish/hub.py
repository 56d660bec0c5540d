"""The hub: a published version as one commit of a dataset repository, by `huggingface_hub`.

The token is that of HF_TOKEN or of the hub's own login; it is never read from a command line and never shown.
HF_ENDPOINT names another hub. A version that lies there already is not committed again.
"""

import os
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    logging,
    validate_repo_id,
)

from curate.publish.facts import Facts
from schemas.errors import ConfigError, StoreError

OURS = re.compile(r"data/(train|validation|test)-\d{5}-of-\d{5}\.parquet")
"""Files of an earlier version: they go when the new one has none of that name."""

_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
"""What every failure of the network is (httpx's HTTPError, from whichever httpx huggingface_hub brings)."""


@dataclass(frozen=True)
class Pushed:
    """Where a version lies now: its page, the commit, whether that is a new one, and what the hub says of the card."""

    url: str
    commit: str
    changed: bool
    removed: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def dataset_repo(name: str) -> str:
    """Check the name of a dataset repository, OWNER/NAME; `datasets/OWNER/NAME` is the same. Raises ConfigError."""
    kind, _, rest = name.partition("/")
    if rest.count("/") and kind in ("spaces", "models", "kernels"):
        raise ConfigError(f"repository {name!r}", f"one of {kind}", "a dataset, OWNER/NAME")
    repo = rest if kind == "datasets" and "/" in rest else name
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(
            f"repository {name!r}", str(error).rstrip("."), "OWNER/NAME, such as acme/support-chats"
        ) from error
    if "/" not in repo:
        raise ConfigError(f"repository {name!r}", "no owner", "OWNER/NAME, such as acme/support-chats")
    return repo


def page_of(repo: str) -> str:
    """Give the web page of a dataset repository, without a user and password that HF_ENDPOINT may hold."""
    return f"{_shown(HfApi(endpoint=os.environ.get('HF_ENDPOINT') or None).endpoint)}/datasets/{repo}"


def _shown(endpoint: str) -> str:
    return re.sub(r"^([a-z]+://)[^/]*@", r"\1", endpoint, flags=re.IGNORECASE)


def check_licences(facts: Facts, *, private: bool, unlicensed: bool) -> None:
    """Raise ConfigError where rows without a stated licence would become public."""
    without = [s.portrait.name for s in facts.sources if not s.portrait.licence.expression]
    if without and not private and not unlicensed:
        raise ConfigError(
            f"{facts.manifest.name}@{facts.manifest.seq}",
            f"no licence is stated for {', '.join(without)}",
            "one for each source: rows without a licence are not free to be passed on",
            "state it at ingest (--replace --license SPDX), push with --private, or insist with --unlicensed",
        )


def push(
    folder: Path, facts: Facts, repo: str, *, private: bool, unlicensed: bool, revision: str, message: str | None = None
) -> Pushed:
    """Commit the files of a published version to a dataset repository, which is made where there is none.

    Raises ConfigError where no token is known, or a repository is public that should not be; StoreError that says in
    one line what the hub or the network refused.
    """
    token = get_token()
    if token is None:
        raise ConfigError("hub", "no token", "HF_TOKEN, or a login", "run `hf auth login`, or set HF_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):  # the network's complaint about such a header would show it
        raise ConfigError("hub", "a token with blanks or characters that no token has", "one as the hub gave it")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    with _told(repo, api.endpoint), _quiet() as said:
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        try:
            info = api.dataset_info(repo)
        except RepositoryNotFoundError as error:
            found = "there, but not as a dataset, or not to be seen with this token"
            raise StoreError(f"hub {repo}", found, "a dataset repository", "choose another name") from error
        if private and not info.private:
            remedy = "make it private on its settings page, or push without --private"
            raise ConfigError(f"hub {repo}", "public already", "a private repository", remedy)
        check_licences(facts, private=bool(info.private), unlicensed=unlicensed)
        if revision != "main":
            api.create_branch(repo, branch=revision, repo_type="dataset", exist_ok=True)
            info = api.dataset_info(repo, revision=revision)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        there = api.list_repo_files(repo, repo_type="dataset", revision=revision)
        removed = tuple(sorted(name for name in there if OURS.fullmatch(name) and name not in files))
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, folder / name) for name in files),
                *(CommitOperationDelete(name) for name in removed),
            ],
            commit_message=message or f"{facts.manifest.name} {facts.version}",
            commit_description=f"Manifest {facts.manifest.id}",
            repo_type="dataset",
            revision=revision,
            parent_commit=info.sha,
        )
    return Pushed(page_of(repo), done.oid, done.oid != info.sha, removed, tuple(str(s.message) for s in said))


@contextmanager
def _quiet() -> Generator[list[warnings.WarningMessage]]:
    """Leave to us what the hub's client would say, and give it; bars only where somebody sees them."""
    level, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if not os.isatty(2):
        disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)  # what the hub has to say of the card
            yield said
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


@contextmanager
def _told(repo: str, endpoint: str) -> Generator[None]:
    """Turn what goes wrong on the way into one line."""
    where = f"hub {repo}"
    again = "the same command goes on where it stopped"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise StoreError(where, "HF_HUB_OFFLINE is set", "a connection", "unset it") from error
    except RevisionNotFoundError as error:
        raise StoreError(where, "the revision is not there", "a branch", "name another one with --revision") from error
    except HfHubHTTPError as error:
        raise _refused(where, error) from error
    except _HTTPError as error:
        found = f"{_shown(endpoint)} cannot be reached ({str(error) or type(error).__name__})"
        raise StoreError(where, found, "a connection", f"check the network and HF_ENDPOINT; {again}") from error
    except (OSError, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else None  # a file's upload failed in a thread
        if isinstance(cause, HfHubHTTPError):
            raise _refused(where, cause) from error
        said = str(cause or error).strip().rstrip(".") or type(error).__name__
        raise StoreError(where, f"the push failed ({said})", remedy=again) from error


def _refused(where: str, error: HfHubHTTPError) -> StoreError:
    """Say what an HTTP status of the hub means for a push."""
    status = error.response.status_code
    said = " ".join((error.server_message or "").split())
    told = f" ({said})" if said else ""
    if status == 401:
        return StoreError(
            where, f"401, the token is not accepted{told}", "a valid token", "run `hf auth login`, or set HF_TOKEN"
        )
    if status == 403:
        remedy = "make a token with write permission for it, or choose another owner"
        return StoreError(where, f"403, the token may not write there{told}", "write permission", remedy)
    if status == 404:
        return StoreError(where, f"404, not there{told}", "a dataset repository", "check OWNER/NAME and --revision")
    if status in (409, 412):
        found = f"{status}, somebody else committed meanwhile{told}"
        return StoreError(where, found, "the repository as it was looked at", "run the same command again")
    if status == 429 or status >= 500:
        return StoreError(where, f"{status} of the hub{told}", "a hub that answers", "run the same command again later")
    return StoreError(where, f"{status} of the hub{told}", "an answer that says yes")
