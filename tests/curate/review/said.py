"""Responses for tests, and a dataset in Argilla that is a plain Python object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.review.responses import Response, external_id
from schemas.dataset import Dataset

QUESTIONS = {"verdict": ("keep", "fix", "reject"), "rating": (), "issues": ("flag:refusal",), "correction": ()}


def said(reviewer: str, verdict: str | None, **more: Any) -> Response:
    """Give a response; `at` is a number that stands for its time."""
    facts: dict[str, Any] = {
        "review": "mix",
        "id": "a" * 32,
        "content_hash": "b" * 32,
        "status": "submitted",
        "rating": None,
        "issues": None,
        "correction": None,
        "suggested": None,
        "suggested_by": None,
        "min_submitted": 1,
        "cut": False,
        "updated_at": time(more.pop("at", 0)),
    }
    return Response(reviewer=reviewer, verdict=verdict, **{**facts, **more})


def time(seconds: float) -> str:
    """Give a time as the ledger has it: so many seconds into a day."""
    whole, part = divmod(seconds, 1)
    hours, rest = divmod(int(whole), 3600)
    return f"2026-01-02T{hours:02}:{rest // 60:02}:{rest % 60:02}.{round(part * 1e6):06}Z"


@dataclass
class FakeReview:
    """What `curate.review.client.Review` gives, out of a list. `breaks_at`: the record at which the server is gone."""

    name: str = "mix"
    min_submitted: int = 1
    held: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    breaks_at: int | None = None
    asked: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(QUESTIONS))
    url: str = "http://argilla.test/dataset/1"

    def records(self) -> Iterator[dict[str, Any]]:
        for i, record in enumerate(self.held):
            if i == self.breaks_at:
                raise ConnectionError("the server is gone")
            yield record

    def questions(self) -> dict[str, tuple[str, ...]]:
        return self.asked

    def question_names(self) -> dict[str, str]:
        return {f"q-{name}": name for name in self.asked}

    def total(self) -> dict[str, int]:
        return {"total": len(self.held)}

    def members(self) -> list[str]:
        return ["alice", "bob"]

    def usernames(self) -> dict[str, str]:
        return {f"u-{name}": name for name in ("alice", "bob", "carol", "dora")}

    def add(self, dataset: Dataset, row: int, *answers: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Put in a record of the n-th row of a dataset, as it stands, with responses."""
        known = dataset.scan(["id", "content_hash"]).collect().row(row, named=True)
        record = {
            "id": f"r-{len(self.held)}",
            "external_id": external_id(known["id"], known["content_hash"]),
            "status": "pending",
            "metadata": {},
            "suggestions": [],
            "responses": list(answers),
            **more,
        }
        self.held.append(record)
        return record


def answer(
    user: str, verdict: Any = None, *, status: str = "submitted", at: float = 0, **values: Any
) -> dict[str, Any]:
    """Give a response as the server's JSON has it."""
    if verdict is not None:
        values["verdict"] = verdict
    given = {name: {"value": value} for name, value in values.items()} or None
    return {"user_id": f"u-{user}", "status": status, "values": given, "updated_at": time(at).removesuffix("Z")}


def suggestion(value: str, agent: str = "sft-rules") -> dict[str, Any]:
    """Give a suggested verdict as the server's JSON has it."""
    return {"question_id": "q-verdict", "value": value, "agent": agent, "score": 0.9}


def keeps(*names: str) -> Sequence[dict[str, Any]]:
    """Give a response for each name that keeps the row."""
    return [answer(name, "keep") for name in names]
