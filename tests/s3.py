"""A small S3 for tests: one bucket in memory behind http.server, on 127.0.0.1 and a port of its own.

It speaks what a client of a store needs: PUT with If-None-Match and If-Match, GET with Range, HEAD, DELETE, POST
?delete, ListObjectsV2 in pages, multipart uploads. Signatures are not checked; who signs is remembered. `Faults` says
what goes wrong on purpose.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from schemas import bucket

PAGE = 7
"""Keys in one page of a listing: few, so that every test walks through pages."""


@dataclass
class Blob:
    """One object: its bytes, and when it was put (seconds since the epoch)."""

    body: bytes
    modified: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


@dataclass
class Faults:
    """What goes wrong. A method and a part of the key choose the requests: `("PUT", "objects/")`."""

    status: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """These statuses, one request after the other, before it works again; -1 is answered for ever with 403."""
    lose_answer: list[tuple[str, str]] = field(default_factory=list)
    """The request is done, and its answer is lost: once for each entry."""
    cut: dict[str, int] = field(default_factory=dict)
    """A GET of this key breaks off after so many bytes, once."""
    slow_s: float = 0.0
    ignore_conditions: bool = False
    """As stores do that know no conditional put: they overwrite."""


class S3:
    """The bucket `b`, its faults, and what it was asked."""

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.faults = Faults()
        self.asked: list[tuple[str, str]] = []
        self.signed_by: set[str] = set()
        self.lock = threading.RLock()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def keys(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(key for key in self.blobs if key.startswith(prefix))

    def age(self, seconds: float, prefix: str = "") -> None:
        """Make what is there older."""
        with self.lock:
            for key in self.keys(prefix):
                self.blobs[key].modified -= seconds

    def fault(self, method: str, key: str) -> int | None:
        with self.lock:
            for (verb, part), statuses in self.faults.status.items():
                if verb == method and part in key and statuses:
                    return 403 if statuses[0] == -1 else statuses.pop(0)
        return None

    def loses(self, method: str, key: str) -> bool:
        with self.lock:
            found = next((f for f in self.faults.lose_answer if f[0] == method and f[1] in key), None)
            if found:
                self.faults.lose_answer.remove(found)
            return found is not None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body leave in one packet
    disable_nagle_algorithm = True
    s3: S3

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        if self.s3.loses(self.command, self.path):
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def body(self) -> bytes:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return raw
        whole = b""
        while raw:
            head, _, rest = raw.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            whole, raw = whole + rest[:size], rest[size + 2 :]
            if size == 0:
                break
        return whole

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do(self) -> None:
        split = urlsplit(self.path)
        bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        query = {k: v[0] for k, v in parse_qs(split.query, keep_blank_values=True).items()}
        body = self.body()
        credential = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        with self.s3.lock:
            self.s3.asked.append((self.command, key or split.query))
            self.s3.signed_by |= {credential[1]} if credential else set()
        time.sleep(self.s3.faults.slow_s)
        if status := self.s3.fault(self.command, key or "?" + split.query):
            return self.error(status, {403: "AccessDenied", 501: "NotImplemented"}.get(status, "SlowDown"))
        if bucket != "b":
            return self.error(404, "NoSuchBucket")
        with self.s3.lock:  # one request at a time changes or lists: conditions hold as they do in the real one
            if self.command in ("POST", "PUT", "DELETE"):
                return {"POST": self.post, "PUT": self.put, "DELETE": self.delete}[self.command](key, query, body)
            if not key:
                return self.list(query)
            blob = self.s3.blobs.get(key)
        return self.get(key, blob) if blob else self.error(404, "NoSuchKey")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815 # http.server's names

    def conditions_fail(self, key: str) -> bool:
        blob = self.s3.blobs.get(key)
        if self.s3.faults.ignore_conditions:
            return False
        if self.headers.get("If-None-Match") == "*" and blob:
            return True
        wanted = self.headers.get("If-Match")
        return bool(wanted) and (blob is None or blob.etag != wanted)

    def put(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" in query:
            self.s3.uploads[query["uploadId"]][int(query["partNumber"])] = body
            return self.answer(200, ETag=Blob(body).etag)
        if self.conditions_fail(key):
            return self.error(412, "PreconditionFailed")
        self.s3.blobs[key] = Blob(body)
        return self.answer(200, ETag=self.s3.blobs[key].etag)

    def delete(self, key: str, query: dict[str, str], _body: bytes) -> None:
        self.s3.uploads.pop(query.get("uploadId", ""), None)
        if "uploadId" not in query:
            self.s3.blobs.pop(key, None)
        self.answer(204)

    def post(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "delete" in query:
            gone = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in gone:
                self.s3.blobs.pop(name, None)
            deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in gone)
            return self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        if "uploads" in query:
            upload = f"u{len(self.s3.uploads)}-{time.monotonic_ns()}"
            self.s3.uploads[upload] = {}
            names = f"<Bucket>b</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            return self.answer(200, f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>".encode())
        parts = self.s3.uploads.pop(query["uploadId"])
        self.s3.blobs[key] = Blob(b"".join(parts[n] for n in sorted(parts)))
        told = f"<Key>{escape(key)}</Key><ETag>{escape(self.s3.blobs[key].etag)}</ETag>"
        return self.answer(200, f"<CompleteMultipartUploadResult>{told}</CompleteMultipartUploadResult>".encode())

    def list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        found: dict[str, Blob | None] = {}
        for key in self.s3.keys(prefix):
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            name = prefix + head + cut if cut else key
            if name > after:
                found.setdefault(name, None if cut else self.s3.blobs[key])
        page = list(found.items())[:PAGE]
        more = len(found) > PAGE
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_iso(blob.modified)}</LastModified>"
            f"<ETag>{escape(blob.etag)}</ETag><Size>{len(blob.body)}</Size></Contents>"
            if blob
            else f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
            for key, blob in page
        )
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        told = f"<Name>b</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        told += f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
        self.answer(200, f"<ListBucketResult>{told}</ListBucketResult>".encode())

    def get(self, key: str, blob: Blob) -> None:
        facts = {"ETag": blob.etag, "Last_Modified": formatdate(blob.modified, usegmt=True)}
        body, status = blob.body, 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), int(wanted[2] or len(body) - 1)
            body, status = body[start : end + 1], 206
            facts["Content_Range"] = f"bytes {start}-{start + len(body) - 1}/{len(blob.body)}"
        if self.command == "HEAD":
            return self.answer(200, length=str(len(body)), **facts)
        if (cut := self.s3.faults.cut.pop(key, None)) is not None:
            self.answer(status, body[:cut], length=str(len(body)), **facts)
            self.close_connection = True
            return None
        return self.answer(status, body, **facts)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03}Z"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


def alone(s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an environment in which stores in object storage are found in this bucket and nowhere else."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "SFT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("SFT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setattr(bucket, "RETRIES", 1)


@contextmanager
def serve() -> Generator[S3]:
    """Run a bucket until the block ends."""
    s3 = S3()
    handler = type("Handler", (_Handler,), {"s3": s3})
    with _Server(("127.0.0.1", 0), handler) as server:
        s3.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield s3
        finally:
            server.shutdown()
            thread.join()
