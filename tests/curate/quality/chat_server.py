"""A chat-completions server for tests: on 127.0.0.1, in a thread, answering as a function says; it stops by itself."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORD = re.compile(r"question (\d+)\b")


@dataclass(frozen=True)
class Asked:
    """A request: its body, its headers, which row it is about ("question 7" in its text), and how often that was asked
    about before."""

    body: dict[str, Any]
    headers: dict[str, str]
    row: int
    before: int

    @property
    def shown(self) -> str:
        return self.body["messages"][1]["content"]


@dataclass(frozen=True)
class Says:
    """What the server sends."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def completion(text: Any, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 10)) -> Says:
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Says(body)


def judged(score: Any = 4, reason: str = "Right and clear.", **how: Any) -> Says:
    return completion(json.dumps({"reason": reason, "score": score}), **how)


def refused(status: int, message: str, *, code: str | None = None, **headers: str) -> Says:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says({"error": {"message": message, "code": code}}, status, named)


class ChatServer:
    """The server, and what it has seen: requests per row, requests under way at most, answered rows."""

    def __init__(self, reply: Callable[[Asked], Says]) -> None:
        self.reply = reply
        self.asked: list[Asked] = []
        self.rows: Counter[int] = Counter()
        self.most_at_once = 0
        self.over = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that went away is what time-outs look like
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two would wait for each other

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.partition("?")[0] != "/v1/chat/completions":
                    outer.send(self, refused(404, f"no such page: {self.path}"))
                    return
                says = outer.take(body, dict(self.headers))
                outer.send(self, says)

            def log_message(self, format: str, *args: Any) -> None: ...

        return Handler

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Says:
        shown = WORD.search(body["messages"][1]["content"])
        row = int(shown.group(1)) if shown else -1
        with self._lock:
            asked = Asked(body, headers, row, self.rows[row])
            self.asked.append(asked)
            self.rows[row] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.reply(asked)
        finally:
            with self._lock:
                self._at_once -= 1

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, says: Says) -> None:
        data = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
        handler.send_response(says.status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **says.headers,
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    @contextmanager
    def running(self) -> Generator["ChatServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def serving(reply: Callable[[Asked], Says]) -> Any:
    """Serve for as long as the `with` block lasts."""
    return ChatServer(reply).running()
