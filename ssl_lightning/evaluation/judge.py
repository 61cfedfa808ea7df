"""Applies the protocols that judge a finished encoder: kNN, linear probe, fine-tuning, rank, search by text."""

import copy
import math
import sys
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import lightning as L
import torch
from rich.progress import track
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.checkpoint import Checkpoint, require_facts, require_same_columns, tell_unknown_clean
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Samples
from ssl_lightning.data.sampling import Unlabelled
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.engine.ranges import above, between, rates, seeds, whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.evaluation.knn import knn_accuracy
from ssl_lightning.evaluation.linear_probe import linear_probe
from ssl_lightning.evaluation.rank import lidar, rankme
from ssl_lightning.evaluation.retrieval import name_texts, require_compared, scores
from ssl_lightning.functional.retrieval import chance_at, content_ids, recall_at, same
from ssl_lightning.supervised import Classifier, FreeMatch, Recipe, SemiSupervised
from ssl_lightning.transforms.base import end_alike, map_tensors
from ssl_lightning.transforms.image.channels import GrayAsColour
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import Pair

DIVERGED = 1000  # times the loss of an even guess, after fine-tuning
UNTRAINED, RAW = "untrained", "pixels"
RECALLS = (1, 5, 10)  # candidates that a search looks at
UNLABELLED = {"rank", "retrieval"}  # protocols that need no labels
COMPARING = {"zeroshot", "retrieval"}  # those of pairs


class Subject(NamedTuple):
    """What is judged.

    Attributes:
        name: The checkpoint's path, or `untrained` or `pixels`.
        method: Name of the pretraining's class, or empty.
        backbone: The encoder; null for the raw inputs as vectors.
        clean: From samples to what the encoder was trained on.
        gray: Whether gray images go to an encoder of colour.
    """

    name: str
    method: str
    backbone: Backbone | None
    clean: nn.Module
    gray: bool = False

    def adapted(self, transform: nn.Module) -> nn.Module:
        """Return a transform that also makes gray images colour ones, where the encoder wants it."""
        return GrayAsColour(transform) if self.gray else transform


