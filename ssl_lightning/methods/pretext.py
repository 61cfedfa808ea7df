"""The base of the pretext tasks that look at tiles of an image."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.engine.ranges import whole
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.networks.modes import statistics_kept
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.tiles import cut_tiles, normalise_tiles


class TileMethod(SSLMethod):
    """A pretext task over tiles: each is encoded by itself.

    A tile lies at a random place of its cell, away from its neighbours, and has mean 0 and standard deviation 1 in
    every channel. The backbone's running batch-norm statistics are those of whole images, as evaluation sees them.

    Args:
        backbone: The encoder to pretrain; it must take tiles.
        views: One random view; null for crops of most of the image, flips, some colour jitter and some gray images.
        grid: Number of cells a side.
        gap: Number of pixels by which a tile is smaller than its cell.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If tiles would be smaller than 3 pixels, when the first batch comes.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(self, backbone: Backbone, views: nn.Module | None, grid: int, gap: int, **kwargs: Any) -> None:
        whole(2, grid=grid)
        whole(0, gap=gap)
        views = views or SimCLRViews(count=1, crop_scale=(0.8, 1.0), strength=0.25, grayscale=0.3)
        super().__init__(backbone, views, **kwargs)
        self.grid, self.gap = grid, gap

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cut images into tiles and encode them.

        Args:
            images: `(N, C, H, W)`.

        Returns:
            Features of the tiles row by row, `(N, grid * grid, dim)`; embeddings of the whole images, `(N, dim)`,
            without gradient.
        """
        tiles = normalise_tiles(cut_tiles(images, self.grid, self.gap, self.local_generator("tiles")))
        with statistics_kept(self.backbone):
            features = self._features(self._format(tiles.flatten(0, 1)))
        with torch.no_grad():
            embedding = self.backbone(self._format(images))
        return features.unflatten(0, tiles.shape[:2]), embedding  # type: ignore[no-untyped-call]

    def _features(self, tiles: Tensor) -> Tensor:
        wanted = self.backbone.feature_dim
        try:
            features: Tensor = self.backbone(tiles)
            reason = f"they give {features.shape[1]} features instead of {wanted}"
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:  # as networks say that they know one size alone
            features, reason = tiles[:0, 0, 0], str(error)
        if features.shape != (len(tiles), wanted):
            raise ValueError(
                f"`{type(self.backbone).__name__}` cannot encode tiles of {tiles.shape[-1]} px ({reason}); take a "
                "backbone for images of any size, as `ConvNet` or `ResNet`."
            )
        return features
