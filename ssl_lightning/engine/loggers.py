"""What Lightning's loggers do not have in common: pictures, tables, files, and a W&B run that goes on."""

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger
from PIL import Image
from torch import Tensor

from ssl_lightning.engine.processes import first_process

PROJECT = "ssl-lightning"
RUN_ID = "wandb-run-id"  # file in a run's folder


def wandb_logger(folder: Path, mode: Any) -> WandbLogger:
    """Return a logger to W&B, which goes on with the W&B run of the folder if there is one.

    Args:
        folder: Of the run; the W&B run has its name, and the group that `WANDB_RUN_GROUP` says, as `compare` does.
        mode: `online` or `offline`.
    """
    # W&B writes in a process of its own, which outlives a change of the working directory
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RUN_ID
    if not file.is_file() and first_process():
        file.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    known = file.read_text(encoding="utf-8").strip() if file.is_file() else None
    resume: dict[str, Any] = (
        {"resume": "allow"} if mode == "online" else {}
    )  # offline, W&B puts them together when they are synced
    group = os.environ.get("WANDB_RUN_GROUP")
    return WandbLogger(
        project=PROJECT, name=folder.name, save_dir=folder, mode=mode, id=known, group=group, **resume
    )  # fmt: skip


def log_step(trainer: L.Trainer, numbers: dict[str, Tensor]) -> None:
    """Log numbers of a step, which in rounds counts on from round to round; Lightning's own `log` takes far longer."""
    if trainer.is_global_zero and trainer.loggers:
        told, step = {name: float(value.detach()) for name, value in numbers.items()}, trainer.fit_loop.epoch_loop
        for logger in trainer.loggers:
            logger.log_metrics(told, step=step._batches_that_stepped)


def log_picture(logger: Logger, path: Path, caption: str, step: int, name: str = "pictures") -> None:
    """Give a picture to a logger, if it takes images.

    Args:
        logger: W&B's, TensorBoard's, MLflow's or Comet's; others, such as a CSV file, are passed over.
        path: Of the PNG file.
        caption: For W&B.
        step: The Trainer's global step; W&B counts its own.
        name: Under which it is logged.
    """
    image = Image.open(path)
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [image], caption=[caption])
    elif isinstance(logger, MLFlowLogger):
        experiment.log_image(logger.run_id, image, key=name.replace("/", "_"), step=step)
    elif isinstance(logger, CometLogger):
        experiment.log_image(image, name=name, step=step)
    elif hasattr(experiment, "add_image"):  # TensorBoard's
        from torchvision.transforms.functional import pil_to_tensor

        experiment.add_image(name, pil_to_tensor(image), global_step=step)


def log_table(loggers: Iterable[Logger], name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Give a table to W&B; the others have it as a file."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and first_process():
            logger.log_table(name, list(columns), data=[list(row) for row in rows])


def log_files(loggers: Iterable[Logger], name: str, kind: str, paths: Sequence[Path]) -> None:
    """Keep files with a run, as an artifact of W&B or of MLflow.

    Args:
        loggers: Of the run.
        name: Of the artifact; W&B keeps its versions.
        kind: `model` or `dataset`.
        paths: Of the files; those that are not there are passed over.
    """
    there = [path for path in paths if path.is_file()]
    if not first_process() or not there:
        return
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(name, kind)
            for path in there:
                artifact.add_file(str(path))
            logger.experiment.log_artifact(artifact)
        elif isinstance(logger, MLFlowLogger):
            for path in there:
                logger.experiment.log_artifact(logger.run_id, str(path), artifact_path=name)
