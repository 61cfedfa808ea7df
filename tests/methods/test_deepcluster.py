"""The loop of DeepCluster: clusters, pseudo-labels, head, sampling; what is saved; and on two processes."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from support import spawn

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import DeepCluster, SimCLR
from ssl_lightning.methods.deepcluster import nmi, whiten


def test_whitening_is_scikit_learns() -> None:
    rows = torch.randn(200, 12) @ torch.randn(12, 12)
    reference = PCA(5, whiten=True).fit_transform(rows.double().numpy())
    reference = torch.from_numpy(reference / np.linalg.norm(reference, axis=1, keepdims=True))
    ours = whiten(rows, 5).double()
    torch.testing.assert_close(ours @ ours.T, reference @ reference.T, rtol=1e-4, atol=1e-4)  # up to signs and order


def test_whitening_leaves_out_dimensions_without_variance() -> None:
    rows = torch.cat([torch.randn(50, 3), torch.zeros(50, 4)], dim=1)
    assert whiten(rows, 6).shape == (50, 3)


@pytest.mark.parametrize("scale", [1e-8, 1e-20, 1e12])
def test_whitening_does_not_hang_on_the_scale(scale: float) -> None:
    rows = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    one, other = whiten(rows, 5), whiten(rows.double() * scale, 5)
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-4, atol=1e-5)


def test_whitening_keeps_all_components_beside_an_outlier() -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    rows[3] *= 1e5
    found = whiten(rows, 16)
    assert found.shape == (500, 16)
    reference = torch.from_numpy(PCA(16, whiten=True).fit_transform(rows.double().numpy()))
    reference = torch.nn.functional.normalize(reference, dim=1).float()
    torch.testing.assert_close(found @ found.T, reference @ reference.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_whitening_leaves_out_what_float32_makes_of_no_variance(offset: float) -> None:
    """Seven columns that are mixtures of three, far from the origin too; and of one row there is none."""
    draws = torch.Generator().manual_seed(0)
    mixed = torch.randn(400, 3, generator=draws) @ torch.randn(3, 7, generator=draws) + offset
    assert whiten(mixed, 7).shape == (400, 3)
    assert whiten(mixed[:1].expand(50, -1), 7).shape == (50, 0)


class Dead(ConvNet):
    """Encodes everything as the same."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(images) + 3


def test_a_dead_encoder_is_named(trainer: Any) -> None:
    with pytest.raises(ValueError, match="all training samples have the same features, and no clusters"):
        trainer(max_steps=1).fit(DeepCluster(Dead(width=4), clusters=5), datamodule=Digits())


def test_nmi_of_equal_and_independent_partitions() -> None:
    one = torch.arange(1000) % 4
    assert nmi(one, (one + 1) % 4) == pytest.approx(1.0)
    assert nmi(one, (torch.arange(1000) // 4) % 2) == pytest.approx(0.0, abs=1e-6)


class Watch(L.Callback):
    """Keeps what the method learnt from, and the head at the start and end of every epoch."""

    def __init__(self) -> None:
        self.clusters: list[torch.Tensor] = []
        self.heads: list[torch.Tensor] = []
        self.drawn: list[torch.Tensor] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.clusters.append(module.assignments.clone())
            self.heads.append(module.head.weight.detach().clone())
            self.drawn.append(torch.empty(0, dtype=torch.int64))
        self.drawn[-1] = torch.cat([self.drawn[-1], module.assignments[batch.index]])

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})


@pytest.fixture
def watched(trainer: Any) -> tuple[Watch, DeepCluster, Digits]:
    watch, data = Watch(), Digits(batch_size=64)
    model = DeepCluster(ConvNet(width=8), clusters=20, every_n_epochs=2, optimizer=OptimizerSpec(lr=3e-3))
    trainer(max_epochs=4, callbacks=[watch]).fit(model, datamodule=data)
    return watch, model, data


