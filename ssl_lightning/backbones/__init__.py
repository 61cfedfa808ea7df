"""Encoders: clean input in, one embedding a sample out, whose size is `feature_dim`."""

from ssl_lightning.backbones.audio import AudioNet, MeanFrames, SpectrogramTransformer
from ssl_lightning.backbones.base import AnyModule, Backbone, as_backbone, build, describe, plain
from ssl_lightning.backbones.convolutional import ConvNet, LeNet, ResNet, StridedNet
from ssl_lightning.backbones.hugging_face import HuggingFace
from ssl_lightning.backbones.named import Timm, Torchvision
from ssl_lightning.backbones.rows import RowNet
from ssl_lightning.backbones.text import BagOfTokens, TextTransformer
from ssl_lightning.backbones.two_streams import TwoStreams
from ssl_lightning.backbones.two_towers import TwoTowers
from ssl_lightning.backbones.vectors import MLP, Flat
from ssl_lightning.backbones.vit import ViT

__all__ = [
    "MLP",
    "AnyModule",
    "AudioNet",
    "Backbone",
    "BagOfTokens",
    "ConvNet",
    "Flat",
    "HuggingFace",
    "LeNet",
    "MeanFrames",
    "ResNet",
    "RowNet",
    "SpectrogramTransformer",
    "StridedNet",
    "TextTransformer",
    "Timm",
    "Torchvision",
    "TwoStreams",
    "TwoTowers",
    "ViT",
    "as_backbone",
    "build",
    "describe",
    "plain",
]
