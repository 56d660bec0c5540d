"""Guidelines: what reviewers are told before they begin; made from the dataset, or what somebody wrote."""

from collections.abc import Mapping
from pathlib import Path

from curate.review.form import GUIDELINES_CHARACTERS
from curate.review.markdown import clean, line
from schemas.errors import ConfigError
from schemas.review_config import PushConfig

TEMPLATE = Path(__file__).with_suffix(".md")

MOST_SOURCES = 10
"""Sources that are named; a list of all could be longer than the server takes."""

_CHOSEN = {
    "uncertain": "You get the rows whose review teaches most, by a score that is learnt from earlier reviews.",
    "borderline": "You get rows for which the automatic verdict could as well be the other one.",
    "random": "You get rows that were drawn by chance, so that they show what the whole is like.",
    "conflicts": "You get rows with the same question and different answers, one after the other.",
    "disagreement": "You get rows about which scores, or reviewers before you, disagree.",
    "cluster": "You get rows that are nearly the same, one after the other.",
}
_BY_RULE = "You get rows that one automatic rule found. Your verdicts show how often the rule is right."
_SUGGESTED = (
    "Verdict, issues and correction are filled in with what the pipeline thinks. It is often wrong: "
    "look first, and change what you would not have said yourself."
)


def make_guidelines(
    dataset: str, sources: Mapping[str, int], found: Mapping[str, int], sentences: Mapping[str, str], config: PushConfig
) -> str:
    """Write the guidelines of a dataset. `sources`: rows of each; `found`: rows of each reason that its stages gave.

    A list of reasons that is too long for the server is cut.
    """
    people = "one reviewer" if config.min_submitted == 1 else f"{config.min_submitted} reviewers"
    text = TEMPLATE.read_text(encoding="utf-8").format(
        dataset=line(dataset),
        sources=f"They come from {_listed(sources)}.",
        chosen=_CHOSEN.get(config.select, _BY_RULE),
        suggested="" if config.blind else _SUGGESTED,
        min_submitted=people,
        found="",
    )
    if config.blind or not found:
        return text
    text += "\n## What the automatic rules found here\n"
    for reason, rows in found.items():
        told = f"\n- {line(reason)} ({rows:,} rows): {line(sentences.get(reason, 'A rule of this dataset.'))}"
        if len(text) + len(told) > GUIDELINES_CHARACTERS:
            break
        text += told
    return text


def _listed(sources: Mapping[str, int]) -> str:
    named = [f"{line(name)} ({rows:,} rows)" for name, rows in list(sources.items())[:MOST_SOURCES]]
    more = len(sources) - len(named)
    return ", ".join([*named, *([f"{more:,} other sources"] if more else [])])


def read_guidelines(path: Path) -> str:
    """Read guidelines that somebody wrote. Raises ConfigError for a file that cannot be shown whole."""
    where = f"guidelines {path}"
    try:
        text = clean(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(where, error.strerror or str(error), "a Markdown file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(where, "not UTF-8 text", "a Markdown file") from error
    if not text.strip():
        raise ConfigError(where, "nothing is in it", "a Markdown file with what reviewers should know")
    if len(text) > GUIDELINES_CHARACTERS:
        raise ConfigError(where, f"{len(text):,} characters", f"at most {GUIDELINES_CHARACTERS:,}, as Argilla has it")
    return text
