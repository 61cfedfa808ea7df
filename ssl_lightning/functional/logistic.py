"""Multinomial logistic regression by L-BFGS: the classifier on top of embeddings that do not change."""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_lightning.engine.seeding import derive_generator

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
TOLERANCE = 1e-5  # largest entry of the gradient at the end
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


def fit(rows: Tensor, targets: Tensor, num_classes: int, decay: float) -> tuple[Tensor, Tensor]:
    r"""Fit weights and bias.

    .. math:: \min_{W, b} \frac1N \sum_i -\log softmax(W x_i + b)_{y_i} + \frac{\lambda}{2} \lVert W \rVert^2

    Args:
        rows: `(N, d)`, best standardised and float64.
        targets: Classes `(N,)`.
        num_classes: Number of classes.
        decay: :math:`\lambda`.

    Returns:
        Weights `(num_classes, d)` and bias `(num_classes,)`.
    """
    weight = rows.new_zeros(num_classes, rows.shape[1], requires_grad=True)
    bias = rows.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=TOLERANCE, tolerance_change=0.0, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(rows @ weight.T + bias, targets) + decay / 2 * weight.pow(2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        closure()
    assert weight.grad is not None
    assert bias.grad is not None
    left = max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))
    if left > TOLERANCE:
        rank_zero_warn(
            f"the linear probe (decay {decay:g}) has not converged after {MAX_STEPS} steps: the largest gradient is "
            f"{left:.1e}, wanted is {TOLERANCE:g}; its accuracy may be a little off."
        )
    return weight.detach(), bias.detach()


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
        losses = []
        for decay in decays:
            total = 0.0
            for number in range(FOLDS):
                out = (fold == number).to(device)
                weight, bias = fit(ready[~out], targets[~out], num_classes, decay)
                total += float(cross_entropy(ready[out] @ weight.T + bias, targets[out], reduction="sum"))
            losses.append(total)
        best = decays[losses.index(min(losses))]
    weight, bias = fit(ready, targets, num_classes, best)
    weight = weight / std
    return weight.to(rows), (bias - weight @ mean).to(rows)
