"""Two processes with unlike numbers of validation batches, or fewer samples than processes: nobody waits for ever."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from support import spawn
from torch.utils.data import TensorDataset

from ssl_lightning.backbones import MLP
from ssl_lightning.data import FromDataset
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier


def job(rank: int, world: int, val: int, test: int) -> list[tuple[list[str], Any, list[int]]]:
    """Fit, test and predict in one of the processes that are there."""
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    torch.manual_seed(0)
    targets = torch.arange(30) % 3
    rows = torch.randn(30, 8) + 2 * torch.randn(3, 8)[targets]
    data = FromDataset(
        TensorDataset(rows, targets), test=TensorDataset(rows[:test] + 1e-3, targets[:test]), batch_size=4, val_size=val
    )
    found = []
    for model in (
        Classifier(3, MLP(8, 16, 1)),
        SimCLR(MLP(8, 16, 1)),
    ):  # both with batch norm, whose buffers are shared
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", devices=world, strategy="ddp", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[KNN(k=3)] if isinstance(model, SimCLR) else [],
        )  # fmt: skip
        trainer.fit(model, datamodule=data)
        learnt = sorted(trainer.callback_metrics)
        judged = trainer.test(model, datamodule=data, verbose=False)
        parts: Any = trainer.predict(model, datamodule=data)
        found.append((learnt, judged, [len(part) for part in parts]))
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("val", "test"), [(1, 1), (9, 5)])
def test_fit_and_test_of_two_processes_end_alike(val: int, test: int, tmp_path: Path) -> None:
    found = spawn(partial(job, val=val, test=test), 2, tmp_path)
    assert [len(process) for process in found] == [2, 2]
    for one, other in zip(*found, strict=True):
        assert one[:2] == other[:2]  # what is learnt and judged
    assert "val/knn_accuracy" in found[0][1][0]
