import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from support import equal_weights, spawn

from ssl_lightning.active import PoolDataModule
from ssl_lightning.backbones import Backbone, ConvNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.evaluation import KNN, CollapseMonitor, OnlineLinearProbe, effective_rank, knn_accuracy, spread
from ssl_lightning.evaluation.collapse import diagnose
from ssl_lightning.methods import SimCLR, SimSiam, VICReg
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import SimCLRViews


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (20, 0.5), (500, 0.1)])
def test_knn_agrees_with_scikit_learn(k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 6, generator=generator).double() for n in (100, 60))
    centres = torch.randn(3, 6, generator=generator).double()
    labels, truth = (torch.cdist(x, centres).argmin(dim=1) for x in (bank, queries))
    unit = lambda x: torch.nn.functional.normalize(x, dim=1).numpy()  # noqa: E731
    reference = KNeighborsClassifier(  # |a - b|^2 = 2 - 2 cos
        min(k, 100), weights=lambda distances: np.exp((1 - distances**2 / 2) / temperature), algorithm="brute"
    ).fit(unit(bank), labels)
    expected = float((reference.predict(unit(queries)) == truth.numpy()).mean())
    assert knn_accuracy(queries, truth, bank, labels, 3, k, temperature) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("offset", "scale"), [(3e3, 1), (1e6, 1), (0, 1e20), (0, 1e38), (0, 1e-30)])
def test_a_row_is_its_own_nearest_neighbour_at_any_offset_and_scale(offset: float, scale: float) -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) * scale + offset
    labels = torch.arange(500)
    assert knn_accuracy(rows, labels, rows, labels, 500, k=1) == 1.0
    assert spread(rows) > 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-3, float("nan")])
def test_knn_refuses_a_temperature_whose_weights_overflow(temperature: float) -> None:
    rows, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match=r"must be (a finite number )?at least 0\.02"):
        knn_accuracy(rows, labels, rows, labels, 3, 1, temperature)
    with pytest.raises(ValueError, match=r"must be (a finite number )?at least 0\.02"):
        KNN(temperature=temperature)
    rows = torch.cat([rows] * 100)  # many neighbours, all as near as can be, at the lowest that is allowed
    assert knn_accuracy(rows, labels.repeat(100), rows, labels.repeat(100), 3, 200, 0.02) == 1.0


def test_spread_of_even_and_collapsed_embeddings() -> None:
    even = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0))
    assert spread(even) == pytest.approx(1.0, abs=0.01)
    assert spread(torch.ones(50, 16) + 1e-4 * even[:50]) < 0.01


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_dimensions(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # far from the origin, normalising barely bends the plane
    flat = (
        torch.randn(4000, rank, generator=generator) @ torch.linalg.qr(torch.randn(32, rank, generator=generator))[0].T
    )
    offset = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0) * 1000
    assert effective_rank(flat + offset) == pytest.approx(rank, rel=0.15)


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    x = torch.nn.functional.normalize(torch.randn(40, 7).double(), dim=1)
    values = np.linalg.svd((x - x.mean(0)).numpy(), compute_uv=False)
    p = values / values.sum()
    assert effective_rank(x) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-6)


@pytest.mark.parametrize("offset", [1e5, 1e6, 1e8])
def test_effective_rank_far_from_the_origin(offset: float) -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert effective_rank(rows + offset) == pytest.approx(effective_rank(rows + 1e4), rel=0.01)
    assert effective_rank(rows * 1e-200) == pytest.approx(effective_rank(rows * 1e200))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_effective_rank_of_copies_is_0(kind: torch.dtype) -> None:
    row = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=kind)
    for count in (2, 77, 20_001):
        assert effective_rank(row.repeat(count, 1)) == 0.0
        assert effective_rank(row.repeat(count, 1) * (1 + torch.rand(count, 1, dtype=kind))) == 0.0


@pytest.mark.parametrize("callback", [KNN(k=3), OnlineLinearProbe()])
def test_judges_of_labels_watch_the_rounds_of_a_pool(callback: L.Callback, trainer: Any) -> None:
    pool = PoolDataModule(Digits(batch_size=64), steps_per_epoch=2)
    fit = trainer(max_epochs=1, callbacks=[callback])
    fit.fit(SimCLR(ConvNet(width=4)), datamodule=pool)
    assert {"val/knn_accuracy", "val/probe_accuracy"} & set(fit.callback_metrics)


def test_judges_of_labels_refuse_other_data(trainer: Any) -> None:
    class Other(L.LightningDataModule):
        data = None

    message = "`KNN` learns from labelled training samples, .* but there is a Other"
    with pytest.raises(ValueError, match=message):
        trainer(callbacks=[KNN()]).validate(SimCLR(ConvNet(width=4)), datamodule=Other(), verbose=False)


