"""Figures of a report as plain numbers, which its template draws as SVG: they follow the page's colours, and print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from ssl_lightning.experiments.measures import Calibration, Counts

WIDTH, HEIGHT = 420.0, 240.0  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 48.0, 10.0, 10.0, 38.0  # its margins
POINTS = 400  # of a line that are drawn
NAMED = 40  # classes whose names a matrix writes
COUNTED = 16  # classes of which it writes the counts
SIDE = 440.0  # of a matrix without its names


class Tick(NamedTuple):
    """A place on an axis, and what is written there."""

    at: float
    text: str


class Line(NamedTuple):
    """One line of a chart: its name, number of its colour, its last value, and points as SVG wants them."""

    name: str
    colour: int
    last: str
    points: str
    single: tuple[float, float] | None


class Chart(NamedTuple):
    """Lines over an axis."""

    title: str
    about: str
    across: str
    x: list[Tick]
    y: list[Tick]
    lines: list[Line]


def chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str = "step",
    about: str = "",
    bottom: float | None = None,
) -> Chart | None:
    """Lay out a chart; null where there is nothing to draw.

    Args:
        title: Above it.
        series: Points of each line, by its name.
        across: What the horizontal axis is.
        about: What it means, below.
        bottom: Least value of the vertical axis; null for the least there is.
    """
    shown = {name: thinned(points) for name, points in series.items() if points}
    if not shown:
        return None
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points] + ([] if bottom is None else [bottom])
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return _between(x, x_ticks, LEFT, WIDTH - RIGHT), _between(y, y_ticks, HEIGHT - BOTTOM, TOP)

    lines = []
    for number, (name, points) in enumerate(shown.items()):
        places = [place(x, y) for x, y in points]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(Line(name, number % 7, f"{points[-1][1]:.4g}", text, places[0] if len(places) == 1 else None))
    x_axis = [Tick(place(at, y_ticks[0])[0], _number(at)) for at in x_ticks]
    y_axis = [Tick(place(x_ticks[0], at)[1], _number(at)) for at in y_ticks]
    return Chart(title, about, across, x_axis, y_axis, lines)


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """Leave out points, evenly, and never the last; of a chart of some hundred pixels nobody sees more."""
    if len(points) <= most:
        return list(points)
    return [points[place] for place in np.linspace(0, len(points) - 1, most).round().astype(int)]


def _ticks(low: float, high: float) -> list[float]:
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return [float(at) for at in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _between(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    return start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start)


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.0e}"


class Square(NamedTuple):
    """A cell of a matrix: where, how dark from 0 to 1, what is written, and whether it is on the diagonal."""

    x: float
    y: float
    shade: float
    text: str
    hint: str
    right: bool


class Matrix(NamedTuple):
    """A confusion matrix: the side of a cell, its cells that are not empty, names, and margin for them."""

    side: float
    margin: float
    size: float
    squares: list[Square]
    names: list[str]


def matrix(counts: Counts, names: Sequence[str]) -> Matrix:
    """Lay out a confusion matrix, dark where a large share of a true class goes.

    Args:
        counts: As `confusion` returns them.
        names: Of the classes.
    """
    classes = len(counts)
    side, written = SIDE / classes, classes <= COUNTED
    short = [shortened(name) for name in names] if classes <= NAMED else []
    margin = 30.0 + 6.2 * max((len(name) for name in short), default=0)
    squares = []
    for row, column in zip(*counts.nonzero(), strict=True):
        count, total = int(counts[row, column]), int(counts[row].sum())
        hint = f"{names[row]} taken for {names[column]}: {count} of {total}"
        place = margin + side * float(column), margin + side * float(row)
        squares.append(Square(*place, count / total, str(count) if written else "", hint, bool(row == column)))
    return Matrix(side, margin, margin + SIDE, squares, short)


def shortened(name: str, most: int = 14) -> str:
    """Cut a long name, which its hint tells in full.

    Example:
        >>> shortened("a name that is long"), shortened("short")
        ('a name that i…', 'short')
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


class Column(NamedTuple):
    """A bin of a reliability diagram: where, how high, the height that would be right, how full, and a hint."""

    x: float
    accuracy: float
    confidence: float
    fullness: float
    hint: str


def reliability(found: Calibration) -> list[Column]:
    """Lay out a reliability diagram in a unit square; empty bins are left out."""
    bins, most = len(found.samples), max(1, int(found.samples.max()))
    columns = []
    for place, count in enumerate(found.samples.tolist()):
        if count:
            accuracy, confidence = float(found.accuracy[place]), float(found.confidence[place])
            hint = f"{count} samples of {place / bins:.0%} to {(place + 1) / bins:.0%}: "
            hint += f"said {confidence:.1%}, right {accuracy:.1%}"
            columns.append(Column(place / bins, accuracy, confidence, count / most, hint))
    return columns


class Spot(NamedTuple):
    """A point of the map: where, its classes of style, where its picture is on the sheet, and what is told of it."""

    x: float
    y: float
    radius: float
    style: str
    cell: int
    text: str


def scaled(spots: np.ndarray, width: float, height: float, margin: float = 12) -> np.ndarray:
    """Fit places into a rectangle, each axis by itself, up being up."""
    low, high = spots.min(axis=0), spots.max(axis=0)
    unit = (spots - low) / np.where(high > low, high - low, 1)
    unit[:, high <= low] = 0.5
    unit[:, 1] = 1 - unit[:, 1]
    scaled: np.ndarray = margin + unit * (np.array([width, height]) - 2 * margin)
    return scaled


def levels(values: np.ndarray, count: int) -> np.ndarray:
    """Sort values into levels of equal width, 0 the lowest; NaN is -1."""
    if not np.isfinite(values).any():
        return np.full(len(values), -1)
    top = max(float(np.nanmax(values)), 1e-12)
    return np.where(
        np.isfinite(values), np.clip(np.floor(np.nan_to_num(values) / top * count), 0, count - 1), -1
    ).astype(int)


def hues(classes: int) -> list[int]:
    """Return an angle on the colour circle for each class, neighbours far apart."""
    return [round(math.fmod(25 + place * 137.508, 360)) for place in range(classes)]
