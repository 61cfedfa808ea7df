"""The pool: which training samples are labelled, pending or unlabelled, over any of our data modules."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.data.base import Batch, ImageData
from ssl_lightning.labelling import INITIAL, GroundTruth, LabelStore, Oracle, Query
from ssl_lightning.seeding import base_seed, derive_generator, derive_seed


class PoolImages(Dataset[Batch]):
    """A view of a data set that shows only the labels that were given; never a copy.

    Args:
        images: The data set.
        labels: `(N,)`, -1 where no label was given.
    """

    def __init__(self, images: Any, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index]._replace(target=self.labels[index])  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.images.__getitems__(indices)._replace(target=self.labels[indices])  # type: ignore[no-any-return]


class PoolDataModule(L.LightningDataModule):
    """Labelled, pending and unlabelled training samples of a data module.

    Every training sample is one of the three. The truth is in the label store; process 0 alone writes it, and `setup`
    and every acquisition give all processes the same view. Training batches hold labelled samples only, an epoch being
    a fixed number of steps, so that ten labels and ten thousand train alike.

    Args:
        data: Any of our data modules; its validation part is no part of the pool.
        initial: Labels to begin with, drawn at random; more only if the store is empty.
        balanced: Draw the initial labels evenly over the classes, which needs to know them: a common but optimistic
            set-up.
        steps_per_epoch: Training steps an epoch; null for one pass over the labelled samples.
        store: Where labels are kept; null for a database in memory.
        oracle: Who answers queries; null for the ground truth.
        seed: Of the initial draw; null for the run's.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        data: ImageData,
        initial: int = 20,
        balanced: bool = False,
        steps_per_epoch: int | None = 50,
        store: LabelStore | None = None,
        oracle: Oracle | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if initial < 1:
            raise ValueError(f"`initial={initial}` must be at least 1 label: the first model must train on something.")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"`steps_per_epoch={steps_per_epoch}` must be at least 1, or null.")
        self.data, self.initial, self.balanced, self.steps_per_epoch = data, initial, balanced, steps_per_epoch
        self.store, self.oracle = store or LabelStore(), oracle or GroundTruth()
        self.seed = base_seed() if seed is None else seed
        self.round = 0
        self.queries: list[Query] = []

    @property
    def num_classes(self) -> int:
        """Number of classes of the data."""
        return self.data.num_classes

    def prepare_data(self) -> None:
        """Let the data prepare, in one process."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Load the data, ask for the initial labels if there are none, and give every process the same view."""
        self.data.trainer = self.trainer
        self.data.setup(stage)
        assert self.data.train_images is not None
        if self._is_zero and not self.store.queries():
            self._ask_initial()
        self.synchronise()

    @property
    def _is_zero(self) -> bool:
        return self.trainer is None or self.trainer.is_global_zero

    def synchronise(self) -> None:
        """Read the store in process 0 and give the others what it holds."""
        queries = self.store.queries() if self._is_zero else []
        if self.trainer is not None:
            queries = self.trainer.strategy.broadcast(queries)
        assert self.data.train_images is not None
        total = len(self.data.train_images)
        for query in queries:
            if query.index >= total or (query.label is not None and not 0 <= query.label < self.num_classes):
                raise ValueError(
                    f"the label store `{self.store.url}` gives sample {query.index} the label {query.label}, but "
                    f"the data have "
                    f"{total} training samples and {self.num_classes} classes; it belongs to other data: use "
                    f"another `folder`."
                )
        self.queries = queries

    def _ask_initial(self) -> None:
        candidates = self.data.train_indices
        if self.initial > len(candidates):
            raise ValueError(f"`initial={self.initial}` exceeds the {len(candidates)} samples of the pool; lower it.")
        seed = derive_seed(self.seed, "initial")
        order = candidates[torch.randperm(len(candidates), generator=derive_generator(seed))]
        if self.balanced:
            assert self.data.train_images is not None
            targets = self.data.train_images.targets[order]
            turn = torch.zeros(len(order), dtype=torch.int64)  # how many of its class came before each
            for target in targets.unique().tolist():  # type: ignore[no-untyped-call]
                turn[targets == target] = torch.arange(int((targets == target).sum()))
            order = order[turn.argsort(stable=True)]
        self._commit(INITIAL, "initial", seed, order[: self.initial].tolist(), None)

    def _commit(
        self,
        number: int,
        strategy: str,
        seed: int,
        indices: list[int],
        scores: list[float] | None,
        state: dict[str, Any] | None = None,
    ) -> None:
        answers = self.oracle.answer(indices, self.data)
        for index, answer in zip(indices, answers, strict=True):
            if answer is not None and not 0 <= answer < self.num_classes:
                raise ValueError(
                    f"`{type(self.oracle).__name__}` answered {answer} for sample {index}; a label must be from 0 to "
                    f"{self.num_classes - 1}."
                )
        queries = [
            Query(i, a, None if scores is None else scores[k])
            for k, (i, a) in enumerate(zip(indices, answers, strict=True))
        ]
        self.store.add_round(number, strategy, seed, queries, self.oracle.name, state)

    def acquire(
        self,
        strategy: str,
        seed: int,
        indices: Sequence[int],
        scores: Sequence[float] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Ask the oracle for labels and commit what it says, at once; in every process.

        Args:
            strategy: Name for the record.
            seed: Of the strategy's draws, for the record.
            indices: Samples in the order of their choice, the same in every process.
            scores: Of these samples.
            state: Of the strategy, JSON values, committed with the labels.

        Raises:
            ValueError: If a sample is not unlabelled, or an answer is no class of the data.
        """
        unlabelled = set(self.unlabelled.tolist())
        wrong = [index for index in indices if index not in unlabelled]
        if wrong or len(set(indices)) < len(indices):
            raise ValueError(
                f"`{strategy}` chose samples that are not unlabelled, or one twice: {wrong or sorted(indices)}."
            )
        if self._is_zero:
            numbers = None if scores is None else list(scores)
            self._commit(self.round, strategy, seed, list(indices), numbers, state)
        self.synchronise()

    def _before(self, query: Query) -> bool:
        return query.round < self.round

    @property
    def labelled(self) -> Tensor:
        """Samples with a label that was there when this round began, in the order they were asked, `(n,)`."""
        return torch.tensor(
            [q.index for q in self.queries if q.label is not None and self._before(q)], dtype=torch.int64
        )

    @property
    def pending(self) -> Tensor:
        """Samples asked for and not answered, `(n,)`."""
        return torch.tensor([q.index for q in self.queries if q.label is None], dtype=torch.int64)

    @property
    def unlabelled(self) -> Tensor:
        """Samples never asked for, by index, `(n,)`."""
        asked = torch.tensor([query.index for query in self.queries], dtype=torch.int64)
        indices = self.data.train_indices
        return indices[~torch.isin(indices, asked)]

    @property
    def pool_images(self) -> PoolImages:
        """The training part with the given labels of this round only."""
        assert self.data.train_images is not None
        labels = torch.full((len(self.data.train_images),), -1, dtype=torch.int64)
        for query in self.queries:
            if query.label is not None and self._before(query):
                labels[query.index] = query.label
        return PoolImages(self.data.train_images, labels)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a shuffled, repeating loader of the labelled samples."""
        if not len(self.labelled):
            raise ValueError(
                f"no sample is labelled yet, {len(self.pending)} answers are pending; label some and go on."
            )
        return self.data.training_loader(self.pool_images, self.labelled, self.steps_per_epoch)

    def pool_dataloader(self, batch_size: int | None = None, asked: bool = False) -> DataLoader[Batch]:
        """Return a loader of this process's unpadded share of the unlabelled samples.

        Args:
            batch_size: Samples a step; null for the data's.
            asked: Of the labelled and pending ones, too.
        """
        indices = self.data.train_indices if asked else self.unlabelled
        return self.data.evaluation_loader(self.pool_images, indices, batch_size)

    def val_dataloader(self) -> Any:
        """Return the data's validation loader."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the data's test loader."""
        return self.data.test_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the data's prediction loader."""
        return self.data.predict_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch is; the labels are in the store, not in checkpoints."""
        self.data.trainer = self.trainer
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint's epoch stopped."""
        self.data.load_state_dict(state_dict)
