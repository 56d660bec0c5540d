"""Attribution: which stage made a change, and by what, decided from the manifests and the hashes of the row's texts.

A row's text is followed through both versions: as it was ingested, then through each stage that rewrote it. An edit is
of the first stage after which the two differ. Every other change is of the stage whose opinion changed. Its cause is
the first of these that holds:

    source          the text came, went, or was read otherwise      review         a person decided otherwise
    text            the row's own text changed before that stage    stage added, stage removed, stage version
    verdict         an earlier stage left the row out, in one of    configuration  settings of the stage differ: `keys`
                    the versions, so that this one never saw it     other rows     none of these: the rows around it do

`curate.diff.replay` adds `together`: no key alone makes the change, all that differ do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from curate.change import changed_texts
from curate.diff.changes import CHANGES, Diff
from curate.diff.places import read_places, side
from schemas.dataset import Dataset
from schemas.manifest import Manifest
from schemas.stages import STAGES, before

CAUSES = (
    "source",
    "text",
    "verdict",
    "review",
    "stage added",
    "stage removed",
    "stage version",
    "configuration",
    "other rows",
    "together",
)
TEXT_ROWS = 4_096
"""Rows whose texts are compared at a time."""

_TEXT = ("messages", "context")
_NONE = pl.lit([], pl.List(pl.String))


def attribute(diff: Diff) -> Diff:
    """Say of each change which stage made it, by what, and why. Fills stage, by, cause, keys, and fields of edits.

    `by`: the reason; the names of the edits that are not in both versions; the reviewers; for rows that came or went
    "new source", "appended", "replaced", "source removed". Reads the rows that changed, and texts of edited ones alone.
    """
    if not diff.changes.height:
        return diff
    sides = _followed(diff.before, side(diff.rows, after=False)), _followed(diff.after, side(diff.rows, after=True))
    rows = pl.concat(
        [diff.rows.select("id"), *(frame.rename({c: f"{c}{end}" for c in frame.columns}) for frame, end in sides_named(sides))],
        how="horizontal",
    )
    raise NotImplementedError
