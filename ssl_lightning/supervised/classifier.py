"""The supervised module: from scratch, as a linear probe, or fine-tuned from a pretrained checkpoint."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import as_backbone
from ssl_lightning.checkpoint import Checkpoint, match_classes, require_facts, require_same_columns
from ssl_lightning.data.of_trainer import clean_for, facts_of, require_batch, view_for
from ssl_lightning.data.samples import Batch, learnt_from
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.loggers import log_step
from ssl_lightning.engine.naming import arguments
from ssl_lightning.engine.optim import OptimizerSpec, as_spec, configure_optimizers, enough_samples, require_finite
from ssl_lightning.engine.ranges import between, of_kind
from ssl_lightning.engine.resume import count_epoch, position
from ssl_lightning.engine.seeding import derive_generator, seed_draws
from ssl_lightning.learner import Learner
from ssl_lightning.supervised.frozen import EncodesOnce
from ssl_lightning.supervised.head import put_head, solve_head
from ssl_lightning.supervised.mc_dropout import dropout_layers, listen, mc_dropout, require_dropout
from ssl_lightning.supervised.recipe import Averaging, Recipe, as_recipe, class_weights
from ssl_lightning.supervised.running import RunningMean
from ssl_lightning.transforms.base import as_views


class Classifier(Learner):
    """A linear classifier on a backbone, trained with labels.

    From scratch without `checkpoint`; with it, fine-tuned, or with `freeze` a linear probe. It keeps the names of the
    classes it learnt, and compares those of other data by name.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder, any module from samples to vectors; null for the one of `checkpoint`.
        checkpoint: Of a pretraining (or of another classifier), whose backbone weights and clean transform are taken.
        freeze: Learn the head alone; the backbone stays in evaluation mode, as one without weights does anyway.
        dropout: Probability of dropping a value of the embedding before the head; MC dropout draws there.
        views: One random view for training batches; null for the weak one of the data, unless the recipe says none.
        optimizer: The optimizer to build, and its schedule.
        recipe: How it is trained beside that: augmentation, a first head, averaged weights, balanced classes.
        channels_last: Keep inputs and convolutions in channels-last memory format; null for what is faster: with
            convolutional encoders of ours, of torchvision and of timm.
        clean: Transform that makes the input of evaluation; null for that of the checkpoint, of `views`, or of the
            data.

    Raises:
        ValueError: If there is neither backbone nor checkpoint, or they do not fit each other.
    """

    unlabelled_ratio: int = 0  # unlabelled samples that come with each labelled one in training
    solvable: ClassVar[bool] = True  # the head can be found by logistic regression
    averages: ClassVar[bool] = True  # its weights can be averaged over steps

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module | None = None,
        checkpoint: str | None = None,
        freeze: bool = False,
        dropout: float = 0.0,
        views: Any = None,
        optimizer: OptimizerSpec | None = None,
        recipe: Recipe | None = None,
        channels_last: bool | None = None,
        clean: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "views", "strong_views", "clean"])
        self.optimizer_spec, self.recipe = as_spec(optimizer), as_recipe(recipe)
        of_kind(nn.Module, "CleanView()", clean=clean)
        if num_classes < 2:
            raise ValueError(
                f"`num_classes={num_classes}` must be at least 2 to classify; a folder without class folders has "
                "no classes: where people label, name them by `--classes cat,dog`."
            )
        between(0, 1, "[)", dropout=dropout)
        given = None if backbone is None else as_backbone(backbone)
        fixed = given is not None and not any(True for _ in given.parameters())  # as of embeddings from elsewhere
        if freeze and checkpoint is None and not fixed:
            raise ValueError(
                "`freeze=true` without `checkpoint` would probe random weights; give a pretrained checkpoint."
            )
        if given is None and checkpoint is None:
            raise ValueError(
                "`backbone` and `checkpoint` are both missing; give a backbone (such as ConvNet), a checkpoint, or "
                "both."
            )
        opened = None if checkpoint is None else Checkpoint.open(checkpoint, given, clean)
        self.backbone: Any = cast(Any, given if opened is None else opened.backbone)
        self.format_as(channels_last)
        trained = opened.clean if opened is not None else None
        self.take(None if views is None else as_views(views, 1), clean or trained)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.backbone.feature_dim, num_classes))
        self.frozen = freeze or fixed
        self.solves = self.recipe.probe and self.solvable and (fixed or checkpoint is not None)
        self.facts = {}
        self._pretrained_on = {} if opened is None else opened.facts
        self._once: EncodesOnce | None = None  # of a frozen encoder
        self._weights: Tensor | None = None  # of the classes in the loss; null for none
        self._numbers: Tensor | None = None  # of the data's classes among the model's; null where they are the same
        if self.frozen:
            self.backbone.requires_grad_(False).eval()
        self._count_classes(num_classes)

    def _count_classes(self, num_classes: int) -> None:
        self.num_classes = num_classes
        for part in ("train", "val", "test"):
            self.add_module(f"{part}_loss", RunningMean())
            self.add_module(f"{part}_accuracy", RunningMean(counts=True))

    def configure_callbacks(self) -> list[Callback]:
        """Average the weights, as the recipe says."""
        averages = self.recipe.ema > 0 and self.averages and not (self.frozen and self.solves)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        has = any(isinstance(callback, Averaging) for callback in callbacks)  # of a fit before
        return [Averaging(self.recipe.ema)] if averages and not has else []

    def suggested_views(self) -> nn.Module | None:
        """Return a weak view of the data, as the recipe says; a frozen encoder whose head is solved has none."""
        if not self.recipe.augment or (self.frozen and self.solves):
            return None
        return view_for(self.trainer, "weak_views")

    def heads(self) -> list[nn.Linear]:
        """Return the last layers, whose outputs are the classes."""
        return [self.head[1]]  # type: ignore[list-item]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def embed(self, inputs: Any) -> Tensor:
        """Encode clean inputs to embeddings `(N, feature_dim)`; a frozen encoder encodes each sample once."""
        embedding: Tensor = self.backbone(inputs) if self._once is None else self._once.embed(inputs)
        return embedding

    def forward(self, inputs: Any) -> Tensor:
        """Return logits `(N, num_classes)` of clean inputs, as `prepare` makes them."""
        logits: Tensor = self.head(self.embed(inputs))
        return logits

    def member_logits(self, inputs: Any) -> Tensor:
        """Return the logits of all that are trained together, `(members, N, num_classes)`; here of one."""
        return self(inputs)[None]  # type: ignore[no-any-return]

    def sample_logits(self, inputs: Any, members: int | None, seed: int) -> Tensor:
        """Draw logits by MC dropout; what comes before the first dropout is run once.

        Args:
            inputs: Clean inputs of N samples.
            members: Number of dropout masks; null for 20.
            seed: Of the masks, which depend on nothing else.

        Returns:
            `(members, N, num_classes)`.

        Raises:
            ValueError: If the model has no dropout to draw from.

        Reference:
            Y. Gal, Z. Ghahramani, Dropout as a Bayesian Approximation, ICML 2016, arXiv 1506.02142.
        """
        members = 20 if members is None else members
        if self.frozen:  # its encoder never drops while the head learns
            return mc_dropout(self.head, self.embed(inputs), members, seed)
        if any(layer.p > 0 for layer in dropout_layers(self.backbone)):
            hidden = self.backbone.trunk(inputs)
            return mc_dropout(self, hidden, members, seed, lambda hidden: self.head(self.backbone.rest(hidden)))
        embedding, drops = listen(self.embed, inputs)
        if drops:  # by a function in its forward, which no layer shows
            return mc_dropout(self, inputs, members, seed)
        return mc_dropout(self.head, embedding, members, seed)

    def require_samples(self, members: int | None) -> None:
        """Check that there is something to draw from.

        Args:
            members: As for `sample_logits`.

        Raises:
            ValueError: If the model has no dropout.
        """
        require_dropout(self.head if self.frozen else self)

    def prepare(self, batch: Batch, random: bool = False) -> Any:
        """Return what the backbone takes of a batch.

        Args:
            batch: On the device, its input as the data set holds it.
            random: A random view, a function of seed, step and rank, where the classifier has views; else clean input.
        """
        if random and self.views is not None:
            epoch, number, rank = position(self) if self._trainer else (0, 1, 0)
            generator = derive_generator(self._seed, "views", epoch, number - 1, rank)
            inputs = self.views(batch.input, generator) if batch.views is None else batch.views
            return self._format(inputs[0] if isinstance(inputs, list) else inputs)
        inputs = self._format((self.clean or clean_for(self._trainer))(batch.input))
        if self._once is not None:
            self._once.note(inputs, batch)
        return inputs

    @contextmanager
    def passing(self, loader: Any) -> Iterator[None]:
        """Pass over a loader, in every process: what a frozen encoder makes of it is looked up, and remembered.

        Args:
            loader: Of a data module of ours.
        """
        with nullcontext() if self._once is None else self._once.passing(loader):
            yield

    def setup(self, stage: str) -> None:
        """Take over the facts of the data, if they fit."""
        super().setup(stage)
        mine = type(self).prepare is Classifier.prepare  # else what it makes of a batch is its own affair
        weighs = any(True for _ in self.backbone.parameters())
        self._once = EncodesOnce(self) if self.frozen and mine and weighs else None
        if stage == "fit":
            self._require_same_classes()
        found = facts_of(self.trainer)
        require_facts(self.backbone, found, f"the backbone `{type(self.backbone).__name__}`")
        require_same_columns(self.facts or self._pretrained_on, found, "the checkpoint")
        classes = found.get("num_classes", self.num_classes)
        if stage == "fit" and classes != self.num_classes:
            raise ValueError(
                f"`num_classes={self.num_classes}` of the classifier is not the data's {classes}; labels would be out "
                "of range. Leave it out on the command line, or pass `num_classes=data.num_classes`."
            )
        if not self.facts or stage == "fit":
            self.facts = found

    def _match(self) -> None:
        """Compare the classes of the data with those learnt, by name."""
        theirs = facts_of(self.trainer).get("class_names")
        mine: Sequence[str] = self.facts.get("class_names") or ()
        self._numbers = None
        if theirs is not None and mine and tuple(theirs) != tuple(mine):
            self._numbers = match_classes(mine, theirs, "the checkpoint")

    def on_fit_start(self) -> None:
        """Refuse to go on from a checkpoint with data of other classes."""
        self._require_same_classes()

    def on_train_start(self) -> None:
        """Count the labels of each class, and find the first head, or of a frozen encoder the only one."""
        solves, looks_up = self.solves and (self.frozen or not self.global_step), self._once and self.views is None
        if not solves and not self.recipe.class_balance and not looks_up:
            return
        samples, indices = learnt_from(self.trainer.train_dataloader)
        if self._once is not None:
            self._once.learn(self.trainer.train_dataloader, samples, indices)
        targets = samples.targets[indices]
        counts = torch.bincount(targets[targets >= 0].cpu(), minlength=self.num_classes)
        self._weights = class_weights(counts, self.recipe.class_balance) if self.recipe.class_balance else None
        if solves:
            put_head(self.heads()[0], solve_head(self, samples, indices))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """End the fit of a head that is solved: the step that it took, of rate 0, is for Lightning to count.

        Not where a callback learns from the steps, as `VAAL` does.
        """
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        others = any(getattr(callback, "needs_fit", False) for callback in callbacks)
        self.trainer.should_stop |= self.frozen and self.solves and not others

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule; a head that is solved has a rate of 0."""
        spec = replace(self.optimizer_spec, lr=0.0) if self.frozen and self.solves else self.optimizer_spec
        return configure_optimizers(self, spec)  # type: ignore[return-value]

    def _require_same_classes(self) -> None:
        theirs, mine = facts_of(self.trainer).get("class_names"), self.facts.get("class_names")
        if theirs is not None and mine and tuple(theirs) != tuple(mine):
            raise ValueError(
                f"the classifier has learnt the classes {', '.join(mine)}, and the data have {', '.join(theirs)}, in "
                "this order; give the data of its run, or begin with a new one."
            )

    def on_validation_start(self) -> None:
        """Match the classes, and find what is encoded already."""
        super().on_validation_start()
        self._match()
        if self._once is not None:
            self._once.look(self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Match the classes, and find what is encoded already."""
        self._match()
        if self._once is not None:
            self._once.look(self.trainer.test_dataloaders)

    def _targets(self, batch: Batch) -> Tensor:
        if self._numbers is None:
            return batch.target
        numbers = self._numbers.to(batch.target.device)
        return torch.where(batch.target >= 0, numbers[batch.target.clamp(min=0)], batch.target)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log cross-entropy and accuracy; unlabelled samples do not count."""
        require_batch(batch)
        count_epoch(self.trainer)
        # dropout draws from the global generator: seeded by the step, a resumed run draws the same
        seed_draws(self.device, self._seed, "dropout", *position(self))
        with enough_samples(len(batch.target), 1, self):
            loss = self._evaluate(self.prepare(batch, random=True), batch.target, "train")
        require_finite(loss, self, batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log cross-entropy and accuracy."""
        require_batch(batch)
        self._evaluate(self.prepare(batch), self._targets(batch), "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log cross-entropy and accuracy."""
        require_batch(batch)
        self._evaluate(self.prepare(batch), self._targets(batch), "test")

    def _evaluate(self, inputs: Any, targets: Tensor, part: str) -> Tensor:
        members = self.member_logits(inputs) if part == "train" else self(inputs)[None]
        loss = self._loss(members, targets, part)
        self._note(loss / len(members), average(members), targets, part)
        return loss

    def _loss(self, members: Tensor, targets: Tensor, part: str = "train") -> Tensor:
        """Return the mean cross-entropy of the labelled samples, summed over members `(members, N, C)`."""
        smoothing = self.recipe.label_smoothing if part == "train" else 0.0
        weight = (
            None if self._weights is None or part != "train" else onto(self._weights, members.device, members.dtype)
        )
        totals = [
            cross_entropy(logits, targets, weight, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
            for logits in members
        ]
        return torch.stack(totals).sum() / (targets >= 0).sum().clamp(min=1)  # a sum: each learns as it would alone

    def _note(self, loss: Tensor, logits: Tensor, targets: Tensor, part: str = "train") -> None:
        """Count loss and accuracy of a batch."""
        known = targets >= 0
        getattr(self, f"{part}_loss").update(loss.detach(), known.sum())
        getattr(self, f"{part}_accuracy").update(logits.detach().argmax(dim=1) == targets, known)
        # once an epoch: Lightning's `log` takes longer than the step of a small model
        if part == "train" and self.trainer.is_last_batch:
            self._log("train")
        elif part == "train" and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            log_step(self.trainer, {"train/step_loss": loss})

    def _log(self, part: str) -> None:
        numbers = {f"{part}/{name}": getattr(self, f"{part}_{name}") for name in ("loss", "accuracy")}
        self.log_dict(numbers, on_step=False, on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Log where the epoch ended before its last step, which logs."""
        if not self.trainer.is_last_batch:
            self._log("train")

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample: all take part in the mean."""
        self._log("val")
        if self._once is not None:
            self._once.hand_over()

    def on_test_epoch_end(self) -> None:
        """Log in every process."""
        self._log("test")
        if self._once is not None:
            self._once.hand_over()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return index, class probabilities, the most probable class and its probability."""
        require_batch(batch)
        probabilities = self(self.prepare(batch)).softmax(dim=1)
        confidence, prediction = probabilities.max(dim=1)
        return {
            "index": batch.index, "prediction": prediction, "confidence": confidence, "probabilities": probabilities
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's clean transform and classes, however many the data have."""
        super().on_load_checkpoint(checkpoint)
        self.facts = dict(checkpoint.get("ssl_lightning", {}).get("facts", {})) or self.facts
        classes = int(self.facts.get("num_classes", self.num_classes))
        if classes != self.num_classes:
            for layer in self.heads():
                layer.weight = nn.Parameter(layer.weight.new_zeros(classes, layer.in_features))
                layer.bias = nn.Parameter(layer.bias.new_zeros(classes))
                layer.out_features = classes
            self._count_classes(classes)
            self.to(self.device)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **kwargs: Any) -> Self:  # type: ignore[override]
        """Open a checkpoint with the encoder and the clean transform that it describes.

        Args:
            checkpoint_path: Path of the file.
            kwargs: In place of what the checkpoint says, such as `backbone` where that is a stranger's.

        Raises:
            ValueError: If it is no checkpoint of ours.
        """
        opened = Checkpoint.open(
            checkpoint_path, kwargs.get("backbone"), kwargs.get("clean"), argument="checkpoint_path"
        )
        parts = {"backbone": opened.backbone, "clean": opened.clean, "checkpoint": None, "freeze": False}
        takes = set(arguments(cls))
        given = {name: value for name, value in opened.hyper_parameters.items() if name in takes}
        try:
            model = cls(**{**given, **parts, **kwargs})
            model.on_load_checkpoint({"ssl_lightning": {"facts": opened.facts}})
            model.load_state_dict(opened.state_dict)
        except (TypeError, RuntimeError) as error:  # whatever a damaged file makes of the constructor
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"`checkpoint_path={checkpoint_path}` cannot be opened as a {cls.__name__}: {reason}"
            ) from error
        return model


def average(members: Tensor) -> Tensor:
    """Return the log of the mean probabilities of logits `(members, N, classes)`; those of one member as they are."""
    if len(members) == 1:
        return members[0]
    return members.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(members))
