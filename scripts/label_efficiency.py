"""What a label is worth: data sets x recipes x labels x seeds, one row a run, resumable.

    python scripts/label_efficiency.py run --root data --folder runs/label-efficiency [--small]
    python scripts/label_efficiency.py run ... --sets mnist --arms "FreeMatch, SSL" --labels 40,100 --seeds 0,1,2
    python scripts/label_efficiency.py table --folder runs/label-efficiency --docs docs

All recipes of a data set share the backbone, the training steps and the machine. Labels are drawn at random with
classes as even as in the whole (`--data.keep_labels`), the same for all recipes of a seed, except where a strategy
chooses. Settings were chosen on `digits`, `mnist` and `cifar10`; the others are run with what came out. No test label
is used for a choice. Each row is written at once; a run that was stopped goes on.
"""

import argparse
import csv
import dataclasses
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt
import torch
from scipy.stats import t as student
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.utils.data import TensorDataset

from ssl_lightning.active import ByLabels, PoolDataModule
from ssl_lightning.active.strategy import choose
from ssl_lightning.backbones import AudioNet, Backbone, ConvNet, Flat, TextTransformer
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.data import MNIST, DataModule, Digits, FromDataset, ImageFolder, SpokenDigits, Texts
from ssl_lightning.data.splits import chosen_by_count
from ssl_lightning.data.text_files import Columns
from ssl_lightning.engine.csv_files import locked
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.precision import fast_precision
from ssl_lightning.engine.seeding import derive_generator, derive_seed
from ssl_lightning.evaluation.features_check import as_vectors
from ssl_lightning.functional.logistic import logistic_head
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier, FreeMatch, Recipe
from ssl_lightning.transforms.audio import AudioViews
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.text import TokenViews

Labels = Callable[["Bench", int, int], Tensor]
LABELS = (10, 40, 100, 250, 500)
ALL = sys.maxsize  # labels: of the whole pool, which need no choice
COLUMNS = ("set", "arm", "labels", "seed", "accuracy", "seconds")
HELD_OUT = ("emoji", "fsdd", "agnews")  # run once, by settings chosen on the others


@dataclasses.dataclass(frozen=True)
class Set:
    """A data set and the settings that all its recipes share.

    Attributes:
        make: Builds the data; its validation part is empty.
        backbone: Builds the encoder by the facts of the data.
        views: Builds the views of pretraining; null for those of the data.
        temperature: Of SimCLR.
        epochs: Of pretraining.
        steps: Of every recipe that takes steps.
        lr: Of AdamW, in pretraining and in training.
        classes: How many.
    """

    make: Callable[[str], DataModule]
    backbone: Callable[[dict[str, Any]], Backbone]
    views: Callable[[], Any] | None
    temperature: float
    epochs: int
    steps: int
    classes: int
    lr: float = 3e-3


def emoji_folder(root: str) -> str:
    """Lay the emoji out in a folder for each group, beside the run's data; return it."""
    folder = Path(root) / "emoji-groups"
    if not folder.is_dir():
        part = folder.with_name("emoji-groups.part")
        with (Path(root) / "emoji" / "captions.csv").open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                where = part / line["group"].replace("/", "-")
                where.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(root) / "emoji" / "images" / line["image"], where)
        part.rename(folder)
    return str(folder)


def spoken(root: str) -> DataModule:
    """Return the spoken digits, usual split."""
    return SpokenDigits(f"{root}/fsdd", batch_size=64, val_size=0)


def news(root: str) -> DataModule:
    """Return the news: a fifth is the test part."""
    columns = Columns(["title", "description"], "topic", names=["topic", "title", "description"])
    return Texts(
        f"{root}/agnews/test.csv", columns=columns, class_names=f"{root}/agnews/classes.txt", max_length=64,
        batch_size=64, val_size=0,
    )  # fmt: skip


