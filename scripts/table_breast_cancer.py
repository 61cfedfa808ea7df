"""Real tables of scikit-learn: what pretraining adds to a few labels, and what active learning adds to Random.

`write` puts breast cancer (569 rows, 30 numbers, 2 classes), wine (178 rows, 13 numbers, 3 classes) and the digits as
rows of 64 numbers (1,797 rows, 10 classes) into data/tables as CSV files; without it, the files are written and the
tables of docs/tables.md are printed.

    python scripts/table_breast_cancer.py write
    python scripts/table_breast_cancer.py
"""

import contextlib
import csv
import io
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ssl_lightning.active import AcquisitionStrategy, Entropy, FarthestFirst, Margin, PoolDataModule, Random, run_rounds
from ssl_lightning.backbones import RowNet
from ssl_lightning.data import Table
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import VIME, SimCLR
from ssl_lightning.supervised import Classifier, Recipe

FOLDER = Path("data/tables")
SPLITS, DRAWS, LABELS, EPOCHS = 3, 20, {"breast_cancer": 20, "wine": 20, "digits": 50}, 100
SEEDS, ROUNDS, QUERY = 5, 5, 6


def write() -> list[Path]:
    """Write the tables, and return their paths."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, load in (("breast_cancer", load_breast_cancer), ("wine", load_wine), ("digits", load_digits)):
        found = load()
        paths.append(FOLDER / f"{name}.csv")
        with paths[-1].open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["key", *(column.replace(" ", "_") for column in found.feature_names), "class"])
            for number, (row, target) in enumerate(zip(found.data.tolist(), found.target, strict=True)):
                lines.writerow([f"{name}_{number:04d}", *row, found.target_names[target]])
    return paths


def trainer(**options: Any) -> L.Trainer:
    """Return a quiet trainer."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False,
    }  # fmt: skip
    return L.Trainer(**{**quiet, **options})


def data_of(path: Path, batch_size: int, split: int = 0) -> Table:
    """Return a table of which 30 % are for test."""
    return Table(str(path), test_size=0.3, val_size=0, batch_size=batch_size, split_seed=split)


def embedded(module: Any, samples: Any, clean: Any) -> np.ndarray:
    """Return what an encoder makes of all samples; the standardised numbers where there is none."""
    inputs = clean(samples.__getitems__(list(range(len(samples)))).input)
    if module is None:
        return np.asarray(inputs.numpy())
    with torch.no_grad():
        return np.asarray(module.eval()(inputs).numpy())


def pretrain(path: Path, split: int) -> tuple[Table, dict[str, Any]]:
    """Pretrain on the training part without its labels."""
    data = data_of(path, 128, split)
    data.setup("fit")
    data.setup("test")
    L.seed_everything(split, verbose=False)
    encoders: dict[str, Any] = {"standardised numbers": None, "RowNet, untrained": RowNet(data.feature_dim)}
    spec = OptimizerSpec(name="adamw", lr=1e-3)
    for name, make in (
        ("RowNet, SCARF by SimCLR", lambda net: SimCLR(net, temperature=1.0, optimizer=spec)),
        ("RowNet, VIME", lambda net: VIME(net, feature_dim=data.feature_dim, optimizer=spec)),
    ):
        L.seed_everything(split, verbose=False)
        begun = time.perf_counter()
        method = make(RowNet(data.feature_dim))
        trainer(max_epochs=EPOCHS).fit(method, datamodule=data_of(path, 128, split))
        print(f"# {path.stem}, split {split}, {name}: {time.perf_counter() - begun:.0f} s", flush=True)
        encoders[name] = method.backbone
    return data, encoders


