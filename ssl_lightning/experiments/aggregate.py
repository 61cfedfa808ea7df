"""From runs to numbers: means over seeds, areas, paired differences and the pairwise penalty matrix. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_lightning.engine.naming import meant
from ssl_lightning.experiments.runs import Comparison, Run

Floats = NDArray[np.float64]

_PERCENT = ("accuracy", "precision", "recall", "f1", "auroc")
_LOWER_IS_BETTER = ("loss", "error", "nll", "ece", "brier")


@dataclass(frozen=True)
class Unit:
    """How to print a metric: in percent with a difference in points, or as it is."""

    factor: float
    digits: int
    symbol: str
    points: str
    higher_is_better: bool

    def number(self, value: float) -> str:
        """A value without its symbol, `-` where there is none."""
        return "-" if math.isnan(value) else f"{value * self.factor:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """A difference with its sign."""
        return f"{value * self.factor:+.{self.digits}f}"


@dataclass(frozen=True)
class Curve:
    """One arm's metric against the number of labels, for each seed.

    Args:
        labels: numbers of labels trained on, increasing, `(counts,)`.
        values: the metric, NaN where a seed has not got there, `(seeds, counts)`.
        seeds: the seed of each row.
    """

    labels: NDArray[np.int64]
    values: Floats
    seeds: tuple[int | None, ...]

    @property
    def count(self) -> NDArray[np.int64]:
        """Number of seeds at each number of labels, `(counts,)`."""
        return np.asarray(np.sum(~np.isnan(self.values), axis=0), dtype=np.int64)

    @property
    def mean(self) -> Floats:
        """Mean over seeds, `(counts,)`."""
        return np.array([_mean(column) for column in self.values.T])

    @property
    def std(self) -> Floats:
        """Sample standard deviation over seeds (n - 1); NaN with one seed, `(counts,)`."""
        return np.array([_std(column) for column in self.values.T])

    @property
    def half_width(self) -> Floats:
        """Half of the 95 % Student-t interval of the mean over seeds; NaN with one seed, `(counts,)`."""
        return np.array([_half_width(column) for column in self.values.T])

    def select(self, first: float, last: float) -> Curve:
        """The part with `first <= labels <= last`."""
        inside = (self.labels >= first) & (self.labels <= last)
        return Curve(self.labels[inside], self.values[:, inside], self.seeds)


@dataclass(frozen=True)
class Difference:
    """One arm minus another, seed by seed, each averaged over the same numbers of labels.

    Args:
        better: name of the arm expected to be better.
        baseline: name of the arm it is compared with.
        values: the difference for each paired seed, `(seeds,)`.
        seeds: the paired seeds.
        labels: the numbers of labels averaged over.
        left_out: seeds of either arm that could not be paired.
    """

    better: str
    baseline: str
    values: Floats
    seeds: tuple[int | None, ...]
    labels: tuple[int, ...]
    left_out: tuple[int | None, ...] = ()
    axis: str = "labels"

    @property
    def mean(self) -> float:
        """Mean difference over the paired seeds."""
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Student-t interval of the mean difference; None with one seed."""
        half = _half_width(self.values)
        return None if math.isnan(half) else (self.mean - half, self.mean + half)


def unit_of(metric: str) -> Unit:
    """Accuracies and the like are printed in percent, everything else with four digits.

    Example:
        >>> unit_of("test/accuracy").number(0.8734), unit_of("val/loss").higher_is_better
        ('87.3', False)
    """
    name = metric.rpartition("/")[2].lower()
    higher = not any(part in _LOWER_IS_BETTER for part in name.split("_"))
    if any(part in _PERCENT for part in name.split("_")):
        return Unit(100.0, 1, "%", "points", higher)
    return Unit(1.0, 4, "", "", higher)


def curve_of(runs: Sequence[Run], metric: str) -> Curve:
    """Line the runs of one arm up by their number of labels.

    Raises:
        ValueError: no run logged the metric.
    """
    per_run = [dict(run.curves.get(metric, [])) for run in runs]
    labels = sorted({count for values in per_run for count in values})
    if not labels:
        known = dict.fromkeys(name for run in runs for name in run.curves)
        there = ", ".join(known) or "none"
        raise ValueError(
            f"`metric={metric}` was not logged in `{runs[0].folder}`{meant(metric, known)}; there are {there}."
        )
    values = np.array([[row.get(count, math.nan) for count in labels] for row in per_run])
    return Curve(np.array(labels), values, tuple(run.seed for run in runs))


