"""The command `active`: its options, and how they make a run."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from ssl_lightning.active import AcquisitionStrategy, PoolDataModule, StoppingRule, run_rounds
from ssl_lightning.active.rounds import MakeTrainer
from ssl_lightning.data import DataModule
from ssl_lightning.labelling import LabelStore, Oracle
from ssl_lightning.labelling.records import require_class_name

PEOPLE_TEST = 0.2  # of their answers test the model, where the data have no test part


def active(
    make_model: Callable[[], L.LightningModule],
    make_trainer: MakeTrainer,
    data: DataModule,
    strategy: AcquisitionStrategy | None = None,
    rounds: int = 8,
    initial: int = 20,
    balanced: bool = False,
    steps_per_epoch: int | None = 50,
    folder: str = "runs/active",
    oracle: Oracle | None = None,
    store: str | None = None,
    stop: list[StoppingRule] | None = None,
    settings: dict[str, Any] | None = None,
    classes: list[str] | str | None = None,
    test_share: float | None = None,
    val_share: float = 0.0,
    cold_start: AcquisitionStrategy | None = None,
    wait: bool = True,
    cache: str = "auto",
) -> list[dict[str, Any]]:
    """Active learning: each round trains a fresh model on what is labelled, then labels what the strategy wants.

    Trains `rounds + 1` models; the last asks for nothing. With `--oracle Human`, people answer at a page that opens
    with the run. A run that was stopped at any instant goes on by the same command, to the same picks as one that was
    not. In the folder are `labels.sqlite` (the truth), `rounds.csv` and `queries.csv` (written from it after each
    round), `queries/*`, what was asked for as a person sees it, and the last model, `checkpoints/round_*.ckpt`.

    Args:
        make_model: Builds a fresh model; called once a round, after seeding.
        make_trainer: Builds a fresh trainer with the callbacks it is given.
        data: Its training part, less the validation part, is the pool.
        strategy: Chooses the queries; null for `ByLabels`.
        rounds: How often to ask.
        initial: Labels to begin with; of people, they are asked for.
        balanced: Draw the initial labels evenly over the classes, which needs to know them.
        steps_per_epoch: Training steps an epoch, however few the labels; null for one pass over them.
        folder: Of the run; the same folder and settings go on with it.
        oracle: Who answers: `Human`, `LabelStudio`; null for the ground truth, which simulates.
        store: URL of the label store; null for `labels.sqlite` in the folder.
        stop: When to end before all rounds: `Budget`, `TargetAccuracy`, `NoGain`, `StablePredictions`.
        settings: More settings that must not change when the run goes on.
        classes: That people can answer, beside those the data name: a list, names with commas between them, or a file
            with one on each line.
        test_share: Of each query, the fraction of answers that tests the model instead of training it, drawn at random;
            null for a fifth where people answer and the data have no labelled test part, else none.
        val_share: Of each query, the fraction of answers that validates.
        cold_start: Chooses the initial labels by the first model's embeddings; null for a random choice, but for
            `TypiClust` where people answer and the model is pretrained.
        wait: Wait for answers that come later, as from people; else stop, and go on by the same command.
        cache: Folder for the embeddings of a frozen encoder, which several runs can share; `auto` for `embeddings` in
            the run's; `off` to encode every time.

    Returns:
        One row a round, as in `rounds.csv`.
    """
    if test_share is None:
        test_share = default_test_share(oracle, data, folder, store)
    names = read_classes(classes)
    pool = PoolDataModule(data, initial, balanced, steps_per_epoch, store, oracle, None, names, test_share, val_share)
    return run_rounds(make_model, make_trainer, pool, strategy, rounds, folder, stop, settings, cold_start, wait, cache)


def default_test_share(oracle: Oracle | None, data: DataModule, folder: str, store: str | None) -> float:
    """Return the run's own share where it has begun, else what suits oracle and data."""
    if oracle is None or not oracle.external:
        return 0.0
    file = Path(folder).resolve() / "labels.sqlite"
    if store is not None or file.is_file():
        known = LabelStore(store or f"sqlite:///{file}").marked("shares")
        if known is not None:
            return float(known[0])
    return 0.0 if has_test(data) else PEOPLE_TEST


def has_test(data: DataModule) -> bool:
    """Tell whether data have a test part with labels."""
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data.test_samples is not None and bool((data.test_samples.targets >= 0).any())


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a path
        return False


def read_classes(given: list[str] | str | None) -> list[str]:
    """Return the names of classes, as the option gives them.

    Args:
        given: A list, names with commas between them, or a file with one on each line.

    Raises:
        ValueError: If one is no name, or there twice.

    Example:
        >>> read_classes("cat, dog")
        ['cat', 'dog']
    """
    if isinstance(given, str) and _is_file(given):
        try:
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"`classes={given}` is no text in UTF-8 ({error.reason}); save it as one.") from error
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise ValueError(f"`classes={given}` names no class; write one on each line.")
    elif isinstance(given, str) and "," not in given and (os.sep in given or given.endswith((".txt", ".csv"))):
        raise ValueError(f"`classes={given}` is no file; give one that exists, or the classes: `cat,dog`.")
    elif isinstance(given, str):
        names = [name.strip() for name in given.split(",")]
    else:
        names = list(given or [])
    for name in names:
        require_class_name(name)
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"`classes={given}` names `{twice[0]}` twice; name each class once.")
    return names
