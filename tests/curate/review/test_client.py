"""The thin module before Argilla: whom it connects to, and how a refusal is told."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from curate.review.client import connect
from curate.review.form import Card, Field, Form, Question
from schemas.errors import ConfigError, ReviewError
from tests.curate.review.conftest import ArgillaServer

FORM = Form(
    (Field("text", "Text", "text", required=True),),
    (Question("verdict", "?", "label", required=True, options={"keep": "Keep", "reject": "Reject"}),),
)


@contextmanager
def answering(body: bytes, kind: str) -> Generator[str]:
    """A server that gives the same answer to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_argilla_of_another_generation_is_refused_by_its_version() -> None:
    with (
        answering(b'{"version": "1.29.1"}', "application/json") as url,
        pytest.raises(ConfigError, match=r"version 1\.29\.1; expected Argilla 2"),
    ):
        connect(url, "key", "review")


def test_what_is_no_argilla_is_told() -> None:
    with answering(b"<html>hello</html>", "text/html") as url, pytest.raises(ReviewError, match="not an Argilla 2"):
        connect(url, "key", "review")


def test_a_server_that_is_down_is_told() -> None:
    with answering(b"", "text/plain") as url:
        pass
    with pytest.raises(ReviewError, match=r"no answer.*sft curate review serve"):
        connect(url, "key", "review")


def test_a_wrong_key_is_told_and_not_shown(argilla_server: ArgillaServer) -> None:
    with pytest.raises(ReviewError, match="API key is not known") as told:
        connect(argilla_server.url, "not-the-key", "review")
    assert "not-the-key" not in str(told.value)


def test_somebody_without_rights_is_refused_by_role(argilla_server: ArgillaServer) -> None:
    person = argilla_server.person("dora")
    with pytest.raises(ConfigError, match="is annotator; expected the key of an owner or admin"):
        connect(argilla_server.url, person.api_key, argilla_server.workspace)


def test_a_workspace_that_is_missing_has_no_datasets_and_is_made_with_the_first(argilla_server: ArgillaServer) -> None:
    name = argilla_server.unique("team")
    server = connect(argilla_server.url, argilla_server.owner_key, name)
    assert (server.names(), server.find("rows")) == ([], None)
    review = server.create("rows", FORM, "Look.", 1)
    try:
        assert server.names() == ["rows"]
    finally:
        review.delete()
        made = argilla_server.call("GET", "me/workspaces")["items"]
        argilla_server.call("DELETE", f"workspaces/{next(w['id'] for w in made if w['name'] == name)}")


def test_an_admin_of_the_workspace_may_do_what_a_review_needs(argilla_server: ArgillaServer) -> None:
    """Only an owner may list all people; an admin is told those of the workspace, and who they are themselves."""
    admin, person = argilla_server.person("ada", role="admin"), argilla_server.person("dora")
    server = connect(argilla_server.url, admin.api_key, argilla_server.workspace)
    review = server.create(argilla_server.unique("rows"), FORM, "Look.", 1)
    review.send([Card("a", {"text": "one"}), Card("b", {"text": "two"})])
    assert set(review.external_ids()) == {"a", "b"}
    assert {admin.username, person.username} <= set(review.usernames().values())
    assert person.username in review.members()
    review.delete()


@pytest.mark.parametrize(
    "broken", [Card("a", {}), Card("a", {"text": "one", "other": "two"}), Card("a", {"text": "x"}, {"nowhere": "y"})]
)
def test_what_the_server_refuses_is_told_in_its_words(argilla_server: ArgillaServer, broken: Card) -> None:
    server = connect(argilla_server.url, argilla_server.owner_key, argilla_server.workspace)
    review = server.create(argilla_server.unique("rows"), FORM, "Look.", 1)
    with pytest.raises(ReviewError, match=r"refused: .*(fields|other|nowhere).*HTTP 422"):
        review.send([broken])
    assert review.external_ids() == {}
    review.delete()
