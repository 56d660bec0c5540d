"""`sft curate score` as a person runs it: a model of their own, twice, in a recipe, and when it goes wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Sft
from tests.curate.quality.chat_server import judged, serving
from tests.curate.quality.test_embed import save_static_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with its tokenizer, saved as anybody would."""
    from tests.train.world import make_records, small_llama
    from train.model.tiny import tiny_tokenizer

    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = tiny_tokenizer(make_records(24))
    network = small_llama(len(tokenizer))
    network.set_attn_implementation("sdpa")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def score(sft: Sft, alpaca: Path, model: Path) -> Callable[..., Any]:
    """Run `sft curate score mix` with that model on a dataset of 40 rows, with signals."""
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "signals", "mix")
    return lambda *args, **more: sft("curate", "score", "mix", "--difficulty", str(model), *args, **more)


def test_every_row_gets_a_difficulty_and_the_table_shows_it(score: Callable[..., Any]) -> None:
    said = score("--weights", "quality=1,ifd=-0.5")
    assert "difficulty (small): texts: 40 scored, 0 known from before" in said.err
    for words in ("perplexity", "ifd", "quality", "lowest row", "Spearman", "quality 1, ifd -0.5", "committed mix@3"):
        assert words in said.out


def test_run_again_it_scores_nothing_and_commits_nothing(score: Callable[..., Any]) -> None:
    score()
    said = score()
    assert "difficulty (small): texts: 0 scored, 40 known from before" in said.err
    assert "nothing has changed" in said.out


def test_json_holds_the_columns_with_rows_and_quartiles(score: Callable[..., Any]) -> None:
    found = score("--json", "--weights", "quality=2,perplexity=-1").json
    assert found["weights"] == {"quality": 2.0, "perplexity": -1.0}
    assert list(found["columns"]) == ["quality", "perplexity", "ifd", "score"]
    column = found["columns"]["perplexity"]
    assert (column["rows"], column["without"]) == (40, 0)
    assert column["lowest"] <= column["quartiles"][0] <= column["quartiles"][2] <= column["highest"]
    assert len(found["correlations"]) == 6
    assert found["kept"] == 40


def test_why_names_the_model_that_gave_the_score(score: Callable[..., Any], sft: Sft) -> None:
    score()
    (event,) = [e for e in sft("why", "mix", "alpaca:3", "--json").json["history"] if e["stage"] == "score"]
    assert event["scored_by"] == ["difficulty (small)"]
    assert event["perplexity"] > 1
    assert event["ifd"] > 0


def test_a_recipe_with_a_model_does_the_same_as_the_command(
    score: Callable[..., Any], sft: Sft, model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "mix"\n[signals]\n[score]\ndifficulty = "{model}"\n[score.weights]\nifd = 1.0\n')
    first = sft("curate", "run", str(recipe), "--json").json
    assert "score: difficulty (small): texts: 40 scored, 0 known from before" in first["notes"]
    assert not score("--weights", "ifd=1", "--json").json["committed"]
    assert not sft("curate", "run", str(recipe), "--json").json["committed"]


def test_a_recipe_with_weights_alone_needs_no_torch(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    (tmp_path / "recipe.toml").write_text('dataset = "mix"\n[signals]\n[score]\nweights = "quality=1,turns=-1"\n')
    code = (
        "import sys; sys.argv = ['sft', 'curate', 'run', 'recipe.toml', '--json']\n"
        "from cli.main import app; app(standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert sft("show", "mix", "--json").json["seq"] == 2


def test_all_three_scorers_stand_side_by_side_and_none_is_asked_twice(
    score: Callable[..., Any], sft: Sft, tmp_path: Path
) -> None:
    """A language model, a judge behind a server, and embeddings, weighed into one score."""
    bag = save_static_model(tmp_path / "bag", seed=1)
    with serving(lambda _: judged(4)) as server:
        args = ["--judge", "critic", "--judge-url", server.url, "--embed", str(bag), "--device", "cpu"]
        args += ["--weights", "ifd=1,judge=2,diversity=1"]
        found = score(*args, "--json").json
        requests = len(server.asked)
        again = score(*args, "--json").json
        assert len(server.asked) == requests >= 40
    assert {"perplexity", "ifd", "judge", "diversity", "score"} <= found["columns"].keys()
    assert found["columns"]["judge"]["mean"] == 4.0
    assert (found["committed"], again["committed"]) == (True, False)
    (event,) = [e for e in sft("why", "mix", "alpaca:3", "--json").json["history"] if e["stage"] == "score"]
    assert event["scored_by"] == ["difficulty (small)", "judge (critic)", "embedding (bag)"]
    assert sft("verify", "mix", "--deep", "--json").json["ok"]


def test_a_judge_that_is_down_leaves_the_difficulty_that_was_measured(score: Callable[..., Any], sft: Sft) -> None:
    """What one scorer has said is kept, whatever becomes of the next."""
    down = ["--judge", "critic", "--judge-url", "http://127.0.0.1:9/v1", "--judge-retries", "0"]
    said = score(*down, code=2)
    assert "error: " in said.err
    assert "Traceback" not in said.err
    assert sft("show", "mix", "--json").json["seq"] == 2
    assert "0 scored, 40 known from before" in score().err


def test_a_model_that_cannot_be_loaded_is_one_line(score: Callable[..., Any], sft: Sft, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, found in ((str(tmp_path / "none"), "no such folder"), (str(tmp_path / "empty"), "no config.json")):
        said = sft("curate", "score", "mix", "--difficulty", name, code=2)
        assert f"error: --difficulty {name}: {found}" in said.err
        assert "Traceback" not in said.err
    assert callable(score)


def test_weights_of_a_scorer_that_is_not_named_are_refused_with_a_remedy(score: Callable[..., Any], sft: Sft) -> None:
    score()
    said = sft("curate", "score", "mix", "--weights", "ifd=1", code=2)
    assert "ifd, which no scorer of this run gives. Name the scorer in the same command" in said.err


def test_the_help_shows_the_default_weights_as_they_are_typed(sft: Sft) -> None:
    assert "[default: quality=1]" in " ".join(sft("curate", "score", "--help").out.split())
