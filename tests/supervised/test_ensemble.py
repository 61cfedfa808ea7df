"""Ensembles: members are independent, their mean is the prediction, snapshots are the weights at the cycles' ends."""

from typing import Any

import lightning as L
import pytest
import torch

from ssl_lightning.active import BALD, PoolDataModule
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.supervised.ensemble import Ensemble, Snapshots

SPEC = OptimizerSpec(lr=3e-3, warmup=0.1)


def weights(module: Any, prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v.clone() for k, v in module.state_dict().items() if k.startswith(prefix)}


@pytest.mark.parametrize("place", [0, 1])
def test_a_member_ends_as_it_would_alone(place: int, trainer: Any) -> None:
    L.seed_everything(5, verbose=False)
    ensemble = Ensemble(10, members=3, backbone=ConvNet(width=4), optimizer=SPEC)
    prefix = "" if place == 0 else "others.0."
    alone = Classifier(10, ConvNet(width=4), optimizer=SPEC)
    for part in ("backbone", "head"):
        getattr(alone, part).load_state_dict(weights(ensemble, f"{prefix}{part}."))
    for model in (ensemble, alone):
        L.seed_everything(1, verbose=False)
        trainer(max_epochs=2).fit(model, datamodule=Digits(batch_size=128))
    for part in ("backbone", "head"):
        together = weights(ensemble, f"{prefix}{part}.")
        for key, value in getattr(alone, part).state_dict().items():
            torch.testing.assert_close(together[key], value, rtol=1e-5, atol=1e-6)


def test_members_differ_and_the_prediction_is_their_mean() -> None:
    model = Ensemble(10, members=4, backbone=ConvNet(width=4)).eval()
    images = torch.randn(6, 1, 8, 8)
    samples = model.sample_logits(images, None, 0).softmax(-1)
    assert samples.shape == (4, 6, 10)
    assert (samples[0] - samples[1]).abs().max() > 1e-3
    torch.testing.assert_close(model(images).exp(), samples.mean(dim=0))


def test_pretrained_members_share_the_first_weights(trainer: Any, tmp_path: Any) -> None:
    fit = trainer(max_steps=1)
    fit.fit(Classifier(10, ConvNet(width=4)), datamodule=Digits())
    fit.save_checkpoint(tmp_path / "one.ckpt")
    model = Ensemble(10, members=2, checkpoint=str(tmp_path / "one.ckpt"))
    for key, value in weights(model, "others.0.backbone.").items():
        assert torch.equal(value, model.backbone.state_dict()[key])
    assert not torch.equal(model.head[1].weight, model.others[0]["head"][1].weight)  # type: ignore[index]
    frozen = Ensemble(10, members=2, checkpoint=str(tmp_path / "one.ckpt"), freeze=True)
    assert sum(p.numel() for p in frozen.parameters() if p.requires_grad) == 2 * (16 * 10 + 10)
    assert not weights(frozen, "others.0.backbone.")


class Diary(L.Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.heads: list[torch.Tensor] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.heads.append(pl_module.head[1].weight.detach().clone())


def test_snapshots_are_taken_at_the_ends_of_the_cycles(trainer: Any) -> None:
    diary = Diary()
    model = Snapshots(10, members=3, backbone=ConvNet(width=4), optimizer=OptimizerSpec(lr=1e-2))
    trainer(max_epochs=3, callbacks=[diary]).fit(model, datamodule=Digits(batch_size=128))  # 8 steps an epoch
    assert int(model.taken) == 3
    for place, step in enumerate((8, 16, 24)):
        assert torch.equal(model.copies[place]["head"][1].weight, diary.heads[step - 1])  # type: ignore[index]
    assert diary.rates[0] == diary.rates[8] == diary.rates[16] == pytest.approx(1e-2)
    assert max(diary.rates[step] for step in (7, 15, 23)) < 1e-3
    model.eval()
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(model(images).exp(), model.sample_logits(images, None, 0).softmax(-1).mean(dim=0))
    assert model.sample_logits(images, 2, 0).shape[0] == 2


@pytest.mark.parametrize("kind", [Ensemble, Snapshots])
def test_bald_asks_where_the_members_disagree(kind: Any, trainer: Any) -> None:
    pool = PoolDataModule(Digits(batch_size=64), steps_per_epoch=12)
    model = kind(10, members=3, backbone=ConvNet(width=4))
    trainer(max_epochs=1, callbacks=[BALD(query_size=5)]).fit(model, datamodule=pool)
    asked = [query for query in pool.queries if query.round == 0]
    assert len(asked) == 5
    assert all(query.score > 0 for query in asked)  # type: ignore[operator]


def test_mistakes_are_named(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`members=1` must be at least 2"):
        Ensemble(10, members=1, backbone=ConvNet(width=4))
    pool = PoolDataModule(Digits(), steps_per_epoch=2)
    with pytest.raises(ValueError, match="`Ensemble` has 2 members, the strategy wants 5"):
        trainer(max_epochs=1, callbacks=[BALD(members=5)]).fit(
            Ensemble(10, members=2, backbone=ConvNet(width=4)), datamodule=pool
        )
