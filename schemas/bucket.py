"""A bucket: the few operations that a store needs of object storage, and its failures as one line each.

A thin layer over obstore, which is imported when the first bucket is opened. Keys are relative to the URL's own prefix.
Credentials come from where the provider's tools find them: never from the URL, never shown.
"""

import configparser
import hashlib
import os
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.errors import ConfigError, StoreError
from schemas.place import MAX_BYTES

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")
"""Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage."""

PART_BYTES = 8 << 20
"""An object larger than this is uploaded in parts of this size: at READ_S a part, a line of 140 KB/s is fast enough."""

PARTS = 2
"""Parts of one object under way at once; several objects are, and each part is held in memory."""

CONNECT_S, READ_S, WHOLE_S = 5, 60, 3600
"""Seconds to wait for a connection, for the next bytes, and for one whole request."""

RETRIES, RETRY_S = 3, 20
"""A request that fails for a passing reason is repeated so often, and no longer than so many seconds."""

PAGE = 1000
"""Keys in one listing page and in one deletion: the most that S3 allows."""


@dataclass(frozen=True)
class Listed:
    """One object of a bucket: key relative to the prefix, size in bytes, time in seconds since the epoch, version."""

    key: str
    size: int
    modified: float
    e_tag: str = ""


@dataclass(frozen=True)
class Held:
    """The bytes of a small object, and which version of it they are."""

    body: bytes
    version: "UpdateVersion"


def is_url(text: str) -> bool:
    """Whether a store is named by a URL; all else is a folder."""
    return "://" in text