SETS = {
    "digits": Set(
        lambda root: Digits(batch_size=64, val_size=0), lambda _: ConvNet(),
        lambda: SimCLRViews(crop_scale=(0.4, 1), flip=0), 0.5, 100, 300, 10,
    ),
    "mnist": Set(
        lambda root: MNIST(root, batch_size=64, val_size=0), lambda _: ConvNet(),
        lambda: SimCLRViews(crop_scale=(0.3, 1), flip=0), 0.5, 6, 500, 10,
    ),
    "cifar10": Set(
        lambda root: ImageFolder(f"{root}/cifar10", image_size=32, channels=3, limit=10000, batch_size=64, val_size=0),
        lambda _: ConvNet(3), None, 0.5, 30, 3000, 10,
    ),
    "emoji": Set(
        lambda root: ImageFolder(emoji_folder(root), image_size=64, channels=3, batch_size=64, val_size=0,
                                 test_size=0.3),
        lambda _: ConvNet(3), None, 0.5, 40, 300, 9,
    ),
    "fsdd": Set(
        spoken, lambda _: AudioNet(width=24, dim=256),
        lambda: AudioViews(crop=(0.7, 1.1), speed=0.2, pitch=0.2), 0.2, 40, 400, 10,
    ),
    "agnews": Set(
        news,
        lambda facts: TextTransformer(
            facts["vocab_size"], vocabulary=facts["vocabulary"], dim=128, depth=2, heads=4, dropout=0.1
        ),
        lambda: TokenViews(crop=0.4, drop=0.2), 0.1, 10, 400, 4, lr=1e-3,
    ),
}  # fmt: skip


def trainer(**options: Any) -> L.Trainer:
    """Return a quiet trainer on the CPU, in the number format that is fast there."""
    return L.Trainer(
        accelerator="cpu", devices=1, precision=fast_precision("cpu"), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, **options,
    )  # fmt: skip


