"""Balls, covers and typical rows of more rows than one block, against brute force in float64, by either product."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.functional import balls as balls_module
from ssl_lightning.functional import selection
from ssl_lightning.functional.balls import Balls
from ssl_lightning.functional.cover import prob_cover, pure_radius
from ssl_lightning.functional.distances import TIE
from ssl_lightning.functional.kmeans import kmeans

COUNT = 2600  # rows of more than one block and cell


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=generator(seed))


def squares(rows: Tensor) -> Tensor:
    """All squared distances from differences, in float64."""
    return torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def with_outlier() -> Tensor:
    rows = normal(COUNT, 16)
    rows[7] *= 1000
    return rows


GRID = torch.cartesian_prod(*[torch.arange(14.0)] * 3)
ROWS: dict[str, tuple[Tensor, float]] = {
    "sphere": (normalize(normal(COUNT, 16), dim=1), 0.9),
    "an outlier": (with_outlier(), 4.0),
    "far from the origin": (normal(COUNT, 8) + 1000, 2.0),
    "tight groups": (1000 * normal(6, 8, 1).repeat(450, 1) + 1e-2 * normal(2700, 8, 2), 0.03),
    "far groups": (20 * normal(6, 8, 1).repeat(450, 1) + normal(2700, 8, 2), 2.5),
    "a tie at the radius": (GRID, 2.0),
    "just beyond a tie": (GRID, 2.0 * (1 + 1e-5)),
    "a radius far below the lengths": (100 + GRID, 1.5),
    "copies": (normal(20, 4).repeat(130, 1), 1.0),
    "one point": (torch.ones(COUNT, 3), 0.1),
    "tiny numbers": (1e-20 * normal(COUNT, 8), 2e-20),
    "float64": (1000 + 1e-4 * normal(COUNT, 6).double(), 1e-4),
}


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Multiply in bfloat16 first, or not, whatever is faster here."""
    monkeypatch.setattr(balls_module, "fast_half", lambda: request.param)
    monkeypatch.setattr(selection, "fast_half", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("name", ROWS)
def test_balls_hold_what_float64_says(name: str, half: bool) -> None:
    rows, delta = ROWS[name]
    expected = squares(rows) < delta**2 * (1 - TIE)
    found = Balls(rows, delta)
    counts = torch.empty(len(rows), dtype=torch.int64)
    for among in (torch.ones(len(rows), dtype=torch.bool), torch.arange(len(rows)) % 3 == 0):
        counts[found.order] = found.counts(among[found.order])
        assert torch.equal(counts, expected[:, among].sum(dim=1))
    some = torch.arange(0, len(rows), 7)
    told = torch.zeros(len(some), len(rows), dtype=torch.bool)
    for here, block, inside in found.around(some):
        told[here, block] = torch.from_numpy(inside.copy())
    assert torch.equal(told, expected[found.order][:, found.order][some])


def test_far_blocks_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, delta = ROWS["far groups"]
    looked, inside = 0, Balls.inside

    def count(self: Balls, some: slice, others: slice) -> object:
        nonlocal looked
        looked += (some.stop - some.start) * (others.stop - others.start)
        return inside(self, some, others)

    monkeypatch.setattr(balls_module, "_CELL", 100)
    monkeypatch.setattr(Balls, "inside", count)
    everything = torch.ones(len(rows), dtype=torch.bool)
    assert int(Balls(rows, delta).counts(everything).sum()) == int((squares(rows) < delta**2 * (1 - TIE)).sum())
    assert looked < 0.6 * len(rows) ** 2 / 2


@pytest.mark.parametrize("name", ["sphere", "an outlier", "a tie at the radius", "copies", "far groups"])
@pytest.mark.parametrize("step", [0, 500])
def test_prob_cover_of_several_blocks_is_the_naive_cover(name: str, step: int, half: bool) -> None:
    rows, delta = ROWS[name]
    edges = squares(rows) < delta**2 * (1 - TIE)
    asked = (torch.arange(len(rows)) % step == 0) if step else torch.zeros(len(rows), dtype=torch.bool)
    covered, expected, matrix = edges[asked].any(dim=0), [], edges.float()
    while len(expected) < 40:
        degree = (matrix @ (~covered).float()).masked_fill(asked, 0)
        if degree.max() == 0:
            break
        expected.append(int(degree.argmax()))
        covered |= edges[expected[-1]]
    assert prob_cover(rows, asked, 40, delta).tolist() == expected


@pytest.mark.parametrize("name", ["sphere", "an outlier", "far groups", "float64"])
def test_pure_radius_is_a_quantile_of_the_distances_to_other_clusters(name: str, half: bool) -> None:
    rows = ROWS[name][0]
    cluster = kmeans(rows, 4, generator(3), engine="torch").assignments
    matrix = squares(rows).masked_fill_(cluster[:, None] == cluster, torch.inf).amin(dim=1).sqrt().sort().values
    expected = min(2.0, float(matrix[int(0.05 * len(rows) + 1e-9)]))
    assert pure_radius(rows, 4, generator(3)) == pytest.approx(expected, rel=2e-5)
    few = pure_radius(rows, 4, generator(3), sample=800)
    share = float((matrix < few).double().mean())
    assert few == 2.0 or share == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 800) ** 0.5)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "one point"])
def test_the_most_typical_of_many_rows_is_that_of_float64(name: str, half: bool) -> None:
    rows = ROWS[name][0]
    matrix = squares(rows).sqrt().fill_diagonal_(torch.inf)
    means = matrix.topk(20, dim=1, largest=False).values.mean(dim=1)
    assert selection._most_typical(rows, 20) == int((means <= means.min() * (1 + 2e-7)).nonzero()[0])
