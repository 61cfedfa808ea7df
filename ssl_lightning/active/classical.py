"""Strategies that ask no model."""

from typing import ClassVar

import torch
from torch import Tensor

from ssl_lightning.active.strategy import AcquisitionStrategy
from ssl_lightning.evaluation.inference import Rows


class Random(AcquisitionStrategy):
    """Draws the query evenly from the unlabelled samples: the baseline every other strategy must beat.

    Needs no pass over the pool.

    Args:
        query_size: Labels to ask for.
        batch_size: Not used.

    Reference:
        B. Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009, section 1.
    """

    uses_model: ClassVar[bool] = False

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Draw without replacement."""
        return torch.randperm(len(rows["index"]), generator=generator)[: self.query_size]
