"""The stress set: defects planted in clean rows by seed, in other words than the rules were written with."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from curate.rules.rule import Example
from tests.curate.rules.clean_rows import ADJECTIVES, CLEAN, PEOPLE, PLACES, THINGS, about, fact, plain, prose, question

FORMATS = ("alpaca", "dolly", "openorca")


@dataclass(frozen=True)
class Planted:
    """A row, the format of its source, and the name of the rule whose defect it has (None: none)."""

    row: Example
    format: str
    rule: str | None


Plant = Callable[[random.Random], Example]


def pick(draw: random.Random, words: str) -> str:
    """Draw one of some texts, which stand between broken bars."""
    return draw.choice(words.split("¦"))


def _answer(make: Callable[[random.Random], str]) -> Plant:
    return lambda draw: replace(plain(draw), answer=make(draw))


def _about(prompt: str, words: str) -> Plant:
    """Plant a context; {} stands for a thing."""
    return lambda draw: Example(
        f"{prompt} ({draw.choice(PLACES)}, {draw.randint(1, 999)})",
        prose(draw),
        context=pick(draw, words).format(draw.choice(THINGS)),
    )


def _after(words: str, *, fold: str = "{fact} {words}") -> Plant:
    return _answer(lambda draw: fold.format(fact=fact(draw), words=pick(draw, words)))


def _wrong_sum(draw: random.Random) -> str:
    a, b, c, off = draw.randint(11, 90), draw.randint(3, 40), draw.randint(2, 9), draw.choice([-10, -3, -2, 2, 3, 10])
    return draw.choice(
        [
            f"In all that makes {a} + {b} = {a + b + off} of them.",
            f"The price is {a} x {c} = {a * c + off}.",
            f"We subtract: {a} - {b} = {a - b + off}",
            f"So the result is ({a} + {b}) * {c} = {(a + b) * c + off}.",
            f"25% of {a * 4} is {a + off}.",
            f"{a} times {c} equals {a * c + off}.",
            f"Every guest pays ${a}.25, and ${a}.25 * {c} = ${a * c + c / 4 + off:.2f}.",
            f"{a * c} ÷ {c} = {a + off}, as one can check.",
            f"1. Add them: {a} + {b} + {c} = {a + b + c + off}\n2. Write it down.",
            f"Half of it is {2 * a} / 2 = {a + off}.",
            f"The area is {a} × {b} = {a * b + off}, and that is all.",
        ]
    )


def _copied_options(draw: random.Random) -> Example:
    some = draw.sample(THINGS, draw.randint(3, 5))
    lettered = "\n".join(f"({c}) {x}" for c, x in zip("ABCDE", some, strict=False))
    listed = draw.choice(["\n".join(f"- {x}" for x in some), lettered])
    head = pick(draw, "Options:¦OPTIONS:¦Choices:¦Available options:¦Select from the following.\nOptions:")
    prompt = f"Which one is kept at the {draw.choice(PLACES)}?\n{head}\n{listed}"
    return Example(prompt, draw.choice([listed, ", ".join(some), f"{listed}\n", " / ".join(some)]))


def _no_such_option(draw: random.Random) -> Example:
    some = draw.sample(THINGS, 3)
    style = pick(draw, "({}) {}¦{}) {}¦{}. {}¦{}: {}")
    listed = "\n".join(style.format(c, x) for c, x in zip("ABC", some, strict=True))
    said = pick(draw, "{}¦({})¦The answer is {}.¦Answer: {}¦Option {}¦{}.¦The correct answer is ({}).")
    return Example(f"Which one floats at the {draw.choice(PLACES)}?\n{listed}", said.format(draw.choice("DEFG")))


def _merged(draw: random.Random) -> str:
    n, kind = draw.randint(2, 30), pick(draw, "Input¦Output¦Response")
    line = pick(draw, "¦###\n¦---\n¦\n\n¦* * *\n")
    head = pick(draw, "Instruction¦Task¦instruction")
    return f"{prose(draw)}\n{line}{n}. {head}: {question(draw)}\n{n}. {kind}:\n{fact(draw)}"


def _loop(draw: random.Random) -> str:
    near = f"near the {draw.choice(PLACES)} of {draw.choice(PEOPLE)}"
    piece = draw.choice([f"the {draw.choice(THINGS)} and", draw.choice(ADJECTIVES), near])
    return f"{fact(draw)} It is {' '.join([piece] * draw.randint(8, 20))}"


def _chorus(draw: random.Random) -> str:
    return f"{prose(draw, 1, 3)} " + f"{fact(draw)} {fact(draw)} " * draw.randint(5, 9) + fact(draw)


def _cited(draw: random.Random) -> str:
    sentences = [fact(draw) for _ in range(4)]
    some = (
        "[citation needed]¦[note 3]¦[4][5]¦[better source needed]¦[when?]¦[a]¦[12, 13]¦[nb 2]¦[who?]"
        "¦[according to whom?]"
    )
    sentences[draw.randrange(4)] += draw.choice([f"[{draw.randint(1, 99)}]", pick(draw, some)])
    return " ".join(sentences)


def _cut(draw: random.Random) -> str:
    return " ".join(prose(draw, 3, 6).split()[: -draw.randint(2, 4)])


def _mojibake(draw: random.Random) -> str:
    words = (
        "café¦naïve¦Müller’s¦crème brûlée¦“quoted”¦São Paulo¦El Niño¦jalapeño – hot¦façade¦€ 20"
        "¦Zürich’s Bäckerei¦smørrebrød"
    )
    word = pick(draw, words)
    try:
        broken = word.encode().decode(draw.choice(["cp1252", "latin-1"]))
    except UnicodeDecodeError:
        broken = word.encode().decode("latin-1")
    return f"{fact(draw)} They call it {broken} at the {draw.choice(PLACES)}."


def _equal_prompt(draw: random.Random) -> Example:
    asked = question(draw)
    return Example(asked, asked.replace(" ", "  ", 1))


def _equal_context(draw: random.Random) -> Example:
    text = prose(draw)
    return Example(f"Correct the spelling ({draw.randint(1, 999)}).", text, context=f"{text} ")


def _out_of_order(draw: random.Random) -> Example:
    said = ("assistant", fact(draw))
    return Example(turns=draw.choice([(("user", question(draw)), said, said), (said, ("user", question(draw)), said)]))


OTHERS = (
    "Die alte Mühle steht am Fluss, und im Winter ist sie nicht geöffnet, weil das Wasser zu kalt für die Räder ist. "
    "Wer sie sehen will, kann mit dem Boot fahren oder zu Fuß gehen.",
    "Le vieux moulin se trouve près de la rivière, mais il est fermé en hiver parce que l'eau est trop froide. "
    "Vous pouvez y aller avec le bateau ou à pied, et c'est une belle promenade dans les bois.",
    "El viejo molino está cerca del río, pero no se abre en invierno porque el agua es demasiado fría para las ruedas. "
    "Se puede llegar con el barco o a pie, y es un paseo muy bonito por los bosques.",
    "Старая мельница стоит у реки, но зимой она закрыта, потому что вода слишком холодная для её колёс.",
    "De oude molen staat bij de rivier, maar in de winter is hij niet open omdat het water te koud is voor de wielen. "
    "Wie hem wil zien, kan met de boot gaan of te voet.",
    "Il vecchio mulino si trova vicino al fiume, ma in inverno non è aperto perché l'acqua è troppo fredda. "
    "Si può andare con la barca o a piedi, ed è una bella passeggiata nel bosco.",
)
CODE = "def total(items):\n    result = 0\n    for item in items:\n        result += item\n    return result"
WRITE_CODE = "Write a function that adds all items."

PLANTS: dict[str, Plant] = {
    "rule:no_user_turn": lambda draw: Example(pick(draw, "¦\n¦  ¦\t"), prose(draw)),
    "rule:last_turn_not_assistant": lambda draw: Example(
        turns=(("user", question(draw)), ("assistant", prose(draw)), ("user", question(draw)))
    ),
    "rule:roles_out_of_order": _out_of_order,
    "rule:empty_response": _answer(lambda draw: pick(draw, "¦ ¦\n\n¦\t\n")),
    "rule:placeholder_response": _answer(
        lambda draw: pick(
            draw,
            "No output.¦<no output>¦nooutput¦n/a¦(N/A)¦TBD¦[answer here]¦<Insert response here>¦....¦____"
            "¦No response required"
            "¦Not applicable¦<TODO>¦[Your response]¦no_output¦No output was given¦N.A.¦???",
        )
    ),
    "fix:placeholder_context": _about(
        "Say something about the place.",
        "No input.¦[No input]¦<noinput/>¦no input was given¦NO INPUT REQUIRED¦n/a¦(N/A)¦Not applicable"
        "¦<none>¦[empty]¦no-input"
        "¦No additional input needed.¦No context given¦No further input is required¦*No input*"
        "¦no input available¦No Input Provided",
    ),
    "rule:response_equals_prompt": _equal_prompt,
    "rule:empty_code": lambda draw: Example(
        f"Write code that counts {draw.choice(THINGS)}s.",
        pick(
            draw,
            "```\n\n```¦```js\n// your code here\n```¦[code here]¦<insert code>¦```python\n# TODO\n```"
            "¦# write your code here"
            "¦```c\n/* code goes here */\n```¦```java\n// ...\n```¦[Source code]",
        ),
    ),
    "rule:merged_instruction": _answer(_merged),
    "rule:special_tokens": _answer(
        lambda draw: (
            fact(draw)
            + pick(draw, "<|im_end|>¦<|eot_id|>¦<|endoftext|>¦[/INST]¦<end_of_turn>¦<<SYS>>¦<|end|>¦<|im_start|>")
            + pick(draw, "\n¦\nuser ")
            + fact(draw)
        )
    ),
    "fix:edge_tokens": _answer(
        lambda draw: pick(
            draw,
            "{}</s>¦{}<|im_end|>¦{}\n<|endoftext|>¦<s> {}¦### Response:\n{}¦[/INST] {}¦{}<|eot_id|>¦<bot>: {}"
            "¦{} <end_of_turn>¦<|assistant|>\n{}¦{}[EOS]¦{}<eos>¦## Answer: {}",
        ).format(prose(draw))
    ),
    "rule:template_residue": _answer(
        lambda draw: (
            f"{prose(draw)}\n\n"
            + pick(draw, "### Instruction:¦### Input:¦### Human:¦## Response:¦### User:¦###Response:¦### Assistant :")
            + pick(draw, " ¦\n")
            + question(draw)
        )
    ),
    "flag:speaker_leak": _answer(
        lambda draw: (
            f"{fact(draw)}\n{pick(draw, 'Human:¦User:¦USER:¦Human :¦HUMAN:')} {question(draw)}\n"
            f"{pick(draw, 'Assistant:¦AI:¦ASSISTANT:')} {fact(draw)}"
        )
    ),
    "rule:provider_identity": lambda draw: Example(
        pick(draw, "Hello, who is there?¦Are you a person?¦What are you called?¦Do you sleep?"),
        pick(
            draw,
            "I'm ChatGPT, and I can tell you a lot.¦I am Claude, made to be of use.¦I was trained by OpenAI to talk."
            "¦As a large language model trained by Google, I like words.¦My name is Bard, nice to meet you."
            "¦Hello! I am an AI assistant created by Anthropic.¦I'm a virtual assistant developed by Microsoft."
            "¦No. I am GPT-4, a program.¦Sure! I'm just a language model made by Meta AI, so no.",
        ),
    ),
    "flag:refusal": _after(
        "I'm sorry, but I cannot provide that.¦I can't help with this.¦I am unable to access the page."
        "¦Sorry, I can't create drawings.¦I cannot fulfill this request.¦Unfortunately, I'm not able to browse."
        "¦Sorry, but this task needs a picture.¦I apologize, but I can't assist with that.¦I won't write this.",
        fold="{words} {fact}",
    ),
    "flag:ai_self_reference": _after(
        "As an AI language model, I have no legs.¦Being an AI, I do not eat.¦Remember that I am a language model."
        "¦I’m just an AI, after all.¦But as a language model I cannot see it."
    ),
    "flag:knowledge_cutoff": _after(
        "As of my last update in 2021, it was open.¦My knowledge cutoff is September 2021."
        "¦My training data only goes up to 2021.¦I do not have access to real-time data."
        "¦This may have changed since my last training.¦I don’t have access to live information."
        "¦That was after my knowledge cut-off.¦I cannot browse live news.¦My knowledge is limited to 2021."
    ),
    "flag:placeholder_context": _about("Say something about the place.", "None¦null¦(empty¦Blank.¦nil¦none."),
    "flag:url_only_context": _about(
        "Summarise the article.",
        "https://www.example.org/{}¦http://example.net/a/{}.html¦www.example.com/{}¦<https://example.com/{}>"
        "¦HTTPS://EXAMPLE.COM/{}¦https://example.com/{}\nhttps://example.com/2",
    ),
    "flag:missing_media": _about(
        "Say what can be seen here.",
        "[image]¦<Photo of a {}>¦(attached picture)¦![{}](https://example.org/1.png)¦[Video]¦[see the attached file]"
        "¦(link to image)¦[Picture of the {}]¦See the attached document.¦[insert image here]¦The image is attached.",
    ),
    "flag:missing_input": lambda draw: Example(
        pick(
            draw,
            "Rewrite the following sentence in the passive voice.¦Sort the given list by size."
            "¦Correct these sentences."
            "¦Find the mistake in the provided code.¦Shorten the following paragraph to one line."
            "¦What is the tone of the given passage?¦Classify the following items."
            "¦Count the vowels in the given words."
            "¦Summarize the following article in one sentence.¦Proofread the text below.",
        ),
        fact(draw),
    ),
    "flag:response_equals_context": _equal_context,
    "flag:nonsense_prompt": lambda draw: Example(
        pick(draw, "asdfghj¦qwerty uiopqwe¦sdfgh jkl¦????!!¦zxcvbn¦......¦xkcdqwrt¦hjkl;asdf¦fghjkl¦#$%^&"), prose(draw)
    ),
    "fix:mojibake": _answer(_mojibake),
    "fix:open_fence": lambda draw: Example(
        WRITE_CODE, f"{pick(draw, 'Here you are:¦This does it:¦Try this.')}\n\n```{pick(draw, 'python¦py¦')}\n{CODE}"
    ),
    "flag:broken_fence": lambda draw: Example(
        WRITE_CODE,
        f"```{pick(draw, 'python¦')}\n{CODE}\n\n"
        + pick(draw, "This function adds all of the items that it is given.¦You can call it with a list of numbers."),
    ),
    "flag:repeated_characters": _answer(
        lambda draw: f"{fact(draw)} {pick(draw, 'No¦Yes¦Wa')}{draw.choice('oah!?') * draw.randint(14, 40)}"
    ),
    "flag:repeated_words": _answer(_loop),
    "flag:repeated_sentences": _answer(_chorus),
    "flag:wrong_arithmetic": _answer(_wrong_sum),
    "flag:unfinished": _answer(
        lambda draw: (
            f"{prose(draw, 2, 5)} {draw.choice(PEOPLE)} likes it"
            + pick(draw, " and¦ because¦,¦ with the¦ such as¦ or¦ while¦ but¦ (¦ of¦ although¦ for the¦ which")
        )
    ),
    "flag:other_language": _answer(
        lambda draw: f"{draw.choice(OTHERS)} ({draw.choice(PEOPLE)}, {draw.randint(1, 99)})"
    ),
    "fix:citation_marks": lambda draw: replace(about(draw), context=_cited(draw)),
    "flag:cut_context": lambda draw: replace(about(draw), context=_cut(draw)),
    "flag:options_copied": _copied_options,
    "flag:unknown_option": _no_such_option,
}

OWN_FORMAT = {
    "rule:merged_instruction": "alpaca",
    "flag:missing_input": "alpaca",
    "fix:citation_marks": "dolly",
    "flag:cut_context": "dolly",
    "flag:options_copied": "openorca",
    "flag:unknown_option": "openorca",
}
"""Where a pack of one format judges, its defects are planted in rows of that format."""


def stress_set(rows: int, *, share: float = 0.01, seed: int = 20261) -> list[Planted]:
    """Give rows of which a share has each defect, and none has two; the others are clean."""
    draw = random.Random(seed)
    made = [
        Planted(plant(draw), OWN_FORMAT.get(name) or draw.choice(FORMATS), name)
        for name, plant in PLANTS.items()
        for _ in range(round(rows * share))
    ]
    made += [Planted(draw.choice(CLEAN)(draw), draw.choice(FORMATS), None) for _ in range(rows - len(made))]
    draw.shuffle(made)
    return made
