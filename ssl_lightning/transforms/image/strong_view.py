"""RandAugment on batches: each sample is moved, recoloured and covered by its own draw."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, ordered, whole
from ssl_lightning.transforms.image import functional
from ssl_lightning.transforms.image.clean import CleanView, check_images, to_float

MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_RANGES = {"rotate": 1 / 12, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.3, "translate_y": 0.3}  # turns, shares
_FACTOR = 0.95  # how far from 1 brightness, contrast, saturation and sharpness go


class StrongView(nn.Module):
    """One strong random view: a mild crop, then operations of RandAugment, then a square that is covered.

    Every sample has its own operations and its own strengths, each uniform over its range. Moves of all kinds are one
    affine sampling, and recolouring is done to all samples of an operation at once. All random numbers are drawn on
    the CPU, the same number for each sample, so that a seed gives the same views on every device.

    Args:
        operations: How many operations of RandAugment follow one another; one may come twice.
        cover: Largest side of the square that is covered with gray, as a fraction of the image's; 0 covers nothing.
        crop_scale: Smallest and largest area of the crop that comes first, as a fraction of the image's.
        flip: Probability of mirroring left to right.
        mean: What is subtracted at the end, one number or one for each channel, in units of [0, 1].
        std: What is divided by at the end, likewise.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        E. Cubuk et al., RandAugment, NeurIPS 2020, arXiv 1909.13719, as FixMatch uses it (K. Sohn et al. 2020, arXiv
        2001.07685, appendix D, table 12): strengths are drawn anew for each image; the square is Cutout's (T. DeVries,
        G. Taylor 2017, arXiv 1708.04552). Departures: arithmetic in float32; what moves in from outside is black;
        factors are those of torchvision, from 0.05 to 1.95; shears and translations reach the table's 0.3.

    Example:
        >>> images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        >>> StrongView()(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        operations: int = 2,
        cover: float = 0.5,
        crop_scale: tuple[float, float] = (0.8, 1.0),
        flip: float = 0.5,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
    ) -> None:
        super().__init__()
        whole(0, operations=operations)
        between(0, 1, cover=cover)
        ordered(0, 1, "(]", "give fractions of the area, as 0.8 and 1.0", crop_scale=crop_scale)
        between(0, 1, flip=flip)
        self.operations, self.cover, self.crop_scale, self.flip = operations, cover, crop_scale, flip
        self.clean = CleanView(mean, std)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a strong view of each image.

        Args:
            images: uint8, or float in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
            generator: Of the CPU; None takes torch's global one.

        Returns:
            float32 of the same shape. No gradient reaches the images.

        Raises:
            ValueError: If `images` has another shape or type.
        """
        check_images(images)
        count, _, height, width = images.shape
        numbers = torch.rand(count, 26 + 2 * self.operations, generator=generator, dtype=torch.float32)
        crop, flip, cover, steps = torch.split(numbers, [22, 1, 3, 2 * self.operations], dim=1)
        boxes = functional.crop_boxes(crop, height, width, self.crop_scale)
        with torch.autocast(images.device.type, enabled=False), torch.no_grad():
            views = functional.resized_crop(to_float(images), boxes, flip[:, 0] < self.flip, (height, width))
            for step in steps.view(count, self.operations, 2).unbind(1):
                views = self._operate(views, step[:, 0], 2 * step[:, 1] - 1)
            return self.clean.normalise_(self._cover(views, cover))

    def _operate(self, images: Tensor, which: Tensor, strengths: Tensor) -> Tensor:
        """Do one operation to each image, chosen by `which` in [0, 1), of a strength in [-1, 1), both `(N,)`."""
        names = operations_of(images.shape[1])
        chosen = (which * len(names)).long()
        moved = torch.isin(chosen, torch.tensor([names.index(name) for name in MOVES]))
        _change(images, moved, lambda rows, place: move(rows, [names[n] for n in chosen[place]], strengths[place]))
        for number, name in enumerate(names):
            if name in _COLOUR:
                _change(images, chosen == number, functools.partial(_recolour, _COLOUR[name], strengths))
        return images

    def _cover(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Cover a square of each image with gray; side and centre by uniform `numbers` `(N, 3)`."""
        if not self.cover:
            return images
        height, width = images.shape[2:]
        numbers = onto(numbers, images.device)
        half = numbers[:, :1] * self.cover * min(height, width) / 2
        lines = torch.arange(0.5, height, device=images.device) - numbers[:, 1:2] * height
        columns = torch.arange(0.5, width, device=images.device) - numbers[:, 2:] * width
        inside = (lines.abs() < half)[:, None, :, None] & (columns.abs() < half)[:, None, None, :]
        return images.masked_fill_(inside, 0.5)


