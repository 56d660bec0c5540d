"""The facts that the EU's template for the public summary of training content asks for, as far as a dataset has them.

Template: European Commission, 24 July 2025, for providers of general-purpose AI models (Regulation (EU) 2024/1689,
Article 53(1)(d)). Numbers and titles of its sections were compared with published summaries that follow it; the
Commission's own text is what counts. A summary is about a model and all of its training; this is
one dataset's part of it. What only the provider can say is marked, and never filled in.
"""

from dataclasses import asdict, dataclass
from typing import Any

from curate.publish.card import steps_in_words
from curate.publish.facts import Facts, SourceFacts
from curate.publish.prose import inline

PROVIDER = "to be stated by the provider"
NOT_MEASURED = "not measured"
_SIZE = "1.3 Modalities, overall training data size and other characteristics"
_RESERVED = "3.1 Respect of reservation of rights from text and data mining exception or limitation"

TEXT_SIZES = ((10**9, "less than 1 billion tokens"), (10**13, "1 billion to 10 trillion tokens"))
"""The template's ranges for text, below these numbers of tokens."""
LARGEST = "more than 10 trillion tokens"

KINDS = {
    "public": "2.1 Publicly available datasets",
    "licensed": "2.2.1 Datasets commercially licensed by rightsholders or their representatives",
    "private": "2.2.2 Private datasets obtained from other third parties",
    "crawled": "2.3 Data crawled and scraped from online sources",
    "user": "2.4 User data",
    "synthetic": "2.5 Synthetic data",
    "other": "2.6 Other sources of data",
}
"""Kinds of sources (schemas.about) and their sections in the template."""
UNTOLD = "Sources whose kind is to be stated by the provider"


@dataclass(frozen=True)
class Entry:
    """One field of the template and its answer. `by`: what the answer comes from, the dataset or the provider."""

    section: str
    field: str
    answer: str
    by: str


def summary(facts: Facts) -> list[Entry]:
    """Answer the fields of the template, in its order."""
    return [*_general(facts), *_sources(facts), *_processing(facts)]


def _known(section: str, field: str, answer: str) -> Entry:
    return Entry(section, field, answer, "dataset")


def _stated(section: str, field: str, answer: str | None) -> Entry:
    """Take what the provider said in `--about`; otherwise it is still to be said."""
    return Entry(section, field, answer or PROVIDER, "provider")


def _general(facts: Facts) -> list[Entry]:
    about, m, coverage = facts.about, facts.manifest, facts.portrait.coverage
    makers = ", ".join(c.name for c in about.creators)
    contact = ", ".join(part for part in (makers, about.contact) if part)
    collected = [f"{s.portrait.name}: {s.about.collected}" for s in facts.sources if s.about.collected]
    languages = ", ".join(f"{code} {rows:,}" for code, rows in coverage.languages.items()) if coverage else ""
    tasks = "; kinds of tasks: " + ", ".join(t.task for t in coverage.tasks if t.rows) if coverage else ""
    size = next((name for most, name in TEXT_SIZES if facts.tokens < most), LARGEST)
    exact = f"about {facts.tokens:,}, estimated from characters"
    return [
        _stated("1.1 Provider identification", "Provider name and contact details", contact or None),
        _stated("1.1 Provider identification", "Authorised representative name and contact details", None),
        _stated(
            "1.2 Model identification", "Versioned model names, dependencies, date of placement on the market", None
        ),
        _known("1.2 Model identification", "Dataset", f"{m.name} {facts.version}, manifest {m.id}"),
        _known(_SIZE, "Modalities", "Text"),
        _known(
            _SIZE,
            "Training data size",
            f"{size} ({exact})",
        ),
        _known(
            _SIZE,
            "Types of content",
            f"{facts.rows:,} conversations: instructions with answers{tasks}",
        ),
        _stated(
            _SIZE,
            "Latest date of data acquisition or collection",
            "; ".join(collected) or None,
        ),
        _known(
            _SIZE,
            "Date of this version of the dataset",
            m.created,
        ),
        _known(
            _SIZE,
            "Linguistic characteristics",
            f"rows by the language of their answers: {languages}" if languages else NOT_MEASURED,
        ),
        _stated(
            _SIZE,
            "Other relevant characteristics",
            "; ".join(about.biases) or None,
        ),
    ]


