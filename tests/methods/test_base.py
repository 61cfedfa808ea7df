"""What every method must do, over all concrete subclasses of SSLMethod."""

import inspect
import math
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_method import METHODS, digits_for, make
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from support import ROOT, equal_weights

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.resume import SaveWhenTerminated
from ssl_lightning.methods import (
    BYOL,
    DINO,
    NNCLR,
    DeepCluster,
    MoCo,
    SimCLR,
    SSLMethod,
    SwAV,
)
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import SimCLRViews


def test_there_are_methods() -> None:
    assert SimCLR in METHODS


@pytest.mark.parametrize("kind", METHODS)
def test_docstring_has_a_reference_and_a_config(kind: type[SSLMethod]) -> None:
    assert "arXiv" in (inspect.getdoc(kind) or "").partition("Reference:")[2]
    configs = [
        path
        for path in (ROOT / "configs" / "method").glob("*.yaml")
        if f"class_path: {kind.__name__}\n" in path.read_text()
    ]
    assert configs, f"no file in configs/method uses {kind.__name__}"


class Stop(Exception):
    """Stands for a killed process."""


class Killer(L.Callback):
    """Saves and dies at a step."""

    def __init__(self, step: int, path: Path, after_epoch: bool = False) -> None:
        self.step, self.path, self.after_epoch = step, path, after_epoch

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step and not self.after_epoch:
            trainer.save_checkpoint(self.path)
            raise Stop

    def on_train_epoch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step and self.after_epoch:
            trainer.save_checkpoint(self.path)
            raise Stop


def models() -> list[Any]:
    optimizer = OptimizerSpec(lr=3e-3, warmup=0.2)
    ssl = [pytest.param(lambda kind=kind: make(kind, optimizer=optimizer), id=kind.__name__) for kind in METHODS]
    views = SimCLRViews(count=1)
    views.forward = lambda images, generator: SimCLRViews(count=1)(images, generator)[0]  # type: ignore[method-assign]
    classifier = pytest.param(
        lambda: Classifier(10, ConvNet(width=4, dropout=0.2), dropout=0.3, views=views, optimizer=optimizer),
        id="Classifier",
    )
    return [*ssl, classifier]


