"""A pretraining step under Lightning against a bare PyTorch loop on the same model, views and inputs.

Command: `.venv/bin/python scripts/bench_step.py` (an otherwise idle machine; about three minutes on two cores).

Both do what a pretraining must: draw indices, take a batch from the uint8 tensor, make two views, compute SimCLR's
loss, check that it is finite, step AdamW and its schedule. The two alternate, so that both see the same machine; each
number is the median over repetitions of the time of one step.
"""

import argparse
import logging
import statistics
import time
import warnings
from typing import Any

import lightning as L
import torch

from ssl_lightning.backbones import Backbone, ConvNet, ResNet
from ssl_lightning.data import Batch, ImageData, TensorSamples
from ssl_lightning.engine.optim import OptimizerSpec, configure_optimizers
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.methods import SimCLR
from ssl_lightning.transforms.image import SimCLRViews

WARM_UP = 3


class Noise(ImageData):
    """Random pixels: the time of a step does not depend on them."""

    num_classes = 10

    def __init__(self, channels: int, size: int, batch_size: int) -> None:
        super().__init__(batch_size=batch_size, val_size=0)
        self.channels, self.image_size = channels, size

    def load(self, split: str) -> TensorSamples:
        """Return 10,000 images."""
        shape = (10_000, self.channels, self.image_size, self.image_size)
        return TensorSamples(torch.randint(256, shape, dtype=torch.uint8), torch.zeros(10_000, dtype=torch.int64))


class Clock(L.Callback):
    """Times the steps of a fit after the first few."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Start after the warm-up."""
        if trainer.global_step == WARM_UP:
            self.begun = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Stop."""
        self.seconds = (time.perf_counter() - self.begun) / (trainer.global_step - WARM_UP)


def make(backbone: str, channels: int) -> SimCLR:
    """Build the method afresh."""
    torch.manual_seed(0)
    net: Backbone = ConvNet(channels) if backbone == "ConvNet" else ResNet(channels=channels)
    return SimCLR(net, SimCLRViews(), optimizer=OptimizerSpec(warmup=0.1))


def lightning_step(backbone: str, data: Noise, steps: int) -> float:
    """Time a step under Lightning, with its defaults but logger, checkpoints and progress bar."""
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps + WARM_UP, callbacks=[clock], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(make(backbone, data.channels), datamodule=data)
    return clock.seconds


class _Steps:
    """Stands for the trainer where the optimizer asks how long the fit is."""

    def __init__(self, steps: int) -> None:
        self.estimated_stepping_batches = steps


def bare_step(backbone: str, data: Noise, steps: int) -> float:
    """Time a step of a loop of a dozen lines."""
    method = make(backbone, data.channels)
    method._trainer = _Steps(steps + WARM_UP)  # type: ignore[assignment]
    method._fabric = None
    built: Any = configure_optimizers(method, method.optimizer_spec)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    data.setup("fit")
    images = data.train_samples.inputs  # type: ignore[union-attr]
    order = torch.randperm(len(images)).repeat(20)
    begun = 0.0
    for step in range(steps + WARM_UP):
        if step == WARM_UP:
            begun = time.perf_counter()
        index = order[step * data.batch_size : (step + 1) * data.batch_size]
        views = method.views(images[index], derive_generator(0, step))
        loss = method.compute_loss(views, Batch(None, index, index))["loss"]
        if not torch.isfinite(loss):
            raise ValueError("not finite")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return (time.perf_counter() - begun) / steps


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    warnings.filterwarnings("ignore")
    from lightning.fabric.utilities.rank_zero import rank_zero_module

    rank_zero_module.log.setLevel(logging.WARNING)
    versions = f"torch {torch.__version__}, lightning {L.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {repetitions} repetitions")
    print("model     channels  px  batch     bare ms  lightning ms  lightning / bare")
    for backbone, channels, size, batch, steps in (("ConvNet", 1, 28, 256, 30), ("ResNet", 3, 32, 64, 4)):
        data = Noise(channels, size, batch)
        pairs = [(bare_step(backbone, data, steps), lightning_step(backbone, data, steps)) for _ in range(repetitions)]
        bare, framed = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
        setting = f"{backbone:<8}  {channels:>8}  {size:>2}  {batch:>5}"
        print(f"{setting}  {bare:>10.1f}  {framed:>12.1f}  {framed / bare:>16.3f}")


if __name__ == "__main__":
    main()
