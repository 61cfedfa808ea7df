"""The slow copy of a network that momentum methods learn from."""

import copy
import math
from typing import Any

import torch
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn


class Teacher(nn.Module):
    r"""A copy of some modules, applied in turn, that follows them: :math:`\xi \leftarrow m \xi + (1 - m) \theta`.

    Has no gradients. Batch-norm statistics are copied from the student, not averaged.

    Args:
        students: What to copy, first to last.

    Reference:
        K. He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, arXiv 1911.05722,
        Eq. 2.

    Example:
        >>> student = nn.Linear(1, 1, bias=False)
        >>> teacher = Teacher(student)
        >>> before = teacher.nets[0].weight.item()
        >>> student.weight.data += 1.0
        >>> teacher.follow(0.9, student)
        >>> round(teacher.nets[0].weight.item() - before, 4)
        0.1
    """

    def __init__(self, *students: nn.Module) -> None:
        super().__init__()
        self.nets = nn.ModuleList(copy.deepcopy(student) for student in students).requires_grad_(False)

    @torch.no_grad()
    def forward(self, inputs: Any) -> Any:
        """Apply the copies."""
        for net in self.nets:
            inputs = net(inputs)
        return inputs

    @torch.no_grad()
    def follow(self, momentum: float, *students: nn.Module) -> None:
        """Move towards the students by the fraction `1 - momentum`."""
        for net, student in zip(self.nets, students, strict=True):
            update_momentum(student, net, momentum)
            for mine, theirs in zip(net.buffers(), student.buffers(), strict=True):
                mine.copy_(theirs)


def momentum_at(step: int, total: float, start: float, end: float = 1.0) -> float:
    """Return the momentum at a step: a half cosine from `start` to `end`; `start` throughout if `total` is infinite."""
    return start if math.isinf(total) else cosine_schedule(min(step, int(total)), int(total), start, end)
