"""Labels belong to samples: whatever is added, removed, renamed or overwritten between two calls, none moves.

The content of every sample is a number of its own, so that a label can be traced to what was shown when it was given.
"""

import csv
import itertools
import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.active import PoolDataModule
from ssl_lightning.active.record import Record
from ssl_lightning.data import DataModule, ImageFolder, Vectors
from ssl_lightning.labelling import LabelStore

FEW, ALL = range(30), range(30, 120)  # sequences of edits: for a folder, and as many for vectors with and without keys


class Folder:
    """A folder of images of 8 px, each of which is the bits of a number, under random edits."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice, self.numbers = root, dice, itertools.count(1)
        for name in ("cat", "dog", "owl"):
            for _ in range(dice.randint(4, 9)):
                self.add(name)

    def write(self, path: Path) -> None:
        bits = np.array([int(bit) for bit in f"{next(self.numbers):016b}"], dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(bits.reshape(4, 4) * 255, np.ones((2, 2), np.uint8))).save(path)

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.png"))

    def classes(self) -> list[Path]:
        return sorted(path for path in self.root.iterdir() if path.is_dir() and path.name != "unlabelled")

    def add(self, name: str | None = None) -> None:
        name = name or self.dice.choice([path.name for path in self.classes()] + ["unlabelled"])
        self.write(self.root / name / f"{self.dice.randrange(10**6):06d}.png")

    def remove(self) -> None:
        self.dice.choice(self.files()).unlink()

    def rename(self) -> None:
        path = self.dice.choice(self.files())
        path.rename(path.with_name(f"{self.dice.randrange(10**6):06d}.png"))

    def touch(self) -> None:
        self.dice.choice(self.files()).touch()

    def overwrite(self) -> None:
        self.write(self.dice.choice(self.files()))

    def move(self) -> None:
        path = self.dice.choice(self.files())
        path.rename(self.dice.choice(self.classes()) / path.name)

    def swap(self) -> None:
        one, other = self.dice.sample(self.files(), 2)
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)

    def rename_class(self) -> None:
        path = self.dice.choice(self.classes())
        target = path.with_name(f"{path.name}{self.dice.randrange(100)}")
        if not target.exists():
            path.rename(target)

    def remove_class(self) -> None:
        if len(self.classes()) > 2:
            shutil.rmtree(self.dice.choice(self.classes()))

    def add_class(self) -> None:
        for _ in range(3):
            self.add(f"a{self.dice.randrange(100)}")  # sorts before the others: their numbers all change

    edits = (
        add, add, remove, rename, touch, overwrite, move, swap, rename_class, remove_class, add_class,
    )  # fmt: skip

    def open(self, seed: int) -> DataModule:
        return ImageFolder(str(self.root), image_size=8, channels=1, split_seed=seed, val_size=0.1, test_size=0.3)

    def content(self, data: DataModule, key: str) -> int:
        """Read the number of a sample as the model sees it."""
        samples, place = data.find(key)
        bits = (samples.__getitems__([place]).input[0, 0, ::2, ::2] > 127).flatten().tolist()
        return int("".join("1" if bit else "0" for bit in bits), 2)


class Rows:
    """Vectors whose first number is theirs alone, in a `.npy` file with a table of keys, or without keys."""

    def __init__(self, root: Path, dice: random.Random, keys: bool) -> None:
        self.root, self.dice, self.keys, self.numbers = root, dice, keys, itertools.count(1)
        self.rows: list[list[Any]] = []  # key, class, number
        for name in ("cat", "dog", "owl"):
            for _ in range(dice.randint(4, 9)):
                self.add(name)

    def add(self, name: str | None = None) -> None:
        name = name if name is not None else self.dice.choice(["cat", "dog", "owl", ""])
        number = next(self.numbers)
        self.rows.insert(self.dice.randrange(len(self.rows) + 1), [f"row-{number}", name, number])

    def remove(self) -> None:
        del self.rows[self.dice.randrange(len(self.rows))]

    def rename(self) -> None:
        self.dice.choice(self.rows)[0] = f"row-{self.dice.randrange(10**6, 10**7)}"

    def touch(self) -> None:
        self.dice.shuffle(self.rows)

    def overwrite(self) -> None:
        self.dice.choice(self.rows)[2] = next(self.numbers)

    def swap(self) -> None:
        one, other = self.dice.sample(self.rows, 2)
        one[2], other[2] = other[2], one[2]

    def rename_class(self) -> None:
        old = self.dice.choice(self.rows)[1]
        new = f"{old}{self.dice.randrange(100)}" if old else ""
        for row in self.rows:
            row[1] = new if row[1] == old else row[1]

    edits = (add, add, remove, rename, touch, overwrite, swap, rename_class)

    def open(self, seed: int) -> DataModule:
        np.save(self.root / "rows.npy", np.array([[row[2], 1.0] for row in self.rows], dtype=np.float32))
        with (self.root / "rows.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["key", "class"] if self.keys else ["class"])
            writer.writerows([row[0], row[1]] if self.keys else [row[1]] for row in self.rows)
        path, table = str(self.root / "rows.npy"), str(self.root / "rows.csv")
        return Vectors(path, table, split_seed=seed, val_size=0.1, test_size=0.3)

    def content(self, data: DataModule, key: str) -> int:
        samples, place = data.find(key)
        return int(samples.__getitems__([place]).input[0, 0])


class History:
    """What was ever seen, to be compared with what is used."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, int], str] = {}  # by key and content, as they were when the label was given
        self.tested: set[tuple[str, int]] = set()
        self.trained: set[tuple[str, int]] = set()
        self.keys: dict[str, str] = {}  # key -> part, of the last call

    def call(self, thing: Any, store: LabelStore, seed: int, round_number: int, folder: Path) -> None:
        """Make one call as `active` does, and check what it would train and test on."""
        data = thing.open(seed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data.setup()
            pool = PoolDataModule(data, initial=3, store=store, seed=seed)
            pool.round = round_number
            pool.setup("fit")
            Record(folder, pool).compare_samples()
        text = " ".join(str(warning.message) for warning in told)
        self._check_training(thing, data, pool)
        self._check_parts(thing, data, text)
        if len(pool.unlabelled):
            pool.acquire("Test", 0, pool.unlabelled[:2].tolist())
        for query in store.queries():
            if query.key not in self.keys or query.label is None:
                continue
            if query.fingerprint in ("", data.fingerprint(query.key)):  # else of a former content
                self.labels.setdefault((query.key, thing.content(data, query.key)), query.label)

    def _check_training(self, thing: Any, data: Any, pool: PoolDataModule) -> None:
        batch = pool.samples.__getitems__(pool.labelled.tolist())
        for place, target in zip(batch.index.tolist(), batch.target.tolist(), strict=True):
            key = pool.keys[place]
            sample = (key, thing.content(data, key))
            self.trained.add(sample)
            if sample in self.labels:
                assert data.class_names[target] == self.labels[sample]
            else:  # asked in this very call
                assert pool.round == 0
        assert not self.tested & self.trained

    def _check_parts(self, thing: Any, data: Any, text: str) -> None:
        now = dict.fromkeys(data.test_samples.keys, "test")
        now |= dict.fromkeys(data.train_samples.keys, "pool")
        labelled = {
            key for part in (data.train_samples, data.test_samples)
            for key, target in zip(part.keys, part.targets.tolist(), strict=True) if target >= 0
        }  # fmt: skip
        self.tested |= {(key, thing.content(data, key)) for key in data.test_samples.keys}
        assert not self.tested & self.trained
        for key, part in now.items():
            if key in self.keys and key in labelled and key in self.labelled:
                assert self.keys[key] == part, f"{key} changed sides"
        if self.keys:
            for what, keys in (("added", set(now) - set(self.keys)), ("removed", set(self.keys) - set(now))):
                assert (f"{len(keys)} samples were {what}" in text) == bool(keys), text
        self.keys, self.labelled = now, labelled


def cases() -> Iterator[Any]:
    yield pytest.param("folder", id="ImageFolder")
    yield pytest.param("keys", id="Vectors with keys")
    yield pytest.param("content", id="Vectors by content")


@pytest.mark.parametrize("kind", cases())
@pytest.mark.parametrize("seeds", [FEW, pytest.param(ALL, marks=pytest.mark.long)])
def test_no_label_is_ever_on_another_sample(kind: str, seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        dice = random.Random(seed)
        root = tmp_path / str(seed)
        root.mkdir()
        thing: Any = Folder(root, dice) if kind == "folder" else Rows(root, dice, kind == "keys")
        store, history = LabelStore(), History()
        history.call(thing, store, seed, 0, tmp_path / f"{seed}-run")
        for number in range(1, 4):
            for _ in range(dice.randint(1, 4)):
                dice.choice(thing.edits)(thing)
            history.call(thing, store, seed, number, tmp_path / f"{seed}-run")


def test_the_first_example_of_the_issue(tmp_path: Path) -> None:
    """One file is added in front: no stored label moves, and the test files stay the test files."""
    dice = random.Random(0)
    folder = Folder(tmp_path / "root", dice)
    for name in ("cat", "dog"):
        for _ in range(20):
            folder.add(name)
    store = LabelStore()
    before = PoolDataModule(folder.open(0), initial=15, store=store, seed=0)
    before.setup()
    before.round = 1
    tested = set(before.data.test_samples.keys)  # type: ignore[union-attr]
    known = {before.keys[place]: label for place, label in before.known()}
    folder.write(folder.root / "aardvark" / "0.png")  # a class in front of all others
    folder.write(folder.root / "cat" / "0.png")
    after = PoolDataModule(folder.open(0), store=store, seed=0)
    after.setup()
    after.round = 1
    assert {after.keys[place]: label - 1 for place, label in after.known()} == known
    assert set(after.data.test_samples.keys) - {"cat/0.png", "aardvark/0.png"} == tested  # type: ignore[union-attr]


def test_commands_between_edits(tmp_path: Path, command: Any) -> None:
    """The same on the command line: `active`, `test`, `predict`, `evaluate` after files and a class have changed."""
    folder = Folder(tmp_path / "pets", random.Random(3))
    for _ in range(60):
        folder.add(folder.dice.choice(["cat", "dog", "owl"]))
    data = ["--data", "ImageFolder", "--data.root", "pets", "--data.image_size", "8", "--data.channels", "1"]
    model = ["--model", "Classifier", "--model.backbone", "ConvNet", "--model.backbone.width", "4"]
    trainer = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    active = ["active", *data, "--data.val_size", "0", *model, *trainer, "--steps_per_epoch", "3", "--initial", "5"]
    active += ["--strategy", "Random", "--strategy.query_size", "2", "--folder", "run"]
    assert command(*active, "--rounds", "1")[0] == 0
    first = _labels(tmp_path)
    assert len(first) == 7
    gone = next(key for key in first)
    (folder.root / gone).unlink()
    folder.write(folder.root / "cat" / "000.png")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        status, out = command(*active, "--rounds", "2")
    assert status == 0, out
    text = " ".join(str(warning.message) for warning in told)
    assert f"1 samples (`{gone}`) in the label store" in text
    assert "1 samples were added since the run's last call: `cat/000.png`" in text
    assert "1 samples were removed since the run's last call" in text
    second = _labels(tmp_path)
    assert {key: second[key] for key in first} == first
    checkpoint = "run/checkpoints/round_002.ckpt"
    (folder.root / "owl").rename(folder.root / "bird")
    status, out = command("test", *data, *model, *trainer, "--ckpt_path", checkpoint, "--folder", "t")
    assert status == 2
    text = " ".join(out.split())
    assert "classes that the checkpoint does not know: `bird`, and lack `owl`: was a class renamed?" in text
    (folder.root / "bird").rename(folder.root / "owl")
    status, out = command("test", "-c", "run/config.yaml", "--ckpt_path", checkpoint, "--folder", "t")
    assert status == 0, out
    status, out = command("predict", checkpoint, "pets", "--output", "p.csv")
    assert status == 0, out
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(Path("pets") / p.relative_to(folder.root)) for p in folder.files()}
    assert {row["class"] for row in rows} <= {"cat", "dog", "owl"}
    status, out = command("evaluate", checkpoint, *data, "--protocols", "knn", "--k", "3")
    assert status == 0, out


def _labels(folder: Path) -> dict[str, str]:
    with (folder / "run" / "queries.csv").open() as file:
        return {row["key"]: row["class_name"] for row in csv.DictReader(file)}


def test_samples_json_is_complete(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "root", random.Random(1))
    pool = PoolDataModule(folder.open(0), initial=2, seed=0)
    pool.setup()
    Record(tmp_path / "run", pool).compare_samples()
    noted = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert set(noted) == {path.relative_to(folder.root).as_posix() for path in folder.files()}
    assert torch.tensor([noted[key] == "validation" for key in pool.keys]).sum() == len(pool.data.val_indices)
