from __future__ import annotations

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.training.config import TrainingConfig
from pixelkin.training.schedule import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("constant", [1, 1, 1]), ("cosine", [1, 0.5, 0]), ("poly", [1, 0.5**0.9, 0]), ("step", [1, 1, 0.01])],
)
def test_start_middle_end(schedule, values):
    config = TrainingConfig(schedule=schedule)
    assert [learning_rate_factor(config, 100, p) for p in (0, 0.5, 1)] == pytest.approx(values)


def test_the_step_schedule_goes_down_twice():
    config = TrainingConfig(schedule="step")
    factors = [learning_rate_factor(config, 0, p) for p in (0.66, 0.67, 0.88, 0.89)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warmup_is_linear_and_then_gone():
    config = TrainingConfig(schedule="constant", warmup=4)
    assert [learning_rate_factor(config, step, 0.5) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


@given(
    st.sampled_from(["poly", "cosine", "step", "constant"]), st.integers(0, 50), st.integers(0, 100), st.floats(0, 2)
)
def test_never_outside_0_and_1(schedule, warmup, step, progress):
    config = TrainingConfig(schedule=schedule, warmup=warmup)
    assert 0 <= learning_rate_factor(config, step, progress) <= 1


@given(st.sampled_from(["poly", "cosine", "step", "constant"]), st.floats(0, 1), st.floats(0, 1))
def test_never_rises(schedule, a, b):
    config = TrainingConfig(schedule=schedule)
    assert learning_rate_factor(config, 0, min(a, b)) >= learning_rate_factor(config, 0, max(a, b))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterationen": 3},
        {"iterations": 0},
        {"iterations": "3"},
        {"ema": 1.0},
        {"learning_rate": -1.0},
        {"precision": "fp8"},
    ],
)
def test_settings_are_strict(wrong):
    with pytest.raises(pydantic.ValidationError):
        TrainingConfig(**wrong)
