"""Losses that lightly lacks, as pure functions; under DDP each is that of the global batch."""

from typing import Literal

import torch
from lightly.utils import dist
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

Negatives = Literal["random", "semi-hard", "hard"]


def gather_rows(rows: Tensor) -> Tensor:
    """Join the rows of all processes, with gradients; the same number in each.

    Args:
        rows: `(N, ...)`.

    Returns:
        `(world * N, ...)`, process by process; `rows` itself where there is one process.
    """
    return torch.cat(dist.gather(rows)) if dist.world_size() > 1 else rows


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    r"""Find the key of each query among the keys of the batch.

    .. math:: L = -\frac1N \sum_i \log \frac{\exp(q_i \cdot k_i / \tau)}{\sum_j \exp(q_i \cdot k_j / \tau)}

    Unlike lightly's `NTXentLoss`, queries are not among each other's negatives, nor keys among theirs.

    Args:
        queries: `(N, d)`; normalised here.
        keys: `(N, d)`; normalised here, and gathered over all processes.
        temperature: :math:`\tau`.

    Returns:
        A scalar.

    Reference:
        A. van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, arXiv 1807.03748,
        Eq. 4.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    everyone = gather_rows(normalize(keys, dim=1))
    logits = normalize(queries, dim=1) @ everyone.T / temperature  # (N, world * N)
    mine = torch.arange(len(queries), device=queries.device) + dist.rank() * len(queries)
    return cross_entropy(logits, mine)


def supervised_contrastive(rows: Tensor, same: Tensor, temperature: float) -> Tensor:
    r"""Attract all positives of an anchor, against everything else.

    .. math:: L = \frac1M \sum_i \frac{-1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \ne i} \exp(z_i \cdot z_a / \tau)}

    Args:
        rows: `(M, d)`; normalised here.
        same: Which are positives of which, boolean `(M, M)`; the diagonal does not count.
        temperature: :math:`\tau`.

    Returns:
        The mean over the anchors that have a positive.

    Reference:
        P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362, Eq. 2 (the sum outside the
        logarithm); the mean over anchors where the paper writes a sum.

    Example:
        >>> same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supervised_contrastive(rows, same, temperature=1.0)  # log(1 + exp(-1)): the third has no positive
        tensor(0.3133)
    """
    rows = normalize(rows, dim=1)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (rows @ rows.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
    positives = same & ~itself
    counts = positives.sum(dim=1)
    losses = -(log_p * positives).sum(dim=1) / counts.clamp(min=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def same_class(targets: Tensor, index: Tensor) -> Tensor:
    """Tell which rows are of the same sample, or are labelled with the same class.

    Args:
        targets: `(M,)`; -1 where unlabelled.
        index: Of the samples, `(M,)`.

    Returns:
        Boolean `(M, M)`.

    Example:
        >>> same_class(torch.tensor([-1, -1, 2, 2]), torch.tensor([0, 1, 2, 3])).int().tolist()
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    return (index[:, None] == index) | ((targets[:, None] == targets) & (targets >= 0))


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence of a diagonal Gaussian from the standard one, :math:`KL(N(\mu, \sigma^2) \| N(0, 1))`, in nats.

    .. math:: \tfrac12 \sum_j (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)

    Args:
        mean: `(N, d)`.
        log_variance: `(N, d)`.

    Returns:
        `(N,)`.

    Reference:
        D. Kingma, M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, arXiv 1312.6114, appendix B.

    Example:
        >>> gaussian_divergence(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
        tensor([2.])
    """
    return 0.5 * (mean.pow(2) + log_variance.exp() - log_variance - 1).sum(dim=1)


def squared_distances(rows: Tensor) -> Tensor:
    """Return the squared Euclidean distances between all rows `(M, d)`, as `(M, M)`."""
    norms = rows.pow(2).sum(dim=1)
    return (norms[:, None] + norms[None] - 2 * rows @ rows.T).clamp(min=0)


def mine_triplets(
    distances: Tensor, positives: Tensor, same: Tensor, negatives: Negatives, draws: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose a positive and a negative for each anchor of a batch.

    The positive is drawn evenly from the anchor's. The negative is drawn evenly (`random`), or is the nearest
    (`hard`), or the nearest of those farther away than the positive and, where there is none, the farthest
    (`semi-hard`).

    Args:
        distances: Squared distances `(M, M)`.
        positives: Which rows are positives of which, boolean `(M, M)`.
        same: Which rows are no negatives of which, boolean `(M, M)`.
        negatives: How to choose them.
        draws: Even random numbers in [0, 1) `(M, 2)`.

    Returns:
        Anchors, positives and negatives as row numbers `(K,)`, for the K anchors that have both.

    Reference:
        F. Schroff, D. Kalenichenko, J. Philbin, FaceNet, CVPR 2015, arXiv 1503.03832, section 3.2.
    """
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    positives, others = positives & ~itself, ~same & ~itself
    anchors = (positives.any(dim=1) & others.any(dim=1)).nonzero()[:, 0]
    distances, positives, others, draws = distances[anchors], positives[anchors], others[anchors], draws[anchors]
    positive = _draw(positives, draws[:, 0])
    if negatives == "random":
        return anchors, positive, _draw(others, draws[:, 1])
    if negatives == "hard":
        return anchors, positive, distances.masked_fill(~others, torch.inf).argmin(dim=1)
    farther = others & (distances > distances.gather(1, positive[:, None]))
    nearest = distances.masked_fill(~farther, torch.inf).argmin(dim=1)
    farthest = distances.masked_fill(~others, -torch.inf).argmax(dim=1)
    return anchors, positive, torch.where(farther.any(dim=1), nearest, farthest)


def _draw(candidates: Tensor, draws: Tensor) -> Tensor:
    """Draw one true position of each row, evenly, by a number in [0, 1) a row."""
    counts = candidates.sum(dim=1)
    wanted = (draws.to(counts.device) * counts).long().clamp(max=counts - 1) + 1
    return (candidates.cumsum(dim=1) >= wanted[:, None]).int().argmax(dim=1)
