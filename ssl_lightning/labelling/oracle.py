"""Who answers the queries."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from ssl_lightning.data.base import ImageData
from ssl_lightning.seeding import derive_generator


class Oracle(ABC):
    """Answers queries with labels, now or later."""

    name: str = "oracle"

    @abstractmethod
    def answer(self, indices: Sequence[int], data: ImageData) -> list[int | None]:
        """Answer queries.

        Args:
            indices: Samples of the training part.
            data: Where they are.

        Returns:
            A class for each, or null where the answer is pending.
        """


class GroundTruth(Oracle):
    """The simulated annotator: knows the data set's own labels.

    Args:
        noise: Fraction of answers that are wrong: a class drawn evenly from the others, the same each time a sample is
            asked.
        seed: Of the noise.

    Raises:
        ValueError: If `noise` is no fraction.
    """

    name = "ground truth"

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise <= 1:
            raise ValueError(f"`noise={noise}` must be a fraction from 0 to 1.")
        self.noise, self.seed = noise, seed

    def answer(self, indices: Sequence[int], data: ImageData) -> list[int | None]:
        """Answer at once."""
        assert data.train_images is not None
        truth = data.train_images.targets[torch.as_tensor(indices, dtype=torch.int64)].tolist()
        if -1 in truth:
            index = indices[truth.index(-1)]
            raise ValueError(
                f"the ground-truth oracle has no label for sample {index}: the data are unlabelled there. Use "
                f"labelled data to "
                "simulate, or another oracle."
            )
        answers: list[int | None] = []
        for index, label in zip(indices, truth, strict=True):
            generator = derive_generator(self.seed, "noise", int(index))
            wrong = torch.rand((), generator=generator) < self.noise and data.num_classes > 1
            shift = int(torch.randint(1, max(2, data.num_classes), (), generator=generator))
            answers.append((label + shift) % data.num_classes if wrong else label)
        return answers
