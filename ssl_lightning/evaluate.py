"""The command `evaluate`: how good a finished encoder is, on any data set, in one table that grows."""

import copy
import datetime
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from rich.progress import track
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone, describe
from ssl_lightning.classifier import Classifier, describe_briefly, load_backbone
from ssl_lightning.cli import Parser, load_plugins, quieten, say
from ssl_lightning.data.base import ImageData, Images
from ssl_lightning.evaluation import knn_accuracy, lidar, linear_probe, rankme
from ssl_lightning.evaluation.knn import require_temperature
from ssl_lightning.experiments.results import PROTOCOLS, markdown, read, write
from ssl_lightning.mistakes import meant
from ssl_lightning.optim import OptimizerSpec
from ssl_lightning.seeding import derive_generator
from ssl_lightning.views import CleanView, RandomView, SimCLRViews

UNTRAINED, PIXELS = "untrained", "pixels"


class Subject(NamedTuple):
    """What is judged.

    Attributes:
        name: The checkpoint's path, or `untrained` or `pixels`.
        method: Name of the pretraining's class, or empty.
        backbone: The encoder; null for raw pixels.
        clean: uint8 images to what the encoder was trained on.
        channels: Of its input.
    """

    name: str
    method: str
    backbone: Backbone | None
    clean: nn.Module
    channels: int


class Adapted(nn.Module):
    """Gives gray images the three channels of a colour backbone, before a transform.

    Args:
        transform: uint8 images, and perhaps a generator, to what a backbone takes.
        channels: That it takes.
    """

    def __init__(self, transform: nn.Module, channels: int) -> None:
        super().__init__()
        self.transform, self.channels = transform, channels

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """Transform images `(N, C, H, W)`, with C expanded."""
        if images.shape[1] == 1 < self.channels:
            images = images.expand(-1, self.channels, -1, -1)
        return self.transform(images, generator)


def load_subject(name: str, backbone: Backbone | None, data: ImageData) -> Subject:
    """Open a checkpoint, or make a baseline.

    Args:
        name: Path of a checkpoint, `untrained` or `pixels`.
        backbone: For `untrained`.
        data: That it will be judged on.

    Returns:
        The subject.

    Raises:
        ValueError: If it cannot be opened, or does not take the data's images.
    """
    if name == PIXELS:
        return Subject(name, "", None, CleanView(), data.channels)
    if name == UNTRAINED:
        if backbone is None:
            raise ValueError("`untrained` needs `--backbone`, such as `--backbone ConvNet`: whose random weights?")
        return Subject(name, "", copy.deepcopy(backbone), CleanView(), data.channels)
    loaded = load_backbone(name, None)
    saved = torch.load(name, map_location="cpu", weights_only=True)
    channels = int(loaded.init_args.get("channels", data.channels))
    if data.channels != channels and data.channels != 1:
        raise ValueError(
            f"`{name}` takes images of {channels} channel(s) and `{type(data).__name__}` has {data.channels}; give "
            f"data of {channels}, for a folder by `--data.channels {channels}`."
        )
    if "clean" not in saved:  # of a Classifier, or of a method with an evaluation transform of its own
        rank_zero_warn(f"`{name}` does not say how its images were normalised; taken is the default of `CleanView`.")
    return Subject(name, saved.get("method", ""), loaded, CleanView(**saved.get("clean", {})), channels)


def fraction_of(targets: Tensor, indices: Tensor, fraction: float, num_classes: int, seed: int) -> Tensor:
    """Choose a fraction of the labelled samples, of each class alike, at least one.

    Args:
        targets: Of the whole training part `(N,)`; -1 where unlabelled.
        indices: Positions to choose from `(M,)`.
        fraction: In (0, 1].
        num_classes: Number of classes.
        seed: A smaller fraction is a part of a larger one with the same seed.

    Returns:
        Positions, in order.

    Example:
        >>> fraction_of(torch.tensor([0, 0, 0, 1, 1, -1]), torch.arange(6), 0.4, 2, seed=0).shape
        torch.Size([2])
    """
    chosen = []
    for label in range(num_classes):
        mine = indices[targets[indices] == label]
        count = min(len(mine), max(1, round(fraction * len(mine))))
        chosen.append(mine[torch.randperm(len(mine), generator=derive_generator(seed, "labels", label))[:count]])
    return torch.cat(chosen).sort().values


