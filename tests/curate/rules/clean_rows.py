"""Clean rows, drawn by seed, that look like defects: right sums, code with indexes and comments, closed fences, lists,
quizzes with right answers, dialogues that were asked for, answers of one word, foreign answers to foreign questions.
"""

import random
from collections.abc import Callable

from curate.rules.rule import Example

PLACES = [
    "harbour",
    "mill",
    "orchard",
    "station",
    "library",
    "bakery",
    "lighthouse",
    "quarry",
    "ferry",
    "museum",
    "school",
    "farm",
]
THINGS = ["boat", "lamp", "clock", "bridge", "kettle", "ladder", "barrel", "engine", "window", "basket", "map", "wheel"]
PEOPLE = ["Mara", "Otto", "Ida", "Noor", "Tomas", "Lene", "Piet", "Anouk", "Jonas", "Sofia"]
DEEDS = ["repairs", "paints", "carries", "cleans", "sells", "builds", "draws", "opens", "guards", "measures"]
TIMES = [
    "in spring",
    "before dawn",
    "after lunch",
    "on Sundays",
    "in heavy rain",
    "once a month",
    "at low tide",
    "in the cold months",
]
ADJECTIVES = ["old", "narrow", "quiet", "bright", "heavy", "famous", "small", "northern", "wooden", "busy"]


def fact(draw: random.Random) -> str:
    """Give a sentence that is right and whole."""
    a, b = draw.choice(PEOPLE), draw.choice(ADJECTIVES)
    thing, place, other = draw.choice(THINGS), draw.choice(PLACES), draw.choice(PLACES)
    return draw.choice(
        [
            f"{a} {draw.choice(DEEDS)} the {b} {thing} near the {place} {draw.choice(TIMES)}.",
            f"The {place} lies behind the {b} {other}, where every {thing} is counted {draw.choice(TIMES)}.",
            f"Nobody at the {place} has seen a {thing} as {b} as the one that {a} owns.",
            f"With a good {thing}, the way from the {place} to the {other} takes {draw.randint(2, 58)} minutes.",
            f"Since {draw.randint(1801, 1999)} the {b} {place} has kept its {thing} for the guests of {a}.",
        ]
    )


def prose(draw: random.Random, least: int = 2, most: int = 6) -> str:
    return " ".join(fact(draw) for _ in range(draw.randint(least, most)))


def question(draw: random.Random) -> str:
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    return draw.choice(
        [
            f"What should a visitor know about the {place} and its {thing}?",
            f"Explain why the {place} needs a {thing} {draw.choice(TIMES)}.",
            f"Tell me about the {draw.choice(ADJECTIVES)} {thing} of {draw.choice(PEOPLE)}.",
            f"How does {draw.choice(PEOPLE)} get from the {place} to the {draw.choice(PLACES)}?",
            f"Describe a day at the {place}.",
        ]
    )


def plain(draw: random.Random) -> Example:
    return Example(question(draw), prose(draw))


def about(draw: random.Random) -> Example:
    return Example(f"Summarise the text about the {draw.choice(PLACES)}.", prose(draw, 1, 3), context=prose(draw, 3, 6))


def _word(draw: random.Random) -> Example:
    return Example(f"Name one thing that is found at a {draw.choice(PLACES)}.", draw.choice(THINGS).capitalize())


def _number(draw: random.Random) -> Example:
    return Example(f"How many barrels are on the {draw.choice(PLACES)}'s list?", str(draw.randint(0, 99)))


def _sum(draw: random.Random) -> Example:
    a, b, c = draw.randint(3, 90), draw.randint(3, 40), draw.randint(2, 9)
    said = draw.choice(
        [
            f"There are {a} + {b} = {a + b} boats in all.",
            f"First, {a} * {c} = {a * c}. Then {a * c} - {b} = {a * c - b}.",
            f"{b} out of {a + b} is {b} / {a + b} = {b / (a + b):.2f}, which is about {100 * b / (a + b):.0f}%.",
            f"Each pays ${a}.50, so {c} pay $ {a}.50 x {c} = ${a * c + c / 2:.2f}.",
            f"The rest is ({a} + {b}) * {c} = {a + b} * {c} = {(a + b) * c}.",
            f"20% of {a * 5} is {a}, and {a * 5} - {a} = {a * 4}.",
            f"Solve 2x - {a} = {a}: 2x = {2 * a}, so x = {a}. Step 1 - {a} + {b} = {a + b}.",
        ]
    )
    return Example(f"Work out what {draw.choice(PEOPLE)} has at the {draw.choice(PLACES)}.", said)


def _code(draw: random.Random) -> Example:
    name, size = draw.choice(THINGS), draw.randint(2, 9)
    body = f"def {name}s(items):\n    total = items[0] + items[{size}]\n    # add the {name}\n    return total"
    closed = draw.choice([f"```python\n{body}\n```", f"Here it is:\n\n```\n{body}\n```\n\nIt adds two of them.", body])
    return Example(f"Write a function that adds two {name}s of a list.", closed)


def _list(draw: random.Random) -> Example:
    lines = [f"{i}. The {draw.choice(ADJECTIVES)} {draw.choice(THINGS)}" for i in range(1, draw.randint(4, 8))]
    return Example(f"List things to see at the {draw.choice(PLACES)}.", "\n".join(lines))


def _quiz(draw: random.Random) -> Example:
    some = draw.sample(THINGS, 4)
    prompt = f"Which of these is at the {draw.choice(PLACES)}?\n" + "\n".join(
        f"({letter}) a {thing}" for letter, thing in zip("ABCD", some, strict=True)
    )
    right = draw.randrange(4)
    return Example(
        prompt,
        draw.choice(
            [f"({'ABCD'[right]})", f"{'ABCD'[right]}", f"a {some[right]}", f"The answer is ({'ABCD'[right]})."]
        ),
    )


def _dialogue(draw: random.Random) -> Example:
    turns = "\n".join(f"{who}: {fact(draw)}" for who in ("User", "Assistant", "User", "Assistant"))
    return Example(f"Write a dialogue about the {draw.choice(PLACES)}.", turns)


def _german(draw: random.Random) -> Example:
    return Example(
        f"Was weiß man über die alte Mühle von {draw.choice(PEOPLE)}?",
        f"Die Mühle steht seit {draw.randint(1700, 1900)} am Fluss, und im Winter ist sie nicht offen,"
        " weil das Wasser zu kalt ist.",
    )


def _chatty(draw: random.Random) -> Example:
    return Example(
        question(draw),
        draw.choice(
            [
                "I'm sorry to hear that. ",
                "I am an engineer from the north. ",
                "As of my last visit, it was open. ",
                "Unfortunately it rained. ",
            ]
        )
        + prose(draw, 1, 3),
    )


CLEAN: list[Callable[[random.Random], Example]] = [
    *(
        plain,
        plain,
        plain,
        about,
        about,
        _word,
        _number,
        _sum,
        _sum,
        _code,
        _list,
        _quiz,
        _dialogue,
        _german,
        _chatty,
    )
]
