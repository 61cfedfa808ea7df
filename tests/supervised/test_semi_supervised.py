from collections.abc import Callable
from pathlib import Path
from typing import Any

import every_modality
import lightning as L
import numpy as np
import pytest
import torch
from support import equal_weights, spawn
from torch import Tensor

from ssl_lightning.active import PoolDataModule, Random
from ssl_lightning.active.rounds import run_rounds
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.data.sampling import TrainSampler, Unlabelled
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import (
    Classifier,
    FixMatch,
    FreeMatch,
    MeanTeacher,
    PseudoLabel,
    Recipe,
    SemiSupervised,
)

KINDS = [PseudoLabel, MeanTeacher, FixMatch, FreeMatch]
CLASSES, COUNT = 4, 50


def drawn(seed: int) -> tuple[Tensor, Tensor]:
    """Logits of some samples as a method sees them: twice, and sure of some."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(3 * torch.randn(COUNT, CLASSES, generator=generator) for _ in range(2))  # type: ignore[return-value]


def softmax(logits: Tensor) -> np.ndarray[Any, Any]:
    """In float64."""
    rows = np.exp(logits.double().numpy())
    return rows / rows.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def small(kind: type[SemiSupervised], **options: Any) -> SemiSupervised:
    return kind(CLASSES, ConvNet(width=4), **options)


@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("kind", [FixMatch, PseudoLabel])
def test_thresholds_are_those_of_the_paper(kind: type[SemiSupervised], threshold: float) -> None:
    guesses, logits = drawn(0)
    found = small(kind, threshold=threshold).compute_loss(guesses, logits)
    q, p = softmax(guesses), softmax(logits)
    sure = q.max(axis=1) >= threshold
    each = -np.log(p[np.arange(COUNT), q.argmax(axis=1)])
    assert float(found.loss) == pytest.approx((each * sure).sum() / COUNT, rel=1e-5)
    assert found.mask.tolist() == sure.astype(float).tolist()
    assert found.target.tolist() == q.argmax(axis=1).tolist()


def test_mean_teacher_is_that_of_the_paper() -> None:
    guesses, logits = drawn(1)
    found = small(MeanTeacher).compute_loss(guesses, logits)
    assert float(found.loss) == pytest.approx(((softmax(guesses) - softmax(logits)) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_freematch_is_that_of_the_paper() -> None:
    """Three steps, against float64 written from equations 5 to 13."""
    model = small(FreeMatch, momentum=0.6, fairness=0.3)
    tau, mean, histogram = 1 / CLASSES, np.full(CLASSES, 1 / CLASSES), np.full(CLASSES, 1 / CLASSES)
    for step in range(3):
        guesses, logits = drawn(step)
        found = model.compute_loss(guesses, logits)
        q, p = softmax(guesses), softmax(logits)
        guessed = q.argmax(axis=1)
        tau = 0.6 * tau + 0.4 * q.max(axis=1).mean()
        mean = 0.6 * mean + 0.4 * q.mean(axis=0)
        histogram = 0.6 * histogram + 0.4 * np.bincount(guessed, minlength=CLASSES) / COUNT
        sure = q.max(axis=1) >= (mean / mean.max() * tau)[guessed]
        assert 0 < sure.sum() < COUNT
        loss = (-np.log(p[np.arange(COUNT), guessed]) * sure).mean()
        strong, counts = p[sure].mean(axis=0), np.bincount(p[sure].argmax(axis=1), minlength=CLASSES) / sure.sum()
        one, two = mean / histogram, np.divide(strong, counts, out=np.zeros(CLASSES), where=counts > 0)
        fairness = (one / one.sum() * np.log(two / two.sum() + 1e-12)).sum()
        assert float(found.loss) == pytest.approx(loss + 0.3 * fairness, rel=1e-4)
        assert found.mask.tolist() == sure.astype(float).tolist()


def test_freematch_without_anything_sure_learns_nothing() -> None:
    model = small(FreeMatch, momentum=0.0)
    model.confidence.fill_(1.0)
    even = torch.zeros(6, CLASSES)
    model.momentum = 0.999
    found = model.compute_loss(even, even.clone().requires_grad_())
    assert float(found.loss.detach()) == 0
    assert found.mask.sum() == 0


def test_unlabelled_come_behind_the_labelled_in_every_batch() -> None:
    """Over an epoch each unlabelled sample comes once; for two processes the global batches are those of one."""
    others = Unlabelled(torch.arange(100, 124), 3)
    one = TrainSampler(torch.arange(5), 4, None, seed=0, unlabelled=others)
    steps = torch.tensor(list(one)).view(one.steps, 16)
    assert one.steps == 2
    assert (steps[:, :4] < 5).all()
    assert steps[:, 4:].flatten().sort().values.tolist() == list(range(100, 124))
    parts = [
        torch.tensor(list(TrainSampler(torch.arange(5), 2, None, 0, rank, 2, others))).view(2, 8) for rank in range(2)
    ]
    for step in range(2):
        assert sorted(steps[step].tolist()) == sorted(torch.cat([part[step] for part in parts]).tolist())
    later = TrainSampler(torch.arange(5), 4, None, seed=0, unlabelled=others)
    later.skip = 1
    assert list(later) == steps[1:].flatten().tolist()


class Orders(L.Callback):
    """Keeps the labels that each step sees, and saves in the middle."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, list[list[int]]()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch.index.tolist())
        if trainer.global_step == 5 and not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_as_never_stopped(kind: type[SemiSupervised], trainer: Any, tmp_path: Path) -> None:
    def fit(resume: bool) -> tuple[SemiSupervised, list[list[int]]]:
        L.seed_everything(1, verbose=False)
        model = kind(10, ConvNet(width=4, dropout=0.1), ratio=2, dropout=0.2)
        orders = Orders(tmp_path / "stop.ckpt")
        data = Digits(batch_size=8, keep_labels=20, val_size=0, limit=100)
        run = trainer(max_epochs=2, callbacks=[orders])
        run.fit(model, datamodule=data, ckpt_path=orders.path if resume else None)
        return model, orders.seen

    (whole, order), (rest, again) = fit(False), fit(True)
    assert again == order[5:]
    assert equal_weights(whole, rest)


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_samples_help_and_nothing_is_learnt_from_their_labels(
    kind: type[SemiSupervised], trainer: Any
) -> None:
    """Other truths behind hidden labels change a logged number and no weight."""

    def fit(spoilt: bool) -> tuple[SemiSupervised, dict[str, Tensor]]:
        L.seed_everything(1, verbose=False)
        data = Digits(batch_size=16, keep_labels=40, val_size=0, steps_per_epoch=40)
        data.setup("fit")
        assert data.train_samples is not None
        assert data.truth is not None
        hidden = data.train_samples.targets < 0
        assert int((~hidden).sum()) == 40
        if spoilt:
            data.truth = torch.where(hidden, (data.truth + 1) % 10, data.truth)
        model = kind(10, ConvNet(width=16), optimizer=OptimizerSpec(lr=3e-3), ramp=0.2)
        run = trainer(max_epochs=1)
        run.fit(model, datamodule=data)
        return model, run.callback_metrics

    (model, told), (other, wrong) = fit(False), fit(True)
    assert equal_weights(model, other)
    assert told["train/pseudo_accuracy"] > wrong["train/pseudo_accuracy"] + 0.2
    assert 0 < told["train/mask"] <= 1


