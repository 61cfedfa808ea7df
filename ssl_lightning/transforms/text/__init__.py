"""Random views and clean input of text."""

from ssl_lightning.transforms.text.tokens import CLS, MASK, PAD, SEP, SPECIAL, UNK
from ssl_lightning.transforms.text.views import DropoutViews, TokenViews, text_views

__all__ = ["CLS", "MASK", "PAD", "SEP", "SPECIAL", "UNK", "DropoutViews", "TokenViews", "text_views"]
