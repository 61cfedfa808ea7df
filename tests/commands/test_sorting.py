"""Files sorted into class folders: never over another, never outside, whatever classes and files are called."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_lightning.backbones import ConvNet
from ssl_lightning.commands.sorting import UNSURE, file_names, folder_names, require_new, sort_files
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier

Command = Callable[..., tuple[int, str]]
ODD = [
    "cat", "../x", "..", ".", "", " ", "a/b", "a\\b", "/etc", "C:", "con", "CON.txt", "nul", "Lpt1", ".hidden", "end.",
    "end ", "two\nlines", "bell\a", "\x00", "x" * 300, "é" * 300, "cat", "CAT", "é", unicodedata.normalize("NFD", "é"),
    "unsure", "Unsure", "a*?|<>\":b", "~", "-rf", "\u202egpj", "com¹", "a_b", "_",
]  # fmt: skip


def test_every_class_has_a_safe_folder_of_its_own() -> None:
    names = folder_names(ODD)
    assert len(names) == len(ODD)
    same = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(same) == len(ODD)
    assert UNSURE not in same
    for name in names:
        assert name == os.path.basename(name)
        assert name not in ("", ".", "..")
        assert name[0] != "."
        assert name[-1] not in ". "
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>|')
        assert len(name.encode()) <= 255
        assert name.partition(".")[0].lower() not in ("con", "nul", "lpt1", "com¹")
    assert names[0] == "cat"
    assert names[ODD.index("-rf")] == "-rf"
    assert folder_names(["great tit", "Meise", "蝶"]) == ["great tit", "Meise", "蝶"]


def test_files_of_one_name_stay_apart() -> None:
    keys = ["a/1.png", "b/1.png", "a/b/1.PNG", "a__1.png", "2.png", "b/2.png"]
    names = file_names(keys, ["x", "x", "x", "x", "x", "y"])
    assert names == ["a__1.png", "b__1.png", "a__b__1.PNG", "a__1 (2).png", "2.png", "2.png"]
    long = [f"{'d' * 200}/{'e' * 200}/{number}/{'f' * 240}.png" for number in range(3)]
    names = file_names(long, ["x"] * 3)
    assert len({name.lower() for name in names}) == 3
    assert all(len(name) <= 255 and name.endswith(".png") for name in names)


def test_nothing_lands_outside_or_over_another(tmp_path: Path) -> None:
    """Every odd class gets two files of one name, by way of copies and of links."""
    for name in ("a", "b"):
        (tmp_path / "from" / name).mkdir(parents=True)
        (tmp_path / "from" / name / "1.png").write_text(name)
    keys = ["a/1.png", "b/1.png"] * len(ODD)
    paths = [str(tmp_path / "from" / key) for key in keys]
    numbers = [number for number in range(len(ODD)) for _ in range(2)]
    for link in (False, True):
        into = tmp_path / "deep" / f"link {link}"
        sort_files(str(into), ODD, link, paths, keys, numbers, [True] * len(keys))
        assert len(list(into.iterdir())) == len(ODD)
        found = [path for path in tmp_path.rglob("*") if not path.is_dir() and "from" not in path.parts]
        assert sorted(path.parent.parent for path in found if path.is_relative_to(into)) == [into] * len(keys)
        for folder in into.iterdir():
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"a__1.png": "a", "b__1.png": "b"}
        assert all(path.is_symlink() == link for path in found if path.is_relative_to(into))
    assert len([path for path in tmp_path.rglob("*") if not path.is_dir()]) == 2 + 2 * len(keys)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("new")
    (tmp_path / "into" / "cat").mkdir(parents=True)
    (tmp_path / "into" / "cat" / "1.png").write_text("old")
    for link in (False, True):
        with pytest.raises(FileExistsError):
            sort_files(str(tmp_path / "into"), ["cat"], link, [str(tmp_path / "1.png")], ["1.png"], [0], [True])
    assert (tmp_path / "into" / "cat" / "1.png").read_text() == "old"


def test_a_new_folder_is_wanted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "empty").mkdir()
    for good in (tmp_path / "new", tmp_path / "empty", tmp_path / "source2"):
        require_new(str(good), str(source))
    (tmp_path / "file").touch()
    (tmp_path / "up").symlink_to(source)
    for bad, message in (
        ("file", "is there already and not empty; give a new folder: nothing is overwritten"),
        (".", "is there already and not empty"),
        ("source/in", "lies in `source=.*`, where copies would be taken for samples"),
        ("up/in", "lies in `source="),
    ):
        with pytest.raises(ValueError, match=message):
            require_new(str(tmp_path / bad), str(source))


@pytest.fixture
def run(trainer: Any, tmp_path: Path) -> Path:
    """The folder of a run: a classifier of bright and dark images, and images in two sub-folders."""
    model = Classifier(2, ConvNet(width=4))
    with torch.no_grad():  # bright is class 1, whatever the encoder does with it
        model.head[1].weight.zero_()
        model.head[1].bias.copy_(torch.tensor([0.0, 0.5]))
    model.facts = {"channels": 1, "image_size": 8, "class_names": ["../dark", "bright"], "num_classes": 2}
    method = SimCLR(ConvNet(width=4))
    method.facts = {"channels": 1, "image_size": 8}
    for module, name in ((model, "run/checkpoints/round_002.ckpt"), (method, "method.ckpt")):
        fit = trainer()
        fit.strategy.connect(module)
        fit.save_checkpoint(tmp_path / name)
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 100).save(tmp_path / "pictures" / name)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_predict_sorts(run: Path, command: Command) -> None:
    status, out = command("predict", "run", "pictures", "--sort", "sorted")
    assert status == 0, out
    assert "checkpoint: run/checkpoints/round_002.ckpt" in out
    assert "copied into sorted: bright 3" in out
    assert {path.name for path in (run / "sorted" / "bright").iterdir()} == {"a__1.png", "b__1.png", "2.png"}
    original = run / "pictures" / "b" / "2.png"
    assert (run / "sorted" / "bright" / "2.png").read_bytes() == original.read_bytes()
    status, out = command("predict", "run", "pictures", "--output", "o.csv", "--sort", "sorted")
    assert status == 2
    assert "`sort=sorted` is there already and not empty" in out
    assert not (run / "o.csv").exists()
    least = ["--min_probability", "0.63"]  # of 1 / (1 + exp(-0.5)) = 0.622
    status, out = command("predict", "run", "pictures", "--output", "o.csv", "--sort", "links", "--link", *least)
    assert status == 0, out
    assert "linked into links: unsure 3" in out
    assert (run / "links" / "unsure" / "2.png").resolve() == original


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method.ckpt", "pictures", "--sort", "s"], "`sort=s` needs classes, and the checkpoint is of a SimCLR"),
        (["run", "pictures", "--link"], "`--link` says how files are sorted; add `--sort FOLDER`"),
        (["run", "pictures", "--min_probability", "0.5"], "`--min_probability` says how files are sorted"),
        (["run", "pictures", "--sort", "s", "--min_probability", "2"], "`min_probability=2.0` must be from 0 to 1"),
        (["run", "--data", "Digits", "--sort", "s"], "`sort=s` sorts files, and there are samples that are none"),
        (["run", "pictures", "--sort", "pictures/s"], "`sort=pictures/s` lies in `source=pictures`"),
    ],
)
def test_mistakes_are_told_before_the_work(arguments: list[str], message: str, run: Path, command: Command) -> None:
    status, out = command("predict", *arguments)
    assert status == 2, out
    assert message in out
    assert len(out.strip().splitlines()) <= 1 + ("checkpoint: " in out)
    assert not list(run.glob("**/predictions.csv"))
    assert not (run / "s").exists()
