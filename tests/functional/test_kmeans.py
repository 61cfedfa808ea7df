import builtins
import itertools
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

import ssl_lightning.functional.kmeans as module
from ssl_lightning.functional.kmeans import Engine, _plus_plus, kmeans, nearest, weighted_draw

ENGINES = ["torch", "sklearn", pytest.param("faiss", id="faiss")]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = make_blobs(300, 8, centers=6, cluster_std=0.3, random_state=1)
    return torch.from_numpy(rows).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("engine", ENGINES)
def test_separate_blobs_are_found(engine: Engine, blobs: Any) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    rows, labels = blobs
    found = min((kmeans(rows, 6, generator(seed), engine=engine) for seed in range(5)), key=lambda c: c.inertia)
    pairs = set(zip(found.assignments.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == 6
    assert found.inertia == pytest.approx(
        sum(float((rows[labels == c] - rows[labels == c].mean(0)).pow(2).sum()) for c in range(6)), rel=1e-3
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_same_seed_same_clusters(engine: Engine, blobs: Any) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    one, other = (kmeans(blobs[0], 10, generator(4), engine=engine) for _ in range(2))
    assert torch.equal(one.assignments, other.assignments)
    assert torch.equal(one.centroids, other.centroids)


def test_inertia_is_near_the_optimum_on_a_tiny_set() -> None:
    """Against all partitions of eight points into two."""
    rows = torch.randn(8, 2, generator=generator(3))
    best = torch.inf
    for sides in itertools.product([0, 1], repeat=7):
        side = torch.tensor([0, *sides])
        if side.sum() > 0:
            best = min(best, sum(float((rows[side == c] - rows[side == c].mean(0)).pow(2).sum()) for c in (0, 1)))
    assert min(kmeans(rows, 2, generator(seed)).inertia for seed in range(10)) == pytest.approx(best, rel=1e-4)


def test_as_good_as_scikit_learn() -> None:
    rows = torch.randn(2000, 16, generator=generator(2))
    ours = sum(kmeans(rows, 50, generator(s), iterations=50).inertia for s in range(5)) / 5
    fits = [KMeans(50, n_init=1, max_iter=50, random_state=s).fit(rows.numpy()).inertia_ for s in range(5)]
    assert ours < 1.02 * sum(fits) / 5


@pytest.mark.parametrize("seed", range(5))
def test_no_cluster_stays_empty(seed: int) -> None:
    """Nine tenths of the points are one point: k-means++ and Lloyd alone would leave clusters empty."""
    rows = torch.cat([torch.zeros(90, 3), torch.randn(10, 3, generator=generator(9))])
    found = kmeans(rows, 11, generator(seed))
    assert len(found.assignments.unique()) == 11


def test_identical_points_do_not_break_it() -> None:
    found = kmeans(torch.ones(5, 2), 3, generator())
    assert found.inertia == pytest.approx(0, abs=1e-4)
    assert torch.isfinite(found.centroids).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_weight_is_so_many_copies(engine: Engine) -> None:
    """The best of some starts, weighted, against the best with rows repeated."""
    if engine == "faiss":
        pytest.importorskip("faiss")
    rows = torch.randn(30, 2, generator=generator(1))
    weights = torch.randint(1, 6, (30,), generator=generator(2))
    weighted = min(kmeans(rows, 3, generator(s), engine=engine, weights=weights.float()).inertia for s in range(40))
    repeated = min(kmeans(rows.repeat_interleave(weights, 0), 3, generator(s), 100).inertia for s in range(20))
    assert weighted == pytest.approx(repeated, rel=1e-3)


def test_rows_without_weight_draw_no_centroid() -> None:
    rows = torch.cat([torch.zeros(20, 2), torch.full((20, 2), 9.0)]) + torch.randn(40, 2, generator=generator(3))
    weights = (torch.arange(40) < 20).float()
    for seed in range(5):
        assert (kmeans(rows, 2, generator(seed), weights=weights).centroids.norm(dim=1) < 4).all()


def test_nearest_is_brute_force() -> None:
    rows, centroids = torch.randn(50, 4), torch.randn(7, 4)
    distances, positions = nearest(rows, centroids)
    expected = torch.cdist(rows.double(), centroids.double()).pow(2).min(dim=1)
    assert torch.equal(positions, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["offset", "outlier", "tight groups"])
def test_nearest_keeps_its_digits(kind: str) -> None:
    rows = torch.randn(300, 8, generator=generator(1))
    if kind == "offset":
        rows = rows + 1e4
    elif kind == "outlier":
        rows[5] *= 1e6
    else:
        places = (1000 * torch.randn(3, 8, generator=generator(2))).round().repeat(100, 1)
        rows = places + (200 * rows).round() / 2**11  # no difference of two rounds
    centroids = rows[::10]
    distances, positions = nearest(rows, centroids)
    expected = (rows[:, None].double() - centroids.double()).pow(2).sum(dim=2).min(dim=1)
    assert torch.equal(positions, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=2e-4, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_far_from_the_origin_clusters_are_the_same(engine: Engine) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    rows = (torch.randn(300, 8, generator=generator(1)) * 128).round() / 128  # exact with the offset, too
    one, other = (kmeans(rows + offset, 10, generator(2), engine=engine) for offset in (0, 4096))
    assert torch.equal(one.assignments, other.assignments)
    assert other.inertia == pytest.approx(one.inertia, rel=1e-4)
    torch.testing.assert_close(other.centroids - 4096, one.centroids, rtol=0, atol=1e-3)


def test_tight_groups_are_still_clustered() -> None:
    """Two groups a million times their spread apart, with as many centroids as distinct rows."""
    rows = torch.tensor([0.0, 1, 2, 3, 1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3])[:, None]
    for seed in range(10):
        found = kmeans(rows, 8, generator(seed))
        assert len(found.assignments.unique()) == 8
        assert found.inertia == 0


def test_first_centroids_are_distinct_rows_while_there_are() -> None:
    """Copies come last, and rows without weight after those with."""
    rows = torch.tensor([0.0, 1, 2, 3]).repeat(10)[:, None] + 1000
    for seed in range(10):
        assert len(_plus_plus(rows, 4, generator(seed), None).unique()) == 4
        weights = (rows[:, 0] < 1002).float()
        assert sorted(_plus_plus(rows, 2, generator(seed), weights)[:, 0].tolist()) == [1000, 1001]
        assert len(_plus_plus(rows, 4, generator(seed), 1e-30 * weights).unique()) == 4
        assert len(_plus_plus(rows, 6, generator(seed), torch.zeros(40))) == 6


def test_an_empty_cluster_is_filled_beside_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """All centroids begin at one row: they move to rows that are far from it, however far the farthest."""
    rows = torch.cat([torch.randn(200, 2, generator=generator(1)), torch.tensor([[1e7, 0.0]])])
    monkeypatch.setattr("ssl_lightning.functional.kmeans._plus_plus", lambda rows, k, *_: rows[:1].repeat(k, 1))
    assert len(kmeans(rows, 40, generator()).assignments.unique()) == 40


def test_a_draw_is_of_positive_weight() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0])
    assert [weighted_draw(weights, share) for share in (0.0, 0.33, 0.34, 1.0)] == [1, 1, 3, 3]


def test_k_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"`k=6` clusters of 5 samples; give 1 to 5"):
        kmeans(torch.randn(5, 2), 6, generator())


def test_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r'pip install "ssl-lightning\[faiss\]"'):
        kmeans(torch.randn(5, 2), 2, generator(), engine="faiss")


