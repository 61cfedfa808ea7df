import pytest
import torch
from torch import nn

from ssl_lightning.engine.optim import OptimizerSpec, parameter_groups, rate


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


@pytest.mark.parametrize(
    ("key", "value"), [("lr", -1.0), ("warmup", 1.5), ("momentum", 2.0), ("weight_decay", float("nan"))]
)
def test_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`optimizer.{key}={value}` is out of range"):
        OptimizerSpec(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_every_optimizer_lowers_a_loss(name: str, trainer) -> None:  # type: ignore[no-untyped-def]
    from ssl_lightning.backbones import ConvNet
    from ssl_lightning.data import Digits
    from ssl_lightning.supervised.classifier import Classifier

    lr = {"sgd": 0.1, "adamw": 1e-2, "lars": 20.0}[name]
    model = Classifier(10, ConvNet(width=8), optimizer=OptimizerSpec(name=name, lr=lr))  # type: ignore[arg-type]
    fit = trainer(max_epochs=3)
    fit.fit(model, datamodule=Digits(batch_size=64))
    assert fit.callback_metrics["train/loss"] < 1.5  # log(10) = 2.3 at the start
