"""The files that predictions are written to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_lightning.engine.csv_files import replacing, write_csv


def write_classes(path: Path, keys: Sequence[str], paths: Sequence[str], parts: Sequence[str], rows: Tensor,
                  class_names: Sequence[str], everything: bool = False) -> None:  # fmt: skip
    """Write a line a sample: path and key, the two most probable classes and their probabilities.

    Args:
        path: Of the CSV file.
        keys: Of the samples, `n` of them.
        paths: Of their files, or empty strings.
        parts: They belong to, or empty strings.
        rows: Class probabilities `(n, classes)`.
        class_names: Of the columns.
        everything: Write a column with the probability of each class, too.
    """
    best, numbers = rows.max(dim=1)
    second, others = rows.scatter(1, numbers[:, None], -1).max(dim=1)
    columns = ["path", "key"] if any(paths) else ["key"]
    columns += ["part"] if any(parts) else []
    columns += ["class", "probability", "second class", "second probability"]
    columns += [f"probability of {name}" for name in class_names] if everything else []
    lines = []
    for place, (key, number) in enumerate(zip(keys, numbers.tolist(), strict=True)):
        line: dict[str, Any] = {
            "path": paths[place], "key": key, "part": parts[place], "class": class_names[number],
            "probability": f"{float(best[place]):.6f}",
        }  # fmt: skip
        if len(class_names) > 1:
            line["second class"] = class_names[int(others[place])]
            line["second probability"] = f"{float(second[place]):.6f}"
        if everything:
            line |= {f"probability of {n}": f"{p:.6f}" for n, p in zip(class_names, rows[place].tolist(), strict=True)}
        lines.append({column: line.get(column) for column in columns})
    write_csv(path, columns, lines)


def write_embeddings(path: Path, keys: Sequence[str], classes: Sequence[str], rows: Tensor) -> None:
    """Write embeddings as `.npy` and the keys and classes beside them as `.csv`: what the data module `Vectors` reads.

    Args:
        path: Of the `.npy` file.
        keys: Of the samples.
        classes: Their labels' names, empty where unknown.
        rows: `(n, dim)`.
    """
    with replacing(path, "wb") as file:
        np.save(file, rows.numpy())
    lines = [{"key": key, "class": name} for key, name in zip(keys, classes, strict=True)]
    write_csv(path.with_suffix(".csv"), ["key", "class"], lines)
