"""A hub on this machine: what huggingface_hub asks one for to make, fill and read a dataset, and to read a model.

What is committed to a dataset is kept in memory; a model is a folder. `refuse` answers requests whose path it matches
with a status of its own.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
"""The one commit of a model."""


@dataclass
class Repo:
    """A dataset's repository."""

    private: bool
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    branches: set[str] = field(default_factory=lambda: {"main"})


@dataclass
class Hub:
    """What the server knows, and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    warns: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _say(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _no(self, status: int, code: str, message: str) -> None:
        self._say({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        self.hub.asked.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization"))
        if refusal := next((why for part, why in self.hub.refuse.items() if part in path), None):
            return self._no(*refusal, f"refused with {refusal[0]}")
        parts = path.strip("/").split("/")
        match parts:
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._say({"errors": [], "warnings": [{"message": text} for text in self.hub.warns]})
            case ["lfs", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self.hub.large[oid] = body
                self._say({})
            case ["verify"]:
                self._say({})
            case ["datasets", owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self._batch(json.loads(body))
            case ["datasets", owner, name, "resolve", _, *rest]:
                self._resolve(f"{owner}/{name}", "/".join(rest))
            case ["api", "datasets", owner, name, *rest]:
                self._dataset(f"{owner}/{name}", rest, body)
            case ["api", "models", owner, name, *rest]:
                self._model(f"{owner}/{name}", rest)
            case [owner, name, "resolve", _, *rest]:
                self._file(f"{owner}/{name}", "/".join(rest))
            case _:
                self._no(404, "EntryNotFound", f"no such page {path}")
        return None

    do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815 # http.server's names

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        assert wanted["type"] == "dataset"
        url = f"{self.hub.url}/datasets/{repo}"
        if repo in self.hub.repos:
            return self._say({"error": "You already created this dataset repo", "url": url}, 409)
        self.hub.repos[repo] = Repo(private=wanted.get("visibility") == "private")
        return self._say({"url": url})

    def _dataset(self, name: str, rest: list[str], body: bytes) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._no(404, "RepoNotFound", "Repository not found")
        match rest:
            case [] | ["revision", _]:
                if rest and rest[1] not in repo.branches:
                    return self._no(404, "RevisionNotFound", "Invalid rev id")
                self._say({"id": name, "sha": repo.commits[-1], "private": repo.private, "siblings": []})
            case ["branch", branch]:
                repo.branches.add(branch)
                self._say({})
            case ["tree", *_]:
                self._say(
                    [{"type": "file", "path": p, "size": len(d), "oid": git_oid(d)} for p, d in repo.files.items()]
                )
            case ["preupload", _]:
                self._say({"files": [self._mode(repo, f) for f in json.loads(body)["files"]]})
            case ["commit", _]:
                self._commit(repo, name, [json.loads(line) for line in body.splitlines() if line])
            case _:
                self._no(404, "EntryNotFound", "no such page")
        return None

    def _mode(self, repo: Repo, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".parquet")
        there = repo.files.get(file["path"])
        oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git_oid(there)
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects: list[dict[str, Any]] = []
        for one in wanted["objects"]:
            oid = one["oid"]
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{oid}"}, "verify": {"href": f"{self.hub.url}/verify"}}
            objects.append(one | ({} if oid in self.hub.large else {"actions": upload}))
        self._say({"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, name: str, steps: list[dict[str, Any]]) -> None:
        header = next(s["value"] for s in steps if s["key"] == "header")
        if header.get("parentCommit") not in (None, repo.commits[-1]):
            return self._no(412, "PreconditionFailed", "A commit has happened since.")
        for step in steps:
            value = step["value"]
            if step["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.large[value["oid"]]
            elif step["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.commits.append(hashlib.sha1(f"{len(repo.commits)}".encode(), usedforsecurity=False).hexdigest())
        repo.messages.append(header["summary"])
        url = f"{self.hub.url}/datasets/{name}/commit/{repo.commits[-1]}"
        return self._say({"success": True, "commitOid": repo.commits[-1], "commitUrl": url})

    def _resolve(self, name: str, path: str) -> None:
        repo = self.hub.repos[name]
        if path not in repo.files:
            return self._no(404, "EntryNotFound", "Entry not found")
        data = repo.files[path]
        return self._say(data, ETag=f'"{git_oid(data)}"', X_Repo_Commit=repo.commits[-1])

    def _model(self, name: str, rest: list[str]) -> None:
        if name not in self.hub.models:
            # as the hub has it for people who are not logged in
            return self._no(401, "RepoNotFound", "Invalid username or password.")
        if len(rest) > 1 and rest[1] not in ("main", "v1", COMMIT):
            return self._no(404, "RevisionNotFound", "Invalid rev id")
        files = {file.name: file.read_bytes() for file in sorted(self.hub.models[name].iterdir())}
        if rest[:1] == ["tree"]:
            return self._say([{"type": "file", "path": p, "size": len(d), "oid": git_oid(d)} for p, d in files.items()])
        return self._say({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})

    def _file(self, name: str, path: str) -> None:
        file = self.hub.models[name] / path
        if not file.is_file():
            return self._no(404, "EntryNotFound", "Entry not found")
        data = file.read_bytes()
        return self._say(data, ETag=f'"{git_oid(data)}"', X_Repo_Commit=COMMIT)


def git_oid(data: bytes) -> str:
    """The name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
