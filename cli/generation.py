"""`sft generate`: one prompt, a file of them, or a conversation."""

import json as json_text
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from cli.extras import needs_torch, quiet_transformers
from cli.options import build, config_options
from cli.render import number, print_json, say
from schemas.errors import CheckFailedError, ConfigError, InputError, RunInterruptedError
from schemas.eval_config import GenerateConfig

if TYPE_CHECKING:
    from train.evaluation.chat import Chat

PIECE = 256
"""Lines that are answered together: enough to make batches of prompts of like lengths."""
SHOWN_BAD = 20
"""Bad lines that are named; the rest is counted."""

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Ask a trained model."""


@app.command("generate", epilog="Example: sft generate runs/first 'Why is the sky blue?' --new-tokens 32")
@config_options(GenerateConfig, "given")
def generate(
    given: dict[str, Any],
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a finished run; or a model's folder or hub id.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to ask; without it, and on a terminal, a conversation."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="FILE|-", help="Ask each line: plain text, or JSON with prompt or messages. - is stdin."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the answers there, a line of JSON each; by default to stdout.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="A system turn before each prompt that has none of its own.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout; with --input, one for each line.")
    ] = False,
) -> None:
    """Ask a trained model: one prompt, each line of a file, or in a conversation on the terminal.

    The chat template and the stop tokens are those of the training. Answers are greedy unless --temperature is given;
    what is drawn then depends on the prompt, on how often it was asked before, and on --seed. Bad lines are named and
    left out (exit code 1).
    """
    needs_torch("sft generate")
    from train.evaluation.chat import Chat

    if prompt is not None and source is not None:
        raise ConfigError("--input", "together with a prompt", "one of the two")
    if prompt is None and source is None:
        if not sys.stdin.isatty():
            source = "-"
        elif json or out:
            raise ConfigError("--json" if json else "--out", "without a prompt or --input", "one of them")
    if out and source is None:
        raise ConfigError("--out", "without --input", "a file of prompts")
    config = build(GenerateConfig, given, where="generate")
    quiet_transformers()
    with _lines(source) as lines, _answers_to(out) as answers:
        chat = Chat.load(run, config)
        if not json:
            for note in chat.notes:
                say(note)
        if lines is not None:
            _answer_all(chat, lines, answers, source or "-", system, quiet=json)
        elif prompt is not None:
            _answer_one(chat, prompt, system, json=json)
        else:
            _converse(chat, system)


@contextmanager
def _lines(source: str | None) -> Generator[Iterable[bytes] | None]:
    """Open what is asked, as bytes: a line that is no text is that line's fault."""
    if source is None:
        yield None
    elif source == "-":
        yield sys.stdin.buffer
    else:
        try:
            with Path(source).open("rb") as stream:
                yield stream
        except OSError as error:
            raise InputError(f"--input {source}", error.strerror or str(error), "a file of prompts") from error


@contextmanager
def _answers_to(out: Path | None) -> Generator[IO[str]]:
    """Open where answers go. A file that is there is left as it is."""
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("x", encoding="utf-8") as stream:
            yield stream
    except FileExistsError as error:
        raise ConfigError(f"--out {out}", "it is there already", "a new file") from error
    except OSError as error:
        raise ConfigError(f"--out {out}", error.strerror or str(error), "a file that can be written") from error


def _answer_one(chat: "Chat", text: str, system: str | None, *, json: bool) -> None:
    """Answer one prompt; on a terminal as it is said. After Ctrl-C what was said stays."""
    from schemas.record import Message

    said: list[str] = []
    messages = [*([Message("system", system)] if system else []), Message("user", text)]
    try:
        answer = chat.answer(messages, _tell(said, live=not json and sys.stdout.isatty()))
    except KeyboardInterrupt:
        _close(said, text, json=json, stopped=True)
        raise RunInterruptedError("generate", "interrupted; what was said until then stands above") from None
    if json:
        print_json({"prompt": text, "answer": answer.text, "whole": answer.whole, "tokens": answer.tokens})
        return
    _close(said, text, json=False, stopped=False)
    if not answer.whole:
        say(f"cut off at {number(answer.tokens)} tokens (--new-tokens)")


