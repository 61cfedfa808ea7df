"""Weighted k-nearest-neighbour accuracy of an embedding."""

from typing import Any

import lightning as L
import torch
from lightly.utils.benchmarking import knn_predict
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.passes import sweep
from ssl_lightning.engine.processes import Rows, gather, joined
from ssl_lightning.engine.ranges import at_least, given, whole
from ssl_lightning.evaluation.rank import directions
from ssl_lightning.evaluation.watcher import Watcher, data_of, keep_embeddings

MIN_TEMPERATURE = 0.02  # e^(1 / T) of 200 neighbours overflows float32 below about 0.012, and all votes are then NaN


def knn_accuracy(
    queries: Tensor,
    targets: Tensor,
    bank: Tensor,
    bank_targets: Tensor,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    r"""Classify embeddings by their nearest neighbours in a bank, each neighbour i with weight :math:`e^{\cos_i / T}`.

    Args:
        queries: `(N, d)`; normalised here.
        targets: True classes `(N,)`.
        bank: `(M, d)`; normalised here.
        bank_targets: `(M,)`.
        num_classes: Number of classes.
        k: Neighbours; at most M are taken.
        temperature: T.

    Returns:
        The fraction of queries whose heaviest class is right.

    Raises:
        ValueError: If `temperature` is so low that the weights overflow, embeddings are not finite, or there are none.

    Reference:
        Z. Wu, Y. Xiong, S. Yu, D. Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR
        2018, arXiv 1805.01978, section 3.4. The prediction is lightly's.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> knn_accuracy(bank, torch.tensor([0, 0, 1]), bank, torch.tensor([0, 0, 1]), num_classes=2, k=1)
        1.0
    """
    require_temperature(temperature)
    whole(1, k=k, num_classes=num_classes)
    for name, rows in (("queries", queries), ("bank", bank)):
        if not len(rows):
            raise ValueError(f"`{name}` holds no embedding; give one at least.")
        if not rows.isfinite().all():
            raise ValueError(
                f"`{name}` holds NaN or infinity, which has no neighbours: the embedding has diverged; lower "
                "`optimizer.lr`, add `warmup`, or clip gradients (`--trainer.gradient_clip_val 1`)."
            )
    columns = directions(bank).T.contiguous()  # cosines near 1 differ in digits that float32 does not have
    targets, bank_targets = targets.to(columns.device), bank_targets.to(columns.device)
    right = 0
    for rows, truth in zip(directions(queries).split(1024), targets.split(1024), strict=True):  # type: ignore[no-untyped-call]
        predicted = knn_predict(rows, columns, bank_targets, num_classes, min(k, columns.shape[1]), temperature)
        right += int((predicted[:, 0] == truth).sum())
    return right / len(targets)


def require_temperature(temperature: float) -> None:
    r"""Check that the weights of neighbours are finite.

    Args:
        temperature: T of :math:`e^{\cos / T}`.

    Raises:
        ValueError: If it is too low.
    """
    at_least(MIN_TEMPERATURE, "0.1 is usual, and with less the neighbours' weights overflow", temperature=temperature)


class KNN(Watcher):
    """Logs `val/knn_accuracy`: clean validation (or test) samples, classified by clean training samples.

    Args:
        k: Neighbours that vote on a sample.
        temperature: Of the neighbours' weights; lower trusts the nearest more.
        every_n_epochs: Judge after every so many epochs of a fit; the last epoch is always judged.
        bank_size: Use so many training samples; null for all.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self, k: int = 20, temperature: float = 0.1, every_n_epochs: int = 1, bank_size: int | None = 20_000
    ) -> None:
        whole(1, k=k, every_n_epochs=every_n_epochs, **given(bank_size=bank_size))
        require_temperature(temperature)
        self.k, self.temperature, self.every_n_epochs, self.bank_size = k, temperature, every_n_epochs, bank_size
        self._rows: list[Rows] = []
        self._told = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there are data to judge by."""
        data_of(trainer, self)

    def _due(self, trainer: L.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        epoch = trainer.current_epoch + 1
        return trainer.state.fn != "fit" or epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs

    def watch(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch) -> None:
        """Keep the embeddings."""
        if self._due(trainer):
            keep_embeddings(self, self._rows, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Classify and log."""
        self._finish(trainer, module, "val")

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the embeddings."""
        keep_embeddings(self, self._rows, outputs, batch)

    def on_test_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Classify and log."""
        self._finish(trainer, module, "test")

    def _finish(self, trainer: L.Trainer, module: L.LightningModule, part: str) -> None:
        if trainer.sanity_checking or (part == "val" and not self._due(trainer)):
            return
        queries = gather(joined(self._rows))  # in every process, also in one without samples
        self._rows.clear()
        if "target" not in queries:
            return
        data = data_of(trainer, self)
        if data.train_samples is None:  # as when testing alone
            data.setup("fit")
        assert data.train_samples is not None
        labelled = data.train_indices[data.train_samples.targets[data.train_indices] >= 0]
        known = queries["target"] >= 0
        if not len(labelled) or not known.any():
            rank_zero_warn(
                "KNN has no labels to judge by and logs nothing; remove the callback, or give labelled data."
            )
            return
        if self.bank_size is not None:  # an even choice, the same in every epoch
            labelled = labelled[torch.linspace(0, len(labelled) - 1, min(self.bank_size, len(labelled))).long()]
        if self.k > len(labelled) and not self._told:
            rank_zero_warn(f"`KNN`: `k={self.k}` exceeds the {len(labelled)} labelled training samples; all are used.")
            self._told = True
        method: Any = module

        def embedded(batch: Batch) -> Rows:
            return {"embedding": method.embed(method.prepare(batch)), "target": batch.target}

        bank = gather(sweep(trainer, module, data.evaluation_loader(data.train_samples, labelled), embedded))
        accuracy = knn_accuracy(
            queries["embedding"][known], queries["target"][known], bank["embedding"], bank["target"],
            data.num_classes, self.k, self.temperature,
        )  # fmt: skip
        module.log(f"{part}/knn_accuracy", accuracy, prog_bar=True, rank_zero_only=False, sync_dist=False)
