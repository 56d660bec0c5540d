import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.train_config import TrainConfig
from train.run import budget
from train.run.budget import Budget, Clock, budget_of, cost


def test_the_lower_of_hours_and_cost_is_the_limit_and_is_named() -> None:
    both = {"max_hours": 2.0, "max_cost": 3.0, "price_per_hour": 2.0}
    assert budget_of(TrainConfig(**both), reserve=0) == Budget(1.5 * 3600, "cost")
    assert budget_of(TrainConfig(**both | {"max_cost": 9.0}), reserve=5) == Budget(2 * 3600, "hours", 5)
    assert budget_of(TrainConfig(), reserve=5).limit is None


@given(
    st.integers(0, 99), st.floats(0, 1e4), st.floats(0, 1e4), st.one_of(st.none(), st.floats(1, 1e4)), st.floats(0, 1e3)
)
def test_a_run_is_as_far_as_its_steps_or_its_time_and_never_at_the_end(
    step: int, begun: float, more: float, limit: float | None, reserve: float
) -> None:
    of = Budget(limit, "hours", reserve)
    done = of.done(step, 100, wall=begun + more, begun=begun)
    assert step / 100 <= done < 1
    assert of.done(step, 100, wall=begun + more + 1, begun=begun) >= done


def test_the_rate_has_fallen_when_the_time_is_up_and_the_ending_fits_into_the_limit() -> None:
    of = Budget(100.0, "hours", reserve=10.0)
    assert of.done(0, 1000, wall=50.0, begun=10.0) == pytest.approx(0.5)  # 80 s for steps, 40 of them gone
    assert not of.over(89.9)
    assert of.over(90.0)


def test_a_limit_that_is_over_before_the_first_step_is_refused_saying_what_took_the_time() -> None:
    with pytest.raises(ConfigError, match=r"--max-cost: its 100 s are over before the first step.*took 95 s"):
        Budget(100.0, "cost", reserve=10.0).check(95.0)
    with pytest.raises(ConfigError, match=r"its 0.036 s are over .* took 11 s; expected .* higher --max-hours"):
        Budget(0.036, "hours").check(11.0)
    Budget(100.0, "cost", reserve=10.0).check(80.0)
    Budget(None, "hours").check(1e9)


def test_a_resumed_run_counts_the_seconds_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(before=30.0, started=100.0)
    monkeypatch.setattr(budget.time, "monotonic", lambda: 112.0)
    assert clock.seconds() == 42.0
    assert cost(TrainConfig(price_per_hour=3.6), 42.0) == pytest.approx(0.042)
    assert cost(TrainConfig(), 42.0) is None