def test_freematch_beats_the_same_classifier_on_digits(trainer: Any) -> None:
    """Twenty labels: the unlabelled samples are worth more than five points."""

    def accuracy(kind: type[Classifier], **options: Any) -> float:
        L.seed_everything(1, verbose=False)
        data = Digits(batch_size=32, keep_labels=20, val_size=0, steps_per_epoch=100)
        run = trainer(max_epochs=1)
        model = kind(10, ConvNet(), optimizer=OptimizerSpec(lr=3e-3), **options)
        run.fit(model, datamodule=data)
        return float(run.test(model, datamodule=data, verbose=False)[0]["test/accuracy"])

    assert accuracy(FreeMatch) > accuracy(Classifier) + 0.05


@pytest.mark.parametrize("steps", [3, 7])  # in the middle of an epoch of five, of the second one
def test_metrics_are_of_the_whole_epoch(steps: int, trainer: Any) -> None:
    data = Digits(batch_size=32, keep_labels=50, steps_per_epoch=5, val_size=0)
    fit = trainer(max_steps=steps)
    fit.fit(FreeMatch(10, ConvNet(width=4)), datamodule=data)
    told = fit.callback_metrics
    assert {"train/loss", "train/accuracy", "train/mask", "train/pseudo_accuracy"} <= told.keys()
    assert all(0 <= float(value) < 10 for value in told.values())


