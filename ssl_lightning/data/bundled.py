"""Data that comes with a dependency: no download."""

from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.samples import Samples, Split, TensorSamples
from ssl_lightning.data.splits import chosen_by_count


class Digits(ImageData):
    """Handwritten digits of scikit-learn: 1,797 real images of 8x8 pixels and one channel, ten classes, no download.

    Three tenths are the test part, drawn with `split_seed`. Keys are the numbers of the images.

    Args:
        kwargs: As for `ImageData`.

    Reference:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    num_classes = 10
    channels = 1
    image_size = 8
    class_names = tuple("0123456789")
    fixed: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def load(self, split: Split) -> Samples:
        """Return the training or the test part."""
        images, targets, test = _digits(self.split_seed)
        part = (test if split == "test" else ~test).nonzero()[:, 0]
        return TensorSamples(images[part], targets[part], [str(place) for place in part.tolist()])


@cache  # read once in a process: it is a file of text
def _digits(split_seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images, their classes, and which of them test."""
    from sklearn.datasets import load_digits  # here, since nothing else wants it

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    targets = torch.from_numpy(digits.target).long()
    keys = [str(number) for number in range(len(images))]
    return images, targets, chosen_by_count(keys, targets, round(0.3 * len(images)), split_seed, "test")
