"""Learning curves: a metric against the number of labels, one line for each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_lightning.engine.drawing import Drawing
from ssl_lightning.experiments.aggregate import Curve, Floats, curves_of, unit_of
from ssl_lightning.experiments.runs import Comparison

Band = Literal["ci", "std"]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (4, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)))
_BAND_TEXT = {"ci": "95 % confidence interval of the mean (Student t)", "std": "\u00b11 standard deviation"}


@dataclass(frozen=True)
class Style:
    """How one arm is drawn: colour and marker say the strategy, dashes the initialisation."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class _Theme:
    paper: str
    ink: str
    faint: str
    grid: str
    colours: tuple[str, ...]


# Okabe and Ito's colour-blind safe palette without its yellow, which is too pale for a line on white; on dark paper
# the same hues, lighter.
_LIGHT = _Theme(
    *("#ffffff", "#1b1f24", "#59636e", "#e4e7ea"),
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F"),
)
_DARK = _Theme(
    *("#161b22", "#e6edf3", "#9da7b3", "#2d343d"),
    ("#4BA3E3", "#F27D3B", "#2BBF94", "#E3A0C8", "#F2B530", "#9AD4F5", "#A9A9A9"),
)
_LEFT, _PLOT, _HEIGHT = 0.72, 5.0, 4.8  # inches: left margin, width of the axes, height of the figure


def learning_curves(
    comparison: Comparison,
    *paths: Path,
    title: str = "",
    band: Band = "std",
    dark: bool = False,
) -> Figure:
    """Draw every arm's mean over seeds with a band, and save the figure.

    Args:
        comparison: the arms and the metric.
        *paths: files to write; the suffix (`.png`, `.svg`, `.pdf`) decides the format.
        title: above the picture; by default the metric and the data.
        band: `std` is one standard deviation over seeds, as in the table; `ci` the 95 % interval of the mean.
            Neither shows paired differences. The picture says which it is.
        dark: light ink on dark paper.

    Returns:
        The figure. matplotlib's global state (pyplot, backend, rcParams) is not touched.
    """
    theme = _DARK if dark else _LIGHT
    curves, styles = curves_of(comparison), styles_of(comparison, dark)
    width = _LEFT + _PLOT + 1.15 + 0.083 * max(len(name) for name in curves)  # inches a letter at 9 points
    figure = Drawing(figsize=(width, _HEIGHT), dpi=160, facecolor=theme.paper)
    left = _LEFT / width
    axes = figure.add_axes((left, 0.175, _PLOT / width, 0.715), facecolor=theme.paper)
    for name, curve in curves.items():
        _draw(axes, curve, styles[name], comparison.metric, band)
    _decorate(axes, comparison, theme)
    _name_lines(axes, curves, styles, comparison.metric, theme, comparison.axis)
    figure.text(left, 0.93, title or _title(comparison), fontsize=12.5, fontweight="bold", color=theme.ink)
    marked = "\nBar on the axis: labels that pairs are averaged over." if _marks_range(comparison) else ""
    figure.text(left, 0.065, caption(curves, band) + marked, fontsize=8, va="top", color=theme.faint)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None  # the same runs give the same file
        figure.savefig(path, facecolor=theme.paper, metadata=metadata)
    return figure


def styles_of(comparison: Comparison, dark: bool = False) -> dict[str, Style]:
    """One colour a strategy, one dash an initialisation; arms that share both get dashes of their own."""
    colours = (_DARK if dark else _LIGHT).colours
    kinds = {name: (runs[0].strategy, runs[0].initialisation) for name, runs in comparison.arms.items()}
    strategies = list(dict.fromkeys(strategy for strategy, _ in kinds.values()))
    used: dict[str, set[int]] = {strategy: set() for strategy in strategies}
    styles = {}
    for name, (strategy, initialisation) in kinds.items():
        preferred = (1, 2, 3, 0) if initialisation == "scratch" else (0, 2, 3, 1)
        dash = next((number for number in preferred if number not in used[strategy]), preferred[0])
        used[strategy].add(dash)
        position = strategies.index(strategy)
        styles[name] = Style(colours[position % len(colours)], _MARKERS[position % len(_MARKERS)], _DASHES[dash])
    return styles


def caption(curves: Mapping[str, Curve], band: Band) -> str:
    """Say what line and band are, and over how many seeds."""
    counts = {int(number) for curve in curves.values() for number in curve.count}
    if max(counts) == 1:
        return "One seed an arm: no band."
    seeds = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"Line: mean over {seeds} seeds. Band: {_BAND_TEXT[band]}."


