"""Good rows that a hasty rule would reject or change: they speak of tokens, templates, placeholders and names."""

from curate.normalize import normalize_row
from curate.rules.rule import Example
from curate.store import Store
from schemas.config import NormalizeConfig
from tests.curate.rules.conftest import Said

GOOD = [
    Example(
        "How does ChatML mark turns?", "Each turn begins with <|im_start|> and the role, and closes with <|im_end|>."
    ),
    Example("Which format does Mistral 7B Instruct expect?", "Put the request between [INST] and [/INST]."),
    Example("When does a seq2seq decoder stop?", "It stops as soon as it writes <eos>, or at the length limit."),
    Example("What ends a sequence in Llama's vocabulary?", "The end of a sequence is written </s>"),
    Example("How do I strike a word out in HTML?", "Put it between tags: <s>word</s>"),
    Example("Strike out the word old in HTML.", "<s>old</s>"),
    Example(
        "Write a short scene between a clerk and a customer.",
        "ASSISTANT: Good morning!\nCUSTOMER: Hello, I need a lamp.",
    ),
    Example(
        "Document the endpoint /boats.",
        "## GET /boats\nLists boats.\n\n### Response:\nA list of boats as JSON.\n\n### Errors:\n404",
    ),
    Example(
        "State a programming contest problem about boats.",
        "# Boats\nCount the boats.\n\n### Input:\nOne number n.\n\n### Output:\nThe count.",
    ),
    Example(
        "Explain how to fine-tune on Alpaca data.",
        "Format each row so:\n\n```\n### Instruction:\n{instruction}\n\n### Response:\n{output}\n```\n\nThen train.",
    ),
    Example("My sign is Gemini. What about today?", "As Gemini, you will be curious today. Talk to a friend."),
    Example("Translate: Je m'appelle Claude et j'habite à Lyon.", "My name is Claude and I live in Lyon."),
    Example(
        "What is GPT-3?",
        "GPT-3 was introduced in 2020 as a large language model developed by OpenAI, with 175 billion parameters.",
    ),
    Example("What is BERT?", "BERT is known as a language model developed by Google. It reads both directions."),
    Example("What does TBD stand for?", "To be determined."),
    Example("What does N/A stand for?", "Not applicable"),
    Example("Give the abbreviation of 'not applicable'.", "N/A"),
    Example("Extract the phone number, or say N/A where there is none: Lena lives in Bonn.", "N/A"),
    Example("What does `x = 5` print when it is run as a Python script?", "No output."),
    Example("What is the null-coalescing operator of C#?", "??"),
    Example("How does a comment begin in SQL?", "--"),
    Example("Which operator takes one off a variable in C?", "--"),
    Example("Write an ellipsis.", "..."),
    Example("What does [None] * 1 give in Python?", "[None]"),
    Example("Which mark do programmers leave where work is left to do?", "TODO"),
    Example("Count the vowels in 'tea'.", "2"),
    Example("Is 7 prime?", "Yes"),
    Example("Nenne die Hauptstadt von Frankreich.", "Paris"),
    Example("日本の首都はどこですか。", "東京"),
    Example("Write a haiku on rain.", "Rain on the old roof\nthe cat listens in the dark\nand the gutter sings"),
    Example("What is the value of 5 mod 3?", "5 mod 3 = 2"),
    Example("Write a refrain.", "Row, row, row your boat\nRow, row, row your boat\nGently down the stream"),
    Example("You are a pirate. Who are you?", "I am Captain Rum, and I was made by the sea!"),
    Example("Write the closing tag of <s>.", "</s>"),
    Example("Why does é show up as Ã© in my file?", "It was UTF-8 and was read as Latin-1, so that é became Ã©."),
    Example(
        "Show a Jinja loop over messages.",
        "```jinja\n{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\n```",
    ),
    Example("What is [1] in maths?", "The set [1] is {1}."),
    Example(
        "Make three tasks for a dataset.",
        "1. Instruction: Name a tree.\n1. Output: Oak.\n2. Instruction: Name a bird.\n2. Output: Owl.",
    ),
    Example("Define a quadratic.", "A polynomial of degree two, such as x^2 + 3x + 2 = 0."),
    Example("Who said 'I think, therefore I am'?", "Descartes"),
    Example("Give the regex for a digit.", "\\d"),
    Example("What is the antonym of something?", "Nothing"),
    Example("Name the chemical symbol of sodium.", "Na"),
    Example("How do you say nothing in Latin?", "nil"),
    Example("Schreibe ein Gedicht über den Herbst.", "Blätter fallen, leis und sacht,\nNebel zieht in stiller Nacht."),
    Example("Describe an incident with a robot voice.", "Human: the word means a person.\nHumane: kind."),
    Example("Ask me a question about maps.", "Here is one.\nQuestion: What is a legend?\nThink about it."),
    Example("Write pseudo code for a stack.", "push(x)\npop()\n\n```\nstack = []\n```"),
    Example("Expand this abbreviation.", "Not applicable", context="N/A"),
    Example("How long is this JSON array?", "One element.", context="[null]"),
    Example("What does this say in Python?", "A list with None.", context="[None]"),
    Example("Correct the grammar.", "She sells shells.", context="She sells shells."),
    Example(
        "She sells shells.",
        "She sells shells.",
        system="You correct the spelling of what the user writes and give the text back.",
    ),
    Example("Who are you?", "I'm Ada.", system="You are Ada, a helper made by Meta."),
]


def test_good_rows_are_neither_rejected_nor_changed(module_store: Store) -> None:
    found = Said(module_store, {"alpaca": GOOD, "dolly": GOOD}).names
    wrong = [
        (GOOD[i], name)
        for names in found.values()
        for i, some in enumerate(names)
        for name in some
        if not name.startswith("flag:")
    ]
    assert wrong == []


def test_what_a_fix_writes_is_normal_already(module_store: Store) -> None:
    """Misread letters may be marks of no width, parts of letters or blanks, which normalize would edit next time."""
    texts = [
        "It rains.\u00e2\u20ac\u2039",
        "\u00ef\u00bb\u00bfIt rains.",
        "caf e\u00cc\x81t\u00c3\u00a9",
        "<s>\n   It rains.",
    ]
    texts += ["### Response:\n   It rains.", "It\u00c2\xad rains."]
    said = Said(module_store, {"dolly": [Example(answer=text) for text in texts]})
    assert all(names for names in said.names["dolly"])
    for messages, context in said.texts("messages", "context").iter_rows():
        assert normalize_row(messages, context, NormalizeConfig()).edits == ()
