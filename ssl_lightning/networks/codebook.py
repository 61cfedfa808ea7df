"""A codebook: centres of k-means, and how near what is seen is to each of them."""

import torch
from torch import Tensor, nn

from ssl_lightning.functional.kmeans import kmeans, nearest


class Codebook(nn.Module):
    r"""Soft assignment of vectors to centres, found once and kept with the weights.

    .. math:: q(k) = \mathrm{softmax}_k(-\lVert x - c_k \rVert^2 / \tau), \qquad
        \tau = \text{mean squared distance to the nearest centre}

    Args:
        codes: Number of centres.
        size: Numbers of a vector.
    """

    centres: Tensor
    softness: Tensor

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(codes, size))
        self.register_buffer("softness", torch.tensor(0.0))  # tau; 0: not fitted yet

    @property
    def fitted(self) -> bool:
        """Whether there are centres."""
        return float(self.softness) > 0

    def found(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, float] | None:
        """Find centres of vectors `(N, size)`, and their softness; null where there are fewer vectors than codes."""
        if len(self.centres) > len(rows):
            return None
        centres = kmeans(rows, len(self.centres), generator).centroids
        return centres, max(1e-6, float(nearest(rows, centres)[0].mean()))

    def take(self, centres: Tensor, softness: float) -> None:
        """Take over what was found."""
        self.centres.copy_(centres)
        self.softness.fill_(softness)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the distribution over the codes of vectors `(..., size)`, `(..., codes)`.

        Raises:
            ValueError: If there are no centres yet.
        """
        if not self.fitted:
            raise ValueError("there is no codebook of regions yet: it is made when a fit begins.")
        rows = rows.to(self.centres.dtype)
        squares: Tensor = (rows**2).sum(dim=-1, keepdim=True) - 2 * rows @ self.centres.T + (self.centres**2).sum(dim=1)
        return (-squares / self.softness).softmax(dim=-1)
