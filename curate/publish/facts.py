"""Facts: all that a published version says of itself, worked out once for the card, Croissant and the AI Act summary.

What the store knows is counted; what only a person can say comes from `schemas.about`, and where it is not said,
`Facts.missing` names it. Nothing is made up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from curate.licences import Licence, of_mix
from curate.portrait import Portrait, SourcePortrait, portray
from curate.publish.rows import COLUMNS, Shape
from curate.publish.steps import Step, evaluation_sets, steps_of
from schemas.about import About, SourceAbout
from schemas.dataset import Dataset
from schemas.manifest import InputFile, Manifest

LANGUAGE_SHARE = 0.01
"""A language is one of the dataset's where this share of the rows whose language is certain has it: single rows in
another language are no reason to look for the dataset under that language."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The hub's names for numbers of rows below these."""
LARGER_SIZES = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))

EXPECTED = ("title", "description", "creators", "url", "contact", "citation", "intended_use", "limitations", "biases")
"""What readers of a card look for and only a person can say."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file: its path in the folder, its split as the hub calls it, bytes on disk and when decompressed."""

    name: str
    split: str
    rows: int
    bytes: int
    memory: int
    sha256: str


@dataclass(frozen=True)
class SourceFacts:
    """A source with rows in what is published. `inputs`: its files by name or public address, never a local path."""

    portrait: SourcePortrait
    about: SourceAbout
    rows: int
    terms: str | None
    inputs: tuple[InputFile, ...]


@dataclass(frozen=True)
class Reviewing:
    """What people did. `rows`: those that somebody saw; `per_row`: fewest and most reviewers;
    `agreement`: mean share of a row's reviewers whose verdict stands."""

    rows: int
    per_row: tuple[int, int]
    agreement: float | None
    by_status: Mapping[str, int]


