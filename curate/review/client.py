"""Argilla behind one thin module: the only one that speaks to a server.

The SDK makes and opens datasets. Records travel over its HTTP client: its own `log` does not tell what was new, and its
records hide what people discarded.
"""

import logging
import re
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from curate.review.form import Card, Field, Form, Property, Question, as_html
from schemas.errors import ConfigError, ReviewError

logging.getLogger("argilla").setLevel(logging.CRITICAL)  # what it logs, we raise

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its models use pydantic's older style
    import argilla as rg
    from argilla._exceptions import ArgillaError

SENT_AT_ONCE = 100
"""Records of one request (500 at most). A server takes 120 a second in any case, so that progress moves each second."""
PAGE = 1_000
"""Records that a server lists at once, without what belongs to them."""
TIMEOUT_S = 60
NAME_CHARACTERS = 200
"""Characters of a dataset's name."""
_NAME = re.compile(r"(?!\s)[^<>&\x00-\x1f]{1,200}(?<!\s)")
ROLES = ("owner", "admin")
"""Who may make datasets and read what others said."""


@dataclass(frozen=True)
class UserProgress:
    """How many records of a dataset a person has submitted, discarded, and begun."""

    user: str
    submitted: int
    discarded: int
    draft: int


class Review:
    """One dataset in Argilla."""

    def __init__(self, dataset: Any, server: "Server") -> None:
        self._dataset, self._server = dataset, server
        self.name: str = dataset.name
        self.id = str(dataset.id)
        self.url = f"{server.url}/dataset/{self.id}/annotation-mode"
        """The page where reviewers answer."""
        self.min_submitted: int = dataset.settings.distribution.min_submitted

    def questions(self) -> dict[str, tuple[str, ...]]:
        """Give the questions by name, each with the values of its labels (none for ratings and texts)."""
        return {q.name: _values(q) for q in self._dataset.settings.questions}

    def property_names(self) -> set[str]:
        """Name the properties that its records can have."""
        return {str(p.name) for p in self._dataset.settings.metadata}

    def external_ids(self) -> dict[str, str]:
        """Give the records that are there: external id -> the server's id."""
        return {r["external_id"]: r["id"] for r in self._list(None) if r["external_id"]}

    def records(self) -> Iterator[dict[str, Any]]:
        """Give all records with responses and suggestions, as the server tells them, in the order of their making.

        Each has `external_id`, `status`, `inserted_at`, `responses` (`user_id`, `status`, `values` {question: {value}},
        `inserted_at`, `updated_at`) and `suggestions` (`question_id`, `value`, `score`, `agent`).
        """
        return self._list("responses,suggestions")

    def send(self, cards: Sequence[Card], progress: Callable[[int], None] = lambda _: None) -> None:
        """Create records; of those that are there, replace fields, properties and suggestions given. Responses stay.

        `progress` is called with the number of records since the last call. Raises ReviewError where the server
        refuses: nothing of that request was stored, what went before was.
        """
        question_ids = {q.name: str(q.id) for q in self._dataset.settings.questions}
        markdown = {f.name for f in self._dataset.settings.fields if getattr(f, "use_markdown", False)}
        for start in range(0, len(cards), SENT_AT_ONCE):
            some = cards[start : start + SENT_AT_ONCE]
            body = {"items": [_item(card, question_ids, markdown) for card in some]}
            self._ask("PUT", f"/api/v1/datasets/{self.id}/records/bulk", json=body)
            progress(len(some))

    def mark(self, properties: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the properties of records that are there, by external id, and nothing else of them."""
        items = [{"external_id": external, "metadata": dict(known)} for external, known in properties.items()]
        for start in range(0, len(items), SENT_AT_ONCE):
            body = {"items": items[start : start + SENT_AT_ONCE]}
            self._ask("PUT", f"/api/v1/datasets/{self.id}/records/bulk", json=body)

    def remove(self, record_ids: Sequence[str]) -> None:
        """Remove records, by the server's ids, with all that people said about them."""
        for start in range(0, len(record_ids), SENT_AT_ONCE):
            some = ",".join(record_ids[start : start + SENT_AT_ONCE])
            with _told(f"dataset {self.name!r}"):
                path = f"/api/v1/datasets/{self.id}/records"
                self._server.http.request("DELETE", path, params={"ids": some}).raise_for_status()

    def usernames(self) -> dict[str, str]:
        """Give the names of the people who may respond: the server's id -> user name."""
        with _told(f"dataset {self.name!r}"):
            return self._server.usernames(self._dataset.workspace)

    def members(self) -> list[str]:
        """Name the workspace's annotators: those who are meant to respond, also before they have."""
        with _told(f"dataset {self.name!r}"):
            users = self._dataset.workspace.users
            return sorted(str(user.username) for user in users if user.role.value not in ROLES)

    def question_names(self) -> dict[str, str]:
        """Give the questions' names by the server's ids, for suggestions."""
        return {str(q.id): str(q.name) for q in self._dataset.settings.questions}

    def total(self) -> dict[str, int]:
        """Count the records: `total`, `completed` (enough responses), `pending`."""
        with _told(f"dataset {self.name!r}"):
            found = self._dataset.progress()
        return {name: int(found[name]) for name in ("total", "completed", "pending")}

    def progress(self) -> list[UserProgress]:
        """Count the responses of each person who has any, by name."""
        with _told(f"dataset {self.name!r}"):
            users = self._dataset.progress(with_users_distribution=True)["users"]
        return [
            UserProgress(
                name, *(parts["completed"][s] + parts["pending"][s] for s in ("submitted", "discarded", "draft"))
            )
            for name, parts in sorted(users.items())
        ]

    def delete(self) -> None:
        """Remove the dataset with all that people said in it."""
        with _told(f"dataset {self.name!r}"):
            self._dataset.delete()

    def _list(self, include: str | None) -> Iterator[dict[str, Any]]:
        offset, page = 0, PAGE if include is None else PAGE // 2
        while True:
            params = {"offset": offset, "limit": page} | ({"include": include} if include else {})
            items = self._ask("GET", f"/api/v1/datasets/{self.id}/records", params=params)["items"]
            yield from items
            if len(items) < page:
                return
            offset += page

    def _ask(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        with _told(f"dataset {self.name!r}"):
            answer = self._server.http.request(method, path, **given)
            answer.raise_for_status()
            return answer.json()


class Server:
    """A connection to an Argilla server, and one workspace on it."""

    def __init__(self, client: Any, workspace: str) -> None:
        self._client, self.workspace = client, workspace
        self.http: httpx.Client = client.api.http_client
        self.url = str(client.api_url).rstrip("/")
        self.user: str = client.me.username
        weakref.finalize(self, self.http.close)  # when nobody holds it, nor a dataset of it, any more

    def usernames(self, workspace: Any) -> dict[str, str]:
        """Name people by the server's ids: all, or those of a workspace for an admin, who may not ask for more."""
        me = self._client.me
        users = self._client.users if me.role.value == "owner" else [*workspace.users, me]
        return {str(user.id): str(user.username) for user in users}

    def find(self, name: str) -> Review | None:
        """Open a dataset of the workspace; None where there is none of that name."""
        with _told(f"dataset {name!r}"):
            workspace = self._workspace()
            api = self._client.api.datasets
            model = workspace and api.get_by_name_and_workspace_id(name, workspace.id)
            if not model:
                return None
            found = rg.Dataset.from_model(model, self._client)
            found.settings.get()
            return Review(found, self)

    def names(self) -> list[str]:
        """List the datasets of the workspace."""
        with _told(f"workspace {self.workspace!r}"):
            workspace = self._workspace()
            return sorted(str(dataset.name) for dataset in workspace.datasets) if workspace else []

    def create(self, name: str, form: Form, guidelines: str, min_submitted: int) -> Review:
        """Make a dataset; the workspace too, where there is none of its name.

        Raises ConfigError for a name that the page of settings would take for HTML (Argilla 2.8), or that is no name.
        """
        if not _NAME.fullmatch(name):
            found = "too long" if len(name) > NAME_CHARACTERS else "not a name"
            expected = f"1 to {NAME_CHARACTERS} characters without <, > and &, no blank at either end"
            raise ConfigError(f"--dataset {name[:NAME_CHARACTERS]!r}", found, expected)
        with _told(f"dataset {name!r}"):
            if self._workspace() is None:
                rg.Workspace(name=self.workspace, client=self._client).create()
            settings = rg.Settings(
                fields=[_field(f) for f in form.fields],
                questions=[_question(q) for q in form.questions],
                metadata=[_property(p) for p in form.properties],
                guidelines=guidelines,
                distribution=rg.TaskDistribution(min_submitted=min_submitted),
            )
            made = rg.Dataset(name=name, workspace=self.workspace, settings=settings, client=self._client).create()
            return Review(made, self)

    def _workspace(self) -> Any:
        """Give the workspace; None where there is none (asked by name, the SDK would warn)."""
        return next((w for w in self._client.workspaces if w.name == self.workspace), None)


def check_questions(review: Review, form: Form) -> None:
    """Raise ReviewError where a dataset of that name asks other questions than the form."""
    there = review.questions()
    wanted = {q.name: tuple(q.options) if q.options else () for q in form.questions}
    if set(there) != set(wanted):
        found = f"it asks {', '.join(sorted(there)) or 'nothing'}"
        raise ReviewError(
            f"dataset {review.name!r} in Argilla",
            found,
            f"the questions {', '.join(sorted(wanted))}",
            "name another dataset with --dataset, or remove that one in Argilla",
        )


def connect(url: str, key: str, workspace: str) -> Server:
    """Connect to an Argilla 2 server as an owner or admin.

    Raises ReviewError (server down, no Argilla, wrong key) and ConfigError (other version, user without rights).
    """
    where = f"Argilla at {url}"
    url = url.rstrip("/")
    with _told(where), httpx.Client(transport=httpx.HTTPTransport(), timeout=TIMEOUT_S) as http:  # as the SDK: no proxy
        _check_version(http.get(f"{url}/api/v1/version"), where)
        me = http.get(f"{url}/api/v1/me", headers={"X-Argilla-Api-Key": key}).raise_for_status().json()
    if me["role"] not in ROLES:
        found = f"user {me['username']!r} is {me['role']}"
        raise ConfigError(where, found, "the key of an owner or admin, who may make datasets and read all responses")
    with _told(where):
        return Server(rg.Argilla(api_url=url, api_key=key, timeout=TIMEOUT_S), workspace)


def _check_version(answer: httpx.Response, where: str) -> None:
    if not answer.is_success or not answer.headers.get("content-type", "").startswith("application/json"):
        raise ReviewError(where, f"not an Argilla 2 server (HTTP {answer.status_code})", "an Argilla 2 server")
    version = str(answer.json().get("version", "unknown"))
    if version.partition(".")[0] != "2":
        raise ConfigError(where, f"version {version}", "Argilla 2", "use another server, or sft curate review serve")


@contextmanager
def _told(where: str) -> Generator[None]:
    """Turn what the server or the network says into one line for people."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _refusal(where, error.response.status_code, _detail(error.response)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"no answer ({error or type(error).__name__})"
        remedy = "is it running, and is the address right? start one with sft curate review serve"
        raise ReviewError(where, found, "a running Argilla server", remedy) from error
    except (ArgillaError, ValueError) as error:  # the SDK raises both
        detail = str(error).rpartition("Details: ")[2].removeprefix('{"detail":"').removesuffix('"}')
        raise _refusal(where, getattr(error, "status_code", None), detail) from error


def _refusal(where: str, status: int | None, detail: str) -> ReviewError:
    detail = " ".join(detail.split())[:400]
    match status:
        case 401:
            return ReviewError(where, "the API key is not known there", "a key of that server", "check ARGILLA_API_KEY")
        case 403:
            return ReviewError(where, f"the user may not do that ({detail})", "an owner, or an admin of the workspace")
        case 404:
            return ReviewError(where, f"not there ({detail})", "something that was not removed meanwhile")
        case _:
            return ReviewError(where, f"refused: {detail}" + (f" (HTTP {status})" if status else ""))


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text


def _field(shown: Field) -> Any:
    common: dict[str, Any] = {"name": shown.name, "title": shown.title, "required": shown.required}
    if shown.kind == "chat":
        return rg.ChatField(**common, use_markdown=False)
    return rg.TextField(**common, use_markdown=shown.kind == "markdown")


def _question(asked: Question) -> Any:
    common: dict[str, Any] = {
        "name": asked.name,
        "title": asked.title,
        "description": asked.description,
        "required": asked.required,
    }
    match asked.kind:
        case "label":
            return rg.LabelQuestion(**common, labels=dict(asked.options))
        case "labels":
            labels = dict(asked.options)
            return rg.MultiLabelQuestion(
                **common, labels=labels, labels_order="suggestion", visible_labels=asked.visible or len(labels)
            )
        case "rating":
            return rg.RatingQuestion(**common, values=list(asked.ratings))
        case "ranking":
            return rg.RankingQuestion(**common, values=dict(asked.options))
        case "text":
            return rg.TextQuestion(**common, use_markdown=False)


_PROPERTIES: dict[Literal["terms", "integer", "float"], Any] = {
    "terms": rg.TermsMetadataProperty,
    "integer": rg.IntegerMetadataProperty,
    "float": rg.FloatMetadataProperty,
}


def _property(known: Property) -> Any:
    return _PROPERTIES[known.kind](name=known.name, title=known.title)


def _values(question: Any) -> tuple[str, ...]:
    labels = getattr(question, "labels", None)
    return tuple(labels) if labels else ()


def _item(card: Card, question_ids: dict[str, str], markdown: set[str]) -> dict[str, Any]:
    """Give a record as the server's JSON has it. Texts in Markdown were escaped; the page shows all others as HTML."""
    fields = {
        name: [{"role": role, "content": as_html(text)} for role, text in value]
        if not isinstance(value, str)
        else value
        if name in markdown
        else as_html(value)
        for name, value in card.fields.items()
    }
    suggestions = [
        {"question_id": question_ids[s.question], "value": s.value, "agent": s.agent, "score": s.score, "type": "model"}
        for s in card.suggestions
    ]
    item: dict[str, Any] = {"external_id": card.external_id, "fields": fields, "metadata": dict(card.properties)}
    return item | ({"suggestions": suggestions} if suggestions else {})
