"""The same commands by this tree and by an earlier commit, in turns: start-up, rounds and choosing, then and now.

    OMP_NUM_THREADS=1 python scripts/bench_before.py --before ef13931

Puts the commit beside this tree (`git worktree`, under runs/bench-before), and runs both with the same libraries. A
command's seconds are those of the clock, from its start to its end; each is run once unmeasured. Choosing is timed in a
process of its own, on the data of bench_strategies.py, by the earlier commit's script and this one's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "runs" / "bench-before"
ONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false"]
PRETRAINED = "pretrained/checkpoints/last.ckpt"
FROZEN = [
    "active", "--data", "MNIST", "--data.root", str(ROOT / "data"), "--data.val_size", "1000",
    "--data.batch_size", "64",
    "--model", "Classifier", "--model.checkpoint", PRETRAINED, "--model.freeze", "true",
    "--strategy", "Margin", "--strategy.query_size", "20", "--initial", "20", "--rounds", "5",
    "--steps_per_epoch", "100", "--trainer.max_epochs", "1", *ONE, "--folder", "frozen",
]  # fmt: skip
COMMANDS: dict[str, tuple[int, list[str]]] = {  # repetitions, arguments
    "--help": (5, ["--help"]),
    "list": (5, ["list"]),
    "a mistyped option": (5, ["fit", "--data", "Digits", "--model", "SimCLR", "--model.bakbone", "ConvNet"]),
    "fit, one step on digits, whole command": (
        3,
        [
            *("fit", "--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--folder", "step", *ONE),
            *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"),
        ],
    ),
    "active, 6 models on a frozen encoder, pool of 59,000, whole command": (1, FROZEN),
}
CHOOSING = [("EPIG", 10**6), ("ProbCover", 10**6), ("BADGE", 10**6), ("TypiClust", 10**6)]
LAST = "active, 6 models"


def call(tree: Path, arguments: list[str], python: list[str], where: Path) -> tuple[float, str]:
    """Run a process of a tree; return its seconds and what it printed."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, *python, *arguments],
        env=os.environ | {"PYTHONPATH": str(tree)}, cwd=where, text=True, capture_output=True, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    if done.returncode and "bakbone" not in " ".join(arguments):
        raise SystemExit(f"{tree}: {' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return seconds, done.stdout


def main() -> None:
    """Measure in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="a commit")
    parser.add_argument("--only", choices=["commands", "choosing"], help="one of the two parts")
    options = parser.parse_args()
    former = OUT / "tree"
    subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
    if not former.exists():
        subprocess.run(["git", "worktree", "add", "--detach", str(former), options.before], cwd=ROOT, check=True)
    trees = {"before": former, "now": ROOT}
    print(f"Before: commit {options.before}.\n\n| Seconds | before | now | before / now |\n|---|---:|---:|---:|")

    def line(name: str, times: dict[str, list[float]]) -> None:
        then, now = (statistics.median(times[which]) for which in trees)
        print(f"| {name} | {then:.3g} | {now:.3g} | {then / now:.2g} |", flush=True)

    command = ["-m", "ssl_lightning"]
    places = {which: OUT / which for which in trees}
    for name, (repetitions, arguments) in COMMANDS.items() if options.only != "choosing" else ():
        times: dict[str, list[float]] = {which: [] for which in trees}
        for which, tree in trees.items():
            shutil.rmtree(places[which], ignore_errors=True)
            places[which].mkdir(parents=True)
            if name.startswith(LAST):
                fit = ["fit", "-c", str(tree / "configs/experiment/mnist_pretrain.yaml"), "--folder", "pretrained"]
                given = ["--data.root", str(ROOT / "data"), "--trainer.max_steps", "5"]
                call(tree, [*fit, *given], command, places[which])
        for turn in range(repetitions + 1):
            if not (turn == 0 and repetitions == 1):  # the first only warms up
                for which, tree in trees.items():
                    shutil.rmtree(places[which] / "step", ignore_errors=True)
                    times[which].append(call(tree, arguments, command, places[which])[0])
        line(name, {which: found[1:] or found for which, found in times.items()})
    for name, size in CHOOSING if options.only != "commands" else ():
        grown = {}
        for which, tree in trees.items():
            script = tree / "scripts" / "bench_strategies.py"
            who = ["--who", "ours"] if "--who" in script.read_text() else []
            _, told = call(tree, ["--grow", name, "--size", str(size), *who], [str(script)], tree)
            grown[which] = [float(json.loads(told.splitlines()[-1])["seconds"])]
        line(f"{name}, 100 of {size:,}", grown)


if __name__ == "__main__":
    main()
