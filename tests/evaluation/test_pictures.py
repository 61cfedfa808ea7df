"""Pictures in the loggers that take images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.loggers import log_picture
from ssl_lightning.evaluation import Pictures
from ssl_lightning.evaluation.pictures import sheet_of
from ssl_lightning.methods import Rotation


def events(path: Path) -> list[Any]:
    """Read an event file: records of length (8 bytes), checksum (4), data, checksum (4)."""
    raw, found, place = path.read_bytes(), [], 0
    while place < len(raw):
        size = int.from_bytes(raw[place : place + 8], "little")
        event = Event()
        event.ParseFromString(raw[place + 12 : place + 12 + size])
        found.append(event)
        place += 16 + size
    return found


def test_every_logger_gets_the_sheet(trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's event file and W&B's media folder hold the pixels of the file in the run's folder."""
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = [
        CSVLogger(tmp_path),  # takes none
        TensorBoardLogger(tmp_path, name="board"),
        WandbLogger(save_dir=tmp_path, mode="offline", project="pictures"),
    ]
    try:
        trainer(
            max_epochs=2, logger=loggers, callbacks=[Pictures(every_n_epochs=2, count=4)], default_root_dir=tmp_path
        ).fit(Rotation(ConvNet(width=4)), datamodule=Digits(batch_size=256))
    finally:
        wandb.finish()
    written = Image.open(tmp_path / "pictures" / "epoch_001.png")
    (media,) = tmp_path.rglob("media/images/*.png")
    assert Image.open(media).convert("RGB").tobytes() == written.convert("RGB").tobytes()
    (board,) = (tmp_path / "board").rglob("*tfevents*")
    images = [value.image for event in events(board) for value in event.summary.value if value.tag == "pictures"]
    assert [(image.width, image.height) for image in images] == [written.size]


def test_mlflow_and_comet_get_the_sheet_in_their_words(tmp_path: Path) -> None:
    """By their clients' signatures, mlflow 3.17 and comet_ml 3.58, which are no dependency of ours."""
    given: list[tuple[Any, ...]] = []

    class MLflowClient:
        def log_image(
            self,
            run_id: str,
            image: Image.Image,
            artifact_file: str | None = None,
            key: str | None = None,
            step: int | None = None,
        ) -> None:
            given.append((run_id, image.size, key, step))

    class CometExperiment:
        def log_image(self, image_data: Image.Image, name: str | None = None, step: int | None = None) -> None:
            given.append((image_data.size, name, step))

    class MLflow(MLFlowLogger):
        run_id, experiment = "run", MLflowClient()  # type: ignore[assignment]

        def __init__(self) -> None: ...

    class Comet(CometLogger):
        experiment = CometExperiment()  # type: ignore[assignment]

        def __init__(self) -> None: ...

    Image.new("L", (30, 20)).save(tmp_path / "sheet.png")
    for logger in (MLflow(), Comet(), CSVLogger(tmp_path)):
        log_picture(logger, tmp_path / "sheet.png", "rows", step=4)
    assert given == [("run", (30, 20), "pictures", 4), ((30, 20), "pictures", 4)]


def test_the_last_epoch_is_drawn_wherever_the_fit_ends(trainer: Any, tmp_path: Path) -> None:
    fit = trainer(max_steps=6, max_epochs=-1, callbacks=[Pictures(every_n_epochs=5)], default_root_dir=tmp_path)
    fit.fit(Rotation(ConvNet(width=4)), datamodule=Digits(batch_size=256))  # 6 steps end within the second epoch
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["epoch_001.png"]
    with pytest.warns(UserWarning, match="`Pictures` drew nothing: there are no validation images"):
        trainer(max_steps=1, callbacks=[Pictures()], default_root_dir=tmp_path / "none").fit(
            Rotation(ConvNet(width=4)), datamodule=Digits(batch_size=256, val_size=0)
        )


def test_a_second_fit_with_the_same_callback_is_drawn_too(trainer: Any, tmp_path: Path) -> None:
    """And a validation after a fit overwrites nothing."""
    watch = Pictures(every_n_epochs=5)
    for name in ("one", "two"):
        fit = trainer(max_epochs=1, callbacks=[watch], default_root_dir=tmp_path / name)
        fit.fit(Rotation(ConvNet(width=4)), datamodule=Digits(batch_size=256))
        (sheet,) = (tmp_path / name / "pictures").iterdir()
        assert sheet.name == "epoch_000.png"
    watch.every_n_epochs = 1
    sheet.unlink()
    fit.validate(fit.model, datamodule=Digits(batch_size=256), verbose=False)
    assert not sheet.exists()


def test_a_mere_validation_draws_nothing(trainer: Any, tmp_path: Path) -> None:
    """It would overwrite the first epoch's picture."""
    judge = trainer(callbacks=[Pictures()], default_root_dir=tmp_path)
    judge.validate(Rotation(ConvNet(width=4)), datamodule=Digits(batch_size=256), verbose=False)
    assert not (tmp_path / "pictures").exists()


def test_a_sheet_is_the_images_side_by_side() -> None:
    rows = {"a": torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8), "b": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}
    sheet = sheet_of(rows, scale=16)
    assert sheet.shape == (1, 2 * 20, 3 * 20)
    assert torch.equal(sheet[:, 2:18:2, 22:38:2], rows["a"][1])
    assert (sheet[:, 22:38, 2:18] == 0).all()
    assert (sheet[:, :2] == 255).all()
