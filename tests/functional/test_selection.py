"""Choices of batches against brute force and scikit-activeml."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from skactiveml.pool import ProbCover as TheirProbCover
from skactiveml.pool import k_greedy_center
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ssl_lightning.functional.kmeans import kmeans
from ssl_lightning.functional.medoids import k_medoids
from ssl_lightning.functional.selection import badge, dbal, farthest_first, prob_cover, pure_radius, typiclust


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every(step: int, count: int) -> Tensor:
    """Say that every so many-th row was asked before; none for 0."""
    return (torch.arange(count) % step == 0) if step else torch.zeros(count, dtype=torch.bool)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.from_numpy(load_digits().data).float()


def slow_farthest_first(rows: Tensor, asked: Tensor, count: int) -> list[int]:
    """By the whole matrix of distances, in float64."""
    distances = torch.cdist(rows.double(), rows.double())
    chosen: list[int] = []
    if not asked.any():
        chosen.append(int((rows.double() - rows.double().mean(0)).norm(dim=1).argmax()))
    while len(chosen) < count:
        centres = torch.cat([asked.nonzero()[:, 0], torch.tensor(chosen, dtype=torch.int64)])
        nearest = distances[:, centres].amin(dim=1)
        nearest[centres] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("step", [0, 1000, 50])
@pytest.mark.parametrize("block", [4, 64, 5000])
def test_farthest_first_is_the_naive_traversal(step: int, block: int) -> None:
    rows = torch.randn(1500, 12, generator=generator())
    asked = every(step, len(rows))
    assert farthest_first(rows, asked, 120, block).tolist() == slow_farthest_first(rows, asked, 120)


def test_farthest_first_is_scikit_activemls_core_set(digits: Tensor) -> None:
    """Its rows are pixels, integers, of which many are equally far: only the distances must agree."""
    labels = np.full(len(digits), np.nan)
    labels[:20] = 0
    asked = torch.arange(len(digits)) < 20
    theirs, radii = k_greedy_center(digits.numpy(), labels, batch_size=60, random_state=0)
    ours = farthest_first(digits, asked, 60)
    known = digits[:20]
    for place, pick in enumerate(ours):
        radius = torch.cdist(digits[pick][None], known).min()
        assert float(radius) == pytest.approx(np.nanmax(radii[place]), rel=0.02)  # ties lead to other, equal ways
        known = torch.cat([known, digits[pick][None]])
    rows = torch.randn(800, 5, generator=generator(3))
    labels = np.full(800, np.nan)
    labels[:3] = 0
    theirs, _ = k_greedy_center(rows.numpy(), labels, batch_size=50, random_state=0)
    assert farthest_first(rows, torch.arange(800) < 3, 50).tolist() == theirs.tolist()


def test_farthest_first_of_copies_takes_each_place_once() -> None:
    places = torch.randn(10, 4, generator=generator(1))
    rows = places.repeat(30, 1)
    chosen = farthest_first(rows, every(0, 300), 10, block=16)
    assert sorted((chosen % 10).tolist()) == list(range(10))
    assert len(set(farthest_first(rows, every(0, 300), 40, block=16).tolist())) == 40


def gradients(count: int, classes: int = 5, dim: int = 6) -> tuple[Tensor, Tensor]:
    probabilities = torch.randn(count, classes, generator=generator(5)).mul(2).softmax(dim=1)
    residuals = probabilities - one_hot(probabilities.argmax(dim=1), classes)
    return residuals, torch.randn(count, dim, generator=generator(6))


def test_badge_draws_as_k_means_plus_plus_of_the_gradients_themselves() -> None:
    """The same draws of the generator on outer products formed in float64."""
    residuals, embeddings = gradients(150)
    gradient = (residuals[:, :, None] * embeddings[:, None]).flatten(1).double()
    expected = [int(gradient.norm(dim=1).argmax())]
    for draw in torch.rand(29, generator=generator(2), dtype=torch.float64):
        squares = torch.cdist(gradient, gradient[expected]).amin(dim=1).pow(2)
        total = squares.cumsum(dim=0)
        expected.append(int(torch.searchsorted(total, draw * total[-1], right=True)))
    assert badge(residuals, embeddings, 30, generator(2)).tolist() == expected


def test_badge_draws_in_proportion_to_the_squared_distance() -> None:
    residuals, embeddings = gradients(6)
    gradient = (residuals[:, :, None] * embeddings[:, None]).flatten(1)
    first = int(gradient.norm(dim=1).argmax())
    chance = (gradient - gradient[first]).pow(2).sum(dim=1)
    chance /= chance.sum()
    counts = torch.zeros(6)
    for seed in range(3000):
        chosen = badge(residuals, embeddings, 2, generator(seed)).tolist()
        assert chosen[0] == first
        counts[chosen[1]] += 1
    error = (chance * (1 - chance) / 3000).sqrt()
    assert ((counts / 3000 - chance).abs() <= 4 * error + 1e-9).all()


def test_dbal_takes_the_rows_nearest_to_weighted_centroids() -> None:
    rows = torch.randn(200, 3, generator=generator(7))
    weights = torch.rand(200, generator=generator(8))
    chosen = dbal(rows, weights, 12, generator(1))
    found = kmeans(rows, 12, generator(1), weights=weights + 1e-6)
    nearest = torch.cdist(found.centroids, rows).argmin(dim=1).tolist()
    mass = torch.zeros(12).index_add_(0, found.assignments, weights)
    by_mass = [nearest[cluster] for cluster in mass.argsort(descending=True)]
    assert len(set(nearest)) == 12  # no row is nearest to two
    assert chosen.tolist() == by_mass


def test_dbal_leans_to_the_informative() -> None:
    """One centroid of two groups lies by the heavier one."""
    rows = torch.tensor([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    heavy = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert dbal(rows, heavy, 1, generator()).tolist() == [4]
    assert dbal(rows, 1 - heavy, 1, generator()).tolist() == [1]


def test_typiclust_by_hand() -> None:
    """Three blobs, of which one is labelled: the middles of the other two, the larger first."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    sizes = (60, 40, 50)
    rows = torch.cat([c + 0.5 * torch.randn(n, 2, generator=generator(n)) for c, n in zip(centres, sizes, strict=True)])
    blob = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    asked = torch.zeros(150, dtype=torch.bool)
    asked[3] = True
    chosen = typiclust(rows, asked, 2, generator(), neighbours=20)
    assert blob[chosen].tolist() == [2, 1]
    for pick in chosen.tolist():
        own = rows[blob == blob[pick]].numpy()
        distances = NearestNeighbors(n_neighbors=21).fit(own).kneighbors(own)[0][:, 1:].mean(axis=1)
        assert rows[pick].tolist() == own[distances.argmin()].tolist()


