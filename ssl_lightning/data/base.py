"""What every data set has in common: batches by one indexing call, splits with a fixed seed, loaders for any number of ranks."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.data.sampling import ShareSampler, TrainSampler
from ssl_lightning.seeding import base_seed, derive_generator

Stage = Literal["fit", "validate", "test", "predict"]


class Batch(NamedTuple):
    """What every step receives.

    Attributes:
        input: Images `(N, C, H, W)`, uint8 until the module's views; a list of views in a pretraining step.
        target: Classes `(N,)`, int64; -1 where unlabelled.
        index: Positions in the training (or test) set `(N,)`, int64.
    """

    input: Any
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # the word of the contract, over tuple's method


class Images(Protocol):
    """A data set that returns a whole batch by one call of `__getitems__`, with all its targets at hand."""

    targets: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def __getitems__(self, indices: list[int]) -> Batch: ...


class TensorImages(Dataset[Batch]):
    """Images decoded once and kept as one tensor.

    Args:
        images: `(N, C, H, W)`, uint8.
        targets: `(N,)`, int64; -1 where unknown.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return Batch(self.images[index], self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices)
        return Batch(self.images[index], self.targets[index], index)


def keep(batch: Any) -> Any:
    """Collate a batch that `__getitems__` already put together (a module-level function, so that workers can pickle it)."""
    return batch