def _draw(axes: Axes, curve: Curve, style: Style, metric: str, band: Band) -> None:
    unit = unit_of(metric)
    mean = curve.mean * unit.factor
    spread = (curve.half_width if band == "ci" else curve.std) * unit.factor
    axes.plot(
        curve.labels,
        mean,
        color=style.colour,
        linestyle=style.dashes,
        linewidth=1.9,
        marker=style.marker,
        markersize=4.5,
        markeredgewidth=0,
        zorder=3,
    )
    top = 100.0 if unit.symbol == "%" else np.inf  # no accuracy above 100 %, whatever the interval says
    low, high = np.clip(mean - spread, 0 if unit.symbol == "%" else -np.inf, top), np.minimum(mean + spread, top)
    axes.fill_between(curve.labels, low, high, color=style.colour, alpha=0.13, linewidth=0, zorder=2)


def _decorate(axes: Axes, comparison: Comparison, theme: _Theme) -> None:
    unit = unit_of(comparison.metric)
    runs = [run for group in comparison.arms.values() for run in group]
    validation = sorted({run.validation for run in runs} - {0})
    extra = f" (and {' or '.join(map(str, validation))} more for validation)" if validation else ""
    over = f"Labels to train on [samples]{extra}" if comparison.axis == "labels" else comparison.axis.capitalize()
    axes.set_xlabel(over, color=theme.ink, fontsize=10, labelpad=6)
    symbol = f" [{unit.symbol}]" if unit.symbol else ""
    axes.set_ylabel(f"{_readable(comparison.metric)}{symbol}", color=theme.ink, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10]))
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.faint, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.faint)
    if comparison.label_range is not None and _marks_range(comparison):
        left, right = np.clip(comparison.label_range, axes.dataLim.x0, axes.dataLim.x1)
        bar = axes.get_xaxis_transform()
        axes.plot([left, right], [0.006, 0.006], color=theme.faint, lw=5, transform=bar, solid_capstyle="butt")


def _name_lines(
    axes: Axes, curves: Mapping[str, Curve], styles: Mapping[str, Style], metric: str, theme: _Theme, axis: str
) -> None:
    """Write each arm's name at the right, level with its line's end or as near as the other names allow."""
    unit = unit_of(metric)
    last = max(float(curve.labels[-1]) for curve in curves.values())
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # freeze, so that what follows cannot move the axis
    ends = {name: float(curve.mean[~np.isnan(curve.mean)][-1]) * unit.factor for name, curve in curves.items()}
    names = sorted(ends, key=lambda name: ends[name])
    places = _spread([(ends[name] - low) / (high - low) for name in names], gap=min(0.062, 1 / len(names)))
    for name, place in zip(names, places, strict=True):
        style, data = styles[name], axes.transData
        right = axes.transAxes.inverted().transform(data.transform((float(curves[name].labels[-1]), ends[name])))
        axes.plot(
            [right[0] + 0.012, 1.02 if right[0] < 1 else right[0], 1.035],
            [right[1], right[1], place],
            transform=axes.transAxes,
            color=style.colour,
            linewidth=0.7,
            alpha=0.7,
            clip_on=False,
        )
        axes.plot(
            [1.045, 1.105],
            [place, place],
            transform=axes.transAxes,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.9,
            clip_on=False,
        )
        axes.plot(
            [1.075], [place], transform=axes.transAxes, color=style.colour, marker=style.marker, ms=4.5, clip_on=False
        )
        text = f"{name}  {unit.number(ends[name] / unit.factor)}"
        axes.text(1.12, place, text, transform=axes.transAxes, va="center", fontsize=9, color=theme.ink)
    header = f"at {int(last)} {axis}" if len({int(c.labels[-1]) for c in curves.values()}) == 1 else "at the last"
    height = places[-1] + 0.075
    axes.text(1.045, height, header, transform=axes.transAxes, fontsize=8, color=theme.faint, va="center")


def _spread(heights: Sequence[float], gap: float) -> Floats:
    """Move increasing heights apart to at least `gap`, as little as possible in squares, within 0 to 1.

    With z_i = y_i - i * gap the condition is z increasing: isotonic regression by pooling adjacent violators.
    """
    pools: list[list[float]] = []
    for index, height in enumerate(heights):
        pools.append([height - index * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = np.concatenate([[np.mean(pool)] * len(pool) for pool in pools])
    level = np.clip(level, 0.0, max(0.0, 1.0 - gap * (len(heights) - 1)))
    return np.asarray(level + gap * np.arange(len(heights)), dtype=np.float64)


def _marks_range(comparison: Comparison) -> bool:
    return bool(comparison.pairs and comparison.label_range)


def _title(comparison: Comparison) -> str:
    data = {run.data for runs in comparison.arms.values() for run in runs}
    return f"{_readable(comparison.metric)} against {comparison.axis}" + (f": {data.pop()}" if len(data) == 1 else "")


def _readable(metric: str) -> str:
    """`test/accuracy` -> `Test accuracy`."""
    return metric.replace("/", " ").replace("_", " ").capitalize()
