"""Random views of image batches, made on their device: each sample is cropped and recoloured by its own draw."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, given, ordered, several, whole
from ssl_lightning.transforms.image import functional
from ssl_lightning.transforms.image.clean import CleanView, check_images, to_float

_SIGMA = (0.1, 2.0)  # pixels: Chen et al. 2020, Appendix A
_DRAWS = [22, 6, 4, 4]  # uniform numbers for each sample: crop, six single ones, jitter strengths, keys of the order
_CHUNK_VALUES = 2**27  # bounds the memory of the temporaries: half a gigabyte each


class ViewParameters(NamedTuple):
    """What one random view does to each sample; all tensors are on the CPU and have ``N`` rows.

    Attributes:
        boxes: Top, left, height and width of the crop in pixels, integer, shape ``(N, 4)``.
        flips: Whether to mirror left to right, boolean, shape ``(N,)``.
        jitters: Whether to jitter the colours, boolean, shape ``(N,)``.
        factors: Brightness, contrast, saturation and hue of the jitter, shape ``(N, 4)``.
        orders: The order of the four, first to last, as numbers 0 to 3, shape ``(N, 4)``.
        grayscales: Whether to turn gray, boolean, shape ``(N,)``.
        blurs: Whether to blur, boolean, shape ``(N,)``.
        sigmas: Standard deviation of the blur in pixels, shape ``(N,)``.
        solarizes: Whether to solarize, boolean, shape ``(N,)``.
    """

    boxes: Tensor
    flips: Tensor
    jitters: Tensor
    factors: Tensor
    orders: Tensor
    grayscales: Tensor
    blurs: Tensor
    sigmas: Tensor
    solarizes: Tensor

    def rows(self, index: Tensor) -> "ViewParameters":
        """Return the parameters of the samples at these positions."""
        return ViewParameters(*(values[index] for values in self))


class RandomView(nn.Module):
    """One random view of each image: crop, flip, colour jitter, grayscale, blur, solarize, normalise, in this order.

    Every sample has its own draw of everything, the order of the four jitter operations included. All random
    numbers are drawn on the CPU, the same number for each sample whether used or not, so that a seed gives the same
    views on every device; the pixels are worked on where they are, in float32 whatever the autocast.

    Args:
        size: Height and width of the view in pixels; None keeps those of the images.
        crop_scale: Smallest and largest area of the crop, as a fraction of the image's; its aspect ratio is from
            3/4 to 4/3. (1, 1) takes the whole image, unless it is longer than that.
        flip: Probability of mirroring left to right.
        jitter: Strength of brightness, contrast, saturation (factor from max(0, 1 - s) to 1 + s) and hue (at most
            0.5 turns).
        jitter_probability: Probability of the jitter, all four together.
        grayscale: Probability of replacing the colours by their luminance.
        blur: Probability of a Gaussian blur of 0.1 to 2 pixels, with an odd kernel of about a tenth of the view, at
            least 3.
        solarize: Probability of inverting the pixels at or above one half.
        mean: What is subtracted at the end, one number or one for each channel, in units of [0, 1].
        std: What is divided by at the end, likewise.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton: A Simple Framework for Contrastive Learning
        of Visual Representations, 2020, arXiv 2002.05709, Appendix A. Solarization: Grill et al., BYOL, 2020, arXiv
        2006.07733, Appendix B. Departures: the arithmetic stays in float32, where torchvision rounds to uint8 after
        each operation; gray images keep their one channel (saturation, hue and grayscale leave them alone); the
        crop covers at least 0.2 of the area (0.08 in the paper) and the jitter is that of MoCo v2, both milder, as
        suits small images. lightly blurs with PIL, whose Gaussian has no kernel of limited size.

    Example:
        >>> view = RandomView(size=8)
        >>> images = torch.randint(256, (4, 3, 32, 24), dtype=torch.uint8)
        >>> view(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        size: int | None = None,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        flip: float = 0.5,
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_probability: float = 0.8,
        grayscale: float = 0.2,
        blur: float = 0.0,
        solarize: float = 0.0,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
    ) -> None:
        whole(1, math.inf, "give null for the size of the images", **given(size=size))
        ordered(0, 1, "(]", "give fractions of the area, as 0.2 and 1.0", crop_scale=crop_scale)
        several(4, 0, math.inf, "[]", "brightness, contrast, saturation and hue", jitter=jitter)
        between(0, 0.5, "[]", "hue is the last of `jitter`, in turns", hue=jitter[3])
        between(0, 1, flip=flip, jitter_probability=jitter_probability, grayscale=grayscale)
        between(0, 1, blur=blur, solarize=solarize)
        super().__init__()
        self.size, self.crop_scale, self.jitter = size, crop_scale, jitter
        self.flip, self.jitter_probability, self.grayscale = flip, jitter_probability, grayscale
        self.blur, self.solarize = blur, solarize
        self.clean = CleanView(mean, std)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a random view of each image.

        Args:
            images: uint8, or float in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
            generator: Of the CPU; None takes torch's global one.

        Returns:
            float32, shape ``(N, C, size, size)``, or ``(N, C, H, W)`` if `size` is None. No gradient reaches the
            images.

        Raises:
            ValueError: If `images` has another shape or type, is too small for the blur, or `generator` is not of
                the CPU.
        """
        check_images(images)
        count, _, height, width = images.shape
        return self.transform(images, self.draw(count, height, width, generator))

    def draw(self, count: int, height: int, width: int, generator: torch.Generator | None = None) -> ViewParameters:
        """Draw the parameters of one view for `count` images of the given height and width in pixels."""
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(
                f"`generator` is on {generator.device}; a CPU one is required, so that all devices draw alike: "
                "use torch.Generator()."
            )
        numbers = torch.rand(count, sum(_DRAWS), generator=generator, device="cpu", dtype=torch.float32)
        crop, single, strengths, keys = torch.split(numbers, _DRAWS, 1)
        flip, jitter, gray, blur, sigma, solarize = single.unbind(1)
        spread = torch.tensor(self.jitter, device="cpu", dtype=torch.float32)
        low = torch.cat([(1 - spread[:3]).clamp(min=0), -spread[3:]])
        high = torch.cat([1 + spread[:3], spread[3:]])
        return ViewParameters(
            boxes=functional.crop_boxes(crop, height, width, self.crop_scale),
            flips=flip < self.flip,
            jitters=jitter < self.jitter_probability,
            factors=low + (high - low) * strengths,
            orders=keys.argsort(1),
            grayscales=gray < self.grayscale,
            blurs=blur < self.blur,
            sigmas=_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * sigma,
            solarizes=solarize < self.solarize,
        )

    @torch.no_grad()
    def transform(self, images: Tensor, parameters: ViewParameters) -> Tensor:
        """Return the views that `parameters` describe: the deterministic part of `forward`.

        With k times as many parameters as images the result is k views of each: all images first by the first N
        parameters, and so on.
        """
        check_images(images)
        height, width = images.shape[2:]
        size = (height, width) if self.size is None else (self.size, self.size)
        kernel_size = max(3, min(size) // 10 | 1)
        if (self.blur or parameters.blurs.any()) and min(size) <= kernel_size // 2:
            raise ValueError(
                f"`blur={self.blur}` needs views of at least 2 x 2 pixels, got {size[0]} x {size[1]}; "
                "set blur=0 or a larger `size`."
            )
        make = self._by_kernel if images.device.type == "cpu" else self._by_operations
        return make(images, parameters, size, kernel_size)

    def _by_kernel(self, images: Tensor, parameters: ViewParameters, size: tuple[int, int], kernel_size: int) -> Tensor:
        """Make one view after the other by compiled code, on the CPU."""
        from ssl_lightning.transforms.image.kernels import make_views  # numba takes half a second to import

        return make_views(images, parameters, size, kernel_size, self.clean.ends(images.shape[1]))

    def _by_operations(
        self, images: Tensor, parameters: ViewParameters, size: tuple[int, int], kernel_size: int
    ) -> Tensor:
        """Make the views by operations on whole batches, as suits a GPU."""
        count, (_, channels, height, width) = len(parameters.flips), images.shape
        output = torch.empty(count, channels, *size, device=images.device, dtype=torch.float32)
        values = count * channels * max(height * width, size[0] * size[1])
        with torch.autocast(images.device.type, enabled=False):
            for index in _by_jitter(parameters).chunk(math.ceil(values / _CHUNK_VALUES)):
                chosen = parameters.rows(index)
                index = onto(index, images.device)
                views = functional.resized_crop(
                    to_float(images.index_select(0, index % len(images))), chosen.boxes, chosen.flips, size
                )
                views = _only(chosen.jitters, functional.color_jitter_, views, chosen.factors, chosen.orders)
                if channels > 1:
                    views = _only(chosen.grayscales, functional.grayscale, views)
                views = _only(chosen.blurs, functional.gaussian_blur, views, chosen.sigmas, kernel_size=kernel_size)
                views = _only(chosen.solarizes, functional.solarize, views)
                functional.put_rows(output, index, self.clean.normalise_(views))
        return output


class SimCLRViews(nn.Module):
    """Several independent random views of each image, by SimCLR's recipe.

    Args:
        count: Views of each image.
        size: Height and width of the views in pixels; None keeps those of the images.
        crop_scale: Smallest and largest area of the crop, as a fraction of the image's.
        flip: Probability of mirroring left to right.
        strength: Strength of the colour jitter: (0.8, 0.8, 0.8, 0.2) times this. 0.5 is the paper's for CIFAR-10, 1 for
            ImageNet.
        grayscale: Probability of replacing the colours by their luminance.
        blur: Probability of a Gaussian blur. 0 is the paper's for CIFAR-10, 0.5 for ImageNet.
        solarize: Probability of inverting the bright pixels (not in SimCLR; BYOL's second view has 0.2).
        mean: What is subtracted at the end, one number or one for each channel, in units of [0, 1].
        std: What is divided by at the end, likewise.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton: A Simple Framework for Contrastive Learning
        of Visual Representations, 2020, arXiv 2002.05709, Appendix A (and B.9 for CIFAR-10). Departures: see
        `RandomView`.

    Example:
        >>> views = SimCLRViews()(torch.zeros(4, 1, 28, 28, dtype=torch.uint8))
        >>> [tuple(view.shape) for view in views]
        [(4, 1, 28, 28), (4, 1, 28, 28)]
    """

    def __init__(
        self,
        count: int = 2,
        size: int | None = None,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        flip: float = 0.5,
        strength: float = 0.5,
        grayscale: float = 0.2,
        blur: float = 0.0,
        solarize: float = 0.0,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
    ) -> None:
        whole(1, count=count)
        between(0, 2.5, "[]", "there the hue turns by up to half a turn", strength=strength)
        super().__init__()
        self.count = count
        self.view = RandomView(
            size=size,
            crop_scale=crop_scale,
            flip=flip,
            jitter=(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength),
            grayscale=grayscale,
            blur=blur,
            solarize=solarize,
            mean=mean,
            std=std,
        )

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return `count` views of each image.

        Args:
            images: uint8, or float in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
            generator: Of the CPU; None takes torch's global one.

        Returns:
            `count` float32 tensors of shape ``(N, C, size, size)``, slices of one.

        Raises:
            ValueError: As `RandomView`.
        """
        check_images(images)
        count, _, height, width = images.shape
        parameters = self.view.draw(self.count * count, height, width, generator)
        return list(self.view.transform(images, parameters).chunk(self.count))


def _by_jitter(parameters: ViewParameters) -> Tensor:
    """Return the samples' positions sorted as `color_jitter_` likes them, those without jitter first."""
    return torch.where(parameters.jitters, functional.jitter_rank(parameters.orders), -1).argsort(stable=True)


def _only(
    chosen: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor, **options: Any
) -> Tensor:
    """Apply the operation to the chosen samples alone, each with its row of the parameters; may overwrite `images`."""
    if not chosen.any():
        return images
    if chosen.all():
        return operation(images, *parameters, **options)
    index = chosen.nonzero()[:, 0]
    changed = operation(
        images.index_select(0, onto(index, images.device)), *(values[index] for values in parameters), **options
    )
    functional.put_rows(images, index, changed)
    return images