def kind_of(source: SourceFacts) -> str | None:
    """Give the kind of a source as stated, else None.

    A model that wrote it does not tell: section 2.5 is for what the provider made or had made, and what others made
    with a model and published is a public dataset.
    """
    return source.about.kind


def _sources(facts: Facts) -> list[Entry]:
    entries: list[Entry] = []
    for kind, section in KINDS.items():
        own = [s for s in facts.sources if kind_of(s) == kind]
        entries += [_known(section, s.portrait.name, _source(s)) for s in own]
        if not own:
            untold = any(kind_of(s) is None for s in facts.sources)
            answer = "none among the sources whose kind is known" if untold else "none"
            entries.append(_known(section, "Sources", answer))
    left = [s for s in facts.sources if kind_of(s) is None]
    return entries + [Entry(UNTOLD, s.portrait.name, _source(s), "provider") for s in left]


def _source(source: SourceFacts) -> str:
    """Describe a source: rows, licence, terms, where it was got, which model wrote it."""
    p, about = source.portrait, source.about
    parts = [
        f"{source.rows:,} rows",
        f"licence {p.licence.expression or 'not stated'}",
        f"terms: {source.terms}" if source.terms else "",
        f"written by the model {p.generated_by}" if p.generated_by else "",
        f"published at {about.url}" if about.url else "",
        f"read from {', '.join(i.uri for i in source.inputs)}" if source.inputs else "",
        f"collected {about.collected}" if about.collected else "",
        about.note or "",
    ]
    return "; ".join(part for part in parts if part)


def _processing(facts: Facts) -> list[Entry]:
    about = facts.about
    personal = NOT_MEASURED
    if facts.personal is not None:
        found = ", ".join(f"{kind} in {rows:,} rows" for kind, rows in facts.personal.items())
        personal = "searched for; " + (
            "what was found was replaced by placeholders"
            if facts.redacted
            else f"left in: {found}"
            if found
            else "none found"
        )
    evals = f"searched for {', '.join(facts.evals)}" if facts.evals else NOT_MEASURED
    illegal = about.illegal_content
    reviewed = f"{facts.reviewing.rows:,} rows" if facts.reviewing else "none"
    return [
        _known(_RESERVED, "Licence of the whole", _licence(facts)),
        _stated(_RESERVED, "Measures", about.rights_reservations),
        Entry(
            "3.2 Removal of illegal content",
            "Measures",
            illegal or f"{NOT_MEASURED}; {PROVIDER}",
            "provider" if illegal else "dataset",
        ),
        *(_known("3.3 Other information (optional)", "Processing", step) for step in steps_in_words(facts.steps)),
        _known("3.3 Other information (optional)", "Personal data and secrets", personal),
        _known("3.3 Other information (optional)", "Overlap with evaluation sets", evals),
        _known("3.3 Other information (optional)", "Rows reviewed by people", reviewed),
    ]


def _licence(facts: Facts) -> str:
    return f"{facts.licence.expression or 'not stated'}. {facts.licence.why}"


def summary_json(facts: Facts) -> dict[str, Any]:
    """Give the summary as plain values."""
    m = facts.manifest
    return {
        "template": "Public Summary of Training Content for general-purpose AI models, European Commission, July 2025",
        "covers": f"{m.name} {facts.version}",
        "entries": [asdict(entry) for entry in summary(facts)],
    }


def summary_markdown(facts: Facts) -> str:
    """Write the summary for people."""
    m = facts.manifest
    parts = [
        f"# Training content: {inline(facts.title)}",
        "One dataset's part of the public summary that Article 53(1)(d) of Regulation (EU) 2024/1689 asks of providers "
        "of general-purpose AI models, in the order of the Commission's template of 24 July 2025. It is made from "
        f"version {facts.version} of {inline(m.name)}; the template's own text is what counts. What only the "
        "provider of the model can say is marked so.",
    ]
    tables: dict[str, list[Entry]] = {}
    for entry in summary(facts):
        tables.setdefault(entry.section, []).append(entry)
    for section, entries in tables.items():
        rows = "\n".join(f"| {inline(e.field)} | {inline(e.answer)} |" for e in entries)
        parts.append(f"## {section}\n\n| | |\n| --- | --- |\n{rows}")
    return "\n\n".join(parts) + "\n"
