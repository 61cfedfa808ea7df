"""Kill runs, their pages and those who answer at random moments, and compare with a run that nobody disturbed.

    python scripts/kill_runs.py --kills 100 --folder /tmp/kills

A folder of unlabelled digits is labelled by a scripted person, who answers by the truth as soon as something is asked.
First a run that nobody disturbs; then runs whose processes get SIGKILL at random moments: the run itself (importing,
fitting, passing over the pool, choosing, committing, waiting), the page, and a process that commits answers. Each is
started again until it is finished. In the end: no acknowledged answer is lost, none is there twice, and the picks and
labels are those of the undisturbed run.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits

from ssl_lightning.labelling.store import LabelStore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ssl_lightning.commands.train"])
ANSWERER = """
import json, sys, time
from pathlib import Path
from ssl_lightning.labelling.records import Answer
from ssl_lightning.labelling.store import LabelStore
folder, truth = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
while not (folder / "labels.sqlite").exists():
    time.sleep(0.02)
store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
while True:
    for query in store.claim("person", 3):
        answer = Answer(query.key, truth[query.key], "person", fingerprint=query.fingerprint, source="page")
        store.record([answer])
        print(query.id, flush=True)  # acknowledged: it must never be lost from here on
    time.sleep(0.01)
"""


def write_digits(folder: Path, count: int) -> dict[str, str]:
    """Write unlabelled pictures, and return their classes by key."""
    digits, truth = load_digits(), {}
    folder.mkdir(parents=True)
    for number in range(count):
        key = f"{number:04d}.png"
        Image.fromarray((digits.images[number] * (255 / 16)).round().astype("uint8")).save(folder / key)
        truth[key] = str(digits.target[number])
    return truth


def arguments(images: Path, folder: Path) -> list[str]:
    """Return the command line of a run."""
    return [
        "active", "--oracle", "Human", "--oracle.port", "0", "--classes",
        "0,1,2,3,4,5,6,7,8,9", "--data", "ImageFolder", "--data.root", str(images), "--data.image_size", "8",
        "--data.channels", "1", "--model", "Classifier", "--model.backbone", "ConvNet", "--model.backbone.width", "8",
        "--model.dropout", "0.5", "--strategy", "BALD", "--strategy.query_size", "10", "--strategy.members", "10",
        "--rounds", "3", "--initial", "20", "--steps_per_epoch", "20", "--trainer.max_epochs", "2",
        "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--folder", str(folder),
    ]  # fmt: skip


def work(given: list[str], log: str) -> None:
    """Be the command `ssl-lightning`, in a process that has imported torch already."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from ssl_lightning.__main__ import main as ssl_lightning

    sys.exit(ssl_lightning(given))


class Person(threading.Thread):
    """A process that answers, started again whenever it is killed; notes what was acknowledged to it."""

    def __init__(self, folder: Path, truth: Path) -> None:
        super().__init__(daemon=True)
        self.arguments, self.acknowledged, self.over = [str(folder), str(truth)], list[int](), False
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Answer, again and again."""
        while not self.over:
            command = [sys.executable, "-c", ANSWERER, *self.arguments]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for line in self.process.stdout:  # type: ignore[union-attr]
                if line.endswith("\n"):
                    self.acknowledged.append(int(line))
            self.process.wait()

    def end(self) -> None:
        """Stop."""
        self.over = True
        if self.process is not None:
            self.process.kill()
        self.join(10)


def outcome(folder: Path) -> list[tuple[object, ...]]:
    """Return what was asked and answered, and why."""
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
    return [(q.round, q.position, q.key, q.part, q.label, q.score, q.guess) for q in store.queries()]


def page_of(folder: Path) -> int | None:
    """Return the process of a run's page, if it has one."""
    try:
        return int(json.loads((folder / "page.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def kill_page(folder: Path) -> bool:
    """Kill a run's page, if it has one."""
    number = page_of(folder)
    try:
        os.kill(number or 0, signal.SIGKILL if number else 0)
    except ProcessLookupError:
        return False
    return number is not None


def start(images: Path, folder: Path, log: Path) -> Any:
    """Start a run, or go on with it."""
    made = CONTEXT.Process(target=work, args=(arguments(images, folder), str(log)))
    made.start()
    return made


def disturbed(
    images: Path, folder: Path, truth: Path, dice: random.Random, longest: float, kills: Counter[str]
) -> Person:
    """Run until finished, killing on the way; return who answered."""
    person, log = Person(folder, truth), folder.with_suffix(".log")
    person.start()
    while True:
        run, until = start(images, folder, log), time.monotonic() + dice.uniform(0.5, longest)
        while run.is_alive() and time.monotonic() < until:
            time.sleep(dice.uniform(0.05, 0.6))
            if dice.random() < 0.04 and kill_page(folder):
                kills["page"] += 1
            if dice.random() < 0.08 and person.process is not None and person.process.poll() is None:
                person.process.kill()
                kills["answering"] += 1
        if run.is_alive():
            run.kill()
            run.join()
            kills["run"] += 1
            continue
        run.join()
        if run.exitcode:
            sys.exit(f"a run ended by itself with {run.exitcode}: see {log}")
        person.end()
        return person


def main() -> None:
    """Kill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="of runs, at least; pages and answers come on top")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder to work in")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    truth = write_digits(folder / "images", 300)
    (folder / "truth.json").write_text(json.dumps(truth))
    began = time.monotonic()
    quiet = Person(folder / "undisturbed", folder / "truth.json")
    quiet.start()
    run = start(folder / "images", folder / "undisturbed", folder / "undisturbed.log")
    run.join()
    if run.exitcode:
        sys.exit(f"the undisturbed run failed: see {folder / 'undisturbed.log'}")
    quiet.end()
    longest = time.monotonic() - began  # the first run imports torch, which the others find there
    expected = outcome(folder / "undisturbed")
    print(f"undisturbed: {len(expected)} labels in {longest:.1f} s", flush=True)
    kills, dice, number = Counter[str](), random.Random(options.seed), 0
    lost = doubled = other = 0
    while kills["run"] < options.kills:
        number += 1
        place = folder / f"run_{number:03d}"
        person = disturbed(folder / "images", place, folder / "truth.json", dice, longest * 0.3, kills)
        store = LabelStore(f"sqlite:///{place / 'labels.sqlite'}")
        answered = Counter(event.key for event in store.history())
        there = {query.id for query in store.queries() if query.label is not None}
        lost += len(set(person.acknowledged) - there)
        doubled += sum(times - 1 for times in answered.values())
        other += outcome(place) != expected
        print(
            f"run {number}: killed so far {dict(kills)}; lost {lost}, doubled {doubled}, other picks {other}",
            flush=True,
        )
    minutes = (time.monotonic() - began) / 60
    print(
        f"{sum(kills.values())} SIGKILLs ({dict(kills)}) over {number} runs in {minutes:.1f} min: {lost} "
        f"labels lost, {doubled} doubled, {other} runs with other picks. torch {torch.__version__}, "
        f"{os.cpu_count()} cores, {platform.machine()}, {time.strftime('%Y-%m-%d')}"
    )
    sys.exit(bool(lost or doubled or other))


if __name__ == "__main__":
    main()
