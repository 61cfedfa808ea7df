"""How good an embedding is: pure functions, and thin callbacks over them."""

from ssl_lightning.evaluation.collapse import CollapseMonitor, effective_rank, spread
from ssl_lightning.evaluation.knn import KNN, knn_accuracy
from ssl_lightning.evaluation.probe import OnlineLinearProbe

__all__ = ["KNN", "CollapseMonitor", "OnlineLinearProbe", "effective_rank", "knn_accuracy", "spread"]
