"""What a person sees of dedup: the preview side by side, the guard with its clusters, and errors in one line."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Said, Sft

WORDS = [f"word{i}" for i in range(60)]


def row(question: str, answer: str, material: str = "") -> dict[str, str]:
    return {"instruction": question, "input": material, "output": answer}


def changed(words: int) -> str:
    """60 words, so many of them in the middle exchanged for shorter ones."""
    return " ".join([*WORDS[: 30 - words], *(f"new{i}" for i in range(words)), *WORDS[30:]])


MIX = [
    row("What is said here?", changed(0)),
    row("What is said here?", changed(2)),
    row("what is said here?", changed(0)),
    row("What is said here?", changed(6)),
    row("Which lamp is lit?", "The left one, as ever."),
    row("Which lamp is lit?", "None of them."),
]


def ingest(sft: Sft, folder: Path, rows: list[dict[str, str]], name: str = "mix", source: str = "a") -> None:
    (folder / f"{source}.json").write_text(json.dumps(rows))
    sft("curate", "ingest", "alpaca", f"{source}.json", "--name", name, "--source", source)


@pytest.fixture
def mix(sft: Sft, tmp_path: Path) -> Sft:
    ingest(sft, tmp_path, MIX)
    return sft


def stored(root: Path = Path("sft-data")) -> dict[str, bytes]:
    """Versions, tags, objects and stage results of a store."""
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "checked.log"}


def versions(root: Path = Path("sft-data")) -> dict[str, bytes]:
    return {name: data for name, data in stored(root).items() if "datasets" in name}


# preview --------------------------------------------------------------------------------------------------------------


def test_preview_changes_nothing_and_says_so(mix: Sft) -> None:
    before = stored()
    said = mix("curate", "dedup", "mix", "--preview")
    assert "Nothing is committed" in said.out
    assert stored() == before


def test_preview_names_the_command_that_commits_with_the_same_options(mix: Sft, tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("ngram = 4\n")
    options = ("--threshold", "0.9", "--source-priority", "a", "--config", "d.toml")
    said = mix("curate", "dedup", "mix", *options, "--preview")
    assert said.out.endswith("  sft curate dedup mix --threshold 0.9 --source-priority a --config d.toml\n")


def test_preview_as_json_tells_what_the_command_then_does(mix: Sft) -> None:
    seen = mix("curate", "dedup", "mix", "--preview", "--json").json
    done = mix("curate", "dedup", "mix", "--json").json
    assert seen["committed"] is False
    assert seen["by_source"]["a"]["rejected"] == done["rejected"] == {"duplicate:exact": 1, "duplicate:near": 1}
    assert [seen["said"]] == done["notes"]
    assert {"clusters", "going", "staying", "parted", "conflicts", "answers", "recall", "stopped"} <= set(seen)
    kept = seen["clusters"][0]["kept"]
    assert (kept["source"], kept["source_file"], kept["source_row"]) in [("a", "a.json", 1), ("a", "a.json", 3)]


def test_preview_shows_both_rows_and_marks_the_words_that_differ(mix: Sft) -> None:
    said = mix("curate", "dedup", "mix", "--preview")
    left, right = columns(said, "goes")
    assert left.startswith("stays a a.json:")
    assert right.startswith("goes a a.json:")
    assert "[-word28 word29-]" in left
    assert "{+new0 new1+}" in right
    assert "Just below the threshold of 0.8: both rows stay" in said.out
    assert "conflicts" in said.out


def columns(said: Said, fate: str) -> tuple[str, str]:
    """Give all that stands left and right of the line between the rows, from the first pair of that fate on."""
    first = said.out.rindex("\n", 0, said.out.index(f"│ {fate}"))
    lines = [line.split("│") for line in said.out[first:].splitlines() if "│" in line]
    left, right = (" ".join(" ".join(line[side] for line in lines).split()) for side in (0, 1))
    return left, right


@pytest.mark.parametrize("width", [80, 120])
def test_preview_keeps_to_the_width(mix: Sft, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli import render

    monkeypatch.setattr(render, "PLAIN_WIDTH", width)
    lines = mix("curate", "dedup", "mix", "--preview").out.splitlines()
    assert max(len(line) for line in lines) == width


def test_colour_takes_the_place_of_marks_unless_there_is_none(mix: Sft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = mix("curate", "dedup", "mix", "--preview").out
    assert "\x1b[1;31mword28" in coloured
    assert "[-" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[-word28" in mix("curate", "dedup", "mix", "--preview").out


def test_what_differs_is_seen_in_a_long_text(sft: Sft, tmp_path: Path) -> None:
    """The end of a web address of 2,000 letters, and one of the 6,000 words after it."""
    text = " ".join(f"w{i}" for i in range(3000))
    address = "https://example.org/" + "a" * 2000
    rows = [row("Q?", f"{address}{x} {text} {x} {text}") for x in ("this", "that")]
    ingest(sft, tmp_path, rows)
    said = sft("curate", "dedup", "mix", "--preview").out
    assert "this" in said
    assert "that" in said
    assert "…aaaaaathis" in said
    assert len(said.splitlines()) < 60


def test_a_text_cannot_steer_the_terminal(sft: Sft, tmp_path: Path) -> None:
    ingest(sft, tmp_path, [row("Q?", f"{changed(0)} \x1b[2J \u202e {x}") for x in ("this", "that")])
    said = sft("curate", "dedup", "mix", "--preview").out
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "·[2J" in said


def test_preview_says_what_the_guard_would_say_and_ends_well(mix: Sft) -> None:
    said = mix("curate", "dedup", "mix", "--preview", "--guard-rows", "2", "--max-source-loss", "0.1")
    assert "the guard would stop this: dedup: source a would lose 2 of 6 rows" in " ".join(said.out.split())


def test_preview_compares_with_another_dataset_and_names_it(mix: Sft, tmp_path: Path) -> None:
    ingest(mix, tmp_path, [row("Which lamp is lit?", "None of them.")], name="eval", source="e")
    said = mix("curate", "dedup", "mix", "--against", "eval", "--preview").out
    assert said.startswith("mix@1 against eval@1: what dedup would leave out")
    assert "stays  e of eval@1  e.json:1" in said
    assert "overlap:exact" in said


def test_the_page_tells_the_recall_that_the_search_has(mix: Sft) -> None:
    page = (ROOT / "docs/dedup.md").read_text()
    for threshold in ("0.7", "0.8", "0.9", "0.95"):
        seen = mix("curate", "dedup", "mix", "--preview", "--threshold", threshold)
        line = next(
            line.split("|") for line in page.splitlines() if line.replace("*", "").startswith(f"| {threshold} |")
        )
        bands, hashes = line[2].split("×")
        assert f"{bands.strip()} bands of {hashes.strip()} hashes" in seen.out
        found = next(line.split() for line in seen.out.splitlines() if line.startswith(" found"))
        assert [cell.strip() for cell in line[3:-1]] == found[1:]


# the differences that are shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a b c d e f g", "a b x d e f g", [("a b ", "a b ", True), ("c ", "x ", False), ("d e f g", "d e f g", True)]),
        ("a\n b", "a b", [("a\n b", "a b", True)]),
        ("", "a", [("", "a", False)]),
        ("", "", []),
        ("x r s y", "x q s y", [("x ", "x ", True), ("r ", "q ", False), ("s y", "s y", True)]),
        ("r b s", "q b t", [("r b s", "q b t", False)]),  # one same word between two differences is taken in
        ("北京是首都", "北京是国都", [("北京是", "北京是", True), ("首", "国", False), ("都", "都", True)]),
    ],
)
def test_differences_are_cut_at_words(left: str, right: str, expected: list[Any]) -> None:
    from cli.clusters import differences

    assert [("".join(a), "".join(b), same) for a, b, same in differences(left, right)] == expected


def test_long_texts_without_a_common_word_are_compared_in_bounded_time() -> None:
    from cli.clusters import differences, shortened

    left, right = (" ".join(f"{x} the of" for x in range(i, i + 30_000)) for i in (0, 40_000))
    pieces = differences(left, right)
    assert "".join(word for a, _, _ in pieces for word in a) == left
    assert "".join(word for _, b, _ in pieces for word in b) == right
    assert sum(len(a) + len(b) for a, b, _ in shortened(pieces)) < 500


def test_differences_are_found_beyond_the_first_window() -> None:
    from cli.clusters import WINDOW, differences

    words = [f"w{i}" for i in range(5 * WINDOW)]
    there = list(words)
    for at in (3, WINDOW + 1, 3 * WINDOW, 5 * WINDOW - 2):
        there[at] = "x"
    found = differences(" ".join(words), " ".join(there))
    assert [(" ".join(a).strip(), len(b)) for a, b, same in found if not same] == [
        (words[at], 1) for at in (3, WINDOW + 1, 3 * WINDOW, 5 * WINDOW - 2)
    ]


# the guard ------------------------------------------------------------------------------------------------------------


def test_the_guard_stops_with_the_clusters_and_nothing_is_committed(mix: Sft) -> None:
    before = versions()
    said = mix("curate", "dedup", "mix", "--guard-rows", "2", "--max-source-loss", "0.3", code=1)
    assert said.err.startswith("error: dedup: source a would lose 2 of 6 rows")
    assert said.err.count("\n") == 1
    assert "The largest clusters: 2 of the 2 rows that would go" in said.out
    assert "{+new0 new1+}" in columns(said, "goes")[1]
    assert versions() == before
    mix("curate", "dedup", "mix", "--guard-rows", "2", "--max-source-loss", "0.334", "--max-cluster-loss", "0.334")


def test_the_guard_as_json_is_one_object(mix: Sft) -> None:
    said = mix("curate", "dedup", "mix", "--guard-rows", "2", "--max-source-loss", "0.3", "--json", code=1)
    assert said.json["committed"] is False
    assert "source a would lose 2 of 6" in said.json["stopped"]
    assert [cluster["size"] for cluster in said.json["clusters"]] == [2]
    assert said.err.startswith("error: dedup")


def test_the_guard_stops_a_run_and_its_remedy_works_there(sft: Sft, tmp_path: Path) -> None:
    """Against another dataset, whose row is shown; the dataset of the recipe does not come into being."""
    (tmp_path / "a.json").write_text(json.dumps(MIX))
    ingest(sft, tmp_path, [row("What is said here?", changed(0))], name="eval", source="e")
    recipe = (
        'dataset = "mix"\n[[sources]]\nformat = "alpaca"\ninputs = ["a.json"]\n[dedup]\nguard_rows = 3\n'
        'against = "eval"\nmax_source_loss = 0.4\n'
    )
    (tmp_path / "r.toml").write_text(recipe)
    before = versions()
    said = sft("curate", "run", "r.toml", code=1)
    assert said.err.count("\n") == 1
    assert "of eval@1  e.json:1" in said.out
    assert versions() == before
    sft("show", "mix", code=2)
    for field in ("max_source_loss", "max_cluster_loss"):
        enough = said.err.partition(f"{field} = ")[2].split(" ")[0]
        recipe = recipe.replace("max_source_loss = 0.4\n", "") + f"{field} = {enough}\n"
    (tmp_path / "r.toml").write_text(recipe)
    done = sft("curate", "run", "r.toml", "--json").json
    assert done["committed"]


# why ------------------------------------------------------------------------------------------------------------------


def test_why_names_the_match_its_similarity_and_its_dataset(mix: Sft, tmp_path: Path) -> None:
    ingest(mix, tmp_path, [row("What is said here?", changed(1))], name="eval", source="e")
    mix("curate", "dedup", "mix", "--against", "eval")
    life = mix("why", "mix", "a:2", "--json").json
    event = life["history"][-1]
    assert life["reject_reason"] == "overlap:near"
    assert event["match"]["dataset"] == "eval@1"
    assert event["match"]["id"] == event["duplicate_of"]
    assert 0.8 <= event["jaccard"] < 1
    said = mix("why", "mix", "a:2").out
    assert f"the row that is kept: {event['duplicate_of']} (e.json row 1 of eval@1)" in said
    assert f"jaccard {event['jaccard']:.3f}" in said


# bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", "0"), "--threshold 0.0: input should be greater than 0"),
        (("--threshold", "-0.5"), "--threshold -0.5: input should be greater than 0"),
        (("--threshold", "1.01"), "--threshold 1.01: input should be less than or equal to 1"),
        (("--threshold", "nan"), "--threshold nan"),
        (("--threshold", "0.05", "--num-perm", "16"), "not possible with 16 permutations. Raise num_perm"),
        (("--against", "mix"), "the dataset itself; expected another one"),
        (("--against", "mix@1"), "the dataset itself; expected another one"),
        (("--against", "nobody"), "dataset 'nobody': not in the store"),
        (("--source-priority", "b"), "no source is named b; expected one of a"),
    ],
)
@pytest.mark.parametrize("preview", [(), ("--preview",)])
def test_bad_settings_are_one_line_and_change_nothing(
    preview: tuple[str, ...], options: tuple[str, ...], said: str, mix: Sft
) -> None:
    before = stored()
    error = mix("curate", "dedup", "mix", *options, *preview, code=2).err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert stored() == before


@pytest.mark.parametrize("preview", [(), ("--preview",)])
def test_only_rejected_rows_are_nothing_to_compare(preview: tuple[str, ...], sft: Sft, tmp_path: Path) -> None:
    ingest(sft, tmp_path, [row("Why?", "")])
    sft("curate", "rules", "mix")
    before = stored()
    said = sft("curate", "dedup", "mix", *preview, code=2)
    assert said.err == (
        "error: dedup, mix@2: no row to compare: all 1 are rejected; expected at least one row that is kept. "
        "See why with `sft show mix@2`\n"
    )
    assert stored() == before


@pytest.mark.parametrize("preview", [(), ("--preview",)])
def test_a_full_disk_is_one_line_and_nothing_is_committed(
    preview: tuple[str, ...], mix: Sft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of the search is all taken, so that it works in a file, for which there is no room."""
    from curate.dedup import search
    from curate.dedup.scratch import Scratch

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(search, "Scratch", lambda limit, folder: Scratch(limit, folder, used=limit))
    before = versions()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        said = mix("curate", "dedup", "mix", *preview, code=2)
    assert "No space left on device: no room for" in said.err
    assert said.err.count("\n") == 1
    assert versions() == before
    assert not [p for p in Path("sft-data/tmp").iterdir() if p.is_file()]
    mix("curate", "dedup", "mix", *preview)  # with room, it works there
