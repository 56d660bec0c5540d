"""The card: README.md of a published version, with the YAML front matter that the hub reads.

What people wrote (`--about`) is written as text: none of it can become a heading, HTML or another key of the YAML.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import yaml

from curate.portrait import SampleRow
from curate.publish.facts import Facts, SourceFacts
from curate.publish.prose import code, fenced, inline, paragraphs
from curate.publish.rows import COLUMNS
from curate.publish.spdx import hub_licence, licence_names, licence_url
from curate.publish.steps import Step
from curate.review.markdown import escaped

EXAMPLE_CHARACTERS = 600
"""Characters of a turn that the example shows."""


def card(facts: Facts) -> str:
    """Write README.md."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        f"# {inline(facts.title)}",
        paragraphs(facts.description),
        *([inline(facts.in_short)] if facts.about.description else []),
        _people(facts),
        _what(facts),
        _sources(facts),
        _done(facts),
        _personal(facts),
        _contamination(facts),
        _reviews(facts),
        _limits(facts),
        _cite(facts),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """Give what the hub reads: licence, languages, size, configurations, features, sources."""
    front: dict[str, Any] = {"pretty_name": " ".join(facts.title.split())}
    front |= _licence(facts)
    if facts.languages:
        front["language"] = list(facts.languages)
    front["task_categories"] = ["text-generation"]
    front["size_categories"] = [facts.size_category]
    front["tags"] = ["sft", "instruction-tuning", *(" ".join(word.split()) for word in facts.about.keywords)]
    hub = [_hub_dataset(i.uri) for s in facts.sources for i in s.inputs]
    if known := list(dict.fromkeys(name for name in hub if name)):
        front["source_datasets"] = known
    splits = list(facts.by_split)
    front["configs"] = [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
        }
    ]
    of = {split: [f for f in facts.files if f.split == split] for split in splits}
    front["dataset_info"] = {
        "features": [_feature(field) for field in facts.shape.schema],
        "splits": [
            {
                "name": split,
                "num_bytes": sum(f.memory for f in files),
                "num_examples": sum(f.rows for f in files),
            }
            for split, files in of.items()
        ],
        "download_size": sum(f.bytes for f in facts.files),
        "dataset_size": sum(f.memory for f in facts.files),
    }
    return front


def _licence(facts: Facts) -> dict[str, str]:
    """Give the licence as the hub has it: a name that it knows, else `other` with a name and where it is explained."""
    expression = facts.licence.expression
    if expression is None:
        return {"license": "unknown"}
    known = hub_licence(expression)
    if known:
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", expression.lower()).strip("-")
    single = licence_url(expression) if licence_names(expression) == (expression,) else None
    page = f"{facts.page}/blob/{quote(facts.revision, safe='')}/README.md" if facts.page else None
    link = single or page  # the hub takes LICENSE, LICENSE.md or an address here, and no other file
    return {"license": "other", "license_name": name, **({"license_link": link} if link else {})}


def _hub_dataset(uri: str) -> str | None:
    found = re.match(r"hf://datasets/([^/@]+/[^/@]+)", uri)
    return found[1] if found else None


def _feature(field: Any) -> dict[str, Any]:
    """Describe a column as `datasets` does in YAML."""
    return {"name": field.name, **_feature_type(field.type)}


