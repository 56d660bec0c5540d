"""What a person sees: exit codes, one-line errors, JSON that is JSON, and versions that say what happened."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Sft


def demo(sft: Sft) -> None:
    sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix")


def test_ingest_stages_show_and_verify(sft: Sft, alpaca: Path) -> None:
    """Every row in is kept or rejected for one reason, whatever the command that tells."""
    read = sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix", "--json").json
    assert (read["rows"], read["rejected"], read["seq"]) == (41, {"ingest:missing_field": 1}, 1)
    for stage in ("normalize", "rules", "pii", "signals", "dedup", "score", "select", "split"):
        done = sft("curate", stage, "mix", "--json").json
        assert done["entered"] == done["kept"] + sum(done["rejected"].values())
        assert done["committed"]
    shown = sft("show", "mix", "--json").json
    assert (shown["rows"], shown["seq"], shown["stale"]) == (41, 9, [])
    assert shown["rows"] == shown["kept"] + sum(shown["rejected"].values())
    assert shown["kept"] == sum(shown["by_split"].values())
    assert shown["by_source"]["alpaca"]["rows"] == 41
    assert sft("verify", "mix", "--deep", "--json").json == {
        "ok": True,
        "name": "mix",
        "seq": 9,
        "id": shown["id"],
        "deep": True,
        "problems": [],
    }


def test_stages_one_by_one_and_a_recipe_give_the_same_id(sft: Sft, alpaca: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "one")
    for stage in ("normalize", "rules", "pii", "signals", "dedup", "score", "select", "split"):
        sft("curate", stage, "one")
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "two")
    sft("curate", "run", str(ROOT / "recipes/default.toml"), "--name", "two")
    assert sft("show", "one", "--json").json["id"] == sft("show", "two", "--json").json["id"]
    assert sft("show", "two", "--json").json["seq"] == 2


def test_a_command_that_changes_nothing_commits_nothing_and_says_so(sft: Sft) -> None:
    demo(sft)
    for command in (("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix"), ("curate", "dedup", "mix")):
        said = sft(*command)
        assert "nothing has changed" in said.out
    assert len(sft("log", "mix", "--json").json["versions"]) == 1


def test_a_stage_that_changed_makes_later_ones_stale_and_run_recomputes_them(sft: Sft) -> None:
    demo(sft)
    said = sft("curate", "rules", "mix", "--disable", "rule:empty_response")
    later = ["pii", "signals", "dedup", "decontaminate", "score", "select", "split"]
    assert ", ".join(later) in said.err.replace("\n", "")
    assert sft("show", "mix", "--json").json["stale"] == later
    sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix")
    assert sft("show", "mix", "--json").json["stale"] == []


def test_a_source_that_is_there_names_the_two_ways_out(sft: Sft, alpaca: Path) -> None:
    ingest = ("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft(*ingest)
    said = sft(*ingest, code=2)
    assert said.err.count("\n") == 1
    assert "--replace" in said.err
    assert "--append" in said.err
    assert "nothing has changed" in sft(*ingest, "--replace").out
    assert sft(*ingest, "--append", "--json").json["rows"] == 41
    shown = sft("show", "mix", "--json").json
    assert shown["rows"] == 82
    assert sft("verify", "mix", "--deep", "--json").json["ok"]


def test_append_leaves_the_old_rows_where_they_are(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    """Law 8: rows keep their split when a source is appended to; the new rows get one."""
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    sft("curate", "run", str(ROOT / "recipes/default.toml"), "--name", "mix")
    more = [
        {"instruction": f"How deep is basin {i}?", "input": "", "output": f"Basin {i} is {i} fathoms deep at low tide."}
        for i in range(200)
    ]
    (tmp_path / "more.json").write_text(json.dumps(more))
    sft("curate", "ingest", "alpaca", "more.json", "--name", "mix", "--append")
    sft("curate", "run", str(ROOT / "recipes/default.toml"), "--name", "mix")
    diff = sft("diff", "mix@2", "mix", "--json").json
    assert diff["counts"]["resplit"] == 0
    assert diff["counts"]["added"] == 200
    assert diff["bump"] == "minor"


def test_diff_says_what_changed_in_words_and_json(sft: Sft) -> None:
    demo(sft)
    sft("curate", "rules", "mix", "--disable", "rule:empty_response", "--json")
    diff = sft("diff", "mix@1", "mix", "--json").json
    assert diff["counts"]["restored"] == len([c for c in diff["changes"] if c["word"] == "restored"]) == 3
    text = sft("diff", "mix@1", "mix").out
    assert "restored" in text
    assert "rule:empty_response" in text
    assert "Nothing differs" in sft("diff", "mix", "mix").out


def test_why_tells_a_rows_life_by_place_id_and_prefix(sft: Sft) -> None:
    demo(sft)
    life = sft("why", "mix", "alpaca:27", "--json").json
    assert life["reject_reason"] == "duplicate:near"
    assert (life["source"], life["source_file"], life["source_row"]) == ("alpaca", "alpaca.json", 27)
    assert {"id", "history"} <= set(life)
    assert sft("why", "mix", life["id"], "--json").json == life
    assert sft("why", "mix", life["id"][:10], "--json").json == life
    text = sft("why", "mix", "alpaca:27").out
    assert "alpaca.json row 30" in text  # the row that it was left out for
    assert sft("why", "mix", "alpaca:9999", code=2).err.startswith("error: row 'alpaca:9999'")


def test_verify_fails_when_one_byte_is_flipped(sft: Sft, tmp_path: Path) -> None:
    demo(sft)
    for path in sorted((tmp_path / "sft-data/objects").glob("*/*.arrow"))[:3]:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 4
        path.chmod(0o644)
        path.write_bytes(data)
        said = sft("verify", "mix", "--json", code=1)
        assert not said.json["ok"]
        assert path.name in said.json["problems"][0]
        assert path.name in sft("verify", "mix", code=1).out
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    assert sft("verify", "mix", "--deep", "--json").json["ok"]


def test_tags_log_and_gc(sft: Sft) -> None:
    demo(sft)
    sft("tag", "mix@1", "golden")
    assert sft("show", "mix@golden", "--json").json["seq"] == 1
    [version] = sft("log", "mix", "--json").json["versions"]
    assert version["tags"] == ["golden"]
    before = sft("verify", "mix", "--deep", "--json").json
    assert sft("gc", "--grace-hours", "0", "--json").json["removed"]
    assert sft("verify", "mix", "--deep", "--json").json == before


@pytest.mark.parametrize("format", ["jsonl", "parquet", "alpaca", "dolly", "openorca", "sharegpt", "openai"])
def test_export_writes_every_kept_row_or_names_it(sft: Sft, tmp_path: Path, format: str) -> None:
    demo(sft)
    done = sft("export", "mix", "--format", format, "--to", str(tmp_path / "out"), "--json").json
    assert done["rows"] + sum(done["skipped"].values()) == sft("show", "mix", "--json").json["kept"]
    assert all(Path(file).stat().st_size for file in done["files"])
    assert "out" in sft("export", "mix", "--format", format, "--to", str(tmp_path / "out"), code=2).err


def test_an_interrupted_run_takes_up_the_finished_stages(sft: Sft, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 7: Ctrl-C inside dedup commits nothing; the same command goes on and ends as if never interrupted."""
    from curate import dedup

    with monkeypatch.context() as patch:

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(dedup, "prepared", stop)
        said = sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix", code=130)
        assert "nothing was committed" in said.err
    sft("show", "mix", code=2)
    done = sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix", "--json").json
    assert {name: s["cached"] for name, s in done["stages"].items()} == {
        "normalize": True,
        "rules": True,
        "pii": True,
        "signals": True,
        "dedup": False,
        "decontaminate": False,
        "score": False,
        "select": False,
        "split": False,
    }
    sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix", "--store", "fresh")
    assert sft("show", "mix", "--store", "fresh", "--json").json["id"] == done["id"]


