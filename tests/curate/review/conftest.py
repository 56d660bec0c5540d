"""An Argilla server for tests: the one that ARGILLA_API_URL and ARGILLA_API_KEY name, else our own.

What tests make there, people, a workspace and its datasets, has names of its own and is removed at the end.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from curate.review.server.environment import UnreachableIndexError
from curate.review.server.process import start


@dataclass(frozen=True)
class Person:
    """Somebody who may log in, in the browser and by key."""

    username: str
    password: str
    api_key: str
    id: str


@dataclass(frozen=True)
class ArgillaServer:
    url: str
    owner_key: str
    workspace: str
    """A workspace of these tests alone."""
    workspace_id: str
    is_ours: bool
    """Whether we started it: then it may be looked into."""
    api: httpx.Client
    """Its HTTP interface, as the owner."""
    home: Path | None = None
    _people: dict[str, Person] = field(default_factory=dict[str, Person])

    def person(self, name: str = "reviewer", role: str = "annotator") -> Person:
        """Give somebody of that name (with a suffix, for others may have one of it); made when first asked for."""
        if name not in self._people:
            username, password = f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(9)
            user = self.call("POST", "users", first_name=name, username=username, password=password, role=role)
            self._people[name] = Person(username, password, user["api_key"], user["id"])
            self.call("POST", f"workspaces/{self.workspace_id}/users", user_id=user["id"])
        return self._people[name]

    @contextmanager
    def as_person(self, person: Person) -> Generator[httpx.Client]:
        """Give the HTTP interface as somebody sees it."""
        with client(self.url, person.api_key) as api:
            yield api

    def unique(self, name: str) -> str:
        """Give a name that no other test has."""
        return f"{name}-{secrets.token_hex(4)}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self.api.request(method, f"/api/v1/{path}", json=body or None)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def datasets(self) -> list[dict[str, Any]]:
        every = self.call("GET", "me/datasets")["items"]
        return [dataset for dataset in every if dataset["workspace_id"] == self.workspace_id]

    def clean(self) -> None:
        for dataset in self.datasets():
            self.call("DELETE", f"datasets/{dataset['id']}")
        self.call("DELETE", f"workspaces/{self.workspace_id}")
        for person in self._people.values():
            self.call("DELETE", f"users/{person.id}")


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"X-Argilla-Api-Key": key}, timeout=60, trust_env=False)


@pytest.fixture(scope="session")
def argilla_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ArgillaServer]:
    """A running server. Our own is skipped only where its packages cannot be fetched."""
    url, key = os.environ.get("ARGILLA_API_URL"), os.environ.get("ARGILLA_API_KEY")
    if url and key:
        with using(url.rstrip("/"), key, None) as server:
            yield server
        return
    home = tmp_path_factory.mktemp("argilla")
    try:
        started = start(home)
    except UnreachableIndexError as error:
        pytest.skip(str(error))
    with started, using(started.url, started.owner.api_key, home) as server:
        yield server


@contextmanager
def using(url: str, key: str, home: Path | None) -> Generator[ArgillaServer]:
    """Make a workspace on a server; remove all that was made when done."""
    with client(url, key) as api:
        name = f"tests-{secrets.token_hex(4)}"
        made = api.post("/api/v1/workspaces", json={"name": name})
        assert made.is_success, f"{url}: {made.status_code} {made.text}; the key must be that of an owner"
        server = ArgillaServer(url, key, name, made.json()["id"], home is not None, api, home)
        try:
            yield server
        finally:
            server.clean()
