"""Who answers the queries."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.engine.ranges import between, seeds
from ssl_lightning.engine.seeding import derive_generator


class Oracle(ABC):
    """Answers queries with the names of classes, now or later."""

    name: str = "oracle"

    @abstractmethod
    def answer(self, keys: Sequence[str], data: DataModule) -> list[str | None]:
        """Answer queries.

        Args:
            keys: Of samples of the training part.
            data: Where they are.

        Returns:
            The name of a class for each, or null where the answer is pending.
        """

    def can_answer(self, data: DataModule) -> Tensor:
        """Tell which samples of the training part can be asked for, boolean, `(N,)`; by default all."""
        assert data.train_samples is not None
        return torch.ones(len(data.train_samples), dtype=torch.bool)


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

    def answer(self, keys: Sequence[str], data: DataModule) -> list[str | None]:
        """Answer at once."""
        answers: list[str | None] = []
        for key in keys:
            samples, place = data.find(key)
            truth = int(samples.targets[place])
            if truth < 0:
                raise ValueError(
                    f"the ground-truth oracle has no label for `{key}`: the data are unlabelled there. Use labelled "
                    "data to simulate, or another oracle."
                )
            generator = derive_generator(self.seed, "noise", key)
            wrong = torch.rand((), generator=generator) < self.noise and data.num_classes > 1
            shift = int(torch.randint(1, max(2, data.num_classes), (), generator=generator))
            answers.append(data.class_names[(truth + shift) % data.num_classes if wrong else truth])
        return answers
