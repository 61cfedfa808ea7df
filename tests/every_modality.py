"""A tiny data set of every modality, in files as users have them, and a small encoder for each."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from PIL import Image

from ssl_lightning.backbones import AudioNet, Backbone, ConvNet, RowNet, TextTransformer, TwoTowers
from ssl_lightning.data import AudioFolder, DataModule, ImageFolder, Pairs, Table, Texts
from ssl_lightning.supervised import Classifier

CLASSES = ("blue", "green", "red")
WORDS = {"blue": ["sea", "sky", "ice"], "green": ["leaf", "moss", "pea"], "red": ["rose", "fire", "blood"]}


class Modality(NamedTuple):
    """How to try a modality.

    Attributes:
        write: Writes the files of a number of samples into a folder, by a generator.
        data: Opens them.
        backbone: Builds an encoder by the facts of the data.
    """

    write: Callable[[Path, int, np.random.Generator], None]
    data: Callable[..., DataModule]
    backbone: Callable[[dict[str, Any]], Backbone]


def _images(folder: Path, count: int, drawn: np.random.Generator) -> None:
    for place in range(count):
        path = folder / CLASSES[place % 3] / f"{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(place % 3, drawn).save(path)


def _picture(number: int, drawn: np.random.Generator) -> Image.Image:
    pixels = drawn.integers(0, 120, (8, 8, 3))
    pixels[..., 2 - number] += 100
    return Image.fromarray(pixels.astype(np.uint8))


def _sounds(folder: Path, count: int, drawn: np.random.Generator) -> None:
    for place in range(count):
        path = folder / CLASSES[place % 3] / f"{place:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(drawn.integers(400, 8000))) / 8000  # from a twentieth of a second to a whole one
        wave = np.sin(2 * np.pi * (300 + 700 * (place % 3)) * time) + 0.3 * drawn.standard_normal(len(time))
        soundfile.write(path, 0.3 * wave, 8000)


def _sentence(number: int, drawn: np.random.Generator) -> str:
    words = [*WORDS[CLASSES[number]], "the", "a", "of", "and"]
    return " ".join(drawn.choice(words, size=int(drawn.integers(1, 40))))


def _table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _texts(folder: Path, count: int, drawn: np.random.Generator) -> None:
    rows = [[f"t{place:03d}", _sentence(place % 3, drawn), CLASSES[place % 3]] for place in range(count)]
    _table(folder / "texts.csv", ["key", "text", "label"], rows)


def _values(count: int, number: int, drawn: np.random.Generator) -> list[float]:
    values: list[float] = (drawn.standard_normal(count) + number % 3).tolist()
    return values


def _rows(folder: Path, count: int, drawn: np.random.Generator) -> None:
    rows = [[f"r{n:03d}", *_values(3, n, drawn), drawn.choice(["on", "off"]), CLASSES[n % 3]] for n in range(count)]
    _table(folder / "rows.csv", ["key", "a", "b", "c", "switch", "class"], rows)


def _numbers(folder: Path, count: int, drawn: np.random.Generator) -> None:
    rows = [[f"n{n:03d}", *_values(4, n, drawn), CLASSES[n % 3]] for n in range(count)]
    _table(folder / "numbers.csv", ["key", "a", "b", "c", "d", "class"], rows)


def _pairs(folder: Path, count: int, drawn: np.random.Generator) -> None:
    rows = []
    for place in range(count):
        _picture(place % 3, drawn).save(folder / f"{place:03d}.png")
        rows.append([f"{place:03d}.png", f"{place} {_sentence(place % 3, drawn)}", CLASSES[place % 3]])
    _table(folder / "pairs.csv", ["image", "caption", "class"], rows)


def _texts_of(folder: Path, **options: Any) -> DataModule:
    from ssl_lightning.data.text_files import Columns

    columns = Columns(text="text", label="label", key="key")
    return Texts(str(folder / "texts.csv"), columns=columns, vocab_size=300, **options)


MODALITIES = {
    "images": Modality(
        _images,
        lambda folder, **options: ImageFolder(str(folder), image_size=8, **options),
        lambda facts: ConvNet(facts["channels"], width=4),
    ),
    "sound": Modality(
        _sounds,
        lambda folder, **options: AudioFolder(str(folder), sample_rate=8000, **options),
        lambda facts: AudioNet(width=4, dim=16),
    ),
    "text": Modality(
        _texts,
        _texts_of,
        lambda facts: TextTransformer(facts["vocab_size"], dim=16, depth=1, heads=2, vocabulary=facts["vocabulary"]),
    ),
    "rows": Modality(
        _rows,
        lambda folder, **options: Table(str(folder / "rows.csv"), categories=["switch"], **options),
        lambda facts: RowNet(facts["feature_dim"], facts["cardinalities"], width=16),
    ),
    "numbers": Modality(
        _numbers,
        lambda folder, **options: Table(str(folder / "numbers.csv"), **options),
        lambda facts: RowNet(facts["feature_dim"], facts["cardinalities"], width=16),
    ),
    "images with text": Modality(
        _pairs,
        lambda folder, **options: Pairs(str(folder / "pairs.csv"), image_size=8, vocab_size=300, **options),
        lambda facts: TwoTowers(
            facts["vocab_size"], image_size=8, vocabulary=facts["vocabulary"], dim=16,
            image=ConvNet(3, width=4), text=TextTransformer(facts["vocab_size"], dim=16, depth=1, heads=2),
        ),
    ),
}  # fmt: skip


def write(name: str, folder: Path, count: int = 60, seed: int = 0) -> Path:
    """Write a tiny data set of a modality: three classes, sequences of very different lengths.

    Args:
        name: Of the modality.
        folder: For the files; made.
        count: Samples.
        seed: Of their content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    MODALITIES[name].write(folder, count, np.random.default_rng(seed))
    return folder


def classifier(name: str, data: DataModule, **options: Any) -> Classifier:
    """Build a small classifier for data of a modality, the same at each call."""
    torch.manual_seed(0)
    return Classifier(data.num_classes, MODALITIES[name].backbone(data.facts), **{"dropout": 0.3, **options})
