"""Encoders of vectors: precomputed embeddings, or other rows of numbers."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.engine.ranges import between, layers, sizes
from ssl_lightning.transforms.vectors.row import Row, numbers_of


class Flat(Backbone):
    """Takes vectors for their embeddings: precomputed ones need no encoder.

    Args:
        feature_dim: Numbers of a sample; linked from the data on the command line.

    Raises:
        ValueError: If it is below 1.
    """

    takes: ClassVar[tuple[str, ...]] = ("rows",)

    def __init__(self, feature_dim: int) -> None:
        sizes(1, feature_dim=feature_dim)
        super().__init__(feature_dim=feature_dim)
        self.feature_dim = feature_dim

    def forward(self, inputs: Any) -> Tensor:
        """Return the vectors `(N, feature_dim)`, whole numbers as floats."""
        return vectors_of(inputs, self)


class MLP(Backbone):
    """Fully connected layers, each with batch norm and ReLU, from vectors to embeddings.

    Args:
        feature_dim: Numbers of a sample; linked from the data on the command line.
        width: Numbers of a hidden layer, and of the embedding.
        depth: Layers.
        dropout: Probability of dropping a number after each layer.

    Raises:
        ValueError: If a number is out of its range.
    """

    takes: ClassVar[tuple[str, ...]] = ("rows",)

    def __init__(self, feature_dim: int, width: int = 256, depth: int = 2, dropout: float = 0.0) -> None:
        sizes(1, feature_dim=feature_dim, width=width)
        layers(depth=depth)
        between(0, 1, "[)", dropout=dropout)
        super().__init__(feature_dim=feature_dim, width=width, depth=depth, dropout=dropout)
        blocks: list[nn.Module] = []
        for before in (feature_dim, *[width] * (depth - 1)):
            blocks += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*blocks)
        self.feature_dim = width  # of the embedding

    def forward(self, inputs: Any) -> Tensor:
        """Encode vectors `(N, numbers)` to embeddings `(N, width)`, whole numbers taken as floats."""
        return self.rest(self.trunk(inputs))

    def trunk(self, inputs: Any) -> Tensor:
        """Compute the first layer."""
        return self.net[:3](vectors_of(inputs, self))  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, width)`."""
        return self.net[3:](hidden)  # type: ignore[no-any-return]


def vectors_of(inputs: Any, encoder: Backbone) -> Tensor:
    """Return inputs as vectors of floats `(N, d)`.

    Args:
        inputs: Vectors, or rows of numbers alone.
        encoder: That is to take them, for messages.

    Raises:
        ValueError: If they are of another shape, or rows with categories.
    """
    if isinstance(inputs, Row) and inputs.categories.shape[1]:
        raise ValueError(
            f"`{type(encoder).__name__}` takes numbers, and these rows have {inputs.categories.shape[1]} categories, "
            "too; take `RowNet`, or leave the columns out."
        )
    numbers = numbers_of(inputs)
    takes = encoder.init_args["feature_dim"]
    if numbers.shape[1] != takes:
        raise ValueError(f"`{type(encoder).__name__}` was built for `feature_dim={takes}`, not for {numbers.shape[1]}.")
    return numbers
