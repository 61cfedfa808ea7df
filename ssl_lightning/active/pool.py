"""The pool: which training samples are labelled, pending or unlabelled, over any of our data modules."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import given, one_of, seeds, whole
from ssl_lightning.engine.seeding import base_seed, derive_generator, derive_seed
from ssl_lightning.labelling import INITIAL, GroundTruth, LabelStore, Oracle, Query, require_text


class PoolSamples(Dataset[Batch]):
    """A view of a data set that shows only the labels that were given; never a copy.

    Args:
        samples: The data set.
        labels: `(N,)`, -1 where no label was given.
    """

    def __init__(self, samples: Any, labels: Tensor) -> None:
        self.samples, self.labels = samples, labels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        return self.samples[index]._replace(target=self.labels[index])  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.samples.__getitems__(indices)._replace(target=self.labels[indices])  # type: ignore[no-any-return]


class PoolDataModule(L.LightningDataModule):
    """Labelled, pending and unlabelled training samples of a data module.

    Every training sample is one of the three. The truth is in the label store, by the samples' keys and the classes'
    names; process 0 alone writes it, and `setup` and every acquisition give all processes the same view. Samples that
    have vanished, changed content or come since are told; a sample whose content changed is a new one, and its old
    label is kept and not used. Training batches hold labelled samples only, an epoch being a fixed number of steps, so
    that ten labels and ten thousand train alike.

    Args:
        data: Any of our data modules; its validation part is no part of the pool.
        initial: Labels to begin with, drawn at random; more only if the store is empty.
        balanced: Draw the initial labels evenly over the classes, which needs to know them: a common but optimistic
            set-up.
        steps_per_epoch: Training steps an epoch; null for one pass over the labelled samples.
        store: Where labels are kept, or its URL; null for a database in memory.
        oracle: Who answers queries; null for the ground truth.
        seed: Of the initial draw; null for the run's.

    Raises:
        ValueError: If a number is out of its range, or a part is none.
    """

    allow_zero_length_dataloader_with_multiple_devices = True  # a part may be smaller than the number of processes

    def __init__(
        self,
        data: DataModule,
        initial: int = 20,
        balanced: bool = False,
        steps_per_epoch: int | None = 50,
        store: LabelStore | str | None = None,
        oracle: Oracle | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(data, DataModule):
            raise ValueError(
                f"`data={type(data).__name__}` is no data module of ours; wrap a data set of torch by "
                "`FromDataset(dataset)`, of `ssl_lightning.data`."
            )
        whole(1, math.inf, "the first model must train on something", initial=initial)
        whole(1, **given(steps_per_epoch=steps_per_epoch))
        one_of((False, True), balanced=balanced)
        seeds(**given(seed=seed))
        if not isinstance(store, LabelStore | str | None):
            raise ValueError(f"`store={store!r:.80}` must be a `LabelStore`, the URL of one, or null.")
        if not isinstance(oracle, Oracle | None):
            raise ValueError(
                f"`oracle={oracle!r:.80}` must be an `Oracle` that is built, such as `GroundTruth()`, or null."
            )
        self.data, self.initial, self.balanced, self.steps_per_epoch = data, initial, balanced, steps_per_epoch
        self.store = store if isinstance(store, LabelStore) else LabelStore(*([store] if store else []))
        self.oracle = oracle or GroundTruth()
        self.seed_chosen = seed is not None or "PL_GLOBAL_SEED" in os.environ
        self.seed = base_seed() if seed is None else seed
        self.may_ask: Callable[[L.Trainer, L.LightningModule], bool] | None = None  # asked by a strategy before it asks
        self.settings: dict[str, Any] = {}  # of a run; the store notes them with its first query
        self.round = 0
        self.queries: list[Query] = []
        self.places: list[int] = []  # of each query, -1 where its sample is not in the pool now
        self._told: set[str] = set()
        self._prints: dict[str, str] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes of the data."""
        return self.data.num_classes

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the data."""
        return self.data.facts

    def clean(self) -> nn.Module:
        """Return the data's transform to clean input."""
        return self.data.clean()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return the data's random views."""
        return self.data.views(count, mild, local_count)

    def prepare_data(self) -> None:
        """Let the data prepare, in one process."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Load the data, ask for the initial labels if there are none, and give every process the same view."""
        self.data.trainer = self.trainer
        self.data.setup(stage)
        require_text(key=self.keys, class_name=self.data.class_names)
        if self._is_zero and not self.store.queries():
            self._ask_initial()
        self.synchronise()

    @property
    def _is_zero(self) -> bool:
        return self.trainer is None or self.trainer.is_global_zero

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the training part's samples, by position."""
        assert self.data.train_samples is not None
        return self.data.train_samples.keys

    @property
    def indices(self) -> Tensor:
        """Positions of all samples that can be asked for, by key, `(n,)`."""
        indices = self.data.train_indices
        return indices[self.oracle.can_answer(self.data)[indices]]

    def synchronise(self) -> None:
        """Read the store in process 0, match it with the samples that are there, and give the others what it holds."""
        found: tuple[list[Query], list[int], list[str]] = ([], [], [])
        if self._is_zero:
            queries = self.store.queries()
            found = (queries, *self._place(queries))
        if self.trainer is not None:
            found = self.trainer.strategy.broadcast(found)
        self.queries, self.places, news = found
        for text in news:
            if text not in self._told:
                self._told.add(text)
                rank_zero_warn(text)

    def _place(self, queries: list[Query]) -> tuple[list[int], list[str]]:
        """Find the samples that were asked for, by key and content."""
        positions = {self.keys[place]: place for place in self.data.train_indices.tolist()}
        everyone = set(self.keys)
        places: list[int] = []
        vanished: list[str] = []
        changed: list[str] = []
        elsewhere: list[str] = []
        strange: list[str] = []
        corrected: list[str] = []
        for query in queries:
            place = positions.get(query.key, -1)
            if place < 0:
                (elsewhere if query.key in everyone else vanished).append(query.key)
            elif query.fingerprint and query.fingerprint != self._fingerprint(query.key):
                changed.append(query.key)
                place = -1
            if query.label is not None and query.label not in self.data.class_names:
                strange.append(query.label)
            elif place >= 0 and query.label is not None and self._contradicts(query, place):
                corrected.append(query.key)
            places.append(place)
        where, news = f"in the label store `{self.store.url}`", []
        if vanished:
            news.append(f"{listed(vanished)} {where} are no longer there: kept, and not trained on.")
        if changed:
            news.append(
                f"{listed(changed)} {where} have changed since: another sample of the same name, whose old label is "
                "kept and not used; it is in the pool again."
            )
        if elsewhere:
            news.append(f"{listed(elsewhere)} {where} are not in the training part now: kept, and not trained on.")
        if strange:
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(strange))
            news.append(
                f"{len(strange)} labels {where} name classes that the data do not have: {names}, of "
                f"{', '.join(self.data.class_names)}. Kept, and not trained on; was a class renamed?"
            )
        if corrected:
            news.append(
                f"{listed(corrected)} {where} have another class in the data now: the labels that were given are kept "
                "and trained on. Correct them in the store, or begin a new run in another `folder`."
            )
        return places, news

    def _contradicts(self, query: Query, place: int) -> bool:
        """Tell whether the ground truth would now answer otherwise than it did."""
        assert self.data.train_samples is not None
        truth = int(self.data.train_samples.targets[place])
        if not isinstance(self.oracle, GroundTruth) or truth < 0 or self.data.class_names[truth] == query.label:
            return False
        return self.oracle.answer([query.key], self.data) != [query.label]  # which may be noisy

    def _fingerprint(self, key: str) -> str:
        if key not in self._prints:  # once a call: what was loaded does not change any more
            self._prints[key] = self.data.fingerprint(key) or ""
        return self._prints[key]

    def _ask_initial(self) -> None:
        candidates = self.indices
        if self.initial > len(candidates):
            raise ValueError(f"`initial={self.initial}` exceeds the {len(candidates)} samples of the pool; lower it.")
        seed = derive_seed(self.seed, "initial")
        order = candidates[torch.randperm(len(candidates), generator=derive_generator(seed))]
        if self.balanced:
            assert self.data.train_samples is not None
            targets = self.data.train_samples.targets[order]
            turn = torch.zeros(len(order), dtype=torch.int64)  # how many of its class came before each
            for target in targets.unique().tolist():  # type: ignore[no-untyped-call]
                turn[targets == target] = torch.arange(int((targets == target).sum()))
            order = order[turn.argsort(stable=True)]
            if self.initial < self.num_classes:
                rank_zero_warn(
                    f"`initial={self.initial}` labels with `balanced=true` cannot cover {self.num_classes} classes; "
                    f"give at least `initial={self.num_classes}`."
                )
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
        keys = [self.keys[index] for index in indices]
        answers = self.oracle.answer(keys, self.data)
        for key, answer in zip(keys, answers, strict=True):
            if answer is not None and answer not in self.data.class_names:
                raise ValueError(
                    f"`{type(self.oracle).__name__}` answered `{answer}` for `{key}`; a label must be one of "
                    f"{', '.join(self.data.class_names)}."
                )
        queries = [
            Query(key, answer, None if scores is None else scores[k], fingerprint=self._fingerprint(key))
            for k, (key, answer) in enumerate(zip(keys, answers, strict=True))
        ]
        settings = None if number == INITIAL or self.store.settings() else self.settings
        self.store.add_round(number, strategy, seed, queries, self.oracle.name, state, settings)

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
            indices: Positions of samples in the order of their choice, the same in every process.
            scores: Of these samples.
            state: Of the strategy, JSON values, committed with the labels.

        Raises:
            ValueError: If a sample is not unlabelled, or an answer is no class of the data.
        """
        unlabelled = set(self.unlabelled.tolist())
        wrong = [index for index in indices if index not in unlabelled]
        if wrong or len(set(indices)) < len(indices):
            names = [self.keys[index] for index in wrong or sorted(indices)]
            raise ValueError(f"`{strategy}` chose samples that are not unlabelled, or one twice: {names[:10]}.")
        if self._is_zero:
            numbers = None if scores is None else list(scores)
            self._commit(self.round, strategy, seed, list(indices), numbers, state)
        self.synchronise()

    def _known(self) -> list[tuple[int, int]]:
        """Positions and classes of the samples whose label was there when this round began, in the order asked."""
        numbers = {name: number for number, name in enumerate(self.data.class_names)}
        return [
            (place, numbers[query.label])
            for query, place in zip(self.queries, self.places, strict=True)
            if place >= 0 and query.label in numbers and query.round < self.round
        ]

    @property
    def labelled(self) -> Tensor:
        """Samples with a label that was there when this round began, in the order they were asked, `(n,)`."""
        return torch.tensor([place for place, _ in self._known()], dtype=torch.int64)

    @property
    def pending(self) -> Tensor:
        """Samples asked for and not answered, `(n,)`."""
        asked = zip(self.queries, self.places, strict=True)
        return torch.tensor([place for query, place in asked if query.label is None and place >= 0], dtype=torch.int64)

    @property
    def unlabelled(self) -> Tensor:
        """Samples never asked for, by key, `(n,)`."""
        indices = self.indices
        return indices[~torch.isin(indices, torch.tensor(self.places, dtype=torch.int64))]

    def asked(self, number: int) -> list[int]:
        """Positions of the samples asked after a round, in the order of choice; -1 for the initial labels."""
        asked = zip(self.queries, self.places, strict=True)
        return [place for query, place in asked if query.round == number and place >= 0]

    @property
    def samples(self) -> PoolSamples:
        """The training part with the given labels of this round only."""
        labels = torch.full((len(self.keys),), -1, dtype=torch.int64)
        for place, target in self._known():
            labels[place] = target
        return PoolSamples(self.data.train_samples, labels)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a shuffled, repeating loader of the labelled samples."""
        if not len(self.labelled):
            answered = sum(query.label is not None for query in self.queries)
            if answered and not len(self.pending):
                raise ValueError(
                    f"none of the {answered} labels in the label store `{self.store.url}` is of a sample and a class "
                    "that the data have now; bring back the data that were labelled, or begin a new run in another "
                    "`folder`."
                )
            raise ValueError(
                f"no sample is labelled yet, {len(self.pending)} answers are pending; label some and go on."
            )
        return self.data.training_loader(self.samples, self.labelled, self.steps_per_epoch)

    def pool_dataloader(self, batch_size: int | None = None, asked: bool = False) -> DataLoader[Batch]:
        """Return a loader of this process's unpadded share of the unlabelled samples.

        Args:
            batch_size: Samples a step; null for the data's.
            asked: Of the labelled and pending ones, too.
        """
        indices = self.indices if asked else self.unlabelled
        return self.data.evaluation_loader(self.samples, indices, batch_size)

    def val_dataloader(self) -> Any:
        """Return the data's validation loader."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the data's test loader."""
        return self.data.test_dataloader()

    def predict_dataloader(self) -> Any:
        """Return the data's prediction loaders."""
        return self.data.predict_dataloader()

    @property
    def epoch(self) -> int | None:
        """The epoch whose order of samples is drawn; null before a fit."""
        return self.data.epoch

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch is; the labels are in the store, not in checkpoints."""
        self.data.trainer = self.trainer
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint's epoch stopped."""
        self.data.load_state_dict(state_dict)


def listed(keys: list[str]) -> str:
    """Return how many samples there are, and the names of the first five."""
    names = ", ".join(f"`{key}`" for key in keys[:5]) + " ..." * (len(keys) > 5)
    return f"{len(keys)} samples ({names})"