def test_callbacks_log_and_leave_the_method_alone(trainer: Any) -> None:
    def run(callbacks: list[L.Callback]) -> tuple[SimCLR, dict[str, Any]]:
        L.seed_everything(1, verbose=False)
        model = SimCLR(ConvNet(width=8))
        fit = trainer(max_epochs=3, callbacks=callbacks)
        fit.fit(model, datamodule=Digits(batch_size=128))
        return model, {key: float(value) for key, value in fit.callback_metrics.items()}

    watched, metrics = run([KNN(k=20), OnlineLinearProbe(), CollapseMonitor()])
    alone, _ = run([])
    assert equal_weights(watched, alone)
    assert metrics["val/knn_accuracy"] > 0.8
    assert metrics["val/probe_accuracy"] > 0.15
    assert 0 < metrics["val/embedding_std"] < 1
    assert 1 < metrics["val/effective_rank"] <= 32


def test_knn_callback_is_the_function_on_clean_embeddings(trainer: Any) -> None:
    data, model = Digits(batch_size=100), SimCLR(ConvNet(width=8))
    validation = trainer(callbacks=[KNN(k=7, temperature=0.2)])
    logged = validation.validate(model, datamodule=data, verbose=False)[0]["val/knn_accuracy"]
    model.eval()
    with torch.no_grad():
        assert data.train_samples is not None
        parts = []
        for indices in (data.val_indices, data.train_indices):
            batch = data.train_samples.__getitems__(indices.tolist())
            parts += [model.embed(model.clean(batch.input)), batch.target]
    assert logged == pytest.approx(knn_accuracy(*parts, 10, 7, 0.2), abs=1e-6)


def test_probe_is_in_the_checkpoint(trainer: Any, tmp_path: Path) -> None:
    def run(epochs: int, ckpt_path: Path | None = None) -> OnlineLinearProbe:
        L.seed_everything(1, verbose=False)
        probe = OnlineLinearProbe()
        fit = trainer(max_epochs=epochs, callbacks=[probe])
        fit.fit(SimCLR(ConvNet(width=4)), datamodule=Digits(batch_size=256), ckpt_path=ckpt_path)
        fit.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return probe

    class Constant(SimCLR):
        pass

    run(1)
    resumed = run(2, tmp_path / "1.ckpt")
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)
    assert not any("probe" in key for key in saved["state_dict"])
    assert "OnlineLinearProbe" in str(list(saved["callbacks"]))
    assert resumed.optimizer.state_dict()["state"][0]["step"] == 8  # 4 steps an epoch, both epochs counted


class Constant(Backbone):
    """A collapsed encoder: one embedding for all."""

    feature_dim = 8

    def __init__(self, rank: int) -> None:
        super().__init__(rank=rank)
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.rank = rank

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(len(images), 8)
        flat[:, : self.rank] = images.flatten(1)[:, 20 : 20 + self.rank]
        return self.weight * (flat + (self.rank == 0))


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (0, "all samples point almost the same way"),
        (2, r"dimensional collapse of the embedding: .* Now: .* [12]\.\d of 8 dimensions in use"),
    ],
)
def test_collapse_is_said_in_words(rank: int, words: str, trainer: Any) -> None:
    model = SimCLR(Constant(rank))
    with pytest.warns(UserWarning, match=words):
        trainer(callbacks=[CollapseMonitor()]).validate(model, datamodule=Digits(), verbose=False)


def test_no_warning_for_a_healthy_encoder(trainer: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*collapse.*")
        trainer(callbacks=[CollapseMonitor()]).validate(SimCLR(ConvNet()), datamodule=Digits(), verbose=False)


def test_knn_without_labels_says_so(trainer: Any) -> None:
    data = Digits()
    data.setup("fit")
    data.train_samples.targets.fill_(-1)  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="KNN has no labels to judge by"):
        trainer(callbacks=[KNN()]).validate(SimCLR(ConvNet(width=4)), datamodule=data, verbose=False)