@pytest.mark.parametrize("make", models())
def test_resumed_run_is_bit_equal(make: Any, trainer: Any, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch, in its last batch, and at its end."""

    def run(callbacks: list[L.Callback], ckpt_path: Path | None) -> L.LightningModule:
        L.seed_everything(3, verbose=False)
        model = make()
        data = digits_for(type(model), batch_size=32, val_size=200, limit=456)  # 8 batches an epoch
        fit = trainer(max_epochs=2, callbacks=callbacks)
        try:
            fit.fit(model, datamodule=data, ckpt_path=ckpt_path)
            assert fit.global_step == 16
        except Stop:
            pass
        return model  # type: ignore[no-any-return]

    undisturbed = run([], None)
    for step, after_epoch in ((5, False), (8, False), (8, True)):
        path = tmp_path / f"{step}{after_epoch}.ckpt"
        killed = run([Killer(step, path, after_epoch)], None)
        assert not equal_weights(killed, undisturbed)
        resumed = run([], path)
        assert equal_weights(resumed, undisturbed), (step, after_epoch)
        if isinstance(resumed, DeepCluster):
            assert torch.equal(resumed.assignments, undisturbed.assignments)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [models()[0], models()[-1]])
def test_stopped_and_resumed_at_every_step_is_bit_equal(make: Any, trainer: Any, tmp_path: Path) -> None:
    """Also where a checkpoint of an epoch's last batch comes before one in the middle of the next."""
    path = tmp_path / "killed.ckpt"

    def run(callbacks: list[L.Callback]) -> tuple[L.LightningModule, int]:
        L.seed_everything(3, verbose=False)
        model, fit = make(), trainer(max_epochs=2, callbacks=callbacks)
        try:
            data = Digits(batch_size=256, val_size=200)  # 4 batches an epoch
            fit.fit(model, datamodule=data, ckpt_path=path if path.exists() else None)
        except Stop:
            pass
        return model, fit.global_step

    undisturbed, steps = run([])
    assert steps == 8
    for step in range(1, 8):
        assert run([Killer(step, path)])[1] == step
    resumed, steps = run([])
    assert steps == 8
    assert equal_weights(resumed, undisturbed)


def test_banks_teachers_centres_and_clusters_are_in_the_checkpoint(trainer: Any, tmp_path: Path) -> None:
    """What a method remembers beyond its trained weights; lightly would leave the banks out."""
    for build, keys in (
        (lambda: MoCo(ConvNet(width=4)), ["criterion.memory_bank.bank", "criterion.memory_bank.bank_ptr", "teacher."]),
        (lambda: NNCLR(ConvNet(width=4)), ["queue.bank", "queue.bank_ptr"]),
        (lambda: SwAV(ConvNet(width=4)), ["queues.0.bank", "queues.1.bank_ptr", "prototypes."]),
        (lambda: DINO(ConvNet(width=4)), ["criterion.center", "teacher."]),
        (lambda: BYOL(ConvNet(width=4)), ["teacher."]),
    ):
        fit = trainer(max_steps=1)
        fit.fit(build(), datamodule=Digits(batch_size=64))
        fit.save_checkpoint(tmp_path / "m.ckpt")
        saved = list(torch.load(tmp_path / "m.ckpt", weights_only=True)["state_dict"])
        for key in keys:
            assert any(name.startswith(key) for name in saved), key


def test_model_checkpoint_and_last_resume(trainer: Any, tmp_path: Path) -> None:
    """Through Lightning's own ModelCheckpoint, stopped by the number of epochs."""

    def run(epochs: int, **options: Any) -> SimCLR:
        L.seed_everything(3, verbose=False)
        model = SimCLR(ConvNet(width=4), optimizer=OptimizerSpec(schedule="constant"))
        saver = ModelCheckpoint(tmp_path, save_last=True)
        fit = trainer(max_epochs=epochs, callbacks=[saver], enable_checkpointing=True)
        fit.fit(model, datamodule=Digits(batch_size=256), **options)
        return model

    undisturbed = run(2)
    for path in tmp_path.glob("*.ckpt"):
        path.unlink()
    run(1)
    assert equal_weights(run(2, ckpt_path=tmp_path / "last.ckpt"), undisturbed)


@pytest.mark.parametrize("stop", [2, 4, 6], ids=["in the first epoch", "at its end", "in the second"])
def test_a_fit_told_to_end_goes_on_from_that_step(trainer: Any, tmp_path: Path, stop: int) -> None:
    class Terminated(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    def run(callbacks: list[L.Callback], **options: Any) -> SimCLR:
        L.seed_everything(3, verbose=False)
        model = SimCLR(ConvNet(width=4), optimizer=OptimizerSpec(schedule="constant"))
        savers = ModelCheckpoint(tmp_path, "last"), SaveWhenTerminated(tmp_path / "last.ckpt")
        fit = trainer(max_epochs=2, callbacks=[*callbacks, *savers], enable_checkpointing=True)
        fit.fit(model, datamodule=Digits(batch_size=256), **options)
        assert fit.global_step == 8
        return model

    undisturbed = run([])
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(SIGTERMException):
        run([Terminated()])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == stop
    assert equal_weights(run([], ckpt_path=tmp_path / "last.ckpt"), undisturbed)


@pytest.mark.parametrize("kind", METHODS)
def test_needs_no_labels(kind: type[SSLMethod], trainer: Any) -> None:
    data = digits_for(kind, batch_size=64)
    data.setup("fit")
    data.train_samples.targets.fill_(-1)  # type: ignore[union-attr]
    fit = trainer(max_steps=2)
    fit.fit(make(kind), datamodule=data)
    assert math.isfinite(fit.callback_metrics["train/loss"])


@pytest.mark.parametrize("kind", METHODS)
def test_bf16_and_channels_last(kind: type[SSLMethod], trainer: Any) -> None:
    model = make(kind, channels_last=True)
    seen: list[bool] = []
    first = next(layer for layer in model.backbone.modules() if isinstance(layer, torch.nn.Conv2d))
    first.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    fit = trainer(max_steps=3, precision="bf16-mixed")
    fit.fit(model, datamodule=digits_for(kind, batch_size=64))
    assert seen
    assert all(seen)
    assert math.isfinite(fit.callback_metrics["train/loss"])


class Diverging(SSLMethod):
    """Its loss is NaN at the third step."""

    def __init__(self) -> None:
        super().__init__(ConvNet(width=4), SimCLRViews())

    def compute_loss(self, views: Any, batch: Batch) -> Any:
        h = self.backbone(views[0])
        return {"loss": h.mean() * (math.nan if self.global_step == 2 else 1.0), "embedding": h}


def test_nan_loss_stops_and_says_where(trainer: Any) -> None:
    model = Diverging()
    message = r"training loss of `Diverging` is nan at epoch 0, batch 2, step 2, rank 0.*Lower `optimizer.lr`"
    with pytest.raises(ValueError, match=message):
        trainer(max_epochs=1).fit(model, datamodule=Digits(batch_size=64))
    assert all(torch.isfinite(p).all() for p in model.parameters())