class Bench:
    """One data set, its pretrained encoder and its embeddings, made when first needed.

    Args:
        name: Of the set.
        root: Of the data.
        folder: Of the results.
        changes: Of the set's settings; null for none.
    """

    def __init__(self, name: str, root: str, folder: Path, **changes: int | None) -> None:
        told = {key: value for key, value in changes.items() if value is not None}
        self.name, self.about, self.folder = name, dataclasses.replace(SETS[name], **told), folder
        self.data = self.about.make(root)
        self.data.setup("fit")
        self.data.setup("test")
        assert self.data.train_samples is not None
        assert self.data.test_samples is not None
        self.train, self.test = self.data.train_samples, self.data.test_samples
        self.truth = self.train.targets.clone()
        self.pool = self.data.train_indices
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def backbone(self) -> Backbone:
        """Return a fresh encoder for the data, the same whenever it is asked for."""
        L.seed_everything(0, verbose=False)
        return self.about.backbone(self.data.facts)

    @property
    def checkpoint(self) -> str:
        """Path of the pretrained encoder, which is trained if it is not there."""
        path = self.folder / f"{self.name}.ckpt"
        if not path.is_file():
            begun = time.perf_counter()
            backbone = self.backbone()
            L.seed_everything(0, verbose=False)
            method = SimCLR(
                backbone, None if self.about.views is None else self.about.views(), self.about.temperature,
                optimizer=OptimizerSpec(lr=self.about.lr, warmup=0.05),
            )  # fmt: skip
            size, self.data.batch_size = self.data.batch_size, 256 if self.name != "agnews" else 128
            self.hide(self.pool[:0])
            self.data.steps_per_epoch = None
            fit = trainer(max_epochs=self.about.epochs)
            fit.fit(method, datamodule=self.data)
            fit.save_checkpoint(path)
            self.data.batch_size = size
            (self.folder / f"{self.name}.json").write_text(json.dumps({"seconds": time.perf_counter() - begun}))
        return str(path)

    def hide(self, known: Tensor) -> None:
        """Let the training part show these labels only."""
        targets = torch.full_like(self.truth, -1)
        targets[known] = self.truth[known]
        self.train.targets = targets

    def draw(self, count: int, seed: int, even: bool = True) -> Tensor:
        """Draw labelled samples, of all classes as many as in the whole, or as they come."""
        if not even:
            order = torch.randperm(len(self.pool), generator=derive_generator(seed, "labels as they come"))
            return self.pool[order[:count]]
        keys = [self.train.keys[place] for place in self.pool.tolist()]
        return self.pool[chosen_by_count(keys, self.truth[self.pool], count, seed, "labels")]

    def rows(self, what: str) -> tuple[Tensor, Tensor]:
        """Return the pool and the test part as vectors: `raw`, by the `untrained` encoder, or by `SSL`."""
        if what not in self._rows:
            clean: Any = self.data.clean()
            net: Any = torch.nn.Identity()
            if what == "untrained":
                net = self.backbone()
            elif what == "SSL":
                opened = Checkpoint.open(self.checkpoint)
                clean, net = opened.clean, opened.backbone
            found = []
            for samples, places in ((self.train, self.pool), (self.test, torch.arange(len(self.test)))):
                with torch.inference_mode():
                    parts = [
                        as_vectors(net.eval()(clean(samples.__getitems__(some.tolist()).input)))
                        for some in places.split(500)
                    ]
                found.append(torch.cat(parts).clone())
            self._rows[what] = (found[0], found[1])
        return self._rows[what]

    def fit(self, kind: type[Classifier], known: Tensor, seed: int, recipe: Recipe, ssl: bool) -> float:
        """Train a classifier, and return its accuracy on the test part."""
        L.seed_everything(derive_seed(seed, self.name), verbose=False)
        backbone = None if ssl else self.about.backbone(self.data.facts)
        gently = ssl and kind is Classifier  # few labels alone would undo what pretraining found
        lr = self.about.lr / (10 if gently else 1)
        model = kind(
            self.about.classes, backbone, checkpoint=self.checkpoint if ssl else None, recipe=recipe,
            optimizer=OptimizerSpec(lr=lr, weight_decay=1e-2, warmup=0.05),
        )  # fmt: skip
        self.hide(known)
        self.data.steps_per_epoch = self.about.steps
        fit = trainer(max_epochs=1)
        fit.fit(model, datamodule=self.data)
        return float(fit.test(model, datamodule=self.data, verbose=False)[0]["test/accuracy"])


