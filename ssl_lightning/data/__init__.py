"""Data modules: samples with keys, split by them, one `Batch` a step."""

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.bundled import Digits
from ssl_lightning.data.dataset import FromDataset
from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.images import ImageFolder
from ssl_lightning.data.samples import Batch, Samples, Shown, TensorSamples
from ssl_lightning.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST
from ssl_lightning.data.vectors import Vectors

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "STL10",
    "SVHN",
    "Batch",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "FromDataset",
    "ImageData",
    "ImageFolder",
    "Samples",
    "Shown",
    "TensorSamples",
    "Vectors",
]
