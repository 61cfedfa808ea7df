import math
import re
from dataclasses import asdict
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ssl_lightning.backbones import ConvNet
from ssl_lightning.engine.optim import LARS, OptimizerSpec, as_spec, configure_optimizers, parameter_groups, rate
from ssl_lightning.supervised import Classifier


def test_no_decay_on_biases_and_norms() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    decayed, free = parameter_groups(module, 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 1, 3, 3), (3, 2)]
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert sorted(tuple(p.shape) for p in free["params"]) == [(2,), (2,), (2,), (3,)]


def test_frozen_module_is_refused() -> None:
    with pytest.raises(ValueError, match="`Linear` has no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


def test_rate_agrees_with_torch_schedulers() -> None:
    """Linear warm-up then cosine, as torch's own schedulers chained."""
    spec, total = OptimizerSpec(lr=1.0, warmup=0.25), 40
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 10, end_factor=1.0, total_iters=9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    chained = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[10])
    for step in range(total):
        assert rate(step, total, spec) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6), step
        optimizer.step()
        chained.step()


def test_every_step_learns_and_the_rate_is_0_after_the_last() -> None:
    """As SGDR, Eq. 5, with the steps taken as time."""
    spec, total = OptimizerSpec(), 50
    rates = [rate(step, total, spec) for step in range(total + 1)]
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total + 1)])
    assert rates[-1] == 0.0
    assert 0 < rates[-2] < 0.001
    assert rates == sorted(rates, reverse=True)


class Stepped(L.LightningModule):
    """Notes the rate of each step."""

    def __init__(self, cycle: int | None) -> None:
        super().__init__()
        self.layer, self.cycle, self.rates = nn.Linear(2, 2), cycle, list[float]()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.rates.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return configure_optimizers(self, OptimizerSpec(lr=1.0), self.cycle)


@pytest.mark.parametrize("cycle", [None, 4])
def test_rates_of_a_fit(trainer: Any, cycle: int | None) -> None:
    """A cycle of the snapshot ensembles' paper (arXiv 1704.00109, Eq. 2) begins anew after its last small step."""
    model = Stepped(cycle)
    trainer(max_epochs=1).fit(model, DataLoader(torch.randn(12, 2)))
    length = cycle or 12
    expected = [0.5 * (math.cos(math.pi * (step % length) / length) + 1) for step in range(12)]
    assert model.rates == pytest.approx(expected)


def lars_reference(weights: list[Any], grads: list[list[Any]], decay: float, lr: float, momentum: float) -> list[Any]:
    """Return weights after some steps in float64 numpy, by Eq. 6 of arXiv 1708.03888; vectors by plain SGD."""
    found = [weight.astype(np.float64) for weight in weights]
    moves = [np.zeros_like(weight) for weight in found]
    for step in grads:
        for place, grad in enumerate(step):
            w, g = found[place], grad.astype(np.float64)
            if w.ndim > 1:
                local = 0.001 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
                g = local * (g + decay * w)
            moves[place] = momentum * moves[place] + g
            found[place] = w - lr * moves[place]
    return found


@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1])
def test_lars_is_the_papers_at_any_weight_decay(decay: float) -> None:
    """Layers are adapted, biases are not, whether weights decay or not."""
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    begin = [parameter.detach().numpy().copy() for parameter in layer.parameters()]
    groups = parameter_groups(layer, decay)
    groups[1]["adapt"] = False
    optimizer = LARS(groups, lr=0.5, momentum=0.9)
    grads = []
    for _ in range(5):
        for parameter in layer.parameters():
            parameter.grad = 100 * torch.randn_like(parameter)
        grads.append([parameter.grad.numpy().copy() for parameter in layer.parameters()])  # type: ignore[union-attr]
        optimizer.step()
    for mine, wanted in zip(layer.parameters(), lars_reference(begin, grads, decay, 0.5, 0.9), strict=True):
        torch.testing.assert_close(mine.detach().double(), torch.from_numpy(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1.0, 1e8])
def test_lars_moves_by_a_share_of_the_weights_at_any_gradient(size: float) -> None:
    weight = nn.Parameter(torch.full((3, 4), 2.0))
    weight.grad = torch.full((3, 4), size)
    LARS([weight], lr=1.0, momentum=0.0).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 4), 2.0 * 0.999))
    weight.grad = torch.zeros(3, 4)
    LARS([weight], lr=1.0, momentum=0.0).step()  # 0 / 0
    torch.testing.assert_close(weight.detach(), torch.full((3, 4), 2.0 * 0.999))


def test_lars_of_a_spec_adapts_without_weight_decay(trainer: Any) -> None:
    """A step moves every layer by a thousandth of its size, times the rate."""
    model = Stepped(None)
    before = model.layer.weight.detach().clone()
    model.configure_optimizers = lambda: configure_optimizers(  # type: ignore[method-assign]
        model, OptimizerSpec(name="lars", lr=1.0, weight_decay=0.0, schedule="constant")
    )
    trainer(max_steps=1).fit(model, DataLoader(1000 * torch.ones(4, 2)))
    moved = (model.layer.weight.detach() - before).norm() / before.norm()
    assert float(moved) == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("lr", -1.0, "at least 0"), ("warmup", 1.5, "from 0 to 1"), ("momentum", 2.0, "from 0 to below 1"),
        ("lr", 1e99, "at most 1000; whatever is larger diverges"), ("weight_decay", 10**400, "at most 1000"),
        ("lr", True, "a finite number"),
        ("weight_decay", float("nan"), "a finite number at least 0"), ("lr", math.inf, "a finite number"),
        ("name", "adam", "one of sgd, adamw, lars"), ("schedule", "step", "one of cosine, constant"),
    ],
)  # fmt: skip
def test_out_of_range_is_named(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"`optimizer\.{key}={re.escape(repr(value)[:77])}.*` must be {wanted}"):
        OptimizerSpec(**{key: value})


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_every_optimizer_lowers_a_loss(name: str, trainer) -> None:  # type: ignore[no-untyped-def]
    from ssl_lightning.backbones import ConvNet
    from ssl_lightning.data import Digits
    from ssl_lightning.supervised import Classifier, Recipe

    lr = {"sgd": 0.1, "adamw": 1e-2, "lars": 20.0}[name]
    spec = OptimizerSpec(name=name, lr=lr)  # type: ignore[arg-type]
    model = Classifier(10, ConvNet(width=8), optimizer=spec, recipe=Recipe(augment=False))
    fit = trainer(max_epochs=3)
    fit.fit(model, datamodule=Digits(batch_size=64))
    assert fit.callback_metrics["train/loss"] < 1.5  # log(10) = 2.3 at the start


def test_a_specification_is_made_of_what_a_checkpoint_keeps() -> None:
    spec = OptimizerSpec("sgd", lr=0.1, warmup=0.2)
    assert as_spec(spec) is spec
    assert as_spec(asdict(spec)) == spec
    assert as_spec(None) == OptimizerSpec()


@pytest.mark.parametrize("optimizer", ["adamw", {"rate": 0.1}, 3])
def test_what_is_no_specification_is_refused(optimizer: Any) -> None:
    with pytest.raises(ValueError, match="must be an `OptimizerSpec`"):
        as_spec(optimizer)
    with pytest.raises(ValueError, match="must be an `OptimizerSpec`"):
        Classifier(2, ConvNet(width=4), optimizer=optimizer)