def test_typiclust_leaves_small_clusters_for_last() -> None:
    rows = torch.cat([torch.randn(30, 2, generator=generator()) * 0.1, torch.full((4, 2), 50.0)])
    chosen = typiclust(rows, every(0, 34), 2, generator())
    assert chosen[0] < 30 <= chosen[1]


def slow_prob_cover(rows: Tensor, asked: Tensor, count: int, delta: float) -> list[int]:
    edges = torch.cdist(rows.double(), rows.double()) < delta
    covered = edges[asked].any(dim=0)
    chosen: list[int] = []
    while len(chosen) < count:
        degree = (edges & ~covered).sum(dim=1).masked_fill(asked, 0)
        degree[chosen] = 0
        if degree.max() == 0:
            break
        chosen.append(int(degree.argmax()))
        covered |= edges[chosen[-1]]
    return chosen


@pytest.mark.parametrize("step", [0, 97])
@pytest.mark.parametrize("delta", [0.2, 0.5, 1.0])
def test_prob_cover_is_the_naive_cover(step: int, delta: float) -> None:
    rows = normalize(torch.randn(700, 4, generator=generator(4)), dim=1)
    asked = every(step, 700)
    expected = slow_prob_cover(rows, asked, 60, delta)
    assert prob_cover(rows, asked, 60, delta).tolist() == expected
    assert (len(expected) < 60) == (delta > 0.2)  # all is covered by fewer