def test_rows_appended_by_hand_survive_a_run_of_the_recipe(sft: Sft, tmp_path: Path) -> None:
    """A recipe whose files are the first of a source leaves the others; one whose files changed refuses."""

    def rows(name: str, n: int) -> None:
        lines = [
            {"instruction": f"What is {name} {i} for?", "input": "", "output": f"{name} {i} is for rowing home."}
            for i in range(n)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(lines))

    rows("oar", 10)
    rows("rope", 10)
    (tmp_path / "r.toml").write_text(
        'dataset = "mix"\n[[sources]]\nformat = "alpaca"\ninputs = ["oar.json"]\n[rules]\n'
    )
    sft("curate", "run", "r.toml")
    sft("curate", "ingest", "alpaca", "rope.json", "--name", "mix", "--append")
    assert "they stay" in sft("curate", "run", "r.toml").err
    assert sft("show", "mix", "--json").json["rows"] == 20
    rows("oar", 11)
    assert "--replace" in sft("curate", "run", "r.toml", code=2).err
    assert sft("show", "mix", "--json").json["rows"] == 20


def test_a_recipe_that_reads_the_same_files_otherwise_reads_them_again(sft: Sft, tmp_path: Path) -> None:
    row = {
        "instruction": "Where?",
        "input": "",
        "output": "The alpaca answer.",
        "context": "",
        "response": "The dolly answer.",
        "category": "qa",
    }
    (tmp_path / "both.jsonl").write_text(json.dumps(row) + "\n")
    recipe = 'dataset = "mix"\n[[sources]]\nsource = "s"\nformat = "{}"\ninputs = ["both.jsonl"]\n'
    for name in ("alpaca", "dolly"):
        (tmp_path / "r.toml").write_text(recipe.format(name))
        sft("curate", "run", "r.toml")
        assert sft("why", "mix", "s:1", "--json").json["messages"][1]["content"] == f"The {name} answer."
    with (tmp_path / "both.jsonl").open("a") as file:
        file.write("{broken\n")
    sft("curate", "run", "r.toml")
    (tmp_path / "r.toml").write_text(recipe.format("dolly") + "strict = true\n")
    assert "--strict" in sft("curate", "run", "r.toml", code=2).err


