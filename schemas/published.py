"""JSON Schemas of the files that other programs may read or write, in schemas/json/.

`python -m schemas.published` writes them. A test fails when they differ from the models that they are made of.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from schemas.manifest import Manifest
from schemas.recipe import Recipe

FOLDER = Path(__file__).parent / "json"
PUBLISHED: dict[str, type[BaseModel]] = {"manifest": Manifest, "recipe": Recipe}


def schema_text(model: type[BaseModel]) -> str:
    """Give the JSON Schema (draft 2020-12) of a model as the file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def write() -> None:
    """Write every published schema."""
    FOLDER.mkdir(exist_ok=True)
    for name, model in PUBLISHED.items():
        (FOLDER / f"{name}.schema.json").write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    write()
