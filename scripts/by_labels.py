"""Which strategy when: from 10 labels to 200 on frozen features of five data sets, and what `ByLabels` makes of it.

Commands, each about five minutes on one thread of a busy machine; stopped, the same command goes on:

    nice -n 5 .venv/bin/python scripts/by_labels.py --tune
    nice -n 5 .venv/bin/python scripts/by_labels.py
    nice -n 5 .venv/bin/python scripts/by_labels.py --scratch --seeds 4

Needs data/MNIST, data/emoji, data/fsdd and data/agnews. Writes runs/by-labels/curves.csv and
runs/by-labels/tables.md, which docs/strategies/bylabels.md keeps.

A sample is a vector that no label made: pixels of the digits; the 64 principal components of MNIST's pixels (a pool of
10,000) and of emoji in 24 px (groups are the classes); mean and deviation of log-mel bands of spoken digits; TF-IDF of
AG News in 64 dimensions by SVD. Every strategy begins with the same 10 random labels of a seed and asks for 10 a round;
the model is a logistic regression, fitted anew each round; the strategies are those of the package, as they are. The
switch and what follows it were chosen on digits and MNIST (`--tune`), the other data ran once with what came out.

`--scratch` is about a model without pretraining: a `ConvNet` on the digits, trained anew each round by the round loop,
to 50 labels.
"""

import argparse
import csv
import io
import logging
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ssl_lightning.active import (
    BADGE,
    DBAL,
    AcquisitionStrategy,
    ByLabels,
    Entropy,
    Margin,
    PoolDataModule,
    Predictions,
    Random,
    TypiClust,
    run_rounds,
)
from ssl_lightning.backbones import ConvNet, MeanFrames
from ssl_lightning.data import MNIST, Digits, SpokenDigits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.audio import LogMel

