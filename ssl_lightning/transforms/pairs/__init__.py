"""Random views and clean input of pairs of an image and a text."""

from ssl_lightning.transforms.pairs.pair import CleanPair, Pair
from ssl_lightning.transforms.pairs.views import PairViews, pair_views

__all__ = ["CleanPair", "Pair", "PairViews", "pair_views"]
