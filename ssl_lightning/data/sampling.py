"""Which samples go to which process, as pure functions of seed, epoch and rank, and whether they can go there."""

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from ssl_lightning.engine.seeding import derive_generator


class Unlabelled(NamedTuple):
    """Samples that come with the labelled ones in every training batch, behind them.

    Attributes:
        indices: Of the samples, `(N,)`.
        ratio: How many come with each labelled one.
    """

    indices: Tensor
    ratio: int


class TrainSampler(DistributedSampler[int]):
    """Shuffled samples in full batches, repeated as often as an epoch is long.

    Each epoch is a fixed number of steps, so that ten labels and ten thousand train alike. Step by step, the global
    batch is the same for any number of processes; each takes its part. It is a `DistributedSampler` by type, since
    Lightning replaces any other in a distributed run, and a checkpoint needs no more than `skip` to continue in
    mid-epoch.

    Args:
        indices: Samples, `(N,)`.
        batch_size: Samples a step and process; fewer if there are fewer samples and `steps` is null.
        steps: Steps an epoch, or null for as many full batches as one pass holds.
        seed: Base seed; the order is a function of it and the epoch.
        rank: Of this process.
        world: Number of processes.
        unlabelled: Further samples of every batch, which has `batch_size * (1 + ratio)` samples then; an epoch without
            `steps` is one pass over these. Null for none.

    Raises:
        ValueError: If there is no sample for each process.

    Example:
        >>> list(TrainSampler(torch.arange(3), 2, steps=3, seed=0))  # two passes, each a permutation
        [2, 1, 0, 0, 1, 2]
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        steps: int | None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        super().__init__(range(len(indices)), num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]
        if len(indices) < world:
            raise ValueError(
                f"{len(indices)} training samples are too few for {world} process(es); label more, or use fewer "
                "`devices`."
            )
        self.indices, self.unlabelled = indices, unlabelled
        if steps is None and unlabelled is not None:
            steps = max(1, len(unlabelled.indices) // (batch_size * unlabelled.ratio * world))
        elif steps is None:
            batch_size = min(batch_size, len(indices) // world)
            steps = len(indices) // (batch_size * world)
        self.batch_size, self.steps, self.skip = batch_size, steps, 0
        self._ahead = 0  # of Lightning's count of epochs
        self._steps_done: Callable[[], int] | None = None  # of the fit, where it was resumed
        self._steps_before = 0
        self.numbered = False  # yield pairs of a sample and the number of its draw, which no other of the fit has
        self.groups: Tensor | None = None  # of each of the indices: samples are then drawn evenly over the groups

    def go_on(self, epoch: int, skip: int, steps_done: Callable[[], int]) -> None:
        """Go on where a checkpoint stopped; until a step is taken, Lightning may count any epoch, or an empty one.

        Args:
            epoch: The epoch to go on in.
            skip: Steps of it that are done.
            steps_done: Tells how many steps the fit has taken.
        """
        self.epoch, self.skip = epoch, skip
        self._steps_done, self._steps_before = steps_done, steps_done()

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, by Lightning's count."""
        if self._steps_done is not None and self._steps_done() == self._steps_before:
            self._ahead = self.epoch - epoch
        self.epoch = epoch + self._ahead

    def __iter__(self) -> Iterator[Any]:
        mine = self._drawn(self.indices, self.batch_size, "order", self.groups)
        if self.unlabelled is not None:
            others, ratio = self.unlabelled
            mine = torch.cat([mine, self._drawn(others, self.batch_size * ratio, "unlabelled")], dim=1)
        step = self.batch_length
        numbers = torch.arange(self.steps * step * self.num_replicas).view(self.steps, self.num_replicas, step)
        numbers = numbers[self.skip :, self.rank].flatten() + self.epoch * self.steps * step * self.num_replicas
        self.skip = 0
        order = mine.flatten().tolist()
        return zip(order, numbers.tolist(), strict=True) if self.numbered else iter(order)

    def _drawn(self, indices: Tensor, size: int, purpose: str, groups: Tensor | None = None) -> Tensor:
        """Draw this process's part of the epoch's steps that are left, `(steps, size)`, of all samples in turn."""
        need = self.steps * size * self.num_replicas
        generator = derive_generator(self.seed, purpose, self.epoch)
        if groups is None:
            passes = -(-need // len(indices))
            order = torch.cat([torch.randperm(len(indices), generator=generator) for _ in range(passes)])[:need]
        else:
            order = draw_evenly(groups, need, generator)
        return indices[order.view(self.steps, self.num_replicas, size)[self.skip :, self.rank]]

    @property
    def batch_length(self) -> int:
        """Samples of a batch, the unlabelled ones included."""
        return self.batch_size * (1 + (0 if self.unlabelled is None else self.unlabelled.ratio))

    def __len__(self) -> int:
        return self.steps * self.batch_length


class ShareSampler(DistributedSampler[int]):
    """Every `world`-th sample: each exactly once over all processes, none padded in.

    Args:
        indices: Samples, `(N,)`.
        rank: Of this process.
        world: Number of processes.
        in_step: Where there are fewer samples than processes, give each process all of them: Lightning's loops want at
            least a batch in each, and a mean over all processes stays what it is.

    Example:
        >>> [list(ShareSampler(torch.tensor([4, 5, 9]), rank, world=2)) for rank in range(2)]
        [[4, 9], [5]]
    """

    def __init__(self, indices: Tensor, rank: int = 0, world: int = 1, in_step: bool = False) -> None:
        super().__init__(range(len(indices)), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.share = indices.tolist() if in_step and len(indices) < world else indices[rank::world].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


def draw_evenly(groups: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw positions with replacement, so that every group is as likely as any other.

    Args:
        groups: Group of each position, `(N,)`, from 0; some may be empty.
        count: Positions to draw.
        generator: Of the CPU.

    Returns:
        Positions `(count,)`.

    Example:
        >>> groups = torch.tensor([0] * 98 + [2] * 2)
        >>> drawn = groups[draw_evenly(groups, 1000, torch.Generator().manual_seed(0))]
        >>> 450 < int((drawn == 2).sum()) < 550
        True
    """
    order = groups.argsort(stable=True)
    sizes = torch.bincount(groups)
    starts = sizes.cumsum(0) - sizes
    full = sizes.nonzero()[:, 0]
    drawn = full[torch.randint(len(full), (count,), generator=generator)]
    within = (torch.rand(count, generator=generator, dtype=torch.float64) * sizes[drawn]).long()
    return order[starts[drawn] + within]


class _Probe(ForkingPickler):
    """Pickles as for a loader's process, all but numbers, into nothing."""

    def __init__(self) -> None:
        super().__init__(self)

    def write(self, data: Any) -> int:
        return len(data)

    def persistent_id(self, part: Any) -> str | None:
        return "numbers" if isinstance(part, Tensor | np.ndarray) else None


def require_picklable(samples: Any, num_workers: int) -> None:
    """Refuse a data set that cannot be handed to loader processes, where those do not inherit it.

    Args:
        samples: The data set.
        num_workers: Loader processes.

    Raises:
        ValueError: If it cannot be pickled, and processes are started by `spawn` or `forkserver`.
    """
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if not num_workers or method == "fork":
        return
    try:
        _Probe().dump(samples)
    except Exception as error:  # strangers' objects raise whatever they like
        raise ValueError(
            f"`num_workers={num_workers}` starts processes by `{method}`, to which data set and views must be pickled, "
            f"and they cannot be: {error!s:.200}. Put functions of a module in place of lambdas, open files and "
            "connections when they are first read, or give `num_workers=0`."
        ) from error
