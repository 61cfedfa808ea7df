"""Supervised contrastive learning."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.models.modules.heads import SimCLRProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, sizes
from ssl_lightning.functional.losses import gather_rows, same_class, supervised_contrastive
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.base import join


class SupCon(SSLMethod):
    r"""Contrastive learning with labels: all views of all samples of one class attract.

    With P(i) the other views of the class of i among the 2N of a batch, the loss of the normalised projections z is
    (Eq. 2)

    .. math:: L = \sum_i \frac{-1}{|P(i)|} \sum_{p \in P(i)} \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \ne i}
        \exp(z_i \cdot z_a / \tau)}

    A sample without a label has its own other view as its only positive, so that without any label this is SimCLR.

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        temperature: Temperature of the softmax, :math:`\tau`; 0.1 as in the paper.
        projection_dim: Size of the projection z.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362. The mean over anchors where
        the paper writes a sum; labels and negatives come from all processes.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = SupCon(ConvNet(width=4))
        >>> batch = Batch(torch.zeros(4), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> views = [torch.zeros(4, 1, 8, 8)] * 2  # all alike: each of 7 others is as near
        >>> round(float(model.eval().compute_loss(views, batch)["loss"]), 3)  # log 7
        1.946
    """

    family: ClassVar[str] = "metric"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        temperature: float = 0.1,
        projection_dim: int = 128,
        **kwargs: Any,
    ) -> None:
        above(0, temperature=temperature)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        super().__init__(backbone, views, **kwargs)
        self.projector = SimCLRProjectionHead(self.backbone.feature_dim, self.backbone.feature_dim, projection_dim)
        self.temperature = temperature

    def on_train_start(self) -> None:
        """Say so where there are no labels."""
        self.tell_missing_labels("every sample has its own views as its only positives, as in SimCLR")

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Pull the views of a class together, push all others away."""
        h = self.backbone(join(views))  # (2 * N, dim)
        with full_precision(h):
            z = gather_rows(self.projector(h.float()))
            same = same_class(gather_rows(batch.target.repeat(len(views))), gather_rows(batch.index.repeat(len(views))))
            loss = supervised_contrastive(z, same, self.temperature)
        return {"loss": loss, "embedding": h[: len(batch.target)]}
