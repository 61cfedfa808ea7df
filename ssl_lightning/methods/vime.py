"""VIME."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import at_least, between, sizes, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.vectors import Row, VIMEViews
from ssl_lightning.transforms.vectors.row import numbers_of


class VIME(SSLMethod):
    r"""Replace some cells of a row by those of other rows, and tell which they were and what was there.

    With :math:`m_j = 1` where the cell j was replaced by another value, :math:`\hat m` the estimated probability of
    that and :math:`\hat x` the estimated row, over d cells

    .. math:: L = -\frac1d \sum_j \big[m_j \log \hat m_j + (1 - m_j) \log(1 - \hat m_j)\big]
        + \alpha\, \frac1d \sum_j \ell(x_j, \hat x_j)

    with :math:`\ell` the squared error of a number, and the cross-entropy of a category.

    Args:
        backbone: The encoder to pretrain: `RowNet`, or `MLP` where there are no categories.
        views: The clean row and one with cells replaced; null for `VIMEViews` with `mask`.
        mask: Probability of replacing a cell; the authors' code has 0.3.
        reconstruction: :math:`\alpha`, the weight of the row that is estimated; the authors' code has 2.
        feature_dim: Numbers of a row; linked from the data on the command line.
        cardinalities: Codes of each category, linked likewise; null for vectors.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        J. Yoon, Y. Zhang, J. Jordon, M. van der Schaar, VIME: Extending the Success of Self- and Semi-supervised
        Learning to Tabular Domain, NeurIPS 2020, Eq. 4 to 6. There categories are one-hot numbers; here they have a
        cross-entropy. As in the authors' code, a cell whose replacement is the same value counts as not replaced.

    Example:
        >>> from ssl_lightning.backbones import RowNet
        >>> model = VIME(RowNet(6, width=16), feature_dim=6)
        >>> model.mask_head(model.embed(torch.zeros(3, 6))).shape  # for each cell: was it replaced?
        torch.Size([3, 6])
    """

    family: ClassVar[str] = "tables"
    view_count: ClassVar[int] = 2
    takes: ClassVar[tuple[str, ...]] = ("rows",)
    least_batch: int = 2

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        mask: float = 0.3,
        reconstruction: float = 2.0,
        feature_dim: int = 0,
        cardinalities: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        between(0, 1, "()", mask=mask)
        at_least(0, reconstruction=reconstruction)
        sizes(0, feature_dim=feature_dim)
        codes = [int(count) for count in cardinalities or ()]
        for count in codes:
            whole(1, cardinalities=count)
        super().__init__(backbone, views or VIMEViews(mask=mask), **kwargs)
        self.reconstruction = reconstruction
        width, cells = self.backbone.feature_dim, feature_dim + len(codes)
        if not cells:
            raise ValueError(
                "`feature_dim=0` without `cardinalities` leaves nothing to estimate; pass those of the data, "
                "`feature_dim=data.feature_dim, cardinalities=data.cardinalities`."
            )
        self.mask_head = nn.Linear(width, cells)
        self.number_head = nn.Linear(width, feature_dim)
        self.category_heads = nn.ModuleList(nn.Linear(width, count) for count in codes)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Encode the row with replaced cells; estimate which they are, and the row."""
        clean, changed = views[:2]
        h = self.backbone(changed)
        with full_precision(h):
            h = h.float()
            wrong = binary_cross_entropy_with_logits(self.mask_head(h), replaced(clean, changed))
            loss = wrong + self.reconstruction * self.errors(h, clean).mean()
        return {"loss": loss, "embedding": h}

    def errors(self, h: Tensor, clean: Any) -> Tensor:
        """Return the error of every cell of the rows that are estimated from embeddings, `(N, cells)`."""
        parts = [(self.number_head(h) - numbers_of(clean).float()).square()]
        if isinstance(clean, Row):
            codes = clean.categories.T
            heads = zip(self.category_heads, codes, strict=True)
            parts += [cross_entropy(head(h), code, reduction="none")[:, None] for head, code in heads]
        return torch.cat(parts, dim=1)


def replaced(clean: Any, changed: Any) -> Tensor:
    """Tell which cells of rows were replaced by another value: 1.0, `(N, cells)`, numbers first.

    Example:
        >>> replaced(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0]]))
        tensor([[0., 1.]])
    """
    found = [numbers_of(clean) != numbers_of(changed)]
    if isinstance(clean, Row):
        found.append(clean.categories != changed.categories)
    return torch.cat(found, dim=1).float()
