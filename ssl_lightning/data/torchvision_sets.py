"""torchvision's image data sets by name, decoded once into one uint8 tensor."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision

from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.samples import Samples, Split, TensorSamples

DIGITS = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


class TorchvisionImages(ImageData):
    """Base of the data sets of torchvision: reads `root` as torchvision lays it out, downloads only when told to.

    Args:
        root: Folder of torchvision's data sets.
        download: Fetch the data if it is not there; needs a network.
        kwargs: As for `ImageData`.
    """

    fixed: ClassVar[bool] = True
    split_names: ClassVar[dict[str, str] | None] = None  # torchvision's names of our splits; None: it takes `train=`

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.download = download

    def prepare_data(self) -> None:
        """Download, in one process, if told to."""
        if self.download:
            for split in ("train", "test"):
                self._open(split)

    def _open(self, split: str) -> Any:
        which: dict[str, Any] = (
            {"train": split == "train"} if self.split_names is None else {"split": self.split_names[split]}
        )
        # a subclass keeps the set of its base
        name = next(kind.__name__ for kind in type(self).__mro__ if hasattr(torchvision.datasets, kind.__name__))
        try:
            return getattr(torchvision.datasets, name)(self.root, download=self.download, **which)
        except RuntimeError as error:  # torchvision's "Dataset not found or corrupted"
            raise ValueError(
                f"`root={self.root}` holds no {type(self).__name__} ({Path(self.root).resolve()}); put torchvision's "
                "files there, or add `--data.download true` where there is a network."
            ) from error

    def load(self, split: Split) -> Samples:
        """Decode one part; keys are the part and the number in it."""
        raw = self._open(split)
        images = torch.as_tensor(np.asarray(raw.data))
        if images.ndim == 3:  # gray: (N, H, W)
            images = images.unsqueeze(1)
        elif images.shape[1] != 3:  # CIFAR: (N, H, W, 3)
            images = images.permute(0, 3, 1, 2)
        targets = torch.as_tensor(np.asarray(raw.targets if hasattr(raw, "targets") else raw.labels)).long()
        return TensorSamples(images.contiguous(), targets, [f"{split}/{number}" for number in range(len(targets))])


class MNIST(TorchvisionImages):
    """Handwritten digits, 28x28 gray, 60,000 and 10,000 (LeCun et al. 1998)."""

    num_classes, channels, image_size, class_names = 10, 1, 28, DIGITS


class FashionMNIST(TorchvisionImages):
    """Pictures of clothing, 28x28 gray, 60,000 and 10,000 (Xiao et al. 2017, arXiv 1708.07747)."""

    num_classes, channels, image_size = 10, 1, 28
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


class CIFAR10(TorchvisionImages):
    """Tiny colour photographs, 32x32, 50,000 and 10,000, ten classes (Krizhevsky 2009)."""

    num_classes, channels, image_size, class_names = 10, 3, 32, CIFAR10_CLASSES


class CIFAR100(TorchvisionImages):
    """Tiny colour photographs, 32x32, 50,000 and 10,000, a hundred classes (Krizhevsky 2009)."""

    num_classes, channels, image_size = 100, 3, 32
    class_names = CIFAR100_CLASSES


class SVHN(TorchvisionImages):
    """House numbers from the street, 32x32 colour, 73,257 and 26,032 (Netzer et al. 2011)."""

    num_classes, channels, image_size, class_names = 10, 3, 32, DIGITS
    split_names: ClassVar[dict[str, str] | None] = {"train": "train", "test": "test"}


class STL10(TorchvisionImages):
    """Colour photographs, 96x96: 5,000 labelled and 100,000 unlabelled in one training part, 8,000 for test.

    Reference:
        A. Coates, H. Lee, A. Ng, An Analysis of Single Layer Networks in Unsupervised Feature Learning, AISTATS 2011.
    """

    num_classes, channels, image_size = 10, 3, 96
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    split_names: ClassVar[dict[str, str] | None] = {"train": "train+unlabeled", "test": "test"}
