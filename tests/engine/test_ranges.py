"""What is refused, and how it is said."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.engine.ranges import above, at_least, between, given, one_of, ordered, several, whole


@pytest.mark.parametrize("value", [True, 2.0, "2", None, math.nan, [2], torch.tensor(2)])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^`width=.*` must be a whole number, at least 1\.$"):
        whole(1, width=value)


@pytest.mark.parametrize("value", [True, "2", None, math.nan, math.inf, -math.inf, (1.0,)])
@pytest.mark.parametrize("require", [lambda x: above(0, x=x), lambda x: at_least(0, x=x), lambda x: between(0, 9, x=x)])
def test_what_is_no_finite_number(require: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^`x=.*` must be a finite number (above|at least|from) 0"):
        require(value)


def test_the_ends_of_intervals() -> None:
    for ends, low, high in (("[]", True, True), ("[)", True, False), ("(]", False, True), ("()", False, False)):
        for value, fits in ((0.0, low), (1.0, high), (0.5, True), (-1e-9, False), (1 + 1e-9, False)):
            if fits:
                between(0, 1, ends, value=value)  # type: ignore[arg-type]
            else:
                with pytest.raises(ValueError, match="`value="):
                    between(0, 1, ends, value=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.4, (0.2,), (0.5, 0.2), (0.0, 1.0), (0.2, 1.1), (0.2, math.nan), "01", None])
def test_pairs(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`crop_scale=.*` must be two numbers, each above 0 and at most 1, the sma"):
        ordered(0, 1, "(]", crop_scale=value)


def test_what_fits_passes_without_a_word() -> None:
    whole(0, 5, count=5, other=np.int64(0))
    above(0, lr=1e-9, other=np.float32(1))
    at_least(0, noise=0)
    ordered(0, 1, scale=[0.5, 0.5])
    several(2, 0, 1, blur=(1.0, 0.0))
    one_of(("a", 1), first="a", second=1)
    whole(1, **given(limit=None))


def test_the_first_that_does_not_fit_is_named_with_its_remedy() -> None:
    with pytest.raises(ValueError, match=r"^`dim=0` must be at least 1; take 64\.$"):
        whole(1, math.inf, "take 64", width=3, dim=0)
    with pytest.raises(ValueError, match=r"^`version=True` must be one of 1, 2\.$"):
        one_of((1, 2), version=True)
    with pytest.raises(ValueError, match=r"^`rows=a tensor of shape \(2, 3\)` must be a finite number above 0\.$"):
        above(0, rows=torch.zeros(2, 3))
