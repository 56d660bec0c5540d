"""The verdict: each kind is found where it is planted, and not where it is nearly so."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.run_files import curve, read_run
from tests.runs import answers, falling, healthy_run, record_rows, write_run
from train.verdict.finding import Finding
from train.verdict.fit import repeated_share
from train.verdict.verdict import judge, judge_folder, kinds

EVALUATIONS = range(0, 201, 20)


def val_of(*values: float) -> dict[int, float]:
    return dict(zip(EVALUATIONS, values, strict=False))


def verdict(tmp_path: Path, **changed: Any) -> tuple[Finding, ...]:
    return judge(read_run(healthy_run(tmp_path / "run", **changed)))


def named(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.level) for finding in findings]


def test_a_run_that_falls_and_stays_down_is_healthy(tmp_path: Path) -> None:
    (found,) = verdict(tmp_path)
    assert (found.kind, found.level) == ("healthy", "ok")
    assert "2.600 to 1.6" in found.found


RISEN = val_of(2.6, 2.0, 1.8, 1.7, 1.72, 1.75, 1.8, 1.85, 1.9, 1.95, 2.0)


def test_validation_that_rises_while_training_falls_is_over_fitting_with_the_step_to_stop_at(tmp_path: Path) -> None:
    (found, *rest) = verdict(tmp_path, val=RISEN, train=falling(200, 2.5, 0.3, rate=3))
    assert (found.kind, found.level, rest) == ("over-fitting", "warning", [])
    assert found.evidence["lowest"] == {"step": 60, "loss": 1.7}
    assert "step 60" in found.advice
    assert "best/" in found.advice


def test_over_fitting_beyond_the_start_is_a_problem(tmp_path: Path) -> None:
    val = val_of(2.6, 2.0, 1.8, 1.7, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0)
    assert named(verdict(tmp_path, val=val, train=falling(200, 2.5, 0.3, rate=3))) == [("over-fitting", "problem")]


@pytest.mark.parametrize(
    "val",
    [
        val_of(2.6, 2.0, 1.8, 1.7, 1.702, 1.703, 1.701, 1.704, 1.703, 1.705, 1.706),  # a rise that does not matter
        val_of(2.6, 2.0, 1.8, 1.7, 1.75, 1.69, 1.76, 1.7, 1.74, 1.71, 1.73),  # no larger than what goes the other way
        val_of(2.6, 2.0, 1.8, 1.75, 1.72, 1.7, 1.69, 1.68, 1.67, 1.66, 1.9),  # a single high one
    ],
)
def test_a_rise_within_the_noise_is_no_over_fitting(tmp_path: Path, val: dict[int, float]) -> None:
    assert "over-fitting" not in kinds(verdict(tmp_path, val=val, train=falling(200, 2.5, 1.2, rate=3)))


def test_validation_that_rises_with_training_is_not_over_fitting(tmp_path: Path) -> None:
    rising = [*falling(60, 2.5, 1.7), *(1.7 + 0.01 * i for i in range(140))]
    found = kinds(verdict(tmp_path, val=RISEN, train=rising))
    assert "over-fitting" not in found
    assert "instability" in found


@pytest.mark.parametrize(("train", "level"), [(1.25, None), (1.0, "note"), (0.3, "warning")])
def test_a_gap_that_grew_between_train_and_validation_records_is_over_fitting(
    tmp_path: Path, train: float, level: str | None
) -> None:
    found = verdict(tmp_path, records=record_rows(400, 60, train=train))
    assert named(found) == ([("over-fitting", level)] if level else [("healthy", "ok")])


def test_a_gap_that_was_there_before_training_is_none(tmp_path: Path) -> None:
    rows = record_rows(400, 60).with_columns(
        pl.when(pl.col("split") == "train").then(pl.col(c) - 1).otherwise(pl.col(c)).alias(c)
        for c in ("loss", "loss_before")
    )
    assert kinds(verdict(tmp_path, records=rows)) == ["healthy"]


ONCE = "two lamps stand before this house and one more hangs behind its garden wall by night"
AGAIN = "the lamp is lit and " * 8


@pytest.mark.parametrize(("last", "found"), [(AGAIN, ["over-fitting"]), (ONCE, ["healthy"])])
def test_answers_that_come_to_repeat_themselves_are_over_fitting(tmp_path: Path, last: str, found: list[str]) -> None:
    texts = {step: [ONCE] * 6 if step < 160 else [last] * 6 for step in EVALUATIONS}
    assert kinds(verdict(tmp_path, samples=answers(texts))) == found


def test_answers_that_repeated_themselves_before_training_say_nothing(tmp_path: Path) -> None:
    assert kinds(verdict(tmp_path, samples=answers({step: [AGAIN] * 6 for step in EVALUATIONS}))) == ["healthy"]


def test_the_share_of_repeated_grams() -> None:
    assert repeated_share("too few words to say") is None
    assert repeated_share(ONCE) == 0
    assert repeated_share("a b c d " * 5) == pytest.approx(13 / 17)


def test_a_source_that_rises_alone_is_over_fitting_of_that_source(tmp_path: Path) -> None:
    falls = dict(zip(EVALUATIONS, falling(11, 2.6, 1.4, noise=0), strict=True))
    found = verdict(tmp_path, val_by_source={"alpaca": falls, "dolly": RISEN}, records=record_rows(400, 60))
    assert named(found) == [("over-fitting", "warning")]
    assert found[0].evidence["source"] == "dolly"


def test_a_loss_that_hardly_moves_is_under_fitting(tmp_path: Path) -> None:
    val = val_of(*(2.6 - 0.0005 * i for i in range(11)))
    found = verdict(
        tmp_path, val=val, train=falling(200, 2.5, 2.49), records=record_rows(400, 60, train=2.5, held_out=2.5)
    )
    assert named(found) == [("under-fitting", "problem")]
    assert "--lr 0.001" in found[0].advice


def test_a_loss_that_still_falls_at_the_end_is_under_fitting_and_one_that_rests_is_not(tmp_path: Path) -> None:
    steep = val_of(*(2.6 - 0.1 * i for i in range(11)))
    found = verdict(tmp_path, val=steep)
    assert named(found) == [("under-fitting", "warning")]
    assert "--max-steps 400" in found[0].advice
    resting = val_of(2.6, 2.2, 2.0, 1.9, 1.84, 1.8, 1.775, 1.76, 1.75, 1.745, 1.742)
    assert kinds(verdict(tmp_path, val=resting)) == ["healthy"]


@pytest.mark.parametrize(("rest", "found"), [(3.5, ["under-fitting"]), (2.0, ["healthy"])])
def test_a_plateau_is_under_fitting_where_it_is_high(tmp_path: Path, rest: float, found: list[str]) -> None:
    val = dict(zip(EVALUATIONS, falling(11, rest + 1.5, rest, noise=0, rate=20), strict=True))
    assert kinds(verdict(tmp_path, val=val)) == found


def spike(step: int) -> dict[str, Any]:
    records = [{"id": f"{i:032x}", "source": "dolly", "loss": 9.0 - i} for i in range(4)]
    return {"step": step, "loss": 6.0, "expected": 1.8, "records": records}


def test_one_leap_is_a_note_and_many_a_warning_with_the_records_to_look_at(tmp_path: Path) -> None:
    once = verdict(tmp_path, spikes=[spike(50)])
    assert named(once) == [("instability", "note")]
    assert "--lr" not in once[0].advice, "a run may learn too little beside it"
    many = verdict(tmp_path, spikes=[spike(step) for step in (50, 80, 120, 150)])
    assert named(many) == [("instability", "warning")]
    assert f"{0:032x}"[:12] in many[0].advice
    assert "lower the rate (--lr" in many[0].advice
    assert "6.00, where 1.80 was expected" in many[0].found


def test_a_training_loss_that_breaks_is_a_problem_and_says_nothing_of_under_fitting(tmp_path: Path) -> None:
    train = [*falling(100, 2.5, 1.5), *falling(100, 7.5, 7.0)]
    val = val_of(2.6, 2.0, 1.8, 1.7, 1.65, 1.6, 6.9, 7.1, 7.0, 7.0, 7.0)
    found = verdict(tmp_path, train=train, val=val)
    assert named(found)[0] == ("instability", "problem")
    assert "under-fitting" not in kinds(found)


def test_a_loss_that_rises_above_its_start_first_is_instability(tmp_path: Path) -> None:
    train = [*np.linspace(2.5, 6.0, 20), *falling(180, 6.0, 2.3)]
    found = verdict(
        tmp_path, train=[float(v) for v in train], val=val_of(2.6, 5.5, 3.0, *[2.4 - 0.001 * i for i in range(8)])
    )
    assert ("instability", "warning") in named(found)
    assert "above its start" in found[0].found


def test_a_validation_that_ends_worse_than_it_began_is_a_problem_and_asks_for_no_higher_rate(tmp_path: Path) -> None:
    train = [*(float(v) for v in np.linspace(2.5, 9.0, 20)), *falling(180, 9.0, 2.4)]
    found = verdict(tmp_path, train=train, val=val_of(2.6, 8.0, 5.0, 4.0, 3.8, *[3.7 - 0.001 * i for i in range(6)]))
    assert named(found) == [("instability", "problem")]
    found = verdict(tmp_path / "2", val=val_of(2.6, 3.0, 2.9, 2.8, 2.8, *[2.8 for _ in range(6)]), records=None)
    assert named(found)[0] == ("instability", "problem")
    assert "worse than before" in found[0].found


def test_noise_alone_is_no_instability(tmp_path: Path) -> None:
    assert kinds(verdict(tmp_path, train=falling(200, 2.5, 1.5, noise=0.6))) == ["healthy"]


def test_a_loss_that_is_no_number_is_a_problem(tmp_path: Path) -> None:
    found = verdict(tmp_path, train=[*falling(199, 2.5, 1.5), math.nan])
    assert named(found) == [("instability", "problem")]
    assert "step 200" in found[0].found


@pytest.mark.parametrize(("wild", "found"), [(6, ["instability"]), (2, ["healthy"])])
def test_gradients_that_explode_often_are_instability(tmp_path: Path, wild: int, found: list[str]) -> None:
    norms = [50.0 if step in range(100, 100 + wild) else 1.0 for step in range(200)]
    assert kinds(verdict(tmp_path, grad_norm=norms)) == found


def test_gradients_that_fade_as_all_is_learnt_are_no_explosion(tmp_path: Path) -> None:
    """A run on easy rows: its norms go from 10 to 0.01 within sixty steps and stay there, with noise."""
    noise = np.random.default_rng(3).normal(0, 0.3, 200)
    norms = [float(10 ** max(1 - step / 20, -2) * math.exp(noise[step])) for step in range(200)]
    assert kinds(verdict(tmp_path, grad_norm=norms)) == ["healthy"]


@pytest.mark.parametrize(("first", "found"), [(30, ["instability"]), (0, ["healthy"])])
def test_overflows_count_once_the_scaler_has_found_its_scale(tmp_path: Path, first: int, found: list[str]) -> None:
    norms = [None if first <= step < first + 10 else 1.0 for step in range(200)]
    assert kinds(verdict(tmp_path, grad_norm=norms)) == found


def general(after: float, records: int = 400, **more: Any) -> dict[str, Any]:
    sides = {when: {"loss": loss, "perplexity": math.exp(loss)} for when, loss in (("before", 2.0), ("after", after))}
    return {"reference": "general@2", "records": records, **sides, **more}


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (general(2.01), None),
        (general(2.05), "note"),
        (general(2.2), "warning"),
        (general(2.5), "problem"),
        (general(2.05, records=20), None),  # within the noise of so few
        (general(2.05, se=0.04), None),
        (general(2.05, records=20, se=0.01), "note"),
        (general(1.5), None),
    ],
)
def test_a_general_set_that_got_worse_beyond_its_noise_is_forgetting(
    tmp_path: Path, said: dict[str, Any], level: str | None
) -> None:
    found = verdict(tmp_path, general=said)
    assert named(found) == ([("forgetting", level)] if level else [("healthy", "ok")])
    if level:
        assert "--replay general:0.15" in found[0].advice


def test_a_source_that_is_worse_than_before_while_the_mean_improves_is_named(tmp_path: Path) -> None:
    rows = record_rows(400, 200).with_columns(
        loss=pl.when((pl.col("source") == "dolly") & (pl.col("split") == "val"))
        .then(pl.col("loss_before") + 0.1)
        .otherwise(pl.col("loss"))
    )
    found = verdict(tmp_path, records=rows)
    assert ("forgetting", "warning") in named(found)
    assert any(finding.evidence.get("source") == "dolly" for finding in found)


def test_of_many_sources_at_rest_chance_makes_none_forgotten(tmp_path: Path) -> None:
    """60 sources at rest beside one that learns, 20 runs: 2 standard errors each would name one in most of them."""
    base = read_run(healthy_run(tmp_path / "run"))
    called = 0
    for seed in range(20):
        change = np.random.default_rng(seed).normal(0.0, 0.3, 61 * 25)
        rows = record_rows(0, len(change)).with_columns(
            source=pl.Series([f"s{i % 61}" for i in range(len(change))]),
            loss=pl.col("loss_before")
            + pl.Series(change)
            - pl.Series([3.0 * (i % 61 == 0) for i in range(len(change))]),
        )
        called += "forgetting" in kinds(judge(replace(base, records=rows)))
    assert called <= 3


def rising(steps: int) -> list[float]:
    return [float(value) for value in np.linspace(1.0, 2.2, steps)]


@pytest.mark.parametrize("val", [{}, val_of(*falling(11, 2.6, 1.6, noise=0.0))])
def test_a_loss_that_rises_as_rows_get_harder_is_no_instability(tmp_path: Path, val: dict[int, float]) -> None:
    ordered = {"curriculum": "-perplexity"}
    found = verdict(tmp_path, train=rising(200), val=val, settings=ordered, records=None)
    assert "instability" not in kinds(found)
    found = verdict(tmp_path / "plain", train=rising(200), val={}, records=None)
    assert named(found)[0] == ("instability", "problem")


def test_a_model_that_begins_far_off_and_still_falls_is_not_at_rest(tmp_path: Path) -> None:
    """From 8.2, most of the fall is over soon; perplexity that goes from 36 to 22 in the second half is no plateau."""
    val = val_of(8.2, 5.5, 4.5, 3.9, 3.7, 3.57, 3.45, 3.35, 3.25, 3.16, 3.08)
    (found,) = verdict(tmp_path, val=val, records=None)
    assert (found.kind, found.level) == ("under-fitting", "warning")
    assert "still falling" in found.found


def test_advice_asks_for_what_the_run_has_not_done_yet(tmp_path: Path) -> None:
    flat = dict.fromkeys(EVALUATIONS, 2.0)
    assert "--method full" in verdict(tmp_path / "lora", val=flat)[0].advice
    whole = verdict(tmp_path / "full", val=flat, settings={"method": "full"})[0].advice
    assert "--method" not in whole
    assert "larger base model" in whole
    steep = val_of(*np.linspace(2.6, 1.6, 11).tolist())
    assert "--max-steps 400" in verdict(tmp_path / "steps", val=steep)[0].advice
    assert "a higher --max-hours)" in verdict(tmp_path / "hours", val=steep, facts={"ended_by": "hours"})[0].advice
    mixed = verdict(tmp_path / "replay", general=general(2.5), settings={"replay": "general:0.15"})[0].advice
    assert mixed.startswith("Mix more general rows")
    short = verdict(tmp_path / "short", train=[2.5, 2.4, 2.2], val={0: 2.6, 1: 2.4, 2: 2.2, 3: 2.0})[0]
    assert (short.kind, short.advice) == ("inconclusive", "Train for more steps.")


@pytest.mark.parametrize(
    "changed",
    [
        {"val": {0: 2.6, 100: 1.7, 200: 1.8}},
        {"val": {}},
        {"ended": False},
        {"records": record_rows(400, 12)},
    ],
)
def test_what_proves_little_is_said_to_be_inconclusive(tmp_path: Path, changed: dict[str, Any]) -> None:
    found = verdict(tmp_path, **changed)
    assert kinds(found) == ["inconclusive"]


def test_a_run_without_any_file_is_inconclusive(tmp_path: Path) -> None:
    assert kinds(judge(read_run(tmp_path))) == ["inconclusive"]


def test_several_findings_hold_together_the_worst_first(tmp_path: Path) -> None:
    found = verdict(tmp_path, val=RISEN, train=falling(200, 2.5, 0.3, rate=3), general=general(2.5), spikes=[spike(9)])
    assert named(found) == [("forgetting", "problem"), ("over-fitting", "warning"), ("instability", "note")]


SHAPES = {
    "as it is": lambda x: x,
    "cubed": lambda x: x**3,
    "exponential": lambda x: np.exp(x) - 1,
    "flattened": np.tanh,
    "root": lambda x: np.sign(x) * np.sqrt(np.abs(x)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_of_any_shape_on_a_curve_at_rest_is_not_over_fitting(tmp_path: Path, shape: str) -> None:
    """200 runs: at most one in fifty is called so."""
    called = 0
    base = read_run(healthy_run(tmp_path / "run", train=falling(200, 2.5, 1.0, rate=2), records=None))
    rest = np.array(falling(16, 2.6, 1.6, noise=0, rate=12))
    for seed in range(200):
        noise = SHAPES[shape](np.random.default_rng(seed).normal(0, 1, 16)) * 0.03
        values = curve(zip(range(0, 201, 13), rest + noise, strict=True))
        run = replace(base, evaluations=values, val_by_source={})
        called += "over-fitting" in kinds(judge(run))
    assert called <= 4


@given(st.lists(st.floats(0, 20), min_size=1, max_size=12), st.lists(st.floats(0, 20) | st.none(), max_size=30))
@settings(deadline=None, max_examples=60)
def test_whatever_the_curves_there_is_a_verdict_that_json_holds(
    tmp_path_factory: pytest.TempPathFactory, val: list[float], train: list[float | None]
) -> None:
    folder = write_run(
        tmp_path_factory.mktemp("run"), train=train or [1.0], val={i * 3: value for i, value in enumerate(val)}
    )
    found = judge_folder(folder)
    assert found
    assert kinds(found) == ["healthy"] or "healthy" not in kinds(found)
    written = json.loads((folder / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert [set(finding) for finding in written["findings"]] == [
        {"kind", "level", "found", "evidence", "advice"} for _ in found
    ]


SOFT = [math.exp(-step / 8) + 1e-3 for step in range(200)]


@pytest.mark.parametrize(("wild", "found"), [(0.8, ["healthy"]), (8.0, ["instability"])])
def test_gradients_that_clipping_lets_pass_do_not_explode(tmp_path: Path, wild: float, found: list[str]) -> None:
    norms = [wild if step in range(100, 160, 10) else norm for step, norm in enumerate(SOFT)]
    assert kinds(verdict(tmp_path, grad_norm=norms)) == found


def test_over_fitting_from_the_first_step_on_names_no_step_to_stop_at(tmp_path: Path) -> None:
    val = val_of(*(2.6 + 0.1 * i for i in range(11)))
    (found, *_) = verdict(tmp_path, val=val, train=falling(200, 2.5, 0.3, rate=3))
    assert (found.kind, found.level) == ("over-fitting", "problem")
    assert "lowest before training" in found.found
    assert "best/" not in found.advice
    assert "--lr 4e-05" in found.advice


def test_a_validation_loss_that_is_no_number_is_told_as_that_and_not_as_too_few_evaluations(tmp_path: Path) -> None:
    val = {0: 2.6, 20: math.inf, 40: math.nan, 60: math.inf}
    (found,) = verdict(tmp_path, val=val, ended=False, records=None)
    assert (found.kind, found.level) == ("instability", "problem")
    assert found.found == "The validation loss was infinite or no number at step 20, and at 2 later ones."
    assert "Start anew with a lower rate" in found.advice


def test_a_base_model_that_knows_it_all_already_is_not_under_fitting(tmp_path: Path) -> None:
    low = dict.fromkeys(EVALUATIONS, 0.01)
    (found,) = verdict(tmp_path / "low", val=low, train=falling(200, 0.01, 0.01, noise=0), records=None)
    assert (found.kind, found.level) == ("healthy", "ok")
    assert "nothing left to learn" in found.found
    assert kinds(verdict(tmp_path / "some", val=dict.fromkeys(EVALUATIONS, 0.03), records=None)) == ["under-fitting"]


@pytest.mark.parametrize(("hard", "found"), [(1, ["healthy"]), (30, ["under-fitting"])])
def test_a_loss_that_few_records_make_is_nothing_left_to_learn(tmp_path: Path, hard: int, found: list[str]) -> None:
    """60 records of which one has all of the loss: the mean cannot be told from 0. Of 30 it can."""
    rows = record_rows(0, 60).with_columns(
        loss=pl.when(pl.int_range(60) < hard).then(3.0 / hard).otherwise(0.0), n_target_tokens=pl.lit(20, pl.Int64)
    )
    rows = rows.with_columns(loss_before=pl.col("loss"))
    val = dict.fromkeys(EVALUATIONS, 0.05)
    assert kinds(verdict(tmp_path, val=val, train=falling(200, 0.05, 0.05, noise=0), records=rows)) == found


@pytest.mark.parametrize(("end", "found"), [(0.085, ["healthy"]), (0.095, ["under-fitting"])])
def test_of_a_low_loss_a_tenth_is_learnt_something(tmp_path: Path, end: float, found: list[str]) -> None:
    val = dict(zip(EVALUATIONS, falling(11, 0.1, end, noise=0), strict=True))
    assert kinds(verdict(tmp_path, val=val, train=falling(200, 0.1, end, noise=0), records=None)) == found


def test_of_many_sources_at_rest_chance_makes_none_over_fit(tmp_path: Path) -> None:
    """50 sources at rest, 20 runs: alone, one in sixty seems to rise, and so one or more in most runs."""
    names = [f"s{i}" for i in range(50)]
    rows = record_rows(0, 50 * 20).with_columns(source=pl.Series([names[i % 50] for i in range(50 * 20)]))
    base = read_run(healthy_run(tmp_path / "run", records=rows))
    called, rest = 0, np.array(falling(11, 2.6, 1.6, noise=0, rate=12))
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.05, (50, 11))
        curves = {
            name: curve(zip(EVALUATIONS, rest + own, strict=True)) for name, own in zip(names, noise, strict=True)
        }
        called += "over-fitting" in kinds(judge(replace(base, val_by_source=curves)))
    assert called <= 1


@pytest.mark.parametrize(
    ("rate", "method", "told"),
    [
        (1e-7, "full", "--lr 2e-05"),  # five times of it is nothing still
        (1e-5, "full", "--lr 5e-05"),
        (1e-7, "lora", "--lr 0.0002"),
        (None, "lora", "--lr 0.001"),
    ],
)
def test_a_rate_far_from_the_usual_is_told_the_usual_one(
    tmp_path: Path, rate: float | None, method: str, told: str
) -> None:
    flat = dict.fromkeys(EVALUATIONS, 2.0)
    assert told in verdict(tmp_path, val=flat, settings={"lr": rate, "method": method})[0].advice
    tiny = verdict(tmp_path / "tiny", val=flat, settings={"lr": 1e-7, "method": method, "model": "tiny"})[0]
    assert "--lr 0.002" in tiny.advice
    broke = [*falling(100, 2.5, 1.5), *falling(100, 7.5, 7.0)]
    val = val_of(2.6, 2.0, 1.8, 1.7, 1.65, 1.6, 6.9, 7.1, 7.0, 7.0, 7.0)
    wild = verdict(tmp_path / "wild", train=broke, val=val, settings={"lr": 1.0, "method": method})[0]
    assert f"--lr {2e-5 if method == 'full' else 2e-4:g}" in wild.advice
    assert "best/" in wild.advice


def test_a_run_that_broke_at_once_has_no_best_weights_to_use(tmp_path: Path) -> None:
    found = verdict(tmp_path, train=[2.5, *[20.0] * 30, *[900.0] * 169], val=val_of(2.6, *[900.0] * 10), records=None)
    assert (found[0].kind, found[0].level) == ("instability", "problem")
    assert "best/" not in found[0].advice


def test_a_base_model_may_know_the_data_only_where_it_is_good_at_them(tmp_path: Path) -> None:
    for loss, may in ((2.0, True), (5.6, False)):
        (found,) = verdict(tmp_path / f"{loss}", val=dict.fromkeys(EVALUATIONS, loss), records=None)
        assert ("already" in found.advice) == may


def test_validation_that_is_far_worse_each_time_is_told_however_few_the_evaluations(tmp_path: Path) -> None:
    worse = verdict(tmp_path, val={0: 2.6, 100: 3.7, 200: 3.9}, records=None)
    assert named(worse) == [("instability", "problem"), ("inconclusive", "note")]
    assert kinds(verdict(tmp_path / "2", val={0: 2.6, 100: 2.7, 200: 3.9}, records=None)) == ["inconclusive"]


def test_a_perplexity_beyond_all_bounds_is_a_power_of_e(tmp_path: Path) -> None:
    (found,) = verdict(tmp_path, general=general(80.0))
    assert "perplexity went from 7.4 to e^80, +109,563% and more, over 400 records" in found.found
