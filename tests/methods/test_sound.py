"""Methods, classifiers and commands on sounds of very different lengths, unchanged."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import soundfile
from support import equal_weights

from ssl_lightning.active import BALD, PoolDataModule
from ssl_lightning.backbones import AudioNet, SpectrogramTransformer, ViT
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.data import AudioFolder, Digits, SpokenDigits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import (
    BYOL,
    DINO,
    MAE,
    BarlowTwins,
    DeepCluster,
    Rotation,
    SimCLR,
    SimMIM,
    SSLMethod,
    SwAV,
    VICReg,
)
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.audio import LogMel, audio_views

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of ten heights, of two speakers, 30 to 400 ms long."""
    root = tmp_path_factory.mktemp("digits")
    for digit in range(10):
        for speaker, high in (("ann", 1.0), ("bob", 1.1)):
            for take in range(8):
                seconds = 0.03 + 0.37 * ((3 * digit + 5 * take + len(speaker)) % 8) / 7
                steps = np.arange(round(8000 * seconds)) / 8000
                wave = 0.4 * np.sin(2 * np.pi * high * (150 + 130 * digit) * steps + take)
                soundfile.write(root / f"{digit}_{speaker}_{take}.wav", wave, 8000)
    return root


def net() -> AudioNet:
    return AudioNet(width=2, dim=16)


def transformer() -> SpectrogramTransformer:
    return SpectrogramTransformer(dim=16, depth=1, heads=2)


MAKE: dict[str, Callable[..., SSLMethod]] = {
    "SimCLR": lambda **options: SimCLR(net(), **options),
    "BYOL": lambda **options: BYOL(net(), **options),
    "VICReg": lambda **options: VICReg(net(), projection_dim=32, **options),
    "BarlowTwins": lambda **options: BarlowTwins(net(), projection_dim=32, **options),
    "DeepCluster": lambda **options: DeepCluster(net(), clusters=4, **options),
    "SwAV": lambda **options: SwAV(net(), **options),
    "DINO": lambda **options: DINO(net(), **options),
    "MAE": lambda **options: MAE(transformer(), **options),
    "SimMIM": lambda **options: SimMIM(transformer(), **options),
}


