import random

from hypothesis import given
from hypothesis import strategies as st

from train.run.spikes import DEVIATIONS, FEWEST, LEAST, WINDOW, Spikes


def test_a_leap_is_found_with_what_was_usual_and_the_steps_around_it_are_not() -> None:
    draw = random.Random(1)
    losses = [2.0 + draw.gauss(0, 0.1) for _ in range(200)]
    losses[120] = 4.0
    spikes = Spikes()
    found = [spikes.usual(loss) for loss in losses]
    (at,) = [i for i, usual in enumerate(found) if usual is not None]
    assert at == 120
    assert 1.9 < (found[at] or 0) < 2.1


def test_just_at_the_bound_passes_and_just_above_it_does_not() -> None:
    steady = [1.0, 3.0] * FEWEST  # median 2, deviation 1
    assert Spikes.after(steady).usual(2.0 + DEVIATIONS) is None
    assert Spikes.after(steady).usual(2.0 + DEVIATIONS + 0.01) == 2.0
    known_by_heart = [0.01] * FEWEST
    assert Spikes.after(known_by_heart).usual(0.01 + LEAST - 0.001) is None
    assert Spikes.after(known_by_heart).usual(0.01 + LEAST + 0.001) == 0.01


def test_nothing_is_usual_before_there_were_enough_steps() -> None:
    assert Spikes.after([1.0] * (FEWEST - 1)).usual(100.0) is None


@given(st.lists(st.floats(0, 20), min_size=FEWEST + WINDOW, max_size=FEWEST + WINDOW + 20), st.floats(0, 20))
def test_what_a_run_says_depends_on_the_last_steps_alone_so_a_resumed_run_says_the_same(
    losses: list[float], loss: float
) -> None:
    whole = Spikes()
    for each in losses:
        whole.usual(each)
    assert whole.usual(loss) == Spikes.after(losses[-WINDOW:]).usual(loss)
