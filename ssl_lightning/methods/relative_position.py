"""Predict where one part of an image lies beside another."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import sizes
from ssl_lightning.methods.base import Step
from ssl_lightning.methods.pretext import TileMethod
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image.tiles import cut_tiles, lay_tiles, normalise_tiles

CENTRE = 4  # of 3 x 3 tiles
AROUND = [0, 1, 2, 3, 5, 6, 7, 8]


class RelativePosition(TileMethod):
    r"""Pretext task: of the tile in the middle and one of the eight around it, predict which of the eight it is.

    .. math:: L = -\frac{1}{8N} \sum_i \sum_{k=1}^{8} \log p_k\big(f(t_{\mathrm{centre}}), f(t_k)\big)

    Args:
        backbone: The encoder to pretrain; it must take tiles.
        views: One random view; null for crops of most of the image, flips, some colour jitter and some gray ones.
        gap: Number of pixels by which a tile is smaller than its cell, a ninth of the image.
        hidden_dim: Size of the hidden layer of the head.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if a ninth of the image is too small.

    Reference:
        C. Doersch, A. Gupta, A. Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
        arXiv 1505.05192, section 3. There one pair is drawn from an image, with a gap of half a tile; here all eight
        pairs share the encoded tiles. Instead of dropping colours against chromatic aberration, tiles are normalised in
        every channel and some views are gray.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = RelativePosition(ConvNet(width=4))
        >>> model.head(torch.zeros(3, 2 * model.backbone.feature_dim)).shape  # which of the eight around it
        torch.Size([3, 8])
    """

    family: ClassVar[str] = "pretext task"

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, gap: int = 2, hidden_dim: int = 512, **kwargs: Any
    ) -> None:
        if "grid" in kwargs:
            raise ValueError(
                f"`grid={kwargs['grid']}` is none of `RelativePosition`, whose tiles are 3 x 3: one in the middle, "
                "eight around it; leave it out, or take `Jigsaw`, which has a `grid`."
            )
        sizes(0, gap=gap)
        sizes(1, hidden_dim=hidden_dim)
        super().__init__(backbone, views, 3, gap, **kwargs)
        self.head = nn.Sequential(
            nn.Linear(2 * self.backbone.feature_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 8)
        )

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Pair the middle tile with each other, and classify where that is."""
        features, embedding = self.encode(views[0])
        labels = torch.arange(8, device=features.device).expand(len(features), 8)
        with full_precision(features):
            middle = features[:, CENTRE, None].expand(-1, 8, -1)
            around = torch.cat([features[:, :CENTRE], features[:, CENTRE + 1 :]], dim=1)
            logits = self.head(torch.cat([middle, around], dim=2).float())  # (N, 8, 8)
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        self.log("train/pretext_accuracy", (logits.argmax(dim=2) == labels).float().mean(), sync_dist=True)
        return {"loss": loss, "embedding": embedding}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the tiles; the middle and another where it was; and where the model says: alike where it is right."""
        tiles = cut_tiles(images, 3, self.gap, None)
        features = self.backbone(self._format(normalise_tiles(tiles).flatten(0, 1))).unflatten(0, tiles.shape[:2])
        place = torch.tensor(AROUND)
        drawn = onto(place[torch.randint(8, (len(images),), generator=generator)], images.device)
        row = torch.arange(len(images), device=images.device)
        said = self.head(torch.cat([features[:, CENTRE], features[row, drawn]], dim=1)).argmax(dim=1)
        found = {"tiles": tiles}
        for name, where in (("was", drawn), ("said", place.to(images.device)[said])):
            laid = torch.zeros_like(tiles)
            laid[:, CENTRE], laid[row, where] = tiles[:, CENTRE], tiles[row, drawn]
            found[name] = laid
        return {name: lay_tiles(laid, 3) for name, laid in found.items()}
