"""Croissant 1.1 with the vocabulary for responsible AI: what machines read about a published version.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
Only what is known is written. mlcroissant 1.1.1 lets files pass that lack a name or an address; `missing_fields` does
not.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

import pyarrow as pa

from curate.publish.card import counted_limits, steps_in_words
from curate.publish.facts import DataFile, Facts
from curate.publish.rows import COLUMNS
from curate.publish.spdx import licence_names, licence_url

CROISSANT = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
PARQUET = "application/x-parquet"
"""The media type by which mlcroissant knows Parquet."""

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The terms of the vocabulary, as the specification fixes them."""

REQUIRED = (
    "@context",
    "@type",
    "conformsTo",
    "name",
    "description",
    "license",
    "url",
    "creator",
    "datePublished",
    "version",
)
_TYPES = {"string": "sc:Text", "float": "cr:Float32"}


def croissant(facts: Facts) -> dict[str, Any]:
    """Describe a published version as JSON-LD. What nobody stated is left out (see `missing_fields`)."""
    about = facts.about
    licences = licence_names(facts.licence.expression) if facts.licence.expression else ()
    creators = [
        {
            "@type": "Person" if c.kind == "person" else "Organization",
            "name": c.name,
            **({"url": c.url} if c.url else {}),
        }
        for c in about.creators
    ]
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": " ".join(facts.title.split()),
        "description": facts.description,
        "license": [licence_url(name) or name for name in licences],
        "url": facts.url,
        "creator": creators,
        "datePublished": facts.published,
        "dateCreated": facts.manifest.created,
        "version": facts.version,
        "citeAs": facts.citation,
        "keywords": list(about.keywords),
        "inLanguage": list(facts.languages),
        "isLiveDataset": False,
        **_responsible(facts),
        "distribution": _distribution(facts),
        "recordSet": [_record_set(split, facts) for split in facts.by_split],
    }
    return {name: value for name, value in described.items() if value not in (None, [], "")}


def _responsible(facts: Facts) -> dict[str, Any]:
    """Give the RAI properties of which something is known."""
    about, reviewing = facts.about, facts.reviewing
    collected = [
        f"{s.portrait.name}: {s.rows:,} rows read from {', '.join(i.uri for i in s.inputs) or 'files'}"
        + (f", written by {s.portrait.generated_by}" if s.portrait.generated_by else "")
        + (f", collected {s.about.collected}" if s.about.collected else "")
        for s in facts.sources
    ]
    personal = [f"{kind}: {rows:,} rows" for kind, rows in (facts.personal or {}).items()]
    searched = "Searched for personal data and secrets" if facts.personal is not None else None
    if searched:
        outcome = "what was found was replaced by placeholders" if facts.redacted else "none was found"
        searched = f"{searched}; {'found in these rows' if personal else outcome}."
    judge = next((s.did for s in facts.steps if s.stage == "score" and "judge" in s.did), None)
    annotation = [s.did for s in facts.steps if s.stage == "review"]
    return {
        "rai:dataCollection": ". ".join(collected) + "." if collected else None,
        "rai:dataPreprocessingProtocol": steps_in_words(s for s in facts.steps if s.stage not in ("ingest", "review")),
        "rai:dataAnnotationProtocol": annotation if reviewing else [],
        "rai:annotationsPerItem": _per_item(reviewing.per_row) if reviewing else None,
        "rai:annotatorDemographics": list(about.annotators),
        "rai:machineAnnotationTools": [judge] if judge else [],
        "rai:personalSensitiveInformation": [searched, *personal] if searched else [],
        "rai:dataLimitations": [*about.limitations, *counted_limits(facts)],
        "rai:dataBiases": list(about.biases),
        "rai:dataUseCases": list(about.intended_use),
        "rai:dataSocialImpact": about.social_impact,
        "rai:dataReleaseMaintenancePlan": about.maintenance,
    }


