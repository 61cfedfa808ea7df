"""The view for evaluation, and how to undo it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_lightning.engine.devices import onto
from ssl_lightning.transforms.base import Clean


class CleanView(Clean):
    """The view for evaluation: pixels to float, normalised; nothing random.

    The result is ``(x - mean) / std`` with ``x`` in [0, 1].

    Args:
        mean: What is subtracted, one number or one for each channel, in units of the pixel range [0, 1].
        std: What is divided by, likewise; positive.

    Raises:
        ValueError: If `mean` or `std` is not finite, `std` is not positive, or their length is neither 1 nor the
            channels'.

    Example:
        >>> CleanView()(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2))
        tensor([[[[-2.,  2.]]]])
    """

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25) -> None:
        means, stds = _per_channel("mean", mean), _per_channel("std", std)
        super().__init__(mean=list(means), std=list(stds))
        self.mean, self.std = means, stds

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the normalised images.

        Args:
            images: uint8, or float in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
            generator: Not used; here so that every view is called alike.

        Returns:
            float32, shape ``(N, C, H, W)``.

        Raises:
            ValueError: If `images` has another shape or type.
        """
        check_images(images)
        return self.normalise_(to_float(images, copy=True))

    def normalise_(self, images: Tensor) -> Tensor:
        """Make ``(images - mean) / std`` of float images ``(N, C, H, W)``, in place."""
        mean, std = self.ends(images.shape[1])
        if len(self.mean) == len(self.std) == 1:  # Python numbers: nothing to copy to the device
            return images.sub_(self.mean[0]).div_(self.std[0])
        mean, std = (onto(values, images.device, images.dtype).view(-1, 1, 1) for values in (mean, std))
        return images.sub_(mean).div_(std)

    def ends(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return what is subtracted and divided by, one number for each channel, ``(channels,)`` each.

        Raises:
            ValueError: If they were given for another number of channels.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"`{name}={values}` has {len(values)} numbers for images of {channels} channels; "
                    "give one number, or one for each channel."
                )
        mean, std = (torch.tensor(values).expand(channels).contiguous() for values in (self.mean, self.std))
        return mean, std


def normalisation(clean: nn.Module | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what an evaluation transform subtracts and divides by, to undo it.

    Args:
        clean: A `CleanView`.
        device: Of the answer.

    Returns:
        Mean and standard deviation, `(1 or C, 1, 1)` each.

    Raises:
        ValueError: If it is another transform, which nobody knows how to undo.
    """
    if not isinstance(clean, CleanView):
        raise ValueError(
            f"`clean={type(clean).__name__}` cannot be undone, as making pixels needs; give a `CleanView` with your "
            "mean and std."
        )
    mean, std = (onto(torch.tensor(values), device).view(-1, 1, 1) for values in (clean.mean, clean.std))
    return mean, std


def to_float(images: Tensor, copy: bool = False) -> Tensor:
    """Return images as float32, uint8 ones in [0, 1]; those that are float32 as they are, or a copy."""
    floats = images.to(torch.float32, copy=copy)
    return floats if images.is_floating_point() else floats.div_(255)


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of images."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"`images` of shape {tuple(images.shape)} must be (N, C, H, W) with 1 (gray) or 3 (RGB) channels; "
            "drop an alpha channel by images[:, :3], add a missing dimension by unsqueeze, and put the channels first."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"`images` of type {images.dtype} must be uint8, or float in [0, 1]; convert them first.")


def _per_channel(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    try:
        values = (float(value),) if isinstance(value, int | float) else tuple(float(number) for number in value)
    except (TypeError, ValueError):  # no numbers at all
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
        sign = "positive " if name == "std" else ""
        raise ValueError(f"`{name}={value}` must be one finite {sign}number, or one for each of three channels.")
    return values
