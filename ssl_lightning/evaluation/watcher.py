"""What the callbacks that judge an embedding have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.processes import Rows


class Watcher(L.Callback, ABC):
    """A callback that looks at every validation batch, and at what the module's step returned of it."""

    @abstractmethod
    def watch(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch) -> None:
        """Look at a batch.

        Args:
            trainer: That runs the validation.
            module: Being judged.
            outputs: Of its validation step.
            batch: On the device, its input as the data set holds it.
        """

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at a batch."""
        self.watch(trainer, pl_module, outputs, batch)


def data_of(trainer: L.Trainer, callback: Callback) -> DataModule:
    """Return the data module that a trainer works on, of a pool the one below it.

    Args:
        trainer: Of any kind of run.
        callback: For the message.

    Raises:
        ValueError: If there is none of ours.
    """
    found = getattr(trainer, "datamodule", None)
    data = getattr(found, "data", found)  # of a pool, what it is drawn from
    if not isinstance(data, DataModule):
        there = "none" if found is None else f"a {type(found).__name__}"
        raise ValueError(
            f"`{type(callback).__name__}` learns from labelled training samples, and so needs a data module of "
            f"`ssl_lightning.data`, but there is {there}: `trainer.fit(model, datamodule=FromDataset(dataset))`, or "
            "leave the callback out."
        )
    return data


def keep_embeddings(
    callback: Callback, store: list[Rows], outputs: Any, batch: Batch, names: Sequence[str] = ("embedding",)
) -> None:
    """Append a step's embeddings and targets to a callback's store, on the CPU.

    Args:
        callback: For the error message.
        store: Appended to.
        outputs: Of the module's step.
        batch: Of the same step.
        names: Which outputs to keep, those that are there.

    Raises:
        ValueError: If the module's step returns no embedding.
    """
    if not isinstance(outputs, dict) or "embedding" not in outputs:
        raise ValueError(
            f"`{type(callback).__name__}` needs a module whose validation step returns {{'embedding': ...}}, as every "
            "SSLMethod does; remove the callback."
        )
    kept = {key: outputs[key].float().cpu() for key in names if key in outputs}
    store.append({"index": batch.index.cpu(), "target": batch.target.cpu(), **kept})
