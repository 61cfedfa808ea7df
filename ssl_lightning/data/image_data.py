"""What all sets of images have in common, wherever they come from."""

import io
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Shown
from ssl_lightning.transforms.image import CleanView, MultiCropViews, RandomView, SimCLRViews, StrongView


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

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return SimCLR's views, or multi-crop's, or mild ones."""
        return image_views(self.channels, count, mild, local_count)

    def weak_views(self) -> nn.Module | None:
        """Return a crop of most of the image; coloured ones are mirrored."""
        return weak_image_view(self.channels)

    def strong_views(self) -> nn.Module | None:
        """Return RandAugment's view."""
        return StrongView(flip=mirrored(self.channels))

    def show(self, key: str) -> Shown:
        """Return the image as a model gets it, as PNG."""
        samples, place = self.find(key)
        return Shown("image", png(samples.__getitems__([place]).input[0]))


def image_views(channels: int, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module:
    """Return random views that suit images.

    Args:
        channels: Of the images; gray ones are not mirrored for a classifier.
        count: Views of each image.
        mild: One crop of half of the image at least, coloured images mirrored, and nothing else.
        local_count: Further small crops.
    """
    if mild:
        return RandomView(crop_scale=(0.5, 1), flip=mirrored(channels), jitter=(0, 0, 0, 0), grayscale=0)
    return MultiCropViews(count, local_count) if local_count else SimCLRViews(count=count)


def weak_image_view(channels: int) -> nn.Module:
    """Return a random view that is near to images of so many channels: a crop of four fifths of the area at least."""
    return RandomView(crop_scale=(0.8, 1), flip=mirrored(channels), jitter=(0, 0, 0, 0), grayscale=0)


def mirrored(channels: int) -> float:
    """Return how often images of so many channels are mirrored: gray ones are mostly writing, which nobody mirrors."""
    return 0.5 * (channels > 1)


def png(pixels: Tensor) -> bytes:
    """Return an image `(1 or 3, H, W)`, uint8, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.cpu().permute(1, 2, 0).squeeze(2).numpy()).save(buffer, "PNG")
    return buffer.getvalue()
