"""Runs of `fit`, read as curves over epochs, so that methods are compared as strategies are."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

FINISHED = "finished"  # file in the folder of a run of `compare` that has ended well


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """Return a row an epoch of what a fit logged: `epoch` from 1, and the last value of each metric.

    Args:
        folder: Of the run; its newest CSV log counts, as that of a run that went on.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("logs/*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                if not (line.get("epoch") or "").strip():
                    continue
                row = rows.setdefault(int(float(line["epoch"])), {})
                for name, cell in line.items():
                    if name and "/" in name and cell and math.isfinite(float(cell)):
                        row[name] = float(cell)
    return [{"epoch": epoch + 1, **rows[epoch]} for epoch in sorted(rows)]


def seconds_of(folder: Path) -> float:
    """Return how long a fit took, from its config, written first, to its log, written last."""
    logs = [path.stat().st_mtime for path in folder.glob("logs/*/metrics.csv")]
    config = folder / "config.yaml"
    return max(0.0, max(logs) - config.stat().st_mtime) if logs and config.is_file() else 0.0
