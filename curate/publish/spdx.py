"""SPDX: licences by the names that the hub has for them, and where their texts stand."""

_HUB = {
    name.lower(): hub
    for hub, names in {
        "odc-by": ("ODC-By-1.0",),
        "odbl": ("ODbL-1.0",),
        "pddl": ("PDDL-1.0",),
        "c-uda": ("C-UDA-1.0",),
        "gfdl": ("GFDL-1.3", "GFDL-1.3-only", "GFDL-1.3-or-later"),
        "unlicense": ("Unlicense",),
        "gpl-2.0": ("GPL-2.0-only", "GPL-2.0-or-later"),
        "gpl-3.0": ("GPL-3.0-only", "GPL-3.0-or-later"),
        "agpl-3.0": ("AGPL-3.0-only", "AGPL-3.0-or-later"),
        "lgpl-3.0": ("LGPL-3.0-only", "LGPL-3.0-or-later"),
    }.items()
    for name in names
}
_SAME = """
apache-2.0 mit bsd-2-clause bsd-3-clause bsl-1.0 isc zlib mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 ecl-2.0 afl-3.0
artistic-2.0 ofl-1.1 osl-3.0 ms-pl ncsa postgresql wtfpl etalab-2.0 cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0
""".split()  # noqa: SIM905 # names read better in lines than in a list
"""Licences that the hub calls as SPDX does, in small letters."""


def hub_licence(expression: str) -> str | None:
    """Give the hub's name of a licence, or None where it has none: a mix, an exception, one that it does not know."""
    name = expression.lower()
    return name if name in _SAME else _HUB.get(name)


def licence_names(expression: str) -> tuple[str, ...]:
    """Give the single licences of an expression, in its order."""
    words = expression.replace("(", " ").replace(")", " ").split()
    return tuple(dict.fromkeys(word for word in words if word not in ("AND", "OR", "WITH")))


def licence_url(name: str) -> str | None:
    """Give the page of a single licence in the SPDX list; None for one that is not in it."""
    return None if name.startswith("LicenseRef-") else f"https://spdx.org/licenses/{name}.html"
