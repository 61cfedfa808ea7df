"""SigLIP: each image and each text are told to belong together or not, pair by pair."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torchmetrics import MeanMetric

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, between
from ssl_lightning.functional.retrieval import content_ids, gathered, same
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.methods.clip import matched, require_towers, towers
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.pairs import Pair, PairViews


class SigLIP(SSLMethod):
    r"""Contrast of images with texts by a sigmoid for each pair: no softmax over the batch.

    With :math:`u_i, v_j` the normalised projections, :math:`z_{ij}` 1 where image i and text j belong together and -1
    elsewhere, and learnt :math:`t = e^{t'}` and b (Eq. 1 and algorithm 1):

    .. math:: L = -\frac1N \sum_i \sum_j \log \frac{1}{1 + e^{z_{ij} (-t\, u_i \cdot v_j - b)}}

    over the pairs of all processes. Where i and j are different pairs with the same image or the same text, nobody
    knows that they do not belong together: they are left out of the sum. Logs as `CLIP` does.

    Args:
        backbone: Encoder of pairs with `encode_image` and `encode_text`, as `TwoTowers`.
        views: One random view; null for mild crops and colours, the text as it is.
        scale: Factor t that learning begins with.
        bias: Bias b that learning begins with: at first nearly all pairs are none.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the encoder does not encode images and texts apart, or a number is out of its range.

    Reference:
        X. Zhai, B. Mustafa, A. Kolesnikov, L. Beyer, Sigmoid Loss for Language Image Pre-Training, ICCV 2023, arXiv
        2303.15343. Texts are gathered from all processes at once, where the paper passes them around in chunks: the
        same loss, more memory.

    Example:
        >>> from ssl_lightning.backbones import TwoTowers
        >>> model = SigLIP(TwoTowers(50, image_size=16, text_args={"dim": 16, "depth": 1}, dim=8))
        >>> round(model.log_scale.exp().item(), 2), model.bias.item()  # most pairs are no pairs: a bias of -10
        (10.0, -10.0)
    """

    family: ClassVar[str] = "images with text"
    takes: ClassVar[tuple[str, ...]] = ("images with text",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        scale: float = 10.0,
        bias: float = -10.0,
        **kwargs: Any,
    ) -> None:
        above(0, scale=scale)
        between(-1000, 1000, bias=bias)
        super().__init__(backbone, views or PairViews(count=1, drop=0.0), **kwargs)
        require_towers(self.backbone, "SigLIP")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.val_matching = MeanMetric()

    def compute_loss(self, views: Sequence[Pair], batch: Batch) -> Step:
        """Tell of each image and each text whether they belong together."""
        u, v = towers(self.backbone, views[0])
        with full_precision(u):
            loss = siglip_loss(u.float(), v.float(), self.log_scale.exp(), self.bias, *content_ids(batch.input))
        return {"loss": loss, "embedding": torch.cat([u, v], dim=1)}

    def on_train_batch_end(self, *args: Any) -> None:
        """Log the temperature, and the bias."""
        self.log_dict({"train/temperature": (-self.log_scale.detach()).exp(), "train/bias": self.bias.detach()})

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean input, and tell each image's text among those of the batch."""
        found = super().validation_step(batch, batch_idx)
        clean = self.prepare(batch)
        self.val_matching.update(matched(*towers(self.backbone, clean), *content_ids(batch.input)))
        return found

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample."""
        self.log("val/matching_accuracy", self.val_matching)


def siglip_loss(u: Tensor, v: Tensor, scale: Tensor, bias: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """Return the pairwise sigmoid loss of a batch, over the texts of all processes.

    Args:
        u: Of the images, length 1, `(N, d)`.
        v: Of the texts, likewise.
        scale: t, a scalar.
        bias: b, a scalar.
        images: Numbers that tell images apart, `(N,)`.
        texts: Numbers that tell texts apart, `(N,)`.

    Returns:
        The sum over all texts, the mean over this process's images, a scalar.
    """
    start, (every,) = gathered(v)
    _, (all_images, all_texts) = gathered(images, texts)
    rows = torch.arange(len(u), device=u.device)
    left_out = same(images, texts, all_images, all_texts)
    left_out[rows, start + rows] = False
    logits = scale * u @ every.T + bias
    signs = torch.full_like(logits, -1.0)
    signs[rows, start + rows] = 1.0
    return -logsigmoid(signs * logits).masked_fill(left_out, 0.0).sum() / len(u)
