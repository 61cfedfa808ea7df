"""Accuracy of a linear classifier on a frozen embedding."""

import math

import torch
from torch import Tensor

from ssl_lightning.engine.ranges import seeds, several, whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.logistic import fit, standardise

DECAYS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)


def linear_probe(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    test_targets: Tensor,
    num_classes: int,
    seed: int = 0,
    decays: tuple[float, ...] = DECAYS,
) -> float:
    r"""Fit multinomial logistic regression on embeddings and judge it on others.

    .. math:: \min_{W, b} \frac1N \sum_i -\log softmax(W x_i + b)_{y_i} + \frac{\lambda}{2} \lVert W \rVert^2

    Embeddings are standardised by the training mean and deviation. :math:`\lambda` is the one that is best on a fifth
    of the training samples when fitted on the rest; where a fifth is less than ten samples, the middle one.

    Args:
        train: `(N, d)`.
        targets: Classes `(N,)`.
        test: `(M, d)`.
        test_targets: `(M,)`.
        num_classes: Number of classes.
        seed: Of the split that chooses :math:`\lambda`.
        decays: Values of :math:`\lambda` to choose from.

    Returns:
        The fraction of test samples that are right.

    Raises:
        ValueError: If embeddings are not finite, or there are none, or a number is out of its range.

    Reference:
        The protocol of A. Radford et al., CLIP, 2021, arXiv 2103.00020, section 3.2: L-BFGS to convergence on features
        without augmentation.

    Example:
        >>> rows = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> linear_probe(rows, torch.tensor([0, 0, 1, 1]), rows, torch.tensor([0, 0, 1, 1]), num_classes=2)
        1.0
    """
    whole(2, num_classes=num_classes)
    seeds(seed=seed)
    several(None, 0, math.inf, decays=decays)
    for name, found in (("train", train), ("test", test)):
        if not len(found) or not found.isfinite().all():
            what = "NaN or infinity: the embedding has diverged" if len(found) else "no embedding"
            raise ValueError(f"`{name}` holds {what}; a probe cannot learn from that.")
    train, test = (found.to("cpu" if found.device.type == "mps" else found.device).double() for found in (train, test))
    targets, test_targets = targets.to(train.device), test_targets.to(train.device)
    mean, std = standardise(train)
    rows, others = (train - mean) / std, (test - mean) / std
    best = decays[len(decays) // 2]
    held = len(rows) // 5
    if held >= 10:
        order = torch.randperm(len(rows), generator=derive_generator(seed, "probe"))
        out, kept = order[:held], order[held:]
        scores = [
            _accuracy(fit(rows[kept], targets[kept], num_classes, decay), rows[out], targets[out]) for decay in decays
        ]
        best = decays[scores.index(max(scores))]
    return _accuracy(fit(rows, targets, num_classes, best), others, test_targets)


def _accuracy(model: tuple[Tensor, Tensor], rows: Tensor, targets: Tensor) -> float:
    weight, bias = model
    return float(((rows @ weight.T + bias).argmax(dim=1) == targets).float().mean())
