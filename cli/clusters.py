"""Clusters side by side: the row that stays on the left, the row that goes on the right, and the words that differ.

Long texts are shortened around what differs. Where there is no colour, [-words-] on the left and {+words+} on the right
mark it.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

from cli.funnel import by_source
from cli.render import console, number, out, print_json, table
from schemas.errors import CheckFailedError

if TYPE_CHECKING:
    from rich.text import Text

    from curate.dedup.guard import BlastRadiusError
    from curate.dedup.preview import Cluster, Group, Pair, Preview, Row, Turn

AROUND = 8
"""Words that are shown before and after a difference."""
MOST_WORDS = 30
"""Words of one difference that are shown, its first ones."""
MOST_SAME = 16
"""Words that are shown of a turn that is the same on both sides."""
MOST_DIFFERENCES = 6
"""Differences of one turn that are shown."""
FEW_SAME = 2
"""Words that are the same between two differences, and still too few to part them."""
WINDOW = 1000
"""Words that are compared at a time: a comparison may take the square of it."""
MOST_WINDOWS = 20
"""Windows of a turn that are compared; what differs after them counts as one difference."""
LONGEST_WORD = 60
"""Characters of a word that are shown: a web address or a line of base64 may have thousands."""

_ALONE = r"\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u3040-\u9fff\uf900-\ufaff\U00020000-\U00033480"
_WORD = re.compile(rf"(?:[{_ALONE}]|[^\s{_ALONE}]+)\s*")
"""A word for the eye: what stands between blanks; each character of scripts that are written without them."""
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that would steer the terminal, or turn its text around."""

Piece = tuple[list[str], list[str], bool]
"""Words on the left, words on the right, and whether they are the same."""


def show_preview(preview: "Preview") -> None:
    """Print what dedup would do: counts, the recall of the search, clusters, and samples around the threshold."""
    of = f" against {preview.against}" if preview.against else ""
    out(f"{preview.name}@{preview.seq}{of}: what dedup would leave out. Nothing is committed", style="bold")
    for sentence in preview.said.split("; "):
        out(f"  {sentence}")
    out("")
    by_source(preview.by_source)
    _recall(preview)
    if preview.stopped:
        out(f"the guard would stop this: {preview.stopped}", style="bold red")
        out("")
    show_clusters(preview.clusters, sum(count.rows - count.kept for count in preview.by_source.values()))
    at = f"{preview.threshold:g}"
    _samples(f"Just above the threshold of {at}: the right row goes", preview.going)
    _samples(f"Just below the threshold of {at}: both rows stay", preview.staying, "stays")
    _samples(
        f"At {at} or above as whole records, but not in what is asked, or in the answer: both rows stay",
        preview.parted,
        "stays",
    )
    _groups("The same prompt with another answer (conflicts): all rows stay", preview.conflicts)
    _groups("The same answer to another prompt: all rows stay", preview.answers)


def show_clusters(clusters: Sequence["Cluster"], going: int) -> None:
    """Print clusters, the largest first. `going`: rows that would go in all."""
    if not clusters:
        return
    shown = sum(cluster.size for cluster in clusters)
    out(f"The largest clusters: {number(shown)} of the {number(going)} rows that would go", style="bold")
    for i, cluster in enumerate(clusters, 1):
        rows = "1 row goes" if cluster.size == 1 else f"{number(cluster.size)} rows go"
        few = f"; the {len(cluster.pairs)} least alike" if 1 < len(cluster.pairs) < cluster.size else ""
        few = "; one of them" if len(cluster.pairs) == 1 < cluster.size else few
        out(f"\nCluster {i}: {rows}, 1 stays{few}", style="bold")
        for n, pair in enumerate(cluster.pairs):
            _pair(pair, "goes", apart=n > 0)
    out("")


@contextmanager
def guarded(root: Path, *, json: bool) -> Generator[None]:
    """Show the largest clusters when the guard stops dedup; the error goes on to be told in one line."""
    try:
        yield
    except CheckFailedError as error:
        from curate.dedup.guard import BlastRadiusError  # loaded already, where it was raised

        if isinstance(error, BlastRadiusError):
            _stopped(error, root, json=json)
        raise


def _stopped(error: "BlastRadiusError", root: Path, *, json: bool) -> None:
    from dataclasses import asdict

    from curate.dedup.preview import stopped_by

    clusters = stopped_by(error, root)
    if json:
        print_json({"committed": False, "stopped": str(error), "clusters": [asdict(c) for c in clusters]})
    else:
        show_clusters(clusters, error.going)


