"""How many dimensions an embedding uses, as a judge that needs no labels."""

import torch
from torch import Tensor

from ssl_lightning.engine.ranges import at_least


def directions(rows: Tensor) -> Tensor:
    """Return rows of length 1, at any scale and far from the origin: in float64, `(N, d)`; zeros stay as they are."""
    rows = rows.to("cpu" if rows.device.type == "mps" else rows.device).double()  # which has no float64
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)  # squares are numbers
    lengths: Tensor = rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return rows / lengths


def effective_rank(embeddings: Tensor) -> float:
    r"""Exponential of the entropy of the singular values: how many dimensions the embeddings use.

    With :math:`p_k = \sigma_k / \sum_j \sigma_j` over the singular values of the centred, normalised embeddings,
    the rank is :math:`\exp(-\sum_k p_k \log p_k)`.

    Args:
        embeddings: `(N, d)`.

    Returns:
        From 1 to min(N, d); 0 if all embeddings are the same, up to the rounding of their type.

    Reference:
        O. Roy, M. Vetterli, The Effective Rank: a Measure of Effective Dimensionality, EUSIPCO 2007. `rankme` is the
        same without centring and normalising; we centre, so that a common offset, which tells no sample from another,
        does not hide what does.

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(3), -torch.eye(3)])), 3), effective_rank(torch.ones(4, 3))
        (3.0, 0.0)
    """
    rows = directions(embeddings)
    rows = rows - rows.mean(dim=0)
    noise = 10 * torch.finfo(embeddings.dtype).eps  # of a row of length 1: what is left of rows that are the same
    return 0.0 if rows.norm() <= noise * len(rows) ** 0.5 else _perplexity(torch.linalg.svdvals(rows))


def rankme(embeddings: Tensor) -> float:
    r"""RankMe: exponential of the entropy of the embeddings' singular values.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \frac{\sigma_k}{\lVert \sigma \rVert_1}

    Args:
        embeddings: `(N, d)`, with N of some thousand and above d, as they are: neither centred nor normalised.

    Returns:
        From 1 to min(N, d); 0 if all embeddings are zero, as those of a dead encoder.

    Reference:
        Q. Garrido, R. Balestriero, L. Najman, Y. LeCun, RankMe: Assessing the Downstream Performance of Pretrained
        Self-Supervised Representations by Their Rank, ICML 2023, arXiv 2210.02885, Eq. 1 and 2, whose small constant in
        p we leave out: 0 log 0 = 0 here.

    Example:
        >>> round(rankme(torch.eye(5)), 3), round(rankme(torch.ones(5, 3)), 3)
        (5.0, 1.0)
    """
    return _perplexity(torch.linalg.svdvals(embeddings.double()))


def lidar(embeddings: Tensor, delta: float = 1e-4) -> float:
    r"""LiDAR: how many directions tell samples from one another more than views of one sample differ.

    With every sample a class of its views, the covariance :math:`\Sigma_b` of the samples' means and the
    mean covariance :math:`\Sigma_w` of the views around them: the exponential of the entropy of the eigenvalues of

    .. math:: \Sigma_w^{-1/2}\, \Sigma_b\, \Sigma_w^{-1/2}, \qquad \Sigma_w \leftarrow \Sigma_w + \delta I

    Args:
        embeddings: `(samples, views, d)`, at least two of each.
        delta: :math:`\delta`.

    Returns:
        From 1 to min(samples - 1, d); 0 if the samples do not differ at all.

    Raises:
        ValueError: If there are fewer than two samples or views.

    Reference:
        V. Thilak et al., LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures, ICLR 2024,
        arXiv 2312.04000, Eq. 4 to 8.

    Example:
        >>> samples = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])  # on two axes
        >>> round(lidar(samples[:, None].repeat(1, 2, 1)), 3)
        2.0
    """
    samples, views, dim = embeddings.shape
    at_least(0, delta=delta)
    if samples < 2 or views < 2:
        raise ValueError(f"`embeddings` of {samples} samples and {views} views; LiDAR needs at least two of each.")
    rows = embeddings.double()
    means = rows.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (rows - means[:, None]).flatten(0, 1)
    sigma_b = between.T @ between / (samples - 1)
    sigma_w = within.T @ within / (samples * (views - 1)) + delta * torch.eye(dim, dtype=rows.dtype, device=rows.device)
    values, vectors = torch.linalg.eigh(sigma_w)
    root = vectors / values.sqrt() @ vectors.T
    return _perplexity(torch.linalg.eigvalsh(root @ sigma_b @ root).clamp(min=0))


def _perplexity(values: Tensor) -> float:
    total = values.sum()
    if total == 0:  # nothing in use: 0 / 0 would be NaN, in the log and in the table
        return 0.0
    p = values / total
    return float(torch.special.entr(p).sum().exp())
