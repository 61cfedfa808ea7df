"""Batched augmentations: modules that make views of a batch on the batch's device, each sample by its own draw."""

from ssl_lightning.transforms.image.clean import CleanView, normalisation
from ssl_lightning.transforms.image.random_view import RandomView, SimCLRViews, ViewParameters
from ssl_lightning.transforms.image.recipes import BYOLViews, MultiCropViews
from ssl_lightning.transforms.image.strong_view import StrongView

__all__ = [
    "BYOLViews",
    "CleanView",
    "MultiCropViews",
    "RandomView",
    "SimCLRViews",
    "StrongView",
    "ViewParameters",
    "normalisation",
]