def _tell(said: list[str], *, live: bool) -> Callable[[str], None]:
    """Give what hears of pieces: it keeps them, and writes them where a person looks on."""

    def tell(piece: str) -> None:
        said.append(piece)
        if live:
            sys.stdout.write(_visible(piece))
            sys.stdout.flush()

    return tell


def _visible(piece: str) -> str:
    """Give text without the characters that steer a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in piece)


def _close(said: list[str], prompt: str, *, json: bool, stopped: bool) -> None:
    if json:
        print_json({"prompt": prompt, "answer": "".join(said), "whole": False, "interrupted": stopped})
    elif sys.stdout.isatty():
        sys.stdout.write("\n")
    else:
        sys.stdout.write("".join(said) + "\n")
    sys.stdout.flush()


def _answer_all(
    chat: "Chat", lines: Iterable[bytes], answers: IO[str], name: str, system: str | None, *, quiet: bool
) -> None:
    """Answer each line, and write the answers in the order of the lines, a piece of the file at a time."""
    from cli.display import Display

    bad: list[str] = []
    done = 0
    numbered = enumerate(lines, 1)
    with Display(quiet=quiet) as display:
        told = display.work("answers", 0)
        while piece := list(islice(numbered, PIECE)):
            asked = list(_asked(chat, piece, system, bad))
            found: dict[int, Any] = {}
            try:
                for batch in chat.answers([ids for *_, ids in asked], display.note):
                    found |= batch
                    told(len(batch))
            except KeyboardInterrupt:
                done += _write(answers, asked, found)
                raise RunInterruptedError(
                    f"--input {name}", f"interrupted; {number(done)} answers are written"
                ) from None
            done += _write(answers, asked, found)
    for line in bad[:SHOWN_BAD]:
        say(line)
    if len(bad) > SHOWN_BAD:
        say(f"… and {number(len(bad) - SHOWN_BAD)} more")
    if bad:
        raise CheckFailedError(
            f"--input {name}", f"{number(len(bad))} lines could not be asked; {number(done)} were answered"
        )
    if not quiet and answers is not sys.stdout:
        say(f"{number(done)} answers")


def _asked(
    chat: "Chat", piece: list[tuple[int, bytes]], system: str | None, bad: list[str]
) -> Iterator[tuple[int, Any, list[int]]]:
    """Read and render lines; those that cannot be asked go into `bad`, blank ones nowhere."""
    from train.evaluation.chat import read_prompt

    for at, line in piece:
        if not line.strip():
            continue
        try:
            prompt = read_prompt(line.decode("utf-8"), system)
            yield at, prompt, chat.ids(prompt.messages)
        except UnicodeDecodeError as error:
            bad.append(f"line {number(at)}: not UTF-8 ({error.reason})")
        except InputError as error:
            bad.append(f"line {number(at)}: {error.found}; expected {error.expected}")


def _write(answers: IO[str], asked: list[tuple[int, Any, list[int]]], found: dict[int, Any]) -> int:
    for i, answer in sorted(found.items()):
        at, prompt, _ = asked[i]
        line: dict[str, Any] = {
            "line": at,
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "answer": answer.text,
            "whole": answer.whole,
            "tokens": answer.tokens,
        }
        if prompt.reference is not None:
            line["reference"] = prompt.reference
        answers.write(json_text.dumps(line, ensure_ascii=False) + "\n")
    answers.flush()
    return len(found)


def _converse(chat: "Chat", system: str | None) -> None:
    """Talk, turn by turn. Ctrl-C ends an answer, and at the prompt the conversation; so does the end of the input."""
    from schemas.record import Message

    begin = [Message("system", system)] if system else []
    turns = list(begin)
    say("/reset begins anew, /quit or Ctrl-D ends; Ctrl-C stops an answer")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return
        if text == "/quit":
            return
        if text == "/reset":
            turns = list(begin)
            say("a new conversation")
            continue
        if not text:
            continue
        said: list[str] = []
        try:
            answer = chat.answer([*turns, Message("user", text)], _tell(said, live=True))
        except InputError as error:
            say(f"{error.found}; expected {error.expected} (/reset begins anew)")
            continue
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            say("stopped")
        else:
            sys.stdout.write("\n")
            if not answer.whole:
                say(f"cut off at {number(answer.tokens)} tokens (--new-tokens)")
        if "".join(said).strip():
            turns += [Message("user", text), Message("assistant", "".join(said))]