def load_subject(name: str, backbone: Backbone | None, data: DataModule, trust: bool = False) -> Subject:
    """Open a checkpoint, or make a baseline.

    Args:
        name: Path of a checkpoint, `untrained`, or `pixels`: the inputs themselves, whatever they are.
        backbone: For `untrained`.
        data: That it will be judged on.
        trust: Build classes that the checkpoint names and that are neither ours nor of a plug-in.

    Returns:
        The subject.

    Raises:
        ValueError: If it cannot be opened, or does not take the data's samples.
    """
    if name == RAW:
        return Subject(name, "", None, data.clean())
    if name == UNTRAINED:
        if backbone is None:
            raise ValueError("`untrained` needs `--backbone`, such as `--backbone ConvNet`: whose random weights?")
        return Subject(name, "", copy.deepcopy(backbone), data.clean())
    opened = Checkpoint.open(name, trust=trust, argument="checkpoints")
    facts = data.facts
    gray = facts.get("channels") == 1 and opened.backbone.init_args.get("channels") == 3
    require_facts(opened.backbone, {**facts, **({"channels": 3} if gray else {})}, f"`{name}`")
    require_same_columns(opened.facts, facts, f"`{name}`")
    clean = opened.clean
    if clean is None:
        clean = data.clean()
        tell_unknown_clean(opened, clean)
    return Subject(name, opened.method, opened.backbone, clean, gray)


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

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> fraction_of(torch.tensor([0, 0, 0, 1, 1, -1]), torch.arange(6), 0.4, 2, seed=0).shape
        torch.Size([2])
    """
    between(0, 1, "(]", fraction=fraction)
    seeds(seed=seed)
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

    Raises:
        ValueError: If a number is out of its range, or the data have no labels to judge by.
    """

    def __init__(self, subject: Subject, data: DataModule, settings: Any) -> None:
        whole(1, k=settings.k, steps=settings.steps)
        whole(2, lidar_images=settings.lidar_images, views=settings.views)
        seeds(seed=settings.seed)
        above(0, lr=settings.lr)
        rates(lr=settings.lr)
        self.subject, self.data, self.settings = subject, data, settings
        self.fabric = make_fabric(settings.accelerator, settings.precision)
        self._rows: dict[str, Tensor] = {}
        assert data.train_samples is not None
        assert data.test_samples is not None
        self.train, self.test = data.train_samples, data.test_samples
        self.labelled = data.train_indices[self.train.targets[data.train_indices] >= 0]
        self.tested = (self.test.targets >= 0).nonzero()[:, 0]
        unlabelled = data.num_classes < 2 or not len(self.labelled) or not len(self.tested)
        if unlabelled and not set(settings.protocols) <= UNLABELLED:
            raise ValueError(
                f"`{type(data).__name__}` has no labels to judge by in its training or its test part; only "
                f"`--protocols rank` {'and `retrieval` need' if self._pairs() else 'needs'} none."
            )
        for protocol in sorted(COMPARING & set(settings.protocols)):
            require_compared(subject.backbone, self.train.__getitems__([0]).input, protocol)

    def _pairs(self) -> bool:
        return isinstance(self.train.__getitems__([0]).input, Pair)

    def embed(self, samples: Samples, indices: Tensor, what: str) -> Tensor:
        """Embed some clean samples, on the device, in evaluation mode.

        Args:
            samples: The data set.
            indices: Which `(M,)`.
            what: For the progress bar.

        Returns:
            `(M, d)`, float32, on the CPU.

        Raises:
            ValueError: If the encoder gives something else than finite numbers.
        """
        clean, net = self.subject.adapted(self.subject.clean), self.subject.backbone
        if net is not None:
            net = net.to(self.fabric.device).eval()
        parts = []
        loader = self.data.evaluation_loader(samples, indices)
        with torch.inference_mode(), self.fabric.autocast():
            for batch in track(loader, what, transient=True, disable=not sys.stderr.isatty()):
                ready = clean(self._moved(batch.input))
                parts.append((_vectors(ready) if net is None else net(ready)).float().cpu())
        return self._finite(torch.cat(parts))

    def _moved(self, inputs: Any) -> Any:
        return map_tensors(lambda tensor: tensor.to(self.fabric.device), inputs)

    def _finite(self, rows: Tensor) -> Tensor:
        if not rows.isfinite().all():
            raise ValueError(
                f"`{self.subject.name}` embeds samples as NaN or infinity; its training diverged, or "
                f"`precision={self.settings.precision}` is too low: try 32-true."
            )
        return rows

    def rows(self, part: str) -> Tensor:
        """Return the embeddings of the labelled training samples (`train`) or of the test samples (`test`)."""
        if part not in self._rows:
            samples, indices = (self.train, self.labelled) if part == "train" else (self.test, self.tested)
            self._rows[part] = self.embed(samples, indices, f"embedding the {part} part")
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
        """Yield the same of fine-tuning, after its last step.

        Raises:
            ValueError: If it has diverged: a model of random numbers is right by chance, which is no result.
        """
        return self._trained(Classifier, Recipe(ema=0.0))

    def semi(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield the same of FreeMatch, which also learns from the samples whose label it is not given.

        Raises:
            ValueError: If it has diverged.
        """
        return self._trained(FreeMatch, Recipe())

    def _trained(self, kind: type[Classifier], recipe: Recipe) -> Iterator[tuple[float, str, float, int]]:
        if self.subject.backbone is None:
            return
        for fraction, chosen in self._fractions():
            L.seed_everything(self.settings.seed, verbose=False)
            more: dict[str, Any] = {}
            others = None
            views = self._random(mild=True)
            if issubclass(kind, SemiSupervised):
                views = self._ending_alike(self.data.weak_views())
                more["strong_views"] = self._ending_alike(self.data.strong_views())
                if more["strong_views"] is None:
                    raise ValueError(f"`protocols=semi` needs random views, and `{type(self.data).__name__}` has none.")
            model = kind(
                self.data.num_classes, copy.deepcopy(self.subject.backbone), views=views,
                clean=self.subject.adapted(self.subject.clean), recipe=recipe,
                optimizer=OptimizerSpec("adamw", self.settings.lr, weight_decay=1e-2, warmup=0.1), **more,
            )  # fmt: skip
            if model.unlabelled_ratio:
                others = Unlabelled(self.data.train_indices, model.unlabelled_ratio)
                model.solves = self.subject.name != UNTRAINED
            trainer = L.Trainer(
                max_steps=self.settings.steps, accelerator=self.settings.accelerator, devices=1,
                precision=self.settings.precision, logger=False, enable_checkpointing=False,
                enable_model_summary=False, enable_progress_bar=sys.stderr.isatty(), limit_val_batches=0,
            )  # fmt: skip
            trainer.fit(model.train(), self.data.training_loader(self.train, chosen, self.settings.steps, others))
            loader = self.data.evaluation_loader(self.test, self.tested)
            result = trainer.test(model, loader, verbose=False)[0]
            if not result["test/loss"] <= DIVERGED * math.log(self.data.num_classes):
                raise ValueError(
                    f"`lr={self.settings.lr}` is too high to fine-tune `{self.subject.name}`: with {fraction:g} of the "
                    f"labels its test loss is {result['test/loss']:.3g} after {self.settings.steps} steps, where a "
                    f"guess has {math.log(self.data.num_classes):.2g}; lower it."
                )
            yield fraction, "accuracy", float(result["test/accuracy"]), len(chosen)

    def rank(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield RankMe of the test samples (of the training ones, where there is no test part), and LiDAR of views."""
        samples = self.test if len(self.test) else self.train
        indices = torch.arange(len(samples))
        whole = samples is self.test and len(self.tested) == len(indices)
        yield 1.0, "rankme", rankme(self.rows("test") if whole else self.embed(samples, indices, "embedding")), 0
        views = None if self.subject.backbone is None else self._random()
        if views is None:
            return
        count = min(self.settings.lidar_images, len(self.data.train_indices))
        some = self.data.train_indices[torch.linspace(0, len(self.data.train_indices) - 1, count).long()]
        yield 1.0, "lidar", lidar(self._views(views, self.train.__getitems__(some.tolist()).input)), 0

    def zeroshot(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield the accuracy of the class whose name, as a text, belongs best to the image; no label is learnt from."""
        found = self._compared(
            self._some(self.tested), name_texts(self.data.class_names, self.settings.template, self.data.facts)
        )
        targets = self.test.targets[self._some(self.tested)]
        yield 1.0, "accuracy", float((found.argmax(dim=1) == targets).double().mean()), 0

    def retrieval(self) -> Iterator[tuple[float, str, float, int]]:
        """Yield the recall of texts by images and of images by texts among the test pairs, and what chance finds."""
        some = self._some(torch.arange(len(self.test)))
        pairs = self.test.__getitems__(some.tolist()).input
        found, ids = self._compared(some, pairs.text), content_ids(pairs)
        right = same(*ids, *ids)
        for k in RECALLS:
            yield 1.0, f"image_to_text_{k}", recall_at(found, right, k), 0
        for k in RECALLS:
            yield 1.0, f"text_to_image_{k}", recall_at(found.T, right.T, k), 0
        for k in RECALLS:
            yield 1.0, f"chance_{k}", chance_at(right, k), 0

    def _some(self, indices: Tensor) -> Tensor:
        """Return the test samples that are compared, evenly chosen where they are too many."""
        if not len(indices):
            raise ValueError(f"`{type(self.data).__name__}` has no test part to search in; raise `test_size`.")
        count = min(len(indices), self.settings.candidates)
        return indices[torch.linspace(0, len(indices) - 1, count).long()]

    def _compared(self, indices: Tensor, texts: Padded) -> Tensor:
        """Compare images of the test part with texts, `(N, M)`."""
        net: Any = self.subject.backbone
        net, clean = net.to(self.fabric.device).eval(), self.subject.adapted(self.subject.clean)
        with torch.inference_mode(), self.fabric.autocast():
            ready = clean(self._moved(self.test.__getitems__(indices.tolist()).input))
            return self._finite(scores(net, ready.image, self._moved(texts), self.data.batch_size))

    def _random(self, mild: bool = False) -> nn.Module | None:
        """Return one random view of the data that ends as the encoder's clean transform does, or null."""
        return self._ending_alike(self.data.views(1, mild))

    def _ending_alike(self, views: nn.Module | None) -> nn.Module | None:
        if views is None:
            return None
        end_alike(views, self.subject.clean)
        return self.subject.adapted(views)

    def _views(self, views: nn.Module, inputs: Any) -> Tensor:
        """Embed random views of n samples, a view of all at a time, as `(n, views, d)`."""
        net: Any = self.subject.backbone
        net = net.to(self.fabric.device).eval()
        made = []
        with torch.inference_mode(), self.fabric.autocast():
            for number in range(self.settings.views):
                view = views(self._moved(inputs), derive_generator(self.settings.seed, "lidar", number))
                view = view[0] if isinstance(view, list) else view
                # the draw is of all at once and so independent of the batch size; the encoder's memory is not
                parts = [map_tensors(itemgetter(piece), view) for piece in self._slices(view)]
                made.append(torch.cat([net(part).float().cpu() for part in parts]))
        return self._finite(torch.stack(made, dim=1))

    def _slices(self, inputs: Any) -> list[slice]:
        leaves = inputs if isinstance(inputs, Tensor) else inputs[0]
        return [slice(start, start + self.data.batch_size) for start in range(0, len(leaves), self.data.batch_size)]

    def _fractions(self) -> Iterator[tuple[float, Tensor]]:
        for fraction in self.settings.fractions:
            yield (
                fraction,
                fraction_of(self.train.targets, self.labelled, fraction, self.data.num_classes, self.settings.seed),
            )


def _vectors(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise ValueError(f"`{RAW}` needs inputs that are one tensor; these are {type(inputs).__name__}.")
    return inputs.flatten(1)
