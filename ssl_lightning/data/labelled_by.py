"""Any data with the labels of a table in place of their own: what an active run was told, and no more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Batch, Samples, Shown, Split
from ssl_lightning.engine.csv_files import read_table

COLUMNS = {"path": ("path", "key"), "class": ("class",), "part": ("part",)}


class ChosenSamples(Dataset[Batch]):
    """Some samples of a data set, with other labels; never a copy.

    Args:
        samples: The data set.
        places: Which of it, `(N,)`.
        targets: Their classes `(N,)`; -1 where unlabelled.
    """

    def __init__(self, samples: Samples, places: Tensor, targets: Tensor) -> None:
        self.samples, self.places, self.targets = samples, places, targets
        self.keys: Sequence[str] = [samples.keys[place] for place in places.tolist()]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        return self.samples[int(self.places[index])]._replace(target=self.targets[index], index=torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        batch = self.samples.__getitems__(self.places[index].tolist())
        return batch._replace(target=self.targets[index], index=index)


class LabelledBy(DataModule):
    """Other data whose training labels are those of a table alone, as of a finished run of `active`.

    What the table does not name is unlabelled, whatever the data say. The test part is that of the data, or what the
    table says was set apart to test: such samples are never trained on.

    Args:
        data: The data; those that are labelled, too, count as the table says.
        labels: CSV file with the columns `path` (the sample's key) and `class`, and perhaps `part`: train or test.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If the table cannot be read, or names no training sample of the data.
    """

    def __init__(self, data: DataModule, labels: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data, self.labels = data, labels
        rows = [cells for _, cells in read_table(Path(labels), f"`labels={labels}`", COLUMNS, ["path", "class"])]
        self._told = {row["path"]: row["class"] for row in rows if row["class"]}
        self._test = {row["path"] for row in rows if row.get("part") == "test"}
        names = sorted(set(self._told.values()) - set(data.facts["class_names"]))
        if names:
            data.add_classes(names)
        for name, value in data.facts.items():  # the command line asks for each by name
            setattr(self, name, value)

    @property
    def facts(self) -> dict[str, Any]:
        """What a model must know of the data."""
        self._name_classes()
        return {**self.data.facts, "num_classes": self.num_classes, "class_names": self.class_names}

    def prepare_data(self) -> None:
        """Let the data prepare."""
        self.data.prepare_data()

    def load(self, split: Split) -> Samples:
        """Return one part with the table's labels."""
        self.data.setup("test" if split == "test" and not self._test else "fit")
        if split == "test" and not self._test:
            assert self.data.test_samples is not None
            return self.data.test_samples
        samples = self.data.train_samples
        assert samples is not None
        numbers = {name: number for number, name in enumerate(self.class_names)}
        told = torch.tensor([numbers.get(self._told.get(key, ""), -1) for key in samples.keys], dtype=torch.int64)
        test = torch.tensor([key in self._test for key in samples.keys], dtype=torch.bool)
        places = (test if split == "test" else ~test).nonzero()[:, 0]
        if split == "train":
            self._require_known(samples, told[places])
        return ChosenSamples(samples, places, told[places])

    def _require_known(self, samples: Samples, targets: Tensor) -> None:
        lost = self._told.keys() - set(samples.keys)
        if not bool((targets >= 0).any()):
            raise ValueError(
                f"`labels={self.labels}` names no training sample of `{type(self.data).__name__}`: its first path is "
                f"`{next(iter(self._told), '')}`, the key of a sample `{next(iter(samples.keys), '')}`; give keys of "
                "these data."
            )
        if lost:
            rank_zero_warn(f"`labels={self.labels}`: {len(lost)} paths are of no sample, such as `{min(lost)}`.")

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

    def show(self, key: str) -> Shown:
        """Return what a person sees of a sample."""
        return self.data.show(key)

    def path_of(self, key: str) -> str | None:
        """Return the file of a sample."""
        return self.data.path_of(key)

    def fingerprint(self, key: str) -> str | None:
        """Return what tells a sample's content."""
        return self.data.fingerprint(key)

    def save(self, folder: Path) -> None:
        """Let the data write what belongs to them."""
        self.data.save(folder)
