"""Every command explains itself with an example that runs; the reference page is made from the commands."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.help import commands, page
from cli.main import COMMANDS
from tests.cli.conftest import ROOT, Sft

EXAMPLES = {name: (command.epilog or "").partition("Example: ")[2] for name, command in commands()}


def test_every_command_has_an_example_and_a_description() -> None:
    assert all(EXAMPLES.values()), [name for name, example in EXAMPLES.items() if not example]
    assert all(command.help for _, command in commands())
    assert all(example.startswith(name) for name, example in EXAMPLES.items())


def test_the_overview_names_the_commands_that_there_are() -> None:
    assert {name.split()[1] for name, _ in commands()} == set(COMMANDS)


def test_the_reference_page_is_what_the_commands_say() -> None:
    """After a change of a command or an option: python -m cli.help > docs/commands.md"""
    assert (ROOT / "docs/commands.md").read_text() == page()


def test_help_is_started_without_the_heavy_parts() -> None:
    """`sft --help` stays fast because it imports none of them."""
    heavy = ["polars", "pyarrow", "torch", "transformers", "argilla", "numpy", "pydantic"]
    code = f"import sys, cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def prepared(sft: Sft, tmp_path: Path) -> Sft:
    """A folder in which the examples of the help find what they name."""
    shutil.copy(ROOT / "sample_data/alpaca.json", tmp_path / "alpaca_data.json")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "sample_data/eval.jsonl", tmp_path / "my_eval.jsonl")
    (tmp_path / "allowed.txt").write_text("fennel-3\n")
    sft("curate", "ingest", "dolly", str(ROOT / "sample_data/dolly.jsonl"), "--name", "mix")
    sft("curate", "rules", "mix")
    sft("curate", "ingest", "openorca", str(ROOT / "sample_data/openorca.jsonl"), "--name", "mix")
    return sft


RUN_ELSEWHERE = {
    "sft report": ("tests/cli/test_report.py", '"report", "runs/first"'),
    "sft train": ("tests/cli/test_train.py", '"train"'),
    "sft eval": ("tests/cli/test_evaluation.py", '"eval", "runs/first"'),
    "sft generate": ("tests/cli/test_evaluation.py", '"generate", "runs/first"'),
    "sft merge": ("tests/cli/test_merge.py", '"merge"'),
    "sft curate review serve": ("tests/curate/review/server/test_process.py", '"curate", "review", "serve"'),
    "sft curate review pull": ("tests/cli/test_review_pull.py", '"curate", "review", "pull"'),
    "sft curate review status": ("tests/cli/test_review_pull.py", '"curate", "review", "status"'),
    "sft curate review start": ("tests/cli/test_review_start.py", '"curate", "review", "start"'),
}
"""Commands whose example needs more than a folder (a model, a server that people stop): the tests that run them, and
the words by which they do."""


def test_every_example_runs(prepared: Sft) -> None:
    """In the order of the overview; a version is tagged before it is exported."""
    for name in [*(n for n in EXAMPLES if n != "sft export"), "sft export"]:
        if name not in RUN_ELSEWHERE:
            prepared(*shlex.split(EXAMPLES[name])[1:])


def test_commands_that_need_more_than_a_folder_run_in_tests_of_their_own() -> None:
    for name, (file, words) in RUN_ELSEWHERE.items():
        assert name in EXAMPLES
        assert words in (ROOT / file).read_text(), f"{file} does not run {name}"
