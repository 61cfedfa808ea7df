"""Calibration, confusion and accuracy by class against other libraries and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassCalibrationError

from ssl_lightning.experiments.measures import BINS, by_class, calibration, confusion


@pytest.mark.parametrize("sharpness", [0.2, 3.0, 50.0])
def test_calibration_error_is_that_of_torchmetrics(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (sharpness * torch.randn(3000, 5, generator=generator)).softmax(dim=1).double()
    target = torch.where(
        torch.rand(3000, generator=generator) < 0.6,
        probabilities.argmax(dim=1),
        torch.randint(5, (3000,), generator=generator),
    )
    theirs = MulticlassCalibrationError(5, n_bins=BINS, norm="l1")(probabilities, target)
    found = calibration(probabilities.max(dim=1).values.numpy(), (probabilities.argmax(dim=1) == target).numpy())
    assert found.error == pytest.approx(float(theirs), abs=1e-6)
    assert found.samples.sum() == 3000


def test_certain_and_always_right_is_calibrated() -> None:
    found = calibration(np.ones(4), np.ones(4, bool))
    assert found.error == 0
    assert found.samples.tolist() == [0] * (BINS - 1) + [4]
    assert calibration(np.ones(4), np.zeros(4, bool)).error == 1
    with pytest.raises(ValueError, match="at least one sample"):
        calibration(np.empty(0), np.empty(0, bool))


def test_confusion_is_that_of_scikit_learn() -> None:
    target, predicted = np.random.default_rng(0).integers(0, 6, (2, 500))
    counts = confusion(target, predicted, 7)
    assert counts.tolist() == confusion_matrix(target, predicted, labels=range(7)).tolist()
    classes = by_class(counts)
    assert [one.place for one in classes] == list(range(6))  # the seventh has no sample
    for one in classes:
        here = target == one.place
        assert one.samples == here.sum()
        assert one.accuracy == pytest.approx((predicted == target)[here].mean())
        assert one.guessed == (predicted == one.place).sum()
        assert 0 <= one.low < one.accuracy < one.high <= 1
