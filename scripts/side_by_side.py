"""Our SimCLR and Barlow Twins beside loops as lightly's and solo-learn's users write them: accuracy and minutes.

    python scripts/side_by_side.py

Needs data/cifar10. All see the same 5,000 images of CIFAR-10 for the same epochs, on the same backbone with the same
head, optimizer and schedule, without labels; then the 10,000 test images are classified by their 20 nearest of the
5,000, by one function. Views follow one recipe, each by its library's own code: crops of 0.2 to 1 of the area, flips,
colour jitter of strength 0.5, grayscale 0.2. The loops work as their documentation has it, in float32:

- *lightly*: `LightlyDataset`, `SimCLRTransform`, a `DataLoader`, its heads and losses, a loop of plain PyTorch;
- *solo-learn style* (the library is not installable beside this torch): torchvision's transforms image by image, the
  multi-crop dataset, projections of both views in one loss, as its `simclr_loss_func` and `barlow_loss_func`, under
  Lightning's trainer, an online linear classifier beside it as its `BaseMethod` has.

Ours runs in float32, too, and once more as it does by default (`--trainer.precision auto`). Arms take turns, seed by
seed; seconds are those of training.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightly
import lightning as L
import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import BarlowTwinsLoss, NTXentLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead, SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms as T
from torchvision.datasets import ImageFolder as Pictures

from ssl_lightning import BarlowTwins, ConvNet, ImageData, SimCLR, TensorSamples, knn_accuracy, quieten
from ssl_lightning.data.samples import Split
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.precision import fast_precision
from ssl_lightning.transforms.image import CleanView, SimCLRViews

ROOT = Path(__file__).parent.parent / "data" / "cifar10"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, LR, WARMUP, WIDTH = 256, 3e-3, 0.1, 32
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
Trained = tuple[nn.Module, float]  # an encoder, and the seconds of its training


def head(method: str, dim: int) -> nn.Module:
    """Make the projection head of a method, the same in all arms."""
    return SimCLRProjectionHead(dim, dim, 128) if method == "SimCLR" else BarlowTwinsProjectionHead(dim, 256, 256)


def steps(module: nn.Module, total: int) -> tuple[torch.optim.Optimizer, Any]:
    """Make AdamW with warm-up and cosine."""
    optimizer = torch.optim.AdamW(module.parameters(), LR, weight_decay=1e-4)
    first = max(1, round(WARMUP * total))
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / first, 1.0, first)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - first)
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [first])


def by_lightly(method: str, places: list[int], epochs: int, workers: int) -> Trained:
    """Train by a loop as in lightly's documentation."""
    views = SimCLRTransform(
        input_size=32, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0, normalize={"mean": MEAN, "std": STD}
    )
    pictures = Pictures(str(ROOT / "train"))
    pictures.samples = [pictures.samples[place] for place in places]
    dataset = LightlyDataset.from_torch_dataset(pictures, transform=views)
    loader: Any = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    backbone = ConvNet(3, WIDTH)
    projector = head(method, backbone.feature_dim)
    criterion = NTXentLoss(temperature=0.5) if method == "SimCLR" else BarlowTwinsLoss()
    optimizer, schedule = steps(nn.ModuleList([backbone, projector]), epochs * len(loader))
    begun = time.monotonic()
    for _ in range(epochs):
        for (one, two), _, _ in loader:
            loss = criterion(projector(backbone(one)), projector(backbone(two)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return backbone, time.monotonic() - begun


class Crops(Dataset[Any]):
    """Several transforms of each picture, as solo-learn's datasets give them."""

    def __init__(self, pictures: Any, transform: Callable[[Any], Tensor]) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> tuple[int, list[Tensor], int]:
        picture, target = self.pictures[place]
        return place, [self.transform(picture), self.transform(picture)], target


class SoloStyle(L.LightningModule):
    """A method as solo-learn writes them, with its online classifier."""

    def __init__(self, method: str, total: int) -> None:
        super().__init__()
        self.method, self.total = method, total
        self.backbone = ConvNet(3, WIDTH)
        self.projector = head(method, self.backbone.feature_dim)
        self.classifier = nn.Linear(self.backbone.feature_dim, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of the method and of the classifier, whose features are detached."""
        _, views, targets = batch
        features = [self.backbone(view) for view in views]
        z = [self.projector(feature) for feature in features]
        loss = contrast(z[0], z[1]) if self.method == "SimCLR" else decorrelate(z[0], z[1])
        online = sum(F.cross_entropy(self.classifier(feature.detach()), targets) for feature in features) / 2
        return loss + online

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, stepped every step."""
        optimizer, schedule = steps(self, self.total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def contrast(one: Tensor, two: Tensor) -> Tensor:
    """NT-Xent over both views in one matrix (arXiv 2002.05709, Eq. 1)."""
    rows = F.normalize(torch.cat([one, two]), dim=1)
    logits = (rows @ rows.T / 0.5).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(rows)).roll(len(one)))


def decorrelate(one: Tensor, two: Tensor) -> Tensor:
    """Barlow Twins (arXiv 2103.03230, Eq. 1), with the factor of lightly's and of ours."""
    scaled = [(z - z.mean(dim=0)) / z.std(dim=0, unbiased=False).clamp_min(1e-5) for z in (one, two)]
    cross = scaled[0].T @ scaled[1] / len(one)
    diagonal = cross.diagonal()
    return (diagonal - 1).square().sum() + 5e-3 * (cross.square().sum() - diagonal.square().sum())


def by_solo(method: str, places: list[int], epochs: int, workers: int) -> Trained:
    """Train a module as solo-learn's, under Lightning."""
    transform = T.Compose([
        T.RandomResizedCrop(32, (0.2, 1.0), interpolation=T.InterpolationMode.BICUBIC),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), T.RandomGrayscale(0.2),
        T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD),
    ])  # fmt: skip
    dataset = Crops(Subset(Pictures(str(ROOT / "train")), places), transform)
    loader: Any = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    module = SoloStyle(method, epochs * len(loader))
    trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **QUIET)
    begun = time.monotonic()
    trainer.fit(module, loader)
    return module.backbone, time.monotonic() - begun


