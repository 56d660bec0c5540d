"""The form about rows: what it asks, within the limits of argilla-server 2.8."""

from curate.review.form import KNOWN_PROPERTIES, OPTIONS, row_form
from curate.review.responses import QUESTIONS, VERDICTS
from schemas.reasons import REASONS

FORM = row_form(REASONS, {p.name for p in KNOWN_PROPERTIES})
BY_NAME = {q.name: q for q in FORM.questions}


def test_it_asks_what_the_ledger_keeps() -> None:
    assert set(BY_NAME) == set(QUESTIONS)
    assert tuple(BY_NAME["verdict"].options) == VERDICTS
    assert [q.name for q in FORM.questions if q.required] == ["verdict"]


def test_issues_are_what_can_be_wrong_with_a_row() -> None:
    """First what no rule can find; no edits, no budgets, nothing that ingest says."""
    issues = list(BY_NAME["issues"].options)
    assert issues[0].startswith("issue:")
    assert {"flag:refusal", "rule:empty_response", "pii:email", "duplicate:near"} <= set(issues)
    assert not [
        i for i in issues if i.partition(":")[0] in ("ingest", "edit", "fix", "redact", "select", "leak", "review")
    ]


def test_a_dataset_s_own_rules_can_be_named() -> None:
    form = row_form({**REASONS, "custom:no_poems": "A poem."}, set())
    assert next(q for q in form.questions if q.name == "issues").options["custom:no_poems"] == "A poem."


def test_there_are_never_more_issues_than_a_question_holds() -> None:
    form = row_form({f"custom:{i}": "x" for i in range(2 * OPTIONS)}, set())
    assert len(next(q for q in form.questions if q.name == "issues").options) == OPTIONS


def test_texts_fit() -> None:
    for question in FORM.questions:
        assert len(question.title) <= 500
        assert len(question.description or "x") <= 1_000
        assert all(1 <= len(text) <= 500 and len(value) <= 200 for value, text in question.options.items())


def test_a_rule_s_long_sentence_is_a_label_that_a_server_takes() -> None:
    form = row_form({"custom:long": "x" * 600}, ())
    issues = next(q for q in form.questions if q.name == "issues")
    assert issues.options == {"custom:long": "x" * 500}


def test_only_known_properties_are_there_and_those_the_review_needs() -> None:
    assert [p.name for p in row_form(REASONS, {"source"}).properties] == ["source", "cut", "stale"]