@pytest.mark.parametrize("engine", ["torch", "sklearn"])
def test_float64_rows_are_centred_before_they_are_rounded(engine: Engine) -> None:
    """The inertia of rows far from the origin is that of the same rows about it."""
    near = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (
        kmeans(rows, 4, torch.Generator().manual_seed(1), engine=engine) for rows in (near, near * 1e-5 + 1e3)
    )
    assert torch.equal(one.assignments, other.assignments)
    assert other.inertia == pytest.approx(one.inertia * 1e-10, rel=1e-4)
    torch.testing.assert_close((other.centroids - 1e3) * 1e5, one.centroids, rtol=0, atol=1e-4)


@pytest.mark.parametrize("power", [-90, 70, 120])
def test_the_scale_does_not_matter(power: int) -> None:
    rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    one, other = (kmeans(some, 4, torch.Generator().manual_seed(1)) for some in (rows, rows * 2.0**power))
    assert torch.equal(one.assignments, other.assignments)
    assert torch.equal(one.centroids, other.centroids / 2.0**power)
    assert one.inertia == other.inertia / 4.0**power


def test_means_keep_their_digits_far_from_the_origin() -> None:
    rows = torch.randn(99_000, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    rows[33_000:] += 100
    found = kmeans(rows, 6, torch.Generator().manual_seed(1))
    exact = sum(
        float((part - part.mean(dim=0)).square().sum())
        for part in (rows[found.assignments == cluster].double() for cluster in range(6))
    )
    assert found.inertia == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("kind", ["blobs", "outlier", "copies", "one point"])
def test_a_large_set_is_clustered_by_a_sample_that_stands_for_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of squared distances to any centroids are about those of all rows; an outlier is among the sample."""
    rows = 3 * torch.randn(12, 8, generator=generator(1)).repeat(1667, 1)[:20_000]
    if kind != "copies":
        rows = rows + torch.randn(20_000, 8, generator=generator(2))
    if kind == "outlier":
        rows[123] *= 1000
    elif kind == "one point":
        rows = torch.ones(20_000, 8)
    some, worth = module._coreset(rows, 3072, generator())
    assert len(some) < 3073
    for seed in range(3):
        centroids = 3 * torch.randn(5, 8, generator=generator(seed))
        far = nearest(rows, centroids)[0]
        assert float((far[some] * worth).sum()) == pytest.approx(float(far.sum()), rel=0.1)
    monkeypatch.setattr(module, "_LARGE", 5000)
    found, again = (kmeans(rows, 12, generator(), engine="torch") for _ in range(2))
    assert torch.equal(again.assignments, found.assignments)
    assert torch.equal(nearest(rows, found.centroids)[1], found.assignments)
    if kind == "outlier":
        assert int((found.assignments == found.assignments[123]).sum()) == 1
    if kind == "one point":
        assert found.inertia == 0