def judge(path: Path) -> None:
    """Print the accuracy of a logistic regression and of kNN on a few labels, over splits and draws of the labels."""
    count = LABELS[path.stem]
    scores: dict[str, list[np.ndarray]] = {}  # of each split: (draws, 2), of few labels
    every: dict[str, list[float]] = {}
    for split in range(SPLITS):
        data, encoders = pretrain(path, split)
        train, test = data.train_samples, data.test_samples
        assert train is not None
        assert test is not None
        y, truth = train.targets.numpy(), test.targets.numpy()
        for name, encoder in encoders.items():
            rows, other = (embedded(encoder, part, data.clean()) for part in (train, test))
            scaler = StandardScaler().fit(rows)
            rows, other = scaler.transform(rows), scaler.transform(other)
            found = []
            for draw in range(DRAWS):
                some = np.random.default_rng(draw).permutation(len(y))
                first = [np.flatnonzero(y[some] == label)[0] for label in np.unique(y)]  # each class at least once
                places = np.concatenate([some[first], np.delete(some, first)])[:count]
                linear = LogisticRegression(max_iter=2000).fit(rows[places], y[places]).score(other, truth)
                near = KNeighborsClassifier(5).fit(rows[places], y[places]).score(other, truth)
                found.append((100 * linear, 100 * near))
            scores.setdefault(name, []).append(np.array(found))
            whole = LogisticRegression(max_iter=2000).fit(rows, y).score(other, truth)
            every.setdefault(name, []).append(100 * whole)
    print(f"\n| {path.stem} | {count} labels, logistic | {count} labels, 5-NN | all labels, logistic |")
    print("|---|---:|---:|---:|")
    for name in scores:
        all_draws = np.concatenate(scores[name])
        cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(all_draws.mean(0), all_draws.std(0), strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {np.mean(every[name]):.1f} |", flush=True)
    for name in list(scores)[1:]:
        pairs = zip(scores[name], scores["standardised numbers"], strict=True)
        gains = ", ".join(f"{(mine - raw)[:, 0].mean():+.1f}" for mine, raw in pairs)
        print(f"- {name} against standardised numbers, logistic, on the {SPLITS} splits: {gains} points.", flush=True)


def active(path: Path) -> None:
    """Print the test accuracy of a few rounds of active learning, over seeds."""
    strategies: dict[str, Any] = {
        "Random": Random,
        "Entropy": Entropy,
        "Margin": Margin,
        "FarthestFirst": FarthestFirst,
    }
    budget = [QUERY * (number + 1) for number in range(ROUNDS + 1)]
    print(f"\n| {path.stem}, labels | {' | '.join(map(str, budget))} |\n|---|{'---:|' * len(budget)}")
    for name, kind in strategies.items():
        curves = []
        for seed in range(SEEDS):
            L.seed_everything(seed, verbose=False)
            data = data_of(path, 32)
            strategy: AcquisitionStrategy = kind(query_size=QUERY)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                rows = run_rounds(
                    make_model=lambda data=data: Classifier(
                        data.num_classes, RowNet(data.feature_dim), dropout=0.2,
                        optimizer=OptimizerSpec(name="adamw", lr=1e-3),
                        recipe=Recipe(augment=False, probe=False, ema=0.0),  # as it was measured
                    ),
                    make_trainer=lambda callbacks: trainer(max_epochs=1, callbacks=callbacks),
                    pool=PoolDataModule(data, initial=QUERY, steps_per_epoch=60, seed=seed),
                    strategy=strategy, rounds=ROUNDS, folder=Path(folder) / "run",
                )  # fmt: skip
            curves.append([100 * row["test/accuracy"] for row in rows])
        mean, std = np.mean(curves, axis=0), np.std(curves, axis=0)
        print(f"| {name} | {' | '.join(f'{m:.1f} ± {s:.1f}' for m, s in zip(mean, std, strict=True))} |", flush=True)


def main() -> None:
    """Write, pretrain, judge and ask."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    paths = write()
    if sys.argv[1:] == ["write"]:
        print("\n".join(map(str, paths)))
        return
    for path in paths:
        judge(path)
    for path in paths[:2]:
        active(path)


if __name__ == "__main__":
    main()
