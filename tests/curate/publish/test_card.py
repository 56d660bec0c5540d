"""The card: what the hub reads is there, what is counted is true, and what people wrote stays text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.publish.card import card, front_matter
from curate.publish.layout import Published, publish
from curate.publish.prose import code, fenced, inline
from curate.publish.spdx import hub_licence, licence_names
from schemas.about import About
from schemas.dataset import Dataset
from schemas.manifest import InputFile, Source
from tests.curate.publish.conftest import SOURCES, version
from tests.rows import dataset_of, question, staged


def front(done: Published) -> dict[str, Any]:
    return yaml.safe_load((done.files[0].parent / "README.md").read_text().split("---\n")[1])


def body(done: Published) -> str:
    return (done.files[0].parent / "README.md").read_text().split("---\n", 2)[2]


def test_the_front_matter_has_what_the_hub_reads(published: Published) -> None:
    found = front(published)
    assert found["license"] == "other"
    assert found["license_name"] == "cc-by-sa-4.0-and-mit"
    assert found["language"] == ["en"]
    assert found["size_categories"] == ["n<1K"]
    assert found["task_categories"] == ["text-generation"]
    assert [d["split"] for d in found["configs"][0]["data_files"]] == ["train", "validation", "test"]
    assert "water: fresh" in found["tags"]


@pytest.mark.parametrize(
    ("stated", "hub"),
    [
        ("MIT", "mit"),
        ("CC-BY-SA-3.0", "cc-by-sa-3.0"),
        ("ODC-By-1.0", "odc-by"),
        ("Beerware", "other"),
        (None, "unknown"),
    ],
)
def test_one_licence_has_the_hubs_name(tmp_path: Path, stated: str | None, hub: str) -> None:
    sources = {"fens": Source(name="fens", format="test", license=stated)}
    assert front(publish(version(tmp_path / "s", sources, fens=2), tmp_path / "out"))["license"] == hub


def test_a_licence_that_the_hub_does_not_know_has_a_link_that_it_takes(wet: Dataset, tmp_path: Path) -> None:
    """LICENSE, LICENSE.md or an address: the text of a single licence, else the page of the card, else none."""
    sources = {"fens": Source(name="fens", format="test", license="Beerware")}
    single = publish(version(tmp_path / "s", sources, fens=2), tmp_path / "single")
    assert front(single)["license_link"] == "https://spdx.org/licenses/Beerware.html"
    assert "license_link" not in front(publish(wet, tmp_path / "mix"))
    pushed = publish(wet, tmp_path / "pushed", page="https://hub.example/datasets/a/b", revision="v/1")
    assert front(pushed)["license_link"] == "https://hub.example/datasets/a/b/blob/v%2F1/README.md"


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"), (10**9, "1B<n<10B")])
def test_sizes_are_the_hubs(published: Published, rows: int, size: str) -> None:
    one = replace(published.facts.files[0], rows=rows)
    assert replace(published.facts, files=(one,)).size_category == size


def test_rows_with_evaluation_items_that_were_kept_are_not_called_left_out(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"question": "How deep is fen number 1 in spring?"}\n')
    dataset = version(tmp_path / "s", SOURCES, fens=3)
    eval_ = (str(tmp_path / "items.jsonl"),)
    text = body(publish(staged(dataset, "decontaminate", eval=eval_, action="report"), tmp_path / "out"))
    assert "items of items.jsonl; those that hold one were reported, and kept." in text
    assert str(tmp_path) not in text


def test_an_expression_has_its_licences_by_name() -> None:
    assert licence_names("(MIT OR Apache-2.0) AND CC-BY-4.0") == ("MIT", "Apache-2.0", "CC-BY-4.0")
    assert hub_licence("MIT AND CC-BY-4.0") is None


def test_sources_of_which_nothing_is_published_have_no_say(tmp_path: Path) -> None:
    """A licence binds those who pass its rows on; rows that were left out are not passed on."""
    rows = {"a": [question("Who?", "Mara did it.")], "b": [question("Why?", "")]}
    dataset = staged(dataset_of(tmp_path / "s", rows), "rules")
    licences = {"a": "MIT", "b": "CC-BY-NC-4.0"}
    sources = tuple(s.model_copy(update={"license": licences[s.name]}) for s in dataset.manifest.sources)
    stated = Dataset(dataset.manifest.model_copy(update={"sources": sources}), dataset.root)
    assert front(publish(stated, tmp_path / "out"))["license"] == "mit"


def test_what_people_wrote_is_text(published: Published) -> None:
    text = body(published)
    assert front(published)["pretty_name"] == 'Fens: a "survey" of <b>wet</b> meadows'
    assert text.startswith('\n# Fens: a "survey" of \\<b\\>wet\\</b\\> meadows\n')
    assert "\n# not a heading" not in text
    assert "\n- not a list" not in text
    assert "````\n```\n@misc{fens}\n```\n````" in text
    assert "Mara: of the fen" in text


@given(st.text(max_size=60))
def test_any_title_stays_one_line_of_yaml_and_of_markdown(published: Published, title: str) -> None:
    facts = published.facts
    about = facts.about.model_copy(update={"title": title or "x", "keywords": (title or "x",)})
    changed = type(facts)(**{**vars(facts), "about": about})
    written = yaml.safe_dump(front_matter(changed), allow_unicode=True, width=10_000)
    assert yaml.safe_load(written) == front_matter(changed)
    lines = card(changed).split("\n")
    assert lines.count("---") == 2
    assert len([line for line in lines if line.startswith("# ")]) == 1


@given(st.text(alphabet="`#*_<>[]|-+=.)1 a\\\n&", max_size=30))
def test_prose_has_no_bare_markup(text: str) -> None:
    shown = inline(text)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for mark in "`*<>[]|#&":
        assert bare.count(mark) == bare.count(f"\\{mark}")
    assert not shown.startswith(("-", "+", "="))


@given(st.text(alphabet="` a\n", max_size=20))
def test_code_ends_where_it_should(text: str) -> None:
    fence = fenced(text).split("\n", 1)[0]
    assert fence not in text
    assert set(code(text)[:1]) == {"`"}


def test_rows_are_counted_as_they_were_published(published: Published) -> None:
    text = body(published)
    facts = published.facts
    assert f"{facts.rows:,} conversations" in text
    for split, rows in facts.by_split.items():
        assert f"| {split} | {rows:,} |" in text
    for source in facts.sources:
        assert f"| {source.portrait.name} | {source.rows:,} |" in text
    assert "| rules |" in text
    assert "be kind" in text
    assert facts.manifest.id in text


def test_reasons_and_edits_are_told_with_their_sentences(tmp_path: Path) -> None:
    rows = [question("Who?", "Mara did it."), question("Why?", ""), question("When?", "At noon.", context="N/A")]
    dataset = staged(dataset_of(tmp_path / "s", {"a": rows}), "rules")
    text = body(publish(dataset, tmp_path / "out"))
    assert (
        "| `rule:empty_response` | An assistant turn is empty, so the model would learn to say nothing. | 1 |" in text
    )
    assert "`fix:placeholder_context`" in text


def test_personal_data_is_counted_where_it_is_left_and_not_where_it_is_redacted(tmp_path: Path) -> None:
    rows = [question("Mail?", "Write to li.wei@nordhafen.de."), question("None?", "None.")]
    dataset = staged(dataset_of(tmp_path / "s", {"a": rows}), "pii")
    assert publish(dataset, tmp_path / "left").facts.personal == {"email": 1}
    redacted = publish(staged(dataset, "pii", action="redact"), tmp_path / "gone")
    assert redacted.facts.personal == {}
    assert "replaced by placeholders" in body(redacted)


def test_what_was_not_done_is_said(tmp_path: Path) -> None:
    text = body(publish(version(tmp_path / "s", SOURCES, fens=2), tmp_path / "out"))
    assert "Nobody has searched the rows for personal data or secrets." in text
    assert "The rows were not searched for items of evaluation sets." in text
    assert "Not stated by the publisher: title, description," in text


def test_files_are_named_without_the_place_where_they_lay(tmp_path: Path) -> None:
    def file(uri: str) -> InputFile:
        return InputFile(uri=uri, sha256="0" * 64, bytes=1, rows=2)

    inputs = (
        file("/home/mara/secret/fens.json"),
        file("hf://datasets/acme/fens/a.parquet"),
        file("https://u:pw@x.example/f?k=1#k=2"),
        file("s3://bucket/fens.parquet?X-Signature=k3"),
        file("http://[mara/secret/odd.json"),
    )
    sources = {"fens": Source(name="fens", format="test", license="MIT", inputs=inputs)}
    done = publish(version(tmp_path / "s", sources, fens=2), tmp_path / "out")
    written = "".join(path.read_text() for path in done.files if path.suffix != ".parquet")
    assert "mara/secret" not in written
    assert "pw@" not in written
    assert not [secret for secret in ("k=1", "k=2", "k3") if secret in written]
    assert "`fens.parquet`" in written
    assert "`odd.json`" in written
    assert "`fens.json`" in written
    assert front(done)["source_datasets"] == ["acme/fens"]


def test_the_facts_are_the_cards(published: Published) -> None:
    facts = json.loads((published.files[0].parent / "data-card.json").read_text())
    assert facts["rows"] == published.rows
    assert facts["manifest"] == published.facts.manifest.id
    assert facts["about"]["contact"] == "mara@fen.example"
    assert facts["not_stated"] == []
    assert [step["stage"] for step in facts["steps"]][:2] == ["ingest", "rules"]


def test_a_part_of_a_version_is_called_a_part(wet: Dataset, tmp_path: Path) -> None:
    done = publish(wet, tmp_path / "out", splits=("test",))
    assert "This is a part of the version, which has 42 kept rows." in body(done)
    assert done.facts.tokens < publish(wet, tmp_path / "all").facts.tokens


def test_the_example_is_a_row_of_the_version(published: Published, wet: Dataset) -> None:
    shown = body(published).split("An example, `")[1][:32]
    assert shown in wet.scan(["id", "kept"]).filter(pl.col("kept")).collect()["id"].to_list()


def test_markup_in_a_row_is_shown_as_text(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "s", {"a": [question("<script>alert(1)</script>\n# Big", "![x](http://y)")]})
    text = body(publish(dataset, tmp_path / "out", about=About()))
    assert "<script>" not in text
    assert "\n# Big" not in text
    assert "![x](" not in text
