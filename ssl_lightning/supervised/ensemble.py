"""Several classifiers that can disagree: a deep ensemble, and snapshots of one classifier."""

import copy
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.optim import configure_optimizers
from ssl_lightning.supervised.classifier import Classifier, average


class Ensemble(Classifier):
    """Classifiers trained side by side on the same batches, each from its own first weights: a deep ensemble.

    The prediction is the mean of the members' probabilities, and the members are what `BALD` and its like compare. No
    member sees another's gradient: each ends as it would alone. Needs `members` times the weights, gradients, optimizer
    state and activations of one; with a frozen backbone, which is shared, `members` heads.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        members: How many.
        kwargs: As for `Classifier`. With `checkpoint`, members begin with the same backbone and differ by their heads.

    Raises:
        ValueError: If there are fewer than 2 members, or as for `Classifier`.

    Reference:
        B. Lakshminarayanan, A. Pritzel, C. Blundell, Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles, NeurIPS 2017, arXiv 1612.01474, algorithm 1, without adversarial examples; there each member draws
        its own batches. For active learning: W. Beluch et al., The Power of Ensembles for Active Learning in Image
        Classification, CVPR 2018.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Ensemble(num_classes=3, backbone=ConvNet(width=4), members=2)
        >>> model.sample_logits(torch.zeros(5, 1, 8, 8), None, 0).shape  # (members, samples, classes)
        torch.Size([2, 5, 3])
    """

    solvable: ClassVar[bool] = False  # all members would have one head

    def __init__(self, num_classes: int, members: int = 5, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        _require_size(members)
        self.others = nn.ModuleList()
        for _ in range(members - 1):
            head = nn.Sequential(
                nn.Dropout(kwargs.get("dropout", 0.0)), nn.Linear(self.backbone.feature_dim, num_classes)
            )
            if self.frozen:
                self.others.append(nn.ModuleDict({"head": head}))
                continue
            backbone = self.backbone.fresh()
            if kwargs.get("checkpoint") is not None:
                backbone.load_state_dict(self.backbone.state_dict())
            if self.channels_last:
                backbone.to(memory_format=torch.channels_last)
            self.others.append(nn.ModuleDict({"backbone": backbone, "head": head}))

    def heads(self) -> list[nn.Linear]:
        """Return every member's last layer."""
        return [*super().heads(), *(member["head"][1] for member in self.others)]  # type: ignore[index]

    def member_logits(self, inputs: Any) -> Tensor:
        """Return every member's logits, `(members, N, num_classes)`."""
        embedding = self.embed(inputs)
        found = [self.head(embedding)]
        for member in self.others:
            found.append(member["head"](embedding if self.frozen else member["backbone"](inputs)))  # type: ignore[index]
        return torch.stack(found)

    def forward(self, inputs: Any) -> Tensor:
        """Return the log of the members' mean probabilities, `(N, num_classes)`."""
        return average(self.member_logits(inputs))

    def sample_logits(self, inputs: Any, members: int | None, seed: int) -> Tensor:
        """Return the logits of the first members, or of all, `(members, N, num_classes)`.

        Args:
            inputs: Clean inputs of N samples.
            members: How many; null for all.
            seed: Not used.
        """
        self.require_samples(members)
        return self.member_logits(inputs)[:members]

    def require_samples(self, members: int | None) -> None:
        """Check that there are so many members.

        Raises:
            ValueError: If there are fewer.
        """
        _require_members(members, len(self.others) + 1, "Ensemble")


class Snapshots(Classifier):
    """A classifier that keeps copies of itself, each at the end of a cycle of the learning rate.

    An ensemble for the price of training one: the rate falls, and starts anew `members` times, which leads to other
    minima. The prediction is the mean over the copies. Needs `members` more times the weights, and nothing else.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        members: Cycles in the fit, and copies.
        kwargs: As for `Classifier`; the optimizer's schedule is that of one cycle.

    Raises:
        ValueError: If there are fewer than 2 members, or as for `Classifier`.

    Reference:
        G. Huang, Y. Li, G. Pleiss, Z. Liu, J. Hopcroft, K. Weinberger, Snapshot Ensembles: Train 1, Get M for Free,
        ICLR 2017, arXiv 1704.00109, Eq. 2.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Snapshots(num_classes=3, backbone=ConvNet(width=4))
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 3])
    """

    taken: Tensor
    solvable: ClassVar[bool] = False  # a head that is found in no step has no snapshots
    averages: ClassVar[bool] = False  # a snapshot is of an instant

    def __init__(self, num_classes: int, members: int = 5, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        _require_size(members)
        self.copies = nn.ModuleList(
            nn.ModuleDict({"backbone": copy.deepcopy(self.backbone), "head": copy.deepcopy(self.head)})
            for _ in range(members)
        )
        self.copies.requires_grad_(False)
        self.register_buffer("taken", torch.tensor(0))

    def heads(self) -> list[nn.Linear]:
        """Return the last layers of this classifier and its copies."""
        return [*super().heads(), *(copied["head"][1] for copied in self.copies)]  # type: ignore[index]

    @property
    def _cycle(self) -> int:
        return max(1, int(self.trainer.estimated_stepping_batches) // len(self.copies))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its cyclic schedule.

        Raises:
            ValueError: If the fit has no end, so that cycles have no length.
        """
        if self.trainer.estimated_stepping_batches == float("inf"):
            raise ValueError("`Snapshots` needs to know the steps of the fit; give `max_epochs` or `max_steps`.")
        return configure_optimizers(self, self.optimizer_spec, self._cycle)  # type: ignore[return-value]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Copy the weights at the end of a cycle."""
        done = self.global_step // self._cycle
        if int(self.taken) < min(done, len(self.copies)):
            target: Any = self.copies[int(self.taken)]
            target["backbone"].load_state_dict(self.backbone.state_dict())
            target["head"].load_state_dict(self.head.state_dict())
            self.taken += 1

    def forward(self, inputs: Any) -> Tensor:
        """Return the log of the copies' mean probabilities, or this classifier's logits in training, `(N, classes)`."""
        if self.training or not int(self.taken):
            return super().forward(inputs)
        return average(self._copies(inputs, int(self.taken)))

    def _copies(self, inputs: Any, count: int) -> Tensor:
        found = []
        for place in range(int(self.taken) - count, int(self.taken)):
            member: Any = self.copies[place]
            found.append(member["head"](member["backbone"](inputs)))
        return torch.stack(found)

    def sample_logits(self, inputs: Any, members: int | None, seed: int) -> Tensor:
        """Return the logits of the last copies, or of all, `(members, N, num_classes)`.

        Args:
            inputs: Clean inputs of N samples.
            members: How many; null for all.
            seed: Not used.

        Raises:
            ValueError: If so many have not been taken yet.
        """
        taken = int(self.taken)
        _require_members(members, taken, "Snapshots")
        return self._copies(inputs, members or taken)

    def require_samples(self, members: int | None) -> None:
        """Check that there will be so many copies.

        Raises:
            ValueError: If there will be fewer.
        """
        _require_members(members, len(self.copies), "Snapshots")


def _require_size(members: int) -> None:
    if members < 2:
        raise ValueError(f"`members={members}` must be at least 2; for one, use `Classifier`.")


def _require_members(members: int | None, have: int, name: str) -> None:
    if have < (2 if members is None else members):
        raise ValueError(
            f"`{name}` has {have} members, the strategy wants {'2 or more' if members is None else members}; lower the "
            "strategy's `members` (null for all), or raise the model's, or train to the end."
        )
