"""The table of a comparison, for terminal, Markdown and CSV, and the sentences that say how sure it is."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ssl_lightning.engine.csv_files import replacing, write_csv
from ssl_lightning.experiments.aggregate import (
    Curve,
    Difference,
    Floats,
    areas,
    curves_of,
    paired_difference,
    sentence,
    unit_of,
    what_seeds_vary,
)
from ssl_lightning.experiments.ranks import holm, labels_to_reach, p_value
from ssl_lightning.experiments.runs import Comparison


def table_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows: labels, then mean ± standard deviation over seeds for each arm; last the areas under the curves.

    A cell that has fewer seeds than its arm says how many it has.
    """
    curves, unit = curves_of(comparison), unit_of(comparison.metric)
    rows = []
    for labels in sorted({int(count) for curve in curves.values() for count in curve.labels}):
        row = [str(labels)]
        for curve in curves.values():
            column = curve.values[:, curve.labels == labels]
            row.append(_cell(column.ravel(), unit.number, len(curve.seeds)))
        rows.append(row)
    by_arm, (first, last) = areas(curves, comparison.label_range)
    if first < last:
        rows.append([f"area {first}-{last}", *(_cell(values, unit.number, len(values)) for values in by_arm.values())])
    minutes = {name: np.array([run.seconds / 60 for run in runs]) for name, runs in comparison.arms.items()}
    rows.append(["minutes", *(_cell(values, "{:.2f}".format, len(values)) for values in minutes.values())])
    costs = {name: _costs(comparison, name) for name in curves}
    if any(len(values) for values in costs.values()):
        rows.append(["cost", *(_cell(values, "{:.4g}".format, len(values)) for values in costs.values())])
    return [comparison.axis, *curves], rows


def _costs(comparison: Comparison, arm: str) -> Floats:
    """What the labels of each run of an arm cost in the end; nothing where that was not logged."""
    last = [run.rounds[-1].metrics for run in comparison.arms[arm]]
    return np.array([metrics["cost"] for metrics in last if "cost" in metrics])


def conclusions(comparison: Comparison, target: float | None = None) -> list[str]:
    """The sentences below the table: what is shown, each pair, what the seeds cover, and what is missing.

    Args:
        comparison: of runs.
        target: value of the metric that is to be reached; None for none.
    """
    symbol = f" [{symbol}]" if (symbol := unit_of(comparison.metric).symbol) else ""
    lines = [
        f"{comparison.metric}{symbol}: mean ± standard deviation over seeds; area: under the curve, over its width."
    ]
    curves = curves_of(comparison)
    differences = []
    for better, baseline in comparison.pairs:
        try:
            found = paired_difference(curves, better, baseline, comparison.label_range)
            differences.append(replace(found, axis=comparison.axis))
            lines.append(sentence(differences[-1], comparison.metric))
        except ValueError as error:
            lines.append(f"{better} against {baseline}: {error}.")
    if len(differences) > 1 and (sure := _corrected(differences)):
        lines.append(sure)
    if target is not None:
        lines.append(_reach(curves, comparison, target))
    if max(len(curve.seeds) for curve in curves.values()) > 1:
        lines.append(what_seeds_vary(comparison))
    return lines + [f"Missing: {text}." for text in comparison.missing]


def _corrected(differences: list[Difference]) -> str:
    """Say which pairs stay sure where all of them are looked at together."""
    values = holm([p_value(difference) for difference in differences])
    if all(math.isnan(value) for value in values):
        return ""
    told = [f"{d.better} against {d.baseline} {value:.2g}" for d, value in zip(differences, values, strict=True)]
    return f"p of {len(differences)} pairs together, corrected by Holm: {', '.join(told)}."


def _reach(curves: Mapping[str, Curve], comparison: Comparison, target: float) -> str:
    """Say with how many labels each arm reaches a target."""
    metric = comparison.metric
    unit, told = unit_of(metric), list[str]()
    for name, curve in curves.items():
        labels = labels_to_reach(curve, target, unit.higher_is_better)
        there = labels[np.isfinite(labels)]
        few = f" ({len(there)} of {len(labels)} seeds)" if len(there) < len(labels) else ""
        told.append(f"{name} {there.mean():.0f}{few}" if len(there) else f"{name} never")
    goal = f"{unit.number(target)} {unit.symbol}".strip()
    return f"{comparison.axis.capitalize()} to reach {goal} of {metric}: {', '.join(told)}."


def rich_table(comparison: Comparison) -> Table:
    """The table for a terminal."""
    header, rows = table_rows(comparison)
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        header_style="bold",
        title=f"{comparison.metric} against {comparison.axis}",
    )
    for name in header:
        table.add_column(name, justify="right")
    for row, following in zip(rows, [*rows[1:], [""]], strict=True):
        narrow = [cell.replace(" ± ", "±") for cell in row]  # six arms fit on 80 columns
        table.add_row(*narrow, end_section=following[0].startswith("area"))
    return table


def write_tables(comparison: Comparison, folder: Path, target: float | None = None) -> None:
    """Write `summary.csv` (one row an arm and number of labels), `table.md` and `table.txt`."""
    columns = ["arm", "metric", "labelled", "seeds", "mean", "std", "ci95_low", "ci95_high"]
    summary = []
    for name, curve in curves_of(comparison).items():
        mean, std, half = curve.mean, curve.std, curve.half_width
        for i, labels in enumerate(curve.labels):
            numbers = (mean[i], std[i], mean[i] - half[i], mean[i] + half[i])
            cells = ["" if np.isnan(number) else f"{number:.6g}" for number in numbers]
            values = [name, comparison.metric, int(labels), int(curve.count[i]), *cells]
            summary.append(dict(zip(columns, values, strict=True)))
    write_csv(folder / "summary.csv", columns, summary)
    header, rows = table_rows(comparison)
    lines = [header, ["---:"] * len(header), *rows]
    sentences = "".join(f"- {line}\n" for line in conclusions(comparison, target))
    markdown = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    with replacing(folder / "table.md") as file:
        file.write(f"{markdown}\n{sentences}")
    text = io.StringIO()
    plain = Console(file=text, width=max(80, 16 * len(header)), color_system=None, force_jupyter=False)
    plain.print(rich_table(comparison))
    with replacing(folder / "table.txt") as file:
        file.write(f"{text.getvalue()}\n{sentences}")


def _cell(values: Floats, number: Callable[[float], str], seeds: int) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    spread = f" ± {number(float(known.std(ddof=1)))}" if len(known) > 1 else ""
    return f"{number(float(known.mean()))}{spread}" + (f" ({len(known)} of {seeds})" if len(known) < seeds else "")
