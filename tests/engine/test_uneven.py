"""Two processes with unlike numbers of validation batches, or fewer samples than processes: nobody waits for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import lightning as L, torch
from torch.utils.data import TensorDataset
from ssl_lightning.backbones import MLP
from ssl_lightning.data import FromDataset
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier

val, test = {val}, {test}
torch.manual_seed(0)
targets = torch.arange(30) % 3
rows = torch.randn(30, 8) + 2 * torch.randn(3, 8)[targets]
data = FromDataset(
    TensorDataset(rows, targets), test=TensorDataset(rows[:test] + 1e-3, targets[:test]), batch_size=4, val_size=val
)
for model in (Classifier(3, MLP(8, 16, 1)), SimCLR(MLP(8, 16, 1))):  # both with batch norm, whose buffers are shared
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[KNN(k=3)] if isinstance(model, SimCLR) else [],
    )
    trainer.fit(model, datamodule=data)
    learnt = sorted(trainer.callback_metrics)
    judged = trainer.test(model, datamodule=data, verbose=False)
    rows = [len(part) for part in trainer.predict(model, datamodule=data)]
    print(f"{{trainer.global_rank}} {{learnt}} {{judged}} {{rows}}", flush=True)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("val", "test"), [(1, 1), (9, 5)])
def test_fit_and_test_of_two_processes_end_alike(val: int, test: int, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB.format(val=val, test=test))
    done = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = sorted(line for line in done.stdout.splitlines() if line[:1] in "01")
    assert len(lines) == 4
    assert "val/knn_accuracy" in done.stdout
