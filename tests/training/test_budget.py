from __future__ import annotations

import pytest

from pixelkin.training.budget import Budget


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
