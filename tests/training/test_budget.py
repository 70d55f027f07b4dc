from __future__ import annotations

import pytest

from pixelkin.training import budget as module
from pixelkin.training.budget import Budget, Stages


@pytest.mark.parametrize(
    ("text", "seconds", "iterations"),
    [
        ("90s", 90, None),
        ("5m", 300, None),
        ("1h", 3600, None),
        ("1.5h", 5400, None),
        ("2000it", None, 2000),
        (" 2 m ", 120, None),
    ],
)
def test_parse(text, seconds, iterations):
    budget = Budget.parse(text)
    assert (budget.seconds, budget.iterations) == (seconds, iterations)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "0s", "0it", "1.5it", "5 minutes", "5m3s", "nan", "infs", "٣s5"])
def test_what_is_not_a_budget(text):
    with pytest.raises(ValueError, match="write a time"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "limits", [{}, {"seconds": 1.0, "iterations": 1}, {"seconds": 0.0}, {"iterations": -1}, {"seconds": float("nan")}]
)
def test_one_positive_limit(limits):
    with pytest.raises(ValueError, match="either seconds or iterations"):
        Budget(**limits)


def test_each_stage_gets_its_share_of_what_is_left(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stages = Stages(Budget(seconds=100), {"a": 3, "maps": 1, "b": 4, "c": 2})
    assert stages.begin("a").seconds == pytest.approx(30)
    now[0] += 60  # twice what it was given
    assert stages.begin("b").seconds == pytest.approx(40 * 4 / 6)  # "maps" needed no budget and is over
    now[0] += 10
    assert stages.begin("c").seconds == pytest.approx(30)
    late = Stages(Budget(seconds=100), {"a": 1, "b": 1})
    now[0] += 500
    assert late.begin("b").seconds == pytest.approx(5)


@pytest.mark.parametrize("budget", [None, Budget(iterations=7)])
def test_no_limit_and_iterations_are_for_every_stage(budget):
    stages = Stages(budget, {"a": 1, "b": 1})
    assert stages.begin("a") is budget
    assert stages.begin("b") is budget
