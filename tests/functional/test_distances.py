"""Distances against differences in float64, where an expanded square would lose its digits."""

import pytest
import torch
from torch import Tensor

from ssl_lightning.functional.distances import close, distances, first_least, middle, rounding


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def slow(rows: Tensor, others: Tensor) -> Tensor:
    """From differences, in float64."""
    return (rows[:, None].double() - others.double()).pow(2).sum(dim=2).sqrt()


def clusters(count: int, dim: int, spread: float) -> Tensor:
    """Four groups far from one another, each of very near rows."""
    places = 1000 * normal(4, dim, seed=1)
    return places.repeat(count // 4, 1) + spread * normal(count // 4 * 4, dim, seed=2)


SETS = {
    "plain": normal(200, 16),
    "far from the origin": normal(200, 16) + 1e4,
    "an outlier": torch.cat([normal(199, 16), 1e6 * normal(1, 16, seed=3)]),
    "tight groups": clusters(200, 16, 1e-2),
    "copies": normal(10, 16).repeat(20, 1) + 1000,
    "two dimensions": normal(200, 2),
    "one of everything": torch.ones(1, 1),
    "huge": 1e25 * normal(100, 16),
    "tiny": 1e-22 * normal(100, 16),
    "float64 far from the origin": 1e-3 * normal(100, 16).double() + 1000,
    "half": normal(100, 16).half(),
}


@pytest.mark.parametrize("name", SETS)
def test_distances_are_those_of_float64(name: str) -> None:
    rows = SETS[name]
    torch.testing.assert_close(distances(rows, rows).double(), slow(rows, rows), rtol=1e-4, atol=0)
    assert (distances(rows, rows).diagonal() == 0).all()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = normal(50, 3), normal(70, 3, seed=1)
    monkeypatch.setattr("ssl_lightning.functional.distances._BLOCK", 200)
    torch.testing.assert_close(distances(rows, others).double(), slow(rows, others), rtol=1e-4, atol=0)


@pytest.mark.parametrize("offset", [1.0, 1000.0])
@pytest.mark.parametrize("dim", [2, 64, 1024, 20_000])
def test_a_product_errs_by_no_more_than_rounding_allows(dim: int, offset: float) -> None:
    """Rows whose coordinates share an offset err most: all terms of a product are about as large."""
    rows = normal(40, dim).abs() + offset
    norms = rows.pow(2).sum(dim=1)
    found = norms[:, None] + norms - 2 * rows @ rows.T
    error = (found.double() - slow(rows, rows).square()).abs() / (norms[:, None] + norms)
    assert error.max() < rounding(dim) < close(dim)


def test_the_middle_is_amid_the_rows() -> None:
    rows = normal(500, 3) + 7
    rows[0] = 1e9
    assert (middle(rows) - 7).abs().max() < 1


def test_the_first_of_equals_is_least() -> None:
    assert first_least(torch.tensor([2.0, 1.0 + 1e-7, 1.0])) == 1
    assert first_least(torch.tensor([2.0, 1.0 + 2e-6, 1.0])) == 2
    assert first_least(torch.tensor([1e-9, 0.0, 0.0])) == 1
