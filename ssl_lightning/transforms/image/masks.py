"""Which parts of an image are hidden: a draw of its own for every sample."""

import torch
from torch import Tensor


def patch_masks(count: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw, for each sample, which of its patches are hidden: the same number of each.

    Args:
        count: Samples.
        patches: Of a sample.
        ratio: Share of them to hide.
        generator: On the CPU.

    Returns:
        Boolean, `(count, patches)`; true where hidden, in exactly `round(ratio * patches)` places a row.

    Raises:
        ValueError: If nothing would be hidden, or nothing left.

    Example:
        >>> patch_masks(3, 16, 0.75, torch.Generator()).sum(dim=1)
        tensor([12, 12, 12])
    """
    hidden = round(ratio * patches)
    if not 0 < hidden < patches:
        raise ValueError(
            f"`mask_ratio={ratio}` hides {hidden} of {patches} patches; hide at least one and leave at least one."
        )
    order = torch.rand(count, patches, generator=generator).argsort(dim=1)
    return torch.zeros(count, patches, dtype=torch.bool).scatter_(1, order[:, :hidden], True)


def centre_masks(count: int, size: int, share: float) -> Tensor:
    """Hide the square in the middle.

    Args:
        count: Samples.
        size: Side of the images in pixels.
        share: Of the side, that the square has.

    Returns:
        Boolean, `(count, 1, size, size)`; true where hidden.

    Example:
        >>> int(centre_masks(1, 8, 0.5).sum())
        16
    """
    side = max(1, round(share * size))
    begin = (size - side) // 2
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    masks[:, :, begin : begin + side, begin : begin + side] = True
    return masks


def block_masks(count: int, size: int, area: float, generator: torch.Generator, blocks: int = 5) -> Tensor:
    """Hide some squares at random places, which may overlap.

    Args:
        count: Samples.
        size: Side of the images in pixels.
        area: Share of the image that all squares together would cover if they did not overlap.
        generator: On the CPU.
        blocks: Squares of each image.

    Returns:
        Boolean, `(count, 1, size, size)`; true where hidden.

    Example:
        >>> masks = block_masks(2, 32, 0.25, torch.Generator().manual_seed(0))
        >>> bool((masks.float().mean(dim=(1, 2, 3)) <= 0.25).all())
        True
    """
    side = max(1, int(size * (area / blocks) ** 0.5))
    corner = torch.randint(size - side + 1, (count, blocks, 2), generator=generator)
    place = torch.arange(size)
    within = (place >= corner[..., None]) & (place < corner[..., None] + side)  # (count, blocks, 2, size)
    return (within[:, :, 0, :, None] & within[:, :, 1, None, :]).any(dim=1)[:, None]