@pytest.mark.parametrize("role", ["annotation", "index"])
def test_a_damaged_object_of_a_stage_is_made_anew_by_a_run(role: str, sft: Sft, tmp_path: Path) -> None:
    demo(sft)
    manifest = json.loads((tmp_path / "sft-data/datasets/mix/versions/000001.json").read_text())
    [file] = [f for f in manifest["files"] if (f["stage"], f["source"], f["role"]) == ("dedup", "dolly", role)]
    path = tmp_path / "sft-data/objects" / file["sha256"][:2] / f"{file['sha256']}.arrow"
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    sft("verify", "mix", code=1)
    assert "nothing has changed" in sft("curate", "run", str(ROOT / "recipes/demo.toml"), "--name", "mix").out
    assert sft("verify", "mix", "--deep", "--json").json["ok"]


def test_a_version_named_by_its_manifests_path_is_written_to_its_own_store(sft: Sft, tmp_path: Path) -> None:
    demo(sft)
    (tmp_path / "sft-data").rename(tmp_path / "elsewhere")
    path = "elsewhere/datasets/mix/versions/000001.json"
    assert sft("curate", "rules", path, "--short-words", "9", "--json").json["seq"] == 2
    sft("tag", path, "first")
    assert sft("why", path, "alpaca:1", "--json").json["kept"]
    assert not (tmp_path / "sft-data").exists()
    said = sft("curate", "rules", path, "--short-words", "8")
    assert "mix@2" in said.err