def _per_item(people: tuple[int, int]) -> str:
    fewest, most = people
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _distribution(facts: Facts) -> list[dict[str, Any]]:
    """List each file with its hash, and the files of each split as a set where there are several."""
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "description": f"Rows of the split {file.split}: {file.rows:,}.",
            "contentUrl": _address(file, facts),
            "contentSize": f"{file.bytes} B",
            "encodingFormat": PARQUET,
            "sha256": file.sha256,
        }
        for file in facts.files
    ]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"{split}-files",
            "name": f"{split}-files",
            "description": f"All files of the split {split}.",
            "encodingFormat": PARQUET,
            "includes": f"data/{split}-*.parquet",
        }
        for split in facts.by_split
        if len([f for f in facts.files if f.split == split]) > 1
    ]
    return files + sets


def _address(file: DataFile, facts: Facts) -> str:
    if facts.page is None:
        return file.name
    return f"{facts.page}/resolve/{quote(facts.revision, safe='')}/{file.name}"


def _record_set(split: str, facts: Facts) -> dict[str, Any]:
    """Describe the rows of a split."""
    files = [file for file in facts.files if file.split == split]
    source = {"fileObject": {"@id": files[0].name}} if len(files) == 1 else {"fileSet": {"@id": f"{split}-files"}}
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The split {split}: {sum(f.rows for f in files):,} conversations.",
        "key": {"@id": f"{split}/id"},
        "field": [_field(split, field, source) for field in facts.shape.schema],
    }


def _field(split: str, field: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a column. Of a turn the texts are described; calls of tools are lists in lists: no reader takes them."""
    described: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{split}/{field.name}",
        "name": field.name,
        "description": COLUMNS[field.name],
    }
    if not pa.types.is_list(field.type):
        kind = _TYPES[str(field.type)]
        return {**described, "dataType": kind, "source": {**source, "extract": {"column": field.name}}}
    turn = field.type.value_type
    texts = [turn.field(i) for i in range(turn.num_fields) if pa.types.is_string(turn.field(i).type)]
    parts = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{field.name}/{part.name}",
            "name": part.name,
            "dataType": "sc:Text",
            "isArray": True,
            "arrayShape": "-1",
            "source": {**source, "extract": {"column": field.name}, "transform": {"jsonPath": part.name}},
        }
        for part in texts
    ]
    return {**described, "isArray": True, "arrayShape": "-1", "subField": parts}


def missing_fields(described: Mapping[str, Any]) -> list[str]:
    """Name what Croissant requires and the description lacks, down to files and fields; none where it is whole."""
    missing = [name for name in REQUIRED if not described.get(name)]
    if described.get("conformsTo") and CROISSANT not in described["conformsTo"]:
        missing.append(f"conformsTo {CROISSANT}")
    missing += [] if described.get("distribution") else ["distribution"]
    for file in _nodes(described.get("distribution")):
        needs = ("@id", "name", "encodingFormat", "contentUrl", "contentSize", "sha256")
        needs = needs if file.get("@type") == "cr:FileObject" else ("@id", "name", "encodingFormat", "includes")
        missing += [f"{name} of {file.get('@id', 'a file')}" for name in needs if not file.get(name)]
    missing += [] if described.get("recordSet") else ["recordSet"]
    for records in _nodes(described.get("recordSet")):
        missing += [] if records.get("field") else [f"field of {records.get('@id', 'a record set')}"]
        for field in _nodes(records.get("field")):
            leaves = _nodes(field["subField"]) if field.get("subField") else [field]
            for leaf in leaves:
                needs = ("@id", "name", "dataType", "source")
                missing += [f"{name} of {leaf.get('@id', 'a field')}" for name in needs if not leaf.get(name)]
    return missing


def _nodes(value: Any) -> Iterable[dict[str, Any]]:
    return cast("list[dict[str, Any]]", value) if isinstance(value, list) else ()
