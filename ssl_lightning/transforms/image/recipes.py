"""Views by the recipes of papers other than SimCLR."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.engine.ranges import given, ordered, several, whole
from ssl_lightning.transforms.image.random_view import SimCLRViews


class BYOLViews(nn.Module):
    """Two views by different recipes: the first always blurred, the second rarely blurred and sometimes solarized.

    Args:
        blur: Probabilities of blurring the first and the second view.
        solarize: Probabilities of solarizing them.
        options: Options of both views, as for `SimCLRViews`.

    Reference:
        J.-B. Grill et al., BYOL, 2020, arXiv 2006.07733, table 6. Also used by Barlow Twins, VICReg and MoCo v3.

    Example:
        >>> first, second = BYOLViews()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> first.shape == second.shape
        True
    """

    def __init__(
        self, blur: tuple[float, float] = (1.0, 0.1), solarize: tuple[float, float] = (0.0, 0.2), **options: Any
    ) -> None:
        several(2, 0, 1, "[]", "one for each view", blur=blur, solarize=solarize)
        super().__init__()
        self.first = SimCLRViews(count=1, **{**options, "blur": blur[0], "solarize": solarize[0]})
        self.second = SimCLRViews(count=1, **{**options, "blur": blur[1], "solarize": solarize[1]})

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return the two views of uint8 images `(N, C, H, W)`, each float32 `(N, C, size, size)`."""
        return [*self.first(images, generator), *self.second(images, generator)]


class MultiCropViews(nn.Module):
    """Some large crops, and more small crops of little cost that show a part.

    Args:
        global_count: Number of large crops, at least one.
        local_count: Number of small crops.
        local_size: Height and width of the small crops in pixels; null for half of the images'.
        global_scale: Least and largest area of the large crops, as a fraction of the image's.
        local_scale: Least and largest area of the small crops.
        options: Options of all crops, as for `SimCLRViews`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        M. Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
        arXiv 2006.09882, section 3.3.

    Example:
        >>> views = MultiCropViews(local_count=3)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> [view.shape[-1] for view in views]
        [32, 32, 16, 16, 16]
    """

    def __init__(
        self,
        global_count: int = 2,
        local_count: int = 4,
        local_size: int | None = None,
        global_scale: tuple[float, float] = (0.3, 1.0),
        local_scale: tuple[float, float] = (0.1, 0.3),
        **options: Any,
    ) -> None:
        whole(1, global_count=global_count, **given(local_size=local_size))
        whole(0, local_count=local_count)
        ordered(0, 1, "(]", "give fractions of the area", global_scale=global_scale, local_scale=local_scale)
        super().__init__()
        self.global_count, self.local_size = global_count, local_size
        self.large = SimCLRViews(count=global_count, crop_scale=global_scale, **options)
        self.small = SimCLRViews(count=max(1, local_count), crop_scale=local_scale, **options)
        self.local_count = local_count

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return the large, then the small crops of uint8 images `(N, C, H, W)`, float32."""
        views: list[Tensor] = self.large(images, generator)
        if self.local_count:
            self.small.view.size = self.local_size or max(1, images.shape[-1] // 2)
            views += self.small(images, generator)
        return views