@dataclass(frozen=True)
class Facts:
    """A published version.

    `personal`: kinds of personal data and secrets -> published rows that hold one (None: nobody has looked). `evals`:
    evaluation sets that the rows were searched for, with their SHA-256. `tokens`: of the published rows, estimated from
    characters. `whole`: all kept rows are published. `page`, `revision`: where on the hub it will lie, if it will.
    """

    manifest: Manifest
    about: About
    portrait: Portrait
    files: tuple[DataFile, ...]
    shape: Shape
    sources: tuple[SourceFacts, ...]
    licence: Licence
    steps: tuple[Step, ...]
    personal: Mapping[str, int] | None
    redacted: bool
    evals: Mapping[str, str | None] | None
    reviewing: Reviewing | None
    languages: tuple[str, ...]
    tokens: int
    whole: bool
    page: str | None
    revision: str

    @property
    def rows(self) -> int:
        """Published rows."""
        return sum(file.rows for file in self.files)

    @property
    def by_split(self) -> dict[str, int]:
        """Published rows of each split, as the hub calls them."""
        counts: Counter[str] = Counter()
        for file in self.files:
            counts[file.split] += file.rows
        return dict(counts)

    @property
    def title(self) -> str:
        """The name that people read: as stated, else the dataset's own."""
        return self.about.title or self.manifest.name

    @property
    def description(self) -> str:
        """What it is: as stated, else what the store knows."""
        return self.about.description or self.in_short

    @property
    def in_short(self) -> str:
        """What the store knows, in two sentences."""
        names = _list(source.portrait.name for source in self.sources)
        rows = f"{self.rows:,} conversation{'' if self.rows == 1 else 's'} for supervised fine-tuning"
        kept = self.portrait.summary
        of = f"{kept.kept:,} of {kept.rows:,} rows were kept"
        m = self.manifest
        return f"{rows}, from {names}. {of}; version {m.semver} of {m.name}."

    @property
    def version(self) -> str:
        """Semantic version with the beginning of the manifest's id: 2.0.0+sha.abcdef123456."""
        return f"{self.manifest.semver}+sha.{self.manifest.id[:12]}"

    @property
    def published(self) -> str:
        """Day of publication: as stated, else the day on which the version was made."""
        stated = self.about.published
        return stated.isoformat() if stated else datetime.fromisoformat(self.manifest.created).date().isoformat()

    @property
    def citation(self) -> str:
        """How to cite it: as stated, else by version and manifest."""
        return self.about.citation or f"{self.title}, version {self.version}, manifest {self.manifest.id}"

    @property
    def url(self) -> str | None:
        """Web page: as stated, else that of the repository (`page`)."""
        return self.about.url or self.page

    @property
    def size_category(self) -> str:
        """The hub's name for the number of rows."""
        return next((name for most, name in (*SIZES, *LARGER_SIZES) if self.rows < most), "10B<n<100B")

    @property
    def missing(self) -> tuple[str, ...]:
        """What readers look for and nobody has stated."""
        stated = {name for name in EXPECTED if getattr(self.about, name)} | ({"url"} if self.url else set())
        kinds = [f"sources.{s.portrait.name}.kind" for s in self.sources if not s.about.kind]
        unlicensed = [f"licence of {s.portrait.name}" for s in self.sources if not s.portrait.licence.expression]
        return (*(name for name in EXPECTED if name not in stated), *kinds, *unlicensed)

    def to_json(self) -> dict[str, Any]:
        """Give the facts as plain values: what data-card.json holds."""
        m, summary, coverage = self.manifest, self.portrait.summary, self.portrait.coverage
        return {
            "name": m.name,
            "title": self.title,
            "description": self.description,
            "version": self.version,
            "manifest": m.id,
            "created": m.created,
            "published": self.published,
            "made_with": f"sft-toolkit {m.code_version}",
            "url": self.url,
            "rows": self.rows,
            "splits": self.by_split,
            "rows_in_store": summary.rows,
            "kept_in_store": summary.kept,
            "tokens_estimated": self.tokens,
            "columns": {name: COLUMNS[name] for name in self.shape.schema.names},
            "licence": _licence_json(self.licence),
            "sources": [
                {
                    "name": s.portrait.name,
                    "format": s.portrait.format,
                    "rows": s.rows,
                    "licence": _licence_json(s.portrait.licence),
                    "terms": s.terms,
                    "generated_by": s.portrait.generated_by,
                    "rejected": dict(s.portrait.rejected),
                    "inputs": [i.model_dump() for i in s.inputs],
                    **s.about.model_dump(),
                }
                for s in self.sources
            ],
            "languages": coverage.languages if coverage else None,
            "tasks": {t.task: t.rows for t in coverage.tasks} if coverage else None,
            "steps": [step.to_json() for step in self.steps],
            "personal_data": dict(self.personal) if self.personal is not None else None,
            "evaluation_sets": dict(self.evals) if self.evals is not None else None,
            "reviews": vars(self.reviewing) if self.reviewing else None,
            "files": [vars(file) for file in self.files],
            "about": self.about.model_dump(mode="json", exclude={"sources"}),
            "not_stated": list(self.missing),
        }


def _licence_json(licence: Licence) -> dict[str, Any]:
    return {
        "expression": licence.expression,
        "class": licence.kind,
        "commercial_use": licence.commercial,
        "terms": list(licence.terms),
        "why": licence.why,
    }


def _list(names: Iterable[str]) -> str:
    some = list(names)
    return " and ".join([", ".join(some[:-1]), some[-1]]) if len(some) > 1 else "".join(some)