def curves_of(comparison: Comparison) -> dict[str, Curve]:
    """The curve of each arm."""
    return {name: curve_of(runs, comparison.metric) for name, runs in comparison.arms.items()}


def area_under_curve(labels: Sequence[float], values: Sequence[float], first: float, last: float) -> float:
    """Area under the budget curve by the trapezoid rule, over its width: a mean weighted by labels.

    A = 1 / (last - first) * integral from first to last of v(l) dl, with v linear between the points.

    Args:
        labels: increasing numbers of labels, `(counts,)`.
        values: the metric there, `(counts,)`.
        first: where to begin, in labels.
        last: where to end, in labels.

    Returns:
        The area in the metric's own unit; NaN where the curve does not reach from `first` to `last`.

    Reference:
        Zhan, Liu, Li and Chan: A Comparative Survey: Benchmarking for Pool-based Active Learning, 2021, IJCAI.

    Example:
        >>> area_under_curve([10, 20, 40], [0.0, 1.0, 1.0], 10, 40)
        0.8333333333333334
    """
    known = [(label, value) for label, value in zip(labels, values, strict=True) if not math.isnan(value)]
    if not known or first < known[0][0] or last > known[-1][0]:
        return math.nan
    x, y = np.array(known, dtype=float).T
    if first == last:
        return float(np.interp(first, x, y))
    points = np.concatenate([[first], x[(x > first) & (x < last)], [last]])
    return float(np.trapezoid(np.interp(points, x, y), points) / (last - first))


def areas(
    curves: Mapping[str, Curve], label_range: tuple[int, int] | None = None
) -> tuple[dict[str, Floats], tuple[int, int]]:
    """Area under the budget curve of each seed of each arm, over the same labels for all.

    Args:
        curves: the arms.
        label_range: labels to integrate over, cut to what all arms cover; None takes all of that.

    Returns:
        Name -> areas `(seeds,)` (NaN for a run that does not cover the range), and the range used.
    """
    first = max(int(curve.labels[0]) for curve in curves.values())
    last = min(int(curve.labels[-1]) for curve in curves.values())
    if label_range is not None:
        first, last = max(first, label_range[0]), min(last, label_range[1])
    result = {}
    for name, curve in curves.items():
        rows = [area_under_curve(list(curve.labels), list(row), first, last) for row in curve.values]
        result[name] = np.array(rows if first <= last else [math.nan] * len(rows))
    return result, (first, last)


def paired_difference(
    curves: Mapping[str, Curve], better: str, baseline: str, label_range: tuple[int, int] | None = None
) -> Difference:
    """Contrast two arms seed by seed: d_s = mean over labels of (better - baseline) with seed s.

    A seed counts only if both arms have it at every number of labels that is averaged over.

    Raises:
        ValueError: the two arms share no number of labels in the range, or no seed.
    """
    first, last = label_range or (-math.inf, math.inf)
    one, two = curves[better].select(first, last), curves[baseline].select(first, last)
    labels = sorted(set(one.labels.tolist()) & set(two.labels.tolist()))
    where = "" if label_range is None else f" in `range: [{first}, {last}]`"
    if not labels:
        raise ValueError(f"`{better}` and `{baseline}` share no number of labels{where}; widen `range`")
    rows_one, rows_two = _rows_by_seed(one, labels), _rows_by_seed(two, labels)
    seeds = [seed for seed in rows_one if seed in rows_two and not np.isnan(rows_one[seed] - rows_two[seed]).any()]
    if not seeds:
        raise ValueError(f"no seed has finished both `{better}` and `{baseline}`{where}; run `compare` again")
    values = np.array([np.mean(rows_one[seed] - rows_two[seed]) for seed in seeds])
    left_out = tuple(seed for seed in dict.fromkeys((*one.seeds, *two.seeds)) if seed not in seeds)
    return Difference(better, baseline, values, tuple(seeds), tuple(labels), left_out)


