"""Random views of vectors."""

from ssl_lightning.transforms.vectors.random_view import VectorViews, vector_views

__all__ = ["VectorViews", "vector_views"]