def test_knn_needs_an_embedding(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`KNN` needs a module whose validation step returns"):
        trainer(callbacks=[KNN()]).validate(Classifier(10, ConvNet(width=4)), datamodule=Digits(), verbose=False)


def test_the_three_states_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(2000, 64, generator=generator).relu()  # as a backbone ends
    plane = torch.randn(2000, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
    point = torch.randn(64, generator=generator) + 1e-3 * torch.randn(2000, 64, generator=generator)
    states = [diagnose(spread(rows), effective_rank(rows), 64) for rows in (healthy, plane, point)]
    assert states == ["healthy", "dimensional collapse", "complete collapse"]


class Changing(SimCLR):
    """Healthy, then a point for two epochs, then healthy."""

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        rows = torch.randn(len(batch.target), 32)
        return {"embedding": rows if self.current_epoch in (0, 3) else torch.ones_like(rows) + 1e-3 * rows}


def test_a_change_of_state_is_said_once(trainer: Any) -> None:
    fit = trainer(max_epochs=4, limit_train_batches=1, callbacks=[CollapseMonitor()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.fit(Changing(ConvNet(width=4)), datamodule=Digits(batch_size=64))
    said = [str(w.message) for w in caught if "collapse" in str(w.message) or "healthy" in str(w.message)]
    assert len(said) == 2
    assert said[0].startswith("epoch 1: complete collapse of the embedding")
    assert said[1].startswith("epoch 3: the embedding is healthy again")


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda **kw: SimSiam(stop_gradient=True, hidden_dim=64, **kw), {"healthy"}),
        # how many directions are left before the last one goes is a matter of the last bits of the arithmetic
        (
            lambda **kw: SimSiam(stop_gradient=False, hidden_dim=64, **kw),
            {"dimensional collapse", "complete collapse"},
        ),
        (lambda **kw: VICReg(variance=0.0, covariance=0.0, **kw), {"complete collapse"}),
    ],
    ids=["SimSiam", "SimSiam without stop-gradient", "VICReg, invariance alone"],
)
def test_trained_collapses_are_found(make: Any, states: set[str], trainer: Any) -> None:
    """What prevents a collapse is taken out, and the monitor says what came of it."""
    model = make(
        backbone=ConvNet(width=16), views=SimCLRViews(flip=0, crop_scale=(0.4, 1)), projection_dim=64,
        optimizer=OptimizerSpec("sgd", lr=0.3, weight_decay=1e-4),
    )  # fmt: skip
    monitor = CollapseMonitor()
    fit = trainer(max_epochs=60, check_val_every_n_epoch=60, callbacks=[monitor])
    fit.fit(model, datamodule=Digits(batch_size=128))
    assert monitor.states["projection"] in states
    assert (float(fit.callback_metrics["val/collapse"]) > 0) == (states != {"healthy"})


class Broken(SimCLR):
    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        return {"embedding": torch.full((len(batch.target), 8), float("nan"))}


def test_a_diverged_run_is_said_in_words(trainer: Any) -> None:
    with pytest.raises(ValueError, match="the embedding of `Broken` holds NaN or infinity at epoch 0"):
        trainer(callbacks=[CollapseMonitor()]).validate(Broken(ConvNet(width=4)), datamodule=Digits(), verbose=False)


def judged_apart(rank: int, world: int) -> Any:
    """Metrics where only the first process has labels, then where only it has validation samples."""
    if world > 1:  # the processes are there: Lightning is to start none
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    L.seed_everything(0, verbose=False)
    data, model = Digits(batch_size=32), SimCLR(ConvNet(width=4))
    data.setup("fit")
    assert data.train_samples is not None
    data.train_samples.targets[data.val_indices[1::2]] = -1  # every second sample is the second process's
    callbacks = [KNN(), OnlineLinearProbe(), CollapseMonitor()]
    validation = L.Trainer(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", callbacks=callbacks, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    validation.validate(model, datamodule=data, verbose=False)
    uneven = {key: float(value) for key, value in validation.callback_metrics.items()}

    alone: dict[str, float] = {}
    model.log = lambda name, value, **_: alone.update({name: float(value)})  # type: ignore[assignment,misc]
    model.log_dict = lambda found: alone.update(found)  # type: ignore[assignment,misc]
    batch = data.train_samples.__getitems__(data.val_indices[:40].tolist())
    outputs = {"embedding": torch.randn(40, 16, generator=torch.Generator().manual_seed(0))}
    for callback in callbacks:
        if rank == 0:
            callback.on_validation_batch_end(validation, model, outputs, Batch(*batch), 0)
        callback.on_validation_epoch_end(validation, model)
    return uneven, alone


@pytest.mark.timeout(120)
def test_every_process_takes_part_with_and_without_samples(tmp_path: Path) -> None:
    """No collective waits for a process that has nothing to add, and both know the result of one process."""
    expected = judged_apart(0, 1)
    for found in spawn(judged_apart, 2, tmp_path):
        for got, want in zip(found, expected, strict=True):
            assert got == pytest.approx(want, rel=1e-4)
    assert {"val/knn_accuracy", "val/probe_accuracy", "val/rankme", "val/effective_rank"} <= set(expected[0])
    assert {"val/probe_accuracy", "val/rankme", "val/embedding_std"} <= set(expected[1])
