"""Predict the colours of a gray image."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, between, one_of, whole
from ssl_lightning.functional.losses import gather_rows
from ssl_lightning.functional.tally import tally
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews, normalisation
from ssl_lightning.transforms.image.colour import colour_bins, lab_to_rgb, rgb_to_lab, soft_bins


class Colorization(SSLMethod):
    r"""Pretext task: see the lightness of an image, predict its colour at every place.

    .. math:: L = -\frac1{NP} \sum_{i,p} v(z_{ip}) \sum_q z_{ipq} \log \hat z_{ipq}

    over bins q of the colour axes a and b, at P places; z is spread over the 5 nearest bins. v weighs a place by how
    rare its colour is, so that not everything turns gray: it is inverse to the share of its bin in all colours seen,
    smoothed and mixed with the uniform distribution by half, and 1 in the mean.

    Args:
        backbone: The encoder to pretrain; it must keep a feature map, and take colour images: it gets gray ones of
            three equal channels here.
        views: One random view; null for crops and flips.
        predict: `bins` as above, or `regression` of a and b by their squared error, whose colours are paler.
        image_size: Side of the images in pixels; linked from the data on the command line.
        bin_size: Size of a bin, in units of a and b.
        rebalance: Share of the uniform distribution into the shares; 1 weighs all colours alike.
        width: Channels of the decoder.
        temperature: Temperature of the mean of the bins that a picture shows: 1 is the mean, near 0 the mode.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range, or the images have no colour, or the backbone no feature map.

    Reference:
        R. Zhang, P. Isola, A. Efros, Colorful Image Colorization, ECCV 2016, arXiv 1603.08511, Eq. 1 to 5. There the
        shares of the bins are those of ImageNet; here they are counted in the batches as they come.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Colorization(ConvNet(3, width=4), image_size=16)
        >>> _, features = model.backbone.with_map(torch.zeros(2, 3, 16, 16))
        >>> tuple(model.decoder(features).shape) == (2, len(model.bins), 4, 4)  # a colour at every place
        True
    """

    family: ClassVar[str] = "pretext task"
    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        predict: Literal["bins", "regression"] = "bins",
        image_size: int = 32,
        bin_size: int = 10,
        rebalance: float = 0.5,
        width: int = 64,
        temperature: float = 0.38,
        **kwargs: Any,
    ) -> None:
        one_of(("bins", "regression"), predict=predict)
        whole(5, 40, bin_size=bin_size)
        whole(1, image_size=image_size, width=width)
        between(0, 1, "(]", rebalance=rebalance)
        above(0, temperature=temperature)
        views = views or SimCLRViews(count=1, crop_scale=(0.5, 1.0), strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.predict, self.rebalance, self.temperature = predict, rebalance, temperature
        self.bins: Tensor
        self.counts: Tensor
        self.register_buffer("bins", colour_bins(bin_size))
        self.register_buffer("counts", torch.zeros(len(self.bins), dtype=torch.float64))
        channels = self.backbone.init_args.get("channels", 3)
        if channels != 3:
            raise ValueError(
                f"colorization needs colour images: `channels={channels}` must be 3; for gray images take another "
                "pretext task, such as Rotation or Inpainting."
            )
        self.side = max(2, image_size // 4)
        with torch.no_grad():  # the network itself is asked how many channels its map has
            training = self.backbone.training
            _, found = self.backbone.eval().with_map(torch.zeros(1, 3, image_size, image_size))
            self.backbone.train(training)
        outputs = len(self.bins) if predict == "bins" else 2
        self.decoder = nn.Sequential(
            nn.Conv2d(found.shape[1], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Upsample(self.side, mode="bilinear"),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, outputs, 1),
        )  # fmt: skip

    def split(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images apart into lightness and colour.

        Args:
            images: Normalised, `(N, 3, H, W)`.

        Returns:
            What the encoder sees, normalised gray images `(N, 3, H, W)`; L, a and b of the images, `(N, 3, H, W)`.
        """
        mean, std = normalisation(self.clean, images.device)
        with full_precision(images):
            lab = rgb_to_lab((images.float() * std + mean).clamp(0, 1))
            gray = lab_to_rgb(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], dim=1))
        return (gray - mean) / std, lab

    def weights(self) -> Tensor:
        """Return the weight of every bin, `(Q,)` (Eq. 4): the rarer, the larger; 1 in the mean over what was seen."""
        share = self.counts + 1.0
        near = (-torch.cdist(self.bins, self.bins).pow(2) / (2 * 5.0**2)).exp().double()
        share = (near / near.sum(dim=1, keepdim=True)).t() @ (share / share.sum())
        weight = 1 / ((1 - self.rebalance) * share + self.rebalance / len(share))
        return (weight / (share * weight).sum()).float()

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Predict the colours of the view at a quarter of its resolution."""
        if views[0].shape[1] != 3:
            raise ValueError(f"colorization needs colour images, and these have {views[0].shape[1]} channel(s).")
        gray, lab = self.split(views[0])
        embedding, features = self.backbone.with_map(self._format(gray))
        with full_precision(features):
            ab = adaptive_avg_pool2d(lab[:, 1:], self.side)
            predicted = self.decoder(features.float())
            if self.predict == "regression":
                loss = ((predicted - ab / 110) ** 2).mean()  # a and b reach about 110
            else:
                loss = self._cross_entropy(predicted, ab)
        return {"loss": loss, "embedding": embedding}

    def _cross_entropy(self, predicted: Tensor, ab: Tensor) -> Tensor:
        nearest, share = soft_bins(ab.permute(0, 2, 3, 1).reshape(-1, 2), self.bins)
        counts = tally(nearest[:, 0], len(self.bins)).double()
        if self.training:
            self.counts += gather_rows(counts[None]).sum(dim=0)
        log_p = predicted.permute(0, 2, 3, 1).reshape(-1, len(self.bins)).log_softmax(dim=1)
        entropy = -(share * log_p.gather(1, nearest)).sum(dim=1)
        return (self.weights()[nearest[:, 0]] * entropy).mean()

    def colours(self, predicted: Tensor) -> Tensor:
        """Turn what the decoder says into a and b, `(N, 2, h, w)` (Eq. 5, the annealed mean)."""
        if self.predict == "regression":
            return predicted * 110
        share = (predicted.float() / self.temperature).softmax(dim=1)
        return torch.einsum("nqhw,qc->nchw", share, self.bins)

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what the encoder sees, and it coloured by the model, `(N, 3, H, W)` each."""
        gray, lab = self.split(images)
        _, features = self.backbone.with_map(self._format(gray))
        ab = interpolate(self.colours(self.decoder(features)), size=images.shape[-2:], mode="bilinear")
        mean, std = normalisation(self.clean, images.device)
        coloured = lab_to_rgb(torch.cat([lab[:, :1], ab], dim=1))
        return {"images": images, "gray": gray, "coloured": (coloured - mean) / std}
