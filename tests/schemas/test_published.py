"""The published JSON Schemas are those of the models, and describe what we write."""

import pytest

from schemas.published import FOLDER, PUBLISHED, schema_text


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_schema_is_that_of_its_model(name: str) -> None:
    """After a change of a model: python -m schemas.published"""
    assert (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8") == schema_text(PUBLISHED[name])


def test_nothing_else_is_published() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.schema.json" for name in PUBLISHED}