def _recall(preview: "Preview") -> None:
    title = f"How surely a pair is found, by its similarity: {preview.bands} bands of {preview.band_rows} hashes"
    found = ["100%" if point.similarity == 1 else _percent(point.probability) for point in preview.recall]
    columns = ["Jaccard", *(f"#{point.similarity:g}" for point in preview.recall)]
    table(title, columns, [("found", *found)])


def _percent(share: float) -> str:
    """Write a probability without rounding it up: what is likely is no certainty."""
    return f"{int(share * 1000) / 10:g}%" if share < 0.999 else ">99.9%"


def _samples(title: str, pairs: Sequence["Pair"], fate: str = "goes") -> None:
    if pairs:
        out(title, style="bold")
        for n, pair in enumerate(pairs):
            _pair(pair, fate, apart=n > 0)
        out("")


def _groups(title: str, groups: Sequence["Group"]) -> None:
    if groups:
        out(title, style="bold")
        for n, group in enumerate(groups):
            if n:
                out("")
            more = group.size - 1
            _side_by_side(group.first, group.others[0], "stays", "stays")
            if more:
                out(f"  … and {number(more)} more such row{'s' if more > 1 else ''}")
        out("")


def _pair(pair: "Pair", fate: str, *, apart: bool) -> None:
    if apart:
        out("")
    like = pair.likeness
    parts = [f"{like.record:.3f} as a whole"]
    if like.exchange != like.record:
        parts.append(f"{like.exchange:.3f} in what is asked and answered")
    if like.answer != like.record:
        parts.append(f"{like.answer:.3f} in the answer")
    out("  the same word for word" if pair.exact else f"  Jaccard {', '.join(parts)}")
    _side_by_side(pair.of, pair.row, "stays", fate)


def _side_by_side(left: "Row", right: "Row", left_fate: str, right_fate: str) -> None:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.MINIMAL, show_edge=False, expand=True, pad_edge=False)
    grid.add_column(_head(left, left_fate), ratio=1, overflow="fold")
    grid.add_column(_head(right, right_fate), ratio=1, overflow="fold")
    for ours, theirs in _aligned(left.turns, right.turns):
        grid.add_row(*_compared(ours, theirs))
    console().print(grid)


def _head(row: "Row", fate: str) -> "Text":
    from rich.text import Text

    of = f" of {row.version}" if row.version else ""
    return Text.assemble(
        (fate, "bold"), f"  {row.source}{of}  {_clean(row.source_file)}:{row.source_row}  ", (row.id[:12], "dim")
    )


def _aligned(left: Sequence["Turn"], right: Sequence["Turn"]) -> Iterator[tuple["Turn | None", "Turn | None"]]:
    """Pair the turns of two rows by their roles, in order; a turn without a counterpart stands alone."""
    matcher = SequenceMatcher(None, [t.role for t in left], [t.role for t in right], autojunk=False)
    for tag, i, j, k, n in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(left[i:j], right[k:n], strict=True)
        else:
            yield from ((turn, None) for turn in left[i:j])
            yield from ((None, turn) for turn in right[k:n])


def _compared(left: "Turn | None", right: "Turn | None") -> tuple["Text", "Text"]:
    """Write two turns, shortened around the words that differ, which are marked."""
    from rich.text import Text

    plain = console().color_system is None or console().no_color
    marks = (("[-", "-]", "bold red"), ("{+", "+}", "bold green"))
    cells = [Text(), Text()]
    for cell, turn in zip(cells, (left, right), strict=True):
        if turn:
            cell.append(f"{_clean(turn.role)}: ", "cyan")
    for piece in shortened(differences(left.text if left else "", right.text if right else "")):
        for cell, words, (begin, end, style) in zip(cells, piece[:2], marks, strict=True):
            said = _written(words)
            if piece[2] or not said:
                cell.append(said)
                continue
            blank = " " if said.endswith(" ") else ""
            cell.append(f"{begin}{said.rstrip()}{end}" if plain else said.rstrip(), "" if plain else style)
            cell.append(blank)
    return cells[0], cells[1]


