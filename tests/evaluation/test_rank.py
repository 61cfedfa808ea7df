import math

import numpy as np
import pytest
import torch

from ssl_lightning.evaluation import lidar, rankme


def test_rankme_is_the_papers_formula() -> None:
    rows = torch.randn(60, 9, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(rows.double().numpy(), compute_uv=False)
    p = values / np.abs(values).sum() + 1e-12
    assert rankme(rows) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-8)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_rankme_counts_orthogonal_directions(rank: int) -> None:
    assert rankme(torch.eye(7)[torch.arange(20 * rank) % rank]) == pytest.approx(rank, rel=1e-9)


def test_rankme_sees_an_offset_that_effective_rank_does_not() -> None:
    rows = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    assert rankme(rows + 100) < 0.5 * rankme(rows)


def test_rankme_does_not_depend_on_scale_rotation_or_order() -> None:
    rows = torch.randn(50, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert rankme(3 * rows[torch.randperm(50)] @ turn) == pytest.approx(rankme(rows), rel=1e-9)


def naive_lidar(x: np.ndarray, delta: float) -> float:
    """Equations 4 to 8, sum by sum."""
    n, q, d = x.shape
    centre = x.mean(axis=(0, 1))
    b, w = np.zeros((d, d)), np.zeros((d, d))
    for i in range(n):
        mean = x[i].mean(axis=0)
        b += np.outer(mean - centre, mean - centre) / (n - 1)
        for j in range(q):
            w += np.outer(x[i, j] - mean, x[i, j] - mean) / (n * (q - 1))
    values = np.linalg.eigvals(np.linalg.inv(w + delta * np.eye(d)) @ b).real.clip(0)  # those of the symmetric product
    p = values / values.sum()
    return math.exp(-sum(v * math.log(v) for v in p if v > 0))


@pytest.mark.parametrize("delta", [1e-4, 0.1])
def test_lidar_is_the_papers_formula(delta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 1, 5, generator=generator).double() + 0.3 * torch.randn(12, 4, 5, generator=generator).double()
    assert lidar(x, delta) == pytest.approx(naive_lidar(x.numpy(), delta), rel=1e-6)


def test_lidar_ignores_directions_of_the_views() -> None:
    """Two dimensions tell images apart; five others, as wide, only views: LiDAR counts two, RankMe all."""
    generator = torch.Generator().manual_seed(2)
    images = torch.zeros(400, 10, 7)
    images[..., :2] = torch.randn(400, 1, 2, generator=generator)
    images[..., 2:] = torch.randn(400, 10, 5, generator=generator)
    assert lidar(images + 1e-2 * torch.randn(400, 10, 7, generator=generator)) == pytest.approx(2.0, abs=0.1)
    assert rankme(images.flatten(0, 1)) > 6


def test_nothing_in_use_is_rank_zero() -> None:
    """As of an encoder whose last ReLU is dead; not NaN."""
    assert rankme(torch.zeros(5, 3)) == 0.0
    assert lidar(torch.ones(4, 3, 2)) == 0.0


def test_lidar_needs_two_of_each() -> None:
    with pytest.raises(ValueError, match=r"of 1 samples and 3 views; LiDAR needs at least two of each"):
        lidar(torch.zeros(1, 3, 2))
