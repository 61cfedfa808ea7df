"""Who answers the queries."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.engine.ranges import between, seeds
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.labelling.records import Answer, Query, Reply


class Oracle(ABC):
    """Answers queries with the names of classes, now or later.

    Attributes:
        name: Noted as annotator of what is answered at once.
        external: Whether answers come from outside of the data, as a person's do. Then what the data are labelled with
            counts from the start and is not asked for; classes may be named while the run goes on; and what people
            need to answer by is made for each query: what they see of it, the model's guess, its neighbours.
        address: Where people answer, shown while the run waits; null where nobody does.
    """

    name: str = "oracle"
    external: ClassVar[bool] = False
    address: str | None = None

    @abstractmethod
    def answer(self, keys: Sequence[str], data: DataModule) -> Sequence[Reply]:
        """Answer queries; once for each, unless the run was killed before it was noted.

        Args:
            keys: Of samples of the training part.
            data: Where they are.

        Returns:
            For each the name of a class; `NoLabel.SKIP` or `UNSURE`, where there will be none; null while the answer
            is pending: the run waits for it.
        """

    def collect(self, pending: Sequence[Query], data: DataModule) -> Sequence[Answer]:
        """Return answers that have come since; called twice a second while the run waits, by default none.

        Args:
            pending: Queries without an answer, of all rounds.
            data: Where they are.
        """
        return []

    def cost(self, replies: Sequence[Reply]) -> float:
        """Return what answers cost, in any unit: the run logs the sum as `active/cost`, by default their number.

        Args:
            replies: Names of classes, or refusals; pending ones cost nothing yet.
        """
        return float(sum(reply is not None for reply in replies))

    def can_answer(self, data: DataModule) -> Tensor:
        """Tell which samples of the training part can be asked for, boolean, `(N,)`.

        By default all; of an external oracle those that the data have no label of.
        """
        assert data.train_samples is not None
        if self.external:
            return data.train_samples.targets < 0
        return torch.ones(len(data.train_samples), dtype=torch.bool)

    def open(self, folder: Path, store: str) -> None:  # noqa: B027
        """Get ready to be asked, in the first process, when a run begins or goes on; by default nothing.

        Args:
            folder: Of the run.
            store: URL of its label store.
        """

    def close(self) -> None:  # noqa: B027
        """End what `open` began; by default nothing."""


class GroundTruth(Oracle):
    """The simulated annotator: knows the data set's own labels, and is not asked for what has none.

    Args:
        noise: Fraction of answers that are wrong: a class drawn evenly from the others, the same each time a sample is
            asked.
        seed: Of the noise.

    Raises:
        ValueError: If a number is out of its range.
    """

    name = "ground truth"

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        between(0, 1, noise=noise)
        seeds(seed=seed)
        self.noise, self.seed = noise, seed

    def can_answer(self, data: DataModule) -> Tensor:
        """Tell which samples are labelled in the data."""
        assert data.train_samples is not None
        return data.train_samples.targets >= 0

    def answer(self, keys: Sequence[str], data: DataModule) -> Sequence[Reply]:
        """Answer at once."""
        answers: list[Reply] = []
        for key in keys:
            samples, place = data.find(key)
            truth = int(samples.targets[place])
            if truth < 0:
                raise ValueError(
                    f"the ground-truth oracle has no label for `{key}`: the data are unlabelled there. Use labelled "
                    "data to simulate, or let people label: `--oracle Human --classes cat,dog`."
                )
            generator = derive_generator(self.seed, "noise", key)
            wrong = torch.rand((), generator=generator) < self.noise and data.num_classes > 1
            shift = int(torch.randint(1, max(2, data.num_classes), (), generator=generator))
            answers.append(data.class_names[(truth + shift) % data.num_classes if wrong else truth])
        return answers