def test_clusters_change_when_due_and_the_head_starts_afresh(watched: Any) -> None:
    watch, model, data = watched
    assert torch.equal(watch.clusters[0], watch.clusters[1])
    assert not torch.equal(watch.clusters[1], watch.clusters[2])
    assert torch.equal(watch.clusters[2], watch.clusters[3])
    spreads = [float(head.std()) for head in watch.heads]
    assert spreads[0] == pytest.approx(0.01, rel=0.2)
    assert spreads[1] > 1.5 * spreads[0]
    assert spreads[2] == pytest.approx(0.01, rel=0.2)
    inside = torch.zeros(len(model.assignments), dtype=torch.bool)
    inside[data.train_indices] = True
    assert ((model.assignments >= 0) == inside).all()


def test_every_cluster_is_drawn_alike(watched: Any) -> None:
    """Whatever its size: the chi-squared statistic is that of even draws, which the sizes are far from."""
    watch, _, data = watched
    sizes = torch.bincount(watch.clusters[0][data.train_indices], minlength=20).float()
    drawn = torch.bincount(watch.drawn[0], minlength=20).float()
    expected = drawn.sum() / 20

    def statistic(counts: torch.Tensor) -> float:
        return float(((counts - expected) ** 2 / expected).sum())

    assert statistic(drawn) < 44  # 19 degrees of freedom, p = 0.001
    assert statistic(sizes / sizes.sum() * drawn.sum()) > 44


def test_stability_and_labels_are_logged(watched: Any) -> None:
    watch, _, _ = watched
    assert 0.2 < watch.metrics[0]["train/nmi_labels"] <= 1
    assert 0.2 < watch.metrics[2]["train/nmi_previous"] < 1
    assert "train/nmi_previous" not in watch.metrics[0]
    assert watch.metrics[0]["train/clusters_used"] == 20


def test_the_checkpoint_holds_the_clusters(watched: Any, trainer: Any, tmp_path: Path) -> None:
    _, model, _ = watched
    model.trainer.save_checkpoint(tmp_path / "c.ckpt")
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert torch.equal(saved["clusters"]["assignments"], model.assignments)
    assert saved["clusters"]["clustered_at"] == 2


@pytest.mark.long
def test_it_learns_the_digits(trainer: Any) -> None:
    """Its clusters agree with the labels better at the end than those of the untrained network."""
    watch = Watch()
    L.seed_everything(0, verbose=False)
    model = DeepCluster(ConvNet(width=16), clusters=20, every_n_epochs=3, optimizer=OptimizerSpec(lr=3e-3))
    trainer(max_epochs=13, callbacks=[watch]).fit(model, datamodule=Digits(batch_size=64))
    found = [row["train/nmi_labels"] for row in watch.metrics]
    assert found[12] > found[0] + 0.02


def test_without_a_data_module_it_says_so(trainer: Any) -> None:
    data = Digits()
    data.setup("fit")
    with pytest.raises(ValueError, match="`DeepCluster` looks at all training samples, and so needs a data module"):
        trainer(max_steps=1).fit(DeepCluster(ConvNet(width=4)), data.train_dataloader())


def test_too_many_clusters_are_named(trainer: Any) -> None:
    with pytest.raises(ValueError, match=r"`clusters=2000` exceeds the 1132 training samples"):
        trainer(max_steps=1).fit(DeepCluster(ConvNet(width=4), clusters=2000), datamodule=Digits())


def clusters(rank: int, world: int) -> torch.Tensor:
    """Fit in one of some processes that are there; return the first clustering that it learnt from."""
    if world > 1:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    L.seed_everything(0, verbose=False)
    model = DeepCluster(ConvNet(), clusters=20, every_n_epochs=2)
    L.Trainer(
        max_epochs=2, accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(model, datamodule=Digits(batch_size=64))  # fmt: skip
    return model.assignments.clone()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_processes_have_the_same_clusters(tmp_path: Path) -> None:
    """The first clustering is that of one process, and both learn from it."""
    alone = clusters(0, 1)
    for found in spawn(clusters, 2, tmp_path):
        assert torch.equal(found, alone)


def test_other_methods_draw_as_before(trainer: Any) -> None:
    """Only DeepCluster asks for groups."""
    data = Digits(batch_size=64)
    trainer(max_steps=1).fit(SimCLR(ConvNet(width=4)), datamodule=data)
    indices = list(data.train_dataloader().sampler)  # type: ignore[arg-type]
    assert len(set(indices)) == len(indices)
