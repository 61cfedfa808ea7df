"""Pretrain a method on the whole of CIFAR-10 as lightly's benchmark does, and compare the last epoch's kNN accuracy.

Command: `.venv/bin/python scripts/gpu_cifar10.py --method SimCLR --minutes 9`, again and again until it says done: it
stops after so many minutes and goes on where it was. Needs data/cifar10. `--epochs 2` runs it briefly, also on a CPU.

Protocol: ResNet-18 with the small stem, 200 epochs of batch 128 (or 512), SGD of momentum 0.9 and weight decay 5e-4,
learning rate 0.06 x batch / 128 by a cosine, crops from 8 % of the area; kNN with k = 200 and T = 0.1 on the 10,000
test images, the bank being the 50,000 training images. bf16, channels_last, images resident on the device, backbone
compiled on a GPU. Prints the time of an epoch and the share of the device's bf16 peak. The images are JPEG copies of
CIFAR-10, so pixels differ slightly from the official ones; lightly reports the best epoch, we the last.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning import methods
from ssl_lightning.backbones import ResNet
from ssl_lightning.data import Batch, ImageFolder
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import SSLMethod
from ssl_lightning.transforms.image import MultiCropViews, SimCLRViews

PUBLISHED = {  # lightly's documentation, 200 epochs, batch 128, best epoch, percent
    "SimCLR": 84.7, "BYOL": 86.9, "MoCo": 83.8, "NNCLR": 83.4, "SimSiam": 81.9, "BarlowTwins": 84.2, "SwAV": 81.2,
    "DINO": 84.0,
}  # fmt: skip
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}  # dense bf16 operations a second, by data sheet
MULTI_CROP = ("SwAV", "DINO")


class Stopwatch(L.Callback):
    """Saves and stops after some minutes; keeps the time of each epoch, also over resumed fits."""

    def __init__(self, minutes: float, path: Path) -> None:
        self.limit, self.path = minutes * 60, path
        self.begun = time.monotonic()
        self.epochs: list[float] = []
        self.epoch_begun: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start the epoch's time."""
        self.epoch_begun = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Save and stop where the time is up."""
        left = trainer.global_step < trainer.estimated_stepping_batches
        if left and time.monotonic() - self.begun > self.limit and not trainer.should_stop:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        """Take the time of a whole epoch."""
        if self.epoch_begun is not None and not trainer.should_stop:
            self.epochs.append(time.monotonic() - self.epoch_begun)

    def state_dict(self) -> dict[str, Any]:
        """Return the times."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.epochs = state_dict["epochs"]


def make(name: str, batch: int) -> SSLMethod:
    """Build the method by the protocol."""
    views = MultiCropViews() if name in MULTI_CROP else SimCLRViews(crop_scale=(0.08, 1.0))
    if name == "DeepCluster":
        views = SimCLRViews(count=1, crop_scale=(0.08, 1.0))
    optimizer = OptimizerSpec("sgd", lr=0.06 * batch / 128, weight_decay=5e-4)
    method: SSLMethod = getattr(methods, name)(ResNet(), views=views, optimizer=optimizer)
    return method


def flops_an_image(name: str) -> float:
    """Count the operations of a training step, forward and backward, for each image."""
    method, count = make(name, 128), 8
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    views = method.views(images, torch.Generator().manual_seed(0))
    if name == "DeepCluster":
        method.assignments = torch.zeros(count, dtype=torch.int64)  # type: ignore[assignment]
    with FlopCounterMode(display=False) as counter:
        step = method.compute_loss(views, Batch(None, torch.zeros(count, dtype=torch.int64), torch.arange(count)))
        step["loss"].backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / count


def main() -> None:
    """Fit, go on, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(kind.__name__ for kind in SSLMethod.__subclasses__())
    parser.add_argument("--method", default="SimCLR", choices=names)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so many, to go on later")
    parser.add_argument("--root", default="data/cifar10")
    parser.add_argument("--limit", type=int, default=None, help="use so many training images; for a trial")
    parser.add_argument("--folder", default="runs/gpu_cifar10")
    options = parser.parse_args()
    quieten()
    logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector").setLevel(logging.WARNING)
    L.seed_everything(0, verbose=False)
    gpu = torch.cuda.is_available()
    folder = Path(options.folder) / f"{options.method}-{options.batch}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "last.ckpt"
    data = ImageFolder(
        options.root, image_size=32, batch_size=options.batch, val_size=0, limit=options.limit, resident=True
    )
    method = make(options.method, options.batch)
    if gpu:
        torch.set_float32_matmul_precision("high")
        method.backbone.compile()
    watch = Stopwatch(options.minutes, path)
    trainer = L.Trainer(
        max_epochs=options.epochs, accelerator="gpu" if gpu else "cpu", devices=1, precision="bf16-mixed", logger=False,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        callbacks=[watch, KNN(k=200, bank_size=None)],
    )  # fmt: skip
    trainer.fit(method, datamodule=data, ckpt_path=path if path.exists() else None, weights_only=False)
    if trainer.should_stop:
        steps = int(trainer.estimated_stepping_batches)
        print(f"stopped after step {trainer.global_step} of {steps}; give the same command to go on")
        return
    trainer.save_checkpoint(path)
    result: Any = trainer.test(method, datamodule=data, verbose=False)[0]
    seconds = sorted(watch.epochs)[len(watch.epochs) // 2]
    speed = len(data.train_indices) / seconds
    device = torch.cuda.get_device_name() if gpu else "CPU"
    peak = next((value for name, value in PEAK.items() if name in device), None)
    rate = speed * flops_an_image(options.method)
    report = {
        "method": options.method, "epochs": options.epochs, "batch": options.batch, "device": device,
        "images": len(data.train_indices), "knn_percent": round(100 * result["test/knn_accuracy"], 2),
        "published_percent": PUBLISHED.get(options.method), "epoch_seconds": round(seconds, 2),
        "images_per_second": round(speed), "teraflops": round(rate / 1e12, 3),
        "share_of_peak": round(rate / peak, 3) if peak else None, "torch": torch.__version__,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    print("done")


if __name__ == "__main__":
    main()