class ImageData(L.LightningDataModule):
    """Base of the image data modules: a training, a validation and a test part, one `Batch` a step.

    A subclass sets `num_classes`, `channels` and `image_size` in its constructor, cheaply, and decodes in `load`. The
    validation part is drawn from the training part with a fixed seed, before anything else happens to it. Indices in a
    batch are positions in the whole training part (or test part), so they mean the same in every split and round.

    Args:
        batch_size: Samples a step and process.
        val_size: Validation samples drawn from the training part: a number, or a fraction below 1; 0 for none.
        limit: Use so many training samples, drawn with `split_seed`; null for all.
        split_seed: Seed of the validation split and of `limit`. It is not the run's seed: all runs validate on the same samples.
        num_workers: Loader processes; data in memory wants none.
        resident: Keep the decoded images on the training device: no copy a step. They must fit in its memory.

    Raises:
        ValueError: If a number is out of its range, or data that are decoded when needed should be resident.
    """

    num_classes: int
    channels: int
    image_size: int
    class_names: Sequence[str] = ()

    def __init__(
        self,
        batch_size: int = 256,
        val_size: float = 0.1,
        limit: int | None = None,
        split_seed: int = 0,
        num_workers: int = 0,
        resident: bool = False,
    ) -> None:
        super().__init__()
        if resident and num_workers:
            raise ValueError(f"`resident=true` wants `num_workers=0`, got {num_workers}: workers cannot share a device.")
        if batch_size < 1:
            raise ValueError(f"`batch_size={batch_size}` must be at least 1.")
        if val_size < 0 or (val_size >= 1 and val_size != int(val_size)):
            raise ValueError(f"`val_size={val_size}` must be a fraction from 0 to below 1, or a whole number of samples.")
        if limit is not None and limit < 2:
            raise ValueError(f"`limit={limit}` must be at least 2 samples, or null for all.")
        self.batch_size = batch_size
        self.val_size = val_size
        self.limit = limit
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.resident = resident
        self.train_images: Images | None = None
        self.test_images: Images | None = None
        self.train_indices = torch.empty(0, dtype=torch.int64)
        self.val_indices = torch.empty(0, dtype=torch.int64)
        self._batches_done = 0
        self._groups: Tensor | None = None
        self._sampler: TrainSampler | None = None

    @abstractmethod
    def load(self, split: Literal["train", "test"]) -> Images:
        """Decode or open one part.

        Args:
            split: Which.

        Returns:
            The data set; targets are -1 where unlabelled.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load what a stage needs, once, and draw the splits."""
        if self.train_images is None:
            self.train_images = self._checked(self.load("train"), "train")
            self._split(self.train_images.targets)
        if self.test_images is None and stage in ("test", "predict", None):
            self.test_images = self._checked(self.load("test"), "test")

    def _checked(self, images: Images, split: str) -> Images:
        low, high = (int(images.targets.min()), int(images.targets.max())) if len(images) else (-1, -1)
        if low < -1 or high >= self.num_classes:
            raise ValueError(
                f"a label of `{type(self).__name__}` ({split} part) is out of range: found {low} to {high}, required are "
                f"0 to {self.num_classes - 1} (`num_classes={self.num_classes}`), or -1 for unlabelled; mend the labels."
            )
        if self.resident:
            if not isinstance(images, TensorImages):
                raise ValueError("`resident=true` needs decoded images: raise `memory_gib`, or leave it out.")
            if self.trainer is not None:
                images.images = images.images.to(self.trainer.strategy.root_device)
        return images

    def _split(self, targets: Tensor) -> None:
        total = len(targets)
        order = torch.randperm(total, generator=derive_generator(self.split_seed, "split"))
        if self.limit is not None:
            if self.limit > total:
                raise ValueError(f"`limit={self.limit}` exceeds the {total} training samples; lower it.")
            order = order[: self.limit]
        count = int(self.val_size) if self.val_size >= 1 else round(self.val_size * len(order))
        if count >= len(order):
            raise ValueError(f"`val_size={self.val_size}` leaves no training sample of {len(order)}; lower it.")
        labelled = targets[order] >= 0
        if labelled.any():  # unlabelled samples validate nothing
            order = torch.cat([order[labelled], order[~labelled]])
        self.val_indices = order[:count].sort().values
        self.train_indices = order[count:].sort().values

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a shuffled loader of the training part, whose order is a function of seed and epoch."""
        return self.training_loader(self.train_images, self.train_indices)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return a loader of the validation part, or none where it is empty."""
        return self.evaluation_loader(self.train_images, self.val_indices) if len(self.val_indices) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the test part."""
        if self.test_images is None:
            self.setup("test")
        assert self.test_images is not None
        return self.evaluation_loader(self.test_images, torch.arange(len(self.test_images)))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the test part."""
        return self.test_dataloader()

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def training_loader(self, images: Any, indices: Tensor, steps: int | None = None) -> DataLoader[Batch]:
        """Return a shuffled loader of some samples that resumes in the middle of an epoch.

        Args:
            images: The data set.
            indices: Which of it, `(N,)`.
            steps: Steps an epoch; null for one pass over the samples. Samples repeat as often as needed.

        Returns:
            A loader of full batches; the last, incomplete one of a pass is dropped.
        """
        rank, world = self.rank_and_world
        seed = self.trainer.strategy.broadcast(base_seed()) if self.trainer else base_seed()
        sampler = self._sampler = TrainSampler(indices, self.batch_size, steps, seed, rank, world)
        sampler.groups = self._groups[indices] if self._groups is not None else None
        if self.trainer:
            sampler.set_epoch(self.trainer.current_epoch)
        if self._batches_done < sampler.steps:  # at the end of an epoch, Lightning begins the next
            sampler.skip = self._batches_done
        self._batches_done = 0
        return self._loader(images, sampler, sampler.batch_size)

    def draw_evenly_over(self, groups: Tensor) -> None:
        """Draw training samples evenly over groups of them from the next epoch on, whatever the groups' sizes.

        Args:
            groups: Number of the group of every sample of the training part, `(N,)`; those outside `train_indices` do
                not matter.
        """
        self._groups = groups
        if self._sampler is not None:
            self._sampler.groups = groups[self._sampler.indices]

    def evaluation_loader(self, images: Any, indices: Tensor, batch_size: int | None = None) -> DataLoader[Batch]:
        """Return a loader of this process's share of some samples, in order, each exactly once over all processes.

        Args:
            images: The data set.
            indices: Which of it, `(N,)`.
            batch_size: Samples a step; null for the module's own.

        Returns:
            A loader that neither pads nor repeats.
        """
        rank, world = self.rank_and_world
        return self._loader(images, ShareSampler(indices, rank, world), batch_size or self.batch_size)

    def _loader(self, images: Any, sampler: Any, batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            images,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=keep,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available() and not self.resident,
            generator=derive_generator(self.split_seed, "workers"),  # else every pass would draw from the global one
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch is, for a checkpoint."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
        return {"batches_done": progress.current.processed if progress else 0}  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint's epoch stopped."""
        self._batches_done = state_dict["batches_done"]
