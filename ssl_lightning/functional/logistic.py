"""Multinomial logistic regression by L-BFGS: the classifier on top of embeddings that do not change."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_lightning.engine.seeding import derive_generator

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
TOLERANCE = 1e-5  # largest entry of the gradient at the end
EXACT = 1e-10  # that of a head that is kept: embeddings that differ by rounding shall give scores that do, too
MAX_STEPS = 10_000


def standardise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each dimension, `(d,)`; the deviation of a constant one is infinite.

    Args:
        rows: `(N, d)`.

    Example:
        >>> standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        (tensor([2., 5.]), tensor([1., inf]))
    """
    mean, std = rows.mean(dim=0), rows.std(dim=0, correction=0)
    std[std <= 1e-12 * rows.abs().amax(dim=0)] = math.inf  # a dimension that is constant, up to rounding, says nothing
    return mean, std


def fit(
    rows: Tensor,
    targets: Tensor,
    num_classes: int,
    decay: float,
    start: tuple[Tensor, Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, Tensor]:
    r"""Fit weights and bias.

    .. math:: \min_{W, b} \frac1N \sum_i -\log softmax(W x_i + b)_{y_i} + \frac{\lambda}{2} \lVert W \rVert^2

    Args:
        rows: `(N, d)`, best standardised and float64.
        targets: Classes `(N,)`.
        num_classes: Number of classes.
        decay: :math:`\lambda`.
        start: Weights and bias to begin with, as those of another decay; null for zeros.
        tolerance: Largest entry of the gradient at the end; what rounding leaves of it below 1e-5 is no fault.

    Returns:
        Weights `(num_classes, d)` and bias `(num_classes,)`.
    """
    from scipy.optimize import minimize  # here, since the import takes 0.2 s that `--help` need not pay

    count, width = rows.shape
    places = (torch.arange(count, device=rows.device), targets)

    def unpacked(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        both = torch.from_numpy(flat).to(rows).view(num_classes, width + 1)
        return both[:, :width], both[:, width]

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = unpacked(flat)
        logs = torch.addmm(bias, rows, weight.T).log_softmax(dim=1)
        value = decay / 2 * weight.square().sum() - logs[places].mean()
        wrong = logs.exp_()
        wrong[places] -= 1
        slope = torch.addmm(weight, wrong.T, rows, beta=decay, alpha=1 / count)
        return float(value), torch.cat([slope, wrong.mean(dim=0)[:, None]], dim=1).double().cpu().numpy().ravel()

    with torch.no_grad():
        begin = np.zeros(num_classes * (width + 1))
        if start is not None:
            begin = torch.cat([start[0], start[1][:, None]], dim=1).double().cpu().numpy().ravel()
        options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
        with _blas().limit(limits=1, user_api="blas"):  # else its threads and torch's wait for each other: 80 times
            found = minimize(value_and_gradient, begin, jac=True, method="L-BFGS-B", options=options)
    left = float(np.abs(found.jac).max())
    if left > TOLERANCE:
        rank_zero_warn(
            f"the linear probe (decay {decay:g}) has not converged after {found.nit} steps: the largest gradient is "
            f"{left:.1e}, wanted is {TOLERANCE:g}; its accuracy may be a little off."
        )
    return unpacked(found.x)


@cache
def _blas() -> Any:
    """Return what limits the threads of scipy's BLAS; finding it takes a hundredth of a second."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def logistic_head(
    rows: Tensor, targets: Tensor, num_classes: int, seed: int = 0, decays: Sequence[float] = DECAYS
) -> tuple[Tensor, Tensor]:
    r"""Fit a regularised head on embeddings as they are; they are standardised within, which is undone in the result.

    :math:`\lambda` is the one whose mean log-likelihood over the left-out fifths of the samples is best; with fewer
    than ten samples the middle one.

    Args:
        rows: `(N, d)`, finite.
        targets: Classes `(N,)`; none is needed of every class.
        num_classes: Number of classes.
        seed: Of the fifths.
        decays: Values of :math:`\lambda` to choose from.

    Returns:
        Weights `(num_classes, d)` and bias `(num_classes,)`, of the kind of `rows`: :math:`W x + b` are the logits.

    Example:
        >>> weight, bias = logistic_head(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1]), 2)
        >>> (torch.tensor([[4.0], [7.0]]) @ weight.T + bias).argmax(dim=1)
        tensor([0, 1])
    """
    device = "cpu" if rows.device.type == "mps" else rows.device  # which has no float64
    exact, targets = rows.to(device).double(), targets.to(device)
    mean, std = standardise(exact)
    ready = (exact - mean) / std
    best = decays[len(decays) // 2]
    if len(rows) >= 2 * FOLDS and len(decays) > 1:
        order = torch.randperm(len(rows), generator=derive_generator(seed, "folds"))
        fold = torch.empty_like(order)
        fold[order] = torch.arange(len(rows)) % FOLDS
        losses = dict.fromkeys(decays, 0.0)
        for number in range(FOLDS):
            out, found = (fold == number).to(device), None
            for decay in sorted(decays, reverse=True):  # from the nearest to zero on, each the start of the next
                found = fit(ready[~out], targets[~out], num_classes, decay, found)
                losses[decay] += float(cross_entropy(ready[out] @ found[0].T + found[1], targets[out], reduction="sum"))
        best = min(decays, key=lambda decay: losses[decay])
    weight, bias = fit(ready, targets, num_classes, best, tolerance=EXACT)
    weight = weight / std
    return weight.to(rows), (bias - weight @ mean).to(rows)
