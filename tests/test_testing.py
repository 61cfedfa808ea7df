"""The checks that we lend to strangers: they pass on ours, and find what is wrong."""

from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.active import AcquisitionStrategy, Entropy, Predictions
from ssl_lightning.backbones import MLP, ConvNet, Flat
from ssl_lightning.data import Digits, ImageData, TensorSamples
from ssl_lightning.methods import SimCLR
from ssl_lightning.testing import check_backbone, check_data, check_method, check_strategy


def test_ours_pass() -> None:
    check_method(lambda: SimCLR(ConvNet(width=4), projection_dim=8))
    check_strategy(lambda: Entropy(query_size=5))
    check_backbone(lambda: ConvNet(width=4), torch.randn(5, 1, 8, 8))
    check_backbone(lambda: MLP(6, width=4), torch.randn(5, 6))
    check_backbone(lambda: Flat(6), torch.randn(5, 6).requires_grad_())
    check_data(Digits)


class Forgetful(AcquisitionStrategy):
    """Its scores are drawn from the global generator."""

    def score(self, predictions: Predictions) -> Any:
        return torch.rand(len(predictions.points))


class Wide(AcquisitionStrategy):
    """A score for each class, not for each sample."""

    def score(self, predictions: Predictions) -> Any:
        return predictions.log_probabilities


class Twins(Digits):
    """Two samples of one key."""

    def load(self, split: Any) -> Any:
        found: Any = super().load(split)
        return TensorSamples(found.inputs, found.targets, ["same"] * len(found))


def test_what_is_wrong_is_found() -> None:
    with pytest.raises(AssertionError, match="picks"):
        check_strategy(lambda: Forgetful(query_size=5))
    with pytest.raises(ValueError, match=r"`Wide.score` returned shape \(\d+, 10\) .* one number a sample"):
        check_strategy(lambda: Wide(query_size=5))
    with pytest.raises(ValueError, match=r"`key=same` names 1[0-9]{3} samples"):
        check_data(Twins)
    batch_norm = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises((AssertionError, ValueError)):
        check_backbone(lambda: batch_norm, torch.randn(5, 6))


def test_encoders_without_weights_and_those_of_one_size_pass() -> None:
    check_backbone(lambda: Flat(7), torch.rand(5, 7))
    check_backbone(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.rand(5, 3, 8, 8))


def test_data_whose_content_changes_under_a_key_do_not_pass() -> None:
    class Noise(ImageData):
        num_classes, channels, image_size = 2, 1, 8

        def load(self, split: str) -> TensorSamples:
            keys = [f"{split}{place}" for place in range(20)]
            return TensorSamples(torch.randint(256, (20, 1, 8, 8)).to(torch.uint8), torch.arange(20) % 2, keys)

    with pytest.raises(AssertionError, match="a key names another content"):
        check_data(Noise)
