"""The README's commands do what it says, on the sample data under the names that it uses."""

import gzip
import json
import re
import shlex
import shutil
from pathlib import Path

from tests.cli.conftest import ROOT, Sft
from tests.cli.test_help import RUN_ELSEWHERE


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("sft ")]


def test_every_command_of_the_readme_runs_in_its_order(sft: Sft, tmp_path: Path) -> None:
    """The model is exchanged for one that needs no hub, and trained for one step; reviews have tests of their own."""
    shutil.copy(ROOT / "sample_data/alpaca.json", tmp_path / "alpaca_data.json")
    shutil.copy(ROOT / "sample_data/dolly.jsonl", tmp_path / "databricks-dolly-15k.jsonl")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "logs").mkdir()
    chat = {
        "messages": [
            {"role": "user", "content": "Is it raining?"},
            {"role": "assistant", "content": "Not yet, but soon."},
        ]
    }
    (tmp_path / "logs/monday.jsonl.gz").write_bytes(gzip.compress(json.dumps(chat).encode()))
    ran = commands()
    assert len(ran) >= 9
    for words in ran:
        if words[:2] == ["curate", "review"]:  # people decide when it ends
            assert f"sft {' '.join(words[:3])}" in RUN_ELSEWHERE
            continue
        changed = ["tiny" if word == "HuggingFaceTB/SmolLM2-135M" else word for word in words]
        sft(*changed, *(["--max-steps", "1"] if "train" in words else []))
    shown = sft("show", "mix@golden", "--json").json
    assert set(shown["by_source"]) == {"alpaca", "dolly", "logs"}
    assert (tmp_path / "runs/first/final").is_dir()
    assert list((tmp_path / "out/data").glob("train*"))


def test_the_output_that_the_readme_shows_is_that_of_the_demo(sft: Sft) -> None:
    """The funnel and the id: both change when a stage does, and the README with them."""
    said = sft("curate", "run", str(ROOT / "recipes/demo.toml"))
    readme = (ROOT / "README.md").read_text()
    committed = next(line for line in said.out.splitlines() if line.startswith("committed"))
    assert committed in readme
    shown = [line.split() for line in readme.splitlines()]
    for line in (line.split() for line in said.out.splitlines() if line.startswith((" ingest ", " rules ", " split "))):
        assert line[:4] in [words[:4] for words in shown]


def test_the_makefile_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.M)
    assert named == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in named)


def test_every_page_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert all((ROOT / link).is_file() for link in links)