def endpoint_of(url: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Give the address of the server, where the environment names one; only S3 has such a variable.

    Raises ConfigError, without the value, where it is no plain address: it may hold a password.
    """
    if not url.startswith("s3:"):
        return None
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return None
    if not re.fullmatch(
        r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?", environment[name]
    ):
        raise ConfigError(name, "not the plain address of a server", "https://HOST, https://HOST:PORT or http://…")
    return environment[name].rstrip("/")


def check_url(url: str) -> str:
    """Return the one way of writing a store's URL; raise ConfigError where it is none."""
    where, expected = (
        f"store {url.partition('?')[0]}",
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
    )
    try:
        split = urlsplit(url)
    except ValueError as error:
        raise ConfigError("store", f"not a URL ({error})", expected) from error
    if "@" in split.netloc or split.query or split.fragment:  # do not print it: it may hold a secret
        found = "a URL with more than a place in it"
        remedy = "put credentials where the provider's tools look for them (docs/remote.md)"
        raise ConfigError(f"store {split.scheme}://…", found, expected, remedy)
    if split.scheme not in SCHEMES or not split.netloc or split.netloc != split.hostname:
        raise ConfigError(where, "not a place for a store", expected)
    parts = [part for part in split.path.split("/") if part]
    if any(not re.fullmatch(r"[A-Za-z0-9._=-]+", part) or part.strip(".") == "" for part in parts):
        raise ConfigError(where, "a prefix with other characters", "letters, digits, '.', '_', '=' and '-' between '/'")
    return "/".join([f"{split.scheme}://{split.netloc}", *parts])


class Bucket:
    """Object storage below one URL. Every method raises StoreError where the storage fails or refuses."""

    def __init__(self, url: str, store: "ObjectStore") -> None:
        self.url, self._store = url, store

    def below(self, prefix: str) -> list[Listed]:
        """List all objects below a prefix (a folder, without the last '/'), by key."""
        import obstore  # noqa: PLC0415 # an extra, and only for stores in object storage; here and below

        with self._told():
            found = [meta for page in obstore.list(self._store, prefix, chunk_size=PAGE) for meta in page]
        return sorted((_listed(meta) for meta in found), key=lambda one: one.key)

    def folders(self, prefix: str) -> list[str]:
        """List the names of the folders directly below a prefix."""
        import obstore  # noqa: PLC0415 # as above

        with self._told():
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def head(self, key: str) -> Listed | None:
        """Give size and time of an object; None where there is none."""
        import obstore  # noqa: PLC0415 # as above

        with self._told():
            try:
                meta = obstore.head(self._store, key)
            except FileNotFoundError as error:
                return self._nothing(error)
        return _listed(meta)

    def get(self, key: str) -> Held | None:
        """Give the bytes of a small object (MAX_BYTES at most); None where there is none."""
        import obstore  # noqa: PLC0415 # as above

        with self._told():
            try:
                found = obstore.get(self._store, key)
                meta = found.meta
                if meta["size"] > MAX_BYTES:
                    what = f"too large ({meta['size'] >> 20} MB)"
                    raise StoreError(f"{key} in {self.url}", what, f"{MAX_BYTES >> 20} MB at most")
                version: Any = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
                return Held(bytes(found.bytes()), version)
            except FileNotFoundError as error:
                return self._nothing(error)

    def download(self, key: str, to: Path) -> str | None:
        """Write an object to a file, durably; give the sha256 of what came, None where there is none.

        Raises OSError where the file cannot be written.
        """
        import obstore  # noqa: PLC0415 # as above

        seen = hashlib.sha256()
        with self._told():
            try:
                chunks = iter(obstore.get(self._store, key).stream(min_chunk_size=1 << 20))
            except FileNotFoundError as error:
                return self._nothing(error)
        with to.open("wb") as file:
            while True:
                with self._told():
                    chunk = next(chunks, b"")
                if not chunk:
                    break
                seen.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return seen.hexdigest()

    def put(self, key: str, content: Path) -> None:
        """Upload a file; what was there under that key is replaced, whole or not at all."""
        import obstore  # noqa: PLC0415 # as above

        with self._told():
            self._found(obstore.put, self._store, key, content, chunk_size=PART_BYTES, max_concurrency=PARTS)

    def put_if(self, key: str, content: bytes, before: "UpdateVersion | None") -> bool:
        """Put a small object in place of a version of it, or (None) only where there is none.

        Gives False where another one came first, which may be this very call: an answer can get lost on its way.
        """
        import obstore  # noqa: PLC0415 # as above
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 # as above

        with self._told():
            try:
                self._found(obstore.put, self._store, key, content, mode=before or "create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are none the worse."""
        import obstore  # noqa: PLC0415 # as above

        with self._told():
            for page in _pages(list(keys)):
                try:
                    obstore.delete(self._store, page)
                except FileNotFoundError:  # as some storages say
                    continue

    def _found(self, call: Any, *args: Any, **options: Any) -> None:
        """Put something: "not found" can only mean the bucket."""
        try:
            call(*args, **options)
        except FileNotFoundError as error:
            raise self._no_bucket() from error

    def _nothing(self, error: FileNotFoundError) -> None:
        if "NoSuchBucket" in str(error):
            raise self._no_bucket() from error

    def _no_bucket(self) -> StoreError:
        return StoreError(f"store {self.url}", _BUCKET[0], remedy=_BUCKET[1])

    @contextmanager
    def _told(self) -> Generator[None]:
        """Turn what obstore raises into one line."""
        from obstore.exceptions import BaseError  # noqa: PLC0415 # as above

        try:
            yield
        except (BaseError, NotImplementedError) as error:
            found, remedy = _explained(error)
            raise StoreError(f"store {self.url}", found, remedy=remedy) from error


def _listed(meta: "ObjectMeta") -> Listed:
    return Listed(meta["path"], meta["size"], meta["last_modified"].timestamp(), meta["e_tag"] or "")


def _pages(keys: list[str]) -> Iterable[list[str]]:
    return (keys[start : start + PAGE] for start in range(0, len(keys), PAGE))


_LOGIN = "check the credentials, and what they may do with this bucket (docs/remote.md)"
_BUCKET = ("no such bucket", "make it, or check the name")
_DENIED = ("access denied", _LOGIN)
_NO_CONDITIONS = ("this storage has no conditional put", "versions are only safe with it: choose another storage")
_NOBODY = ("no credentials found", "set them in the environment or the provider's own files (docs/remote.md)")
_SIGNS = (
    (r"169\.254\.|metadata\.google|Account must be specified", *_NOBODY),
    (r"NoSuchBucket", *_BUCKET),
    (r"object with invalid path", "{text}", "remove that object, or rename it: no store writes such a key"),
    (r"incorrectly configured region|status code: 301", "the bucket lies in another region", "set AWS_REGION to it"),
    (r"invalid peer certificate", "the server's certificate is not trusted", "check AWS_ENDPOINT_URL and the clock"),
    (r"^(PermissionDenied|Unauthenticated)Error|status code: 40[13]", *_DENIED),
    (r"^NotImplementedError|^NotSupportedError|<Code>NotImplemented", *_NO_CONDITIONS),
    (r"status code: \d{3}", "the server answered {status}", "try again later"),
    (r"TimedOut|timed out", f"no answer within {READ_S} s", "try again"),
    (
        r"kind: Connect|error sending request|dns error",
        "the server cannot be reached",
        "check the network and AWS_ENDPOINT_URL",
    ),
)
"""What obstore's text says -> what it means, what to do. Its types tell few cases apart."""


def _explained(error: Exception) -> tuple[str, str]:
    """Say what a failure of object storage means for a person: (what was found, what to do).

    Of obstore's own text no query is shown: it may hold a signature.
    """
    text = f"{type(error).__name__}: {error}"
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    for sign, meaning, remedy in _SIGNS:
        if re.search(sign, text):
            found = meaning.format(status=status[1] if status else "", text=_plain(error))
            return f"{found} ({code[1]})" if code and meaning != _BUCKET[0] else found, remedy
    return _plain(error), "see docs/remote.md"


def _plain(error: Exception) -> str:
    first = re.sub(r"\?\S*", "", str(error).partition("\n")[0])
    return "".join(c if c.isprintable() else "\ufffd" for c in first)[:200]  # a key in a bucket is anybody's


def open_bucket(url: str, endpoint: str | None) -> Bucket:
    """Open the place that a URL names. `endpoint`: the server to ask (None: the provider's own).

    Raises ConfigError where the extra is not installed or the place cannot be.
    """
    if find_spec("obstore") is None:
        found = "a store in object storage, and obstore is not installed"
        raise ConfigError(f"store {url}", found, "the remote extra", "install it: pip install 'sft-toolkit[remote]'")
    from obstore.exceptions import BaseError  # noqa: PLC0415 # as above
    from obstore.store import from_url  # noqa: PLC0415 # as above

    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=READ_S),
        "timeout": timedelta(seconds=WHOLE_S),
    }
    if endpoint is not None and endpoint.startswith("http://"):  # somebody named it so; keys sign, they do not travel
        client["allow_http"] = True
    retry: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }
    settings: Any = {}
    if url.startswith("s3://"):
        settings = aws_profile()
        _check_printable({**os.environ, **settings})
    if endpoint is not None:
        settings["endpoint"] = endpoint
    try:
        return Bucket(url, from_url(url, config=settings or None, client_options=client, retry_config=retry))
    except (BaseError, ValueError) as error:
        found, remedy = _explained(error)
        raise ConfigError(f"store {url}", found, "a place that can be opened", remedy) from error