def knn(bank: Tensor, known: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Judge by neighbours: as many as there are labels of a class on average, five at most, on unit vectors."""
    k = max(1, min(5, len(bank) // int(known.max() + 1)))
    rows = [torch.nn.functional.normalize(part, dim=1).numpy() for part in (bank, queries)]
    model = KNeighborsClassifier(k, weights="distance").fit(rows[0], known.numpy())
    return float(model.score(rows[1], truth.numpy()))


def logistic(bank: Tensor, known: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Judge by logistic regression, as a frozen encoder's head is found."""
    weight, bias = logistic_head(bank, known, int(max(known.max(), truth.max())) + 1)
    return float(((queries @ weight.T + bias).argmax(1) == truth).float().mean())


def on_rows(judge: Callable[..., float], what: str) -> Callable[[Bench, int, int], float]:
    """Return a baseline on vectors."""

    def run(bench: Bench, labels: int, seed: int) -> float:
        pool, test = bench.rows(what)
        chosen = bench.draw(labels, seed)
        place = torch.isin(bench.pool, chosen)
        return judge(pool[place], bench.truth[bench.pool[place]], test, bench.test.targets)

    return run


def trained(
    kind: type[Classifier], recipe: Recipe, ssl: bool, labels: Labels = Bench.draw
) -> Callable[[Bench, int, int], float]:
    """Return a recipe that trains."""

    def run(bench: Bench, count: int, seed: int) -> float:
        return bench.fit(kind, labels(bench, count, seed), seed, recipe, ssl)

    return run


def by_strategy(bench: Bench, labels: int, seed: int) -> Tensor:
    """Let the default strategy choose on the frozen embeddings, in the steps of `LABELS`."""
    path = bench.folder / f"{bench.name}-chosen-{seed}.json"
    chosen: list[int] = json.loads(path.read_text()) if path.is_file() else []
    if len(chosen) < labels:
        rows = bench.rows("SSL")[0]
        same = TensorDataset(rows, bench.truth[bench.pool])
        data = FromDataset(same, val_size=0, test_size=0, batch_size=1024)
        strategy = ByLabels(query_size=10)
        pool = PoolDataModule(data, initial=1, seed=seed)
        data.setup("fit")
        assert data.train_samples is not None
        assert torch.equal(data.train_samples.__getitems__(list(range(len(rows)))).input, rows)  # positions are ours
        pool.synchronise()
        model = Classifier(bench.about.classes, Flat(rows.shape[1]))
        for number, goal in enumerate([goal for goal in LABELS if goal <= labels]):
            pool.round = number
            fit = trainer(max_epochs=1)
            if number:
                fit.fit(model, datamodule=pool)
            else:
                fit.strategy.connect(model)
                model.clean = data.clean()
            picks = choose(strategy, goal - len(pool.labelled) - len(pool.pending), fit, model, pool)
            pool.acquire(type(strategy).__name__, seed, picks)
            pool.round = number + 1
        chosen = [int(bench.pool[place]) for place, _ in pool.known()]
        path.write_text(json.dumps(chosen))
    return torch.tensor(chosen[:labels])


def as_they_come(bench: Bench, labels: int, seed: int) -> Tensor:
    """Draw labels of any class."""
    return bench.draw(labels, seed, even=False)


FULL = Recipe()
ARMS: dict[str, Callable[[Bench, int, int], float]] = {
    "kNN, raw": on_rows(knn, "raw"),
    "logistic, raw": on_rows(logistic, "raw"),
    "kNN, untrained": on_rows(knn, "untrained"),
    "logistic, untrained": on_rows(logistic, "untrained"),
    "kNN, SSL": on_rows(knn, "SSL"),
    "logistic, SSL": on_rows(logistic, "SSL"),
    "scratch, bare": trained(Classifier, Recipe(augment=False, ema=0.0), False),
    "scratch": trained(Classifier, FULL, False),
    "SSL": trained(Classifier, FULL, True),
    "SSL, bare": trained(Classifier, Recipe(augment=False, probe=False, ema=0.0), True),
    "FreeMatch": trained(FreeMatch, FULL, False),
    "FreeMatch, SSL": trained(FreeMatch, FULL, True),
    "SSL, as they come": trained(Classifier, FULL, True, as_they_come),
    "SSL, chosen": trained(Classifier, FULL, True, by_strategy),
    "FreeMatch, SSL, as they come": trained(FreeMatch, FULL, True, as_they_come),
    "FreeMatch, SSL, chosen": trained(FreeMatch, FULL, True, by_strategy),
}


def done(path: Path) -> list[dict[str, str]]:
    """Return the rows that there are."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    with locked(path):
        fresh = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def run(options: argparse.Namespace) -> None:
    """Run what is missing."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.csv"
    for name in options.sets:
        bench: Bench | None = None
        for labels in options.labels:
            for seed in options.seeds:
                for arm in options.arms:
                    if labels == ALL and arm.endswith(("chosen", "as they come")):
                        continue  # nothing is left to choose
                    key = (name, arm, "all" if labels == ALL else str(labels), str(seed))
                    if any(tuple(row[column] for column in COLUMNS[:4]) == key for row in done(path)):
                        continue
                    bench = bench or Bench(name, options.root, folder, epochs=options.epochs, steps=options.steps)
                    if labels != ALL and labels > len(bench.pool):
                        continue
                    _ = bench.checkpoint if "SSL" in arm else None  # its time is noted apart
                    begun = time.perf_counter()
                    accuracy = ARMS[arm](bench, min(labels, len(bench.pool)), seed)
                    seconds = time.perf_counter() - begun
                    row = dict(zip(COLUMNS, (*key, f"{accuracy:.4f}", f"{seconds:.1f}"), strict=True))
                    add(path, row)
                    print(row, flush=True)


INTRO = """# What a label is worth

Written by `scripts/label_efficiency.py table` from what `scripts/label_efficiency.py run` measured; each row of a table
was a run of its own, by

```bash
{command}
```

{machine}

Test accuracy in percent by the number of labels, mean ± standard deviation over seeds. All recipes of a data set share
the encoder, the steps and the machine. Labels are drawn at random with classes as even as in the whole, the same for
all recipes of a seed. Nobody knows classes before asking: *as they come* are drawn without that, and *chosen* are those
of `ByLabels` on the pretrained features, ten to begin with; both may miss a class.

- *kNN*, *logistic*: of up to five neighbours, and logistic regression, on the raw input, on the features of the
  untrained encoder, and on those of SimCLR. No step is trained.
- *scratch*, *SSL*: `Classifier` from fresh and from pretrained weights, by its default recipe; *bare* without views,
  averaging and probe, which was the recipe before.
- *FreeMatch*: learns from the unlabelled samples, too.

Pretraining and training are in bf16 where the processor multiplies it, else in float32.

Settings were chosen on digits, MNIST and CIFAR-10. The other sets were run once with what came out. All rows:
`label-efficiency.csv`, beside this page; as `results.csv` of the script's folder it lets the script go on from there.
"""
PARTS = {
    "augmentation and averaging": ("scratch", "scratch, bare"),
    "SSL weights, in training with labels alone": ("SSL", "scratch"),
    "SSL weights, in FreeMatch": ("FreeMatch, SSL", "FreeMatch"),
    "unlabelled samples, from scratch": ("FreeMatch", "scratch"),
    "unlabelled samples, from SSL weights": ("FreeMatch, SSL", "SSL"),
    "labels chosen, not as they come": ("SSL, chosen", "SSL, as they come"),
    "labels chosen, not as they come, in FreeMatch": ("FreeMatch, SSL, chosen", "FreeMatch, SSL, as they come"),
}


def table(options: argparse.Namespace) -> None:
    """Write the tables and the curves from what there is."""
    found: dict[str, dict[str, dict[int, dict[int, float]]]] = {}  # set, arm, labels, seed
    times: dict[tuple[str, str], list[float]] = {}
    for row in done(Path(options.folder) / "results.csv"):
        at = found.setdefault(row["set"], {}).setdefault(row["arm"], {}).setdefault(number(row["labels"]), {})
        at[int(row["seed"])] = 100 * float(row["accuracy"])
        times.setdefault((row["set"], row["arm"]), []).append(float(row["seconds"]))
    lines = [INTRO.format(command=options.command, machine=options.machine)]
    for name, arms in [(name, found[name]) for name in SETS if name in found]:
        counts = sorted({count for by_labels in arms.values() for count in by_labels})
        pretraining = Path(options.folder) / f"{name}.json"
        spent = (
            f" Pretraining took {json.loads(pretraining.read_text())['seconds']:.0f} s."
            if pretraining.is_file()
            else ""
        )
        lines += [f"### {name}{' (settings not chosen here)' if name in HELD_OUT else ''}", ""]
        heads = " | ".join("all" if count == ALL else str(count) for count in counts)
        lines += ["| | " + heads + " | area | seconds |", "|---|" + "---:|" * (len(counts) + 2)]
        for arm in [arm for arm in ARMS if arm in arms]:
            cells = [summary(list(arms[arm].get(count, {}).values())) for count in counts]
            few = [count for count in counts if count != ALL]
            complete = all(count in arms[arm] for count in few) and len(few) > 1
            area = (
                f"{statistics.fmean(statistics.fmean(arms[arm][count].values()) for count in few):.1f}"
                if complete
                else ""
            )
            lines.append(f"| {arm} | {' | '.join(cells)} | {area} | {statistics.fmean(times[name, arm]):.0f} |")
        lines += [
            "",
            f"Area: the mean of the columns but *all*. Seconds: of a run, the pretraining not counted.{spent}",
            "",
        ]
        added = []
        for part, (more, less) in PARTS.items():
            if more in arms and less in arms:
                cells = [gain(arms[more].get(count, {}), arms[less].get(count, {})) for count in counts]
                added.append(f"| {part} | {' | '.join(cells)} |")
        if added:
            head = f"| What it adds, in points | {heads} |"
            lines += [head, "|---|" + "---:|" * len(counts), *added]
            lines += ["", "Paired differences, 95 % intervals over the seeds.", ""]
        counts = [count for count in counts if count != ALL]
        if len(counts) > 1:
            draw(arms, counts, Path(options.docs) / "images" / f"label_efficiency_{name}.png", name)
            lines += [f"![Accuracy by labels, {name}](images/label_efficiency_{name}.png)", ""]
    (Path(options.docs) / "label-efficiency.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print("\n".join(lines))


def number(text: str) -> int:
    """Read a number of labels, or `all`."""
    return ALL if text == "all" else int(text)


def summary(values: list[float]) -> str:
    """Write a mean and its spread over seeds."""
    if not values:
        return ""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def gain(more: dict[int, float], less: dict[int, float]) -> str:
    """Write the mean of paired differences, with its 95 % interval."""
    both = [more[seed] - less[seed] for seed in sorted(more.keys() & less.keys())]
    if len(both) < 2:
        return f"{both[0]:+.1f}" if both else ""
    half = float(student.ppf(0.975, len(both) - 1)) * statistics.stdev(both) / len(both) ** 0.5
    middle = statistics.fmean(both)
    return f"{middle:+.1f} [{middle - half:.1f}, {middle + half:.1f}]"


def draw(arms: dict[str, dict[int, dict[int, float]]], counts: list[int], path: Path, name: str) -> None:
    """Draw accuracy against labels."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for arm in [arm for arm in ARMS if arm in arms]:
        mine = sorted(arms[arm].keys() & set(counts))
        style = "-" if arm.startswith("FreeMatch") else "--" if "," not in arm or arm.startswith("SSL") else ":"
        axes.plot(mine, [statistics.fmean(arms[arm][count].values()) for count in mine], style, marker=".", label=arm)
    axes.set(xscale="log", xlabel="labels", ylabel="test accuracy, %", title=name, xticks=counts, xticklabels=counts)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right", ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--root", default=os.environ.get("SSL_LIGHTNING_DATA", "data"))
    parser.add_argument("--folder", default="runs/label-efficiency")
    parser.add_argument("--docs", default="docs", help="folder of the page that `table` writes")
    parser.add_argument("--machine", default="", help="a line on machine and date, for the page")
    parser.add_argument(
        "--command", default="python scripts/label_efficiency.py run", help="that was given, for the page"
    )
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--arms", type=lambda text: text.split(";"), default=list(ARMS), help="with ; between them")
    parser.add_argument(
        "--labels",
        type=lambda text: [number(part) for part in text.split(",")],
        default=[*LABELS, ALL],
        help="numbers, or `all`, with , between them",
    )
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of pretraining, in place of the set's; takes a folder of its own")
    parser.add_argument("--steps", type=int, help="of training, likewise")
    parser.add_argument("--small", action="store_true", help="digits alone, three numbers of labels: 20 minutes")
    options = parser.parse_args()
    if options.small:
        options.sets, options.labels = ["digits"], [10, 40, 100]
    return options


if __name__ == "__main__":
    given = parse()
    run(given) if given.what == "run" else table(given)
