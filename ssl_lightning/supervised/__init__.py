"""Models that learn from labels: one classifier, several that can disagree, and draws of one by dropout."""

from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.supervised.ensemble import Ensemble, Snapshots

__all__ = ["Classifier", "Ensemble", "Snapshots"]
