"""VAAL: its losses, its signs, resumed, on two processes."""

import contextlib
import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from methods.test_base import Killer, Stop
from support import some, spawn
from torch import Tensor, nn

from ssl_lightning.active import VAAL, PoolDataModule, Random
from ssl_lightning.active.vaal import VAEAndDiscriminator, VectorVAEAndDiscriminator, form_of, vae_loss
from ssl_lightning.backbones import MLP, ConvNet, Flat, RowNet
from ssl_lightning.data import DataModule, Digits, Samples, TensorSamples
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.testing import check_strategy
from ssl_lightning.transforms.image import RandomView
from ssl_lightning.transforms.padded import Padded, inside, masked_mean
from ssl_lightning.transforms.vectors import Row


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


@pytest.mark.long
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
    weights = []
    generator = torch.Generator().manual_seed(1)
    for vaal, shape in ((strategy(), (1, 8, 8)), (of_vectors(), (5,))):
        vaal.networks.eval()  # batch norm sees each process's half
        one, other = torch.randn(2, 8, *shape, generator=generator)
        part = slice(rank * 8 // world, (rank + 1) * 8 // world)
        vaal._descend(vaal.discriminator_objective(one[part], other[part]), vaal.optimizers[1])
        weights += [copy.deepcopy(p.detach()) for p in vaal.networks.discriminator.parameters()]
    return weights


def test_two_processes_descend_as_one(tmp_path: Path) -> None:
    alone = averaged(0, 1)
    for weights in spawn(averaged, 2, tmp_path):
        for one, other in zip(alone, weights, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def of_vectors() -> VAAL:
    vaal = VAAL(latent_dim=4, width=4)
    torch.manual_seed(0)
    vaal.networks = VectorVAEAndDiscriminator(5, 4, 16)
    judge = list(vaal.networks.discriminator.parameters())
    others = [*vaal.networks.encoder.parameters(), *vaal.networks.decoder.parameters()]
    vaal.optimizers = [torch.optim.Adam(others, 1e-3), torch.optim.Adam(judge, 1e-3)]
    return vaal


def test_vectors_have_the_papers_objective_on_one_scale() -> None:
    vaal = of_vectors()
    vaal.networks.train()
    rows = torch.randn(40, 5) * torch.tensor([1.0, 1e4, 1e-3, 0.0, 1.0]) + 3
    scaled = vaal.networks.scaled(rows)
    assert scaled.mean(dim=0).tolist() == pytest.approx([0.0] * 5, abs=1e-3)
    assert scaled.std(dim=0, correction=0)[[0, 1, 4]].tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    vaal.networks.eval()
    made = vaal.networks.scaled(rows)
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    mean, log_variance = vaal.networks.encode(made)
    decoded = vaal.networks.decode(mean + noise * (log_variance / 2).exp(), 0)
    error = (made - decoded).pow(2).sum(dim=1)
    divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(dim=1)
    fooled = -vaal.networks.judge(mean).sigmoid().log().mean()
    expected = 2 * ((error + divergence).mean() / 5 + fooled)
    found = vaal.vae_objective(rows[:20], rows[20:], torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    alone = torch.cat([vaal.networks.scaled(rows[n : n + 1]) for n in range(40)])
    torch.testing.assert_close(alone, made)


class Pair(NamedTuple):
    """An image and a text."""

    image: Tensor
    text: Padded


class Toy(DataModule):
    """Two clusters of vectors, and the same as other forms of input; the label is the cluster."""

    num_classes = 2

    def __init__(self, form: str, count: int = 120) -> None:
        super().__init__(batch_size=16, val_size=0)
        self.form, self.count = form, count

    def load(self, split: str) -> Samples:
        generator, count = torch.Generator().manual_seed(len(split)), self.count
        target = torch.arange(count) % 2
        rows = torch.randn(count, 6, generator=generator) + 4 * target[:, None]
        keys = [f"{split}-{place:03d}" for place in range(count)]
        length = torch.randint(1, 7, (count,), generator=generator)
        tokens = Padded((rows.clamp(0, 7).long() + 1) * inside(length, 6), length)
        made = {
            "vectors": rows, "rows": Row(rows, target[:, None] + 1), "whole numbers": tokens.values,
            "pairs": Pair((rows * 20 + 60).clamp(0, 255).to(torch.uint8).view(count, 1, 2, 3), tokens),
        }  # fmt: skip
        if self.form == "sequences":
            values = rows[:, :, None].expand(count, 6, 3)[inside(length, 6)]
            return RaggedSamples(values, length, target, keys)
        return TensorSamples(made[self.form], target, keys)


class Net(nn.Module):
    """Takes any form of the toy."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 8
        self.rest = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, inputs: Any) -> Tensor:
        if isinstance(inputs, Pair):
            inputs = inputs.image.flatten(1).float() / 100 + inputs.text.values.float().sum(1, keepdim=True) / 50
        elif isinstance(inputs, Padded):
            mean = masked_mean(inputs.values, inside(inputs.length, inputs.values.shape[1]))
            inputs = torch.cat([mean, mean], dim=1)
        return self.rest(inputs.float())  # type: ignore[no-any-return]


MODELS: dict[str, Any] = {
    "vectors": lambda: MLP(6, width=8), "rows": lambda: RowNet(6, [3], width=8), "whole numbers": Net,
    "pairs": Net, "sequences": Net,
}  # fmt: skip


@pytest.mark.parametrize("form", some(MODELS, "rows", "pairs"))
def test_every_form_of_input_is_chosen_from(form: str) -> None:
    """The same picks for batches of 1, 7 and 256, by the same seed, and the model left as it was."""
    check_strategy(
        lambda: VAAL(query_size=5, latent_dim=4, width=4), lambda: Toy(form), lambda n: Classifier(n, MODELS[form]())
    )


def test_forms_are_told_by_their_shape_alone() -> None:
    assert form_of(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)) == "images"
    assert form_of(torch.zeros(2, 3)) == "vectors"
    padded = Padded(torch.zeros(2, 3), torch.ones(2))
    for other in (torch.zeros(2, 3).long(), torch.zeros(2, 3, 4), torch.zeros(2, 1, 8, 4), padded, Row(*padded)):
        assert form_of(other) == "embeddings"


@pytest.mark.parametrize("form", ["vectors", "pairs"])
def test_the_task_model_learns_as_without_it(form: str, trainer: Any) -> None:
    """Embeddings are taken without a gradient, a trace in the statistics, or a draw from the global random state."""
    weights = []
    for kind in (Random, VAAL):
        L.seed_everything(1, verbose=False)
        model = Classifier(2, MODELS[form](), dropout=0.2)
        pool = PoolDataModule(Toy(form), initial=16, steps_per_epoch=6)
        trainer(max_epochs=1, callbacks=[kind(query_size=5)]).fit(model, datamodule=pool)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("form", ["vectors", "sequences"])
def test_what_is_unlike_the_labelled_is_asked_for_in_any_form(form: str, trainer: Any) -> None:
    from ssl_lightning.labelling import INITIAL, LabelStore, Query

    data, store = Toy(form, 400), LabelStore()
    data.setup("fit")
    samples = data.train_samples
    assert samples is not None
    asked = [Query(samples.keys[place], "0") for place in range(0, 200, 2)]
    store.add_round(INITIAL, "initial", 0, asked, "test")
    pool = PoolDataModule(data, steps_per_epoch=120, store=store)
    vaal = VAAL(query_size=20, latent_dim=4, width=8, lr=1e-3)
    # sequences by the embeddings of an encoder that does not learn: what is alike stays so
    net = Flat(6) if form == "vectors" else Net().requires_grad_(False)
    trainer(max_epochs=1, callbacks=[vaal]).fit(Classifier(2, net), datamodule=pool)
    assert float(samples.targets[pool.asked(0)].float().mean()) > 0.9, "two thirds by chance"


def test_resumed_it_is_bit_equal_with_embeddings(trainer: Any, tmp_path: Path) -> None:
    def run(callbacks: list[L.Callback], ckpt_path: Path | None) -> VAAL:
        L.seed_everything(3, verbose=False)
        vaal = VAAL(query_size=5, latent_dim=4, width=4)
        with contextlib.suppress(Stop):
            trainer(max_epochs=2, callbacks=[vaal, *callbacks]).fit(
                Classifier(2, RowNet(6, [3], width=8)),
                datamodule=PoolDataModule(Toy("rows"), initial=16, steps_per_epoch=4),
                ckpt_path=ckpt_path,
            )
        return vaal

    whole, path = run([], None), tmp_path / "killed.ckpt"
    run([Killer(3, path)], None)
    resumed = run([], path)
    for key, value in whole.networks.state_dict().items():
        assert torch.equal(value, resumed.networks.state_dict()[key]), key
