"""Self-distillation with no labels."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.loss import DINOLoss
from lightly.models.modules.heads import DINOProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, between, sizes
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.networks.teacher import Teacher, momentum_at


class DINO(SSLMethod):
    r"""Every view predicts the slow copy's soft assignment of the large crops, which is centred and sharpened.

    With :math:`P_t = softmax((g_t - c) / \tau_t)` of a large crop and :math:`P_s = softmax(g_s / \tau_s)` of any other
    crop, summed over all such pairs (Eq. 1, 3 and 4)

    .. math:: L = -\sum P_t \log P_s, \qquad c \leftarrow m c + (1 - m) \overline{g_t}

    Centring alone would make all outputs even, sharpening alone would make them one-hot: together they do neither.

    Args:
        backbone: The encoder to pretrain; must take input of the small crops' size.
        views: The first two are large crops; null for those of the data.
        outputs: Dimensions of g; 65,536 on ImageNet.
        student_temperature: Temperature of the student, :math:`\tau_s`.
        teacher_temperature: Temperature of the teacher, :math:`\tau_t`, reached after `temperature_warmup`, from 0.04.
        temperature_warmup: Fraction of all steps over which the teacher's temperature rises.
        momentum: Momentum of the teacher at the start; it rises to 1 by a half cosine.
        hidden_dim: Size of the hidden layers of the head.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        M. Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, arXiv 2104.14294. Heads
        and loss are lightly's; the head has batch norm, as the authors advise for convolutional networks; the last
        layer is held fixed in the first epoch. The warm-up is by the step.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = DINO(ConvNet(width=4), outputs=16)
        >>> model.projector(model.embed(torch.rand(3, 1, 8, 8))).shape  # soft classes that nobody named
        torch.Size([3, 16])
    """

    family: ClassVar[str] = "non-contrastive"
    local_count: ClassVar[int] = 4

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        outputs: int = 1024,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.06,
        temperature_warmup: float = 0.3,
        momentum: float = 0.99,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        sizes(2, outputs=outputs)
        sizes(1, hidden_dim=hidden_dim)
        above(0, student_temperature=student_temperature, teacher_temperature=teacher_temperature)
        between(0, 1, temperature_warmup=temperature_warmup, momentum=momentum)
        super().__init__(backbone, views, **kwargs)
        self.momentum = momentum
        self.teacher_temperature, self.temperature_warmup = teacher_temperature, temperature_warmup
        with torch.no_grad():  # weight norm would leave a tensor of the graph behind, which cannot be copied
            self.projector = DINOProjectionHead(
                self.backbone.feature_dim, hidden_dim, 256, outputs, batch_norm=True, freeze_last_layer=1
            )
        self.criterion = DINOLoss(outputs, student_temp=student_temperature)
        self.teacher = Teacher(self.backbone, self.projector)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Let every view predict the teacher's assignments of the first two."""
        h = [self.backbone(view) for view in views]
        targets = [self.teacher(view).float() for view in views[:2]]
        with full_precision(h[0]):
            outputs = [self.projector(rows.float()) for rows in h]
            loss = self.criterion(targets, outputs, teacher_temp=self.sharpness())
        return {"loss": loss, "embedding": h[0]}

    def sharpness(self) -> float:
        """Return the teacher's temperature at this step."""
        start = min(0.04, self.teacher_temperature)
        steps = self.temperature_warmup * self.total_steps if self._trainer else 0.0
        done = min(1.0, self.global_step / steps) if steps > 0 else 1.0
        return start + (self.teacher_temperature - start) * done

    def on_after_backward(self) -> None:
        """Hold the last layer fixed in the first epoch."""
        self.projector.cancel_last_layer_gradients(self.current_epoch)

    def after_step(self) -> None:
        """Let the teacher follow."""
        momentum = momentum_at(self.global_step, self.total_steps, self.momentum)
        self.teacher.follow(momentum, self.backbone, self.projector)
