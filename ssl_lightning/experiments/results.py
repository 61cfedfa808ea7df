"""The table of `evaluate`: a CSV file that grows, and the same as Markdown."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROTOCOLS = ("knn", "linear", "finetune", "rank")
KEY = ("checkpoint", "data", "protocol", "fraction", "metric", "seed")
COLUMNS = (*KEY, "method", "backbone", "labels", "value", "seconds", "date")

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Return the rows of a results file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != set(COLUMNS):
        raise ValueError(f"`results={path}` has other columns than ours; give another file.")
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """Add rows to a results file, in place of those with the same key; never half a file."""
    merged = {tuple(row[key] for key in KEY): row for row in [*read(path), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(merged.values())
    with _replacing(path.with_suffix(".md")) as file:
        file.write(markdown(list(merged.values())))


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    scratch = path.with_name(path.name + ".part")
    with scratch.open("w", newline="") as file:
        yield file
    os.replace(scratch, path)


def markdown(rows: list[Row]) -> str:
    """Return one table: a line for each checkpoint and data set, a column for each protocol and fraction."""
    titles: dict[tuple[str, str, float], str] = {}
    for row in rows:
        fraction = float(row["fraction"])
        share = f" {100 * fraction:g} %" if row["protocol"] in ("linear", "finetune") else ""
        name = {"rankme": "RankMe", "lidar": "LiDAR"}.get(
            row["metric"], {"knn": "kNN"}.get(row["protocol"], row["protocol"])
        )
        titles[(row["protocol"], row["metric"], fraction)] = name + share
    order = sorted(titles, key=lambda key: (PROTOCOLS.index(key[0]), key[1] != "rankme", key[2]))
    lines = [["checkpoint", "method", "backbone", "data", *(titles[key] for key in order)]]
    lines.append(["---", "---", "---", "---", *("---:" for _ in order)])
    subjects = dict.fromkeys((row["checkpoint"], row["method"], row["backbone"], row["data"]) for row in rows)
    for subject in subjects:
        cells = {
            (row["protocol"], row["metric"], float(row["fraction"])): row
            for row in rows
            if (row["checkpoint"], row["method"], row["backbone"], row["data"]) == subject
        }
        lines.append([*subject, *(_cell(cells.get(key)) for key in order)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{100 * float(row['value']):.1f}" if row["metric"] == "accuracy" else f"{float(row['value']):.1f}"