def aws_profile(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Read keys and region from the files of Amazon's own tools, where the environment does not give them.

    obstore reads the environment and asks the machine's role; it does not read these files. A profile that asks for a
    role or a single sign-on is not followed.
    """
    profile = environment.get("AWS_PROFILE", "default")
    home = Path.home() / ".aws"
    found: dict[str, str] = {}
    if not any(environment.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")):
        keys = _section(Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"), profile)
        names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
        names |= {f"aws_{name}": name for name in ("session_token",)}
        found.update({ours: keys[theirs] for theirs, ours in names.items() if theirs in keys})
    if not (environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")):
        section = profile if profile == "default" else f"profile {profile}"
        region = _section(Path(environment.get("AWS_CONFIG_FILE") or home / "config"), section).get("region")
        found.update({"region": region} if region else {})
    return found


def _check_printable(given: Mapping[str, str]) -> None:
    """Refuse keys with a line's end or the like in them, as a file copied by hand has; they would go into a header."""
    names = ("access_key_id", "secret_access_key", "session_token")
    for name in (*(f"AWS_{name.upper()}" for name in names), *names):
        if not re.fullmatch(r"[\x21-\x7e]*", given.get(name, "")):
            raise ConfigError(name, "a key with a space, a line's end or another odd character", "the key alone")


def _section(file: Path, name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:  # do not print its lines: they hold secrets
        raise ConfigError(f"credentials {file}", "not a file of profiles", "lines such as `name = value`") from error
    return dict(parser[name]) if parser.has_section(name) else {}
