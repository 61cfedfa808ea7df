"""Synthetic run folders that follow the contract of `ssl-lightning active`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

WriteRun = Callable[..., Path]


def write_run(
    folder: Path,
    strategy: str = "Entropy",
    checkpoint: str | None = None,
    seed: int = 0,
    accuracy: Sequence[float] = (0.5, 0.6, 0.7),
    labelled: Sequence[int] | None = None,
    validation: int = 0,
    images: Mapping[int, np.ndarray] | None = None,
    targets: Sequence[int] | None = None,
    query_size: int = 4,
    texts: Mapping[int, Sequence[str]] | None = None,
) -> Path:
    """Write config.yaml, rounds.csv, queries.csv and what was shown: strips of `images`, or `texts`, by round."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "seed_everything": seed,
        "strategy": {
            "class_path": f"ssl_lightning.active.uncertainty.{strategy}",
            "init_args": {"query_size": query_size},
        },
        "model": {"class_path": "ssl_lightning.Classifier", "init_args": {"checkpoint": checkpoint}},
        "data": {"class_path": "ssl_lightning.data.Digits", "init_args": {"validation": validation}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    labelled = labelled or [20 + query_size * number for number in range(len(accuracy))]
    with (folder / "rounds.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "labelled", "validation", "queried", "seconds", "test/accuracy", "train/loss"])
        for number, (count, value) in enumerate(zip(labelled, accuracy, strict=True)):
            writer.writerow([number, count, validation, query_size, 1.5, value, 1 - value])
    with (folder / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "position", "key", "path", "class_name", "score"])
        generator = np.random.default_rng(seed)
        for number in range(-1, len(accuracy) - 1):
            for position in range(query_size):
                index = (number + 1) * query_size + position
                label = targets[index] if targets is not None else int(generator.integers(10))
                score = "" if number == -1 else round(2.3 - 0.01 * index, 5)
                writer.writerow([number, position, f"k{index}", f"data/k{index}.png", label, score])
    for number, strip in (images or {}).items():
        path = folder / "queries" / ("initial.png" if number == -1 else f"round_{number:03d}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(strip).save(path)
    for number, told in (texts or {}).items():
        path = folder / "queries" / ("initial.json" if number == -1 else f"round_{number:03d}.json")
        path.parent.mkdir(exist_ok=True)
        first = (number + 1) * query_size
        items = [{"key": f"k{first + place}", "kind": "text", "text": text} for place, text in enumerate(told)]
        path.write_text(json.dumps(items))
    return folder


@pytest.fixture
def make_run() -> WriteRun:
    """The function that writes a synthetic run folder."""
    return write_run
