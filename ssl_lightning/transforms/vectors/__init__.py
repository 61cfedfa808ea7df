"""Random views of vectors."""

from ssl_lightning.transforms.vectors.random_view import VectorViews

__all__ = ["VectorViews"]
