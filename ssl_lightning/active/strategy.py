"""The base of every acquisition strategy: a callback that, at the end of fit, asks for the labels worth most."""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.active.explain import explain, prepared
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.progress import track
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.passes import passing, sweep
from ssl_lightning.engine.processes import Rows, gather, share_buffers
from ssl_lightning.engine.ranges import given, whole
from ssl_lightning.engine.seeding import derive_generator, derive_seed
from ssl_lightning.functional.selection import top


class Predictions:
    """What a model says of a batch of the pool, computed when asked for, each once.

    Args:
        module: In evaluation mode: `module(input)` are logits.
        input: Clean, as the module's `prepare` makes it, of N samples.
        seed: Of what is drawn, such as dropout masks: the same for every batch and process of a round.
    """

    def __init__(self, module: L.LightningModule, input: Any, seed: int) -> None:
        self.module, self.input, self.seed = module, input, seed

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Log of the class probabilities, `(N, classes)`, float32."""
        return torch.log_softmax(self.module(self.input).float(), dim=-1)

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings, `(N, dim)`, float32."""
        return self._need("embed")(self.input).float()  # type: ignore[no-any-return]

    @property
    def points(self) -> Tensor:
        """The clean input itself as vectors, `(N, d)`, float32.

        Raises:
            ValueError: If it is more than one tensor, or whole numbers, between which no distance is defined.
        """
        if not isinstance(self.input, Tensor) or not self.input.is_floating_point():
            raise ValueError(
                f"`space=input` needs inputs that are one tensor of numbers; these are {type(self.input).__name__}, "
                "which have no distance. Take `space=embedding`."
            )
        return self.input.flatten(1).float()

    def samples(self, members: int | None = None) -> Tensor:
        """Log probabilities under draws of the weights, `(members, N, classes)`, float32.

        Args:
            members: Number of draws, each the same for all samples; null for the model's own number.
        """
        return torch.log_softmax(self._need("sample_logits")(self.input, members, self.seed).float(), dim=-1)

    def _need(self, name: str) -> Any:
        if not hasattr(self.module, name):
            raise ValueError(
                f"`{type(self.module).__name__}` has no method `{name}`, which this strategy needs; `Classifier` "
                f"has it."
            )
        return getattr(self.module, name)


