"""Generative adversarial networks: losses by hand, two players in one step, what is saved and drawn."""

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, logsigmoid

from ssl_lightning.__main__ import main
from ssl_lightning.backbones import ConvNet, plain
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.commands.sample import draw, load_method
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import GAN, SSGAN, VAE, Inpainting, SimCLR

BATCH = Batch(torch.zeros(0), torch.zeros(8), torch.zeros(8))


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (GAN, SSGAN, Inpainting):
        monkeypatch.setattr(kind, "log_dict", lambda *args, **kwargs: None)


def players(model: Any) -> tuple[list[Any], list[Any]]:
    generator = list(model.decoder.parameters())
    theirs = {id(parameter) for parameter in generator}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in theirs]
    return generator, others


@pytest.mark.parametrize("kind", [GAN, SSGAN])
@pytest.mark.parametrize("loss", ["hinge", "non-saturating"])
@pytest.mark.parametrize("spectral", [True, False])
def test_each_player_gets_the_gradient_of_its_own_loss(kind: Any, loss: Any, spectral: bool) -> None:
    """Of two losses with two backward passes, in evaluation mode, so that batch norm is a constant."""
    torch.manual_seed(0)
    model = kind(ConvNet(width=4), image_size=8, width=4, latent_dim=6, loss=loss, spectral=spectral).eval()
    real = torch.randn(8, 1, 8, 8)
    noise = torch.randn(8, 6, generator=model.local_generator("noise"))
    pixels = model.decoder(noise).sigmoid()
    made = (pixels - torch.tensor(model.clean.mean)) / torch.tensor(model.clean.std)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return model.head(model.backbone(images))[:, 0]  # type: ignore[no-any-return]

    if loss == "hinge":
        telling = (1 - judge(real)).clamp(min=0).mean() + (1 + judge(made.detach())).clamp(min=0).mean()
        deceiving = -judge(made).mean()
    else:
        telling = -logsigmoid(judge(real)).mean() - logsigmoid(-judge(made.detach())).mean()
        deceiving = -logsigmoid(judge(made)).mean()
    if kind is SSGAN:
        for quarter in range(4):  # two images of eight are turned
            label = torch.tensor([quarter, quarter])
            for images, weight, player in ((real, 1.0, 0), (made, 0.2, 1)):
                turned = torch.rot90(images[:2], quarter, (2, 3))
                part = weight * cross_entropy(model.rotation_head(model.backbone(turned)), label) / 4
                if player == 0:
                    telling = telling + part
                else:
                    deceiving = deceiving + part
    total = model.compute_loss([real], BATCH)["loss"]
    torch.testing.assert_close(total, telling + deceiving)
    generator, discriminator = players(model)
    for weights, own in ((generator, deceiving), (discriminator, telling)):
        got = torch.autograd.grad(total, weights, retain_graph=True)
        for one, other in zip(got, torch.autograd.grad(own, weights, retain_graph=True), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [GAN, SSGAN])
def test_the_generator_is_judged_as_the_discriminator_judges(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode, where batch norm sees the whole batch: both losses are of the same verdicts on made images."""
    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(kind, "log_dict", lambda self, values, **_: logged.update(values))
    torch.manual_seed(0)
    model = kind(ConvNet(width=4), image_size=8, spectral=False)
    told: list[torch.Tensor] = []
    model.head.register_forward_hook(lambda _, inputs, output: told.append(output.detach()[:, 0]))
    model.compute_loss([3 * torch.randn(8, 1, 8, 8)], BATCH)
    real, fake, made = told
    torch.testing.assert_close(made, fake)
    assert float(logged["train/generator"]) == pytest.approx(-float(fake.mean()), rel=1e-5)
    assert float(logged["train/discriminator"]) == pytest.approx(
        float((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()), rel=1e-5
    )


def test_running_statistics_are_those_of_real_images() -> None:
    torch.manual_seed(0)
    model = SSGAN(ConvNet(width=4), image_size=8, spectral=False)
    alone = ConvNet(width=4)
    alone.load_state_dict(model.backbone.state_dict())
    real = torch.randn(8, 1, 8, 8)
    model.compute_loss([real], BATCH)
    alone(real)
    for (name, mine), theirs in zip(model.backbone.named_buffers(), alone.buffers(), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(mine, theirs, msg=name)


def test_spectral_norm_is_one_and_folded_where_the_backbone_is_opened(trainer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GAN(ConvNet(width=4), image_size=8)
    fit = trainer(max_epochs=2)
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "gan.ckpt")
    model.eval()
    opened = Checkpoint.open(tmp_path / "gan.ckpt").backbone.eval()
    assert type(opened) is ConvNet
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(opened(images), model.backbone(images))
    for key, value in plain(model.backbone.state_dict()).items():
        if value.ndim > 1:
            largest = torch.linalg.matrix_norm(value.flatten(1), 2)
            assert 0.9 < float(largest) < 1.2, key  # one power iteration a step follows the weights


def test_average_follows_the_generator(trainer: Any) -> None:
    """Soon at first, so that it forgets its random start; by `average` from then on."""
    momenta = iter([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3])

    class Watch(GAN):
        def after_step(self) -> None:
            before = [weight.clone() for weight in self.average.parameters()]
            super().after_step()
            m = next(momenta)
            for old, new, now in zip(before, self.average.parameters(), self.decoder.parameters(), strict=True):
                torch.testing.assert_close(new, m * old + (1 - m) * now)

    model = Watch(ConvNet(width=4), image_size=8, width=4, average=0.3)
    trainer(max_steps=5, accumulate_grad_batches=2).fit(model, datamodule=Digits(batch_size=64))
    assert next(momenta, None) is None


@pytest.mark.parametrize("kind", [GAN, SSGAN, VAE])
def test_sample_command(kind: Any, trainer: Any, tmp_path: Path, capsys: Any) -> None:
    """Equal to the method's own samples; the same again for the same seed."""
    torch.manual_seed(0)
    model = kind(ConvNet(width=4), image_size=8, width=4, latent_dim=5)
    fit = trainer(max_steps=2)
    fit.fit(model, datamodule=Digits(batch_size=64))
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    fit.save_checkpoint(path)
    assert main(["sample", str(path), "--count", "10", "--seed", "3"]) == 0
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in files] == [*(f"{number:05d}.png" for number in range(10)), "grid.png"]
    wanted = draw(model.eval(), 10, 3)
    for file, pixels in zip(files, wanted, strict=False):
        assert torch.equal(torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8), pixels.flatten())
    assert torch.equal(draw(load_method(str(path)), 10, 3), wanted)
    assert not torch.equal(draw(model, 10, 4), wanted)
    assert "wrote 10 images" in capsys.readouterr().out


