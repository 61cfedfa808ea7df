"""Views by anybody's function of one sample: made where samples are loaded, the same for any number of workers."""

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from ssl_lightning.backbones import MLP, ConvNet, Flat
from ssl_lightning.data import Digits, FromDataset
from ssl_lightning.data.samples import Viewed
from ssl_lightning.evaluation import CollapseMonitor
from ssl_lightning.methods import DINO, BarlowTwins, SimCLR
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.base import PerBatch, PerSample, Unchanged
from ssl_lightning.transforms.image import CleanView, MultiCropViews, SimCLRViews
from ssl_lightning.transforms.vectors import VectorViews


class Kept(L.Callback):
    """Keeps the views of every training batch."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch.index.clone(), [view.clone() for view in batch.views or []]))


def noisy(row: Tensor) -> Tensor:
    """Draw from the three global random states that strangers use."""
    return row + torch.randn(()) + 10 * float(np.random.rand()) + 100 * random.random()  # noqa: NPY002


def fit(model: L.LightningModule, data: L.LightningDataModule, folder: Path, **options: Any) -> Kept:
    """Fit, and keep the views."""
    kept = Kept()
    L.seed_everything(3, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[kept], default_root_dir=folder, **{"max_epochs": 2, **options},
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return kept


def vectors(**options: Any) -> FromDataset:
    """Forty vectors."""
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    return FromDataset(TensorDataset(rows, torch.arange(40) % 2), batch_size=8, val_size=0, test_size=0, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_views_are_the_same_for_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    runs = [
        fit(SimCLR(MLP(6), views=noisy, projection_dim=4), vectors(num_workers=count), tmp_path)
        for count in (0, workers)
    ]
    assert len(runs[0].batches) == len(runs[1].batches) == 10
    for (index, views), (same, again) in zip(runs[0].batches, runs[1].batches, strict=True):
        assert torch.equal(index, same)
        assert all(torch.equal(one, two) for one, two in zip(views, again, strict=True))
    flat = torch.cat([view.flatten(1) for _, views in runs[0].batches for view in views])
    assert len(flat.unique(dim=0)) == len(flat)  # each sample, view and epoch draws anew


def test_a_resumed_fit_sees_the_views_of_one_that_never_stopped(tmp_path: Path) -> None:
    def model() -> SimCLR:
        L.seed_everything(3, verbose=False)
        return SimCLR(MLP(6), views=noisy, projection_dim=4)

    whole = fit(model(), vectors(), tmp_path).batches
    saver = ModelCheckpoint(tmp_path, "seven", every_n_train_steps=7)
    L.seed_everything(3, verbose=False)
    L.Trainer(max_steps=7, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[saver],
              enable_model_summary=False).fit(model(), datamodule=vectors())  # fmt: skip
    kept = Kept()
    again = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[kept],
                      enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    again.fit(model(), datamodule=vectors(), ckpt_path=str(tmp_path / "seven.ckpt"))
    assert len(kept.batches) == 3
    for (index, views), (same, twin) in zip(whole[7:], kept.batches, strict=True):
        assert torch.equal(index, same)
        assert all(torch.equal(one, two) for one, two in zip(views, twin, strict=True))


def test_a_draw_of_two_processes_is_that_of_one() -> None:
    rows = torch.arange(12.0)[:, None]
    views, samples = PerSample(noisy), TensorDataset(rows)
    data = FromDataset(samples, batch_size=4, val_size=0, test_size=0)
    data.setup("fit")
    viewed = Viewed(data.train_samples, views, seed=1)
    whole = viewed.__getitems__([(2, 0), (5, 1), (7, 2), (2, 3)])
    parts = [viewed.__getitems__([(2, 0), (5, 1)]), viewed.__getitems__([(7, 2), (2, 3)])]
    assert whole.views is not None
    for number, view in enumerate(whole.views):
        assert torch.equal(view, torch.cat([part.views[number] for part in parts if part.views is not None]))
    assert not torch.equal(whole.views[0][0], whole.views[0][3])  # one sample, two draws


def test_the_global_random_states_are_left_as_they_were() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    PerSample(noisy)(torch.zeros(3, 2), torch.Generator().manual_seed(0))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # type: ignore[union-attr]  # noqa: NPY002
    assert states[2] == random.getstate()


def test_torchvision_transforms_serve_a_classifier_in_workers(tmp_path: Path) -> None:
    views = v2.Compose([v2.RandomResizedCrop(8, scale=(0.5, 1)), v2.ToDtype(torch.float32, scale=True)])
    kept = fit(Classifier(10, ConvNet(1, width=4), views=views), Digits(batch_size=64, num_workers=1), tmp_path,
               max_epochs=1, limit_train_batches=2)  # fmt: skip
    assert [len(views) for _, views in kept.batches] == [1, 1]
    assert kept.batches[0][1][0].shape == (64, 1, 8, 8)
    assert 0 <= float(kept.batches[0][1][0].min()) < float(kept.batches[0][1][0].max()) <= 1


def test_a_method_takes_the_views_of_the_data_where_none_are_given(tmp_path: Path) -> None:
    options: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_steps": 1,
                    "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    for method, data, kind in (
        (SimCLR(Flat(6), projection_dim=4), vectors(), VectorViews),
        (BarlowTwins(Flat(6)), vectors(), VectorViews),
        (DINO(MLP(6)), vectors(), VectorViews),
        (SimCLR(ConvNet(1, width=4)), Digits(), SimCLRViews),
        (DINO(ConvNet(1, width=4)), Digits(), MultiCropViews),
    ):
        assert method.views is None
        L.Trainer(**options).fit(method, datamodule=data)
        assert isinstance(method.views, kind)


def test_data_that_suggest_no_views_want_some(tmp_path: Path) -> None:
    data = FromDataset(TensorDataset(torch.randn(20, 5, 4), torch.arange(20) % 2), batch_size=8, val_size=0)
    with pytest.raises(ValueError, match=r"there are no random views: these data suggest none.*give `views`"):
        fit(SimCLR(Flat(20), projection_dim=4), data, tmp_path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda row: (row, row), "returned tuple; required is one tensor"),
        (lambda row: row.to(torch.uint8), r"returned torch.uint8, and an encoder takes floats; .*ToDtype"),
        (lambda row: row[: int(row[0]) + 1].float(), r"samples of several shapes, \(1,\) beside \(2,\)"),
    ],
)
def test_what_is_no_view_is_refused(function: Any, message: str) -> None:
    rows = torch.arange(3, dtype=torch.uint8)[:, None].repeat(1, 4)
    with pytest.raises(ValueError, match=message):
        PerSample(function)(rows, torch.Generator())


def test_a_class_in_place_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="`views=RandomHorizontalFlip`, a class, cannot be called as it is"):
        SimCLR(Flat(6), views=v2.RandomHorizontalFlip)  # type: ignore[arg-type]


def test_a_function_of_batches_is_seeded_by_the_generator() -> None:
    views = PerBatch(lambda rows: rows + torch.randn_like(rows), count=3)
    state = torch.get_rng_state()
    one, other = (views(torch.zeros(4, 2), torch.Generator().manual_seed(1)) for _ in range(2))
    assert len(one) == 3
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", [PerSample, PerBatch])
def test_functions_that_work_in_place_spoil_nothing(kind: Any) -> None:
    rows = torch.ones(3, 4)
    first, second = kind(lambda row: row.mul_(0.5).add_(torch.randn_like(row)))(rows, torch.Generator())
    assert not torch.equal(first, second)
    assert torch.equal(rows, torch.ones(3, 4))
    assert all(float(view.mean()) < 3 for view in (first, second))


def test_views_given_late_end_as_the_clean_transform_that_was_given(tmp_path: Path) -> None:
    """And so does what a checkpoint was trained with, where nothing was given."""
    model = SimCLR(ConvNet(width=4), clean=CleanView(mean=0.0, std=1.0))
    saver = ModelCheckpoint(tmp_path, "one")
    options: Any = {"max_steps": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
                    "enable_model_summary": False}  # fmt: skip
    L.Trainer(callbacks=[saver], **options).fit(model, datamodule=Digits(batch_size=64))
    batch = Digits(batch_size=64)
    batch.setup("fit")
    views = model.prepare(next(iter(batch.train_dataloader())), random=True)
    assert all(0 <= float(view.min()) <= float(view.max()) <= 1 for view in views)
    other = SimCLR(ConvNet(width=4))
    trainer = L.Trainer(callbacks=[CollapseMonitor()], **options)
    trainer.validate(other, datamodule=Digits(batch_size=64), ckpt_path=tmp_path / "one.ckpt", verbose=False)
    assert other.clean.init_args == model.clean.init_args


def test_a_model_fitted_again_takes_the_transforms_of_the_new_data(tmp_path: Path) -> None:
    model = SimCLR(ConvNet(width=4))
    options: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_steps": 1,
                    "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    L.Trainer(**options).fit(model, datamodule=Digits(batch_size=64))
    assert isinstance(model.clean, CleanView)
    normalised = FromDataset(TensorDataset(3 * torch.randn(64, 1, 8, 8), torch.arange(64) % 2), batch_size=16)
    with pytest.raises(ValueError, match="there are no random views"):  # none suit what is normalised already
        L.Trainer(**options).fit(model, datamodule=normalised)
    assert isinstance(model.clean, Unchanged)
