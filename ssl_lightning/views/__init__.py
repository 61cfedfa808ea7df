"""Batched augmentations: modules that make views of a batch on the batch's device, each sample by its own draw."""

from ssl_lightning.views.clean import CleanView, clean_view, normalisation
from ssl_lightning.views.image import RandomView, SimCLRViews, ViewParameters
from ssl_lightning.views.recipes import BYOLViews, MultiCropViews

__all__ = [
    "BYOLViews",
    "CleanView",
    "MultiCropViews",
    "RandomView",
    "SimCLRViews",
    "ViewParameters",
    "clean_view",
    "normalisation",
]
