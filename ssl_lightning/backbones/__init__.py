"""Encoders: normalised images in, one embedding a sample out, whose size is `feature_dim`."""

from ssl_lightning.backbones.base import Backbone, build, describe, plain
from ssl_lightning.backbones.convolutional import ConvNet, LeNet, ResNet, StridedNet
from ssl_lightning.backbones.named import Timm, Torchvision
from ssl_lightning.backbones.vit import ViT

__all__ = [
    "Backbone",
    "ConvNet",
    "LeNet",
    "ResNet",
    "StridedNet",
    "Timm",
    "Torchvision",
    "ViT",
    "build",
    "describe",
    "plain",
]
