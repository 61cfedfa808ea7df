"""Pictures of what a method does: reconstructions beside their inputs, drawn images, puzzles and their solutions."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor

from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.loggers import log_picture
from ssl_lightning.engine.passes import evaluating
from ssl_lightning.engine.ranges import whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.evaluation.watcher import Watcher
from ssl_lightning.transforms.base import map_tensors
from ssl_lightning.transforms.image import normalisation


class Pictures(Watcher):
    """Draws, every n epochs, what a method makes of the first validation images: always the same, with the same noise.

    A method that can be watched has `pictures(images, generator)`, which returns named rows of images. They go to
    `pictures/epoch_NNN.png` in the run's folder, a row each, and to every logger that takes images: those of W&B,
    TensorBoard, MLflow and Comet.

    Args:
        every_n_epochs: Draw after every so many epochs; the last epoch is drawn in any case.
        count: Number of images a row.

    Raises:
        ValueError: If a number is out of range, or the method cannot be watched.
    """

    def __init__(self, every_n_epochs: int = 1, count: int = 12) -> None:
        whole(1, every_n_epochs=every_n_epochs, count=count)
        self.every_n_epochs, self.count = every_n_epochs, count
        self._images: Tensor | None = None
        self._epoch, self._drawn = -1, -1  # of this fit; none yet

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there is something to draw, and begin anew."""
        self._images, self._epoch, self._drawn = None, -1, -1
        if not hasattr(pl_module, "pictures"):
            raise ValueError(
                f"`Pictures`: `{type(pl_module).__name__}` has no pictures to draw; leave the callback out, or "
                "give the method `pictures(images, generator)`."
            )

    def watch(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch) -> None:
        """Keep the first images."""
        if self._images is None:
            first = batch._replace(input=map_tensors(lambda rows: rows[: self.count], batch.input))
            self._images = module.prepare(first).float()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember which epoch it is."""
        self._epoch = trainer.current_epoch

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time."""
        if not trainer.sanity_checking and self._epoch >= 0 and (self._epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the last epoch, wherever the fit ended."""
        if self._drawn == self._epoch:
            return
        if self._images is None:
            rank_zero_warn("`Pictures` drew nothing: there are no validation images; give `--data.val_size`.")
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, write, log."""
        epoch = self._drawn = self._epoch
        if not trainer.is_global_zero or self._images is None:
            return
        with evaluating(trainer, pl_module), torch.random.fork_rng(devices=[]):
            method: Any = pl_module
            rows: dict[str, Tensor] = method.pictures(self._images, derive_generator(0, "pictures"))
        sheet = sheet_of({name: to_pixels(images, pl_module) for name, images in rows.items()})
        path = Path(trainer.default_root_dir) / "pictures" / f"epoch_{epoch:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet.permute(1, 2, 0).squeeze(2).numpy()).save(path)
        for logger in trainer.loggers:
            log_picture(logger, path, ", ".join(rows), trainer.global_step)


def to_pixels(images: Tensor, module: Any) -> Tensor:
    """Undo the normalisation of images.

    Args:
        images: Normalised, `(N, C, H, W)`.
        module: Whose `clean` says how.

    Returns:
        uint8, `(N, C, H, W)`.
    """
    mean, std = normalisation(module.clean, torch.device("cpu"))
    return ((images.float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)


def sheet_of(rows: dict[str, Tensor], scale: int = 64) -> Tensor:
    """Put rows of images below each other, enlarged to about `scale` pixels each.

    Args:
        rows: Each uint8, `(N, C, H, W)`.
        scale: Least side of an image on the sheet.

    Returns:
        uint8, `(C, height, width)`, with a margin of 2 pixels around each image.
    """
    whole(1, scale=scale)
    strips = []
    for pixels in rows.values():
        times = max(1, scale // pixels.shape[-1])
        large = pixels.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
        framed = torch.nn.functional.pad(large, (2, 2, 2, 2), value=255)
        strips.append(torch.cat(list(framed), dim=2))
    return torch.cat(strips, dim=1)