def operations_of(channels: int) -> tuple[str, ...]:
    """Name the operations for images of so many channels: gray ones have no saturation."""
    return ("identity", *MOVES, *(name for name in _COLOUR if channels > 1 or name != "saturation"))


def move(images: Tensor, names: Sequence[str], strengths: Tensor) -> Tensor:
    r"""Rotate, shear or translate each image; black moves in.

    Args:
        images: Shape ``(N, C, H, W)``.
        names: Of each image's operation, one of `MOVES`.
        strengths: As a fraction of the range, in [-1, 1], shape ``(N,)``.

    Returns:
        The same shape.

    Example:
        >>> image = torch.eye(4)[None, None]
        >>> move(image, ["translate_x"], torch.tensor([0.25 / 0.3]))[0, 0, 0]  # by a pixel
        tensor([0., 1., 0., 0.])
    """
    height, width = images.shape[2:]
    amounts = strengths * torch.tensor([_RANGES[name] for name in names])
    kinds = {name: torch.tensor([one == name for one in names]) for name in MOVES}
    angle = torch.where(kinds["rotate"], amounts, 0.0) * 2 * torch.pi
    shear_x, shear_y = (torch.where(kinds[name], amounts, 0.0) for name in ("shear_x", "shear_y"))
    matrices = torch.zeros(len(images), 2, 3)
    # `affine_grid` tells where each pixel comes from, in units of half the image
    matrices[:, 0, 0], matrices[:, 1, 1] = angle.cos(), angle.cos()
    matrices[:, 0, 1] = angle.sin() * height / width + shear_x
    matrices[:, 1, 0] = -angle.sin() * width / height + shear_y
    matrices[:, 0, 2] = torch.where(kinds["translate_x"], -2 * amounts, 0.0)
    matrices[:, 1, 2] = torch.where(kinds["translate_y"], -2 * amounts, 0.0)
    grid = F.affine_grid(onto(matrices, images.device, images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _factors(strengths: Tensor) -> Tensor:
    return 1 + _FACTOR * strengths


def _sharpness(images: Tensor, strengths: Tensor) -> Tensor:
    """Blend each image with a smoothed one, as torchvision's `adjust_sharpness`."""
    kernel = images.new_full((3, 3), 1.0)
    kernel[1, 1] = 5
    channels = images.shape[1]
    smooth = F.conv2d(images, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    base = images.clone()
    base[..., 1:-1, 1:-1] = smooth
    factors = onto(_factors(strengths), images.device).view(-1, 1, 1, 1)
    return (base + factors * (images - base)).clamp_(0, 1)


def _posterize(images: Tensor, strengths: Tensor) -> Tensor:
    """Keep 4 to 8 bits of each pixel."""
    bits = onto((6 + 2.5 * strengths).round().clamp(4, 8), images.device).view(-1, 1, 1, 1)
    step = 2 ** (8 - bits)
    return torch.floor(images * 255 / step) * step / 255


def _solarize(images: Tensor, strengths: Tensor) -> Tensor:
    """Invert the pixels above a threshold of 0 to 1."""
    thresholds = onto((1 + strengths) / 2, images.device).view(-1, 1, 1, 1)
    return torch.where(images >= thresholds, 1 - images, images)


def _equalize(images: Tensor, strengths: Tensor) -> Tensor:
    """Make each channel's histogram flat, whatever the strength."""
    flat: Tensor = vision.equalize_image((images * 255).round().to(torch.uint8))
    return flat.to(images) / 255


_COLOUR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, _: vision.autocontrast_image(images),
    "brightness": lambda images, strengths: functional.adjust_brightness(images, _factors(strengths)),
    "contrast": lambda images, strengths: functional.adjust_contrast(images, _factors(strengths)),
    "saturation": lambda images, strengths: functional.adjust_saturation(images, _factors(strengths)),
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "equalize": _equalize,
}


def _recolour(operation: Callable[[Tensor, Tensor], Tensor], strengths: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    return operation(rows, strengths[place])


def _change(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Do an operation to the chosen images alone, in place; it is told their places."""
    if not chosen.any():
        return
    place = chosen.nonzero()[:, 0]
    there = onto(place, images.device)
    images.index_copy_(0, there, operation(images.index_select(0, there), place))
