"""The summary for the AI Act: all sections of the template, facts of the dataset, and no word for the provider."""

import json
from pathlib import Path

import pytest

from curate.publish.ai_act import KINDS, NOT_MEASURED, PROVIDER, UNTOLD, summary
from curate.publish.layout import Published, publish
from schemas.about import About
from schemas.manifest import Source
from tests.curate.publish.conftest import SOURCES, version

SECTIONS = ["1.1", "1.2", "1.3", "2.1", "2.2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6", "3.1", "3.2", "3.3"]


def answers(done: Published) -> dict[tuple[str, str], str]:
    return {(entry.section.split()[0], entry.field): entry.answer for entry in summary(done.facts)}


def test_the_sections_of_the_template_are_all_there_in_order(published: Published) -> None:
    found = list(dict.fromkeys(entry.section.split()[0] for entry in summary(published.facts)))
    assert found == SECTIONS
    text = (published.files[0].parent / "ai-act-summary.md").read_text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("## ")] == SECTIONS


def test_a_source_stands_in_the_section_of_its_kind(published: Published) -> None:
    """fens: public; bogs: synthetic; both as stated."""
    found = answers(published)
    assert "licence CC-BY-SA-4.0; terms: be kind" in found["2.1", "fens"]
    assert "collected 2025-11" in found["2.1", "fens"]
    assert "written by the model bog-2" in found["2.5", "bogs"]
    assert found["2.4", "Sources"] == "none"


def test_a_source_of_an_unknown_kind_is_left_to_the_provider(tmp_path: Path) -> None:
    sources = {"fens": Source(name="fens", format="test", license="MIT")}
    done = publish(version(tmp_path / "s", sources, fens=2), tmp_path / "out")
    assert [e.by for e in summary(done.facts) if e.section == UNTOLD] == ["provider"]
    assert answers(done)["2.1", "Sources"] == "none among the sources whose kind is known"


def test_a_model_that_wrote_a_source_does_not_tell_its_kind(tmp_path: Path) -> None:
    """What others made with a model and published is a public dataset; the template's 2.5 is for one's own."""
    done = publish(version(tmp_path / "s", SOURCES, fens=2), tmp_path / "out")
    left = {e.field: e.answer for e in summary(done.facts) if e.section == UNTOLD}
    assert "written by the model bog-2" in left["bogs"]
    assert answers(done)["2.5", "Sources"] == "none among the sources whose kind is known"
    assert "sources.bogs.kind" in done.facts.missing


def test_what_only_a_person_knows_is_marked(tmp_path: Path) -> None:
    found = answers(publish(version(tmp_path / "s", SOURCES, fens=2), tmp_path / "out"))
    assert found["1.1", "Provider name and contact details"] == PROVIDER
    assert found["3.1", "Measures"] == PROVIDER
    assert found["3.2", "Measures"] == f"{NOT_MEASURED}; {PROVIDER}"
    assert found["3.3", "Personal data and secrets"] == NOT_MEASURED
    assert found["1.3", "Latest date of data acquisition or collection"] == PROVIDER


def test_what_the_provider_says_is_taken(tmp_path: Path) -> None:
    about = About.model_validate({"illegal_content": "Read by two people.", "rights_reservations": "None known."})
    found = answers(publish(version(tmp_path / "s", SOURCES, fens=2), tmp_path / "out", about=about))
    assert found["3.2", "Measures"] == "Read by two people."
    assert found["3.1", "Measures"] == "None known."


@pytest.mark.parametrize(
    ("tokens", "size"),
    [
        (10**9 - 1, "less than 1 billion tokens"),
        (10**9, "1 billion to 10 trillion tokens"),
        (10**13, "more than 10 trillion tokens"),
    ],
)
def test_sizes_are_the_ranges_of_the_template(published: Published, tokens: int, size: str) -> None:
    facts = type(published.facts)(**{**vars(published.facts), "tokens": tokens})
    answer = next(e.answer for e in summary(facts) if e.field == "Training data size")
    assert answer.startswith(size)


def test_json_and_markdown_say_the_same(published: Published) -> None:
    told = json.loads((published.files[0].parent / "ai-act-summary.json").read_text())
    assert [e["answer"] for e in told["entries"]] == [e.answer for e in summary(published.facts)]
    assert set(KINDS.values()) <= {e["section"] for e in told["entries"]}
