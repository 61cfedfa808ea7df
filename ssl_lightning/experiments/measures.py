"""What a report measures of a classifier's guesses, by numpy alone: calibration, confusion, accuracy of each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_lightning.functional.intervals import wilson

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
BINS = 15  # as in the paper


class Calibration(NamedTuple):
    """Whether guesses are as often right as the model says.

    Attributes:
        samples: In each bin of confidence, `(bins,)`.
        confidence: Mean confidence in each bin, `(bins,)`; 0 where it is empty.
        accuracy: Share of right guesses in each bin, `(bins,)`; 0 where it is empty.
        error: The expected calibration error, from 0 to 1.
    """

    samples: Counts
    confidence: Numbers
    accuracy: Numbers
    error: float


def calibration(confidence: Numbers, right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    r"""Return the expected calibration error, and the reliability diagram that it sums up.

    .. math:: \mathrm{ECE} = \sum_m \frac{|B_m|}{n} \, |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    Args:
        confidence: Probability of the best class, `(n,)`, from 0 to 1.
        right: Whether the best class is the true one, `(n,)`.
        bins: Of equal width; bin m holds what is above (m - 1) / bins and up to m / bins.

    Raises:
        ValueError: If there is no sample.

    Reference:
        C. Guo, G. Pleiss, Y. Sun, K. Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
        arXiv 1706.04599, equation 3.

    Example:
        >>> round(calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])).error, 3)
        0.1
    """
    if not len(confidence):
        raise ValueError("calibration needs at least one sample whose class is known.")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    there = np.maximum(count, 1)
    mean = np.bincount(place, weights=confidence, minlength=bins) / there
    accuracy = np.bincount(place, weights=right, minlength=bins) / there
    error = float((count * np.abs(accuracy - mean)).sum() / len(confidence))
    return Calibration(count.astype(np.int64), mean, accuracy, error)


def confusion(target: Counts, predicted: Counts, classes: int) -> Counts:
    """Count how often each class is taken for each.

    Args:
        target: True classes `(n,)`.
        predicted: Guesses `(n,)`.
        classes: How many there are.

    Returns:
        `(classes, classes)`: a row a true class, a column a guess.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)


class ClassAccuracy(NamedTuple):
    """How often samples of one class are recognised.

    Attributes:
        place: Number of the class.
        samples: Of the class.
        accuracy: Share that is recognised.
        low: Lower end of the 95 % interval (Wilson).
        high: Upper end.
        guessed: How often it was guessed.
    """

    place: int
    samples: int
    accuracy: float
    low: float
    high: float
    guessed: int


def by_class(counts: Counts) -> list[ClassAccuracy]:
    """Return the accuracy of every class that has samples, from what `confusion` returns.

    Example:
        >>> [(one.samples, one.accuracy, round(one.low, 2)) for one in by_class(np.array([[8, 2], [0, 0]]))]
        [(10, 0.8, 0.49)]
    """
    found = []
    for place, row in enumerate(counts):
        if total := int(row.sum()):
            accuracy = float(row[place] / total)
            found.append(
                ClassAccuracy(place, total, accuracy, *wilson(accuracy, total), guessed=int(counts[:, place].sum()))
            )
    return found