def facts_of(
    dataset: Dataset,
    about: About,
    files: tuple[DataFile, ...],
    shape: Shape,
    *,
    splits: tuple[str | None, ...],
    page: str | None = None,
    revision: str = "main",
) -> Facts:
    """Work out what is said of the rows that were written: the kept ones of `splits` (None: all).

    Reads: source, split, kept, entities, reviewers, agreement, review_status, and what `portray` reads.
    """
    portrait, m = portray(dataset), dataset.manifest
    rows = _published(dataset, splits)
    by_source = dict(rows.group_by("source").len().iter_rows())
    sources = tuple(_source(m, p, about, by_source[p.name]) for p in portrait.sources if p.name in by_source)
    pii, decontaminate = m.stage("pii"), m.stage("decontaminate")
    redacted = pii is not None and pii.config.get("action") == "redact"
    return Facts(
        manifest=m,
        about=about,
        portrait=portrait,
        files=files,
        shape=shape,
        sources=sources,
        licence=of_mix(s.portrait.licence for s in sources),
        steps=steps_of(dataset),
        personal=_personal(rows, redacted=redacted) if pii else None,
        redacted=redacted,
        evals=evaluation_sets(decontaminate.config) if decontaminate else None,
        reviewing=_reviewing(rows) if m.stage("review") else None,
        languages=_languages(portrait),
        tokens=portrait.tokens
        if splits == (None,)
        else sum(portrait.tokens_by_split.get(split, 0) for split in splits if split),
        whole=sum(f.rows for f in files) == portrait.summary.kept,
        page=page,
        revision=revision,
    )


def _published(dataset: Dataset, splits: tuple[str | None, ...]) -> pl.DataFrame:
    columns = ["source", "split", "kept", "entities", "reviewers", "agreement", "review_status"]
    rows = dataset.scan(columns).filter("kept")
    if splits != (None,):
        rows = rows.filter(pl.col("split").is_in(splits))
    return rows.collect(engine="streaming")


def _source(m: Manifest, portrait: SourcePortrait, about: About, rows: int) -> SourceFacts:
    source = m.source(portrait.name)
    inputs = source.inputs if source else ()
    named = tuple(i.model_copy(update={"uri": _public(i.uri)}) for i in inputs)
    told = about.sources.get(portrait.name, SourceAbout())
    return SourceFacts(portrait, told, rows, source.terms if source else None, named)


def _public(uri: str) -> str:
    """Name a file without telling where it lay on somebody's disk, or with which password it was fetched."""
    place = uri.partition("?")[0] if "://" in uri else uri  # what follows may be a signature
    try:
        parts = urlsplit(place)
    except ValueError:  # brackets that hold no address
        parts = urlsplit("")
    if parts.scheme not in ("hf", "http", "https"):
        return place.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _personal(rows: pl.DataFrame, *, redacted: bool) -> dict[str, int]:
    """Count published rows by the kind of finding that they still hold, the most frequent first."""
    if redacted:
        return {}
    kinds = rows.with_row_index("row").select("row", "entities").explode("entities", empty_as_null=True)
    found = kinds.select("row", kind=pl.col("entities").struct.field("kind")).drop_nulls("kind").unique()
    counts = found.group_by("kind").len().sort("len", "kind", descending=[True, False])
    return {str(kind): int(n) for kind, n in counts.iter_rows()}


def _reviewing(rows: pl.DataFrame) -> Reviewing | None:
    seen = rows.filter(pl.col("reviewers").list.len() > 0)
    if not seen.height:
        return None
    people = seen["reviewers"].list.len()
    fewest, most, agreement = people.min(), people.max(), seen["agreement"].mean()
    statuses = Counter(str(s) for s in seen["review_status"].drop_nulls())
    return Reviewing(
        seen.height,
        (int(str(fewest)), int(str(most))),
        float(str(agreement)) if agreement is not None else None,
        dict(sorted(statuses.items())),
    )


def _languages(portrait: Portrait) -> tuple[str, ...]:
    """Give the languages that enough rows have, the most frequent first."""
    counts = portrait.coverage.languages if portrait.coverage else {}
    total = sum(counts.values())
    return tuple(code for code, rows in counts.items() if rows >= LANGUAGE_SHARE * total)
