"""Turning images and cutting them into tiles, batch by batch on their device: what pretext tasks are made of."""

import itertools
import math

import torch
from torch import Tensor

from ssl_lightning.engine.devices import onto


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image by its own number of quarter turns, counter-clockwise.

    Args:
        images: Square, `(N, C, S, S)`.
        quarters: Whole numbers, `(N,)`.

    Returns:
        `(N, C, S, S)`.

    Raises:
        ValueError: If the images are not square.

    Example:
        >>> turn(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([1])).view(-1)
        tensor([1., 3., 0., 2.])
    """
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images of {tuple(images.shape[-2:])} px cannot be turned; crop them to squares.")
    turned = images.clone()
    for quarter in (1, 2, 3):
        which = onto((quarters % 4 == quarter).nonzero()[:, 0], images.device)
        turned[which] = torch.rot90(images[which], quarter, (2, 3))
    return turned


def cut_tiles(images: Tensor, grid: int, gap: int, generator: torch.Generator | None) -> Tensor:
    """Cut each image into grid x grid cells, and out of each cell a tile at a place of its own.

    A tile is `gap` pixels smaller than its cell and lies anywhere in it, so that neighbours do not meet at their edges:
    a line that goes on, or a border, gives no place away.

    Args:
        images: `(N, C, H, W)`; what the grid leaves over at the lower and right rim is not used.
        grid: Cells a side.
        gap: Pixels.
        generator: Of the places; null for the middle of the cells.

    Returns:
        Row by row, `(N, grid * grid, C, tile, tile)`.

    Raises:
        ValueError: If tiles would be smaller than 3 pixels.
    """
    count, channels, height, width = images.shape
    cell = min(height, width) // grid
    tile = cell - gap
    if tile < 3:
        raise ValueError(
            f"`grid={grid}` and `gap={gap}` leave tiles of {max(tile, 0)} px of an image of {min(height, width)} px, "
            f"too small to show anything; they must have 3 px: use images of {grid * (gap + 3)} px"
            + (f", or `gap={cell - 3}`." if cell >= 3 else ", or a smaller `grid` with `Jigsaw`.")
        )
    cells = grid * grid
    if generator is None:
        inner = torch.full((count, cells, 2), gap // 2)
    else:
        inner = torch.randint(gap + 1, (count, cells, 2), generator=generator)
    corner = cell * torch.cartesian_prod(torch.arange(grid), torch.arange(grid)) + inner  # (N, cells, 2)
    rows, columns = (onto(corner[..., axis, None] + torch.arange(tile), images.device) for axis in (0, 1))
    place = rows[..., :, None] * width + columns[..., None, :]  # (N, cells, tile, tile)
    place = place.flatten(1)[:, None].expand(-1, channels, -1)
    found = images.flatten(2).gather(2, place).reshape(count, channels, cells, tile, tile)
    return found.transpose(1, 2)


def lay_tiles(tiles: Tensor, grid: int) -> Tensor:
    """Lay tiles side by side again, row by row.

    Args:
        tiles: `(N, grid * grid, C, tile, tile)`.
        grid: Tiles a side.

    Returns:
        `(N, C, grid * tile, grid * tile)`.
    """
    count, _, channels, tile, _ = tiles.shape
    rows = tiles.reshape(count, grid, grid, channels, tile, tile).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(count, channels, grid * tile, grid * tile)


def normalise_tiles(tiles: Tensor, floor: float = 0.1) -> Tensor:
    """Give every channel of every tile mean 0 and standard deviation 1, so that brightness gives no place away.

    Args:
        tiles: `(..., tile, tile)`.
        floor: Least standard deviation to divide by, of normalised pixels: an even tile stays even.

    Returns:
        The same shape.
    """
    centred = tiles - tiles.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.pow(2).mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=floor)


def distant_permutations(count: int, length: int, seed: int = 0) -> Tensor:
    """Choose permutations that differ in as many places as can be, one after the other.

    Each next one has the largest smallest Hamming distance to those before it; of equals, the largest mean distance.

    Args:
        count: How many, at most the factorial of `length`.
        length: Of a permutation.
        seed: Of the first, and of the 50,000 to choose from where there are more.

    Returns:
        `(count, length)`.

    Raises:
        ValueError: If there are not so many.

    Reference:
        M. Noroozi, P. Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016,
        arXiv 1603.09246, algorithm 1, which maximises the mean distance alone.

    Example:
        >>> chosen = distant_permutations(3, 3)
        >>> int((chosen[0] != chosen[1]).sum()), int((chosen[1] != chosen[2]).sum())
        (3, 3)
    """
    if not 2 <= count <= math.factorial(length):
        raise ValueError(
            f"`permutations={count}` must be from 2 to {math.factorial(length)}, as many as {length} tiles have."
        )
    generator = torch.Generator().manual_seed(seed)
    if length > 9:  # too many to write down
        everything: Tensor = torch.unique(torch.rand(50_000, length, generator=generator).argsort(dim=1), dim=0)
    else:
        everything = torch.tensor(list(itertools.permutations(range(length))))
    if len(everything) > 50_000:
        everything = everything[torch.randperm(len(everything), generator=generator)[:50_000]]
    chosen = [int(torch.randint(len(everything), (1,), generator=generator))]
    least = torch.full((len(everything),), length)
    total = torch.zeros(len(everything), dtype=torch.int64)
    while len(chosen) < count:
        distance = (everything != everything[chosen[-1]]).sum(dim=1)
        least, total = torch.minimum(least, distance), total + distance
        chosen.append(int((least * (length * count + 1) + total).argmax()))
    return everything[chosen]
