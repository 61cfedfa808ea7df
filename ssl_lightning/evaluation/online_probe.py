"""A linear classifier trained beside the method, on embeddings that feel nothing of it."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.passes import evaluating
from ssl_lightning.engine.ranges import above, rates
from ssl_lightning.evaluation.watcher import Watcher, data_of


class OnlineLinearProbe(Watcher):
    """Logs `train/probe_loss` and `val/probe_accuracy` of a linear classifier on the detached embedding.

    It learns from the labels of the training set; the method never sees them. Its state is in the checkpoint, apart
    from the model's. Unlabelled samples are left out. Of a method that returns no embedding in training, as one that
    hides parts of its views, the probe embeds the first view itself.

    Args:
        lr: Learning rate of Adam, which trains the classifier.
        weight_decay: Weight decay of Adam.

    Raises:
        ValueError: If a number is out of its range, or there is no data module to tell the classes.
    """

    def __init__(self, lr: float = 1e-2, weight_decay: float = 1e-6) -> None:
        above(0, lr=lr)
        rates(lr=lr, weight_decay=weight_decay)
        self.lr, self.weight_decay = lr, weight_decay
        self.head: nn.Module | None = None
        self._saved: dict[str, Any] = {}
        self.right = self.seen = 0  # of this epoch's validation samples

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Build the head, the same in every process."""
        if self.head is not None:
            return
        backbone: Any = module.backbone
        dim, classes = backbone.feature_dim, data_of(trainer, self).num_classes
        if classes < 2:
            rank_zero_warn("OnlineLinearProbe has no classes to tell apart and does nothing; the data are unlabelled.")
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # batch norm without affine parameters evens out the methods' scales (He et al. 2022, arXiv 2111.06377, A.1)
            self.head = nn.Sequential(nn.BatchNorm1d(dim, affine=False), nn.Linear(dim, classes))

    def _start(self, module: L.LightningModule) -> None:
        if self.head is None:
            return
        self.head.to(module.device)
        if self._saved:
            self.head.load_state_dict(self._saved["head"])

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Go to the device, and on from a checkpoint."""
        self._start(module)
        if self.head is None:
            return
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        if self._saved:
            self.optimizer.load_state_dict(self._saved["optimizer"])

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Take one step on the detached embedding."""
        if self.head is None:
            return
        known = batch.target >= 0
        self.head.train()
        self.optimizer.zero_grad()
        if int(known.sum()) > 1:  # batch norm needs two
            if "embedding" in outputs:
                embedding = outputs["embedding"].detach()
            else:
                method: Any = module
                with evaluating(trainer, module):
                    embedding = method.embed(method.prepare(batch, random=True)[0])
            loss = cross_entropy(self.head(embedding.float()[known]), batch.target[known])
            loss.backward()  # type: ignore[no-untyped-call]
            module.log("train/probe_loss", loss.detach())
        for parameter in self.head.parameters():  # every process takes part, with or without labels in its batch
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self._mean(trainer, gradient)
        self.optimizer.step()

    @staticmethod
    def _mean(trainer: L.Trainer, gradient: Tensor) -> Tensor:
        if trainer.world_size == 1:
            return gradient
        averaged: Tensor = trainer.strategy.reduce(gradient, reduce_op="mean")
        return averaged

    def watch(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch) -> None:
        """Count what the head gets right on clean samples."""
        if self.head is None or trainer.sanity_checking or not (batch.target >= 0).any():
            return
        self.head.eval()
        known = batch.target >= 0
        found = self.head(outputs["embedding"].float()[known]).argmax(dim=1)
        self.right += int((found == batch.target[known]).sum())
        self.seen += int(known.sum())

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Go to the device if validation comes without a fit."""
        if trainer.state.fn != "fit":
            self._start(module)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the accuracy over all processes."""
        if self.head is None or trainer.sanity_checking:
            return
        counts = torch.tensor([self.right, self.seen], device=module.device)
        right, seen = trainer.strategy.reduce(counts, reduce_op="sum").tolist()  # every process takes part
        self.right = self.seen = 0
        if seen:
            module.log("val/probe_accuracy", right / seen, prog_bar=True, rank_zero_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return head and optimizer."""
        if self.head is None or not hasattr(self, "optimizer"):
            return self._saved
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep head and optimizer until the fit starts."""
        self._saved = state_dict
