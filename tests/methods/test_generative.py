"""Autoencoders: formulas by hand, reconstructions, pictures."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from support import ColourDigits, LargeDigits
from torch.distributions import Normal, kl_divergence

from ssl_lightning.backbones import ConvNet, ViT
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.evaluation import Pictures
from ssl_lightning.functional.losses import gaussian_divergence
from ssl_lightning.methods import (
    GAN,
    MAE,
    SSGAN,
    VAE,
    Autoencoder,
    Colorization,
    Inpainting,
    Jigsaw,
    RelativePosition,
    Rotation,
    SimCLR,
    SimMIM,
)
from ssl_lightning.networks.decoders import ConvDecoder

BATCH = Batch(torch.zeros(0), torch.zeros(5), torch.zeros(5))


@pytest.mark.parametrize(("size", "channels"), [(4, 1), (8, 3), (28, 1), (32, 3), (50, 1), (64, 3)])
def test_decoder_makes_any_size(size: int, channels: int) -> None:
    assert ConvDecoder(10, channels, size, width=4)(torch.randn(3, 10)).shape == (3, channels, size, size)


def test_autoencoder_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Autoencoder(ConvNet(width=4), image_size=8, noise=0.7).eval()
    images = torch.randn(5, 1, 8, 8)
    noise = torch.randn(5, 1, 8, 8, generator=model.local_generator("noise"))
    decoded = model.decoder(model.bottleneck(model.backbone(images + 0.7 * noise)))
    expected = ((decoded - images) ** 2).sum() / (5 * 64)  # the clean image is the target
    torch.testing.assert_close(model.compute_loss([images], BATCH)["loss"], expected)


def test_divergence_is_torchs() -> None:
    mean, log_variance = torch.randn(20, 6), torch.randn(20, 6)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)


def test_bound_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own densities; and with numbers: one pixel value off by one at deviation 1, a mean of 2."""
    logged: dict[str, float] = {}
    monkeypatch.setattr(VAE, "log_dict", lambda self, values, **_: logged.update(values))
    model = VAE(ConvNet(width=4), image_size=8, latent_dim=3, beta=4.0, deviation=0.3).eval()
    images = torch.randn(5, 1, 8, 8)
    mean, log_variance = model.encode(model.backbone(images))
    posterior = Normal(mean, (0.5 * log_variance).exp())
    noise = torch.randn(5, 3, generator=model.local_generator("latent"))
    decoded = model.decoder(posterior.mean + posterior.stddev * noise)
    likelihood = Normal(decoded, 0.3).log_prob(images).sum(dim=(1, 2, 3)).mean()
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1).mean()
    loss = model.compute_loss([images], BATCH)["loss"]
    torch.testing.assert_close(loss, (4 * divergence - likelihood) / 64)
    assert float(logged["train/elbo"]) == pytest.approx(float(likelihood - divergence), rel=1e-5)
    unit = VAE(ConvNet(width=4), image_size=8, deviation=1.0)
    one = unit.log_likelihood(torch.zeros(1, 1, 8, 8), torch.eye(8)[None, None] / 8**0.5)
    assert float(one) == pytest.approx(-0.5 - 32 * math.log(2 * math.pi))
    assert float(gaussian_divergence(torch.tensor([[2.0]]), torch.zeros(1, 1))) == pytest.approx(2.0)


def test_latents_of_the_data_fill_the_prior_so_that_draws_look_like_images(trainer: Any) -> None:
    """Where means keep another scale than the prior's, draws are decoded to pixels far beyond those of images."""
    data = Digits(batch_size=64)
    torch.manual_seed(0)
    model = VAE(ConvNet(width=16), image_size=8, latent_dim=8, optimizer=OptimizerSpec("adamw", lr=3e-3))
    trainer(max_epochs=5).fit(model, datamodule=data)
    images = model.clean(data.train_samples.__getitems__(data.train_indices.tolist()).input)  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():
        mean, log_variance = model.encode(model.embed(images))
        second = (mean.pow(2) + log_variance.exp()).mean(dim=0)  # 1 for the prior
        drawn = model.sample(500, torch.Generator().manual_seed(0))
    assert float(second.min()) > 0.5
    assert float(second.max()) < 2
    assert 0.7 < float(drawn.std() / images.std()) < 1.2


