"""Many tests and many data sets: Holm's correction, labels to reach a target, mean ranks with a critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_lightning.experiments.aggregate import Curve, Difference, Floats


def p_value(difference: Difference) -> float:
    """Return the p-value of a paired difference by the two-sided t-test over seeds; NaN with one seed.

    Equal differences count as certain where they are not 0: t is infinite.
    """
    from scipy.stats import t  # here, since `--help` need not wait for it

    values = difference.values
    if len(values) < 2:
        return math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error <= 1e-12 * abs(mean):
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / error, len(values) - 1))


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests, so that the chance of one false finding among all stays what it says.

    p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), with p_(1) <= ... <= p_(m); NaN stays and is not counted.

    Args:
        values: p-values, 0 to 1.

    Returns:
        The corrected ones, in the same order.

    Reference:
        S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    corrected, highest = [math.nan] * len(values), 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[place] = highest
    return corrected


def labels_to_reach(curve: Curve, target: float, higher_is_better: bool = True) -> Floats:
    """Return the labels with which each seed first reaches a target, linear between the points.

    Args:
        curve: Of an arm.
        target: In the metric's own unit.
        higher_is_better: False for losses.

    Returns:
        Labels `(seeds,)`; infinite for a seed that never reaches it.

    Example:
        >>> labels_to_reach(Curve(np.array([10, 20]), np.array([[0.5, 0.7], [0.5, 0.55]]), (0, 1)), 0.6).tolist()
        [15.0, inf]
    """
    sign = 1.0 if higher_is_better else -1.0
    found = []
    for row in curve.values:
        known = ~np.isnan(row)
        labels, values = curve.labels[known], sign * row[known]
        above = np.flatnonzero(values >= sign * target)
        if not len(above):
            found.append(math.inf)
            continue
        first = int(above[0])
        if first == 0 or values[first] == values[first - 1]:
            found.append(float(labels[first]))
            continue
        part = (sign * target - values[first - 1]) / (values[first] - values[first - 1])
        found.append(float(labels[first - 1] + part * (labels[first] - labels[first - 1])))
    return np.array(found)


def mean_ranks(scores: Mapping[str, Mapping[str, float]], higher_is_better: bool = True) -> dict[str, float]:
    """Return each arm's mean rank over data sets, 1 for the best; ties share the mean of their ranks.

    Args:
        scores: Data set -> arm -> score; only arms that every data set has are ranked.
        higher_is_better: False for losses.

    Example:
        >>> mean_ranks({"a": {"x": 0.9, "y": 0.8}, "b": {"x": 0.7, "y": 0.7}})
        {'x': 1.25, 'y': 1.75}
    """
    from scipy.stats import rankdata

    names = [name for name in next(iter(scores.values())) if all(name in arms for arms in scores.values())]
    sign = -1.0 if higher_is_better else 1.0
    ranks = [rankdata([sign * arms[name] for name in names]) for arms in scores.values()]
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))


def critical_difference(arms: int, sets: int) -> float:
    """Return how far two mean ranks must lie apart to differ at 95 %, by the Nemenyi test.

    CD = q sqrt(k (k + 1) / (6 N)), with q the studentised range of k arms and infinite degrees over sqrt(2).

    Args:
        arms: k, at least 2.
        sets: N, data sets.

    Reference:
        J. Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006, section 3.2.2.
    """
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(0.95, arms, 1e6)) / math.sqrt(2) * math.sqrt(arms * (arms + 1) / (6 * sets))


def friedman(scores: Mapping[str, Mapping[str, float]], ranks: Mapping[str, float]) -> float:
    """Return the p-value that all arms are alike, by the Friedman test in the form of Iman and Davenport.

    Reference:
        Demsar 2006, section 3.2.2.
    """
    from scipy.stats import f

    count, arms = len(scores), len(ranks)
    chi = 12 * count / (arms * (arms + 1)) * (sum(rank**2 for rank in ranks.values()) - arms * (arms + 1) ** 2 / 4)
    left = count * (arms - 1) - chi
    if left <= 1e-12:
        return 0.0
    return float(f.sf((count - 1) * chi / left, arms - 1, (arms - 1) * (count - 1)))


def ranking(scores: Mapping[str, Mapping[str, float]], higher_is_better: bool = True) -> list[str]:
    """Say which arm is best over data sets, and how sure that is.

    Args:
        scores: Data set -> arm -> score.
        higher_is_better: False for losses.

    Returns:
        Lines of Markdown: a table of mean ranks, and a sentence; nothing for fewer than two data sets or arms.
    """
    if len(scores) < 2 or len(ranks := mean_ranks(scores, higher_is_better)) < 2:
        return []
    apart = critical_difference(len(ranks), len(scores))
    order = sorted(ranks, key=lambda name: ranks[name])
    best = order[0]
    alike = [name for name in order[1:] if ranks[name] - ranks[best] < apart]
    lines = ["| arm | mean rank |", "| --- | ---: |", *(f"| {name} | {ranks[name]:.2f} |" for name in order), ""]
    said = f"Mean ranks over {len(scores)} data sets ({', '.join(scores)}), 1 is the best; critical difference "
    said += f"{apart:.2f} (Nemenyi, 95 %), all alike with p = {friedman(scores, ranks):.2g} (Friedman). "
    said += f"Not distinguishable from {best}: {', '.join(alike)}." if alike else f"{best} is ahead of all others."
    return [*lines, said]