@pytest.mark.filterwarnings("ignore:The maximum purity")  # theirs: it has one radius to try, and takes it
def test_prob_cover_covers_as_much_as_scikit_activemls() -> None:
    rows = normalize(torch.randn(400, 3, generator=generator(9)), dim=1)
    their = TheirProbCover(deltas=[0.4], random_state=0).query(rows.numpy(), np.full(400, np.nan), batch_size=10)
    ours = prob_cover(rows, every(0, 400), 10, 0.4)
    edges = torch.cdist(rows, rows) < 0.4
    assert int(edges[ours].any(dim=0).sum()) == pytest.approx(int(edges[their].any(dim=0).sum()), rel=0.03)
    assert edges[ours[0]].sum() == edges[their[0]].sum()


def test_pure_radius_is_where_purity_falls() -> None:
    rows = normalize(torch.randn(500, 3, generator=generator(2)), dim=1)
    radius = pure_radius(rows, 4, generator(3))
    cluster = kmeans(rows, 4, generator(3)).assignments
    distances = torch.cdist(rows, rows)

    def purity(delta: float) -> float:
        mixed = (distances < delta) & (cluster[:, None] != cluster)
        return 1 - float(mixed.any(dim=1).float().mean())

    assert purity(radius) >= 0.95 - 1e-6
    assert purity(radius * 1.02) < 0.95


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_k_medoids_against_all_choices(known: bool, seed: int) -> None:
    """No swap of one medoid lowers the sum, and the best of ten starts is the best of all choices."""
    rows = torch.randn(14, 2, generator=generator(seed))
    distances = torch.cdist(rows, rows)
    before = torch.rand(14, generator=generator(seed)) * 2 if known else None

    def loss(medoids: Iterable[int]) -> float:
        nearest = distances[list(medoids)].amin(dim=0)
        return float((nearest if before is None else torch.minimum(nearest, before)).sum())

    totals = []
    for start in range(10):
        chosen, total = k_medoids(distances, 3, generator(start), before)
        assert total == pytest.approx(loss(chosen.tolist()), rel=1e-5)
        for out, into in itertools.product(range(3), range(14)):
            others = [medoid for place, medoid in enumerate(chosen.tolist()) if place != out]
            assert loss([*others, into]) >= total - 1e-4
        totals.append(total)
    assert min(totals) == pytest.approx(min(map(loss, itertools.combinations(range(14), 3))), rel=1e-5)


@pytest.mark.parametrize(("k", "loss"), [(2, 68929.5957), (10, 51194.7000), (50, 39250.6740), (200, 30015.8747)])
def test_k_medoids_ends_where_the_kmedoids_package_does(k: int, loss: float, digits: Tensor) -> None:
    """Figures: `kmedoids.fasterpam(distances, arange(k), n_cpu=1).loss`, kmedoids 0.5.5 (GPL, so not a dependency)."""
    chosen, total = k_medoids(torch.cdist(digits, digits), k, generator(), medoids=torch.arange(k))
    assert total <= loss * (1 + 1e-6)
    assert total == pytest.approx(float(torch.cdist(digits, digits[chosen]).amin(dim=1).sum()), rel=1e-5)


@pytest.mark.parametrize(
    "choose",
    [
        lambda rows, asked, count: farthest_first(rows, asked, count),
        lambda rows, asked, count: typiclust(rows, asked, count, generator()),
        lambda rows, asked, count: prob_cover(rows, asked, count, 0.5),
    ],
)
def test_mistakes_are_named(choose: Any) -> None:
    rows = torch.randn(5, 2)
    with pytest.raises(ValueError, match="`count=5` exceeds the 4 samples"):
        choose(rows, every(5, 5), 5)
    rows[3, 1] = torch.nan
    with pytest.raises(ValueError, match="the embedding in row 3 is NaN or infinite"):
        choose(rows, every(5, 5), 2)
    with pytest.raises(ValueError, match=r"`k=6` medoids of 5 samples; give 1 to 5"):
        k_medoids(torch.rand(5, 5), 6, generator())