def _feature_type(kind: Any) -> dict[str, Any]:
    if pa.types.is_list(kind):
        inner = _feature_type(kind.value_type)
        return {"list": inner.get("struct", inner.get("dtype", inner))}
    if pa.types.is_struct(kind):
        return {"struct": [_feature(kind.field(i)) for i in range(kind.num_fields)]}
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind))}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    marks = ["---:" if i in right else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _rows(count: int) -> str:
    return "1 row was" if count == 1 else f"{count:,} rows were"


def _named(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{inline(name)} {n:,}" for name, n in rows.items())


def _people(facts: Facts) -> str:
    about = facts.about
    creators = [inline(c.name) + (f" ({inline(c.url)})" if c.url else "") for c in about.creators]
    told = [
        ("Made by", ", ".join(creators)),
        ("Web page", inline(about.url or "")),
        ("Contact", inline(about.contact or "")),
    ]
    told += [("Kept up", inline(about.maintenance or ""))]
    return _list(f"{what}: {said}" for what, said in told if said)


def _what(facts: Facts) -> str:
    splits = _table(["split", "rows"], [(name, f"{n:,}") for name, n in facts.by_split.items()], right=[1])
    columns = _table(["column", "what it holds"], [(f"`{n}`", COLUMNS[n]) for n in facts.shape.schema.names])
    parts = ["## What is in it", splits]
    parts.append(f"About {facts.tokens:,} tokens, estimated from characters.")
    if not facts.whole:
        parts.append(f"This is a part of the version, which has {facts.portrait.summary.kept:,} kept rows.")
    coverage = facts.portrait.coverage
    if coverage:
        languages = _named(dict(list(coverage.languages.items())[:10]))
        more = len(coverage.languages) - 10
        counted = "" if facts.whole else ", counted in the whole version"
        parts.append(
            f"Languages of the answers{counted}: {languages}{f', and {more} more' if more > 0 else ''}; not certain "
            f"{coverage.undecided:,}."
        )
        parts.append(f"Tasks{counted}: {_named({t.task: t.rows for t in coverage.tasks if t.rows})}.")
    parts.append(columns)
    if facts.shape.tool_calls == "text":
        parts.append("`tool_calls` is JSON text, as some calls are not of OpenAI's form.")
    if facts.whole:  # otherwise the example may be a row that is held back
        parts.append(_example(facts.portrait.samples.get("kept", ())))
    return "\n\n".join(part for part in parts if part)


def _example(samples: Sequence[SampleRow]) -> str:
    """Show one row, as text."""
    if not samples:
        return ""
    turns = [f"**{inline(role)}**: {escaped(_cut(text))}" for role, text in samples[0].turns]
    return "\n>\n".join([f"An example, `{samples[0].id}`:\n\n> {turns[0]}", *(f"> {turn}" for turn in turns[1:])])


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else text[: EXAMPLE_CHARACTERS - 1].rstrip() + "…"


def _sources(facts: Facts) -> str:
    head = ["source", "rows", "licence", "terms", "written by"]
    rows = [
        (
            inline(s.portrait.name),
            f"{s.rows:,}",
            _linked(s.portrait.licence.expression),
            inline(s.terms or "") or "none stated",
            inline(s.portrait.generated_by or "") or "not stated",
        )
        for s in facts.sources
    ]
    whole = f"For all rows together: {_linked(facts.licence.expression)}. {inline(facts.licence.why)}"
    files = [_files(s) for s in facts.sources]
    return "\n\n".join(["## Sources and licences", _table(head, rows, right=[1]), whole, *(f for f in files if f)])


def _linked(expression: str | None) -> str:
    """Write a licence with links to its texts."""
    if expression is None:
        return "not stated"
    shown = inline(expression)
    for name in sorted(licence_names(expression), key=len, reverse=True):
        url = licence_url(name)
        if url:
            shown = re.sub(rf"(?<![\w.\[/]){re.escape(inline(name))}(?![\w.+-])", f"[{name}]({url})", shown)
    return shown


def _files(source: SourceFacts) -> str:
    told = source.about
    kinds = f", {told.kind}" if told.kind else ""
    words = [
        inline(told.url or ""),
        f"collected {inline(told.collected)}" if told.collected else "",
        inline(told.note or ""),
    ]
    head = f"{inline(source.portrait.name)} ({inline(source.portrait.format)}{kinds})"
    facts = "; ".join(word for word in words if word)
    files = [f"{code(i.uri)}, {i.rows:,} rows, sha256 `{i.sha256}`" for i in source.inputs]
    return f"{head}{f': {facts}' if facts else ''}\n\n{_list(files)}" if files or facts else ""


def _done(facts: Facts) -> str:
    rows = [
        (
            step.stage,
            inline(step.did),
            f"{step.entered:,}",
            f"{step.kept:,}",
            f"{step.edited:,}" if step.edited else "",
        )
        for step in facts.steps
    ]
    table = _table(["stage", "what it did", "rows in", "kept", "edited"], rows, right=[2, 3, 4])
    reasons = [(code(n.name), inline(n.sentence), f"{n.rows:,}") for step in facts.steps for n in step.rejected]
    edits = [(code(n.name), inline(n.sentence), f"{n.rows:,}") for step in facts.steps for n in step.edits]
    parts = ["## What was done", table]
    if reasons:
        parts += ["Rows that were left out:", _table(["reason", "what it means", "rows"], reasons, right=[2])]
    if edits:
        parts += ["Rows whose text was changed:", _table(["edit", "what it means", "rows"], edits, right=[2])]
    return "\n\n".join(parts)


def _personal(facts: Facts) -> str:
    if facts.personal is None:
        said = "Nobody has searched the rows for personal data or secrets."
    elif facts.redacted:
        said = "What was found was replaced by placeholders such as `<EMAIL>`; a search finds most of it, never all."
    elif facts.personal:
        said = f"Rows in here that hold some, by a search that finds most of it and not all: {_named(facts.personal)}."
    else:
        said = "A search found none in these rows; a search finds most of it, never all."
    return f"## Personal data and secrets\n\n{said}"


def _contamination(facts: Facts) -> str:
    step = next((s for s in facts.steps if s.stage == "decontaminate"), None)
    if not facts.evals:
        return "## Evaluation sets\n\nThe rows were not searched for items of evaluation sets."
    out = sum(n.rows for n in step.rejected) if step else 0
    names = ", ".join(inline(name) for name in facts.evals)
    stage = facts.manifest.stage("decontaminate")
    kept = stage is not None and stage.config.get("action", "reject") != "reject"
    done = "those that hold one were reported, and kept" if kept else f"{_rows(out)} left out"
    return f"## Evaluation sets\n\nThe rows were searched for items of {names}; {done}."


def _reviews(facts: Facts) -> str:
    if facts.reviewing is None:
        return "## Reviews\n\nNo row in here was reviewed by people, as far as the store knows."
    r = facts.reviewing
    people = f"{r.per_row[0]}" if r.per_row[0] == r.per_row[1] else f"{r.per_row[0]} to {r.per_row[1]}"
    share = f" On average {r.agreement:.0%} of a row's reviewers gave the verdict that stands." if r.agreement else ""
    parts = [f"## Reviews\n\n{r.rows:,} of these rows were reviewed, each by {people}; {_named(r.by_status)}.{share}"]
    parts += [_list(inline(who) for who in facts.about.annotators)] if facts.about.annotators else []
    return "\n\n".join(parts)


def _limits(facts: Facts) -> str:
    """Write for what the dataset is, for what not, and what is known to be uneven."""
    about = facts.about
    parts: list[str] = []
    if about.intended_use:
        parts += ["## Intended use", _list(map(inline, about.intended_use))]
    known = [*map(inline, about.limitations), *(inline(text) for text in counted_limits(facts))]
    parts += ["## Known limits", _list(known)]
    if about.biases:
        parts += ["## Known biases", _list(map(inline, about.biases))]
    if about.social_impact:
        parts += ["## What its use may do", paragraphs(about.social_impact)]
    if facts.missing:
        parts.append(f"Not stated by the publisher: {', '.join(inline(name) for name in facts.missing)}.")
    return "\n\n".join(parts)


def counted_limits(facts: Facts) -> list[str]:
    """Give the limits that can be counted: what is thin, stale, not searched, restricted."""
    coverage, summary = facts.portrait.coverage, facts.portrait.summary
    limits: list[str] = []
    if coverage:
        limits += [f"Few rows of a kind of task: {', '.join(coverage.thin)}."] if coverage.thin else []
        if facts.languages and coverage.rows:
            share = coverage.languages[facts.languages[0]] / max(1, sum(coverage.languages.values()))
            limits.append(f"{share:.1%} of the answers whose language is certain are in {facts.languages[0]}.")
    else:
        limits.append("Languages and tasks were not measured.")
    if facts.licence.commercial is False:
        limits.append("The licences of some rows do not allow commercial use.")
    elif facts.licence.commercial is None:
        limits.append("Whether commercial use is allowed cannot be told for all rows.")
    limits += [
        f"Written by a model, {s.portrait.generated_by}: {s.portrait.name}."
        for s in facts.sources
        if s.portrait.generated_by
    ]
    limits += [] if facts.personal is not None else ["Personal data was not searched for."]
    limits += [] if facts.evals else ["Overlap with evaluation sets was not searched for."]
    limits += ["Facts in the answers were not checked by people."] if facts.reviewing is None else []
    limits += [f"These stages are older than what they read: {', '.join(summary.stale)}."] if summary.stale else []
    return limits


def _cite(facts: Facts) -> str:
    m = facts.manifest
    parts = ["## How to cite it"]
    parts += [fenced(facts.about.citation)] if facts.about.citation else []
    parts.append(f"Version {facts.version}, manifest `{m.id}`, made with sft-toolkit {inline(m.code_version)}.")
    parts.append(
        "`croissant.json` describes the files for machines, `data-card.json` holds the facts of this card, and "
        "`ai-act-summary.md` what the EU's template for the summary of training content asks of a dataset."
    )
    return "\n\n".join(parts)


def steps_in_words(steps: Iterable[Step]) -> list[str]:
    """Give the steps as sentences with their counts, for machine-readable descriptions."""
    said: list[str] = []
    for step in steps:
        out = step.entered - step.kept
        counts = [f"{step.entered:,} rows in", f"{step.kept:,} kept"]
        counts += [f"{out:,} left out"] if out else []
        counts += [f"{step.edited:,} edited"] if step.edited else []
        said.append(f"{step.stage}: {step.did} ({', '.join(counts)})")
    return said
