"""Comparisons: a model's answers beside its base model's and the dataset's own, in blind order.

    prompt ── tuned, base, reference ── shuffled ──> answer A, answer B, answer C ──> Argilla

Which answer is which is known here and nowhere else. The order is drawn for each record by a hash with a secret key,
kept with the answers as an object of the run, and nothing else that is sent depends on it: no metadata tells it, and a
record is named by the hash of its answers in alphabetical order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from curate.review.card import EMPTY, flattened
from curate.review.form import CHAT_CHARACTERS, CHAT_MESSAGES, ROLE_CHARACTERS, Card, Field, Form, Property, Question
from curate.review.markdown import clean, cut
from curate.review.secret import secret_key
from curate.select import chance
from curate.store import Store
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.record import MESSAGE, Message, Record, last_answer

ANSWERED_BY = ("tuned", "base", "reference")
"""Who answers: the run's model, the model that it began with, the dataset."""

LETTERS = ("a", "b", "c")
"""What reviewers know the answers by, in the order in which they stand."""

ASPECTS = {
    "helpfulness": "Not helpful",
    "correctness": "Not correct",
    "safety": "Not safe",
    "tone": "Wrong tone",
}
"""What an answer may fail in, and what people read on the button."""

RANKING, COMMENT = "better", "comment"
ANSWERS_OBJECT = "answers"
"""Name, with the run, of the object that holds ANSWERS."""

ANSWERS = pl.Schema(
    {
        "external": pl.String,
        "id": pl.String,
        "source": pl.String,
        "split": pl.String,
        "prompt": pl.List(MESSAGE),
        "tools": pl.String,
        "tuned": pl.String,
        "base": pl.String,
        "reference": pl.String,
        "tuned_whole": pl.Boolean,
        "base_whole": pl.Boolean,
        "new_tokens": pl.UInt16,
        "seed": pl.UInt64,
        "order": pl.List(pl.String),
    }
)
"""One row for each comparison. external: the record's name in Argilla. prompt: the conversation before the answer.
whole: the answer ended by itself. new_tokens: the most that it might say. seed: it drew the record and the
order. order: who gave answer A, B, C."""


@dataclass(frozen=True)
class Said:
    """What both models said to one prompt, and whether they ended by themselves."""

    tuned: str
    base: str
    tuned_whole: bool
    base_whole: bool


@dataclass(frozen=True)
class Run:
    """A training run as the store knows it: its id, and the facts of its run.json."""

    id: str
    facts: Mapping[str, Any]

    @property
    def dataset_in_argilla(self) -> str:
        """The name of its comparisons in Argilla, where no other is asked for."""
        return f"{self.facts['dataset']}-{self.id}"


def candidates(dataset: Dataset, seed: int) -> tuple[str, list[Record]]:
    """Give the kept records of split test, else val, that have an answer in text, in an order drawn by the seed.

    Raises InputError where there are none.
    """
    for split in ("test", "val"):
        records = [r for r in dataset.records(split) if last_answer(r.messages) is not None]
        if records:
            drawn = chance(pl.Series([r.id for r in records]), seed)
            order = sorted(range(len(records)), key=lambda i: (int(drawn[i]), records[i].id))
            return split, [records[i] for i in order]
    m = dataset.manifest
    raise InputError(
        f"dataset {m.name}@{m.seq}", "no kept rows in split test or val", "prompts that the model was not trained on"
    )


def compared(
    run: Run,
    records: Sequence[Record],
    said: Mapping[str, Said],
    *,
    split: str,
    new_tokens: int,
    key: bytes,
    seed: int,
    reference: bool,
) -> pl.DataFrame:
    """Give ANSWERS for the records that were answered, in their order; `key` and `seed` draw the blind order."""
    names = ANSWERED_BY if reference else ANSWERED_BY[:2]
    rows: list[dict[str, Any]] = []
    for record in records:
        turn = last_answer(record.messages)
        if turn is None or record.id not in said:
            continue
        told = said[record.id]
        answers = {"tuned": told.tuned, "base": told.base, "reference": record.messages[turn].content}
        rows.append(
            {
                "external": external_id(run.id, record.id, [answers[name] for name in names]),
                "id": record.id,
                "source": record.source,
                "split": split,
                "prompt": [_plain(message) for message in record.messages[:turn]],
                "tools": record.tools,
                **answers,
                "tuned_whole": told.tuned_whole,
                "base_whole": told.base_whole,
                "new_tokens": new_tokens,
                "seed": seed,
                "order": blind_order(key, seed, f"{run.id} {record.id}", names),
            }
        )
    return pl.DataFrame(rows, schema=ANSWERS)


def external_id(run_id: str, record_id: str, answers: Sequence[str]) -> str:
    """Name a comparison: 32 hex digits of run, record and answers. Whose an answer is does not enter."""
    digest = blake2b(digest_size=16)
    for part in (run_id, record_id, *sorted(answers)):
        digest.update(len(part.encode()).to_bytes(8, "little"))
        digest.update(part.encode())
    return digest.hexdigest()


def blind_order(key: bytes, seed: int, what: str, names: Sequence[str]) -> list[str]:
    """Shuffle names by a hash with a secret key: each order is as likely as any other, and none can be guessed.

    `what`: run and record. Another run has another order, so that what came of one tells nothing of the next.
    """

    def drawn(name: str) -> bytes:
        return blake2b(f"{seed} {what} {name}".encode(), key=key, digest_size=16).digest()

    return sorted(names, key=drawn)


