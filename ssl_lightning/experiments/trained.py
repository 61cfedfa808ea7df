"""Read the folder that `ssl-lightning fit` leaves behind, and what any run says of how it was made."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.experiments.runs import read_yaml

Points = list[tuple[float, float]]
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")


@dataclass(frozen=True)
class Made:
    """How a run was made.

    Args:
        command: As it was given; where that is not known, one that does the same.
        known: Whether it was given so.
        versions: `name==version` of what it was made with.
        config: Text of the run's config, without passwords.
    """

    command: str
    known: bool
    versions: tuple[str, ...]
    config: str


@dataclass(frozen=True)
class Fit:
    """What one `fit` logged.

    Args:
        folder: Of the run.
        config: Of the run.
        curves: Of each metric its values by the optimizer's step.
        pictures: Files that the `Pictures` callback drew, the first epoch first.
    """

    folder: Path
    config: Mapping[str, Any]
    curves: Mapping[str, Points]
    pictures: tuple[Path, ...]

    @property
    def method(self) -> str:
        """Class name of the method or classifier."""
        return _class_name(self.config.get("model")) or "unknown method"

    @property
    def data(self) -> str:
        """Class name of the data."""
        return _class_name(self.config.get("data")) or "unknown data"


def is_fit(folder: Path) -> bool:
    """Tell whether a folder is one of a `fit`."""
    made = (folder / "checkpoints").is_dir() or (folder / "logs").is_dir()
    return made and (folder / "config.yaml").is_file() and not (folder / "rounds.csv").is_file()


def read_fit(folder: Path) -> Fit:
    """Read one run's folder: `config.yaml`, and what is there of `logs` and `pictures`."""
    pictures = tuple(sorted((folder / "pictures").glob("epoch_*.png")))
    return Fit(folder, read_yaml(folder / "config.yaml"), read_curves(folder), pictures)


def read_curves(folder: Path) -> dict[str, Points]:
    """Read all that a run logged to CSV files; of a fit that went on, the later file counts where both have a step.

    Returns:
        Of each metric its finite values by step, in order.

    Raises:
        ValueError: If a file holds something else than numbers.
    """
    found: dict[str, dict[float, float]] = {}
    files = sorted(
        folder.glob("logs/version_*/metrics.csv"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                try:
                    step = float(line.pop("step"))
                    values = {name: float(value) for name, value in line.items() if value}
                except (KeyError, ValueError, TypeError):
                    raise ValueError(
                        f"line {number} of `{path}` is no row of numbers; delete the file to leave it out"
                    ) from None
                for name, value in values.items():
                    if math.isfinite(value) and name != "epoch":
                        found.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in found.items()}


def read_made(folder: Path, command: str) -> Made:
    """Read from the head of a run's config how it was made.

    Args:
        folder: Of the run.
        command: `fit` or `active`.
    """
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].strip())
    versions = tuple(line for line in head if re.fullmatch(r"[\w.-]+==\S+", line))
    given = "\n".join(line for line in head if line not in versions)
    again = f"ssl-lightning {command} --config {folder / 'config.yaml'}"
    config = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return Made(_PASSWORD.sub(r"\1:***@", given or again), bool(given), versions, _PASSWORD.sub(r"\1:***@", config))


def _class_name(spec: object) -> str:
    path = spec.get("class_path", "") if isinstance(spec, Mapping) else spec
    return str(path or "").rpartition(".")[2]
