"""Solve jigsaw puzzles."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import whole
from ssl_lightning.methods.base import Step
from ssl_lightning.methods.pretext import TileMethod
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image.tiles import cut_tiles, distant_permutations, lay_tiles, normalise_tiles


class Jigsaw(TileMethod):
    r"""Pretext task: shuffle an image's tiles by one of a fixed set of permutations, and predict which.

    .. math:: L = -\frac1N \sum_i \log p_{\sigma_i}\big(f(t_{\sigma_i(1)}), \dots, f(t_{\sigma_i(9)})\big)

    Every tile is encoded by itself (context-free); the head sees their features in the shuffled order.

    Args:
        backbone: The encoder to pretrain; it must take tiles.
        views: One random view; null for crops of most of the image, flips, some colour jitter and some gray ones.
        permutations: Number of permutations, chosen far apart; 24 are all of 2 x 2 tiles, 100 are usual for 3 x 3.
        grid: Number of cells a side: 3 as in the paper, from 24 px on; 2 for smaller images.
        gap: Number of pixels by which a tile is smaller than its cell.
        hidden_dim: Size of the hidden layer of the head.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range.

    Reference:
        M. Noroozi, P. Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016,
        arXiv 1603.09246, section 3. There tiles of 64 px lie in cells of 75 px, a gap of about a seventh.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Jigsaw(ConvNet(width=4), grid=2, permutations=24)
        >>> len({tuple(order) for order in model.orders.tolist()})  # all orders of four tiles
        24
    """

    family: ClassVar[str] = "pretext task"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        permutations: int = 24,
        grid: int = 2,
        gap: int = 1,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        whole(2, permutations=permutations)
        whole(1, hidden_dim=hidden_dim)
        super().__init__(backbone, views, grid, gap, **kwargs)
        self.orders: Tensor
        self.register_buffer("orders", distant_permutations(permutations, grid * grid))
        size = grid * grid * self.backbone.feature_dim
        self.head = nn.Sequential(nn.Linear(size, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, permutations))

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Shuffle the features of the tiles, and classify the permutation."""
        features, embedding = self.encode(views[0])
        draws = torch.randint(len(self.orders), (len(features),), generator=self.local_generator("permutations"))
        labels = onto(draws, features.device)
        # a tile's feature does not depend on where it is put, so features are shuffled instead of tiles
        order = self.orders[labels][..., None].expand_as(features)
        with full_precision(features):
            logits = self.head(features.float().gather(1, order).flatten(1))
            loss = cross_entropy(logits, labels)
        self.log("train/pretext_accuracy", (logits.argmax(dim=1) == labels).float().mean(), sync_dist=True)
        return {"loss": loss, "embedding": embedding}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the tiles in order, shuffled, and in the order that the model finds: the first where it is right."""
        tiles = cut_tiles(images, self.grid, self.gap, None)
        orders = self.orders[torch.randint(len(self.orders), (len(images),), generator=generator).to(images.device)]
        shuffled = pick(tiles, orders)
        features = self.backbone(self._format(normalise_tiles(shuffled).flatten(0, 1)))
        found = self.orders[self.head(features.unflatten(0, tiles.shape[:2]).flatten(1)).argmax(dim=1)]
        rows = {"tiles": tiles, "shuffled": shuffled, "solved": pick(shuffled, found.argsort(dim=1))}
        return {name: lay_tiles(laid, self.grid) for name, laid in rows.items()}


def pick(tiles: Tensor, orders: Tensor) -> Tensor:
    """Put tiles `(N, tiles, ...)` in the orders `(N, tiles)`."""
    return tiles.gather(1, orders[:, :, None, None, None].expand_as(tiles))
