"""Random views of vectors: numbers left out, and noise, by a draw of its own for every sample."""

from typing import Any

import torch
from torch import nn

from ssl_lightning.engine.ranges import at_least, between, whole
from ssl_lightning.transforms.base import FromData
from ssl_lightning.transforms.vectors.row import Row, numbers_of, with_numbers


class VectorViews(nn.Module):
    r"""Some views of each vector: every number is left out with a probability, and noise is added.

    .. math:: v_j = m_j\, (x_j + \sigma\, s_j\, \epsilon_j), \qquad m_j \sim \mathrm{Bernoulli}(1 - p),\;
        \epsilon_j \sim N(0, 1)

    with :math:`s_j` the standard deviation of the j-th number over the batch. A category is left out with the same
    probability, and then unknown, 0.

    Args:
        count: Views of each sample.
        drop: Probability p of leaving a number out, which then is 0.
        noise: Standard deviation of the noise, in units of the numbers' own deviation.
        clean: Makes the clean input, before anything is left out; null for that of the data.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> first, second = VectorViews(noise=0.0)(torch.ones(4, 8), torch.Generator().manual_seed(0))
        >>> bool((first == second).all()), sorted(set(first.flatten().tolist()))
        (False, [0.0, 1.0])
    """

    def __init__(self, count: int = 2, drop: float = 0.2, noise: float = 0.1, clean: nn.Module | None = None) -> None:
        super().__init__()
        whole(1, count=count)
        between(0, 1, "[)", drop=drop)
        at_least(0, noise=noise)
        self.count, self.drop, self.noise = count, drop, noise
        self.clean = FromData() if clean is None else clean

    @torch.no_grad()
    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> list[Any]:
        """Return the views of vectors `(N, d)` or of a `Row`, numbers float32."""
        made = self.clean(inputs)
        rows = numbers_of(made).float()
        scale = rows.std(dim=0, correction=0) * self.noise
        views = []
        for _ in range(self.count):
            kept = torch.rand(rows.shape, generator=generator) >= self.drop
            noise = torch.randn(rows.shape, generator=generator)
            view = with_numbers(made, (rows + scale * noise.to(rows)) * kept.to(rows))
            if isinstance(view, Row):
                named = torch.rand(view.categories.shape, generator=generator) >= self.drop
                view = view._replace(categories=view.categories * named.to(view.categories))
            views.append(view)
        return views


def vector_views(count: int = 2, mild: bool = False) -> VectorViews:
    """Return random views that suit vectors.

    Args:
        count: Views of each sample.
        mild: As a classifier wants them, near to the sample.
    """
    return VectorViews(count, drop=0.1, noise=0.05) if mild else VectorViews(count)
