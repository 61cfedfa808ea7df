"""From the cold start to uncertainty: who asks is decided by how many labels there are."""

from typing import Any

import lightning as L

from ssl_lightning.active.batches import DBAL
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.strategy import AcquisitionStrategy
from ssl_lightning.active.typicality import TypiClust
from ssl_lightning.engine.ranges import whole


class ByLabels(AcquisitionStrategy):
    r"""Asks for what is typical while there are few labels, then for what is uncertain and diverse: the default.

    With n labels that the round trained on, and C classes:

    .. math:: n < \mathrm{labels\_per\_class} \cdot C \;\Rightarrow\; \mathrm{first}, \quad \mathrm{else\ then}

    The first must be good where the model knows nothing, the second where it knows something. The two see and choose
    what each of them would alone, and the record names the one that asked.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        labels_per_class: With fewer labels than so many times the classes `first` asks, else `then`; however they are
            spread over the classes. 0 for `then` alone.
        first: Asks while there are few labels; null for `TypiClust`. Its own `query_size` and `batch_size` give way to
            these.
        then: Asks from there on; null for `DBAL`, the most uncertain by margin, one of each cluster. Its own
            `query_size` and `batch_size` give way, too.

    Raises:
        ValueError: If a number is out of its range, or a strategy is none, is not built, or learns during the fit.

    Reference:
        G. Hacohen, A. Dekel, D. Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
        ICML 2022, arXiv 2202.02794, section 2; which of the two it is, G. Hacohen and D. Weinshall, 2023, arXiv
        2306.03543, find by training with labels left out. Here it is a number of labels, measured once.

    Example:
        >>> strategy = ByLabels(labels_per_class=3)
        >>> type(strategy.first).__name__, type(strategy.then).__name__  # below three labels a class, and from there on
        ('TypiClust', 'DBAL')
    """

    def __init__(
        self,
        query_size: int = 10,
        batch_size: int | None = None,
        labels_per_class: int = 3,
        first: AcquisitionStrategy | None = None,
        then: AcquisitionStrategy | None = None,
    ) -> None:
        super().__init__(query_size, batch_size)
        whole(0, labels_per_class=labels_per_class)
        _require_part("first", first)
        _require_part("then", then)
        self.labels_per_class = labels_per_class
        self.first = TypiClust() if first is None else first
        self.then = DBAL() if then is None else then
        self._chosen = self.first

    @property
    def chooser(self) -> str:
        """Name of the one that asked last, and of this."""
        return f"{self._chosen.chooser} ({super().chooser})"

    def choose_by(self, labelled: int, num_classes: int) -> AcquisitionStrategy:
        """Return who asks, by the labels there are.

        Args:
            labelled: Samples with a label.
            num_classes: Number of classes.

        Example:
            >>> strategy = ByLabels(labels_per_class=4)
            >>> [type(strategy.choose_by(labelled, num_classes=10)).__name__ for labelled in (1, 39, 40)]
            ['TypiClust', 'TypiClust', 'DBAL']
        """
        return self.first if labelled < self.labels_per_class * num_classes else self.then

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Check for both that they can choose, long before the second does."""
        super().on_fit_start(trainer, module)
        for strategy in (self.first, self.then):
            self._share_sizes(strategy)
            strategy.on_fit_start(trainer, module)

    def query(
        self, trainer: L.Trainer, module: L.LightningModule, pool: PoolDataModule
    ) -> tuple[list[int], list[float] | None]:
        """Let one of the two choose."""
        self._chosen = self.choose_by(len(pool.labelled), pool.num_classes)
        self._share_sizes(self._chosen)
        return self._chosen.query(trainer, module, pool)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Choose, ask, commit; then both go on from their states, as the round loop lets them."""
        super().on_fit_end(trainer, module)
        self.load_state_dict(self.state_dict())

    def _share_sizes(self, strategy: AcquisitionStrategy) -> None:
        strategy.query_size, strategy.batch_size = self.query_size, self.batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return what both go on with, JSON values."""
        found = {"first": self.first.state_dict(), "then": self.then.state_dict()}
        return {name: state for name, state in found.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        for name, strategy in (("first", self.first), ("then", self.then)):
            if name in state_dict:
                strategy.load_state_dict(state_dict[name])


def _require_part(name: str, strategy: Any) -> None:
    if not isinstance(strategy, AcquisitionStrategy | None):
        raise ValueError(f"`{name}={strategy!r:.80}` must be a strategy that is built, such as `Margin()`, or null.")
    if strategy is not None and strategy.needs_fit:
        raise ValueError(
            f"`{name}={type(strategy).__name__}` learns during each fit, also while it does not ask; take it alone, or "
            "one that looks at the model."
        )
