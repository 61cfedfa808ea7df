"""k-medoids against all choices and the kmedoids package."""

import itertools
from collections.abc import Iterable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ssl_lightning.functional.distances import distances
from ssl_lightning.functional.medoids import k_medoids


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.from_numpy(load_digits().data).float()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_k_medoids_against_all_choices(known: bool, seed: int) -> None:
    """No swap of one medoid lowers the sum, and the best of ten starts is the best of all choices."""
    rows = torch.randn(14, 2, generator=generator(seed))
    matrix = torch.cdist(rows, rows)
    before = torch.rand(14, generator=generator(seed)) * 2 if known else None

    def loss(medoids: Iterable[int]) -> float:
        nearest = matrix[list(medoids)].amin(dim=0)
        return float((nearest if before is None else torch.minimum(nearest, before)).sum())

    totals = []
    for start in range(10):
        chosen, total = k_medoids(matrix, 3, generator(start), before)
        assert total == pytest.approx(loss(chosen.tolist()), rel=1e-5)
        for out, into in itertools.product(range(3), range(14)):
            others = [medoid for place, medoid in enumerate(chosen.tolist()) if place != out]
            assert loss([*others, into]) >= total - 1e-4
        totals.append(total)
    assert min(totals) == pytest.approx(min(map(loss, itertools.combinations(range(14), 3))), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_k_medoids_beside_outliers_still_betters_the_rest(seed: int) -> None:
    """Rows that no medoid can serve make the sum large, but no gain small: no swap lowers the sum of the others."""
    rows = torch.rand(60, 3, generator=generator(seed))
    matrix = torch.full((80, 80), 1e6).fill_diagonal_(0)
    matrix[:60, :60] = distances(rows, rows)
    known = torch.full((80,), 1e6).index_fill_(0, torch.arange(60, 80), 1e-3)
    known[79] = 1e9  # of one row that has nothing near, the distance that a medoid brings down most
    matrix[79] = matrix[:, 79] = 1e9
    chosen, _ = k_medoids(matrix, 3, generator(), known, medoids=torch.arange(3))
    assert (chosen < 60).all()

    def loss(medoids: list[int]) -> float:
        return float(matrix[medoids, :60].double().amin(dim=0).sum())

    picks = chosen.tolist()
    for out, into in itertools.product(range(3), range(60)):
        assert loss([*picks[:out], into, *picks[out + 1 :]]) >= loss(picks) - 1e-5


def test_k_medoids_of_tight_groups_far_apart() -> None:
    """The best of each group: what it would cost to leave the group does not hide what is won inside."""
    rows = torch.cat([torch.rand(40, 2, generator=generator(1)), 1e5 + torch.rand(40, 2, generator=generator(2))])
    matrix = distances(rows, rows)
    best = [int(matrix[part, part].double().sum(dim=1).argmin()) + part.start for part in (slice(0, 40), slice(40, 80))]
    assert k_medoids(matrix, 2, generator())[0].tolist() == best


@pytest.mark.parametrize(("k", "loss"), [(2, 68929.5957), (10, 51194.7000), (50, 39250.6740), (200, 30015.8747)])
def test_k_medoids_ends_where_the_kmedoids_package_does(k: int, loss: float, digits: Tensor) -> None:
    """Figures: `kmedoids.fasterpam(distances, arange(k), n_cpu=1).loss`, kmedoids 0.5.5 (GPL, so not a dependency)."""
    chosen, total = k_medoids(torch.cdist(digits, digits), k, generator(), medoids=torch.arange(k))
    assert total <= loss * (1 + 1e-6)
    assert total == pytest.approx(float(torch.cdist(digits, digits[chosen]).amin(dim=1).sum()), rel=1e-5)