class AcquisitionStrategy(Callback, ABC):
    """Chooses which unlabelled samples to label, once, at the end of fit.

    A subclass gives `score`, a number a sample of which the largest are chosen; or `rows` and `select`, to keep more
    than a number and to choose a batch as a whole. The same seed and weights give the same picks for any number of
    processes and any batch size. The model is left as it was: weights, batch-norm statistics, mode and random state.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.
    """

    uses_model: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = False  # it learns beside the model, and cannot choose without a fit
    sees_asked: ClassVar[bool] = False  # the pass covers what was asked before, too, and `rows["asked"]` tells which

    def __init__(self, query_size: int = 10, batch_size: int | None = None) -> None:
        whole(1, query_size=query_size, **given(batch_size=batch_size))
        self.query_size, self.batch_size = query_size, batch_size
        self._first_step = 0

    @property
    def chooser(self) -> str:
        """Name of who chooses, for the record."""
        return type(self).__name__

    def score(self, predictions: Predictions) -> Tensor:
        """Return one number a sample, `(N,)`; larger means: label first."""
        raise TypeError(f"`{type(self).__name__}` must define `score`, or `rows` and `select`.")

    def rows(self, predictions: Predictions) -> Rows:
        """Return what to keep of each sample for `select`, named tensors `(N, ...)`."""
        return {"score": self.score(predictions)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Choose a query from all processes' rows.

        Args:
            rows: `index` and what `rows` returned, by index, `(pool, ...)`; the same in every process. With
                `sees_asked`, also the samples asked before, told by the boolean `asked`, which must not be chosen.
            generator: For random choices, the same in every process.

        Returns:
            Positions in the rows, best first, `(query_size,)`.
        """
        return top(rows["score"], rows["index"], self.query_size)

    def local(self, rows: Rows) -> Rows:
        """Reduce this process's rows, some or all: by score, only the best can be chosen.

        Called during the pass as well, so that memory is bounded by what is kept, and before all processes' rows are
        joined.
        """
        if type(self).select is not AcquisitionStrategy.select or "score" not in rows:
            return rows
        keep = top(rows["score"], rows["index"], min(self.query_size, len(rows["index"])))
        return {key: value[keep] for key, value in rows.items()}

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remember where the fit began, and check that it trains and that the query can be served."""
        require_steps(trainer)
        self._first_step = trainer.global_step
        if not isinstance(trainer.datamodule, PoolDataModule):  # type: ignore[attr-defined]
            raise ValueError(f"`{type(self).__name__}` needs a pool: pass `datamodule=PoolDataModule(data)` to `fit`.")
        self._check(trainer.datamodule)  # type: ignore[attr-defined]

    def _check(self, pool: PoolDataModule) -> None:
        left = len(pool.unlabelled)
        if pool.to_choose(self.query_size) > left:
            raise ValueError(
                f"`query_size={self.query_size}` exceeds the {left} unlabelled samples left in round {pool.round}; "
                "lower `query_size`, or stop earlier."
            )

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Make the model the same in every process."""
        share_buffers(module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Pass over the pool, choose, ask, commit."""
        if trainer.global_step == self._first_step:
            rank_zero_warn(
                f"`{type(self).__name__}` asks for nothing: this fit took no step. Use a fresh Trainer each round."
            )
            return
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if pool.may_ask is not None and not pool.may_ask(trainer, module):
            return  # a stopping rule forbids it
        self._check(pool)
        with self._asking(pool.to_choose(self.query_size)):
            indices, scores = self.query(trainer, module, pool)
        explained = explain(trainer, module, pool, indices) if pool.oracle.external else None
        state = self.state_dict()
        pool.acquire(self.chooser, self._seed(pool), indices, scores, state, explained, self.query_size)

    @contextmanager
    def _asking(self, count: int) -> Iterator[None]:
        """Choose so many, where a part of the query tests and validates."""
        whole_size, self.query_size = self.query_size, count
        try:
            yield
        finally:
            self.query_size = whole_size

    def _seed(self, pool: PoolDataModule) -> int:
        return derive_seed(pool.seed, "acquisition", pool.round)

    def query(
        self, trainer: L.Trainer, module: L.LightningModule, pool: PoolDataModule
    ) -> tuple[list[int], list[float] | None]:
        """Choose a query, without asking for it.

        Args:
            trainer: That fitted the module.
            module: The model.
            pool: To choose from.

        Returns:
            Positions of samples in the order of choice and their scores if there are any, the same in every process.
        """
        seed = self._seed(pool)
        if self.uses_model:

            def look(batch: Batch) -> Rows:
                rows = self.rows(Predictions(module, prepared(module, batch), derive_seed(seed, "masks")))
                require_rows(rows, len(batch.index), type(self).__name__)
                return rows

            loader = pool.pool_dataloader(self.batch_size, self.sees_asked)
            with passing(module, loader):
                share = sweep(trainer, module, track(trainer, loader, "pool"), look, self.local)
            rows = gather(self.local(share))
            if self.sees_asked:
                rows["asked"] = ~torch.isin(rows["index"], pool.unlabelled)
        else:
            rows = {"index": pool.unlabelled}
        chosen = self.select(rows, derive_generator(seed, "select"))
        scores = rows["score"][chosen].tolist() if "score" in rows else None
        return rows["index"][chosen].tolist(), scores


def choose(
    strategy: AcquisitionStrategy, count: int, trainer: L.Trainer, module: L.LightningModule, pool: PoolDataModule
) -> list[int]:
    """Let a strategy choose so many samples by a model as it is, without asking for them.

    Args:
        strategy: That chooses.
        count: How many.
        trainer: Says device and precision; it need not have fitted.
        module: The model.
        pool: To choose from.

    Returns:
        Positions of samples in the order of choice.
    """
    with strategy._asking(count):
        return strategy.query(trainer, module, pool)[0]


def require_steps(trainer: L.Trainer) -> None:
    """Check that a fit is to take steps: who asks by a model must train it first.

    Raises:
        ValueError: If a switch of the trainer says that it takes none.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if getattr(trainer, name) == 0:
            raise ValueError(
                f"`trainer.{name}=0` trains nothing, and a round asks by the model that it has trained; give at least "
                "1, or leave it out."
            )


def require_rows(rows: Rows, count: int, who: str) -> None:
    """Check what a strategy made of a batch.

    Raises:
        ValueError: If it is not one row a sample, or a score is not one number.
    """
    for name, value in rows.items():
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != count:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"`{who}` made `{name}` of shape {shape} of {count} samples; required is one row a sample."
            )
    score = rows.get("score")
    if score is not None and score.ndim != 1:
        raise ValueError(
            f"`{who}.score` returned shape {tuple(score.shape)} for {count} samples; required is one number a sample, "
            f"`({count},)`: sum or average over the other dimensions."
        )
