"""The console: every line that a command prints, warnings among them, is for the person who gave it."""

import re
import subprocess
import sys
from pathlib import Path

ONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
SIMCLR = ["--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--model.backbone.width", "4", *ONE]
FIT = ["fit", *SIMCLR, "--trainer.callbacks+=KNN", "--trainer.callbacks+=CollapseMonitor", "--folder", "ssl"]
ACTIVE = [
    "active", "-c", "data/digits", "-c", "active/classifier", "--strategy", "Margin", "--rounds", "1", *ONE,
    "--model.backbone", "null", "--model.checkpoint", "ssl/checkpoints/last.ckpt", "--model.freeze", "true",
    "--steps_per_epoch", "5", "--folder", "active",
]  # fmt: skip
COMMANDS = [
    [*FIT, "--trainer.max_epochs", "1"],
    [*FIT, "--trainer.max_epochs", "2", "--ckpt_path", "ssl/checkpoints/last.ckpt"],
    ["test", "-c", "ssl/config.yaml", "--ckpt_path", "ssl/checkpoints/last.ckpt", "--folder", "test"],
    ACTIVE,
]
LINES = [
    r"precision: \S+, (the fastest here|as before)",
    r"model: SimCLR on ConvNet, [\d,]+ parameters to learn",
    r"folder: \S+",
    r"checkpoint: ssl/checkpoints/last.ckpt",
    r"epoch \d of \d, step \d of \d  loss [\d.]+(  \S+ [-\d.e]+)*(  [\d.]+ s left)?",
    r"round \d: \d+ labels  test/accuracy [\d.]+(  asked 20 by Margin)?  \([\d.]+ s\)",
    r"[ │┃┏┡└┓┩┘━─┳╇┴]*",  # of the table of a test
    r".*(Test metric|DataLoader 0|test/).*",
]


def test_every_line_is_one_that_is_known(tmp_path: Path) -> None:
    code = f"from ssl_lightning.__main__ import main\nprint([main(given) for given in {COMMANDS}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    assert last == "[0, 0, 0, 0]"
    unknown = [line for line in lines if not any(re.fullmatch(known, line) for known in LINES)]
    assert not unknown
    assert done.stderr.splitlines() == []
    assert sum(line.startswith("epoch") and "left" not in line for line in lines) == 2
    assert sum(line.startswith("checkpoint") for line in lines) == 2
