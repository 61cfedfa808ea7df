"""What all sets of images have in common, wherever they come from."""

import io
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Shown
from ssl_lightning.transforms.image import CleanView, RandomView, SimCLRViews


class ImageData(DataModule):
    """Base of the data modules of images: samples are `(C, S, S)`, uint8.

    Args:
        kwargs: As for `DataModule`.
    """

    channels: int
    image_size: int
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "channels", "image_size")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def clean(self) -> nn.Module:
        """Return pixels to float, with the default normalisation."""
        return CleanView()

    def views(self, count: int = 2, mild: bool = False) -> nn.Module | None:
        """Return SimCLR's views, or crops of half of the image at least, colours mirrored left to right."""
        if not mild:
            return SimCLRViews(count=count)
        flip = 0.5 * (self.channels > 1)  # what is gray is mostly writing
        return RandomView(crop_scale=(0.5, 1), flip=flip, jitter=(0, 0, 0, 0), grayscale=0)

    def show(self, key: str) -> Shown:
        """Return the image as a model gets it, as PNG."""
        samples, place = self.find(key)
        return Shown("image", png(samples.__getitems__([place]).input[0]))


def png(pixels: Tensor) -> bytes:
    """Return an image `(1 or 3, H, W)`, uint8, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.cpu().permute(1, 2, 0).squeeze(2).numpy()).save(buffer, "PNG")
    return buffer.getvalue()
