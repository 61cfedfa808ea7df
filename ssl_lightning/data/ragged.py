"""Sequences of many lengths in memory, without filling any up before a batch needs it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.data.samples import Batch, as_targets
from ssl_lightning.transforms.padded import Padded, inside


class RaggedSamples(Dataset[Batch]):
    """Sequences of many lengths, end to end in one tensor; a batch is `Padded` up to its longest.

    Args:
        values: All sequences, one behind the other, `(sum of lengths, ...)`.
        lengths: Of each, `(N,)`, at least 1.
        targets: Classes `(N,)`; -1 where unknown.
        keys: Of the samples, unique.

    Raises:
        ValueError: If the numbers of sequences, targets and keys differ, or lengths do not add up.

    Example:
        >>> samples = RaggedSamples(torch.tensor([5, 6, 7]), torch.tensor([1, 2]), torch.tensor([0, -1]), ["a", "b"])
        >>> samples.__getitems__([0, 1]).input.values
        tensor([[5, 0],
                [6, 7]])
    """

    def __init__(self, values: Tensor, lengths: Tensor, targets: Tensor, keys: Sequence[str]) -> None:
        self.values, self.targets, self.keys = values, as_targets(targets), keys
        self.lengths = lengths.long()
        counts = sorted({len(self.lengths), len(self.targets), len(self.keys)})
        if len(counts) > 1:
            raise ValueError(f"lengths, targets and keys must be of one number; got {counts}.")
        if len(self.lengths) and (int(self.lengths.min()) < 1 or int(self.lengths.sum()) != len(values)):
            raise ValueError(
                f"lengths from {int(self.lengths.min())} that add up to {int(self.lengths.sum())} do not fit "
                f"{len(values)} values; each sequence has at least one, and they lie end to end."
            )
        self.starts = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        start, length = int(self.starts[index]), self.lengths[index]
        return Batch(Padded(self.values[start : start + int(length)], length), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        length = self.lengths[index]
        total = int(length.max()) if len(length) else 0
        within = inside(length, total)
        rows = self.values.new_zeros(len(index), total, *self.values.shape[1:])
        places = self.starts[index][:, None] + torch.arange(total)
        rows[within.to(rows.device)] = self.values[places[within].to(self.values.device)]
        return Batch(Padded(rows, length.to(rows.device)), self.targets[index], index)

    def move(self, device: Any) -> None:
        """Keep the sequences on a device."""
        self.values = self.values.to(device)
