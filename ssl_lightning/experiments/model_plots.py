"""A report's figures on a model as matplotlib's, for notebooks and papers; pyplot's global state is not touched."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_lightning.engine.drawing import Drawing
from ssl_lightning.experiments.analysis import NOT_ASKED, Analysis
from ssl_lightning.experiments.measures import BINS, calibration, confusion


def confusion_figure(analysis: Analysis) -> Figure:
    """Draw the confusion matrix of the part that guesses are judged by, each row as shares of its true class.

    Args:
        analysis: As `read_analysis` reads it from the `analysis.npz` of a run that was reported.

    Raises:
        ValueError: If the model guesses no classes, or none are known.
    """
    part, places = _judged(analysis)
    names = analysis.class_names
    counts = confusion(analysis.target[places], analysis.predicted[places], len(names))
    figure, axes = _empty(5.0, 4.6)
    drawn = axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="guess", ylabel="true class", title=f"Confusion, {part} part")
    figure.colorbar(drawn, label="share of the true class")
    return figure


def reliability_figure(analysis: Analysis) -> Figure:
    """Draw how often guesses of each confidence are right; else as `confusion_figure`."""
    part, places = _judged(analysis)
    found = calibration(analysis.confidence[places], analysis.target[places] == analysis.predicted[places])
    figure, axes = _empty(4.6, 4.6)
    axes.bar(np.arange(BINS) / BINS, found.accuracy, 1 / BINS, align="edge", edgecolor="white")
    axes.plot([0, 1], [0, 1], "--", color="0.4")
    axes.set(xlabel="confidence", ylabel="right", title=f"ECE {found.error:.3f}, {part} part", xlim=(0, 1), ylim=(0, 1))
    return figure


def map_figure(analysis: Analysis) -> Figure:
    """Draw the map of the embedding, coloured by class, what was asked for ringed; arguments as `confusion_figure`."""
    figure, axes = _empty(6.4, 4.8)
    drawn = np.isfinite(analysis.spot[:, 0])
    for number in np.unique(analysis.target[drawn]).tolist():
        x, y = analysis.spot[drawn & (analysis.target == number)].T
        axes.scatter(x, y, 8, label=analysis.name_of(number))
    x, y = analysis.spot[drawn & (analysis.asked != NOT_ASKED)].T
    axes.scatter(x, y, 40, facecolors="none", edgecolors="black")
    axes.set_title(f"Embedding ({analysis.about['map']})")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _judged(analysis: Analysis) -> tuple[str, np.ndarray]:
    part, places = analysis.judged
    if not len(places):
        raise ValueError("no guess of this model can be judged: it guesses none, or no class is known.")
    return part, places


def _empty(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Drawing(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()
