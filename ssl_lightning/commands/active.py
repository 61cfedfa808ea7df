"""The command `active`: its options, and how they make a run."""

from collections.abc import Callable
from typing import Any

import lightning as L

from ssl_lightning.active import AcquisitionStrategy, PoolDataModule, StoppingRule, run_rounds
from ssl_lightning.active.rounds import MakeTrainer
from ssl_lightning.data import DataModule
from ssl_lightning.labelling import Oracle


def active(
    make_model: Callable[[], L.LightningModule],
    make_trainer: MakeTrainer,
    data: DataModule,
    strategy: AcquisitionStrategy,
    rounds: int = 8,
    initial: int = 20,
    balanced: bool = False,
    steps_per_epoch: int | None = 50,
    folder: str = "runs/active",
    oracle: Oracle | None = None,
    store: str | None = None,
    stop: list[StoppingRule] | None = None,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Active learning: each round trains a fresh model on what is labelled, then labels what the strategy wants.

    Trains `rounds + 1` models; the last asks for nothing. A run that was stopped at any instant goes on by the same
    command, to the same picks as one that was not. In the folder are `labels.sqlite` (the truth), `rounds.csv` and
    `queries.csv` (written from it after each round), `queries/*`, what was asked for as a person sees it, and the last
    model, `checkpoints/round_*.ckpt`.

    Args:
        make_model: Builds a fresh model; called once a round, after seeding.
        make_trainer: Builds a fresh trainer with the callbacks it is given.
        data: Its training part, less the validation part, is the pool.
        strategy: Chooses the queries.
        rounds: How often to ask.
        initial: Labels to begin with, drawn at random.
        balanced: Draw the initial labels evenly over the classes, which needs to know them.
        steps_per_epoch: Training steps an epoch, however few the labels; null for one pass over them.
        folder: Of the run; the same folder and settings go on with it.
        oracle: Who answers; null for the ground truth.
        store: URL of the label store; null for `labels.sqlite` in the folder.
        stop: When to end before all rounds: `Budget`, `TargetAccuracy`, `NoGain`, `StablePredictions`.
        settings: More settings that must not change when the run goes on.

    Returns:
        One row a round, as in `rounds.csv`.
    """
    pool = PoolDataModule(data, initial, balanced, steps_per_epoch, store, oracle)
    return run_rounds(make_model, make_trainer, pool, strategy, rounds, folder, stop, settings)
