"""Accuracy of a linear classifier on a frozen embedding."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_lightning.seeding import derive_generator

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

    Reference:
        The protocol of A. Radford et al., CLIP, 2021, arXiv 2103.00020, section 3.2: L-BFGS to convergence on features
        without augmentation.

    Example:
        >>> rows = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> linear_probe(rows, torch.tensor([0, 0, 1, 1]), rows, torch.tensor([0, 0, 1, 1]), num_classes=2)
        1.0
    """
    mean, std = train.float().mean(dim=0), train.float().std(dim=0, correction=0).clamp(min=1e-6)
    rows, others = (train.float() - mean) / std, (test.float() - mean) / std
    best = decays[len(decays) // 2]
    held = len(rows) // 5
    if held >= 10:
        order = torch.randperm(len(rows), generator=derive_generator(seed, "probe"))
        out, kept = order[:held], order[held:]
        scores = [
            _accuracy(_fit(rows[kept], targets[kept], num_classes, decay), rows[out], targets[out]) for decay in decays
        ]
        best = decays[scores.index(max(scores))]
    return _accuracy(_fit(rows, targets, num_classes, best), others, test_targets)


def _fit(rows: Tensor, targets: Tensor, num_classes: int, decay: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(num_classes, rows.shape[1], device=rows.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=rows.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(rows @ weight.T + bias, targets) + decay / 2 * weight.pow(2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _accuracy(model: tuple[Tensor, Tensor], rows: Tensor, targets: Tensor) -> float:
    weight, bias = model
    return float(((rows @ weight.T + bias).argmax(dim=1) == targets).float().mean())
