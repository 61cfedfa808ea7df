"""Predict by how much an image was turned."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.tiles import turn


class Rotation(SSLMethod):
    r"""Pretext task: turn every image by 0, 90, 180 and 270 degrees, and predict by how much.

    .. math:: L = -\frac{1}{4N} \sum_i \sum_{r=0}^{3} \log p_r(\mathrm{turn}(x_i, 90 r))

    Quarter turns need no interpolation and leave no border, so that only what the image shows tells them apart.

    Args:
        backbone: The encoder to pretrain.
        views: One random view; null for crops, flips and a little colour jitter.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        S. Gidaris, P. Singh, N. Komodakis, Unsupervised Representation Learning by Predicting Image Rotations, ICLR
        2018, arXiv 1803.07728, Eq. 3. All four turns of an image are in one batch, as recommended there.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Rotation(ConvNet(width=4))
        >>> model.head(model.embed(torch.rand(3, 1, 8, 8))).shape  # 0, 90, 180 or 270 degrees
        torch.Size([3, 4])
    """

    family: ClassVar[str] = "pretext task"
    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(self, backbone: Backbone, views: nn.Module | None = None, **kwargs: Any) -> None:
        views = views or SimCLRViews(count=1, crop_scale=(0.5, 1.0), strength=0.25, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.head = nn.Linear(self.backbone.feature_dim, 4)

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Turn the view, and classify the turns."""
        view = views[0]
        labels = torch.arange(4).repeat_interleave(len(view))
        h = self.backbone(self._format(turn(view.repeat(4, 1, 1, 1), labels)))
        labels = onto(labels, h.device)
        with full_precision(h):
            logits = self.head(h.float())
            loss = cross_entropy(logits, labels)
        self.log("train/pretext_accuracy", (logits.argmax(dim=1) == labels).float().mean(), sync_dist=True)
        return {"loss": loss, "embedding": h[: len(view)]}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return images turned by a draw, and turned back by what the model says: upright where it is right."""
        turned = turn(images, torch.randint(4, (len(images),), generator=generator))
        guess = self.head(self.embed(turned)).argmax(dim=1)
        return {"turned": turned, "turned back": turn(turned, 4 - guess.cpu())}
