"""Choices of batches against brute force and scikit-activeml."""

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

from ssl_lightning.functional.cover import prob_cover, pure_radius
from ssl_lightning.functional.distances import distances
from ssl_lightning.functional.kmeans import kmeans
from ssl_lightning.functional.medoids import k_medoids
from ssl_lightning.functional.scoring import residuals
from ssl_lightning.functional.selection import (
    _most_typical,
    badge,
    dbal,
    farthest_first,
    smallest,
    typiclust,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every(step: int, count: int) -> Tensor:
    """Say that every so many-th row was asked before; none for 0."""
    return (torch.arange(count) % step == 0) if step else torch.zeros(count, dtype=torch.bool)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.from_numpy(load_digits().data).float()


def squares(rows: Tensor, others: Tensor) -> Tensor:
    """Squared distances from differences, in float64."""
    return torch.cdist(rows.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def first_most(values: Tensor, free: Tensor) -> int:
    """Return the first of the largest free values, which are equal if they differ by less than float32 can tell."""
    return int((free & (values >= values[free].max() * (1 - 5e-7))).nonzero()[0])


def slow_farthest_first(rows: Tensor, asked: Tensor, count: int) -> list[int]:
    """By the whole matrix of distances, in float64."""
    matrix, free = squares(rows, rows), ~asked
    near = matrix[:, asked].amin(dim=1) if asked.any() else squares(rows, rows.double().mean(dim=0)[None])[:, 0]
    chosen: list[int] = []
    while len(chosen) < count:
        pick = first_most(near, free)
        near = torch.minimum(near, matrix[pick]) if chosen or asked.any() else matrix[pick].clone()
        free[pick] = False
        chosen.append(pick)
    return chosen


@pytest.mark.parametrize("step", [0, 1000, 50])
@pytest.mark.parametrize("block", [4, 64, 5000])
def test_farthest_first_is_the_naive_traversal(step: int, block: int) -> None:
    rows = torch.randn(1500, 12, generator=generator())
    asked = every(step, len(rows))
    assert farthest_first(rows, asked, 120, block).tolist() == slow_farthest_first(rows, asked, 120)


def clusters(spread: float) -> Tensor:
    """Six groups of 60 very near rows, far from one another."""
    places = 1000 * torch.randn(6, 24, generator=generator(1))
    return places.repeat(60, 1) + spread * torch.randn(360, 24, generator=generator(2))


def with_outlier(factor: float) -> Tensor:
    rows = torch.randn(500, 64, generator=generator())
    rows[7] *= factor
    return rows


ODD = {
    "outlier": with_outlier(1000),
    "far outlier": with_outlier(1e6),
    "far from the origin": torch.randn(400, 16, generator=generator()) + 1000,
    "tight groups": clusters(1e-2),
    "fine beside coarse": torch.cat([1e-5 * with_outlier(1)[:200], with_outlier(1) + 1000]),
    "a grid": torch.cartesian_prod(*[torch.arange(7.0)] * 3),
    "copies": torch.randn(20, 4, generator=generator()).repeat(15, 1),
    "one point": torch.ones(200, 3),
}


@pytest.mark.parametrize("block", [4, 64, 5000])
@pytest.mark.parametrize("step", [0, 90])
@pytest.mark.parametrize("name", ODD)
def test_farthest_first_of_odd_data_is_the_naive_traversal(name: str, step: int, block: int) -> None:
    rows = ODD[name]
    asked = every(step, len(rows))
    assert farthest_first(rows, asked, 150, block).tolist() == slow_farthest_first(rows, asked, 150)


@pytest.mark.parametrize("dim", [300, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_farthest_first_is_right_where_products_round_to_one_side(dim: int, seed: int) -> None:
    """All coordinates of a group share an offset: each term of a product errs the same way, and random rows do not."""
    draws = generator(seed)
    near, far = torch.randn(20, dim, generator=draws) * 5e-4, torch.randn(20, dim, generator=draws) * 1e-3 + 1e3
    rows, asked = torch.cat([near, far]), torch.arange(40) % 20 == 0
    assert farthest_first(rows, asked, 10).tolist() == slow_farthest_first(rows, asked, 10)


@pytest.mark.parametrize("exponent", [-20, -30, 18, 37])
@pytest.mark.parametrize("step", [0, 30])
def test_the_scale_does_not_matter(exponent: int, step: int) -> None:
    """Powers of two change no digit; squares of these overflow or vanish in float32."""
    rows = torch.randn(150, 5, generator=generator(exponent + 99))
    scaled, asked = rows * 2.0 ** round(exponent * 3.3219), every(step, 150)
    assert farthest_first(scaled, asked, 60).tolist() == slow_farthest_first(rows, asked, 60)
    assert _most_typical(scaled, 10) == _most_typical(rows, 10)
    q, embeddings = gradients(150)
    large = embeddings * 2.0 ** round(exponent * 3.3219)
    assert badge(q, large, 20, generator()).tolist() == badge(q, embeddings, 20, generator()).tolist()
    weights = torch.rand(150, generator=generator())
    assert dbal(scaled, weights, 9, generator()).tolist() == dbal(rows, weights, 9, generator()).tolist()
    if exponent > 0:
        delta = 2.0 ** round(exponent * 3.3219)
        assert prob_cover(scaled, asked, 60, delta).tolist() == prob_cover(rows, asked, 60, 1.0).tolist()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_computed_with_at_least_float32s_digits(kind: torch.dtype) -> None:
    rows = normalize(torch.randn(300, 8, generator=generator()), dim=1).to(kind)
    for asked in (every(0, 300), every(100, 300)):
        assert prob_cover(rows, asked, 20, 0.5).tolist() == prob_cover(rows.float(), asked, 20, 0.5).tolist()
        assert farthest_first(rows, asked, 20).tolist() == farthest_first(rows.float(), asked, 20).tolist()


def test_float64_rows_are_centred_before_they_are_rounded() -> None:
    near = torch.randn(200, 6, generator=generator(), dtype=torch.float64)
    rows, asked = 1000 + 1e-4 * near, every(50, 200)
    assert farthest_first(rows, asked, 50).tolist() == slow_farthest_first(rows, asked, 50)
    assert prob_cover(rows, asked, 20, 1e-4).tolist() == prob_cover(near, asked, 20, 1.0).tolist()
    weights = torch.rand(200, generator=generator())
    assert dbal(rows, weights, 9, generator()).tolist() == dbal(near, weights, 9, generator()).tolist()


def test_farthest_first_never_takes_what_was_asked() -> None:
    """All that is left are copies of an asked row: they come in their order."""
    rows = torch.tensor([[1000.0, 0.0], *[[-1000.0, 0.0]] * 7])
    assert farthest_first(rows, torch.arange(8) < 2, 6).tolist() == [2, 3, 4, 5, 6, 7]
    assert farthest_first(torch.ones(1, 2), every(0, 1), 1).tolist() == [0]


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
    q = probabilities - one_hot(probabilities.argmax(dim=1), classes)
    return q, torch.randn(count, dim, generator=generator(6))


def test_badge_draws_as_k_means_plus_plus_of_the_gradients_themselves() -> None:
    """The same draws of the generator on outer products formed in float64."""
    q, embeddings = gradients(150)
    gradient = (q[:, :, None] * embeddings[:, None]).flatten(1).double()
    expected = [int(gradient.norm(dim=1).argmax())]
    for draw in torch.rand(29, generator=generator(2), dtype=torch.float64):
        squares = torch.cdist(gradient, gradient[expected]).amin(dim=1).pow(2)
        total = squares.cumsum(dim=0)
        expected.append(int(torch.searchsorted(total, draw * total[-1], right=True)))
    assert badge(q, embeddings, 30, generator(2)).tolist() == expected


def slow_badge(q: Tensor, embeddings: Tensor, count: int, draws: torch.Generator) -> list[int]:
    """Algorithm 1 with the same draws, on outer products formed in float64."""
    gradient = (q.double()[:, :, None] * embeddings.double()[:, None]).flatten(1)
    chosen = [first_most(gradient.pow(2).sum(dim=1), torch.ones(len(gradient), dtype=torch.bool))]
    for draw in torch.rand(count - 1, generator=draws, dtype=torch.float64):
        total = squares(gradient, gradient[chosen]).amin(dim=1)
        total[chosen] = 0
        if not total.any():
            total = torch.ones_like(total).index_fill_(0, torch.tensor(chosen), 0)
        total = total.cumsum(dim=0)
        chosen.append(int(torch.searchsorted(total, draw * total[-1], right=True)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["certain", "outlier", "copies", "one direction", "mirrored", "one-hot"])
def test_badge_of_odd_gradients_is_algorithm_1(kind: str, seed: int) -> None:
    logits = 2 * torch.randn(120, 4, generator=generator(5))
    h = torch.randn(120, 6, generator=generator(6))
    if kind == "certain":
        logits[2:] += 12 * one_hot(logits[2:].argmax(dim=1), 4)
    elif kind == "outlier":
        h[3] *= 1000
    elif kind == "copies":
        logits, h = logits[:10].repeat(12, 1), h[:10].repeat(12, 1)
    elif kind == "one direction":
        h = 1000 + h
    elif kind == "mirrored":  # of two classes: the other class and the other sign make the same gradient
        logits = torch.cat([logits[:60, :2], logits[:60, :2].flip(1)])
        h = torch.cat([h[:60], -h[:60]])
    else:
        logits = 1e4 * logits
    q = residuals(logits.log_softmax(dim=1))
    assert badge(q, h, 30, generator(seed)).tolist() == slow_badge(q, h, 30, generator(seed))


def test_badge_tells_certain_samples_apart() -> None:
    """Two open samples, ten at p = 0.999, ninety at 0.99997: how many of each, on average."""
    doubt = torch.tensor([0.5] * 2 + [1e-3] * 10 + [3e-5] * 90)
    q = residuals(torch.stack([torch.log1p(-doubt), doubt.log()], dim=1))
    h = normalize(torch.randn(102, 32, generator=generator(1)), dim=1)
    group = torch.repeat_interleave(torch.arange(3), torch.tensor([2, 10, 90]))
    counts = torch.zeros(3)
    for seed in range(300):
        chosen = badge(q, h, 8, generator(seed))
        assert chosen.tolist() == slow_badge(q, h, 8, generator(seed))
        counts += torch.bincount(group[chosen], minlength=3) / 300
    assert counts.tolist() == pytest.approx([2, 4.9, 1.1], abs=0.15)


def test_badge_draws_in_proportion_to_the_squared_distance() -> None:
    q, embeddings = gradients(6)
    gradient = (q[:, :, None] * embeddings[:, None]).flatten(1)
    first = int(gradient.norm(dim=1).argmax())
    chance = (gradient - gradient[first]).pow(2).sum(dim=1)
    chance /= chance.sum()
    counts = torch.zeros(6)
    for seed in range(3000):
        chosen = badge(q, embeddings, 2, generator(seed)).tolist()
        assert chosen[0] == first
        counts[chosen[1]] += 1
    error = (chance * (1 - chance) / 3000).sqrt()
    assert ((counts / 3000 - chance).abs() <= 4 * error + 1e-9).all()


def test_dbal_takes_the_rows_nearest_to_weighted_centroids() -> None:
    rows = torch.randn(200, 3, generator=generator(7))
    weights = torch.rand(200, generator=generator(8))
    chosen = dbal(rows, weights, 12, generator(1))
    found = kmeans(rows, 12, generator(1), weights=weights)
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


def test_dbal_weighs_by_ratios() -> None:
    """Weights of a billionth are weights; far from the origin, and beside a row without any, too."""
    rows = torch.tensor([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    weights = torch.tensor([1e-12, 1e-12, 1e-12, 1e-9, 1e-9, 1e-9])
    assert dbal(rows, weights, 1, generator()).tolist() == [4]
    assert dbal(rows + 1000, weights, 1, generator()).tolist() == [4]
    assert dbal(torch.cat([rows, torch.tensor([[1e6]])]), torch.cat([weights, torch.zeros(1)]), 1, generator()) == 4


@pytest.mark.parametrize("rows", [torch.ones(9, 2), torch.randn(2, 2).repeat(6, 1), torch.ones(1, 1)])
def test_more_asked_for_than_distinct_rows(rows: Tensor) -> None:
    count = min(len(rows), 8)
    none = every(0, len(rows))
    for chosen in (
        dbal(rows, torch.zeros(len(rows)), count, generator()),
        dbal(rows, (torch.arange(len(rows)) < 1).float(), count, generator()),
        typiclust(rows, none, count, generator()),
        farthest_first(rows, none, count),
        badge(torch.ones(len(rows), 1), rows, count, generator()),
        k_medoids(distances(rows, rows), count, generator())[0],
    ):
        assert len(set(chosen.tolist())) == count


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


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-9, 0.0), (1.0, 1000.0), (1e4, 0.0)])
def test_typiclust_takes_the_densest_row_at_any_scale(scale: float, offset: float) -> None:
    rows = scale * torch.randn(200, 5, generator=generator(3)) + offset
    rows[11] = rows[10]  # a copy; the pair is no cluster of its own
    rows[199] = scale * 1000 + offset  # an outlier
    matrix = squares(rows, rows).sqrt().fill_diagonal_(torch.inf)
    matrix, rest = matrix[:199, :199], rows[:199]
    means = matrix.sort(dim=1).values[:, :20].mean(dim=1)
    assert _most_typical(rest, 20) == int(means.argmin())
    assert _most_typical(torch.cat([rest, rest]), 1) == 0  # copies are nearest of all, in their order


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


@pytest.mark.parametrize("delta", [1e-4, 5e-4, 1e-3, 3e-3])
def test_prob_cover_of_collapsed_embeddings_is_the_naive_cover(delta: float) -> None:
    rows = normalize(1 + 1e-3 * torch.randn(400, 3, generator=generator(4)), dim=1)
    rows[100:110] = rows[:10]
    edges = squares(rows, rows) < delta**2 * (1 - 5e-7)
    covered = torch.zeros(400, dtype=torch.bool)
    for pick in prob_cover(rows, every(0, 400), 50, delta).tolist():
        degree = (edges & ~covered).sum(dim=1)
        assert pick == int(degree.argmax())
        covered |= edges[pick]


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
    matrix = squares(rows, rows).sqrt()

    def purity(delta: float) -> float:
        mixed = (matrix < delta) & (cluster[:, None] != cluster)
        return 1 - float(mixed.any(dim=1).float().mean())

    assert purity(radius * (1 - 1e-5)) >= 0.95 - 1e-6
    assert purity(radius * 1.02) < 0.95


def test_pure_radius_follows_the_scale() -> None:
    """Of rows a millionth as far apart it is a millionth; of copies, the least that tells two apart."""
    rows = torch.randn(300, 3, generator=generator(2))
    radius = pure_radius(rows, 4, generator(3))
    assert pure_radius(rows * 2**-20, 4, generator(3)) == pytest.approx(radius * 2**-20, rel=1e-4)
    assert pure_radius(torch.ones(20, 3), 4, generator()) == 2


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


@pytest.mark.parametrize(("width", "count"), [(1, 1), (7, 7), (40, 3), (1000, 21), (1000, 70), (1023, 21), (331, 20)])
@pytest.mark.parametrize("values", [3, 60_000])
def test_the_smallest_of_a_row_are_those_of_a_whole_partition(width: int, count: int, values: int) -> None:
    rows = np.random.default_rng(0).integers(values, size=(9, width)).astype(np.uint16)
    found = smallest(rows, count)
    assert found.shape == (9, count)
    assert (np.sort(found, axis=1) == np.sort(rows, axis=1)[:, :count]).all()
