"""About: what only a person can say of a dataset that is published, in one TOML file (`--about`)."""

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from schemas.config import Config, Words
from schemas.errors import ConfigError

Url = Annotated[str, Field(pattern=r"^https?://\S+$")]

SourceKind = Literal["public", "licensed", "private", "crawled", "user", "synthetic", "other"]
"""Kinds of sources as the EU's template for the public summary of training content tells them apart (section 2)."""


class Creator(Config):
    """Who made the dataset."""

    name: Words
    """Name of the person or organization."""
    kind: Literal["person", "organization"] = "organization"
    """Whether it is a person or an organization."""
    url: Url | None = None
    """Web page of theirs."""


class SourceAbout(Config):
    """What the files of a source do not say about themselves."""

    kind: SourceKind | None = None
    """public: anybody can get it; licensed: bought from the rightsholders; private: from others, not public; crawled:
    collected from web pages; user: from users of a service; synthetic: made with a model, by or for the
    publisher; other."""
    url: Url | None = None
    """Where it was published."""
    collected: Words | None = None
    """When its content was collected, such as 2023-03 or March to April 2023."""
    note: Words | None = None
    """What else people should know of it."""


class About(Config):
    """What a publisher says of a dataset. All of it may be left out; what is left out is named, and never made up."""

    title: Words | None = None
    """Name that people read."""
    description: Words | None = None
    """What the dataset is, in a few sentences."""
    creators: tuple[Creator, ...] = ()
    """Who made it, one `[[creators]]` each."""
    url: Url | None = None
    """Web page of the dataset; a push to the hub has the page of the repository."""
    contact: Words | None = None
    """Where to turn to: an e-mail address or a web page."""
    citation: Words | None = None
    """How to cite it, as BibTeX or as text."""
    published: date | None = None
    """Day of publication, such as 2026-03-31; by default the day on which the version was made."""
    keywords: tuple[Words, ...] = ()
    """Words by which it should be found."""
    intended_use: tuple[Words, ...] = ()
    """What it is for."""
    limitations: tuple[Words, ...] = ()
    """What it is not good for, beyond what can be counted."""
    biases: tuple[Words, ...] = ()
    """Known biases."""
    social_impact: Words | None = None
    """What its use may do to people."""
    maintenance: Words | None = None
    """Who keeps it up, and how long."""
    annotators: tuple[Words, ...] = ()
    """Who the reviewers are: their number, trade, country, pay, as far as it is right to say so."""
    rights_reservations: Words | None = None
    """How reservations of rights (opt-outs from text and data mining) were respected."""
    illegal_content: Words | None = None
    """What was done to find and remove illegal content."""
    sources: dict[str, SourceAbout] = Field(default_factory=dict[str, SourceAbout])
    """What the files do not say, one `[sources.NAME]` for each source."""


def read_about(file: Path) -> About:
    """Read an about file. Raises ConfigError that names every key that is not known and every value that cannot be."""
    where = f"about {file}"
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(where, (error.strerror or str(error)).lower(), "a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"not TOML ({error})", 'lines such as `title = "…"`') from error
    try:
        return About.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc']))}: "
            + ("no such key" if e["type"] == "extra_forbidden" else e["msg"].removeprefix("Value error, "))
            for e in error.errors()
        ]
        known = ", ".join(About.model_fields)
        raise ConfigError(where, "; ".join(problems), f"keys out of {known}", "see docs/publishing.md") from error
