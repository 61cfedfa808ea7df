"""Waiting for answers that come later, from people or other programs; resumed as often as one likes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.progress import RoundsProgress
from ssl_lightning.labelling import LabelStore

LOOK = 0.5  # seconds between two looks at the store
SOON = 60  # seconds in which the first process begins a round that waits for nobody


def wait_for_answers(pool: PoolDataModule, number: int, progress: RoundsProgress, patient: bool) -> bool:
    """Wait, in the first process, until the last query is answered, or somebody goes on with what there is.

    Args:
        pool: Whose queries.
        number: Of the round that is to be trained on the answers.
        progress: Shows how far they are.
        patient: Whether to wait; else to look once.

    Returns:
        Whether the round can begin.
    """
    store, told = pool.store, ""
    if number in (rounds := store.rounds()) and rounds[number].upto is not None:
        return True  # it had begun
    while True:
        _collect(pool)
        last = max((found for found in store.rounds() if found < number), default=number)
        counts = store.counts(last)
        done = not counts["pending"] or store.rounds()[last].closed
        if done and pool.oracle.external:
            pool.data.add_classes(pool.known_classes())
        if done and (not pool.oracle.external or pool.trainable()):
            progress.answered(None, 0)
            return True
        asked = sum(counts.values())
        address = pool.oracle.address
        note = f"label at {address}" if address else "answers are pending"
        if done:
            note = f"no answer names the class of a sample to train on, and training needs one; correct some. {note}"
        if not patient:
            return False
        if note != told:
            progress.say(f"asked for {asked} labels: {note}")
            told = note
        progress.answered(asked - counts["pending"], asked)
        time.sleep(LOOK)


def _collect(pool: PoolDataModule) -> None:
    """Keep the answers that have come to the oracle since; one that cannot be kept is told and passed over."""
    pending = [query for query in pool.store.queries() if query.kind is None] if pool.store.counts()["pending"] else []
    for answer in pool.oracle.collect(pending, pool.data):
        try:
            pool.store.record([answer])
        except ValueError as error:
            rank_zero_warn(str(error))


def wait_for_first(store: LabelStore, number: int, patient: bool) -> bool:
    """Wait, in the other processes, until the first one begins a round: by the store, for a collective would time out.

    Args:
        store: That the first process writes, in a folder that all processes see.
        number: Of the round.
        patient: Whether the first one waits for people; else it has begun soon, or given up.

    Returns:
        Whether the round begins.
    """
    parent, until = os.getppid(), time.monotonic() + SOON
    while (found := store.rounds().get(number)) is None or found.upto is None:
        if os.getppid() != parent:
            raise SystemExit("the first process of the run has ended")
        if not patient and time.monotonic() > until:
            return False
        time.sleep(LOOK)
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second run works in it; given up when the process ends, however it does.

    Args:
        folder: Of the run.

    Raises:
        ValueError: If another process holds it.
    """
    # not `flock`: workers that are forked would hold it, too
    with (folder / ".running").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ValueError(
                f"`folder={folder}` is in use by the run of process {file.read().strip() or 'unknown'}; let that one "
                "end, or give another folder."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
