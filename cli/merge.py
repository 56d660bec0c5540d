"""`sft merge`: a run's adapters and its base model as one model that plain transformers loads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.extras import needs_torch, quiet_transformers
from cli.options import JsonOption
from cli.render import out, print_json, say, table

if TYPE_CHECKING:
    from train.run.merge import Merge

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Merge adapters."""  # a callback makes Typer keep the one command's name


@app.command(epilog="Example: sft merge runs/first --dtype bf16")
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run with method lora or qlora.")],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the merged model; by default RUN/merged, or RUN/merged-best."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option("--dtype", help="What the weights are written in; auto is what the base model's files are in."),
    ] = "auto",
    best: Annotated[
        bool, typer.Option("--best", help="The weights with the lowest validation loss instead of the last ones.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Merge a run's adapters into their base model, prove it by the logits, and write one whole model.

    Base model, tokenizer, chat template and adapters must be those that the run recorded. The merge is done in fp32;
    where the merged model gives other logits than the adapted one, nothing is written.
    """
    needs_torch("sft merge")
    from train.run.folder import RunFolder

    folder = RunFolder(run)
    folder.finished()  # said at once, before the heavy imports
    quiet_transformers()
    from train.run.merge import merge_run

    done = merge_run(folder, out=out_folder, dtype=dtype, best=best, say=_quiet if json else say)
    if json:
        print_json(_json(done))
    else:
        _tell(done)


def _quiet(_line: str) -> None:
    """Say nothing: stdout is one JSON object, and stderr stays empty."""


def _json(done: "Merge") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run": str(done.run),
        "weights": done.weights,
        "merged": str(done.folder),
        "model": done.base,
        "method": done.method,
        **asdict(done.found),
    }


def _tell(done: "Merge") -> None:
    found = done.found
    rows = [
        ("merging in fp32 moved logits by", f"{found.difference:.1e} of their standard deviation"),
        (f"the cast to {found.dtype} moved them by", f"{found.cast_difference:.1e} of it"),
        ("the most likely next token stays the same at", f"{found.agreement:.1%} of {found.positions} positions"),
    ]
    table(f"{done.weights} of {done.run}, merged into {done.base}", ("what", "found"), rows)
    if done.method == "qlora":
        say(
            "the adapters were trained over the base in 4 bits, and are merged into it as it was before: answers differ"
        )
    out(f"written to {done.folder}; transformers loads it: AutoModelForCausalLM.from_pretrained({str(done.folder)!r})")