def differences(left: str, right: str) -> list[Piece]:
    """Cut two texts into pieces that are the same and pieces that differ, in order. Blanks are not compared."""
    a, b = _WORD.findall(left), _WORD.findall(right)
    ours, theirs = [w.rstrip() for w in a], [w.rstrip() for w in b]
    last = _alike(ours[::-1], theirs[::-1])
    tail: Piece = (a[len(a) - last :], b[len(b) - last :], True)
    a, b = a[: len(a) - last], b[: len(b) - last]
    pieces: list[Piece] = []
    i = j = 0
    for _ in range(MOST_WINDOWS):
        same = _alike(ours[i : len(a)], theirs[j : len(b)])
        pieces.append((a[i : i + same], b[j : j + same], True))
        i, j = i + same, j + same
        m, n = min(len(a), i + WINDOW), min(len(b), j + WINDOW)
        codes = SequenceMatcher(None, ours[i:m], theirs[j:n]).get_opcodes()
        if m < len(a) or n < len(b):  # what follows the last words that are the same may go on outside
            codes = codes[: max((k for k, code in enumerate(codes, 1) if code[0] == "equal"), default=len(codes))]
        pieces += [(a[i + p : i + q], b[j + r : j + s], tag == "equal") for tag, p, q, r, s in codes]
        if codes:
            i, j = i + codes[-1][2], j + codes[-1][4]
    pieces.append((a[i:], b[j:], False))
    return _joined([piece for piece in (*pieces, tail) if piece[0] or piece[1]])


def _alike(left: Sequence[str], right: Sequence[str]) -> int:
    """Count the words that two lists begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Make neighbours of one kind one piece, and take the few same words between two differences into them.

    A sentence that was rewritten reads better whole.
    """
    made: list[Piece] = []
    for left, right, same in pieces:
        if len(made) > 1 and not same and made[-1][2] and len(made[-1][0]) <= FEW_SAME:
            made[-1] = (*made[-1][:2], False)
            made[-2:] = [_together(*made[-2:])]
        made.append((left, right, same))
        if len(made) > 1 and made[-2][2] == same:
            made[-2:] = [_together(*made[-2:])]
    return made


def _together(first: Piece, second: Piece) -> Piece:
    return [*first[0], *second[0]], [*first[1], *second[1]], second[2]


def shortened(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Leave out what is the same far from a difference, the end of long differences, and all after the first ones."""
    count = len([piece for piece in pieces if not piece[2]])
    if not count:
        for left, right, same in pieces:
            yield _cut(left, MOST_SAME), _cut(right, MOST_SAME), same
        return
    seen = 0
    for i, (left, right, same) in enumerate(pieces):
        if seen == MOST_DIFFERENCES and not same:
            more = f"… ({count - seen} more difference{'s' if count - seen > 1 else ''})"
            yield [more], [more], True
            return
        if same:
            before, after = AROUND if i else 0, AROUND if i < len(pieces) - 1 else 0
            yield _middle_out(left, before, after), _middle_out(right, before, after), True
        else:
            seen += 1
            ours, theirs = _apart(left, right)
            yield _cut(ours, MOST_WORDS), _cut(theirs, MOST_WORDS), False


def _cut(words: list[str], most: int) -> list[str]:
    return words if len(words) <= most + 2 else [*words[:most], f"… ({number(len(words) - most)} more words) "]


def _middle_out(words: list[str], before: int, after: int) -> list[str]:
    """Keep the first and the last words."""
    if len(words) <= before + after + 2:
        return words
    return [*words[:before], "… ", *words[len(words) - after :]]


def _apart(left: list[str], right: list[str]) -> tuple[list[str], list[str]]:
    """Of two long words that begin alike, leave out the beginning, so that their difference is seen."""
    if len(left) != 1 or len(right) != 1 or max(len(left[0]), len(right[0])) <= LONGEST_WORD:
        return left, right
    at = 0
    while at < min(len(left[0]), len(right[0])) and left[0][at] == right[0][at]:
        at += 1
    begin = max(0, at - AROUND)
    return (left, right) if not begin else ([f"…{left[0][begin:]}"], [f"…{right[0][begin:]}"])


def _written(words: Sequence[str]) -> str:
    """Join words with one blank where they had any."""
    parts: list[str] = []
    for word in words:
        shown = _clean(word.rstrip())
        if len(shown) > LONGEST_WORD and "… (" not in shown:
            shown = f"{shown[:LONGEST_WORD]}…"
        parts.append(shown + (" " if word != word.rstrip() else ""))
    return "".join(parts)


def _clean(text: str) -> str:
    return _UNSEEN.sub("·", text)
