"""A matplotlib figure as SVG inside a page: text stays text, colours come from the page's style sheet.

The same figure gives the same bytes. Nothing in it is styled inline, since the page's policy allows none of that: a
colour is a role ("kept", "gone"), drawn in a stand-in that becomes a class. Figures are drawn without pyplot.
"""

import io
import re
import warnings
from collections.abc import Mapping
from typing import Literal
from xml.etree import ElementTree  # reads what matplotlib wrote a moment before

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from curate.report.text import plain

ROLES = ("ink", "muted", "line", "before", "after", "gone", "s0", "s1", "s2", "s3", "s4", "s5", "s6")
"""What colours stand for: text, its lesser kind, rules; the earlier and the later version; what is left out; series."""

_SENTINELS = {f"#5f0d{number:02x}": role for number, role in enumerate(ROLES)}
_PIXELS = 72
"""Dots per inch at which one unit of a figure is one pixel of the SVG's view box."""


def colour(role: str) -> str:
    """Give the stand-in that a figure is drawn with for a role of `ROLES`."""
    return f"#5f0d{ROLES.index(role):02x}"


def figure(width: float, height: float) -> Figure:
    """Give an empty figure of that many pixels, without a background."""
    made = Figure(figsize=(width / _PIXELS, height / _PIXELS), dpi=_PIXELS)
    made.patch.set_visible(False)
    return made


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Give a figure and axes whose coordinates are pixels from the top left, with no frame."""
    made = figure(width, height)
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return made, axes


def label(
    axes: Axes,
    at: tuple[float, float],
    text: str,
    role: str = "ink",
    *,
    size: float = 12,
    ha: Literal["left", "center", "right"] = "left",
    bold: bool = False,
) -> None:
    """Write a line of text as it is, its middle at that height: no mathematics in it, hidden characters by name."""
    shown = " ".join(plain(text).split())
    weight = "bold" if bold else "normal"
    axes.text(*at, shown, color=colour(role), fontsize=size, ha=ha, va="center", weight=weight, parse_math=False)


def svg(drawn: Figure, name: str, title: str, description: str, told: Mapping[str, str] | None = None) -> Markup:
    """Write a figure as an `svg` element with the role of an image.

    `name` is unique in its page. `told`: what a pointer over a shape says, by the shape's gid.
    """
    written = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # a script that matplotlib's own font lacks is drawn by the browser's
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        drawn.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314 - our own figure
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "defs"):
                parent.remove(child)
    for element in root.iter():
        _restyle(element, told or {})
    root.attrib = {
        "class": "chart",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"chart-{name}-title chart-{name}-desc",
    }
    for number, (tag, text) in enumerate((("title", title), ("desc", description))):
        told_as = ElementTree.Element(tag, {"id": f"chart-{name}-{tag}"})
        told_as.text = plain(text)
        root.insert(number, told_as)
    return Markup(re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode")))  # noqa: S704 - escaped by ElementTree


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _restyle(element: ElementTree.Element, told: Mapping[str, str]) -> None:
    """Turn inline style into attributes, stand-ins into classes; drop clips, and ids that could repeat in the page."""
    element.tag = _local(element.tag)
    attributes = element.attrib
    attributes.pop("clip-path", None)
    name = attributes.pop("id", None)
    if name and name in told:
        title = ElementTree.SubElement(element, "title")
        title.text = plain(told[name])
    classes: list[str] = []
    for entry in filter(None, (part.strip() for part in attributes.pop("style", "").split(";"))):
        key, _, value = (part.strip() for part in entry.partition(":"))
        if key in ("fill", "stroke") and value in _SENTINELS:
            classes.append(f"{key[0]}-{_SENTINELS[value]}")
        elif key == "font":  # matplotlib 3.10 writes the shorthand
            attributes.update(_font(value))
        elif key != "font-family":
            attributes[key] = value
    if classes:
        attributes["class"] = " ".join(classes)
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]


def _font(shorthand: str) -> dict[str, str]:
    found = re.match(r"(?:(bold|\d+) )?([\d.]+px)", shorthand)
    if found is None:
        return {}
    return {"font-size": found[2], **({"font-weight": found[1]} if found[1] else {})}
