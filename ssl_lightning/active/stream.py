"""Stream sampling: samples arrive one by one, and each is asked for or let pass, at once and for good."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.data.splits import chances
from ssl_lightning.engine.processes import Rows
from ssl_lightning.engine.ranges import above, at_least, between, one_of, seeds, whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.scoring import least_confidence

Kind = Literal["fixed", "variable", "randomised", "split"]
Sample = TypeVar("Sample")


class Threshold:
    r"""Decides which samples of a stream to ask for: those of low confidence, within a budget.

    While the share spent, :math:`\hat u / w`, is below the budget, a sample is asked for if its confidence is below a
    threshold :math:`\theta`. Then :math:`\hat u \leftarrow \hat u (w - 1) / w + \mathrm{asked}`, for samples let pass,
    too. The kinds:

    - `fixed`: :math:`\theta` never changes.
    - `variable`: :math:`\theta \leftarrow \theta (1 - s)` after asking, else :math:`\theta (1 + s)`: follows a drift.
    - `randomised`: as `variable`, compared with :math:`\theta \eta`, :math:`\eta \sim N(1, 1)` each time: every sample
      has a chance.
    - `split`: a random share v of the samples is asked for at random, with the budget as probability; the others by
      `variable`.

    Args:
        kind: See above.
        budget: Share of the samples to ask for, from 0 to 1.
        start: First :math:`\theta`, a probability; above 0 where it moves.
        step: s, a fraction below 1.
        window: w, samples that the spent share looks back on.
        split: v.
        seed: Of `randomised` and `split`; a sample's draws depend on the seed and its place alone.

    Raises:
        ValueError: If a number is out of its range, or there is no such kind.

    Reference:
        I. Zliobaite, A. Bifet, B. Pfahringer, G. Holmes, Active Learning With Drifting Streaming Data, IEEE TNNLS 2014,
        algorithms 1 to 4 and Eq. 3. The threshold moves only where the budget allows a decision, as there. We keep it
        at 1 at most: beyond, it could not be told from 1 for a long while.

    Example:
        >>> threshold = Threshold("fixed", budget=0.5, start=0.9, window=4)
        >>> [threshold.ask(confidence) for confidence in (0.8, 0.95, 0.5, 0.5, 0.5)]
        [True, False, True, True, False]
    """

    def __init__(
        self,
        kind: Kind = "variable",
        budget: float = 0.1,
        start: float = 1.0,
        step: float = 0.01,
        window: int = 100,
        split: float = 0.1,
        seed: int = 0,
    ) -> None:
        one_of(get_args(Kind), kind=kind)
        between(0, 1, budget=budget, start=start, split=split)
        between(0, 1, "[)", "with 1 the threshold falls to 0 for ever", step=step)
        if kind != "fixed":
            above(0, "a threshold of 0 stays there, and nothing is asked for", start=start)
        whole(1, window=window)
        seeds(seed=seed)
        self.kind, self.budget, self.step, self.window, self.split, self.seed = kind, budget, step, window, split, seed
        self.theta, self.spent = start, 0.0
        self.asked = self.discarded = 0

    def ask(self, confidence: float) -> bool:
        """Decide on the next sample, for good.

        Args:
            confidence: The largest class probability.

        Returns:
            Whether to ask for its label; if not, it is discarded.
        """
        free = self.budget == 1 or self.spent / self.window < self.budget  # all of them are never too many
        asking = free and self._wants(confidence)
        self.spent = self.spent * (self.window - 1) / self.window + asking
        self.asked += asking
        self.discarded += not asking
        return asking

    def _wants(self, confidence: float) -> bool:
        if self.kind == "fixed":
            return confidence < self.theta
        theta = self.theta
        if self.kind in ("randomised", "split"):
            generator = derive_generator(self.seed, "stream", self.asked + self.discarded)
            if self.kind == "randomised":
                theta *= 1 + float(torch.randn((), generator=generator, dtype=torch.float64))
            else:
                chance, draw = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
                if chance < self.split:
                    return bool(draw < self.budget)
        wanted = confidence < theta
        self.theta = min(1.0, self.theta * (1 - self.step if wanted else 1 + self.step))
        return wanted

    def state_dict(self) -> dict[str, Any]:
        """Return what to go on with, JSON values."""
        return {key: getattr(self, key) for key in ("theta", "spent", "asked", "discarded")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for key, value in state.items():
            setattr(self, key, value)


class Decision(NamedTuple):
    """What became of a sample.

    Attributes:
        place: In the stream, from 0.
        sample: As it came.
        confidence: That decided.
        asked: Whether its label is wanted; else it is discarded.
    """

    place: int
    sample: Any
    confidence: float
    asked: bool


def decide(stream: Iterable[Sample], confidence: Callable[[Sample], float], threshold: Threshold) -> Iterator[Decision]:
    """Decide on each sample of a stream as it arrives: a generator, an IterableDataset, `watch` of a folder.

    Nothing is read ahead, nothing is kept.

    Args:
        stream: The samples.
        confidence: Sample -> the model's largest class probability; may change as the model learns.
        threshold: Decides, and counts what was asked for and what was discarded.

    Yields:
        One decision a sample.

    Example:
        >>> found = decide([0.3, 0.99, 0.6], confidence=float, threshold=Threshold("fixed", budget=1, start=0.9))
        >>> [decision.asked for decision in found]
        [True, False, True]
    """
    for place, sample in enumerate(stream):
        value = confidence(sample)
        yield Decision(place, sample, value, threshold.ask(value))


def watch(
    folder: str | Path,
    endings: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp"),
    poll: float = 0.5,
    idle: float = 60.0,
) -> Iterator[Path]:
    """Yield each file of a folder once, as it arrives.

    A file counts as arrived when its size has not changed between two looks, so that none is read half written.

    Args:
        folder: To be watched, without its sub-folders.
        endings: Of file names, in lower case.
        poll: Seconds between looks.
        idle: End after so many seconds without a new file; infinite for never.

    Yields:
        Paths, by name among those found at one look.

    Raises:
        ValueError: If there is no such folder, or a number is out of its range.
    """
    above(0, poll=poll)
    if idle != math.inf:
        at_least(0, idle=idle)
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"`folder={folder}` is no folder; make it first, then let files arrive in it.")
    seen: set[Path] = set()
    sizes: dict[Path, int] = {}
    last = time.monotonic()
    while time.monotonic() - last < idle:
        found = {
            path: path.stat().st_size for path in root.iterdir() if path.suffix.lower() in endings and path not in seen
        }
        for path in sorted(path for path, size in found.items() if size and sizes.get(path) == size):
            seen.add(path)
            last = time.monotonic()
            yield path
        sizes = found
        time.sleep(poll)


class Stream(AcquisitionStrategy):
    r"""Lets the pool pass as a stream, and decides on each sample as it arrives, once: asked for, or discarded.

    Samples arrive in an order that their keys and the run's seed fix: one that is added later and whose turn is over
    has been let pass. Each round goes on where the last stopped, with its new model, until `query_size` labels are
    asked for; what was let pass is never looked at again. Confidence is the largest class probability. If the stream
    ends first, fewer are asked for. Logs `active/stream_asked` and `active/stream_discarded`, over all rounds. For data
    that really arrive one by one: `decide`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        kind: Of the `Threshold`: `fixed`, `variable`, `randomised` or `split`.
        budget: Share of the arriving samples to ask for.
        start: First threshold, a probability; above 0 where it moves.
        step: Fraction by which the threshold moves, below 1.
        window: Samples that the spent share looks back on.
        split: Share of random decisions, for `split`.

    Raises:
        ValueError: If a number is out of its range, or there is no such kind.

    Reference:
        I. Zliobaite, A. Bifet, B. Pfahringer, G. Holmes, Active Learning With Drifting Streaming Data, IEEE TNNLS 2014,
        algorithms 1 to 4.

    Example:
        >>> strategy = Stream(query_size=5, kind="fixed", budget=0.5, start=0.9)
        >>> threshold = Threshold(**strategy.options)
        >>> [threshold.ask(confidence) for confidence in (0.8, 0.95)]  # unsure, and sure enough to be let pass
        [True, False]
    """

    def __init__(
        self,
        query_size: int = 10,
        batch_size: int | None = None,
        kind: Kind = "variable",
        budget: float = 0.1,
        start: float = 1.0,
        step: float = 0.01,
        window: int = 100,
        split: float = 0.1,
    ) -> None:
        super().__init__(query_size, batch_size)
        self.options = {
            "kind": kind, "budget": budget, "start": start, "step": step, "window": window, "split": split
        }  # fmt: skip
        Threshold(**self.options)  # type: ignore[arg-type]  # refuses what is out of range
        self._state: dict[str, Any] = {}
        self._next: dict[str, Any] = {}
        self._order = torch.empty(0, dtype=torch.int64)
        self._turns = torch.empty(0, dtype=torch.float64)
        self._seed_of_run = 0

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Fix the order of arrival, too."""
        super().on_fit_start(trainer, module)
        self._prepare(trainer.datamodule)  # type: ignore[attr-defined]

    def _prepare(self, pool: PoolDataModule) -> None:
        indices = pool.indices
        self._seed_of_run = pool.seed
        turns = chances([pool.keys[place] for place in indices.tolist()], pool.seed, "stream")
        arrival = turns.argsort(stable=True)
        self._order, self._turns = indices[arrival], turns[arrival]
        if pool.round <= 0 and not any(query.round >= 0 for query in pool.queries):
            self._state = {}  # the stream begins

    def rows(self, predictions: Predictions) -> Rows:
        """Return what is missing to certainty, `(N,)`."""
        return {"score": least_confidence(predictions.log_probabilities)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Let the samples arrive, from where the last round stopped."""
        threshold = Threshold(seed=self._seed_of_run, **self.options)  # type: ignore[arg-type]
        threshold.load_state_dict(self._state.get("threshold", {}))
        position = {index: place for place, index in enumerate(rows["index"].tolist())}
        scores = torch.round(rows["score"].double(), decimals=6).tolist()
        chosen: list[int] = []
        place = int((self._turns <= self._state.get("turn", -1.0)).sum())
        while len(chosen) < self.query_size and place < len(self._order):
            row = position.get(int(self._order[place]))
            place += 1
            if row is not None and threshold.ask(1 - scores[row]):  # initial labels do not arrive
                chosen.append(row)
        turn = float(self._turns[place - 1]) if place else -1.0
        self._next = {"turn": turn, "threshold": threshold.state_dict()}
        if len(chosen) < self.query_size:
            rank_zero_warn(
                f"`Stream` has ended: {len(chosen)} of {self.query_size} labels asked for in this round; of all "
                f"samples {threshold.asked} were asked for, {threshold.discarded} discarded. Raise `budget`, or stop."
            )
        return torch.tensor(chosen, dtype=torch.int64)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Choose, ask, commit together with where the stream is."""
        self._next = self._state
        super().on_fit_end(trainer, module)
        self._state = self._next
        counts = self._state.get("threshold", {})
        if trainer.is_global_zero and counts:
            numbers = {f"active/stream_{key}": float(counts[key]) for key in ("asked", "discarded")}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is and the threshold's state, JSON values."""
        return dict(self._next)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._state = self._next = dict(state_dict)