class SaveOnce(L.Callback):
    """Saves in the middle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("name", MAKE)
def test_methods_run_unchanged_and_resume_to_the_bit(name: str, digits: Path, trainer: Any, tmp_path: Path) -> None:
    found = []
    for resume in (None, tmp_path / "half.ckpt"):
        L.seed_everything(3, verbose=False)
        model = MAKE[name](optimizer=OptimizerSpec("adamw", lr=1e-3))
        fit = trainer(
            max_epochs=2, limit_train_batches=2, limit_val_batches=0, callbacks=[SaveOnce(tmp_path / "half.ckpt")]
        )
        fit.fit(model, datamodule=SpokenDigits(str(digits), batch_size=16), ckpt_path=resume)
        assert math.isfinite(float(fit.callback_metrics["train/loss"]))
        found.append(model)
    assert equal_weights(*found)
    assert found[0].facts["sample_rate"] == 8000
    opened = Checkpoint.open(tmp_path / "half.ckpt")
    assert isinstance(opened.clean, LogMel)
    assert opened.clean.sample_rate == 8000


def test_what_does_not_take_sounds_says_so(digits: Path, trainer: Any) -> None:
    data = SpokenDigits(str(digits), batch_size=16)
    with pytest.raises(ValueError, match="`Rotation` takes images, and these data are sound"):
        trainer(max_steps=1).fit(Rotation(net()), datamodule=data)
    with pytest.raises(ValueError, match=r"`ViT`.* takes images, and .*sound"):
        trainer(max_steps=1).fit(MAE(ViT(1, 8, patch_size=2, dim=16, depth=1, heads=2)), datamodule=data)
    with pytest.raises(ValueError, match=r"`AudioNet`.* takes sound, and .*images"):
        trainer(max_steps=1).fit(SimCLR(net()), datamodule=Digits())


def test_picks_do_not_depend_on_the_batch(digits: Path, trainer: Any) -> None:
    """MC dropout on sounds of very different lengths, from the pool by batches of any size."""
    model = Classifier(10, AudioNet(width=4, dim=16, dropout=0.3), dropout=0.3, optimizer=OptimizerSpec(lr=0.01))
    pool = PoolDataModule(SpokenDigits(str(digits), batch_size=16, val_size=0), initial=12, steps_per_epoch=2)
    fit = trainer(max_epochs=1)
    fit.fit(model, datamodule=pool)
    picks = [BALD(query_size=6, batch_size=size).query(fit, model, pool)[0] for size in (1, 7, 256)]
    assert len(set(picks[0])) == 6
    assert picks[0] == picks[1] == picks[2]


def test_from_pretraining_to_labels_and_predictions(digits: Path, tmp_path: Path, command: Command) -> None:
    """On the command line: facts are linked, and the last checkpoint alone reads a folder of sounds."""
    short = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    data = ["--data", "SpokenDigits", "--data.root", digits, "--data.batch_size", "16"]
    backbone = ["--model.backbone", "AudioNet", "--model.backbone.width", "4", "--model.backbone.dim", "16"]
    status, told = command(
        "fit", *data, "--model", "SimCLR", *backbone, "--model.views", "AudioViews", "--model.views.pitch", "0.2",
        *short, "--folder", "ssl",
    )  # fmt: skip
    assert status == 0, told
    status, told = command(
        "active", *data, "--data.val_size", "0", "--model", "Classifier", "--model.checkpoint",
        "ssl/checkpoints/last.ckpt", "--model.dropout", "0.3", *short, "--steps_per_epoch", "4", "--initial", "10",
        "--rounds", "2", "--strategy", "Entropy", "--strategy.query_size", "5", "--folder", "active",
    )  # fmt: skip
    assert status == 0, told
    with (tmp_path / "active" / "queries.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 20
    new = tmp_path / "new"
    new.mkdir()
    soundfile.write(new / "one.wav", 0.3 * np.sin(np.arange(3000)), 11025)
    soundfile.write(new / "two.flac", 0.3 * np.sin(np.arange(30000) / 3)[:, None].repeat(2, 1), 8000)
    (new / "bad.wav").write_text("no sound")
    with pytest.warns(UserWarning, match=r"left out 1 of 3 samples: .*bad\.wav` is no readable sound"):
        status, told = command("predict", "active", new)
    assert status == 0, told
    with (tmp_path / "active" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == ["one.wav", "two.flac"]
    assert all(row["class"] in set("0123456789") and 0 < float(row["probability"]) <= 1 for row in rows)
    (new / "bad.wav").unlink()
    status, told = command("predict", "active", "--data", "AudioFolder", "--data.root", new, "--output", "p.csv")
    assert status == 0, told
    assert "--data.sample_rate 8000: as the checkpoint was trained" in told
    given = ["--data", "AudioFolder", "--data.root", new, "--data.sample_rate", "16000", "--protocols", "knn"]
    status, told = command("evaluate", "ssl", *given)
    assert status == 2
    assert "was built for `sample_rate=8000`, and the data have `sample_rate=16000`" in told
    status, told = command(
        "evaluate", "untrained", "--backbone", "MeanFrames", *data, "--protocols", "knn,linear", "--fractions", "1.0"
    )
    assert status == 0, told
    assert "kNN" in told


def test_a_classifier_on_folders(tmp_path: Path, trainer: Any) -> None:
    """With mild views; low and high tones are told apart, at another rate than the files', too."""
    for place in range(30):
        for name, hertz in (("low", 300), ("high", 1800)):
            path = tmp_path / "tones" / name / f"{place}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * np.sin(np.arange(600 + 100 * place) * 2 * np.pi * hertz / 16000), 16000)
    data = AudioFolder(str(tmp_path / "tones"), sample_rate=8000, batch_size=12, val_size=0.2)
    views = audio_views(8000, 1, mild=True)
    model = Classifier(2, AudioNet(width=4, dim=16), views=views, optimizer=OptimizerSpec("adamw", lr=0.01))
    fit = trainer(max_epochs=20, limit_val_batches=0)
    fit.fit(model, datamodule=data)
    assert fit.test(model, datamodule=data, verbose=False)[0]["test/accuracy"] == 1
    assert model.facts["class_names"] == ("high", "low")
