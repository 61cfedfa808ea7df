"""From a folder of unlabelled pictures to a model by three commands, with a scripted person at the page.

    ../shared/data/unpack data emoji
    python scripts/label_emoji.py --folder /tmp/emoji_run

1,500 of the emoji pictures lie in one folder, unlabelled; their group is unknown to the tool and known to the person,
who sits at the page in headless Chromium and presses the key of the right class. The other 386 are in no command's
sight: they judge the model of each round. Beside it stands what all 1,500 labels give by the same pretrained encoder.
"""

import argparse
import csv
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import torch
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "ssl_lightning"]


def lay_out(folder: Path) -> dict[str, str]:
    """Copy the pictures; return the group of each by its file's name."""
    source = ROOT / "data" / "emoji"
    with (source / "captions.csv").open(encoding="utf-8") as file:
        truth = {row["image"]: row["group"] for row in csv.DictReader(file)}
    names = sorted(truth)
    random.Random(0).shuffle(names)
    for place, name in enumerate(names):
        target = folder / ("pictures" if place < 1500 else "unseen") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "images" / name, target)
        if place < 1500:
            labelled = folder / "labelled" / truth[name].replace(" & ", " and ") / name
            labelled.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / "images" / name, labelled)
    return {name: group.replace(" & ", " and ") for name, group in truth.items()}


def run(*arguments: str) -> float:
    """Run a command; return its seconds."""
    began = time.monotonic()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def accuracy(checkpoint: Path, folder: Path, truth: dict[str, str]) -> float:
    """Predict the unseen pictures from a checkpoint alone."""
    table = checkpoint.with_suffix(".csv")
    run("predict", str(checkpoint), str(folder / "unseen"), "--output", str(table))
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return sum(truth[Path(row["path"]).name] == row["class"] for row in rows) / len(rows)


def keep_checkpoints(folder: Path, over: threading.Event) -> None:
    """Copy the model of each round, which the next one replaces."""
    kept = folder / "kept"
    kept.mkdir()
    while not over.is_set():
        for path in (folder / "run" / "checkpoints").glob("round_*.ckpt"):
            if not (kept / path.name).exists():
                time.sleep(0.3)  # it is written whole
                shutil.copy(path, kept / path.name)
        time.sleep(0.2)


def sample(page: Page) -> str:
    """Return the key of the sample whose picture is there; the page takes no answer before."""
    found = "(at => at('#sample').hidden || !at('#sample img')?.complete ? '' : at('#sample .key').textContent)"
    return str(page.evaluate(f"{found}(name => document.querySelector(name))"))


def press(page: Page, truth: dict[str, str], classes: list[str], active: subprocess.Popen[bytes]) -> int:
    """Answer by keys until the run ends; return how many answers were given."""
    answers, before, pressed = 0, "", 0.0
    while active.poll() is None:
        shown = sample(page)
        if not shown or (shown == before and time.monotonic() - pressed < 0.5):
            time.sleep(0.01)
            continue
        page.keyboard.press(str(1 + classes.index(truth[shown])))
        answers, before, pressed = answers + (shown != before), shown, time.monotonic()
    return answers


def main() -> None:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder to work in")
    parser.add_argument("--epochs", default="100", help="of the pretraining")
    parser.add_argument("--rounds", default="10", help="of fifty labels, after the first fifty")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    truth = lay_out(folder)
    classes = sorted(set(truth.values()))
    print(
        f"{torch.__version__=}, {os.cpu_count()} cores, {platform.machine()}, {time.strftime('%Y-%m-%d')}", flush=True
    )
    pretrained = str(folder / "ssl" / "checkpoints" / "last.ckpt")
    data = ["--data.root", str(folder / "pictures")]
    began = time.monotonic()
    seconds = run(
        "fit", "-c", "experiment/people_pretrain", *data, "--trainer.max_epochs", options.epochs, "--folder",
        str(folder / "ssl"),
    )  # fmt: skip
    print(f"1. pretraining: {seconds / 60:.1f} min", flush=True)
    asking = time.monotonic()
    active = subprocess.Popen(
        [
            *COMMAND, "active", "-c", "experiment/people_active", *data, "--classes", ",".join(classes),
            "--model.checkpoint", pretrained, "--rounds", options.rounds, "--folder", str(folder / "run"),
        ]
    )  # fmt: skip
    over = threading.Event()
    threading.Thread(target=keep_checkpoints, args=(folder, over), daemon=True).start()
    told = folder / "run" / "page.json"
    while not told.exists():
        time.sleep(0.05)
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        url = json.loads(told.read_text())["url"]
        assert parse_qs(urlsplit(url).query)
        page.goto(url)
        page.fill("#name", "scripted person")
        page.keyboard.press("Enter")
        while not sample(page):
            time.sleep(0.02)
        first = time.monotonic()
        print(
            f"2. first query: {(first - asking) / 60:.2f} min after `active`, {(first - began) / 60:.1f} min after the "
            "first command",
            flush=True,
        )
        answers = press(page, truth, classes, active)
        browser.close()
    over.set()
    if active.wait():
        sys.exit("the run failed")
    print(f"   {answers} keys pressed, {(time.monotonic() - asking) / 60:.1f} min until the last model", flush=True)
    run(
        "fit", "--data", "ImageFolder", "--data.root", str(folder / "labelled"), "--data.batch_size", "64",
        "--data.test_size", "0", "--model", "Classifier", "--model.checkpoint", pretrained, "--model.dropout", "0.2",
        "--model.optimizer.name", "adamw", "--model.optimizer.lr", "0.001",
        "--trainer.max_epochs", "14", "--folder", str(folder / "all"),
    )  # fmt: skip
    best = accuracy(folder / "all" / "checkpoints" / "last.ckpt", folder, truth)
    print(f"all 1,500 labels: {best:.1%} of the unseen pictures right", flush=True)
    print("labels  right  share of that")
    with (folder / "run" / "rounds.csv").open() as file:
        asked = [int(row["queried"]) for row in csv.DictReader(file)]
    reached, labels = None, 50
    for number, path in enumerate(sorted((folder / "kept").glob("round_*.ckpt"))):
        found = accuracy(path, folder, truth)
        print(f"{labels:>6}  {found:>5.1%}  {found / best:.0%}", flush=True)
        reached = reached or (labels if found >= 0.8 * best else None)
        labels += asked[number]
    counts = Counter(truth[path.name] for path in (folder / "unseen").iterdir())
    print(f"the most frequent class alone: {max(counts.values()) / sum(counts.values()):.1%}")
    print(f"labels to 80 % of what all give: {reached or 'not reached'}")


if __name__ == "__main__":
    main()
