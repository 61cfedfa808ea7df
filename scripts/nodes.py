"""Run `fit` and `active` on two "nodes" of two processes each, by torchrun, and compare with one process.

    python scripts/nodes.py --folder /tmp/nodes

Each node is a torchrun of its own, as on a cluster; both meet at 127.0.0.1 and see the same folder. A vision
transformer without dropout, augmentation and batch norm learns from global batches of the same samples, four times 16
or once 64: so the weights agree up to rounding, and the picks are to be the same. Pretraining draws the views of each
process by itself: there only the losses are compared. In the middle of another `active` all processes get SIGKILL once
a round is committed, and the same commands go on.
"""

import argparse
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

NODES, EACH = 2, 2
MODEL = ["--model.backbone", "ViT", "--model.backbone.dim", "32", "--model.backbone.depth", "2"]
MODEL += ["--model.backbone.heads", "2", "--model.backbone.patch_size", "2"]
ACTIVE = ["active", "--data", "Digits", "--model", "Classifier", *MODEL, "--model.recipe", "{augment: false, ema: 0}"]
ACTIVE += ["--strategy", "Entropy", "--strategy.query_size", "10", "--initial", "40", "--rounds", "2"]
ACTIVE += ["--steps_per_epoch", "30", "--seed_everything", "1", "--trainer.max_epochs", "1"]
FIT = ["fit", "--data", "Digits", "--model", "SimMIM", *MODEL, "--trainer.max_epochs", "2", "--seed_everything", "1"]
FIT += ["--data.val_size", "0"]


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def alone(arguments: list[str], folder: Path) -> float:
    """Run a command in one process, and return the seconds."""
    begun = time.monotonic()
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.batch_size", str(16 * NODES * EACH)]
    command = [sys.executable, "-m", "ssl_lightning", *arguments, *options, "--folder", folder.name]
    subprocess.run(command, cwd=folder.parent, check=True)
    return time.monotonic() - begun


def start_nodes(arguments: list[str], folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start a torchrun for each node."""
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", str(EACH), "--trainer.num_nodes", str(NODES)]
    options += ["--trainer.strategy", "ddp", "--data.batch_size", "16", "--folder", folder.name]
    port, started = free_port(), []
    for node in range(NODES):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(NODES), "--node_rank", str(node)]
        launch += ["--nproc_per_node", str(EACH), "--master_addr", "127.0.0.1", "--master_port", str(port)]
        command = [*launch, "-m", "ssl_lightning", *arguments, *options]
        started.append(subprocess.Popen(command, cwd=folder.parent))
    return started


def on_nodes(arguments: list[str], folder: Path) -> float:
    """Run a command on all nodes, and return the seconds.

    Raises:
        RuntimeError: If a node failed.
    """
    begun = time.monotonic()
    codes = [node.wait(600) for node in start_nodes(arguments, folder)]
    if any(codes):
        raise RuntimeError(f"the nodes ended with {codes}.")
    return time.monotonic() - begun


def killed_after_a_round(arguments: list[str], folder: Path) -> None:
    """Kill all processes of all nodes once the first round is in the folder's table."""
    nodes, table = start_nodes(arguments, folder), folder / "rounds.csv"
    while not (table.exists() and len(table.read_text().splitlines()) > 1):
        if any(node.poll() is not None for node in nodes):
            raise RuntimeError("a node ended before it could be killed.")
        time.sleep(0.05)
    for node in nodes:
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        for pid in (node.pid, *map(int, children)):  # torchrun gives each a session of its own
            os.kill(pid, signal.SIGKILL)
    for node in nodes:
        node.wait()


def picks(folder: Path) -> list[tuple[str, str]]:
    """Return round and key of each query, in order."""
    with (folder / "queries.csv").open() as file:
        return [(row["round"], row["key"]) for row in csv.DictReader(file)]


def last_loss(folder: Path) -> float:
    """Return the training loss that a fit logged last."""
    (path,) = (folder / "logs").rglob("metrics.csv")
    with path.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")][-1]


def main() -> None:
    """Run both commands both ways, and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    root: Path = parser.parse_args().folder
    root.mkdir(parents=True)
    one, four = alone(ACTIVE, root / "one"), on_nodes(ACTIVE, root / "four")
    print(f"active: {one:.1f} s alone, {four:.1f} s on {NODES} x {EACH} processes")
    same = picks(root / "one") == picks(root / "four")
    print(f"active: {len(picks(root / 'one'))} picks, {'the same' if same else 'NOT the same'}")
    killed_after_a_round(ACTIVE, root / "killed")
    on_nodes(ACTIVE, root / "killed")
    again = picks(root / "killed") == picks(root / "four")
    print(f"killed in the middle, and gone on: {'the same picks' if again else 'NOT the same picks'}")
    one, four = alone(FIT, root / "fit-one"), on_nodes(FIT, root / "fit-four")
    print(f"fit: {one:.1f} s alone, {four:.1f} s on {NODES} x {EACH} processes")
    print(f"fit: last losses {last_loss(root / 'fit-one'):.3f} and {last_loss(root / 'fit-four'):.3f}")
    if not (same and again):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
