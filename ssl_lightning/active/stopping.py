"""When to stop asking for labels: rules that read what the rounds came to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ssl_lightning.active.explain import prepared
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.data.samples import Batch
from ssl_lightning.data.splits import chances
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.passes import passing, sweep
from ssl_lightning.engine.processes import Rows, gather, share_buffers
from ssl_lightning.engine.ranges import at_least, between, one_of, text, whole

Row = dict[str, Any]

ROUNDING = 1e-6  # share of a metric, which is of float32, that no rule can hang on


class StoppingRule(ABC):
    """Says why to stop, when a round's model is trained and before it asks; the first rule that does ends the run.

    A rule reads only the rows of `rounds.csv`, so a run that is taken up again stops where it would have.
    """

    @abstractmethod
    def reason(self, rows: list[Row], query_size: int) -> str | None:
        """Return why to stop, or null to go on.

        Args:
            rows: Of the rounds so far, as in `rounds.csv`, without test metrics; the last is the newest.
            query_size: Labels that the round would ask for.
        """

    def check(self, pool: PoolDataModule) -> None:  # noqa: B027
        """Refuse a run that the rule cannot read, before its first model is trained; by default none.

        Args:
            pool: Whose data are loaded.
        """


class Budget(StoppingRule):
    """Stops before a query that would cost more labels than there are to spend.

    Args:
        labels: Labelled samples.
        validation: Count the validation part, whose labels are paid for as well.

    Raises:
        ValueError: If `labels` is below 1, or no whole number.
    """

    def __init__(self, labels: int, validation: bool = False) -> None:
        whole(1, labels=labels)
        one_of((False, True), validation=validation)
        self.labels, self.validation = labels, validation

    def reason(self, rows: list[Row], query_size: int) -> str | None:
        """Look whether another query can be paid for."""
        paid = (rows[-1].get("answers") or rows[-1]["labelled"]) + (rows[-1]["validation"] if self.validation else 0)
        if paid + query_size <= self.labels:
            return None
        return f"{paid} of the budget of {self.labels} labels are spent, and a query is {query_size}"


class MetricRule(StoppingRule):
    """Base of the rules that read one metric.

    Args:
        metric: A column of `rounds.csv`. Not of the test part: the reported accuracy would be chosen by the stop.

    Raises:
        ValueError: If it is none.
    """

    def __init__(self, metric: str) -> None:
        text(metric=metric)
        if metric.startswith("test/"):
            raise ValueError(
                f"`metric={metric}` is of the test part, and what is reported would be chosen by the stop; give one of "
                "the validation part, such as `val/accuracy`."
            )
        self.metric = metric

    def check(self, pool: PoolDataModule) -> None:
        """Refuse a metric of validation where there is no validation part."""
        if self.metric.startswith("val/") and not pool.can_validate:
            raise ValueError(
                f"`metric={self.metric}` needs a validation part, and these data have none; give `--data.val_size`, or "
                "another metric."
            )

    def check_logged(self, metrics: Iterable[str]) -> None:
        """Refuse a metric of validation that a model does not log.

        Args:
            metrics: That it logs.
        """
        known = [name for name in metrics if name.startswith("val/")]
        if self.metric.startswith("val/") and known and self.metric not in known:
            raise ValueError(
                f"`metric={self.metric}` is logged by nobody{meant(self.metric, known)}; the model logs "
                f"{', '.join(f'`{name}`' for name in known)}."
            )

    def value(self, row: Row) -> float:
        """Return the metric in a round's row; not a number where there was nothing to validate on yet.

        Raises:
            ValueError: If it is not there.
        """
        if row.get(self.metric) is None and self.metric.startswith("val/") and not row.get("validation", 1):
            return math.nan  # nobody has answered for validation yet
        if row.get(self.metric) is None:
            known = ", ".join(f"`{key}`" for key in row if "/" in key)
            raise ValueError(f"`metric={self.metric}` is no column of the rounds; there are {known}.")
        return float(row[self.metric])


class TargetAccuracy(MetricRule):
    """Stops when a metric has reached what is needed.

    Args:
        accuracy: From 0 to 1.
        metric: A column of `rounds.csv`. Not of the test part: the reported accuracy would be chosen by the stop.

    Raises:
        ValueError: If `accuracy` is out of range; before training or when asked, if there is no such metric.
    """

    def __init__(self, accuracy: float, metric: str = "val/accuracy") -> None:
        super().__init__(metric)
        between(0, 1, "(]", accuracy=accuracy)
        self.accuracy = accuracy

    def reason(self, rows: list[Row], query_size: int) -> str | None:
        """Compare the newest value."""
        value = self.value(rows[-1])
        return f"`{self.metric}` reached {value:.4f}" if reached(value, self.accuracy) else None


class NoGain(MetricRule):
    """Stops when a metric's best has not risen enough for some rounds.

    Args:
        rounds: How many without gain.
        gain: What counts as one; 0 for any rise.
        metric: A column of `rounds.csv`, not of the test part.

    Raises:
        ValueError: If a number is out of range; before training or when asked, if there is no such metric.
    """

    def __init__(self, rounds: int = 3, gain: float = 0.002, metric: str = "val/accuracy") -> None:
        super().__init__(metric)
        whole(1, rounds=rounds)
        at_least(0, gain=gain)
        self.rounds, self.gain = rounds, gain

    def reason(self, rows: list[Row], query_size: int) -> str | None:
        """Compare the best of the last rounds with the best before them."""
        values = [value for row in rows if not math.isnan(value := self.value(row))]
        if len(values) <= self.rounds:
            return None
        before, since = max(values[: -self.rounds]), max(values[-self.rounds :])
        if since > before and reached(since, before + self.gain):  # a gain of 0 asks for any rise
            return None
        return f"`{self.metric}` has not risen by {self.gain} in {self.rounds} rounds (best {max(before, since):.4f})"


class StablePredictions(StoppingRule):
    """Stops when models of successive rounds predict the same classes on a fixed draw from the pool.

    Args:
        agreement: Cohen's kappa between successive rounds to be reached on average.
        rounds: Over how many successive pairs.

    Raises:
        ValueError: If a number is out of range.

    Reference:
        M. Bloodgood, K. Vijay-Shanker, A Method for Stopping Active Learning Based on Stabilizing Predictions and the
        Need for User-Adjustable Stopping, CoNLL 2009, arXiv 1409.5165, section 3: 0.99 over three.

    Example:
        >>> rule = StablePredictions(agreement=0.99, rounds=2)
        >>> rule.reason([{"agreement": 0.9}, {"agreement": 1.0}, {"agreement": 0.99}], query_size=10)
        'predictions are stable: kappa 0.9950 over 2 rounds'
    """

    def __init__(self, agreement: float = 0.99, rounds: int = 3) -> None:
        between(0, 1, "(]", agreement=agreement)
        whole(1, rounds=rounds)
        self.agreement, self.rounds = agreement, rounds

    def reason(self, rows: list[Row], query_size: int) -> str | None:
        """Average the newest agreements."""
        values = [row["agreement"] for row in rows if row.get("agreement") is not None][-self.rounds :]
        if len(values) < self.rounds or not reached(sum(values) / len(values), self.agreement):
            return None
        return f"predictions are stable: kappa {sum(values) / len(values):.4f} over {self.rounds} rounds"


def reached(value: float, wanted: float) -> bool:
    """Tell whether a metric is as large as what is wanted of it, up to rounding.

    Example:
        >>> reached(float(torch.tensor(0.9)), 0.9), reached(0.8999, 0.9)  # 0.8999999761581421
        (True, False)
    """
    return value >= wanted or math.isclose(value, wanted, rel_tol=ROUNDING)


def kappa(one: Tensor, other: Tensor, classes: int) -> float:
    r"""Cohen's kappa of two classifications, :math:`(p_o - p_e) / (1 - p_e)`: agreement beyond chance.

    Args:
        one: Classes, `(N,)`.
        other: Classes, `(N,)`.
        classes: Number of classes.

    Returns:
        1 for full agreement, 0 for that of chance; 1 where both say the same single class.

    Example:
        >>> kappa(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]), 2)  # observed 3/4, by chance 1/2
        0.5
    """
    observed = float((one == other).double().mean())
    shares = [torch.bincount(labels, minlength=classes).double() / len(labels) for labels in (one, other)]
    chance = float((shares[0] * shares[1]).sum())
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)


class StopSet:
    """A fixed draw from the pool, whose predicted classes are compared from round to round.

    Args:
        folder: Where predictions are kept, `stop_set/round_*.pt`, by key.
        size: Samples drawn, by their keys: the same whatever comes or goes.
    """

    def __init__(self, folder: Path, size: int = 2000) -> None:
        self.folder, self.size = folder, size

    def agreement(self, trainer: L.Trainer, module: L.LightningModule) -> float | None:
        """Predict, keep, and compare with the round before; in every process.

        Returns:
            Cohen's kappa over the samples of both rounds; null where the round before kept nothing.
        """
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        share_buffers(module)
        indices = pool.indices
        order = chances([pool.keys[place] for place in indices.tolist()], pool.seed, "stop set").argsort(stable=True)
        drawn = indices[order[: self.size].sort().values]

        def look(batch: Batch) -> Rows:
            return {"prediction": module(prepared(module, batch)).argmax(dim=1)}

        loader = pool.data.evaluation_loader(pool.samples, drawn)
        with passing(module, loader):
            rows = gather(sweep(trainer, module, loader, look))
        found: float | None = None
        if trainer.is_global_zero:  # the only one that can read what it wrote
            names = [pool.keys[place] for place in rows["index"].tolist()]
            found = self._compare(
                pool.round, dict(zip(names, rows["prediction"].tolist(), strict=True)), pool.num_classes
            )
        return trainer.strategy.broadcast(found)

    def _compare(self, number: int, now: dict[str, int], classes: int) -> float | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(now, self.folder / f"round_{number:03d}.pt")
        path = self.folder / f"round_{number - 1:03d}.pt"
        if not path.exists():
            return None
        before: dict[str, int] = torch.load(path, weights_only=True)
        both = [key for key in now if key in before]
        if not both:
            return None
        one, other = (torch.tensor([found[key] for key in both]) for found in (before, now))
        return kappa(one, other, classes)
