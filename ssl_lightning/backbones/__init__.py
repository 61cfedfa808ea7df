"""Encoders: clean input in, one embedding a sample out, whose size is `feature_dim`."""

from ssl_lightning.backbones.base import AnyModule, Backbone, as_backbone, build, describe, plain
from ssl_lightning.backbones.convolutional import ConvNet, LeNet, ResNet, StridedNet
from ssl_lightning.backbones.named import Timm, Torchvision
from ssl_lightning.backbones.vectors import MLP, Flat
from ssl_lightning.backbones.vit import ViT

__all__ = [
    "MLP",
    "AnyModule",
    "Backbone",
    "ConvNet",
    "Flat",
    "LeNet",
    "ResNet",
    "StridedNet",
    "Timm",
    "Torchvision",
    "ViT",
    "as_backbone",
    "build",
    "describe",
    "plain",
]
