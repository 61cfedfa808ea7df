"""Sets in LitData's chunks, larger than memory, as a data set of torch that `FromDataset` takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset


class Streamed(Dataset[tuple[Any, Any]]):
    """Samples that LitData wrote, by their places: the order, the parts and the resuming are those of all other data.

    A set once written keeps its places, so `keys` numbers the samples; what is appended gets new numbers. Samples are
    drawn evenly over the whole set, not chunk by chunk: it should lie on a disk of the machine, or have room there
    (`max_cache_size`), where LitData keeps the chunks that it fetched.

    Args:
        folder: Where the set lies: a folder, or a URL that LitData knows, as `s3://bucket/set`.
        fields: Names of input and label in a sample, where that is a mapping; else samples are (input, label) already.
        targets: Labels of all samples, so that not every chunk is read for them; null to read them.
        classes: Names of the labels' numbers.
        options: Of `litdata.StreamingDataset`, as `cache_dir` and `max_cache_size`.

    Raises:
        ValueError: If LitData is missing, or there is no such set.

    Example:
        ```python
        images = Streamed("s3://bucket/set", targets=numpy.load("targets.npy"))
        data = FromDataset(images, keys=images.keys, batch_size=256, num_workers=8)
        trainer.fit(SimCLR(ResNet()), datamodule=data)
        ```
    """

    def __init__(
        self,
        folder: str,
        fields: tuple[str, str] = ("input", "label"),
        targets: Sequence[Any] | np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        try:
            from litdata import StreamingDataset
        except ImportError as error:
            raise ValueError('`Streamed` needs LitData: `pip install "ssl-lightning[streaming]"`.') from error
        try:
            self.stream: Any = StreamingDataset(folder, **options)
            self.count = len(self.stream)
        except Exception as error:  # LitData raises many kinds
            raise ValueError(
                f"`folder={folder}` cannot be opened as a set of LitData ({error!s:.200}); write one by "
                "`litdata.optimize`."
            ) from error
        if targets is not None and len(targets) != self.count:
            raise ValueError(f"`targets` has {len(targets)} labels for {self.count} samples; give one for each.")
        self.fields, self.targets, self.classes = fields, targets, classes

    @property
    def keys(self) -> list[str]:
        """The number of each sample, as `FromDataset` takes it."""
        return [str(place) for place in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        sample = self.stream[place]
        if not isinstance(sample, Mapping):
            found: tuple[Any, Any] = tuple(sample)
            return found
        name, label = self.fields
        if name not in sample:
            raise ValueError(f"`fields={self.fields}`: a sample has the fields {', '.join(map(str, sample))}.")
        return sample[name], sample.get(label)
