"""A small world of people, sums and words: its facts as statements and as questions, and rows with faults planted.

Half of the facts may stand in rows to train on, the other half are kept for the test. Every fault is as often as every
other, and together with the copies they make up 30% of the rows.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

FAULTY_SHARE = 0.3

CITIES = ("Oslo", "Lima", "Kyiv", "Bern", "Rome", "Cairo", "Delhi", "Quito", "Hanoi", "Paris")
PETS = ("cat", "dog", "hen", "fox", "owl", "pony", "crab", "newt", "goat", "hare")
COLOURS = ("red", "blue", "green", "amber", "pink", "grey", "black", "white", "gold", "teal")
SYLLABLES = ("ma", "ri", "to", "ke", "lu", "na", "so", "vi", "pe", "da")
ENDINGS = ("n", "l", "r", "s", "k")


@dataclass(frozen=True)
class Fact:
    """Something that is so: statements of it for the base model, and questions about it with the one answer."""

    kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Row:
    """A question and its answer; `fault` names what was done to it."""

    question: str
    answer: str
    kind: str
    fault: str | None = None


@cache
def world() -> tuple[Fact, ...]:
    """Make all facts, in an order that a seed has drawn."""
    draw = random.Random(0)
    facts: list[Fact] = []
    people = [(a + b + c).capitalize() for a in SYLLABLES for b in SYLLABLES for c in ENDINGS]
    for person in draw.sample(people, 160):
        city, pet, colour = draw.choice(CITIES), draw.choice(PETS), draw.choice(COLOURS)
        facts += [
            Fact(
                "city",
                (f"{person} lives in {city}.", f"The home of {person} is {city}."),
                (f"Where does {person} live?", f"Name the city {person} lives in.", f"What is the home of {person}?"),
                city,
            ),
            Fact(
                "pet",
                (f"{person} has a {pet}.", f"The pet of {person} is a {pet}."),
                (f"Which pet does {person} have?", f"Name the pet of {person}.", f"What animal does {person} keep?"),
                pet,
            ),
            Fact(
                "colour",
                (f"{person} likes {colour}.", f"The colour of {person} is {colour}."),
                (f"Which colour does {person} like?", f"Name the colour of {person}.", f"What does {person} like?"),
                colour,
            ),
        ]
    for a in range(1, 31):
        for b in range(1, 31):
            facts.append(
                Fact(
                    "sum",
                    (f"{a} + {b} = {a + b}.",),
                    (f"What is {a} + {b}?", f"Compute {a} + {b}.", f"Add {a} and {b}."),
                    str(a + b),
                )
            )
    words = [a + b for a in SYLLABLES for b in SYLLABLES] + [
        a + b + c for a in SYLLABLES[:5] for b in SYLLABLES[:6] for c in ENDINGS
    ]
    for word in draw.sample(words, 200):
        facts += [
            Fact(
                "reverse",
                (f"{word} reversed is {word[::-1]}.",),
                (f"Reverse the word {word}.", f"Write {word} backwards.", f"Spell {word} from end to start."),
                word[::-1],
            ),
            Fact(
                "capitals",
                (f"{word} in capitals is {word.upper()}.",),
                (f"Put {word} in capitals.", f"Write {word} in upper case.", f"Make every letter of {word} large."),
                word.upper(),
            ),
        ]
    draw.shuffle(facts)
    return tuple(facts)


def halves() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Give the facts that rows may ask about, and those that only the test asks about."""
    facts = world()
    return facts[: len(facts) // 2], facts[len(facts) // 2 :]


def clean_rows(seed: int, count: int) -> list[Row]:
    draw = random.Random(f"clean {seed}")
    seen, _ = halves()
    asked = [(fact, question) for fact in seen for question in fact.questions]
    draw.shuffle(asked)
    return [Row(question, fact.answer, fact.kind) for fact, question in asked[:count]]


def _wrong(row: Row, draw: random.Random, others: Sequence[Row]) -> Row:
    other = draw.choice([r for r in others if r.kind == row.kind and r.answer != row.answer])
    return Row(row.question, other.answer, row.kind, "wrong answer")


def _swapped(row: Row, draw: random.Random, others: Sequence[Row]) -> Row:
    other = draw.choice([r for r in others if r.kind != row.kind])
    return Row(row.question, other.answer, row.kind, "answer of another question")


def _refusal(row: Row, draw: random.Random, _: Sequence[Row]) -> Row:
    said = draw.choice(
        (
            "I'm sorry, but as an AI language model I cannot answer that question.",
            "As an AI language model, I do not have access to this information.",
            "I'm sorry, but I can't assist with that request.",
        )
    )
    return Row(row.question, said, row.kind, "refusal")


def _residue(row: Row, _: random.Random, __: Sequence[Row]) -> Row:
    return Row(row.question, f"{row.answer}\n\n### Instruction:\n{row.question}", row.kind, "template residue")


def _echo(row: Row, _: random.Random, __: Sequence[Row]) -> Row:
    return Row(row.question, row.question, row.kind, "answer repeats the question")


def _loop(row: Row, draw: random.Random, _: Sequence[Row]) -> Row:
    return Row(row.question, " ".join([row.answer] * draw.randint(8, 16)), row.kind, "answer loops")


def _empty(row: Row, _: random.Random, __: Sequence[Row]) -> Row:
    return Row(row.question, "", row.kind, "empty answer")


def _copy(row: Row, _: random.Random, __: Sequence[Row]) -> Row:
    return Row(row.question, row.answer, row.kind, "copy")


FAULTS: tuple[Callable[[Row, random.Random, Sequence[Row]], Row], ...] = (
    _wrong,
    _swapped,
    _refusal,
    _residue,
    _echo,
    _loop,
    _empty,
    _copy,
)


def damaged_rows(seed: int, clean: Sequence[Row]) -> list[Row]:
    """Damage rows, each fault as often as the others, and add copies, until 30% of all rows are faulty or copies."""
    draw = random.Random(f"damaged {seed}")
    per_fault = round(FAULTY_SHARE * len(clean) / (len(FAULTS) - FAULTY_SHARE))
    rows = list(clean)
    at = iter(draw.sample(range(len(rows)), per_fault * (len(FAULTS) - 1)))
    for fault in FAULTS:
        for _ in range(per_fault):
            if fault is _copy:
                rows.append(_copy(draw.choice(clean), draw, clean))
            else:
                i = next(at)
                rows[i] = fault(clean[i], draw, clean)
    draw.shuffle(rows)
    return rows
