"""Data modules: images decoded once, split with a fixed seed, one `Batch` a step."""

from ssl_lightning.data.base import Batch, ImageData, Images, TensorImages
from ssl_lightning.data.bundled import Digits
from ssl_lightning.data.folder import ImageFolder
from ssl_lightning.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "STL10",
    "SVHN",
    "Batch",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Images",
    "TensorImages",
]
