"""Random views and clean input of text."""

from ssl_lightning.transforms.text.tokens import CLS, MASK, PAD, SEP, SPECIAL, UNK

__all__ = ["CLS", "MASK", "PAD", "SEP", "SPECIAL", "UNK"]
