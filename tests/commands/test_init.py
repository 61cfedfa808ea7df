"""The command `init`: what it says of a folder, and that the configs it writes run as they are."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ssl_lightning.commands.start_plan import CHOICES
from tests.commands.test_start import SMALL, config, pictures

Command = Callable[..., tuple[int, str]]
FEW = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small networks and batches, and three steps of the trial."""
    for kind, options in SMALL.items():
        monkeypatch.setitem(CHOICES, kind, dataclasses.replace(CHOICES[kind], **options))  # type: ignore[arg-type]
    monkeypatch.setattr("ssl_lightning.engine.clock.MOST_TRIED", 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def mixed_sizes(folder: Path) -> None:
    pictures(folder)
    for n in range(6):
        noise = Image.effect_noise((30 + 9 * n, 90 - 8 * n), 60)
        (noise.convert("RGB") if n % 2 else noise).save(folder / "c0" / f"other{n}.{'jpg' if n % 3 else 'png'}")


def sounds(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(2):
        (folder / f"c{number}").mkdir(parents=True)
        for n in range(12):
            soundfile.write(folder / f"c{number}" / f"{n}.wav", random.normal(size=2000 + 50 * n) * 0.1, 8000)


def table(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "height", "shape", "label"])
        for n in range(60):
            writer.writerow([*random.normal(n % 2, 1, 2).round(3).tolist(), "ab"[n % 2], ["cat", "dog"][n % 2]])


def texts(folder: Path) -> None:
    for name in ("sport", "money"):
        (folder / name).mkdir(parents=True)
        for n in range(15):
            (folder / name / f"{n}.txt").write_text(f"{name} and some more words on it, number {n}, as they say")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(pictures, "images"), (mixed_sizes, "images"), (sounds, "sound"), (table, "rows"), (texts, "text")],
)
def test_what_it_writes_runs(make: Callable[[Path], None], kind: str, tmp_path: Path, command: Command) -> None:
    make(tmp_path / "files")
    status, out = command("init", "files", "--minutes", "0.1", "--labels", "10")
    assert status == 0, out
    assert f"{kind}: " in out
    lines = [line.partition("    #")[0].split() for line in out.splitlines() if line.startswith("ssl-lightning ")]
    assert [line[1] for line in lines] == ["fit", "active", "predict"]
    for line in lines[:2]:
        assert f"# {' '.join(line)}" == Path(line[-1]).read_text().splitlines()[0]
    assert config("files.yaml")["trainer"]["precision"] == "auto"
    status, said = command(*lines[0][1:], *FEW)
    assert status == 0, said
    status, said = command(*lines[1][1:], "--rounds", "1")
    assert status == 0, said
    status, said = command(*lines[2][1:])
    assert status == 0, said


def test_what_it_says(tmp_path: Path, command: Command) -> None:
    pictures(tmp_path / "files", classes=3)
    files = tmp_path / "files"
    shutil.copy(files / "c0" / "1.png", files / "c0" / "again.png")
    shutil.copy(files / "c0" / "2.png", files / "c2" / "wrong.png")
    (files / "c1" / "broken.png").write_bytes(b"no picture")
    (files / "c1" / "3.png").rename(files / "loose.png")
    status, out = command("init", "files", "--minutes", "0.1")
    assert status == 0
    assert "images: 77 samples (gray, 8 px in the middle, taken at 8 px)" in out
    assert "sides: 8 to 8 px" in out
    assert "1 unreadable" in out
    assert "exact copies: 2, such as " in out
    assert "1 of them have copies of another class: one of the two labels is wrong" in out
    assert "labelled: " in out
    status, out = command("init", "files")
    assert status == 2
    assert "`files.yaml` exists; give `--overwrite`" in out
    assert command("init", "files", "--overwrite", "--minutes", "0.1")[0] == 0


def test_people_are_asked_where_nothing_is_labelled(tmp_path: Path, command: Command) -> None:
    pictures(tmp_path / "files", classes=1)
    for path in (tmp_path / "files" / "c0").iterdir():
        path.rename(tmp_path / "files" / path.name)
    (tmp_path / "files" / "c0").rmdir()
    status, out = command("init", "files", "--minutes", "0.1", "--name", "mine")
    assert status == 0
    assert "ssl-lightning active -c mine-active.yaml --classes cat,dog    # opens a page where you label" in out
    assert config("mine-active.yaml")["oracle"] == "Human"
    assert config("mine.yaml")["trainer"]["callbacks"] == ["CollapseMonitor"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "`folder=nowhere` does not exist"),
        (["."], "is empty"),
        ([".", "--minutes", "0"], "`minutes=0.0` must be above 0"),
        ([".", "--labels", "1"], "`labels=1` must be"),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str, command: Command) -> None:
    status, out = command("init", *arguments)
    assert status == 2
    assert said in out