def test_a_copied_manifest_tags_no_other_version_of_its_number(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    for store, source in (("one", "a"), ("two", "b")):
        sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix", "--source", source, "--store", store)
    copy = tmp_path / "copy.json"
    copy.write_bytes((tmp_path / "one/datasets/mix/versions/000001.json").read_bytes())
    assert "is another version" in sft("tag", str(copy), "golden", "--store", "two", code=2).err
    assert not (tmp_path / "two/datasets/mix/tags.json").exists()
    assert sft("tag", str(copy), "golden", "--store", "one", "--json").json["seq"] == 1


def test_rules_are_listed(sft: Sft) -> None:
    listed = sft("curate", "rules", "--list", "--json").json["rules"]
    assert {"name", "severity", "sentence", "pack", "origin"} == set(listed[0])
    assert all(rule["sentence"] for rule in listed)
    assert "rule:empty_response" in sft("curate", "rules", "--list").out


BAD = {
    "wrong path": ("curate", "ingest", "alpaca", "nowhere.json", "--name", "x"),
    "dataset name with a slash": ("curate", "ingest", "alpaca", "alpaca_data.json", "--name", "a/b"),
    "dataset name that climbs": ("curate", "ingest", "alpaca", "alpaca_data.json", "--name", ".."),
    "source name that climbs": ("curate", "ingest", "alpaca", "alpaca_data.json", "--name", "x", "--source", "../y"),
    "unknown format": ("curate", "ingest", "vicuna", "alpaca_data.json", "--name", "x"),
    "wrong format named": ("curate", "ingest", "openai", "alpaca_data.json", "--name", "x"),
    "both ways at once": ("curate", "ingest", "alpaca", "alpaca_data.json", "--name", "x", "--replace", "--append"),
    "unknown reference": ("show", "nope"),
    "unknown version": ("show", "mix@99"),
    "unknown tag": ("diff", "mix", "mix@nope"),
    "threshold out of bounds": ("curate", "dedup", "mix", "--threshold", "1.5"),
    "threshold that is no number": ("curate", "dedup", "mix", "--threshold", "high"),
    "shares that are no whole": ("curate", "split", "mix", "--train", "0.5"),
    "unknown rule": ("curate", "rules", "mix", "--disable", "nonsense"),
    "unknown source in the priority": ("curate", "dedup", "mix", "--source-priority", "nobody"),
    "recipe that is not there": ("curate", "run", "nowhere.toml", "--name", "mix"),
    "recipe without a dataset": ("curate", "run", str(ROOT / "recipes/default.toml")),
    "recipe on an empty dataset": ("curate", "run", str(ROOT / "recipes/default.toml"), "--name", "empty"),
    "config file that is not there": ("curate", "dedup", "mix", "--config", "nowhere.toml"),
    "tag named like a number": ("tag", "mix", "7"),
    "store that is no store": ("gc", "--store", "nowhere"),
    "export to a full folder": ("export", "mix", "--format", "jsonl", "--to", "."),
    "unknown row": ("why", "mix", "ffffffffffff"),
    "row name that is too short": ("why", "mix", "f"),
    "row number that is no number": ("why", "mix", "alpaca:²"),
    "version that is no number": ("show", "mix@²"),
    "licence without text": ("curate", "ingest", "alpaca", "alpaca_data.json", "--name", "x", "--license", ""),
    "unknown split": ("export", "mix", "--format", "jsonl", "--to", "out", "--split", "holdout"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_usage_and_bad_input_are_one_line_and_change_nothing(sft: Sft, alpaca: Path, case: str) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    said = sft(*BAD[case], code=2)
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ") == (said.err.count("\n") == 1)  # else it is Typer's own usage message
    assert len(sft("log", "mix", "--json").json["versions"]) == 1
    assert not Path("sft-data/datasets/x").exists()


def test_a_recipe_with_mistakes_names_all_of_them(sft: Sft, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('dataset = "x"\n[dedup]\nthreshold = 2.0\nngrams = 3\n')
    said = sft("curate", "run", "r.toml", code=2)
    assert "dedup.threshold" in said.err
    assert "dedup.ngrams" in said.err
    assert said.err.count("\n") == 1
