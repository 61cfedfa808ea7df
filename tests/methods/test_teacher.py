import copy
import math
from typing import Any

import pytest
import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import BYOL, DINO, MoCo
from ssl_lightning.networks.teacher import Teacher, momentum_at


def test_follows_parameters_and_copies_statistics() -> None:
    student = ConvNet(width=2)
    teacher = Teacher(student)
    before = copy.deepcopy(teacher.nets[0].state_dict())
    for parameter in student.parameters():
        parameter.data.add_(1.0)
    student(torch.randn(4, 1, 8, 8))  # batch statistics move
    teacher.follow(0.75, student)
    after, theirs = teacher.nets[0].state_dict(), student.state_dict()
    for name in dict(student.named_parameters()):
        torch.testing.assert_close(after[name], 0.75 * before[name] + 0.25 * theirs[name])
    for name in dict(student.named_buffers()):
        assert torch.equal(after[name], theirs[name])
    assert not torch.equal(after["blocks.1.running_mean"], before["blocks.1.running_mean"])


def test_has_no_gradient_and_is_no_student() -> None:
    student = torch.nn.Linear(3, 2)
    teacher = Teacher(student)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(torch.randn(4, 3, requires_grad=True)).requires_grad
    student.weight.data.zero_()
    assert teacher.nets[0].weight.abs().sum() > 0  # type: ignore[operator,union-attr]


def test_momentum_rises_by_a_half_cosine() -> None:
    values = [momentum_at(step, 101, 0.9) for step in range(101)]
    assert values == pytest.approx([1 - 0.1 * (math.cos(math.pi * step / 100) + 1) / 2 for step in range(101)])
    assert momentum_at(7, math.inf, 0.9) == 0.9
    assert momentum_at(500, 101, 0.9) == 1.0


@pytest.mark.parametrize("kind", [BYOL, DINO, MoCo])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_moves_once_after_every_optimizer_step(kind: Any, accumulate: int, trainer: Any) -> None:
    """Also where gradients are accumulated; the optimizer never touches it."""
    moves: list[int] = []

    class Watched(kind):  # type: ignore[misc]
        def after_step(self) -> None:
            moves.append(self.trainer.fit_loop.epoch_loop.total_batch_idx)
            super().after_step()

    model = Watched(ConvNet(width=4), momentum=1.0, optimizer=OptimizerSpec(lr=0.1))
    before = copy.deepcopy(model.teacher.nets[0].state_dict())
    fit = trainer(max_steps=3, accumulate_grad_batches=accumulate)
    fit.fit(model, datamodule=Digits(batch_size=64))
    assert moves == [accumulate * step + accumulate - 1 for step in range(3)]
    for name, _ in ConvNet(width=4).named_parameters():  # momentum 1: it stays
        assert torch.equal(model.teacher.nets[0].state_dict()[name], before[name])
    assert not torch.equal(model.backbone.blocks[0].weight, before["blocks.0.weight"])
