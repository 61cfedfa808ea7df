"""Draw what the methods without pictures of their own make of unseen samples: their embeddings, before and after.

Command: `.venv/bin/python scripts/embedding_pictures.py` (needs data/emoji and data/agnews for some; `--methods`
names which). Each is trained by the command on the first line of its config, into runs/embeddings/NAME, and drawn
into docs/images/methods/NAME.png: the embeddings by the untrained encoder and by the trained one, laid out by t-SNE,
a colour a class, and how many have most of their five nearest neighbours in their own class. The samples are those of
the test part, of the validation part where there is none.
"""

import argparse
import copy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from sklearn.manifold import TSNE

import ssl_lightning.data
from ssl_lightning.commands.sample import load_method
from ssl_lightning.data.text_files import Columns

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "embeddings"
PLACE = ROOT / "docs" / "images" / "methods"
NAMES = [
    "triplet", "supcon", "simclr", "moco", "nnclr", "byol", "simsiam", "barlow_twins", "vicreg", "dino", "deepcluster",
    "swav", "vime", "clip", "siglip", "vilbert", "masked_text", "causal_text",
]  # fmt: skip
LENGTH = "--trainer.max_epochs"
EPOCHS = {"data/digits": "100", "data/emoji": "20", "data/ag_news": "4"}  # else those of the config


def command_of(name: str) -> list[str]:
    """Return the command on the first line of a method's config."""
    first = (ROOT / "configs" / "method" / f"{name}.yaml").read_text().splitlines()[0]
    return shlex.split(first.removeprefix("# ssl-lightning "))


def train(name: str) -> Path:
    """Fit a method, unless that was done, and return its checkpoint."""
    folder = RUNS / name
    path = folder / "checkpoints" / "last.ckpt"
    if not (folder / "done").exists():
        if name == "vime":
            subprocess.run([sys.executable, "scripts/table_breast_cancer.py", "write"], cwd=ROOT, check=True)
        options = ["--folder", str(folder), "--trainer.enable_progress_bar", "false"]
        options += [part for data, epochs in EPOCHS.items() if data in command_of(name) for part in (LENGTH, epochs)]
        subprocess.run([sys.executable, "-m", "ssl_lightning", *command_of(name), *options], cwd=ROOT, check=True)
        (folder / "done").touch()
    return path


def data_of(name: str) -> Any:
    """Build the data that the command names."""
    file = next(part for part in command_of(name) if part.startswith("data/"))
    spec = yaml.safe_load((ROOT / "configs" / f"{file}.yaml").read_text())["data"]
    spec = spec if isinstance(spec, dict) else {"class_path": spec}
    options = {"num_workers": 0, **spec.get("init_args", {})}
    if isinstance(options.get("columns"), dict):
        options["columns"] = Columns(**options["columns"])
    return getattr(ssl_lightning.data, spec["class_path"])(**options)


@torch.inference_mode()
def embeddings(method: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of unseen samples, and their classes."""
    loader = data.test_dataloader() or data.val_dataloader()
    rows = [(method.embed(method.clean(batch.input)).float(), batch.target) for batch in loader]
    return torch.cat([row for row, _ in rows]).numpy(), torch.cat([target for _, target in rows]).numpy()


def untrained(method: Any) -> Any:
    """Return a copy whose layers are as they begin."""
    torch.manual_seed(0)
    fresh = copy.deepcopy(method)
    for module in fresh.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return fresh.eval()


def neighbours(rows: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of samples whose five nearest others are mostly of their class, by cosine."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    votes = targets[np.argsort(-near, axis=1)[:, :5]]
    told = np.array([np.bincount(row).argmax() for row in votes])
    return float((told == targets).mean())


def draw(name: str) -> None:
    """Train, embed, draw."""
    method, data = load_method(str(train(name))), data_of(name)
    data.setup("fit")
    data.setup("test")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    for axis, title, which in zip(axes, ("untrained", "trained"), (untrained(method), method), strict=True):
        rows, targets = embeddings(which, data)
        known = targets >= 0
        rows, targets = rows[known], targets[known]
        places = TSNE(metric="cosine", init="random", random_state=0).fit_transform(rows[:1000])
        axis.scatter(places[:, 0], places[:, 1], c=targets[:1000], cmap="tab10", s=9, linewidths=0)
        axis.set_title(f"{title}: {neighbours(rows, targets):.0%} by neighbours", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(PLACE / f"{name}.png", dpi=80, facecolor="white")
    plt.close(figure)
    print(f"{name}.png", flush=True)


def main() -> None:
    """Draw all, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(NAMES), help="which, with commas")
    for name in parser.parse_args().methods.split(","):
        draw(name)


if __name__ == "__main__":
    main()
