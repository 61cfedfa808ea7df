"""VAAL: its losses, its signs, resumed, on two processes."""

import contextlib
import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from methods.test_base import Killer, Stop
from support import spawn

from ssl_lightning.active import VAAL, PoolDataModule
from ssl_lightning.active.vaal import VAEAndDiscriminator, vae_loss
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import RandomView


def strategy(size: int = 8, channels: int = 1, **options: Any) -> VAAL:
    vaal = VAAL(latent_dim=4, width=4, **options)
    torch.manual_seed(0)
    vaal.networks = VAEAndDiscriminator(channels, size, 4, 4)
    judge = list(vaal.networks.discriminator.parameters())
    others = [*vaal.networks.encoder.parameters(), *vaal.networks.decoder.parameters()]
    vaal.optimizers = [torch.optim.Adam(others, 1e-3), torch.optim.Adam(judge, 1e-3)]
    return vaal


def test_vae_loss_is_the_formula() -> None:
    images, decoded = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    mean, log_variance = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, math.log(2)]] * 2)
    # error 4 and divergence (1 + 1 - 0 - 1) / 2 + (0 + 2 - log 2 - 1) / 2, over 4 pixels
    expected = (4 + 3 * (0.5 + (1 - math.log(2)) / 2)) / 4
    assert float(vae_loss(images, decoded, mean, log_variance, beta=3.0)) == pytest.approx(expected)


def test_objectives_are_the_papers() -> None:
    vaal = strategy(adversarial=0.7)
    vaal.networks.eval()  # batch norm would see another batch
    one, other = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)

    def bce(images: torch.Tensor, target: float) -> torch.Tensor:
        p = vaal.networks.judge(vaal.networks.encode(images)[0]).sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    torch.testing.assert_close(vaal.discriminator_objective(one, other), bce(one, 1) + bce(other, 0))
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    expected = 0.7 * (bce(one, 1) + bce(other, 1))
    for images, part in ((one, noise[:3]), (other, noise[3:])):
        mean, log_variance = vaal.networks.encode(images)
        decoded = vaal.networks.decode(mean + part * (log_variance / 2).exp(), 8)
        expected = expected + vae_loss(images, decoded, mean, log_variance, 1.0)
    torch.testing.assert_close(vaal.vae_objective(one, other, torch.Generator().manual_seed(3)), expected)


def test_networks_that_diverge_are_told(trainer: Any) -> None:
    pool = PoolDataModule(Digits(batch_size=64), steps_per_epoch=3)
    with pytest.raises(ValueError, match=r"`VAAL`: the loss of its own networks is (nan|inf); lower its `lr=0\.0005`"):
        trainer(max_epochs=1, callbacks=[VAAL(beta=1e99)]).fit(Classifier(10, ConvNet(width=4)), datamodule=pool)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (30, 3), (32, 3), (64, 3)])
def test_every_size_is_encoded_and_decoded(size: int, channels: int) -> None:
    networks = VAEAndDiscriminator(channels, size, 5, 4)
    mean, _ = networks.encode(torch.randn(2, channels, size, size))
    assert mean.shape == (2, 5)
    assert networks.decode(mean, size).shape == (2, channels, size, size)


class Kinds(Digits):
    """Bright and dark images; the initial labels are of dark ones only."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        half = len(self.train_indices) // 2
        assert self.train_samples is not None
        pictures = self.train_samples.inputs  # type: ignore[attr-defined]
        pictures[self.train_indices[:half]] //= 4


def test_what_is_unlike_the_labelled_is_asked_for(trainer: Any) -> None:
    from ssl_lightning.labelling import INITIAL, LabelStore, Query

    data, store = Kinds(batch_size=32), LabelStore()
    data.setup("fit")
    dark = set(data.train_indices[: len(data.train_indices) // 2].tolist())
    targets, keys = data.train_samples.targets, data.train_samples.keys  # type: ignore[union-attr]
    asked = [Query(keys[index], str(int(targets[index]))) for index in sorted(dark)[:60]]
    store.add_round(INITIAL, "initial", 0, asked, "test")
    pool = PoolDataModule(data, steps_per_epoch=150, store=store)
    vaal = VAAL(query_size=40, latent_dim=8, width=8)
    fit = trainer(max_epochs=1, callbacks=[vaal])
    fit.fit(Classifier(10, ConvNet(width=4)), datamodule=pool)
    picks = pool.asked(0)
    assert len(picks) == 40
    assert sum(index not in dark for index in picks) > 36
    assert float(fit.callback_metrics["active/vaal_discriminator"]) < 2 * math.log(2)


@pytest.mark.parametrize("views", [None, RandomView(flip=0.0, jitter=(0, 0, 0, 0), grayscale=0.0)])
def test_labels_drawn_at_random_cannot_be_told(views: Any, trainer: Any) -> None:
    """Both halves are normalised alike, once: the discriminator's loss stays near that of not knowing, 2 log 2."""
    losses: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            losses.append(float(trainer.callback_metrics["active/vaal_discriminator"]))

    pool = PoolDataModule(Digits(batch_size=64), initial=500, steps_per_epoch=150)
    vaal = VAAL(query_size=5, latent_dim=8, width=8)
    fit = trainer(max_epochs=1, callbacks=[vaal, Watch()])
    fit.fit(Classifier(10, ConvNet(width=4), views=views), datamodule=pool)
    assert sum(losses[50:]) / 100 == pytest.approx(2 * math.log(2), abs=0.06)


def test_resumed_it_is_bit_equal(trainer: Any, tmp_path: Path) -> None:
    def run(callbacks: list[L.Callback], ckpt_path: Path | None) -> VAAL:
        L.seed_everything(3, verbose=False)
        vaal = VAAL(query_size=5, latent_dim=4, width=4)
        pool = PoolDataModule(Digits(batch_size=32), steps_per_epoch=4)
        with contextlib.suppress(Stop):
            trainer(max_epochs=2, callbacks=[vaal, *callbacks]).fit(
                Classifier(10, ConvNet(width=4)), datamodule=pool, ckpt_path=ckpt_path
            )
        return vaal

    whole, path = run([], None), tmp_path / "killed.ckpt"
    run([Killer(3, path)], None)
    resumed = run([], path)
    for key, value in whole.networks.state_dict().items():
        assert torch.equal(value, resumed.networks.state_dict()[key]), key


def averaged(rank: int, world: int) -> Any:
    vaal = strategy()
    vaal.networks.eval()  # batch norm sees each process's half
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 8, 1, 8, 8, generator=generator)
    part = slice(rank * 8 // world, (rank + 1) * 8 // world)
    vaal._descend(vaal.discriminator_objective(one[part], other[part]), vaal.optimizers[1])
    return [copy.deepcopy(p.detach()) for p in vaal.networks.discriminator.parameters()]


def test_two_processes_descend_as_one(tmp_path: Path) -> None:
    alone = averaged(0, 1)
    for weights in spawn(averaged, 2, tmp_path):
        for one, other in zip(alone, weights, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
