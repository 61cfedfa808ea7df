"""What every data set has in common: samples with keys, batches by one indexing call, facts, a way to be shown."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_lightning.data.embedding_files import Names
from ssl_lightning.data.embeddings import Embeddings
from ssl_lightning.data.gallery import Gallery, chosen, class_of, describe
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.data.samples import (
    Batch,
    Samples,
    Shown,
    Split,
    TensorSamples,
    Viewed,
    content_keys,
    content_names,
    keep,
)
from ssl_lightning.data.sampling import ShareSampler, TrainSampler, Unlabelled, require_picklable
from ssl_lightning.data.splits import chosen_by_count, chosen_by_share, keep_labels, tell_missing, with_copies
from ssl_lightning.engine.naming import class_path
from ssl_lightning.engine.ranges import at_least, given, whole
from ssl_lightning.engine.seeding import base_seed, derive_generator
from ssl_lightning.transforms.base import PerSample, Unchanged

# what data of the usual modalities tell; the command line links them to arguments of the same names
FACTS = (
    "num_classes", "class_names", "channels", "image_size", "vocab_size", "vocabulary", "sample_rate", "feature_dim",
    "cardinalities",
)  # fmt: skip


class DataModule(L.LightningDataModule, ABC):
    """Base of the data modules of every modality: a training, a validation and a test part, one `Batch` a step.

    A subclass sets its facts in its constructor, cheaply, and opens or decodes in `load`. The validation part is drawn
    from the training part by the samples' keys, before anything else happens to it.

    Args:
        batch_size: Samples a step and process.
        val_size: Validation samples drawn from the training part: a fraction below 1, by which a sample never changes
            sides, or a number of samples; 0 for none.
        limit: Use so many training samples, drawn with `split_seed`; null for all.
        split_seed: Seed of the validation split and of `limit`. It is not the run's seed: all runs validate on the same
            samples.
        num_workers: Loader processes; data in memory wants none.
        resident: Keep decoded samples on the training device: no copy a step. They must fit in its memory.
        keep_labels: Keep the labels of so many training samples, drawn with `split_seed` with classes as even as in the
            whole; the others count as unlabelled. Null for all.
        steps_per_epoch: Training steps an epoch, so that ten labels and ten thousand train alike; null for one pass
            over the samples that are learnt from.

    Raises:
        ValueError: If a number is out of its range, or data that are decoded when needed should be resident.
    """

    num_classes: int
    class_names: Sequence[str] = ()  # where a subclass names none, their numbers
    fact_names: ClassVar[tuple[str, ...]] = ("num_classes", "class_names")
    fixed: ClassVar[bool] = False  # the set never changes: parts of exact sizes, classes even, cost no sample its side

    def __init__(
        self,
        batch_size: int = 256,
        val_size: float = 0.1,
        limit: int | None = None,
        split_seed: int = 0,
        num_workers: int = 0,
        resident: bool = False,
        keep_labels: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        if resident and num_workers:
            raise ValueError(
                f"`resident=true` wants `num_workers=0`, got {num_workers}: workers cannot share a device."
            )
        whole(1, batch_size=batch_size)
        whole(0, num_workers=num_workers, split_seed=split_seed)
        at_least(0, val_size=val_size)
        if val_size >= 1 and val_size != int(val_size):
            raise ValueError(
                f"`val_size={val_size}` must be a fraction from 0 to below 1, or a whole number of samples."
            )
        if limit is not None:
            whole(2, math.inf, "leave it out for all samples", limit=limit)
        whole(1, math.inf, "leave it out for all labels", **given(keep_labels=keep_labels))
        whole(1, math.inf, "leave it out for one pass", **given(steps_per_epoch=steps_per_epoch))
        self.batch_size, self.val_size, self.limit, self.split_seed = batch_size, val_size, limit, split_seed
        self.num_workers, self.resident, self.keep_labels = num_workers, resident, keep_labels
        self.steps_per_epoch = steps_per_epoch
        self.truth: Tensor | None = (
            None  # of all training samples, also where `keep_labels` hides it: to judge, never to learn
        )
        self.train_samples: Samples | None = None
        self.test_samples: Samples | None = None
        self.train_indices = torch.empty(0, dtype=torch.int64)
        self.val_indices = torch.empty(0, dtype=torch.int64)
        self.embeddings = Embeddings(self.sample_names)  # of the samples, by the frozen encoder that asked last
        self._resumed: tuple[int, int] | None = None  # epoch and steps of it that are done
        self._groups: Tensor | None = None
        self._sampler: TrainSampler | None = None
        self._places: dict[str, tuple[Samples, int]] = {}
        self._numbered = False  # nobody named the classes

    @abstractmethod
    def load(self, split: Split) -> Samples:
        """Decode or open one part.

        Args:
            split: Which.

        Returns:
            The samples, in an order that is a function of their keys; targets are -1 where unlabelled.
        """

    def __str__(self) -> str:
        """Return the class's name; Lightning's text would load all parts to count them, whoever asks."""
        return f"{type(self).__name__}()"

    @property
    def facts(self) -> dict[str, Any]:
        """What a model must know of the data, by the names of its arguments."""
        self._name_classes()
        return {name: getattr(self, name) for name in self.fact_names}

    def _name_classes(self) -> None:
        if not self.class_names:
            self._numbered = True
            self.class_names = tuple(str(number) for number in range(self.num_classes))
        if len(self.class_names) != self.num_classes or len(set(self.class_names)) < len(self.class_names):
            raise ValueError(
                f"`{type(self).__name__}` has `num_classes={self.num_classes}` and "
                f"`class_names={self.class_names!s:.200}`; name each class once, or none."
            )

    def add_classes(self, names: Sequence[str]) -> None:
        """Name classes that somebody answers with, behind those of the data; known ones stay where they are.

        Args:
            names: Of classes.
        """
        self._name_classes()
        if self._numbered and self.num_classes == 1 and names:  # one that stands for none
            self.class_names, self.num_classes, self._numbered = (), 0, False
        self.class_names = tuple(dict.fromkeys((*self.class_names, *names)))
        self.num_classes = len(self.class_names)

    def clean(self) -> nn.Module:
        """Return the transform that makes clean input of these samples, where a model brings none."""
        return Unchanged()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return random views of these samples, where nobody chose some; null where the modality knows none.

        Args:
            count: Views of each sample.
            mild: As a classifier wants them, near to the sample.
            local_count: Further views that show a part, of a modality that has such.
        """
        return None

    def weak_views(self) -> nn.Module | None:
        """Return one random view near to the sample, as a classifier trains on; else a mild one of `views`."""
        return self.views(1, mild=True)

    def strong_views(self) -> nn.Module | None:
        """Return one random view far from the sample that leaves its class what it is; else one of `views`."""
        return self.views(1)

    def show(self, key: str) -> Shown:
        """Return what a person sees of a sample.

        Args:
            key: Of a sample of the training or test part.

        Raises:
            ValueError: If there is no such sample.
        """
        samples, place = self.find(key)
        return Shown("text", str(samples.__getitems__([place]).input))

    def gallery(self, samples: int | Sequence[int | str] = 12) -> Gallery:
        """Return training samples for a notebook to show, with their classes.

        Args:
            samples: Their keys or positions in the training part; or how many, evenly chosen.

        Raises:
            ValueError: If nothing is loaded yet, or there is no such sample.
        """
        if self.train_samples is None:
            raise ValueError(f"`{type(self).__name__}` has nothing to show yet; call its `setup()` first.")
        keys = chosen(self, samples)
        return Gallery(self, keys, [class_of(self, key) for key in keys])

    def _repr_html_(self) -> str:
        return describe(self)

    def path_of(self, key: str) -> str | None:
        """Return the file that a sample is read from, or null where it is not one file."""
        return None

    def save(self, folder: Path) -> None:
        """Write into the folder of a run what belongs to the data and a person may want, as a tokenizer; here nothing.

        Args:
            folder: Of the run; it exists.
        """

    def fingerprint(self, key: str) -> str | None:
        """Return what tells a sample's content from another of the same key; null where keys cannot change content."""
        return None

    def sample_names(self, split: str) -> Names:
        """Return what tells the input of each sample of a part from all others, whatever its key, `(N, 2)`."""
        samples = self.train_samples if split == "train" else self.test_samples
        read_as = {name: value for name, value in self.facts.items() if name not in ("num_classes", "class_names")}
        return content_names(samples, self.fingerprint, f"{class_path(type(self))} {read_as}")

    def find(self, key: str) -> tuple[Samples, int]:
        """Return the part that a sample is in, and its position there.

        Raises:
            ValueError: If there is no such sample.
        """
        if not self._places:
            for samples in (self.test_samples, self.train_samples):
                if samples is not None:
                    self._places.update({name: (samples, place) for place, name in enumerate(samples.keys)})
        if key not in self._places:
            raise ValueError(f"`key={key}` is no sample of `{type(self).__name__}`; give one of its keys.")
        return self._places[key]

    def setup(self, stage: str | None = None) -> None:
        """Load what a stage needs, once, and draw the splits."""
        self._name_classes()
        if self.train_samples is None:
            samples = self._checked(self.load("train"), "train")
            self.train_indices, self.val_indices = self.split(samples)
            self.truth = samples.targets
            if self.keep_labels is not None:
                samples.targets = keep_labels(
                    samples.targets, samples.keys, self.train_indices, self.keep_labels, self.split_seed
                )
            self.train_samples = samples
            if len(self.val_indices) and (self.train_samples.targets[self.train_indices] >= 0).any():
                remedy = "raise `val_size`, or give a fraction" if self.val_size else "add some"
                tell_missing(self.train_samples.targets[self.val_indices], self.class_names, "validation", remedy)
        if self.test_samples is None and stage in ("test", "predict", None):
            self.test_samples = self._checked(self.load("test"), "test")
            self._require_parts_apart()

    def _require_parts_apart(self) -> None:
        assert self.train_samples is not None
        assert self.test_samples is not None
        both = set(self.train_samples.keys) & set(self.test_samples.keys)
        if both:
            raise ValueError(
                f"{len(both)} keys of `{type(self).__name__}` are in the training and in the test part, such as "
                f"`{min(both)}`; a key names one sample. Give the test part keys of its own, or none."
            )

    def _checked(self, samples: Samples, split: str) -> Samples:
        low, high = (int(samples.targets.min()), int(samples.targets.max())) if len(samples) else (-1, -1)
        if low < -1 or high >= self.num_classes:
            raise ValueError(
                f"a label of `{type(self).__name__}` ({split} part) is out of range: found {low} to {high}, required "
                f"are 0 to {self.num_classes - 1} (`num_classes={self.num_classes}`), or -1 for unlabelled; mend the "
                "labels."
            )
        if isinstance(samples, TensorSamples) and samples.unnamed:
            samples.keys = [f"{split}/{key}" for key in content_keys(samples.inputs)]
        if len(set(samples.keys)) < len(samples.keys):
            twice, times = Counter(samples.keys).most_common(1)[0]
            raise ValueError(
                f"`key={twice}` names {times} samples of `{type(self).__name__}` ({split} part); keys must be unique."
            )
        self._places = {}
        self.embeddings.forget(self.embeddings.name(split))
        if self.resident:
            if not isinstance(samples, TensorSamples | RaggedSamples):
                raise ValueError("`resident=true` needs decoded samples: raise `memory_gib`, or leave it out.")
            if self.trainer is not None:
                samples.move(self.trainer.strategy.root_device)
        return samples

    def split(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Draw the validation part, and `limit`.

        Args:
            samples: The training part.

        Returns:
            Positions of the training and of the validation samples, in order, `(n,)` and `(m,)`.
        """
        total = len(samples)
        if not total:
            raise ValueError(
                f"`{type(self).__name__}` has no sample to train on: there is none, or the test part took all; add "
                "data, or lower `test_size`."
            )
        targets, kept = samples.targets, torch.arange(total)
        if self.limit is not None:
            if self.limit > total:
                raise ValueError(f"`limit={self.limit}` exceeds the {total} training samples; lower it.")
            kept = chosen_by_count(samples.keys, targets, self.limit, self.split_seed, "limit").nonzero()[:, 0]
        labelled = kept[targets[kept] >= 0]
        drawn = labelled if len(labelled) else kept  # unlabelled samples validate nothing
        keys = [samples.keys[place] for place in drawn.tolist()]
        if self.val_size >= 1 or self.fixed:
            count = int(self.val_size) if self.val_size >= 1 else round(self.val_size * len(drawn))
            part = chosen_by_count(keys, targets[drawn], min(count, len(drawn)), self.split_seed, "val")
            part = with_copies(part, keys)
            if self.val_size >= 1 and not self.fixed:
                rank_zero_warn(
                    f"`val_size={self.val_size:g}` is a number: when samples are added or removed, others change sides "
                    f"to keep it. A fraction, as {max(0.001, round(count / max(1, len(kept)), 3))}, moves none."
                )
        else:
            count = 0
            part = chosen_by_share(keys, self.val_size, self.split_seed, "val")
        val = drawn[part]
        if max(count, len(val)) >= len(kept):
            raise ValueError(f"`val_size={self.val_size}` leaves no training sample of {len(kept)}; lower it.")
        return kept[~torch.isin(kept, val)], val

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a shuffled loader of what the model learns from, whose order is a function of seed and epoch."""
        ratio, indices = self.unlabelled_ratio, self.train_indices
        assert self.train_samples is not None
        if ratio is None:
            return self.training_loader(self.train_samples, indices, self.steps_per_epoch)
        labelled = indices[self.train_samples.targets[indices] >= 0]
        others = Unlabelled(indices, ratio) if ratio else None
        return self.training_loader(self.train_samples, labelled, self.steps_per_epoch, others)

    @property
    def unlabelled_ratio(self) -> int | None:
        """How many unlabelled samples the model that is fitted wants with each labelled one; null for all alike."""
        return getattr(self.trainer.lightning_module, "unlabelled_ratio", None) if self.trainer else None

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return a loader of the validation part, or none where it is empty."""
        return self.loop_loader(self.train_samples, self.val_indices) if len(self.val_indices) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the test part."""
        if self.test_samples is None:
            self.setup("test")
        assert self.test_samples is not None
        return self.loop_loader(self.test_samples, torch.arange(len(self.test_samples)))

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Return loaders of all samples: of the training part, validation included, and of the test part."""
        test = self.test_dataloader()
        assert self.train_samples is not None
        return [self.loop_loader(self.train_samples, torch.arange(len(self.train_samples))), test]

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def training_loader(
        self, samples: Any, indices: Tensor, steps: int | None = None, unlabelled: Unlabelled | None = None
    ) -> DataLoader[Batch]:
        """Return a shuffled loader of some samples that resumes in the middle of an epoch.

        Args:
            samples: The data set.
            indices: Which of it, `(N,)`.
            steps: Steps an epoch; null for one pass over the samples. Samples repeat as often as needed.
            unlabelled: Samples that come with them in every batch, behind them.

        Returns:
            A loader of full batches; the last, incomplete one of a pass is dropped.

        Raises:
            ValueError: If there is no sample.
        """
        if not len(indices):
            raise ValueError(
                f"no training sample of `{type(self).__name__}` has a label to learn from; label some, or pretrain "
                "without labels by a method (`ssl-lightning list methods`)."
            )
        rank, world = self.rank_and_world
        seed = self.trainer.strategy.broadcast(base_seed()) if self.trainer else base_seed()
        sampler = self._sampler = TrainSampler(indices, self.batch_size, steps, seed, rank, world, unlabelled)
        sampler.groups = self._groups[indices] if self._groups is not None else None
        if self._resumed is not None:
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
            sampler.go_on(*self._resumed, lambda: progress.total.processed if progress else 0)
        elif self.trainer:
            sampler.set_epoch(self.trainer.current_epoch)
        self._resumed = None
        views = getattr(self.trainer.lightning_module, "views", None) if self.trainer else None
        if isinstance(views, PerSample):
            sampler.numbered, samples = True, Viewed(samples, views, seed)
        return self._loader(samples, sampler, sampler.batch_length)

    def draw_evenly_over(self, groups: Tensor) -> None:
        """Draw training samples evenly over groups of them from the next epoch on, whatever the groups' sizes.

        Args:
            groups: Number of the group of every sample of the training part, `(N,)`; those outside `train_indices` do
                not matter.
        """
        self._groups = groups
        if self._sampler is not None:
            self._sampler.groups = groups[self._sampler.indices]

    def evaluation_loader(self, samples: Any, indices: Tensor, batch_size: int | None = None) -> DataLoader[Batch]:
        """Return a loader of this process's share of some samples, in order, each exactly once over all processes.

        Args:
            samples: The data set.
            indices: Which of it, `(N,)`.
            batch_size: Samples a step; null for the module's own.

        Returns:
            A loader that neither pads nor repeats.
        """
        rank, world = self.rank_and_world
        return self._loader(samples, ShareSampler(indices, rank, world), batch_size or self.batch_size)

    def loop_loader(self, samples: Any, indices: Tensor) -> DataLoader[Batch]:
        """Return a loader for Lightning's own loops: where samples are fewer than processes, each process has all."""
        rank, world = self.rank_and_world
        return self._loader(samples, ShareSampler(indices, rank, world, in_step=True), self.batch_size)

    def _loader(self, samples: Any, sampler: Any, batch_size: int) -> DataLoader[Batch]:
        require_picklable(samples, self.num_workers)
        return DataLoader(
            samples,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=partial(keep, part=self._named_part(samples)),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available() and not self.resident,
            generator=derive_generator(self.split_seed, "workers"),  # else every pass would draw from the global one
        )

    def _named_part(self, samples: Any) -> str | None:
        """Return what names the part that a loader's samples are; null for others."""
        while samples is not self.train_samples and getattr(samples, "same_places", False):
            samples = samples.samples  # without other labels, without views
        for split, part in (("train", self.train_samples), ("test", self.test_samples)):
            if samples is part:
                return self.embeddings.name(split)
        return None

    @property
    def epoch(self) -> int | None:
        """The epoch whose order of samples is drawn, the same whether the fit was resumed or not; null before a fit."""
        return None if self._sampler is None else self._sampler.epoch

    def state_dict(self) -> dict[str, Any]:
        """Return how far the fit is, for a checkpoint."""
        if self.trainer is None or self.epoch is None:
            return {"epoch": 0, "batches_done": 0}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        ended = done >= self.trainer.num_training_batches  # then the next epoch is what comes
        return {"epoch": self.epoch + ended, "batches_done": 0 if ended else done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint's epoch stopped."""
        self._resumed = state_dict["epoch"], state_dict["batches_done"]
