"""How good an embedding is: pure functions, and thin callbacks over them."""

from ssl_lightning.evaluation.collapse import CollapseMonitor, spread
from ssl_lightning.evaluation.embedding_map import embedding_map
from ssl_lightning.evaluation.knn import KNN, knn_accuracy
from ssl_lightning.evaluation.linear_probe import linear_probe
from ssl_lightning.evaluation.online_probe import OnlineLinearProbe
from ssl_lightning.evaluation.pictures import Pictures
from ssl_lightning.evaluation.rank import effective_rank, lidar, rankme

__all__ = [
    "KNN",
    "CollapseMonitor",
    "OnlineLinearProbe",
    "Pictures",
    "effective_rank",
    "embedding_map",
    "knn_accuracy",
    "lidar",
    "linear_probe",
    "rankme",
    "spread",
]
