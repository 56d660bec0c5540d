"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# Shared and slow machines run these tests: no time limits, and the same examples every time, so that a failure is a
# failure of the change at hand.
settings.register_profile(
    "sft",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sft")
