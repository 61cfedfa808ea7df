"""An encoder of rows: numbers and categories of a table."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.engine.ranges import between, layers, sizes, whole
from ssl_lightning.transforms.vectors.row import Row, numbers_of


class RowNet(Backbone):
    r"""Categories as vectors beside the numbers, then fully connected layers, each adding to what came before.

    .. math:: h_0 = W\,[x; e_1; \dots; e_b], \qquad h_{l + 1} = h_l + D(V_l\, D(\mathrm{ReLU}(U_l\, N(h_l))))

    and the embedding is :math:`\mathrm{ReLU}(N(h_L))`, with N layer norm and D dropout.

    Args:
        feature_dim: Numbers of a row; linked from the data on the command line. May be 0 where there are categories.
        cardinalities: Codes of each category, the unknown one, 0, among them; linked likewise. Null for vectors.
        width: Numbers of a layer, and of the embedding.
        depth: Layers that add.
        dropout: Probability of dropping a number within each of them.
        category_dim: Numbers that stand for a category.

    Raises:
        ValueError: If a number is out of its range, or there is nothing to encode.

    Reference:
        Y. Gorishniy, I. Rubachev, V. Khrulkov, A. Babenko, Revisiting Deep Learning Models for Tabular Data, NeurIPS
        2021, arXiv 2106.11959, section 3.2 (ResNet). There N is batch norm; layer norm makes a row's embedding its own,
        whatever the batch.
    """

    takes: ClassVar[tuple[str, ...]] = ("rows",)

    def __init__(
        self,
        feature_dim: int,
        cardinalities: Sequence[int] | None = None,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.1,
        category_dim: int = 8,
    ) -> None:
        sizes(0, feature_dim=feature_dim)
        sizes(1, width=width, category_dim=category_dim)
        layers(depth=depth)
        between(0, 1, "[)", dropout=dropout)
        codes = [int(count) for count in cardinalities or ()]
        for count in codes:
            whole(1, cardinalities=count)
        if not feature_dim and not codes:
            raise ValueError(
                "`feature_dim=0` without `cardinalities` leaves nothing to encode; give rows with columns."
            )
        super().__init__(
            feature_dim=feature_dim, cardinalities=codes, width=width, depth=depth, dropout=dropout,
            category_dim=category_dim,
        )  # fmt: skip
        self.numbers, self.feature_dim = feature_dim, width
        counts = torch.tensor(codes, dtype=torch.int64)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.table = nn.Embedding(sum(codes), category_dim) if codes else None
        self.first = nn.Linear(feature_dim + len(codes) * category_dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(width, width), nn.Dropout(dropout),
            )
            for _ in range(depth)
        )  # fmt: skip
        self.last = nn.Sequential(nn.LayerNorm(width), nn.ReLU())

    counts: Tensor
    starts: Tensor

    def forward(self, inputs: Any) -> Tensor:
        """Encode vectors `(N, numbers)` or a `Row` to embeddings `(N, width)`."""
        return self.rest(self.trunk(inputs))

    def trunk(self, inputs: Any) -> Tensor:
        """Put numbers and categories together."""
        numbers = numbers_of(inputs)
        codes = inputs.categories if isinstance(inputs, Row) else None
        have = 0 if codes is None else codes.shape[1]
        if numbers.shape[1] != self.numbers or have != len(self.counts):
            raise ValueError(
                f"`RowNet` was built for rows of {self.numbers} numbers and {len(self.counts)} categories, and these "
                f"have {numbers.shape[1]} and {have}; give rows of the same columns."
            )
        if codes is not None and self.table is not None:
            known = torch.where((codes >= 0) & (codes < self.counts), codes, 0)  # what has no code is unknown
            vectors = self.table(known + self.starts).flatten(1)
            numbers = torch.cat([numbers.to(vectors.dtype), vectors], dim=1)
        return self.first(numbers)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, width)`."""
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)  # type: ignore[no-any-return]
