"""Active learning: the pool, the strategies, the round loop."""

from ssl_lightning.active.batches import BADGE, DBAL, BatchBALD
from ssl_lightning.active.by_labels import ByLabels
from ssl_lightning.active.cases import PoolCases
from ssl_lightning.active.classical import FarthestFirst, KMedoids, Random
from ssl_lightning.active.disagreement import BALD, EPIG, HighestDisagreement, PowerBALD, VoteEntropy
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.rounds import run_rounds
from ssl_lightning.active.stopping import Budget, NoGain, StablePredictions, StoppingRule, TargetAccuracy
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.active.stream import Stream, Threshold, decide, watch
from ssl_lightning.active.typicality import ProbCover, TypiClust
from ssl_lightning.active.uncertainty import Entropy, LeastConfidence, Margin, Ratio
from ssl_lightning.active.vaal import VAAL

__all__ = [
    "BADGE",
    "BALD",
    "DBAL",
    "EPIG",
    "VAAL",
    "AcquisitionStrategy",
    "BatchBALD",
    "Budget",
    "ByLabels",
    "Entropy",
    "FarthestFirst",
    "HighestDisagreement",
    "KMedoids",
    "LeastConfidence",
    "Margin",
    "NoGain",
    "PoolCases",
    "PoolDataModule",
    "PowerBALD",
    "Predictions",
    "ProbCover",
    "Random",
    "Ratio",
    "StablePredictions",
    "StoppingRule",
    "Stream",
    "TargetAccuracy",
    "Threshold",
    "TypiClust",
    "VoteEntropy",
    "decide",
    "run_rounds",
    "watch",
]
