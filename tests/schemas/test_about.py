"""The about file: what people say is taken as it stands, and what cannot be is named."""

from datetime import date
from pathlib import Path

import pytest

from schemas.about import About, read_about
from schemas.errors import ConfigError

WHOLE = """
title = 'Fens: a "survey"'
description = '''
Two
lines'''
published = 2026-03-31
limitations = ["Fens alone."]
[[creators]]
name = "Mara"
kind = "person"
[sources.fens]
kind = "public"
collected = "March 2025"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "about.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_it_is_read_as_it_stands(tmp_path: Path) -> None:
    about = read_about(written(tmp_path, WHOLE))
    assert about.title == 'Fens: a "survey"'
    assert about.published == date(2026, 3, 31)
    assert about.creators[0].kind == "person"
    assert about.sources["fens"].kind == "public"
    assert about.description is not None
    assert "\n" in about.description


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_about(written(tmp_path, "")) == About()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "tilte = 'x'\nlimitation = []",
            "tilte: no such key; limitation: no such key; expected keys out of title, desc",
        ),
        ("[[creators]]\nurl = 'https://x.example'", "creators.0.name: Field required"),
        ("url = 'fens'", "url: String should match"),
        ("title = ''", "title: String should have at least 1 character"),
        ("[sources.fens]\nkind = 'stolen'", "sources.fens.kind: Input should be 'public', 'licensed'"),
        ("published = 'soon'", "published: Input should be a valid date"),
        ("title = ", "not TOML"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        read_about(written(tmp_path, text))
    assert said in str(told.value)
    assert "about.toml" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file or directory; expected a TOML file"):
        read_about(tmp_path / "none.toml")


def test_the_example_of_the_docs_holds_every_key(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
    about = read_about(written(tmp_path, page.split("```toml\n")[1].split("```")[0]))
    assert about.model_fields_set == set(About.model_fields)
