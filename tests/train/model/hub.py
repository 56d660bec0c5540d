"""A hub on this machine that gives model repositories, and refuses some: what huggingface_hub asks one for."""

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


@dataclass
class Hub:
    """Folders that are served as repositories; `refuse` gives a status and a code for all files of one."""

    url: str = ""
    repos: dict[str, Path] = field(default_factory=dict)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


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

    def _no(self, status: int, code: str) -> None:
        self._say({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def _answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.hub.asked.append("/".join(parts))
        match parts:
            case ["api", "models", owner, name, *rest]:
                self._model(f"{owner}/{name}", rest)
            case [owner, name, "resolve", _, *file]:
                self._file(f"{owner}/{name}", "/".join(file))
            case _:
                self._no(404, "EntryNotFound")

    do_GET = do_POST = do_HEAD = _answer  # http.server's names

    def _model(self, repo: str, rest: list[str]) -> None:
        if repo not in self.hub.repos:
            return self._no(401, "RepoNotFound")  # as the hub has it for people who are not logged in
        if len(rest) > 1 and rest[1] not in ("main", "v1", COMMIT):
            return self._no(404, "RevisionNotFound")
        files = sorted(self.hub.repos[repo].iterdir())
        if rest[:1] == ["tree"]:
            return self._say(
                [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _oid(f)} for f in files]
            )
        return self._say({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in files]})

    def _file(self, repo: str, name: str) -> None:
        if repo in self.hub.refuse:
            return self._no(*self.hub.refuse[repo])
        file = self.hub.repos[repo] / name
        if not file.is_file():
            return self._no(404, "EntryNotFound")
        return self._say(file.read_bytes(), X_Repo_Commit=COMMIT, ETag=f'"{_oid(file)}"')


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
