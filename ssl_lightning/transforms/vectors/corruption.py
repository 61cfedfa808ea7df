"""Random views of rows by cells of other rows: what a column holds, but not what belongs to the others."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.transforms.base import FromData
from ssl_lightning.transforms.vectors.row import Row, numbers_of, with_numbers


class SCARFViews(nn.Module):
    """The clean row, and rows in which a share of the cells is replaced by what other rows of the batch have there.

    Which cells, and from which row each comes, is drawn for every row and cell by itself; so many are replaced in each
    row that it is the same number in all. A replaced cell may be as it was, where the other row has the same.

    Args:
        count: Views of each sample: the first clean, unless it is the only one.
        share: Of the cells to replace, numbers and categories alike; the paper's 0.6.
        clean: Makes the clean input, before cells are replaced; null for that of the data.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        D. Bahri, H. Jiang, Y. Tay, D. Metzler, SCARF: Self-Supervised Contrastive Learning using Random Feature
        Corruption, ICLR 2022, arXiv 2106.15147, algorithm 1. There a cell is drawn from all training rows; here from
        the other rows of the batch, which are drawn from these.

    Example:
        >>> rows = torch.arange(20.0).view(4, 5)
        >>> clean, other = SCARFViews()(rows, torch.Generator().manual_seed(0))
        >>> bool((clean == rows).all()), (other != rows).sum(dim=1).tolist()
        (True, [3, 3, 3, 3])
    """

    def __init__(self, count: int = 2, share: float = 0.6, clean: nn.Module | None = None) -> None:
        super().__init__()
        whole(1, count=count)
        between(0, 1, share=share)
        self.count, self.share = count, share
        self.clean = FromData() if clean is None else clean

    @torch.no_grad()
    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> list[Any]:
        """Return the views of vectors `(N, d)` or of a `Row`, numbers float32."""
        rows = self.clean(inputs)
        views = [rows] if self.count > 1 else []
        while len(views) < self.count:
            count, columns = shape_of(rows)
            replaced = exactly(count, columns, self.share, generator)
            views.append(replace_cells(rows, replaced, generator))
        return views


class VIMEViews(nn.Module):
    """The clean row, and rows of which each cell is replaced with a probability by what another row has there.

    Args:
        count: Views of each sample: the first clean, unless it is the only one.
        mask: Probability of replacing a cell.
        clean: Makes the clean input, before cells are replaced; null for that of the data.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        J. Yoon, Y. Zhang, J. Jordon, M. van der Schaar, VIME: Extending the Success of Self- and Semi-supervised
        Learning to Tabular Domain, NeurIPS 2020, Eq. 3. There the columns of a batch are shuffled; here each cell comes
        from another row that is drawn by itself.

    Example:
        >>> rows = torch.arange(200.0).view(40, 5)
        >>> clean, other = VIMEViews(mask=0.3)(rows, torch.Generator().manual_seed(0))
        >>> bool((clean == rows).all()), int((other != rows).sum())
        (True, 71)
    """

    def __init__(self, count: int = 2, mask: float = 0.3, clean: nn.Module | None = None) -> None:
        super().__init__()
        whole(1, count=count)
        between(0, 1, mask=mask)
        self.count, self.mask = count, mask
        self.clean = FromData() if clean is None else clean

    @torch.no_grad()
    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> list[Any]:
        """Return the views of vectors `(N, d)` or of a `Row`, numbers float32."""
        rows = self.clean(inputs)
        views = [rows] if self.count > 1 else []
        while len(views) < self.count:
            replaced = torch.rand(shape_of(rows), generator=generator) < self.mask
            views.append(replace_cells(rows, replaced, generator))
        return views


def shape_of(rows: Any) -> tuple[int, int]:
    """Return the number of rows and of their cells, numbers and categories."""
    numbers = numbers_of(rows)
    return len(numbers), numbers.shape[1] + (rows.categories.shape[1] if isinstance(rows, Row) else 0)


def exactly(count: int, columns: int, share: float, generator: torch.Generator | None) -> Tensor:
    """Choose a share of the columns for each row, rounded down.

    Returns:
        Boolean, `(count, columns)`, on the CPU, with as many true in each row.

    Example:
        >>> exactly(3, 5, 0.6, None).sum(dim=1)
        tensor([3, 3, 3])
    """
    chosen = torch.zeros(count, columns, dtype=torch.bool)
    order = torch.rand(count, columns, generator=generator).argsort(dim=1, stable=True)
    return chosen.scatter_(1, order[:, : int(share * columns + 1e-9)], True)


def replace_cells(rows: Any, replaced: Tensor, generator: torch.Generator | None) -> Any:
    """Replace cells by what other rows of the batch have there, each from a row of its own draw.

    Args:
        rows: Vectors `(N, d)`, or a `Row`.
        replaced: Boolean, `(N, columns)`: numbers first, then categories.
        generator: Of the CPU.

    Returns:
        The same; a batch of one row, which has no other, as it was.
    """
    numbers = numbers_of(rows)
    count, columns = replaced.shape
    steps = 1 + (torch.rand(count, columns, generator=generator) * (count - 1)).long().clamp(max=max(0, count - 2))
    donors = onto((torch.arange(count)[:, None] + steps) % count, numbers.device)
    mask, split = onto(replaced, numbers.device), numbers.shape[1]
    new = with_numbers(rows, torch.where(mask[:, :split], numbers.gather(0, donors[:, :split]), numbers))
    if not isinstance(rows, Row):
        return new
    codes = rows.categories
    return new._replace(categories=torch.where(mask[:, split:], codes.gather(0, donors[:, split:]), codes))
