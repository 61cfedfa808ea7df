"""CLIP: images and texts that belong together attract, by the softmax of a batch."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above
from ssl_lightning.functional.retrieval import content_ids, gathered, same
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.pairs import Pair, PairViews

SHARPEST = math.log(100)  # of the learnt factor: as in the paper, logits are scaled by 100 at most


class CLIP(SSLMethod):
    r"""Contrast of images with texts: of all pairs in a batch, those that belong together are the most alike.

    With :math:`u_i, v_i` the normalised projections of image and text i, and a learnt temperature :math:`\tau`, the
    loss is the mean of both directions (figure 3 of the paper):

    .. math:: L = -\frac{1}{2N} \sum_i \left[ \log \frac{e^{u_i \cdot v_i / \tau}}{\sum_j e^{u_i \cdot v_j / \tau}} +
        \log \frac{e^{u_i \cdot v_i / \tau}}{\sum_j e^{u_j \cdot v_i / \tau}} \right]

    over the pairs of all processes. A pair with the same image as i, or the same text, would be a false negative: it is
    left out of the sums over j. Logs `train/temperature`, and `val/matching_accuracy`: the share of validation images
    whose own text is the nearest of its batch.

    Args:
        backbone: Encoder of pairs with `encode_image` and `encode_text`, as `TwoTowers`.
        views: One random view; null for mild crops and colours, the text as it is.
        temperature: Temperature that learning begins with; it never falls below 0.01.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the encoder does not encode images and texts apart, or a number is out of its range.

    Reference:
        A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, arXiv
        2103.00020, section 2.3. The images' views are those of `PairViews`, where the paper crops alone.

    Example:
        >>> from ssl_lightning.backbones import TwoTowers
        >>> model = CLIP(TwoTowers(50, image_size=16, text_args={"dim": 16, "depth": 1}, dim=8), temperature=0.07)
        >>> round(float(model.log_scale.detach().exp()), 2)  # 1 / 0.07, and learnt from there
        14.29
    """

    family: ClassVar[str] = "images with text"
    takes: ClassVar[tuple[str, ...]] = ("images with text",)
    view_count: ClassVar[int] = 1

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, temperature: float = 0.07, **kwargs: Any
    ) -> None:
        above(0, temperature=temperature)
        super().__init__(backbone, views or PairViews(count=1, drop=0.0), **kwargs)
        require_towers(self.backbone, "CLIP")
        self.log_scale = nn.Parameter(torch.tensor(min(SHARPEST, -math.log(temperature))))
        self.val_matching = MeanMetric()

    def compute_loss(self, views: Sequence[Pair], batch: Batch) -> Step:
        """Tell each image's text among all, and each text's image."""
        u, v = towers(self.backbone, views[0])
        with full_precision(u):
            loss = clip_loss(u.float(), v.float(), self.log_scale.exp(), *content_ids(batch.input))
        return {"loss": loss, "embedding": torch.cat([u, v], dim=1)}

    def after_step(self) -> None:
        """Keep the temperature from falling too low."""
        with torch.no_grad():
            self.log_scale.clamp_(max=SHARPEST)

    def on_train_batch_end(self, *args: Any) -> None:
        """Log the temperature."""
        self.log("train/temperature", (-self.log_scale.detach()).exp())

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean input, and tell each image's text among those of the batch."""
        found = super().validation_step(batch, batch_idx)
        clean = self.prepare(batch)
        self.val_matching.update(matched(*towers(self.backbone, clean), *content_ids(batch.input)))
        return found

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample."""
        self.log("val/matching_accuracy", self.val_matching)


def clip_loss(u: Tensor, v: Tensor, scale: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """Return the symmetric cross-entropy of a batch, over the pairs of all processes.

    Args:
        u: Of the images, length 1, `(N, d)`.
        v: Of the texts, likewise.
        scale: What similarities are multiplied by, a scalar.
        images: Numbers that tell images apart, `(N,)`.
        texts: Numbers that tell texts apart, `(N,)`.

    Returns:
        The mean over this process's pairs, a scalar.
    """
    start, (all_u, all_v) = gathered(u, v)
    _, (all_images, all_texts) = gathered(images, texts)
    own = start + torch.arange(len(u), device=u.device)
    left_out = same(images, texts, all_images, all_texts)
    left_out[torch.arange(len(u), device=u.device), own] = False
    losses = [
        cross_entropy((scale * one @ every.T).masked_fill(left_out, -torch.inf), own)
        for one, every in ((u, all_v), (v, all_u))
    ]
    return (losses[0] + losses[1]) / 2


def towers(backbone: Any, pairs: Pair) -> tuple[Tensor, Tensor]:
    """Encode clean pairs, image and text apart, `(N, d)` each."""
    return backbone.encode_image(pairs.image), backbone.encode_text(pairs.text)


def require_towers(backbone: nn.Module, method: str) -> None:
    """Refuse an encoder that cannot encode images and texts apart.

    Raises:
        ValueError: If it cannot.
    """
    if not all(callable(getattr(backbone, name, None)) for name in ("encode_image", "encode_text")):
        raise ValueError(
            f"`{method}` needs an encoder with `encode_image` and `encode_text`, and `{type(backbone).__name__}` has "
            "not both; give `--model.backbone TwoTowers`."
        )


def matched(u: Tensor, v: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """Tell for each image whether the nearest text of the batch is its own, or like its own, `(N,)`, float."""
    nearest = (u @ v.T).argmax(dim=1)
    return same(images, texts, images, texts)[torch.arange(len(u), device=u.device), nearest].float()
