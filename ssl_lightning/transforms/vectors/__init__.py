"""Random views and the clean input of vectors, and of rows of numbers and categories."""

from ssl_lightning.transforms.vectors.corruption import SCARFViews, VIMEViews
from ssl_lightning.transforms.vectors.random_view import VectorViews, vector_views
from ssl_lightning.transforms.vectors.row import Row
from ssl_lightning.transforms.vectors.standardise import Standardise

__all__ = ["Row", "SCARFViews", "Standardise", "VIMEViews", "VectorViews", "vector_views"]