@pytest.mark.long
@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_reconstructions_are_nearer_than_the_mean_image(kind: Any, trainer: Any) -> None:
    data = Digits(batch_size=64)
    options = {"deviation": 0.2} if kind is VAE else {}
    model = kind(ConvNet(width=16), image_size=8, optimizer=OptimizerSpec("adamw", lr=5e-3), **options)
    trainer(max_epochs=12).fit(model, datamodule=data)
    images = model.clean(data.train_samples.__getitems__(data.val_indices.tolist()).input)  # type: ignore[union-attr]
    others = model.clean(data.train_samples.__getitems__(data.train_indices.tolist()).input)  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():
        found = model.pictures(images, torch.Generator().manual_seed(0))
    error = (found["reconstructed"] - images).pow(2).mean()
    assert error < 0.5 * (others.mean(dim=0) - images).pow(2).mean()


@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (lambda: Autoencoder(ConvNet(width=4), image_size=8), 2),
        (lambda: Autoencoder(ConvNet(width=4), image_size=8, noise=0.5), 3),
        (lambda: VAE(ConvNet(width=4), image_size=8), 3),
        (lambda: Rotation(ConvNet(width=4)), 2),
        (lambda: Jigsaw(ConvNet(width=4)), 3),
        (lambda: RelativePosition(ConvNet(width=4)), 3),
        (lambda: Inpainting(ConvNet(width=4), image_size=8), 3),
        (lambda: Colorization(ConvNet(3, width=4), image_size=8), 3),
        (lambda: MAE(ViT(1, 8, patch_size=2, dim=16, depth=1, heads=2)), 3),
        (lambda: SimMIM(ViT(1, 8, patch_size=2, dim=16, depth=1, heads=2)), 3),
        (lambda: GAN(ConvNet(width=4), image_size=8), 3),
        (lambda: SSGAN(ConvNet(width=4), image_size=8), 3),
    ],
)
def test_pictures_are_written_and_leave_no_trace(make: Any, rows: int, trainer: Any, tmp_path: Path) -> None:
    kinds: dict[Any, Any] = {Colorization: ColourDigits, RelativePosition: LargeDigits}

    def run(callbacks: list[Any], folder: Path) -> Any:
        torch.manual_seed(0)
        model = make()
        trainer(max_epochs=3, callbacks=callbacks, default_root_dir=folder, logger=CSVLogger(folder)).fit(
            model, datamodule=kinds.get(type(model), Digits)(batch_size=128, limit=500)
        )
        return model

    watched = run([Pictures(every_n_epochs=2, count=5)], tmp_path / "a")
    files = sorted(path.name for path in (tmp_path / "a" / "pictures").iterdir())
    assert files == ["epoch_001.png", "epoch_002.png"]
    sheet = Image.open(tmp_path / "a" / "pictures" / "epoch_001.png")
    assert sheet.size[1] % rows == 0
    assert sheet.size[0] == 5 * sheet.size[1] // rows
    assert 52 <= sheet.size[1] // rows <= 72
    alone = run([], tmp_path / "b")
    for key, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key


def test_solved_puzzles_and_turned_images_are_the_images() -> None:
    """With a head that knows the answer."""
    images = torch.randn(4, 1, 8, 8)
    model = Rotation(ConvNet(width=4)).eval()
    drawn = torch.randint(4, (4,), generator=torch.Generator().manual_seed(0))
    model.head.forward = lambda h: torch.nn.functional.one_hot(drawn, 4).float()  # type: ignore[method-assign]
    assert torch.equal(model.pictures(images, torch.Generator().manual_seed(0))["turned back"], images)
    puzzle = Jigsaw(ConvNet(width=4), gap=0).eval()
    drawn = torch.randint(24, (4,), generator=torch.Generator().manual_seed(0))
    puzzle.head.forward = lambda h: torch.nn.functional.one_hot(drawn, 24).float()  # type: ignore[method-assign]
    found = puzzle.pictures(images, torch.Generator().manual_seed(0))
    assert torch.equal(found["tiles"], images)
    assert torch.equal(found["solved"], images)
    assert not torch.equal(found["shuffled"], images)


def test_mistakes_are_named(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`channels=1` and `image_size=28` do not fit views of"):
        trainer(max_steps=1).fit(Autoencoder(ConvNet(width=4)), datamodule=Digits())
    with pytest.raises(ValueError, match="`SimCLR` has no pictures to draw"):
        trainer(max_steps=1, callbacks=[Pictures()]).fit(SimCLR(ConvNet(width=4)), datamodule=Digits())
    with pytest.raises(ValueError, match="`deviation=0` must be above 0"):
        VAE(ConvNet(width=4), deviation=0)
    with pytest.raises(ValueError, match="`every_n_epochs=0`"):
        Pictures(every_n_epochs=0)
    with pytest.raises(ValueError, match="`image_size=2` must be at least 4; smaller images cannot be decoded"):
        ConvDecoder(4, 1, 2)
