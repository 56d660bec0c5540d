"""What is known before step 0: counts, leaks, memory and time of the whole run, in lines and in JSON."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from schemas.errors import CheckFailedError
from train.model.trainee import Trainee
from train.preflight import forecast as forecasting
from train.preflight.forecast import duration
from train.preflight.report import Preflight, count_refused
from train.text.refusal import Refusal
from train.text.template import Encoded
from train.text.tokens import Tokens

Checked = Callable[..., Preflight]


@pytest.fixture
def halves(encoded: Encoded) -> tuple[Encoded, Encoded]:
    """The first twenty records to train on, the others to validate."""
    tokens = Tokens.of(encoded.examples)
    return (
        Encoded(tokens.chosen(np.arange(20)), encoded.refusals, 0),
        Encoded(tokens.chosen(np.arange(20, 24)), encoded.refusals, 0),
    )


def test_a_sound_run_is_described_before_it_starts(
    encoded: Encoded, trainee_of: Callable[..., Trainee], checked: Checked
) -> None:
    tokens = Tokens.of(encoded.examples)
    report = checked(trainee_of(method="full"), encoded)
    assert report.train_records == 24
    assert report.tokens == 2 * int(tokens.lengths.sum())
    assert report.targets == 2 * int(tokens.targets.sum())
    assert sum(s.tokens for s in report.sources) == int(tokens.lengths.sum())
    assert {s.source for s in report.sources} == {"a", "b"}
    assert 0.5 < report.packing_efficiency <= 1
    assert report.logit_difference < 1e-4
    told = "\n".join(report.lines())
    for words in ("no validation records", "worst step: ", "memory: ", "time: about", "self-test: packed and alone"):
        assert words in told
    values = json.loads(json.dumps(report.json()))
    assert values["rehearsal"]["tokens_per_s"] > 0
    assert values["memory"]["total"] == report.memory.total
    assert values["shown"][0]["pieces"][0]["kind"] == "special"
    assert "shown" not in report.json(shown=False)
    assert "nothing is padded" in told
    compiled = checked(trainee_of(method="full"), encoded, compile="on")
    assert "full; compiled layers take them padded" in "\n".join(compiled.lines())


def test_a_step_holds_no_more_rows_than_there_are(
    encoded: Encoded, trainee_of: Callable[..., Trainee], checked: Checked
) -> None:
    one = Encoded(Tokens.of(encoded.examples).chosen(np.arange(1)), (), 0)
    told = "\n".join(checked(trainee_of(method="full"), one).lines())
    assert "each of about 1.0 records in 1 packed row\n" in told


def test_a_validation_row_that_is_a_train_row_fails_unless_it_is_allowed(
    halves: tuple[Encoded, Encoded], trainee_of: Callable[..., Trainee], checked: Checked
) -> None:
    train, val = halves
    trainee = trainee_of(method="full")
    assert checked(trainee, train, val).leakage.leaked == 0
    leaking = Encoded(Tokens.of([*val.examples, train.examples[0]]), val.refusals, 0)
    with pytest.raises(CheckFailedError, match="are train rows, word for word"):
        checked(trainee, train, leaking)
    report = checked(trainee, train, leaking, allow_leakage=True)
    assert report.leakage.conversation == 1
    assert any("word for word" in warning for warning in report.warnings)
    pairs = ((val.examples[0].id, train.examples[0].id),)
    with pytest.raises(CheckFailedError, match="near-duplicates"):
        checked(trainee, train, val, clusters=pairs)


def test_refusals_are_counted_by_reason_and_source_and_the_first_are_named() -> None:
    refusals = [Refusal(str(i), "ab"[i % 2], "overlong", "300 tokens") for i in range(9)]
    (found,) = count_refused("train", refusals)
    assert str(found) == "9 train records not used (overlong): 5 of a, 4 of b"
    assert found.named() == "0, 1, 2, 3, 4, and 4 more"


def test_time_and_cost_follow_from_the_rehearsals_speed(
    halves: tuple[Encoded, Encoded], trainee_of: Callable[..., Trainee], checked: Checked
) -> None:
    report = checked(trainee_of(method="full"), *halves, price_per_hour=2.0, score_train=False, samples=0)
    told, speed = report.forecast, report.rehearsal.tokens_per_s
    assert told.training_s == pytest.approx(report.tokens / speed)
    val_tokens = sum(s.tokens for s in report.sources if s.split == "val")
    assert told.evaluation_s == pytest.approx(3 * val_tokens / 3 / speed)  # before, and two more; forward alone
    assert (told.scoring_s, told.samples_s) == (0, 0)
    assert told.cost == pytest.approx(told.seconds / 3600 * 2)
    assert told.low_s < told.seconds < told.high_s
    assert told.ends_at_step is None
    more = checked(trainee_of(method="full"), *halves).forecast
    assert more.scoring_s > 0
    assert more.samples_s > 0


def test_a_limit_says_at_which_step_it_ends_the_run(
    halves: tuple[Encoded, Encoded], trainee_of: Callable[..., Trainee], checked: Checked
) -> None:
    told = checked(trainee_of(method="full"), *halves, max_hours=1e-9).forecast
    assert told.ends_at_step == 0
    assert told.training_s < 1
    assert any("the limit ends the run at about step 0" in line for line in told.lines())
    assert checked(trainee_of(method="full"), *halves, max_hours=100).forecast.ends_at_step is None


def test_durations_are_written_for_people() -> None:
    assert [duration(s) for s in (0.04, 42, 720, 3 * 3600 + 300, 52 * 3600)] == [
        "0.0 s",
        "42 s",
        "12 min",
        "3 h 05 min",
        "2 d 4 h",
    ]
    assert forecasting.LOW < 1 < forecasting.HIGH
