"""Licences: what is understood, what holds for a mix, and that terms never make a licence less restrictive."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from curate.licences import CLASSES, Licence, licence_of, of_mix, read_licence
from schemas.manifest import Source

SPDX = get_spdx_licensing()
STATED = [None, "", "MIT", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-ND-4.0", "CC-BY-NC-4.0", "mine", "OpenRAIL"]


def source(license: str | None = None, **more: Any) -> Source:
    return Source(name="s", format="alpaca", license=license, **more)


@pytest.mark.parametrize(
    ("stated", "kind", "commercial"),
    [
        ("CC0-1.0", "public-domain", True),
        ("PDDL-1.0", "public-domain", True),
        ("MIT", "permissive", True),
        ("Apache-2.0", "permissive", True),
        ("BSD-3-Clause", "permissive", True),
        ("CC-BY-4.0", "permissive", True),
        ("ODC-By-1.0", "permissive", True),
        ("CDLA-Permissive-2.0", "permissive", True),
        ("CC-BY-SA-3.0", "share-alike", True),
        ("CDLA-Sharing-1.0", "share-alike", True),
        ("ODbL-1.0", "share-alike", True),
        ("GPL-3.0-only", "share-alike", True),
        ("AGPL-3.0-or-later", "share-alike", True),
        ("LGPL-2.1-only", "share-alike", True),
        ("CC-BY-ND-4.0", "no-derivatives", True),
        ("CC-BY-NC-4.0", "non-commercial", False),
        ("CC-BY-NC-SA-4.0", "non-commercial", False),
        ("CC-BY-NC-ND-3.0", "non-commercial", False),
        ("BUSL-1.1", "unknown", None),
        ("LicenseRef-ours", "unknown", None),
    ],
)
def test_a_licence_of_spdx_has_its_class_and_no_note(stated: str, kind: str, commercial: bool | None) -> None:
    found = read_licence(stated)
    assert (found.expression, found.kind, found.commercial, found.note) == (stated, kind, commercial, None)
    assert found.why.endswith(".")


@pytest.mark.parametrize(
    ("stated", "expression"),
    [
        ("Apache 2", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("cc by-sa 3.0", "CC-BY-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0/legalcode", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("GPLv3", "GPL-3.0-only"),
        ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause"),
        ("odc-by", "ODC-By-1.0"),
    ],
)
def test_other_names_are_understood_and_told(stated: str, expression: str) -> None:
    found = read_licence(stated)
    assert found.expression == expression
    assert found.note == f"{stated!r} was taken for {expression}"


def test_small_letters_are_no_mistake() -> None:
    assert read_licence("cc-by-nc-4.0") == read_licence("CC-BY-NC-4.0")


@pytest.mark.parametrize(
    ("stated", "kind", "commercial"),
    [
        ("CC-BY", "permissive", True),
        ("CC BY-NC", "non-commercial", False),
        ("bigscience-openrail-m", "share-alike", True),
        ("public domain", "public-domain", True),
        ("for research purposes only", "non-commercial", False),
        ("other", "unknown", None),
        ("MIT, Apache-2.0", "unknown", None),
        ("(MIT OR", "unknown", None),
        ("AND", "unknown", None),
        ("()", "unknown", None),
        ("llama3", "unknown", None),
        ("Gemma Terms of Use", "unknown", None),
        ("research-rail", "unknown", None),
        ("modified openrail for academics", "unknown", None),
        ("OpenRAIL-M research only", "non-commercial", False),
        ("RAIL non-commercial", "non-commercial", False),
        ("attribution", "unknown", None),
        ("MIT（非商用）", "unknown", None),
        ("CC BY 4.0, не для коммерции", "unknown", None),
        ("MIT?", "unknown", None),
        ("MIT (non-commercial)", "non-commercial", False),
        ("CC-BY-4.0 or CC-BY-NC-4.0 depending on the file", "non-commercial", False),
        ("MIT or as the files say", "unknown", None),
        ("MIT for the code and CC-BY-4.0 or so for the rest", "unknown", None),
        ("<script>", "unknown", None),
    ],
)
def test_what_spdx_does_not_know_is_said_and_stays_spdx(stated: str, kind: str, commercial: bool | None) -> None:
    found = read_licence(stated)
    assert (found.kind, found.commercial) == (kind, commercial)
    assert repr(stated) in str(found.note)
    assert str(found.expression).startswith("LicenseRef-")
    SPDX.parse(found.expression)


@pytest.mark.parametrize(
    ("stated", "expression", "kind", "commercial"),
    [
        ("MIT OR CC-BY-NC-4.0", "MIT OR CC-BY-NC-4.0", "permissive", True),
        ("mit and cc-by-nc-4.0", "MIT AND CC-BY-NC-4.0", "non-commercial", False),
        ("CC-BY-NC-4.0 OR mine", "CC-BY-NC-4.0 OR LicenseRef-mine", "unknown", None),
        ("CC-BY-NC-4.0 AND mine", "CC-BY-NC-4.0 AND LicenseRef-mine", "unknown", False),
        ("(MIT OR GPL-3.0-only) AND CC0-1.0", "(MIT OR GPL-3.0-only) AND CC0-1.0", "permissive", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", "share-alike", True),
    ],
)
def test_of_and_both_hold_and_of_or_one_may_be_chosen(
    stated: str, expression: str, kind: str, commercial: bool | None
) -> None:
    found = read_licence(stated)
    assert (found.expression, found.kind, found.commercial) == (expression, kind, commercial)


@pytest.mark.parametrize(
    ("stated", "commercial"),
    [
        ("GPL-3.0-or-later AND CC-BY-NC-4.0", False),
        ("CC-BY-NC-4.0 AND GPL-2.0-or-later", False),
        ("GPL-2.0-or-later OR CC-BY-NC-4.0", True),
        ("Apache 2.0 with Commons Clause", None),
        ("MIT WITH Commons-Clause", None),
        ("MIT WITH non-commercial", False),
        ("CC-BY-NC-4.0 WITH mine", False),
        ("Aladdin", False),
        ("PPL", False),
        ("(MIT OR " * 200 + "CC-BY-NC-4.0" + ")" * 200, True),
        ("(" * 3_000 + "MIT" + ")" * 3_000, None),
        (" OR ".join(["MIT"] * 20_000), None),
        ("M" * 10_000, None),
    ],
)
def test_commercial_use_is_allowed_only_where_it_is_clear(stated: str, commercial: bool | None) -> None:
    """The `or` of an identifier is no choice; what is added WITH no exception may take a permission away."""
    found = read_licence(stated)
    assert found.commercial is commercial
    assert len(found.note or "") < 200
    assert found.expression is None or SPDX.parse(found.expression) is not None


def test_a_licence_of_several_versions_is_taken_for_none_of_them() -> None:
    assert (read_licence("agpl").expression, read_licence("agpl").kind) == ("LicenseRef-agpl", "share-alike")


def test_what_is_not_stated_cannot_be_told() -> None:
    for stated in (None, "  ", "NOASSERTION"):
        assert read_licence(stated) == Licence(None, "unknown", None, (), "No licence is stated.")


def test_terms_in_words_are_for_a_person_to_read() -> None:
    """Commercial use is no longer clear; the provider is named; nothing is decided about competing models."""
    found = licence_of(source("MIT", terms="OpenAI terms of use"))
    assert (found.kind, found.commercial, found.terms) == ("permissive", None, ("OpenAI terms of use",))
    assert found.why == (
        "MIT allows commercial use, but a person must read the terms: OpenAI terms of use. "
        "OpenAI's terms about competing models are for a person to judge."
    )


def test_terms_that_forbid_commercial_use_forbid_it() -> None:
    found = licence_of(source("MIT", terms="for research use only."))
    assert (found.kind, found.commercial) == ("non-commercial", False)
    assert found.why == "The terms allow no commercial use: for research use only."


def test_who_wrote_the_answers_is_told_and_decides_nothing() -> None:
    found = licence_of(source("Apache-2.0", generated_by="gpt-4"))
    assert (found.commercial, found.terms) == (True, ("generated by gpt-4",))
    assert "OpenAI" in found.why


@given(st.sampled_from(STATED), st.one_of(st.none(), st.text(min_size=1, max_size=30)))
def test_terms_never_make_a_licence_less_restrictive(stated: str | None, terms: str | None) -> None:
    assert licence_of(source(stated, terms=terms)).restriction >= read_licence(stated).restriction


@given(st.lists(st.sampled_from(STATED), min_size=1, max_size=5))
def test_the_most_restrictive_of_each_term_holds_for_a_mix(stated: list[str | None]) -> None:
    parts = [read_licence(one) for one in stated]
    mix = of_mix(parts)
    assert CLASSES.index(mix.kind) == max(CLASSES.index(part.kind) for part in parts)
    allowed = [part.commercial for part in parts]
    assert mix.commercial == (False if False in allowed else None if None in allowed else True)
    assert (mix.expression is None) == any(part.expression is None for part in parts)
    assert of_mix([mix, *parts]).restriction == mix.restriction
    if mix.expression:
        SPDX.parse(mix.expression)


def test_a_mix_carries_all_terms_and_keeps_choices_together() -> None:
    parts = [licence_of(source("MIT OR Apache-2.0", terms="a")), licence_of(source("CC-BY-4.0", terms="b"))]
    mix = of_mix(parts)
    assert (mix.expression, mix.terms) == ("CC-BY-4.0 AND (MIT OR Apache-2.0)", ("a", "b"))


def test_a_mix_of_nothing_has_no_licence() -> None:
    assert of_mix([]).commercial is None


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    """Whatever is typed: a licence, or a word that it is none; and an expression that SPDX can write."""
    found = read_licence(text)
    assert found.expression is None or SPDX.parse(found.expression) is not None