class Some(ImageData):
    """Those of the images that the others see, too, decoded."""

    num_classes, channels, image_size = 10, 3, 32

    def __init__(self, places: list[int]) -> None:
        super().__init__(batch_size=BATCH, val_size=0)
        self.places = places

    def load(self, split: Split) -> TensorSamples:
        """Decode them, as the others do in every epoch."""
        pictures = Pictures(str(ROOT / "train"))
        pixels = torch.stack([T.functional.pil_to_tensor(pictures[place][0]) for place in self.places])
        return TensorSamples(pixels, torch.tensor([pictures.targets[place] for place in self.places]))


def ours(precision: str) -> Callable[[str, list[int], int, int], Trained]:
    """Return what trains by this package."""

    def train(method: str, places: list[int], epochs: int, workers: int) -> Trained:
        data = Some(places)
        views = SimCLRViews(size=32, strength=0.5, blur=0.0, crop_scale=(0.2, 1.0), mean=MEAN, std=STD)
        spec = OptimizerSpec(lr=LR, warmup=WARMUP)
        net = ConvNet(3, WIDTH)
        model: Any = SimCLR(net, views, temperature=0.5, optimizer=spec)
        if method != "SimCLR":
            model = BarlowTwins(net, views, optimizer=spec)
        model.projector = head(method, net.feature_dim)
        format = {"precision": fast_precision("cpu") if precision == "auto" else precision}
        trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **format, **QUIET)  # type: ignore[arg-type]
        begun = time.monotonic()
        trainer.fit(model, datamodule=data)
        return model.backbone, time.monotonic() - begun

    return train


ARMS = {
    "ours, default": ours("auto"), "ours, float32": ours("32-true"), "lightly": by_lightly, "solo-learn style": by_solo,
}  # fmt: skip


def read(split: str) -> tuple[Tensor, Tensor]:
    """Read a part as normalised images."""
    pictures = Pictures(str(ROOT / split))
    pixels = torch.stack([T.functional.pil_to_tensor(picture) for picture, _ in pictures])
    return CleanView(mean=MEAN, std=STD)(pixels), torch.tensor(pictures.targets)


@torch.inference_mode()
def embed(encoder: nn.Module, images: Tensor) -> Tensor:
    """Encode images."""
    encoder.eval()
    return torch.cat([encoder(part) for part in images.split(500)]).float()


def main() -> None:
    """Train in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["SimCLR", "BarlowTwins"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    quieten()
    workers = os.cpu_count() or 1
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightly {lightly.__version__}, "
        f"{torch.get_num_threads()} threads, {workers} loader processes of the others, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {time.strftime('%Y-%m-%d')}\n"
    )
    (bank, targets), (test, truth) = read("train"), read("test")
    places = torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))[: options.images].sort().values
    bank, targets = bank[places], targets[places]

    def judge(encoder: nn.Module) -> float:
        return 100 * knn_accuracy(embed(encoder, test), truth, embed(encoder, bank), targets, 10, k=20)

    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        for method in options.methods:
            for arm, train in ARMS.items():
                L.seed_everything(seed, verbose=False)
                encoder, seconds = train(method, places.tolist(), options.epochs, workers)
                found.setdefault((method, arm), []).append((judge(encoder), seconds))
                print(f"seed {seed} {method} {arm}: {found[method, arm][-1]}", flush=True)
    torch.manual_seed(0)
    print(f"\nuntrained {judge(ConvNet(3, WIDTH)):.1f} %, pixels {judge(nn.Flatten()):.1f} %\n")
    print("| Method | Arm | kNN, %, seeds | mean | seconds | times ours, float32 |\n|---|---|---|---:|---:|---:|")
    for method in options.methods:
        base = statistics.median(seconds for _, seconds in found[method, "ours, float32"])
        for arm in ARMS:
            scores, times = zip(*found[method, arm], strict=True)
            told = ", ".join(f"{score:.1f}" for score in scores)
            middle = statistics.median(times)
            print(f"| {method} | {arm} | {told} | {statistics.mean(scores):.1f} | {middle:.0f} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
