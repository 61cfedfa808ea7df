"""Mean teacher."""

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ssl_lightning.engine.ranges import between
from ssl_lightning.networks.teacher import Teacher
from ssl_lightning.supervised.semi_supervised import Guess, SemiSupervised


class MeanTeacher(SemiSupervised):
    r"""The model agrees with the average of its former selves, on another weak view of each unlabelled sample.

    With f the student, f' the teacher, whose weights are :math:`\theta' \leftarrow m \theta' + (1 - m) \theta`, and v,
    v' two views

    .. math:: L_{unlabelled} = \frac1{M} \sum_m \lVert softmax f(v_m) - softmax f'(v'_m) \rVert^2

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        momentum: Of the teacher, m; at step t at most (1 + t) / (10 + t).
        weight: Of the unlabelled loss at the end of its rise; the number of classes squared, 100 for ten, in the
            authors' code, over the mean of the squares.
        ramp: Fraction of the fit over which the weight rises from 0.
        kwargs: The other arguments, as for `SemiSupervised` and `Classifier`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        A. Tarvainen, H. Valpola, Mean teachers are better role models: Weight-averaged consistency targets improve
        semi-supervised deep learning results, NeurIPS 2017, arXiv 1703.01780, section 2. Departures: the rise is linear
        and not a sigmoid; squares are summed over classes, not averaged, so that `weight` 10 is their 100 for ten
        classes; what is judged is the average that `recipe` keeps.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = MeanTeacher(num_classes=3, backbone=ConvNet(width=4))
        >>> same = torch.zeros(5, 3)
        >>> float(model.compute_loss(same, same)[0])  # it agrees with its former selves
        0.0
    """

    second_view: ClassVar[Literal["weak", "strong"]] = "weak"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module | None = None,
        momentum: float = 0.99,
        weight: float = 10.0,
        ramp: float = 0.3,
        **kwargs: Any,
    ) -> None:
        between(0, 1, "[)", momentum=momentum)
        super().__init__(num_classes, backbone, weight=weight, ramp=ramp, **kwargs)
        self.momentum = momentum
        self.teacher = Teacher(self.backbone, self.head)

    def on_train_start(self) -> None:
        """Begin with the student's first head."""
        super().on_train_start()
        if not self.global_step:
            self.teacher.follow(0.0, self.backbone, self.head)

    def guess(self, inputs: Any) -> Tensor:
        """Return the teacher's logits."""
        logits: Tensor = self.teacher(inputs)
        return logits

    def compute_loss(self, guesses: Tensor, logits: Tensor) -> Guess:
        """Compute the squared difference of the probabilities."""
        wanted = guesses.softmax(dim=1)
        loss = (logits.softmax(dim=1) - wanted).pow(2).sum(dim=1).mean()
        return Guess(loss, wanted.argmax(dim=1), wanted.new_ones(len(wanted)))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then move the teacher."""
        super().optimizer_step(*args, **kwargs)
        step = self.global_step
        self.teacher.follow(min(self.momentum, (1 + step) / (10 + step)), self.backbone, self.head)
