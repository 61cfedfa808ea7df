"""A resumed fit is the one that never stopped: with workers, by steps or epochs, from anywhere in an epoch."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import TensorDataset

from ssl_lightning.backbones import MLP
from ssl_lightning.data import FromDataset
from ssl_lightning.methods import SimCLR

ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class Orders(L.Callback):
    """Keeps which samples each step had, and saves once."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path, self.seen = step, path, list[list[int]]()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch.index.tolist())

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(orders: Orders, workers: int, per_sample: bool, resume: bool = False, **length: Any) -> dict[str, Any]:
    L.seed_everything(1, verbose=False)
    views = (lambda row: row + torch.randn(4)) if per_sample else None
    model = SimCLR(MLP(4), views=views)  # type: ignore[arg-type]
    data = FromDataset(TensorDataset(ROWS), batch_size=8, num_workers=workers, val_size=0, test_size=0)
    L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, callbacks=[orders], **length,
    ).fit(model, datamodule=data, ckpt_path=orders.path if resume else None)  # fmt: skip
    return model.state_dict()


@pytest.mark.parametrize("step", [3, 8, 11, 0], ids=["in", "last", "in the second", "end"])
@pytest.mark.parametrize(("workers", "per_sample"), [(0, False), pytest.param(2, True, marks=pytest.mark.long)])
@pytest.mark.parametrize("length", [{"max_steps": 21}, {"max_epochs": 3}, {"max_epochs": 3, "limit_train_batches": 5}])
def test_resumed_is_as_never_stopped(
    length: dict[str, int], workers: int, per_sample: bool, step: int, tmp_path: Path
) -> None:
    whole, rest = Orders(step, tmp_path / "stop.ckpt"), Orders(step, tmp_path / "stop.ckpt")
    weights = fit(whole, workers, per_sample, **length)
    again = fit(rest, workers, per_sample, resume=True, **length)
    done = step or min(8, length.get("limit_train_batches", 8))
    assert rest.seen == whole.seen[done:]
    assert all(torch.equal(again[name], value) for name, value in weights.items())