class Judge:
    """Applies the protocols to one subject on one data set; embeddings are computed once, when first needed.

    Args:
        subject: To be judged.
        data: Set up for `fit` and `test`.
        settings: Of the command.
    """

    def __init__(self, subject: Subject, data: ImageData, settings: Any) -> None:
        self.subject, self.data, self.settings = subject, data, settings
        self.fabric = _fabric(settings.accelerator, settings.precision)
        self._rows: dict[str, Tensor] = {}
        assert data.train_images is not None
        assert data.test_images is not None
        self.train, self.test = data.train_images, data.test_images
        self.labelled = data.train_indices[self.train.targets[data.train_indices] >= 0]
        self.tested = (self.test.targets >= 0).nonzero()[:, 0]
        unlabelled = data.num_classes < 2 or not len(self.labelled) or not len(self.tested)
        if unlabelled and set(settings.protocols) != {"rank"}:
            raise ValueError(
                f"`{type(data).__name__}` has no labels to judge by in its training or its test part; only "
                "`--protocols rank` needs none."
            )

    def embed(self, images: Images, indices: Tensor, what: str) -> Tensor:
        """Embed some clean images, on the device, in evaluation mode.

        Args:
            images: The data set.
            indices: Which `(M,)`.
            what: For the progress bar.

        Returns:
            `(M, d)`, float32, on the CPU.

        Raises:
            ValueError: If the encoder gives something else than finite numbers.
        """
        view = Adapted(self.subject.clean, self.subject.channels)
        net = self.subject.backbone
        if net is not None:
            net = net.to(self.fabric.device).eval()
        parts = []
        loader = self.data.evaluation_loader(images, indices)
        with torch.inference_mode(), self.fabric.autocast():
            for batch in track(loader, what, transient=True, disable=not sys.stderr.isatty()):
                ready = view(batch.input.to(self.fabric.device))
                parts.append((ready.flatten(1) if net is None else net(ready)).float().cpu())
        return self._finite(torch.cat(parts))

    def _finite(self, rows: Tensor) -> Tensor:
        if not rows.isfinite().all():
            raise ValueError(
                f"`{self.subject.name}` embeds images as NaN or infinity; its training diverged, or "
                f"`precision={self.settings.precision}` is too low: try 32-true."
            )
        return rows

    def rows(self, part: str) -> Tensor:
        """Return the embeddings of the labelled training images (`train`) or of the test images (`test`)."""
        if part not in self._rows:
            images, indices = (self.train, self.labelled) if part == "train" else (self.test, self.tested)
            self._rows[part] = self.embed(images, indices, f"embedding the {part} part")
        return self._rows[part]

    def knn(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield fraction, metric, value and number of labels of the kNN accuracy."""
        value = knn_accuracy(
            self.rows("test"), self.test.targets[self.tested], self.rows("train"), self.train.targets[self.labelled],
            self.data.num_classes, self.settings.k, self.settings.temperature,
        )  # fmt: skip
        yield 1.0, "accuracy", value, len(self.labelled)

    def linear(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield the same of the linear probe, for each fraction of the labels."""
        for fraction, chosen in self._fractions():
            rows = self.rows("train")[torch.isin(self.labelled, chosen)]
            value = linear_probe(
                rows, self.train.targets[chosen], self.rows("test"), self.test.targets[self.tested],
                self.data.num_classes, self.settings.seed,
            )  # fmt: skip
            yield fraction, "accuracy", value, len(chosen)

    def finetune(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield the same of fine-tuning, after its last step."""
        if self.subject.backbone is None:
            say(f"`{self.subject.name}` has no weights to fine-tune; left out")
            return
        channels = self.subject.channels
        for fraction, chosen in self._fractions():
            L.seed_everything(self.settings.seed, verbose=False)
            views = RandomView(
                crop_scale=(0.5, 1), flip=0.5 * (self.data.channels > 1), jitter=(0, 0, 0, 0), grayscale=0
            )
            views.clean = self.subject.clean  # type: ignore[assignment]
            model = Classifier(
                self.data.num_classes, copy.deepcopy(self.subject.backbone), views=Adapted(views, channels),
                clean=Adapted(self.subject.clean, channels), channels_last=self.data.channels > 1,
                optimizer=OptimizerSpec("adamw", self.settings.lr, weight_decay=1e-2, warmup=0.1),
            )  # fmt: skip
            trainer = L.Trainer(
                max_steps=self.settings.steps, accelerator=self.settings.accelerator, devices=1,
                precision=self.settings.precision, logger=False, enable_checkpointing=False,
                enable_model_summary=False, enable_progress_bar=sys.stderr.isatty(), limit_val_batches=0,
            )  # fmt: skip
            trainer.fit(model.train(), self.data.training_loader(self.train, chosen, self.settings.steps))
            loader = self.data.evaluation_loader(self.test, self.tested)
            result = trainer.test(model, loader, verbose=False)[0]
            yield fraction, "accuracy", float(result["test/accuracy"]), len(chosen)

    def rank(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield RankMe of the test images, and LiDAR of views of training images."""
        indices = torch.arange(len(self.test))
        rows = self.rows("test") if len(self.tested) == len(indices) else self.embed(self.test, indices, "embedding")
        yield 1.0, "rankme", rankme(rows), 0
        if self.subject.backbone is None:
            return
        count = min(self.settings.lidar_images, len(self.data.train_indices))
        some = self.data.train_indices[torch.linspace(0, len(self.data.train_indices) - 1, count).long()]
        yield 1.0, "lidar", lidar(self._views(self.train.__getitems__(some.tolist()).input)), 0

    def _views(self, images: Tensor) -> Tensor:
        """Embed random views of images `(n, C, H, W)`, a view of all at a time, as `(n, views, d)`."""
        random = SimCLRViews(count=1).view
        random.clean = self.subject.clean  # type: ignore[assignment]
        seeded = Adapted(random, self.subject.channels)
        net: Any = self.subject.backbone
        net = net.to(self.fabric.device).eval()
        made = []
        with torch.inference_mode(), self.fabric.autocast():
            for number in range(self.settings.views):
                generator = derive_generator(self.settings.seed, "lidar", number)
                view = seeded(images.to(self.fabric.device), generator)
                # the draw is of all at once and so independent of the batch size; the encoder's memory is not
                made.append(torch.cat([net(part).float().cpu() for part in view.split(self.data.batch_size)]))
        return self._finite(torch.stack(made, dim=1))

    def _fractions(self) -> Iterator[tuple[float, Tensor]]:
        for fraction in self.settings.fractions:
            yield (
                fraction,
                fraction_of(self.train.targets, self.labelled, fraction, self.data.num_classes, self.settings.seed),
            )


def _fabric(accelerator: str, precision: Any) -> L.Fabric:
    try:
        return L.Fabric(accelerator=accelerator, devices=1, precision=precision)
    except Exception as error:  # Lightning raises many kinds for what is missing or misspelt
        raise ValueError(
            f"`accelerator={accelerator}` with `precision={precision}` cannot be had here: {error} Leave both out for "
            "what there is."
        ) from error


def describe_data(data: ImageData) -> str:
    """Name a data set so that two folders, or two limits, are not taken for one."""
    root = f" {Path(data.root).name}" if type(data).__name__ == "ImageFolder" else ""  # type: ignore[attr-defined]
    return f"{type(data).__name__}{root}" + (f", {data.limit} images" if data.limit else "")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names or ("",):
        if name not in PROTOCOLS:
            raise ValueError(
                f"`protocols`: there is no `{name}`{meant(name, PROTOCOLS)}; there are {', '.join(PROTOCOLS)}."
            )
    return tuple(dict.fromkeys(names))


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"`fractions={text}` must be numbers above 0 and up to 1, with commas: 0.01,0.1,1.0.")
    return tuple(dict.fromkeys(shares))


def _check(settings: Any, path: Path) -> None:
    # before hours of work, not after
    for name, least in (("k", 1), ("steps", 1), ("lidar_images", 2), ("views", 2), ("seed", 0)):
        if settings[name] < least:
            raise ValueError(f"`{name}={settings[name]}` must be at least {least}.")
    if settings.seed >= 2**32:
        raise ValueError(f"`seed={settings.seed}` must be below 2^32.")
    if not 0 < settings.lr < math.inf:
        raise ValueError(f"`lr={settings.lr}` must be a number above 0; 1e-3 is the default.")
    require_temperature(settings.temperature)
    if path.suffix != ".csv" or path.is_dir():  # results.md is written beside it
        raise ValueError(f"`results={path}` must be a file that ends in .csv, such as runs/evaluate/results.csv.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`results={path}`: its folder cannot be made ({error}); give a file elsewhere.") from error
    read(path)


def parser() -> Parser:
    """Return the command's options."""
    options = Parser(
        "ssl-lightning evaluate", allow_abbrev=False, description="Judge encoders on the test part of a data set."
    )
    options.add_argument("checkpoints", nargs="+", type=str, help="files, or `untrained` or `pixels` for baselines")
    options.add_subclass_arguments(ImageData, "data", required=True, help="what to judge on")
    options.add_subclass_arguments(Backbone, "backbone", required=False, help="of `untrained`")
    options.add_argument("--protocols", type=str, default=",".join(PROTOCOLS), help="any of " + ", ".join(PROTOCOLS))
    options.add_argument("--fractions", type=str, default="0.01,0.1,1.0", help="of the labels, for linear and finetune")
    options.add_argument("--k", type=int, default=200, help="neighbours of kNN")
    options.add_argument("--temperature", type=float, default=0.1, help="of their weights")
    options.add_argument("--steps", type=int, default=1000, help="of fine-tuning")
    options.add_argument("--lr", type=float, default=1e-3, help="of fine-tuning (AdamW, cosine)")
    options.add_argument("--lidar_images", type=int, default=500, help="images that LiDAR looks at")
    options.add_argument("--views", type=int, default=20, help="views of each")
    options.add_argument("--seed", type=int, default=0, help="of label subsets and fine-tuning")
    options.add_argument("--accelerator", type=str, default="auto")
    options.add_argument("--precision", type=str, default="32-true", help="such as bf16-mixed")
    options.add_argument("--results", type=str, default="runs/evaluate/results.csv", help="the table, which grows")
    options.link_arguments("data.channels", "backbone.init_args.channels", apply_on="instantiate")
    options.link_arguments("data.image_size", "backbone.init_args.image_size", apply_on="instantiate")
    return options


def main(arguments: list[str]) -> int:
    """Judge, and write the table.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, the checkpoints or the data.
    """
    quieten()
    load_plugins()
    options = parser()
    settings = options.parse_args(arguments)
    protocols, fractions = _names(settings.protocols), _shares(settings.fractions)
    path = Path(settings.results)
    _check(settings, path)
    L.seed_everything(settings.seed, verbose=False)
    built = options.instantiate_classes(settings)
    settings.protocols, settings.fractions = protocols, fractions
    data: ImageData = built.data
    data.setup("fit")
    data.setup("test")
    subjects = [load_subject(name, built.get("backbone"), data) for name in settings.checkpoints]
    for subject in subjects:
        judge = Judge(subject, data, settings)
        for protocol in settings.protocols:
            _run(judge, protocol, path)
    if path.exists():
        say(f"{markdown(read(path))}table: {path}, {path.with_suffix('.md')}")
    return 0


def _run(judge: Judge, protocol: str, path: Path) -> None:
    subject, begun = judge.subject, time.monotonic()
    found: Callable[[], Iterator[tuple[float, str, float, int]]] = getattr(judge, protocol)
    for fraction, metric, value, labels in found():
        row = {
            "checkpoint": subject.name, "data": describe_data(judge.data), "protocol": protocol,
            "fraction": f"{fraction:g}", "metric": metric, "seed": str(judge.settings.seed), "method": subject.method,
            "backbone": describe_briefly(describe(subject.backbone)) if subject.backbone is not None else "",
            "labels": str(labels), "value": f"{value:.6g}", "seconds": f"{time.monotonic() - begun:.1f}",
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        write(path, [row])
        begun = time.monotonic()
