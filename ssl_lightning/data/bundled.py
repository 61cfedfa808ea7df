"""Data that comes with a dependency: no download."""

from typing import Any, Literal

import torch
from sklearn.datasets import load_digits

from ssl_lightning.data.base import ImageData, Images, TensorImages
from ssl_lightning.seeding import derive_generator


class Digits(ImageData):
    """Handwritten digits of scikit-learn: 1,797 real images of 8x8 pixels and one channel, ten classes, no download.

    Three tenths are the test part, drawn with `split_seed`.

    Args:
        kwargs: As for `ImageData`.

    Reference:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    num_classes = 10
    channels = 1
    image_size = 8
    class_names = tuple("0123456789")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def load(self, split: Literal["train", "test"]) -> Images:
        """Return the training or the test part."""
        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
        targets = torch.from_numpy(digits.target).long()
        order = torch.randperm(len(images), generator=derive_generator(self.split_seed, "digits"))
        test = round(0.3 * len(images))
        part = (order[:test] if split == "test" else order[test:]).sort().values
        return TensorImages(images[part], targets[part])
