"""Where labels come from and where they are kept."""

from ssl_lightning.labelling.oracle import GroundTruth, Oracle
from ssl_lightning.labelling.store import INITIAL, LabelStore, Query, require_text

__all__ = ["INITIAL", "GroundTruth", "LabelStore", "Oracle", "Query", "require_text"]