def test_mistakes_are_named(trainer: Any, tmp_path: Path, capsys: Any) -> None:
    fit = trainer(max_steps=1)
    fit.fit(SimCLR(ConvNet(width=4)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "simclr.ckpt")
    assert main(["sample", str(tmp_path / "simclr.ckpt")]) == 2
    assert "`SimCLR` makes no new images" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "nothing.ckpt")]) == 2
    assert "is no file" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "simclr.ckpt"), "--count", "0"]) == 2
    assert "`count=0`" in capsys.readouterr().err
    with pytest.raises(ValueError, match="`width=0` must be at least 1"):
        GAN(ConvNet(), width=0)
    with pytest.raises(ValueError, match="`clean=Identity` cannot be undone"):
        GAN(ConvNet(), clean=torch.nn.Identity()).sample(1, torch.Generator())
    with pytest.raises(ValueError, match="`average=1` must be from 0 to below 1"):
        GAN(ConvNet(), average=1)
    with pytest.raises(ValueError, match=r"`alpha=-1` must be at least 0"):
        SSGAN(ConvNet(), alpha=-1)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_clipping_with_and_without_a_second_player(algorithm: str, adversarial: float, trainer: Any) -> None:
    model = Inpainting(ConvNet(width=4), image_size=8, adversarial=adversarial)
    fit = trainer(max_steps=1, gradient_clip_val=1e-4, gradient_clip_algorithm=algorithm)
    fit.fit(model, datamodule=Digits(batch_size=64))
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    assert 0 < largest <= 1.0001e-4


@pytest.mark.parametrize(
    ("make", "own"),
    [
        (lambda spec: SSGAN(ConvNet(width=4), image_size=8, optimizer=spec), "decoder"),
        (lambda spec: Inpainting(ConvNet(width=4), image_size=8, adversarial=0.1, optimizer=spec), "discriminator"),
    ],
    ids=["SSGAN", "Inpainting"],
)
def test_each_player_is_clipped_by_itself_also_when_accumulating(make: Any, own: str, trainer: Any) -> None:
    """The gradients that a step was taken with are still there after it: of both players, of just the norm allowed."""

    class Norms(L.Callback):
        found: ClassVar[list[float]] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
            if (args[-1] + 1) % 2 == 0:
                mine = {id(weight) for weight in getattr(pl_module, own).parameters()}
                for player in (True, False):
                    grads = [p.grad for p in pl_module.parameters() if p.grad is not None and (id(p) in mine) == player]
                    self.found.append(float(torch.nn.utils.get_total_norm(grads)))

    Norms.found.clear()
    model = make(OptimizerSpec("adamw", momentum=0.5))
    fit = trainer(max_steps=3, gradient_clip_val=1e-3, accumulate_grad_batches=2, callbacks=[Norms()])
    fit.fit(model, datamodule=Digits(batch_size=64))
    assert fit.global_step == 3
    assert Norms.found == pytest.approx([1e-3] * 6, rel=1e-2)
    assert model.configure_optimizers()["optimizer"].param_groups[0]["betas"] == (0.5, 0.999)
