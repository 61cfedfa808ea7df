"""On two processes (gloo): training, gathering and the loss agree with one process."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import run_command, spawn

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Batch
from ssl_lightning.engine.processes import gather, share_buffers
from ssl_lightning.methods import Colorization, SimCLR


def views_of(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 1, 8, 8, generator=generator) for _ in range(2)]


def gathered_rows(rank: int, world: int) -> Any:
    index = torch.arange(7)[rank::world]
    return gather({"index": index, "square": (index**2).float()})


def one_without_rows(rank: int, world: int) -> Any:
    return gather(
        {"index": torch.empty(0, dtype=torch.int64)} if rank else {"index": torch.tensor([4]), "x": torch.ones(1)}
    )


def without_columns(rank: int, world: int) -> Any:
    return gather({"index": torch.arange(5)[rank::world], "nothing": torch.ones(len(range(rank, 5, world)), 0)})


def shared(rank: int, world: int) -> Any:
    net = torch.nn.BatchNorm1d(2)
    net.running_mean += rank + 1  # type: ignore[operator]
    share_buffers(net)  # type: ignore[arg-type]
    return net.running_mean


def simclr_gradient(rank: int, world: int) -> Any:
    torch.manual_seed(0)
    method = SimCLR(ConvNet(width=4), projection_dim=8).eval()  # batch norm would see another batch
    mine = [view[rank::world] for view in views_of(8)]
    step = method.compute_loss(mine, Batch(None, torch.zeros(len(mine[0])), torch.zeros(0)))
    step["loss"].backward()
    gradients = [p.grad for p in method.parameters()]
    if world > 1:  # as DDP does
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
            gradient /= world  # type: ignore[operator]
    return gradients


@pytest.mark.parametrize("world", [2, 3])
def test_gather_joins_uneven_shares_in_order(world: int, tmp_path: Path) -> None:
    for rows in spawn(gathered_rows, world, tmp_path):
        assert rows["index"].tolist() == list(range(7))
        assert rows["square"].tolist() == [float(i**2) for i in range(7)]


def test_gather_with_an_empty_share(tmp_path: Path) -> None:
    for rows in spawn(one_without_rows, 2, tmp_path):
        assert (rows["index"].tolist(), rows["x"].tolist()) == ([4], [1.0])


def test_gather_of_rows_without_columns(tmp_path: Path) -> None:
    for rows in spawn(without_columns, 2, tmp_path):
        assert (rows["index"].tolist(), rows["nothing"].shape) == ([0, 1, 2, 3, 4], (5, 0))


def test_buffers_are_the_first_processes(tmp_path: Path) -> None:
    for mean in spawn(shared, 2, tmp_path):
        assert mean.tolist() == [1.0, 1.0]


def test_simclr_gradient_is_that_of_one_process(tmp_path: Path) -> None:
    """The loss is gathered: negatives come from all processes, and averaged gradients are those of the whole batch."""
    alone = simclr_gradient(0, 1)
    for gradients in spawn(simclr_gradient, 2, tmp_path):
        for one, other in zip(alone, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def colour_counts(rank: int, world: int) -> Any:
    method = Colorization(ConvNet(3, width=4), image_size=8, bin_size=20, width=4)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    method.compute_loss([images[rank::world]], Batch(None, torch.zeros(0), torch.zeros(0)))
    return method.counts


def test_colours_are_counted_over_all_processes(tmp_path: Path) -> None:
    alone = colour_counts(0, 1)
    assert int(alone.sum()) == 8 * 4
    for counts in spawn(colour_counts, 2, tmp_path):
        assert torch.equal(counts, alone)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", ["simclr", "ssgan"])
def test_fit_on_two_processes(method: str, tmp_path: Path) -> None:
    """The whole command with all callbacks; both processes end with the same weights, and metrics cover all samples."""
    arguments = [
        "fit", "-c", "data/digits", "-c", f"method/{method}", "-c", "trainer/ddp_cpu", "--data.batch_size", "64",
        "--trainer.max_epochs", "2", "--folder", "run",
    ]  # fmt: skip
    if method == "simclr":  # Lightning itself starts the second process
        command = [sys.executable, "-m", "ssl_lightning", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        run_command(*arguments, cwd=tmp_path, processes=2)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2 * (1132 // 128)
    with next((tmp_path / "run" / "logs").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    knn = [float(row["val/knn_accuracy"]) for row in rows if row.get("val/knn_accuracy")]
    assert len(knn) == (1 if method == "ssgan" else 2)  # whose config judges less often
    assert all(value * 126 == pytest.approx(round(value * 126), abs=1e-3) for value in knn)  # of 126 validation samples
    assert knn[-1] > {"simclr": 0.8, "ssgan": 0.3}[method]
