from typing import Any

import pytest
import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import BYOL, NNCLR, MoCo, SimCLR, SimSiam, SupCon, SwAV
from ssl_lightning.transforms.image import CleanView, SimCLRViews


def naive_nt_xent(z0: torch.Tensor, z1: torch.Tensor, temperature: float) -> torch.Tensor:
    """Eq. 1 of the paper, sample by sample in float64."""
    z = torch.nn.functional.normalize(torch.cat([z0, z1]).double(), dim=1)
    n, total = len(z0), torch.zeros((), dtype=torch.float64)
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = torch.stack([(z[i] @ z[k] / temperature).exp() for k in range(2 * n) if k != i])
        total = total - ((z[i] @ z[j] / temperature).exp() / others.sum()).log()
    return total / (2 * n)


@pytest.fixture
def method() -> SimCLR:
    return SimCLR(ConvNet(width=4), temperature=0.3, projection_dim=8)


def batch_of(count: int) -> Batch:
    return Batch(None, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def test_loss_and_gradients_are_the_papers(method: SimCLR) -> None:
    views = [torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)]
    step = method.compute_loss(views, batch_of(6))
    z0, z1 = method.projector(method.backbone(torch.cat(views))).chunk(2)
    expected = naive_nt_xent(z0, z1, 0.3)
    torch.testing.assert_close(step["loss"].double(), expected, rtol=1e-5, atol=1e-6)
    parameters = list(method.parameters())
    got = torch.autograd.grad(step["loss"], parameters, retain_graph=True)
    want = torch.autograd.grad(expected, parameters)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_views_can_be_swapped(method: SimCLR) -> None:
    views = [torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)]
    one = method.compute_loss(views, batch_of(6))["loss"]
    other = method.compute_loss(views[::-1], batch_of(6))["loss"]
    torch.testing.assert_close(one, other)


def test_embedding_is_the_first_views(method: SimCLR) -> None:
    views = [torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)]
    method.eval()
    torch.testing.assert_close(method.compute_loss(views, batch_of(6))["embedding"], method.backbone(views[0]))


def test_loss_falls(trainer: Any) -> None:
    losses = []

    class Watch(SimCLR):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            step = super().training_step(batch, batch_idx)
            losses.append(step["loss"].item())
            return step

    model = Watch(ConvNet(width=16), SimCLRViews(flip=0, crop_scale=(0.4, 1)), optimizer=OptimizerSpec(lr=3e-3))
    trainer(max_epochs=8).fit(model, datamodule=Digits(batch_size=128))
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.3


def test_evaluation_sees_clean_images(trainer: Any) -> None:
    """Random views are for training steps only."""
    data = Digits(batch_size=64)
    model = SimCLR(ConvNet(width=4))
    outputs = trainer().predict(model, datamodule=data)
    assert data.test_samples is not None
    test = outputs[1][0]  # after those of the training part
    images = CleanView()(data.test_samples.__getitems__(test["index"].tolist()).input)
    torch.testing.assert_close(test["embedding"], model.eval().backbone(images))


@pytest.mark.parametrize("kind", [SimCLR, SupCon, MoCo, NNCLR, BYOL, SimSiam, SwAV])
def test_a_projection_to_one_number_is_refused(kind: Any) -> None:
    """Its cosine is 1 or -1, and has no gradient."""
    with pytest.raises(ValueError, match="`projection_dim=1` must be at least 2; a normalised number is 1 or -1"):
        kind(ConvNet(width=4), projection_dim=1)
    kind(ConvNet(width=4), projection_dim=2)
