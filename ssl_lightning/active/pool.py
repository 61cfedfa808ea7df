"""The pool: which training samples are labelled, pending or unlabelled, over any of our data modules."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.active import asking
from ssl_lightning.active.asking import Explanation, Places
from ssl_lightning.active.matching import match
from ssl_lightning.active.shares import Shares
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.embeddings import Embeddings
from ssl_lightning.data.gallery import Gallery, html_table
from ssl_lightning.data.samples import Batch
from ssl_lightning.data.sampling import Unlabelled
from ssl_lightning.engine.ranges import given, one_of, seeds, whole
from ssl_lightning.engine.seeding import base_seed, derive_seed
from ssl_lightning.labelling import INITIAL, GroundTruth, LabelStore, NoLabel, Oracle, Query, require_text
from ssl_lightning.labelling.records import Part


class PoolSamples(Dataset[Batch]):
    """A view of a data set that shows only the labels that were given; never a copy.

    Args:
        samples: The data set.
        targets: Classes `(N,)`, -1 where no label was given.
    """

    same_places: ClassVar[bool] = True  # its positions are those of the samples within

    def __init__(self, samples: Any, targets: Tensor) -> None:
        self.samples, self.keys, self.targets = samples, samples.keys, targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        return self.samples[index]._replace(target=self.targets[index])  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.samples.__getitems__(indices)._replace(target=self.targets[indices])  # type: ignore[no-any-return]


class PoolDataModule(L.LightningDataModule):
    """Labelled, pending and unlabelled training samples of a data module.

    Every training sample is one of the three; where the oracle is external, as a person is, what the data are labelled
    with counts as labelled, and validation samples without a label are in the pool. The truth is in the label store,
    by the samples' keys and the classes' names; process 0 alone writes it, and `setup` and every acquisition give all
    processes the same view. Samples that have vanished, changed content or come since are told; a sample whose content
    changed is a new one, and its old label is kept and not used. Training batches hold labelled samples only, an epoch
    being a fixed number of steps, so that ten labels and ten thousand train alike.

    Args:
        data: Any of our data modules; its validation part is no part of the pool.
        initial: Labels to begin with, drawn at random; more only if the store is empty.
        balanced: Draw the initial labels evenly over the classes, which needs to know them: a common but optimistic
            set-up.
        steps_per_epoch: Training steps an epoch; null for one pass over the labelled samples.
        store: Where labels are kept, or its URL; null for a database in memory.
        oracle: Who answers queries; null for the ground truth.
        seed: Of the initial draw; null for the run's.
        classes: That may be answered, beside those of the data.
        test_share: Of each query, the fraction that tests the model instead of training it: drawn at random from
            samples that no strategy may choose, so that accuracy can be estimated where the data have no test part.
        val_share: The same for validation.

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
        classes: Sequence[str] = (),
        test_share: float = 0.0,
        val_share: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(data, DataModule):
            raise ValueError(
                f"`data={type(data).__name__}` is no data module of ours; wrap a data set of torch by "
                "`FromDataset(dataset)`, of `ssl_lightning.data`."
            )
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
        least = 0 if self.oracle.external else 1  # the data may bring labels that count
        whole(least, math.inf, "the first model must train on something", initial=initial)
        self.seed_chosen = seed is not None or "PL_GLOBAL_SEED" in os.environ
        self.seed = base_seed() if seed is None else seed
        self.may_ask: Callable[[L.Trainer, L.LightningModule], bool] | None = None  # asked by a strategy before it asks
        self.settings: dict[str, Any] = {}  # of a run; the store notes them with its first query
        self.round = 0
        self.classes = tuple(classes)
        self.shares = Shares(test_share, val_share, data.split_seed)
        self.shares.check()
        self.upto: int | None = None  # the last answer that this round trains on; null for all that there are
        self.folder: Path | None = None  # of the run; what people see of a query is kept there
        self.queries: list[Query] = []
        self.places: Places = []  # of each query, -1 where its sample is not in the pool now
        self._told: set[str] = set()
        self._prints: dict[str, str] = {}
        self._parts: tuple[Any, dict[Part, Tensor]] | None = None  # of which samples, and theirs

    @property
    def num_classes(self) -> int:
        """Number of classes of the data."""
        return self.data.num_classes

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the data."""
        return self.data.facts

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings of the data's samples, by the frozen encoder that asked last."""
        return self.data.embeddings

    def clean(self) -> nn.Module:
        """Return the data's transform to clean input."""
        return self.data.clean()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return the data's random views."""
        return self.data.views(count, mild, local_count)

    def weak_views(self) -> nn.Module | None:
        """Return the data's weak random view."""
        return self.data.weak_views()

    def strong_views(self) -> nn.Module | None:
        """Return the data's strong random view."""
        return self.data.strong_views()

    def prepare_data(self) -> None:
        """Let the data prepare, in one process."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Load the data, ask for the initial labels if there are none, and give every process the same view."""
        self.data.trainer = self.trainer
        self.data.setup(stage)
        if self._is_zero and INITIAL not in self.store.rounds():
            self.ask_initial()
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
    def everyone(self) -> Tensor:
        """Positions of all samples of the training part that nothing else is done with, `(n,)`: labelled or not."""
        val = self.data.val_indices
        assert self.data.train_samples is not None
        idle = val[self.data.train_samples.targets[val] < 0] if self.oracle.external else val[:0]
        return torch.cat([self.data.train_indices, idle]).sort().values if len(idle) else self.data.train_indices

    @property
    def given(self) -> Tensor:
        """Positions of the samples that the data are labelled with, where that counts from the start, `(n,)`."""
        assert self.data.train_samples is not None
        known = self.data.train_indices[self.data.train_samples.targets[self.data.train_indices] >= 0]
        return known if self.oracle.external else known[:0]

    @property
    def indices(self) -> Tensor:
        """Positions of all samples that a strategy can ask for, by key, `(n,)`."""
        return self._of_part("train")

    def _of_part(self, part: Part) -> Tensor:
        """Positions of the samples that can be asked for, for a part, `(n,)`."""
        indices = self.everyone[self.oracle.can_answer(self.data)[self.everyone]]
        if not self.shares.any:
            return indices if part == "train" else indices[:0]
        if self._parts is None or self._parts[0] is not self.data.train_samples:  # loaded anew
            self._parts = (self.data.train_samples, self.shares.parts(self.keys))
        return indices[self._parts[1][part][indices]]

    def known_classes(self) -> list[str]:
        """Return the classes that the store knows beside those of the data, as where people name them."""
        return self.store.class_names() if self.oracle.external else []

    def name_classes(self) -> None:
        """Let the data know the classes that were given, and those that people have named.

        Raises:
            ValueError: If people are asked, and there are not two classes, or a name is not UTF-8.
        """
        self.data.add_classes([*self.classes, *self.known_classes()])
        require_text(class_name=self.data.class_names)
        if self.oracle.external and self.num_classes < 2:
            raise ValueError(
                f"the data name {self.num_classes} classes, and to learn takes two; give `--classes cat,dog,...` (or a "
                "file with one on each line)."
            )

    def synchronise(self) -> None:
        """Read the store in process 0, match it with the samples that are there, and give the others what it holds."""
        found: tuple[list[str], list[Query], Places, list[str]] = ([], [], [], [])
        if self._is_zero:
            names, queries = [*self.classes, *self.known_classes()], self.store.queries(self.upto)
            self.data.add_classes(names)
            about = (self.everyone, self.data, self.oracle, self.fingerprint, self.store.named)
            found = (names, queries, *match(queries, *about))
        if self.trainer is not None:
            found = self.trainer.strategy.broadcast(found)
        self.data.add_classes(found[0])
        _, self.queries, self.places, news = found
        for text in news:
            if text not in self._told:
                self._told.add(text)
                rank_zero_warn(text)

    def fingerprint(self, key: str) -> str:
        """Return what tells a sample's content from another of the same key; empty where that does not change."""
        if key not in self._prints:  # once a call: what was loaded does not change any more
            self._prints[key] = self.data.fingerprint(key) or ""
        return self._prints[key]

    def ask_initial(self, choose: Callable[[int], Places] | None = None, name: str = "initial") -> None:
        """Ask for the labels to begin with, in process 0.

        Args:
            choose: Chooses so many samples; null to draw them at random.
            name: Of what chooses, for the record.

        Raises:
            ValueError: If the pool is too small, or nothing would be labelled.
        """
        self.name_classes()
        require_text(key=self.keys)
        seed = derive_seed(self.seed, "initial")
        asking.ask(self, INITIAL, name, seed, asking.choose_initial(self, seed, choose), size=self.initial)

    def to_choose(self, size: int) -> int:
        """Return how many samples of a query a strategy chooses: less those that test or validate."""
        return size - sum(asking.extras(self, size).values())

    def spare(self, part: Part) -> list[str]:
        """Return the keys of the samples of a part that were never asked for."""
        asked = set(self.places)
        return [self.keys[place] for place in self._of_part(part).tolist() if place not in asked]

    def acquire(
        self,
        strategy: str,
        seed: int,
        indices: Sequence[int],
        scores: Sequence[float] | None = None,
        state: dict[str, Any] | None = None,
        explained: Explanation | None = None,
        size: int = 0,
    ) -> None:
        """Ask the oracle for labels and commit what it says, at once; in every process.

        Args:
            strategy: Name for the record.
            seed: Of the strategy's draws, for the record.
            indices: Positions of samples in the order of their choice, the same in every process.
            scores: Of these samples.
            state: Of the strategy, JSON values, committed with the labels.
            explained: What a person should know of each sample; null where nobody asks.
            size: Of the whole query, of which further samples test and validate, as the shares tell.

        Raises:
            ValueError: If a sample is not unlabelled, or an answer is no class of the data.
        """
        unlabelled = set(self.unlabelled.tolist())
        wrong = [index for index in indices if index not in unlabelled]
        if wrong or len(set(indices)) < len(indices):
            names = [self.keys[index] for index in wrong or sorted(indices)]
            raise ValueError(f"`{strategy}` chose samples that are not unlabelled, or one twice: {names[:10]}.")
        if self._is_zero:
            asking.ask(self, self.round, strategy, seed, list(indices), scores, state, explained, size)
        self.synchronise()

    def trainable(self) -> int:
        """Return how many samples have a label to train on now, whatever round they were asked in; in process 0."""
        queries = self.store.queries()
        places, _ = match(queries, self.everyone, self.data, self.oracle, self.fingerprint, self.store.named)
        return len(self._labels("train", queries, places, math.inf))

    @property
    def cost(self) -> float:
        """What the answers cost that were there when this round began, as the oracle tells."""
        said = [query for query in self.queries if query.round < self.round and query.kind is not None]
        return self.oracle.cost([query.label or NoLabel(query.kind) for query in said])

    def known(self, part: Part = "train") -> list[tuple[int, int]]:
        """Positions and classes of a part's samples whose label was there when this round began, in the order asked."""
        return self._labels(part, self.queries, self.places, self.round)

    def _labels(
        self, part: Part, queries: Sequence[Query], places: Sequence[int], before: float
    ) -> list[tuple[int, int]]:
        """Positions and classes of a part's labelled samples: of the data themselves, and of what was asked by then."""
        numbers = {name: number for number, name in enumerate(self.data.class_names)}
        asked = list(zip(queries, places, strict=True))
        found = [
            (place, numbers[query.label])
            for query, place in asked
            if place >= 0 and query.label in numbers and query.round < before and query.part == part
        ]
        given = self.given if part == "train" else self.given[:0]
        if not len(given):
            return found
        assert self.data.train_samples is not None
        # what was asked for to test or validate never trains, whatever the data say of it since
        others = {place for query, place in asked if query.part != "train"} | {place for place, _ in found}
        own = zip(given.tolist(), self.data.train_samples.targets[given].tolist(), strict=True)
        return [*(pair for pair in own if pair[0] not in others), *found]

    @property
    def labelled(self) -> Tensor:
        """Samples with a label that was there when this round began, in the order they were asked, `(n,)`."""
        return torch.tensor([place for place, _ in self.known()], dtype=torch.int64)

    @property
    def pending(self) -> Tensor:
        """Samples asked for and not answered, `(n,)`."""
        asked = zip(self.queries, self.places, strict=True)
        return torch.tensor([place for query, place in asked if query.kind is None and place >= 0], dtype=torch.int64)

    @property
    def unlabelled(self) -> Tensor:
        """Samples never asked for, by key, `(n,)`."""
        indices = self.indices
        return indices[~torch.isin(indices, torch.tensor(self.places, dtype=torch.int64))]

    def asked(self, number: int) -> list[int]:
        """Positions of the samples that a strategy asked for after a round, in its order; -1 for the initial ones."""
        asked = zip(self.queries, self.places, strict=True)
        return [place for query, place in asked if query.round == number and place >= 0 and query.part == "train"]

    def gallery(self, number: int = INITIAL) -> Gallery:
        """Return what was asked after a round for a notebook to show, with label, model's guess and score as known.

        Samples that are no longer there are left out.

        Args:
            number: Of the round; -1 for the initial labels.
        """
        there = set(self.keys)
        asked = [query for query in self.store.queries() if query.round == number and query.key in there]
        notes = [
            ", ".join(
                [query.label or query.kind or "no answer yet"]
                + ([f"guessed {query.guess}"] if query.guess else [])
                + ([f"score {query.score:.3g}"] if query.score is not None else [])
            )
            for query in asked
        ]
        return Gallery(self.data, [query.key for query in asked], notes)

    def _repr_html_(self) -> str:
        if self.data.train_samples is None:
            return f"<b>PoolDataModule</b> of {type(self.data).__name__}: not loaded yet, by <code>setup()</code>"
        counts = {"labelled": self.labelled, "pending": self.pending, "unlabelled": self.unlabelled}
        rows = [(name, f"{len(places):,}") for name, places in counts.items()]
        return f"<b>PoolDataModule</b>, round {self.round}{html_table(rows)}{self.data._repr_html_()}"

    @property
    def samples(self) -> PoolSamples:
        """The training part with the given labels of this round only."""
        return self._with_labels("train")[0]

    def _with_labels(self, part: Part) -> tuple[PoolSamples, Tensor]:
        """The training part with the labels of one part, and which samples have one."""
        known = self.known(part)
        labels, places = torch.full((len(self.keys),), -1, dtype=torch.int64), [place for place, _ in known]
        labels[places] = torch.tensor([target for _, target in known], dtype=torch.int64)
        return PoolSamples(self.data.train_samples, labels), torch.tensor(places, dtype=torch.int64)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a shuffled, repeating loader of the labelled samples."""
        if not len(self.labelled):
            answered = sum(query.label is not None for query in self.queries)
            if answered and not len(self.pending):
                raise ValueError(
                    f"none of the {answered} labels in the label store `{self.store.named}` is of a sample and a class "
                    "that the data have now; bring back the data that were labelled, or begin a new run in another "
                    "`folder`."
                )
            raise ValueError(
                f"no sample is labelled yet, {len(self.pending)} answers are pending; label some and go on."
            )
        ratio = self.data.unlabelled_ratio
        others = Unlabelled(self._asked_or_not(), ratio) if ratio else None
        return self.data.training_loader(self.samples, self.labelled, self.steps_per_epoch, others)

    @property
    def truth(self) -> Tensor | None:
        """Classes of all training samples where the data know them and answer themselves, to judge by; else null."""
        return None if self.oracle.external else self.data.truth

    def _asked_or_not(self) -> Tensor:
        """Positions of all samples to train on: labelled, pending and unlabelled ones."""
        return torch.cat([self.given, self.indices]).sort().values

    def pool_dataloader(self, batch_size: int | None = None, asked: bool = False) -> DataLoader[Batch]:
        """Return a loader of this process's unpadded share of the unlabelled samples.

        Args:
            batch_size: Samples a step; null for the data's.
            asked: Of the labelled and pending ones, too.
        """
        indices = self._asked_or_not() if asked else self.unlabelled
        return self.data.evaluation_loader(self.samples, indices, batch_size)

    @property
    def validation_size(self) -> int:
        """How many samples validate: the data's that have a label, and the answers that were set apart for it."""
        return len(self._validating()) + len(self.known("val"))

    @property
    def can_validate(self) -> bool:
        """Whether there is, or will be, something to validate on."""
        return self.shares.val > 0 or len(self._validating()) > 0

    def _validating(self) -> Tensor:
        """The data's validation samples; where people label, those that have one."""
        val = self.data.val_indices
        assert self.data.train_samples is not None
        return val[self.data.train_samples.targets[val] >= 0] if self.oracle.external else val

    def val_dataloader(self) -> Any:
        """Return a loader of the validation part, and of the answers that were set apart for it; none where empty."""
        samples, places = self._with_labels("val")
        own = self._validating()
        if not len(places) and len(own) == len(self.data.val_indices):
            return self.data.val_dataloader()
        assert self.data.train_samples is not None
        samples.targets[own] = self.data.train_samples.targets[own]
        places = torch.cat([own, places]).sort().values
        return self.data.loop_loader(samples, places) if len(places) else []

    @property
    def test_size(self) -> int:
        """How many labelled samples test."""
        if self.shares.test:
            return len(self.known("test"))
        self.data.setup("test")
        return 0 if self.data.test_samples is None else int((self.data.test_samples.targets >= 0).sum())

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the answers that were set apart for it, or of the data's test part where none are."""
        if self.shares.test:
            samples, places = self._with_labels("test")
            return self.data.loop_loader(samples, places.sort().values)
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
