"""What a run's last model makes of its data, as `ssl-lightning report` keeps it beside the run: numbers and a sheet."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lightning.engine.csv_files import replacing

FILE = "analysis.npz"
FORMAT = 1
NOT_ASKED = -2
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Analysis:
    """Of N samples, those of the pool and of the test part that were looked at; classes are numbers in `class_names`.

    Args:
        about: `class_names`, `method`, `checkpoint`, `made_of`, `map`, `explained`, `totals` of the parts, `precision`
            of nearest neighbours, `advice` on the three cases, `cell` and `columns` of the sheet, `texts`.
        keys: Of the samples.
        part: Number in `PARTS`.
        target: True class, `(N,)`; -1 where unknown.
        asked: Round after which a label was asked; -1 the initial ones, -2 never.
        labelled: Whether the model was told the class.
        predicted: The model's guess; -1 for an encoder.
        confidence: Probability of the guess; NaN for an encoder.
        entropy: Of the probabilities, in nats; NaN for an encoder.
        spot: Place on the map, `(N, 2)`; NaN where it is not drawn.
        cell: Place on the sheet of small pictures, and in `texts`; -1 where it is on none.
        case: 0 no, 1 high, 2 data disagreement; -1 where unknown.
        disagreement: Mutual information in nats; NaN where unknown.
        own: Mean entropy of the members in nats; NaN where unknown.
        errors: Numbers of the most confident errors.
        neighbours: Numbers `(queries, 1 + k)`: a sample, and those that are nearest to it.
        similarity: Cosines `(queries, k)`.
        sheet: A PNG or JPEG file; empty where nothing is a picture.
    """

    about: dict[str, Any]
    keys: NDArray[np.str_]
    part: NDArray[np.uint8]
    target: NDArray[np.int64]
    asked: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    entropy: NDArray[np.float64]
    spot: NDArray[np.float64]
    cell: NDArray[np.int64]
    case: NDArray[np.int64]
    disagreement: NDArray[np.float64]
    own: NDArray[np.float64]
    errors: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    similarity: NDArray[np.float64]
    sheet: NDArray[np.uint8] = field(repr=False)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.about["class_names"]]

    @property
    def classifies(self) -> bool:
        """Whether the model guesses classes."""
        return bool((self.predicted >= 0).any())

    @property
    def judged(self) -> tuple[str, NDArray[np.int64]]:
        """The part that guesses are judged by, test or else validation, and its samples whose class is known."""
        for name in ("test", "validation"):
            found = np.flatnonzero((self.part == PARTS.index(name)) & (self.target >= 0) & (self.predicted >= 0))
            if len(found):
                return name, found
        return "", np.empty(0, np.int64)

    def name_of(self, number: int) -> str:
        """Return a class's name, or a question mark."""
        return self.class_names[number] if number >= 0 else "?"

    def text_of(self, place: int) -> str:
        """Return what a person reads of a sample; empty where that is a picture alone."""
        cell = int(self.cell[place])
        return str(self.about["texts"][cell]) if cell >= 0 else ""

    def write(self, path: Path) -> None:
        """Write the file, as a whole."""
        arrays = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "about"}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps(self.about)), **arrays)
        with replacing(path, "wb") as file:
            file.write(buffer.getvalue())


def read_analysis(path: Path) -> Analysis | None:
    """Read what was kept; null where nothing was, or what is there is of another version or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["made_of"]["format"] != FORMAT:
                return None
            return Analysis(about, **{one.name: stored[one.name] for one in fields(Analysis) if one.name != "about"})
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