OUT = Path("runs/by-labels")
INITIAL, QUERY, LAST, SEEDS = 10, 10, 200, 5
T = {3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % of Student's t, by seeds
SHOWN = (20, 50, 100, 200)
Arms = dict[str, Callable[[], AcquisitionStrategy]]

ARMS: Arms = {
    "Random": Random, "TypiClust": TypiClust, "Margin": Margin, "BADGE": BADGE, "Entropy": Entropy, "DBAL": DBAL,
    "ByLabels": ByLabels,
}  # fmt: skip
TUNED: Arms = {
    f"ByLabels, {count}, {kind.__name__}": partial(ByLabels, labels_per_class=count, then=kind())
    for kind in (DBAL, Margin, BADGE)
    for count in (2, 3, 5, 10)
}
SCRATCH = ("Random", "TypiClust", "DBAL", "ByLabels")


class Vectors(NamedTuple):
    """A data set, frozen.

    Attributes:
        pool: `(N, d)`, float32, centred, of mean square 1.
        targets: Classes `(N,)`.
        test: `(M, d)`.
        test_targets: Classes `(M,)`.
        classes: How many.
    """

    pool: Tensor
    targets: Tensor
    test: Tensor
    test_targets: Tensor
    classes: int


def scaled(rows: Any, targets: Any, test: int | None = None) -> Vectors:
    """Centre and scale all by the pool; of a set without a test part, the last of a fixed order are it."""
    rows, targets = torch.as_tensor(np.asarray(rows)).float(), torch.as_tensor(np.asarray(targets)).long()
    if test is None:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        rows, targets, test = rows[order], targets[order], len(rows) * 3 // 10
    pool = rows[:-test]
    rows = (rows - pool.mean(dim=0)) / (pool - pool.mean(dim=0)).square().mean().sqrt()
    return Vectors(rows[:-test], targets[:-test], rows[-test:], targets[-test:], int(targets.max()) + 1)


def digits() -> Vectors:
    """8 x 8 pixels."""
    found = load_digits()
    return scaled(found.data, found.target)


def mnist() -> Vectors:
    """The first 10,000 training images and 5,000 test images: MNIST comes shuffled."""
    data = MNIST(root="data")
    parts: list[Any] = [data.load("train"), data.load("test")]
    pixels = [part.inputs[:count].flatten(1).float() for part, count in zip(parts, (10_000, 5000), strict=True)]
    pca = PCA(64, random_state=0).fit(pixels[0].numpy())
    targets = torch.cat([parts[0].targets[:10_000], parts[1].targets[:5000]])
    return scaled(np.concatenate([pca.transform(some.numpy()) for some in pixels]), targets, 5000)


def emoji() -> Vectors:
    """Pictures of 24 px; classes are the groups, from 24 to 385 pictures each."""
    from PIL import Image

    with open("data/emoji/captions.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    groups = sorted({line["group"] for line in lines})
    pictures = []
    for line in lines:
        picture = Image.open(Path("data/emoji/images") / line["image"]).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        pictures.append(np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((24, 24))).ravel())
    rows = PCA(64, random_state=0).fit_transform(np.stack(pictures).astype(np.float32))
    return scaled(rows, [groups.index(line["group"]) for line in lines])


def spoken_digits() -> Vectors:
    """Mean and standard deviation of each of 64 log-mel bands over time; new takes of known speakers are the test."""
    data, clean, encoder = SpokenDigits(root="data/fsdd"), LogMel(8000), MeanFrames(deviation=True)
    rows, targets = [], []
    for part in (data.load("train"), data.load("test")):
        places = torch.split(torch.arange(len(part)), 256)
        rows += [encoder(clean(part.__getitems__(some.tolist()).input)) for some in places]
        targets.append(part.targets)
    return scaled(torch.cat(rows), torch.cat(targets), len(targets[1]))


def ag_news() -> Vectors:
    """Title and description; its fifth is the test."""
    with open("data/agnews/test.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    texts, topics = [" ".join(line[1:]) for line in lines], [int(line[0]) - 1 for line in lines]
    counts = TfidfVectorizer(min_df=3, stop_words="english", sublinear_tf=True).fit_transform(texts)
    return scaled(TruncatedSVD(64, random_state=0).fit_transform(counts), topics)


DATA = {"digits": digits, "MNIST": mnist, "emoji": emoji, "spoken digits": spoken_digits, "AG News": ag_news}
TUNING = ("digits", "MNIST")


@cache
def load(name: str) -> Vectors:
    """Return a data set, encoded once."""
    return DATA[name]()


class Head(torch.nn.Module):
    """A logistic regression on the vectors, with what a strategy asks of a model.

    Args:
        rows: `(n, d)`.
        targets: Classes `(n,)`; one that is not there has the probability 0, all but.
        classes: How many.
    """

    def __init__(self, rows: Tensor, targets: Tensor, classes: int) -> None:
        super().__init__()
        self.weight, self.bias = torch.zeros(classes, rows.shape[1]), torch.full((classes,), -30.0)
        known = targets.unique()  # type: ignore[no-untyped-call]
        if len(known) == 1:
            self.bias[known] = 0.0
            return
        found = LogisticRegression(C=1.0, max_iter=500).fit(rows.numpy(), targets.numpy())
        weight, bias = torch.from_numpy(found.coef_).float(), torch.from_numpy(found.intercept_).float()
        if len(known) == 2:  # scikit-learn has one row for two classes
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        self.weight[known], self.bias[known] = weight, bias

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits."""
        return rows @ self.weight.T + self.bias

    def embed(self, rows: Tensor) -> Tensor:
        """Return the vectors themselves."""
        return rows


def run(data: Vectors, strategy: AcquisitionStrategy, seed: int) -> dict[int, float]:
    """Return the test accuracy by the number of labels, of one strategy and seed."""
    size = len(data.pool)
    asked = torch.zeros(size, dtype=torch.bool)
    asked[torch.randperm(size, generator=derive_generator(seed, "initial"))[:INITIAL]] = True
    curve = {}
    for labelled in range(INITIAL, LAST + 1, QUERY):
        head: Any = Head(data.pool[asked], data.targets[asked], data.classes)
        curve[labelled] = float((head(data.test).argmax(dim=1) == data.test_targets).float().mean())
        if labelled == LAST:
            break
        one = strategy.choose_by(labelled, data.classes) if isinstance(strategy, ByLabels) else strategy
        places = torch.arange(size) if one.sees_asked else (~asked).nonzero()[:, 0]
        rows = one.rows(Predictions(head, data.pool[places], seed)) if one.uses_model else {}
        rows = {"index": places, **rows}
        if one.sees_asked:
            rows["asked"] = asked.clone()
        rows = one.local(rows)
        picks = rows["index"][one.select(rows, derive_generator(seed, "select", labelled))]
        assert not asked[picks].any()
        asked[picks] = True
    return curve


def run_scratch(data: None, strategy: AcquisitionStrategy, seed: int) -> dict[int, float]:
    """Return the same of a network that is trained from scratch, 10 to 50 labels, by the round loop."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False,
        "enable_progress_bar": False,
    }  # fmt: skip
    L.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = run_rounds(
            make_model=lambda: Classifier(10, ConvNet(), dropout=0.5, optimizer=OptimizerSpec("adamw", lr=0.003)),
            make_trainer=lambda callbacks: L.Trainer(max_epochs=1, callbacks=callbacks, **quiet),
            pool=PoolDataModule(Digits(batch_size=64, val_size=0), initial=INITIAL, steps_per_epoch=50, seed=seed),
            strategy=strategy,
            rounds=4,
            folder=folder,
        )
    return {row["labelled"]: row["test/accuracy"] for row in rows}


Curves = dict[tuple[str, str, int], dict[int, float]]  # by data, arm and seed


def read() -> Curves:
    """Return what was run."""
    curves: Curves = {}
    if (OUT / "curves.csv").exists():
        with (OUT / "curves.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                curve = curves.setdefault((line["data"], line["arm"], int(line["seed"])), {})
                curve[int(line["labelled"])] = float(line["accuracy"])
    return curves


def add(key: tuple[str, str, int], curve: dict[int, float]) -> None:
    """Keep a curve, all of it at once."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "curves.csv"
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    if not path.exists():
        writer.writerow(["data", "arm", "seed", "labelled", "accuracy"])
    writer.writerows([*key, labelled, f"{value:.6f}"] for labelled, value in curve.items())
    with path.open("a", newline="") as file:
        file.write(lines.getvalue())


def difference(ones: list[float], others: list[float]) -> tuple[float, float]:
    """Return the mean of paired differences, and half of its 95 % interval, in points."""
    apart = [100 * (one - other) for one, other in zip(ones, others, strict=True)]
    return statistics.mean(apart), T[len(apart)] * statistics.stdev(apart) / math.sqrt(len(apart))


def table(curves: Curves, name: str) -> str:
    """Return a data set's table: accuracy, and paired differences to Random."""
    arms = [arm for arm in ARMS if (name, arm, 0) in curves]
    found = {
        arm: [curve for (data, one, _), curve in sorted(curves.items()) if (data, one) == (name, arm)] for arm in arms
    }
    labels = list(found["Random"][0])
    shown = [count for count in SHOWN if count in labels]
    lines = [
        f"| {name} | area | against Random, points (95 %) | "
        + " | ".join(f"at {count}" for count in shown) + " | counts above, below Random | worst |",
        "|---|---:|---:|" + "---:|" * (len(shown) + 2),
    ]  # fmt: skip
    for arm in arms:
        if len(found[arm]) != len(found["Random"]):
            continue
        areas = {one: [_area(curve) for curve in found[one]] for one in (arm, "Random")}
        cells = [f"{100 * statistics.mean(areas[arm]):.1f}"]
        at = {
            count: difference(*([curve[count] for curve in found[one]] for one in (arm, "Random"))) for count in labels
        }
        if arm == "Random":
            cells += [""] + [f"{100 * statistics.mean(curve[count] for curve in found[arm]):.1f}" for count in shown]
            cells += ["", ""]
        else:
            mean, half = difference(areas[arm], areas["Random"])
            cells.append(f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]")
            cells += ["{:+.1f} ± {:.1f}".format(*at[count]) for count in shown]
            later = {count: pair for count, pair in at.items() if count > labels[0]}
            above = sum(mean - half > 0 for mean, half in later.values())
            below = sum(mean + half < 0 for mean, half in later.values())
            worst = min(later, key=lambda count: later[count][0])
            cells += [f"{above}, {below} of {len(later)}", f"{later[worst][0]:+.1f} at {worst}"]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tuned(curves: Curves) -> str:
    """Return the table of the settings: the difference in area to Random, by what follows and by the switch."""
    lines = ["| Then, from labels a class | " + " | ".join(TUNING) + " |", "|---|" + "---:|" * len(TUNING)]
    for arm in TUNED:
        cells = []
        for name in TUNING:
            mean, half = difference(
                *([_area(curves[name, one, seed]) for seed in range(SEEDS)] for one in (arm, "Random"))
            )
            cells.append(f"{mean:+.1f} ± {half:.1f}")
        _, count, then = arm.split(", ")
        lines.append(f"| {then}, {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _area(curve: dict[int, float]) -> float:
    return statistics.mean(curve.values())


def main() -> None:
    """Run what is not there yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--tune", action="store_true", help="several switches, on digits and MNIST")
    parser.add_argument("--scratch", action="store_true", help="a network without pretraining, on the digits")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    quieten()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    curves = read()

    def fill(
        name: str, arms: Arms, one: Callable[[Any, AcquisitionStrategy, int], dict[int, float]], data: Any
    ) -> None:
        for arm, make in arms.items():
            for seed in range(options.seeds):
                if (name, arm, seed) not in curves:
                    curves[name, arm, seed] = one(data(), make(), seed)
                    add((name, arm, seed), curves[name, arm, seed])
            print(name, arm, flush=True)

    if options.scratch:
        fill("digits, from scratch", {arm: ARMS[arm] for arm in SCRATCH}, run_scratch, lambda: None)
    else:
        for name in TUNING if options.tune else options.data:
            fill(name, {**ARMS, **TUNED} if options.tune else ARMS, run, partial(load, name))
    names = list(dict.fromkeys(name for name, _, _ in curves))
    text = "\n".join(table(curves, name) for name in names if (name, "Random", 0) in curves)
    if all((name, arm, seed) in curves for name in TUNING for arm in TUNED for seed in range(SEEDS)):
        text += "\n" + tuned(curves)
    (OUT / "tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
