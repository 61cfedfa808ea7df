"""What the judge of `evaluate` refuses; what it finds is in tests/commands/test_evaluate.py."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.evaluation.judge import Judge, fraction_of, load_subject


def judge(**options: Any) -> Judge:
    data = Digits(batch_size=64)
    data.setup("fit")
    data.setup("test")
    settings = {
        "accelerator": "cpu", "precision": "32-true", "k": 5, "temperature": 0.1, "steps": 2, "lr": 1e-3, "seed": 0,
        "lidar_images": 5, "views": 2, "fractions": (0.1,), "protocols": ("finetune",),
    }  # fmt: skip
    return Judge(load_subject("untrained", ConvNet(width=4), data), data, SimpleNamespace(**{**settings, **options}))


def test_fine_tuning_that_diverges_is_no_result() -> None:
    message = r"`lr=1000` is too high to fine-tune `untrained`: with 0\.1 of the labels its test loss is .*; lower it"
    with pytest.raises(ValueError, match=message):
        list(judge(lr=1000).finetune())
    (row,) = judge().finetune()
    assert row[0] == 0.1
    assert 0 < row[2] < 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 1e9), ("lr", 0), ("lr", math.nan), ("steps", 1.5), ("k", True), ("views", 1), ("lidar_images", None),
        ("seed", -1),
    ],
)  # fmt: skip
def test_settings_are_refused_before_anything_is_judged(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^`{name}={value}` must be "):
        judge(**{name: value})


@pytest.mark.parametrize("fraction", [0, 1.1, math.nan, True, "foo", None])
def test_no_fraction(fraction: Any) -> None:
    with pytest.raises(ValueError, match=rf"`fraction={fraction!r}` must be .*above 0 and at most 1"):
        fraction_of(torch.zeros(5, dtype=torch.int64), torch.arange(5), fraction, 1, 0)
