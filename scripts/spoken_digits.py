"""What pretraining on spoken digits gives: kNN and linear accuracy, all labels and 100, usual split and new speakers.

    python scripts/spoken_digits.py --root data/fsdd --folder runs/spoken-digits [--steps pretrain,judge,active]

Pretrains by configs/experiment/spoken_digits_pretrain.yaml, once for the usual split and once without ever hearing the
speakers that are held out. Then every encoder is judged alike on the same clean input: kNN by 200 neighbours and
temperature 0.1 (what `ssl-lightning evaluate` does) and by 20, from all labels; kNN by 5 neighbours from 10 labels a
digit, mean and deviation of ten draws; logistic regression on standardised embeddings from all labels and from those.
At last active learning by configs/experiment/spoken_digits_active.yaml, 10 labels a round.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ssl_lightning.__main__ import main as ssl_lightning
from ssl_lightning.backbones import Backbone, MeanFrames
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.data import Samples, SpokenDigits
from ssl_lightning.evaluation.knn import knn_accuracy
from ssl_lightning.transforms.audio import LogMel

LABELS, DRAWS = 10, 10  # a digit, and how often they are drawn
SPLITS = {"takes": "usual split", "speakers": "new speakers"}
Accuracy = Callable[[Tensor, Tensor, Tensor, Tensor], float]


def pretrained(options: argparse.Namespace, test: str) -> Path:
    """Return the checkpoint of a split."""
    return Path(options.folder) / f"simclr-{test}" / "checkpoints" / "last.ckpt"


def pretrain(options: argparse.Namespace) -> None:
    """Fit once for each split, as the config says."""
    for test in SPLITS:
        start = time.perf_counter()
        arguments = ["fit", "-c", "experiment/spoken_digits_pretrain", "--data.root", options.root]
        arguments += ["--data.test", test, "--folder", str(pretrained(options, test).parent.parent), *options.more]
        assert ssl_lightning(arguments) == 0
        print(f"pretraining for {SPLITS[test]}: {time.perf_counter() - start:.0f} s", flush=True)


@torch.inference_mode()
def embed(backbone: Backbone, samples: Samples) -> Tensor:
    """Return the embeddings of all samples."""
    clean = LogMel(8000)
    places = torch.arange(len(samples)).split(256)
    return torch.cat([backbone.eval()(clean(samples.__getitems__(some.tolist()).input)) for some in places]).clone()


def by_neighbours(k: int) -> Accuracy:
    """Return a judge by k neighbours."""
    return lambda bank, known, queries, truth: knn_accuracy(queries, truth, bank, known, 10, k=k)


def linear(bank: Tensor, known: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Judge by logistic regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(model.fit(bank.numpy(), known.numpy()).score(queries.numpy(), truth.numpy()))


def few(judge: Accuracy, bank: Tensor, known: Tensor, queries: Tensor, truth: Tensor) -> str:
    """Judge from few labels a digit, drawn some times."""
    found = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        order = torch.randperm(len(known), generator=generator)
        chosen = torch.cat([order[known[order] == digit][:LABELS] for digit in range(10)])
        found.append(100 * judge(bank[chosen], known[chosen], queries, truth))
    return f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}"


def judge_all(options: argparse.Namespace) -> None:
    """Print a table for each split."""
    for test, name in SPLITS.items():
        data = SpokenDigits(options.root, test=test)  # type: ignore[arg-type]
        data.setup()
        assert data.train_samples is not None
        assert data.test_samples is not None
        known, truth = data.train_samples.targets, data.test_samples.targets
        opened = Checkpoint.open(pretrained(options, test))
        L.seed_everything(0, verbose=False)
        encoders = {
            "mean log-mel": MeanFrames(),
            "mean and deviation": MeanFrames(deviation=True),
            "untrained": opened.backbone.fresh(),
            "SimCLR": opened.backbone,
        }
        speakers = "" if test == "takes" else f", tested on {', '.join(data.test_speakers)}"
        print(f"\n{name}: {len(known)} training and {len(truth)} test takes{speakers}\n")
        print(
            "| | kNN, 200 | kNN, 20 | linear | kNN, 100 labels | linear, 100 labels |\n|---|---:|---:|---:|---:|---:|"
        )
        for title, backbone in encoders.items():
            rows = embed(backbone, data.train_samples), known, embed(backbone, data.test_samples), truth
            whole = [f"{100 * judge(*rows):.1f}" for judge in (by_neighbours(200), by_neighbours(20), linear)]
            parts = [few(judge, *rows) for judge in (by_neighbours(5), linear)]
            print(f"| {title} | {' | '.join([*whole, *parts])} |", flush=True)


def learn_actively(options: argparse.Namespace) -> None:
    """Print accuracy by the number of labels, for two strategies from pretraining and one from scratch."""
    from_weights = ["--model.backbone", "null", "--model.checkpoint", str(pretrained(options, "takes"))]
    runs = {
        "Margin, pretrained": ["--strategy", "Margin", *from_weights],
        "Random, pretrained": ["--strategy", "Random", *from_weights],
        "Random, from scratch": ["--strategy", "Random"],
    }
    table: dict[str, dict[int, list[float]]] = {name: {} for name in runs}
    for name, arguments in runs.items():
        for seed in range(options.seeds):
            folder = Path(options.folder) / f"{name.replace(', ', '-').replace(' ', '-').lower()}-{seed}"
            command = ["active", "-c", "experiment/spoken_digits_active", "--data.root", options.root, *arguments]
            command += ["--strategy.query_size", "10", "--seed_everything", str(seed), "--folder", str(folder)]
            command += ["--model.recipe", "{augment: false, probe: false, ema: 0.0}"]  # as it was measured
            assert ssl_lightning([*command, *options.more]) == 0
            with (folder / "rounds.csv").open() as file:
                for row in csv.DictReader(file):
                    table[name].setdefault(int(row["labelled"]), []).append(100 * float(row["test/accuracy"]))
    counts = sorted(next(iter(table.values())))
    print(f"\nactive learning, usual split, mean of {options.seeds} seeds\n")
    print(f"| labels | {' | '.join(map(str, counts))} |\n|---|{'---:|' * len(counts)}")
    for name, found in table.items():
        print(f"| {name} | {' | '.join(f'{statistics.mean(found[count]):.1f}' for count in counts)} |", flush=True)


STEPS = {"pretrain": pretrain, "judge": judge_all, "active": learn_actively}


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/fsdd", help="folder of the recordings")
    parser.add_argument("--folder", default="runs/spoken-digits", help="of the runs")
    parser.add_argument("--steps", default=",".join(STEPS), help="which, with commas")
    parser.add_argument("--seeds", type=int, default=2, help="of active learning")
    options, options.more = parser.parse_known_args()
    for step in options.steps.split(","):
        STEPS[step](options)


if __name__ == "__main__":
    main()