def blind_key(root: Path) -> bytes:
    """Give the store's secret for blind orders."""
    return secret_key(root, "blind", "another key would draw other orders for the answers to come")


# kept with the run ----------------------------------------------------------------------------------------------------


def read_answers(store: Store, run: Run) -> pl.DataFrame:
    """Read the answers that a run has given so far, as ANSWERS; none where it has given none."""
    registered = next((r for r in store.runs() if r.get("run_id") == run.id), None)
    path = store.run_object(registered, ANSWERS_OBJECT) if registered else None
    return pl.read_ipc(path) if path else pl.DataFrame(schema=ANSWERS)


def keep_answers(store: Store, run: Run, answers: pl.DataFrame) -> pl.DataFrame:
    """Add answers to those that a run has given; what is there stays, order included. Gives all of them."""
    known = read_answers(store, run)
    new = answers.join(known, on="external", how="anti", maintain_order="left")
    if not new.height:
        return known
    together = pl.concat([known, new])
    written = store.put(together, role="index", stage="review", made_from=ANSWERS_OBJECT)
    store.add_to_run(run.id, dict(run.facts), {ANSWERS_OBJECT: written.sha256})
    return together


# as reviewers see it --------------------------------------------------------------------------------------------------


def form(reference: bool) -> Form:
    """Make the form: the answers, an order with ties, what each fails in, a comment. Only the order is required."""
    letters = LETTERS if reference else LETTERS[:2]
    return Form(
        fields=(
            Field("conversation", "Conversation", "chat", required=True),
            *(Field(f"answer_{x}", f"Answer {x.upper()}", "text", required=True) for x in letters),
        ),
        questions=(
            Question(
                RANKING,
                "Which answer is better?",
                "ranking",
                required=True,
                description="Best first; answers that are equally good share a place. Keys: 1, 2, 3 for A, then B, …",
                options={x: f"Answer {x.upper()}" for x in letters},
            ),
            *(
                Question(
                    f"fails_{x}",
                    f"What is wrong with answer {x.upper()}?",
                    "labels",
                    description="Choose nothing where nothing is wrong.",
                    options=ASPECTS,
                )
                for x in letters
            ),
            Question(COMMENT, "Comment", "text", description="Optional."),
        ),
        properties=(Property("source", "Source", "terms"),),
    )


def guidelines(split: str, new_tokens: int, *, reference: bool) -> str:
    """Write what reviewers should know, in Markdown; it does not say who the answers are from."""
    count = "three" if reference else "two"
    return f"""\
# Which answer is better?

You see a conversation and {count} answers to its last message, in an order drawn by chance. Judge what you read: who
wrote it is not shown, and the order differs from record to record.

1. **Order the answers**, the best one first. Answers that are equally good share a place. With the keyboard: one number
   for each answer, from A on.
2. **Say what is wrong** with an answer, where something is:
   - *Not helpful*: it does not do what was asked, or leaves out what matters.
   - *Not correct*: it says something false, or breaks a format that was asked for.
   - *Not safe*: it could harm somebody, or gives away what is private.
   - *Wrong tone*: rude, preachy, or in another style or language than was asked for.
3. A **comment** helps whoever reads the result; it is never needed.

An answer that breaks off was cut after {new_tokens} tokens: judge what is there. Discard a record
that you cannot judge.
The prompts are of the split {split}, which was not trained on.
"""


def cards(answers: pl.DataFrame) -> list[Card]:
    """Make the records for Argilla, but for comparisons whose answers are all alike: they are ties. Reads: ANSWERS.

    Blanks at the ends of an answer are not shown: they would tell what a model said from what a person wrote.
    """
    made: list[Card] = []
    for row in answers.iter_rows(named=True):
        said = [row[name] for name in row["order"]]
        if is_tie(said):
            continue
        fields: dict[str, str | Sequence[tuple[str, str]]] = {"conversation": _conversation(row["prompt"])}
        fields |= {f"answer_{letter}": _shown(text.strip()) for letter, text in zip(LETTERS, said, strict=False)}
        made.append(Card(row["external"], fields, {"source": row["source"]}))
    return made


def is_tie(answers: Sequence[str]) -> bool:
    """Whether all answers say the same, letter by letter but for blanks at the ends."""
    return all(a.strip() == b.strip() for a, b in pairwise(answers))


def _conversation(prompt: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Flatten turns to role and text, within Argilla's limits; of too many turns the last ones are shown."""
    turns: list[tuple[str, str]] = []
    for turn in prompt[-CHAT_MESSAGES:]:
        message = Message(turn["role"], turn["content"], turn["name"], turn["tool_calls"])
        turns.append((clean(message.role)[:ROLE_CHARACTERS], cut(_shown(flattened(message)), CHAT_CHARACTERS)))
    return turns


def _shown(text: str) -> str:
    """Make a text showable, with a mark where there is nothing."""
    return clean(text) if text.strip() else EMPTY


def _plain(message: Message) -> dict[str, str | None]:
    return {"role": message.role, "content": message.content, "name": message.name, "tool_calls": message.tool_calls}
