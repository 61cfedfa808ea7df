"""Pretrain ViLBERT, CLIP and SigLIP on emoji with their names, and judge them on held-out pairs.

Command: `.venv/bin/python scripts/emoji_pairs.py` (after scripts/install.sh; needs data/emoji; half an hour on two
cores). Given again, it leaves out what is done already in runs/emoji. Prints the tables of docs/pairs.md.

The test pairs are set apart by their own keys, and no method sees them; what was chosen (columns, epochs, mismatches)
was chosen on validation pairs. One seed: a difference of a few points says nothing.
"""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml

from ssl_lightning.__main__ import main
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.data import Pairs
from ssl_lightning.evaluation.retrieval import scores
from ssl_lightning.functional.retrieval import content_ids, same
from ssl_lightning.methods import ViLBERT

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "emoji"
METHODS = {"ViLBERT": "vilbert", "CLIP": "clip", "SigLIP": "siglip"}
UNTRAINED = ("TwoStreams", "TwoTowers")
STRATEGIES, SEEDS = ("Random", "Margin"), (0, 1, 2)


def run(*arguments: str) -> None:
    """Give one of our commands in this process."""
    if main(list(arguments)):
        raise SystemExit(f"failed: ssl-lightning {' '.join(arguments)}")


def options() -> dict[str, Any]:
    """Return the options of configs/data/emoji.yaml."""
    return dict(yaml.safe_load((ROOT / "configs" / "data" / "emoji.yaml").read_text())["data"]["init_args"])


def pretrained(name: str) -> str:
    """Pretrain, unless that is done, and return the last checkpoint."""
    path = RUNS / name / "checkpoints" / "last.ckpt"
    if not path.exists():
        given = ["-c", "data/emoji", "-c", f"method/{METHODS[name]}", "-c", "trainer/cpu"]
        run("fit", *given, "--seed_everything", "0", "--folder", str(RUNS / name))
    return str(path)


def evaluate(names: dict[str, str]) -> None:
    """Search, classify by names, and by neighbours; print one table."""
    given = [
        word
        for key, value in options().items()
        for word in (f"--data.{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    results, judged = RUNS / "results.csv", ["--protocols", "retrieval,zeroshot,knn", "--k", "20"]
    judged += ["--template", "{}", "--results", str(results), "--data", "Pairs", *given]
    for backbone in UNTRAINED:
        run("evaluate", "untrained", "--backbone", backbone, *judged)
    run("evaluate", *names.values(), *judged)
    rows = list(csv.DictReader(results.open()))
    metrics = list(dict.fromkeys(row["metric"] + " " * (row["protocol"] == "knn") for row in rows))
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        subject = row["method"] or f"untrained {row['backbone'].partition('(')[0]}"
        metric = row["metric"] + " " * (row["protocol"] == "knn")
        table.setdefault(subject, {})[metric] = 100 * float(row["value"])
    print("| |", " | ".join({"accuracy": "zero-shot", "accuracy ": "kNN"}.get(name, name) for name in metrics), "|")
    for subject, found in table.items():
        print(f"| {subject} |", " | ".join(f"{found[name]:.1f}" for name in metrics), "|")


def both_streams(path: str) -> None:
    """Print ViLBERT's losses on test pairs, with the right partner and with another pair's."""
    opened = Checkpoint.open(path)
    kept = {name: opened.hyper_parameters[name] for name in ("codes", "mask_ratio")}
    model = ViLBERT(opened.backbone, clean=opened.clean, **kept)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    for name, value in trainer.test(model, datamodule=Pairs(**options()), ckpt_path=path, verbose=False)[0].items():
        print(f"| `{name}` | {value:.3f} |")


def alignment(names: dict[str, str]) -> None:
    """Print how often each test image is nearer to its own text than another's is: 50 % by chance."""
    data = Pairs(**options())
    data.setup("test")
    assert data.test_samples is not None
    pairs = data.test_samples.__getitems__(list(range(len(data.test_samples)))).input
    ids = content_ids(pairs)
    other = ~same(*ids, *ids)
    for name, path in names.items():
        opened = Checkpoint.open(path)
        assert opened.clean is not None
        clean, net = opened.clean(pairs), opened.backbone.eval()
        with torch.inference_mode():
            found = scores(net, clean.image, clean.text)
        won = (found.diagonal()[:, None] > found)[other].double().mean()
        print(f"| {name} | {100 * won:.1f} |")


def active(checkpoint: str) -> None:
    """Let strategies ask for groups, on the frozen encoder; print accuracy against labels."""
    for strategy in STRATEGIES:
        rounds: dict[str, list[float]] = {}
        for seed in SEEDS:
            folder = RUNS / f"{strategy}-{seed}"
            if not (folder / "rounds.csv").exists():
                given = ["--strategy", strategy, "--strategy.query_size", "15", "--seed_everything", str(seed)]
                given += ["--model.recipe", "{augment: false, probe: false, ema: 0.0}"]  # as it was measured
                given += ["--model.checkpoint", checkpoint, "--folder", str(folder)]
                run("active", "-c", "experiment/emoji_active", *given)
            for row in csv.DictReader((folder / "rounds.csv").open()):
                rounds.setdefault(row["labelled"], []).append(100 * float(row["test/accuracy"]))
        cells = [f"{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f}" for found in rounds.values()]
        print(f"| {strategy} |", " | ".join(cells), "|", f"labels {', '.join(rounds)}")


if __name__ == "__main__":
    done = {name: pretrained(name) for name in METHODS}
    evaluate(done)
    both_streams(done["ViLBERT"])
    alignment(done)
    active(done["CLIP"])
