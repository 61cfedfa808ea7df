"""Models that learn from labels, alone or beside unlabelled samples; several that can disagree; dropout draws."""

from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.supervised.ensemble import Ensemble, Snapshots
from ssl_lightning.supervised.fixmatch import FixMatch
from ssl_lightning.supervised.freematch import FreeMatch
from ssl_lightning.supervised.mean_teacher import MeanTeacher
from ssl_lightning.supervised.pseudo_label import PseudoLabel
from ssl_lightning.supervised.recipe import Recipe
from ssl_lightning.supervised.semi_supervised import Guess, SemiSupervised

__all__ = [
    "Classifier",
    "Ensemble",
    "FixMatch",
    "FreeMatch",
    "Guess",
    "MeanTeacher",
    "PseudoLabel",
    "Recipe",
    "SemiSupervised",
    "Snapshots",
]
