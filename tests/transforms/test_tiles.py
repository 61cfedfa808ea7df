"""Turns, tiles and permutations: invariants, brute force, and no shortcut."""

import itertools

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor

from ssl_lightning.transforms.image.tiles import cut_tiles, distant_permutations, lay_tiles, normalise_tiles, turn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_turned_back_it_is_the_image() -> None:
    images, quarters = torch.randn(12, 3, 9, 9), torch.arange(12) % 4
    turned = turn(images, quarters)
    assert torch.equal(turn(turned, 4 - quarters), images)
    assert torch.equal(turn(images, 4 * quarters), images)
    for image, other, quarter in zip(images, turned, quarters, strict=True):
        assert torch.equal(other, torch.rot90(image, int(quarter), (1, 2)))
    with pytest.raises(ValueError, match=r"images of \(4, 5\) px cannot be turned"):
        turn(torch.zeros(1, 1, 4, 5), torch.tensor([0]))


@pytest.mark.parametrize(("grid", "gap", "size"), [(2, 0, 8), (3, 2, 32), (3, 1, 25)])
def test_every_tile_is_a_piece_of_its_own_cell(grid: int, gap: int, size: int) -> None:
    """Found by looking for it: pixels are all different."""
    images = torch.arange(5 * 2 * size * size).reshape(5, 2, size, size).float()
    tiles = cut_tiles(images, grid, gap, generator())
    cell = size // grid
    tile = cell - gap
    assert tiles.shape == (5, grid * grid, 2, tile, tile)
    seen = set()
    for sample, place in itertools.product(range(5), range(grid * grid)):
        first = int(tiles[sample, place, 0, 0, 0]) - sample * 2 * size * size
        row, column = divmod(first, size)
        assert torch.equal(tiles[sample, place], images[sample, :, row : row + tile, column : column + tile])
        top, left = row - place // grid * cell, column - place % grid * cell
        assert 0 <= top <= gap
        assert 0 <= left <= gap
        seen.add((top, left))
    assert len(seen) == (gap + 1) ** 2


def test_without_gap_the_tiles_are_the_image() -> None:
    images = torch.randn(3, 2, 12, 12)
    tiles = cut_tiles(images, 3, 0, None)
    rows = [torch.cat(list(tiles[:, 3 * row : 3 * row + 3].unbind(1)), dim=3) for row in range(3)]
    assert torch.equal(torch.cat(rows, dim=2), images)
    assert torch.equal(lay_tiles(tiles, 3), images)


def test_too_small_tiles_say_what_is_needed() -> None:
    message = r"`grid=3` and `gap=2` leave tiles of 0 px of an image of 8 px.*use images of 15 px"
    with pytest.raises(ValueError, match=message):
        cut_tiles(torch.zeros(1, 1, 8, 8), 3, 2, None)


def test_unscrambled_a_jigsaw_is_restored() -> None:
    tiles = torch.randn(10, 9, 1, 4, 4)
    orders = distant_permutations(50, 9)[:10]
    place = orders[:, :, None, None, None].expand_as(tiles)
    scrambled = tiles.gather(1, place)
    assert not torch.equal(scrambled, tiles)
    back = orders.argsort(dim=1)[:, :, None, None, None].expand_as(tiles)
    assert torch.equal(scrambled.gather(1, back), tiles)


@pytest.mark.parametrize(("count", "length", "apart"), [(24, 4, 2), (4, 4, 4), (100, 9, 6), (50, 16, 14)])
def test_permutations_are_distinct_and_far_apart(count: int, length: int, apart: int) -> None:
    chosen = distant_permutations(count, length)
    assert torch.equal(chosen.sort(dim=1).values, torch.arange(length).expand(count, length))
    distances = (chosen[:, None] != chosen).sum(dim=2) + length * torch.eye(count, dtype=torch.int64)
    least = int(distances.min())
    assert least == apart
    drawn = torch.stack([torch.randperm(length, generator=generator(seed)) for seed in range(count)])
    by_chance = (drawn[:, None] != drawn).sum(dim=2) + length * torch.eye(count, dtype=torch.int64)
    assert count == 24 or least > int(by_chance.min())