def penalty_matrix(settings: Iterable[Mapping[str, Curve]], higher_is_better: bool = True) -> tuple[list[str], Floats]:
    """Pairwise penalty matrix: how often one arm significantly beats another.

    In each setting (data, model, query size) and at each number of labels, arm i beats arm j if a two-sided paired
    t-test over seeds says so at 95 %; then P_ij += 1 / (numbers of labels in the setting). P_ij is at most the number
    of settings. A column's mean is how much that arm is beaten: the lowest is the best.

    Args:
        settings: for each setting, name -> curve; numbers of labels that not all arms have are left out.
        higher_is_better: False for losses.

    Returns:
        Names of the arms, and P `(arms, arms)`.

    Reference:
        Ash, Zhang, Krishnamurthy, Langford and Agarwal: Deep Batch Active Learning by Diverse, Uncertain Gradient
        Lower Bounds, 2020, arXiv 1906.03671, section 4. They test at their own budgets and 5 seeds; we take whatever
        numbers of labels and seeds (at least 2) the runs share.
    """
    settings = list(settings)
    names = list(dict.fromkeys(name for curves in settings for name in curves))
    penalties = np.zeros((len(names), len(names)))
    for curves in settings:
        labels = sorted(set.intersection(*(set(curve.labels.tolist()) for curve in curves.values())))
        rows = {name: _rows_by_seed(curve, labels) for name, curve in curves.items()}
        for i, one in enumerate(names):
            for j, two in enumerate(names):
                if i == j or one not in rows or two not in rows:
                    continue
                shared = [seed for seed in rows[one] if seed in rows[two]]
                differences = np.array([rows[one][seed] - rows[two][seed] for seed in shared])  # (seeds, counts)
                sign = 1.0 if higher_is_better else -1.0
                wins = sum(_is_positive(sign * column) for column in differences.T)
                penalties[i, j] += wins / max(len(labels), 1)
    return names, penalties


def sentence(difference: Difference, metric: str) -> str:
    """Say in words how large a paired difference is and how sure that is."""
    unit, interval = unit_of(metric), difference.interval
    count, labels = len(difference.seeds), difference.labels
    over = f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else f"{labels[0]}"
    span = f"{'averaged over' if len(labels) > 1 else 'at'} {over} {difference.axis}"
    size = f"{unit.signed(difference.mean)} {unit.points} of {metric}".replace("  ", " ")
    head = f"{difference.better} against {difference.baseline}: {size}, {span}"
    if interval is None:
        tail = "; 1 paired seed, so no interval can be given: run more seeds"
    else:
        shown = f"95 % CI [{unit.number(interval[0])}, {unit.number(interval[1])}]"
        if interval[0] <= 0 <= interval[1]:
            tail = f"; not distinguishable from 0 with {count} seeds ({shown}, paired)"
        else:
            worse = "" if (difference.mean > 0) == unit.higher_is_better else "; the other way round than expected"
            tail = f"; {shown} over {count} paired seeds{worse}"
    left = ", ".join(str(seed) for seed in difference.left_out)
    return f"{head}{tail}." + (f" Left out, since not finished in both: seed {left}." if left else "")


def what_seeds_vary(comparison: Comparison) -> str:
    """Say what the intervals cover and what they do not, judged by the runs' own configs."""
    runs = [run for group in comparison.arms.values() for run in group]
    checkpoints = [{run.checkpoint for run in group} for group in comparison.arms.values()]
    varied, fixed = ["the initial labels", "the initial weights", "the order of batches"], list[str]()
    if any(run.checkpoint for run in runs):
        (varied if any(len(group) > 1 for group in checkpoints) else fixed).append("the pretrained checkpoint")
    same_data = all(len({repr(run.config.get("data")) for run in group}) == 1 for group in comparison.arms.values())
    (fixed if same_data else varied).append("the test set")
    text = f"Seeds vary {_listed(varied)}"
    return (
        f"{text}, but not {_listed(fixed, 'nor')}: the intervals do not cover the luck of those."
        if fixed
        else f"{text}."
    )


def _listed(parts: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _rows_by_seed(curve: Curve, labels: Sequence[int]) -> dict[int | None, Floats]:
    columns = np.searchsorted(curve.labels, labels)
    return {seed: row[columns] for seed, row in zip(curve.seeds, curve.values, strict=True)}


def _is_positive(differences: Floats) -> bool:
    """Whether the mean is above 0 by a two-sided paired t-test at 95 %; equal non-zero differences count as sure."""
    known = differences[~np.isnan(differences)]
    return len(known) > 1 and float(known.mean()) > _half_width(known)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _std(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else math.nan


def _half_width(values: Floats) -> float:
    """t(0.975, n - 1) * s / sqrt(n), NaN values left out."""
    from scipy.special import stdtrit  # here, since the import takes 0.3 s that `--help` need not pay

    count = int(np.sum(~np.isnan(values)))
    return float(stdtrit(count - 1, 0.975)) * _std(values) / math.sqrt(count) if count > 1 else math.nan