def test_where_nothing_counts_nothing_is_right(trainer: Any) -> None:
    """Of no guess that counts there is no share, and none that JSON and databases cannot hold."""
    fit = trainer(max_epochs=1)
    data = Digits(batch_size=32, keep_labels=50, steps_per_epoch=3, val_size=0)
    fit.fit(FixMatch(10, ConvNet(width=4), threshold=0.9999), datamodule=data)
    assert float(fit.callback_metrics["train/mask"]) == 0
    assert "train/pseudo_accuracy" not in fit.callback_metrics


@pytest.mark.parametrize("name", list(every_modality.MODALITIES))
def test_every_modality_whose_views_exist(name: str, trainer: Any, tmp_path: Path) -> None:
    """In a fit and in rounds; a pretrained encoder or a fresh one."""
    L.seed_everything(0, verbose=False)
    folder = every_modality.write(name, tmp_path / "data", 24)
    data = every_modality.MODALITIES[name].data(folder, batch_size=4, keep_labels=9, val_size=0, steps_per_epoch=3)
    backbone = every_modality.MODALITIES[name].backbone(data.facts)
    model = FreeMatch(3, backbone, ratio=2)
    run = trainer(max_epochs=1)
    run.fit(model, datamodule=data)
    assert run.global_step == 3
    assert torch.isfinite(run.callback_metrics["train/loss"])


def job(rank: int, world: int) -> dict[str, Any]:
    L.seed_everything(3, verbose=False)
    data = Digits(batch_size=16 // world, keep_labels=20, val_size=0, limit=200, steps_per_epoch=6)
    model = FreeMatch(10, ConvNet(width=4), ratio=2, momentum=0.9)
    run = L.Trainer(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    run.fit(model, datamodule=data)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_two_processes_keep_one_model(tmp_path: Path) -> None:
    """Thresholds, too: each process sees its own half of the unlabelled samples."""
    one, other = spawn(job, 2, tmp_path)
    assert all(torch.equal(other[name], value) for name, value in one.items() if "running" not in name)
    assert one["confidence"] > 0.1


@pytest.fixture
def pretrained(trainer: Any, tmp_path: Path) -> str:
    fit = trainer(max_steps=3)
    fit.fit(SimCLR(ConvNet(width=8)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "ssl.ckpt")
    return str(tmp_path / "ssl.ckpt")


def test_rounds_with_a_semi_supervised_model(pretrained: str, trainer: Any, tmp_path: Path) -> None:
    """The pool's unlabelled samples are learnt from; the saved model is the average that the strategy asked."""
    seen: list[int] = []

    class Counting(FreeMatch):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(len(batch.target.unique()))
            assert (batch.target[8:] < 0).any()  # the pool shows no label that was not given
            assert (batch.target[:8] >= 0).all()
            return super().training_step(batch, batch_idx)

    pool = PoolDataModule(Digits(batch_size=8, val_size=0, limit=200), initial=10, steps_per_epoch=4)
    rows = run_rounds(
        lambda: Counting(10, checkpoint=pretrained, ratio=2),
        lambda callbacks: trainer(max_epochs=1, callbacks=callbacks),
        pool, Random(query_size=5), rounds=2, folder=tmp_path / "run",
    )  # fmt: skip
    assert [row["labelled"] for row in rows] == [10, 15, 20]
    assert len(seen) == 12
    assert all("train/pseudo_accuracy" in row for row in rows)
    opened = FreeMatch.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "round_002.ckpt")
    assert opened.unlabelled_ratio == 2


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "ratio": (lambda: FixMatch(10, ConvNet(), ratio=0), "`ratio=0` must be at least 1"),
    "threshold": (lambda: FixMatch(10, ConvNet(), threshold=1.5), "`threshold=1.5` must be from 0 to 1"),
    "momentum": (lambda: FreeMatch(10, ConvNet(), momentum=1.0), "`momentum=1.0`"),
    "recipe": (lambda: FixMatch(10, ConvNet(), recipe={"emma": 1}), "`recipe=.* must be a `Recipe`"),
    "ema": (lambda: Recipe(ema=1.0), "`recipe.ema=1.0` must be"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes(name: str) -> None:
    build, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        build()


def test_more_labels_than_there_are(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`keep_labels=5000` exceeds the 1258 labelled training samples; lower it"):
        trainer(max_steps=1).fit(FixMatch(10, ConvNet()), datamodule=Digits(keep_labels=5000, val_size=0))


def test_frozen_encoders_are_refused(pretrained: str) -> None:
    with pytest.raises(ValueError, match="`freeze=true` leaves the encoder nothing to learn"):
        FixMatch(10, checkpoint=pretrained, freeze=True)