def test_the_next_permutation_is_the_farthest_by_brute_force() -> None:
    chosen = distant_permutations(6, 5).tolist()
    for size in range(1, 6):
        before = chosen[:size]

        def distance(one: tuple[int, ...], before: list[list[int]] = before) -> tuple[int, int]:
            apart = [sum(a != b for a, b in zip(one, other, strict=True)) for other in before]
            return min(apart), sum(apart)

        assert distance(tuple(chosen[size])) == max(map(distance, itertools.permutations(range(5))))


def test_more_permutations_than_there_are() -> None:
    with pytest.raises(ValueError, match="`permutations=25` must be from 2 to 24, as many as 4 tiles have"):
        distant_permutations(25, 4)


def scores(rows: Tensor, labels: Tensor) -> float:
    """Cross-validated accuracy of a linear model."""
    return float(cross_val_score(LogisticRegression(max_iter=300), rows.numpy(), labels.numpy(), cv=3).mean())


def empty_images(count: int, size: int = 32) -> Tensor:
    """Images of nothing but noise under light that falls off to the lower right, as lenses and lamps make it."""
    slope = torch.linspace(1, -1, size)
    light = slope[:, None] + slope[None]
    return light + 0.5 * torch.randn(count, 3, size, size, generator=generator(4))


def test_a_tiles_place_cannot_be_read_off_its_brightness_or_edges() -> None:
    """By means, deviations and the pixels of its rim: as it is cut, means tell; normalised, nothing does."""
    raw = cut_tiles(empty_images(150), 3, 2, generator())
    labels = torch.arange(9).repeat(150)

    def means(tiles: Tensor) -> Tensor:
        return torch.cat([tiles.mean(dim=(3, 4)), tiles.std(dim=(3, 4))], dim=2).flatten(0, 1)

    def rims(tiles: Tensor) -> Tensor:
        edges = [tiles[..., 0, :], tiles[..., -1, :], tiles[..., 0], tiles[..., -1]]
        return torch.cat(edges, dim=-1).flatten(0, 1).flatten(1)

    tiles = normalise_tiles(raw)
    chance, error = 1 / 9, (8 / 81 / len(labels)) ** 0.5
    assert scores(means(raw), labels) > 3 * chance
    assert scores(means(tiles), labels) < chance + 4 * error
    assert scores(rims(tiles), labels) < chance + 4 * error


def test_neighbours_do_not_meet_at_their_edges() -> None:
    """Of two tiles of a striped image, only without a gap do the touching rims agree."""
    stripes = torch.randn(200, 1, 24, 1, generator=generator(1)).expand(-1, 1, 24, 24)
    smooth = torch.nn.functional.avg_pool2d(stripes, (5, 1), stride=1, padding=(2, 0))

    def agreement(gap: int) -> float:
        tiles = normalise_tiles(cut_tiles(smooth, 2, gap, generator()))
        right, left = tiles[:, 0, 0, :, -1], tiles[:, 1, 0, :, 0]
        return float((right * left).mean())

    assert agreement(0) > 0.99
    assert agreement(3) < 0.9


def test_a_turn_leaves_no_trace_but_the_content() -> None:
    """On images of noise a linear model on all pixels, the border among them, stays at chance."""
    noise = torch.randn(600, 1, 8, 8, generator=generator(2))
    labels = torch.arange(600) % 4
    assert scores(turn(noise, labels).flatten(1), labels) < 0.25 + 4 * (0.1875 / 600) ** 0.5


def test_normalised_tiles_have_no_mean_and_even_ones_stay_even() -> None:
    tiles = torch.randn(4, 9, 3, 6, 6) * 5 + 2
    tiles[0, 0] = 7.0
    found = normalise_tiles(tiles)
    assert found.mean(dim=(3, 4)).abs().max() < 1e-5
    assert torch.equal(found[0, 0], torch.zeros(3, 6, 6))
    torch.testing.assert_close(found[1:].pow(2).mean(dim=(3, 4)), torch.ones(3, 9, 3), atol=1e-4, rtol=1e-4)
