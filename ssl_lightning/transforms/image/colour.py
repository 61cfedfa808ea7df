"""Colour as lightness and two colour axes (CIE L*a*b*), and its bins: what colorization predicts."""

from functools import cache

import torch
from torch import Tensor

from ssl_lightning.engine.devices import onto

# sRGB to CIE XYZ under D65 (IEC 61966-2-1), each row divided by the white point's coordinate
_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
_KNEE = 6 / 29


def rgb_to_lab(pixels: Tensor) -> Tensor:
    """Convert sRGB to CIE L*a*b* (D65, 2 degrees).

    Args:
        pixels: In [0, 1], `(N, 3, H, W)`.

    Returns:
        L in [0, 100], a and b in about [-110, 110], `(N, 3, H, W)`.

    Example:
        >>> white = rgb_to_lab(torch.ones(1, 3, 1, 1)).view(-1)
        >>> [abs(round(float(value), 1)) for value in white]
        [100.0, 0.0, 0.0]
    """
    linear = torch.where(pixels > 0.04045, ((pixels + 0.055) / 1.055).pow(2.4), pixels / 12.92)
    xyz = torch.einsum("ij,njhw->nihw", onto(torch.tensor(_TO_XYZ, dtype=pixels.dtype), pixels.device), linear)
    root = torch.where(xyz > _KNEE**3, xyz.clamp(min=1e-8).pow(1 / 3), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = root.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE L*a*b* to sRGB; colours that a screen cannot show are clamped.

    Args:
        lab: As `rgb_to_lab` returns it, `(N, 3, H, W)`.

    Returns:
        In [0, 1], `(N, 3, H, W)`.
    """
    light, a, b = lab.unbind(dim=1)
    y = (light + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(root > _KNEE, root.pow(3), 3 * _KNEE**2 * (root - 4 / 29))
    back = onto(torch.linalg.inv(torch.tensor(_TO_XYZ, dtype=torch.float64)), lab.device, lab.dtype)
    linear = torch.einsum("ij,njhw->nihw", back, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-8).pow(1 / 2.4) - 0.055, 12.92 * linear)


@cache
def _gamut(size: int) -> tuple[tuple[float, float], ...]:
    steps = torch.linspace(0, 1, 52)
    cube = torch.cartesian_prod(steps, steps, steps)
    ab = rgb_to_lab(cube.t().reshape(1, 3, 1, -1))[0, 1:, 0].t()
    bins = torch.unique((ab / size).round(), dim=0) * size
    return tuple((float(a), float(b)) for a, b in bins)


def colour_bins(size: int = 10) -> Tensor:
    """Return the centres of the bins of a and b that hold colours of sRGB.

    Args:
        size: Of a bin, in units of a and b.

    Returns:
        `(Q, 2)`.

    Reference:
        R. Zhang, P. Isola, A. Efros, Colorful Image Colorization, ECCV 2016, arXiv 1603.08511, section 2.1, counts 313
        bins of size 10, some of which hold no colour that sRGB has; we keep those that do.
    """
    return torch.tensor(_gamut(size))


def soft_bins(ab: Tensor, bins: Tensor, neighbours: int = 5, deviation: float = 5.0) -> tuple[Tensor, Tensor]:
    """Spread each colour over the nearest bins, by a Gaussian of its distance.

    Args:
        ab: `(M, 2)`.
        bins: `(Q, 2)`.
        neighbours: How many bins.
        deviation: Of the Gaussian, in units of a and b.

    Returns:
        Positions of the bins, nearest first, and their weights, which sum to 1: `(M, neighbours)` each.

    Reference:
        R. Zhang, P. Isola, A. Efros 2016, arXiv 1603.08511, section 2.1: 5 neighbours, deviation 5.
    """
    distance, nearest = torch.cdist(ab, bins).topk(neighbours, dim=1, largest=False)
    return nearest, (-distance.pow(2) / (2 * deviation**2)).softmax(dim=1)
