"""Reviewers who work side by side, as their browsers would: each asks for what is pending and submits answers."""

import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

PAGE = 10
"""Records that the browser fetches at once."""


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/api/v1/", headers={"X-Argilla-Api-Key": key}, timeout=60, trust_env=False)


def call(api: httpx.Client, method: str, path: str, body: Any = None, **params: Any) -> Any:
    answer = api.request(method, path, json=body, params=params)
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def new_dataset(api: httpx.Client, workspace_id: str, name: str, *, min_submitted: int) -> str:
    """Make and publish a dataset with a text, a chat, a rating and a property. Return its id."""
    distribution = {"strategy": "overlap", "min_submitted": min_submitted}
    body = {"name": name, "workspace_id": workspace_id, "distribution": distribution}
    dataset = call(api, "POST", "datasets", body)["id"]
    for field_, kind in (("prompt", "text"), ("chat", "chat")):
        made = {"name": field_, "title": field_, "required": kind == "text", "settings": {"type": kind}}
        call(api, "POST", f"datasets/{dataset}/fields", made)
    rating = {"type": "rating", "options": [{"value": value} for value in range(6)]}
    question = {"name": "rating", "title": "rating", "required": True, "settings": rating}
    call(api, "POST", f"datasets/{dataset}/questions", question)
    for name_, kind in (("source", "terms"), ("score", "float")):
        made = {"name": name_, "title": name_, "settings": {"type": kind}}
        call(api, "POST", f"datasets/{dataset}/metadata-properties", made)
    call(api, "PUT", f"datasets/{dataset}/publish")
    return dataset


def pending(api: httpx.Client, dataset: str, *, offset: int = 0, **query: Any) -> Any:
    """Ask for a page of what the user has still to do, as the browser does."""
    mine = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]}
    filters = {"and": [mine, *query.pop("filters", [])]}
    path = f"me/datasets/{dataset}/records/search"
    include = ["responses", "suggestions"]
    return call(api, "POST", path, {"filters": filters, **query}, include=include, offset=offset, limit=PAGE)


@dataclass
class Crowd:
    """Reviewers by name, with their keys. What was acknowledged, what failed, how long each submission took."""

    url: str
    keys: Mapping[str, str]
    acknowledged: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """The rating, by reviewer and record."""
    errors: list[str] = field(default_factory=list[str])
    seconds: list[float] = field(default_factory=list[float])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def review(self, dataset: str, records: Sequence[str]) -> list[threading.Thread]:
        """Start one thread a reviewer: each answers every record that it has no acknowledgement for."""
        threads = [threading.Thread(target=self._one, args=(name, dataset, records)) for name in self.keys]
        for thread in threads:
            thread.start()
        return threads

    def _one(self, name: str, dataset: str, records: Sequence[str]) -> None:
        todo = [r for r in records if (name, r) not in self.acknowledged]
        random.Random(name).shuffle(todo)  # each in an order of their own
        try:
            with client(self.url, self.keys[name]) as api:
                for number, record in enumerate(todo):
                    if number % PAGE == 0:
                        pending(api, dataset)
                        call(api, "GET", f"me/datasets/{dataset}/metrics")
                    self._submit(api, name, record)
        except httpx.TransportError as error:  # the server is gone; whether it may be is the caller's to say
            self._failed(f"{name}: {error!r}")
        except AssertionError as error:
            self._failed(f"{name}: {error}")

    def _submit(self, api: httpx.Client, name: str, record: str) -> None:
        rating = random.Random(name + record).randint(0, 5)
        item = {"record_id": record, "status": "submitted", "values": {"rating": {"value": rating}}}
        start = time.perf_counter()
        answer = call(api, "POST", "me/responses/bulk", {"items": [item]})["items"][0]
        taken = time.perf_counter() - start
        assert answer["error"] is None, answer["error"]
        with self._lock:
            self.acknowledged[name, record] = rating
            self.seconds.append(taken)

    def _failed(self, what: str) -> None:
        with self._lock:
            self.errors.append(what)


def stored(api: httpx.Client, dataset: str, users: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Return every submitted rating, by reviewer and record. `users`: names by id."""
    found: dict[tuple[str, str], int] = {}
    for record in listed(api, dataset):
        for response in record["responses"]:
            assert response["status"] == "submitted"
            key = users[response["user_id"]], record["id"]
            assert key not in found, f"two responses of {key}"
            found[key] = response["values"]["rating"]["value"]
    return found


def listed(api: httpx.Client, dataset: str) -> Iterable[dict[str, Any]]:
    """Give all records with their responses."""
    offset = 0
    while items := call(api, "GET", f"datasets/{dataset}/records", include="responses", offset=offset, limit=1000)[
        "items"
    ]:
        yield from items
        offset += len(items)
