"""Data modules: samples with keys, split by them, one `Batch` a step."""

from ssl_lightning.data.audio import AudioData, AudioFolder
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.bundled import Digits
from ssl_lightning.data.dataset import FromDataset
from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.images import ImageFolder
from ssl_lightning.data.labelled_by import LabelledBy
from ssl_lightning.data.pairs import Pairs
from ssl_lightning.data.samples import Batch, Samples, Shown, TensorSamples
from ssl_lightning.data.spoken_digits import SpokenDigits
from ssl_lightning.data.streaming import Streamed
from ssl_lightning.data.table import Table
from ssl_lightning.data.text import Texts
from ssl_lightning.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST
from ssl_lightning.data.vectors import Vectors

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "STL10",
    "SVHN",
    "AudioData",
    "AudioFolder",
    "Batch",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "FromDataset",
    "ImageData",
    "ImageFolder",
    "LabelledBy",
    "Pairs",
    "Samples",
    "Shown",
    "SpokenDigits",
    "Streamed",
    "Table",
    "TensorSamples",
    "Texts",
    "Vectors",
]
