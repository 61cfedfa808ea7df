"""Active learning: the pool, the strategies, the round loop."""

from ssl_lightning.active.classical import Random
from ssl_lightning.active.disagreement import BALD
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.rounds import run_rounds
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.active.uncertainty import Entropy

__all__ = ["BALD", "AcquisitionStrategy", "Entropy", "PoolDataModule", "Predictions", "Random", "run_rounds"]
