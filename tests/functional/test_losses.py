import math

import pytest
import torch
from torch.nn.functional import normalize

from ssl_lightning.functional.losses import (
    Negatives,
    info_nce,
    mine_triplets,
    squared_distances,
    supervised_contrastive,
)


def test_info_nce_is_the_formula() -> None:
    q, k = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    qn, kn = normalize(q, dim=1), normalize(k, dim=1)
    expected = 0.0
    for i in range(7):
        total = sum(math.exp(float(qn[i] @ kn[j]) / 0.3) for j in range(7))
        expected -= math.log(math.exp(float(qn[i] @ kn[i]) / 0.3) / total) / 7
    assert float(info_nce(q, k, 0.3)) == pytest.approx(expected, rel=1e-12)


def test_supervised_contrastive_is_the_formula() -> None:
    rows, labels = torch.randn(9, 4, dtype=torch.float64), torch.tensor([0, 0, 1, 2, 1, 1, 3, 0, 2])  # 3 is alone
    z = normalize(rows, dim=1)
    losses = []
    for i in range(9):
        positives = [p for p in range(9) if p != i and labels[p] == labels[i]]
        total = sum(math.exp(float(z[i] @ z[a]) / 0.2) for a in range(9) if a != i)
        if positives:
            logs = [math.log(math.exp(float(z[i] @ z[p]) / 0.2) / total) for p in positives]
            losses.append(-sum(logs) / len(positives))
    assert len(losses) == 8
    got = supervised_contrastive(rows, labels[:, None] == labels, 0.2)
    assert float(got) == pytest.approx(sum(losses) / 8, rel=1e-10)


def test_supervised_contrastive_has_finite_gradients() -> None:
    rows = torch.randn(6, 4, requires_grad=True)
    supervised_contrastive(rows, torch.eye(6, dtype=torch.bool).roll(1, 0) | torch.eye(6).bool(), 0.01).backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()
    assert rows.grad.abs().sum() > 0


def test_no_positive_is_no_loss() -> None:
    assert float(supervised_contrastive(torch.randn(4, 3), torch.eye(4, dtype=torch.bool), 0.1)) == 0.0


def brute_force(d: torch.Tensor, same: torch.Tensor, i: int, p: int, how: Negatives) -> int:
    others = [n for n in range(len(d)) if not same[i, n]]
    if how == "hard":
        return min(others, key=lambda n: float(d[i, n]))
    farther = [n for n in others if d[i, n] > d[i, p]]
    if farther:
        return min(farther, key=lambda n: float(d[i, n]))
    return max(others, key=lambda n: float(d[i, n]))


@pytest.mark.parametrize("how", ["hard", "semi-hard"])
def test_mined_negatives_are_those_of_brute_force(how: Negatives) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        rows = torch.randn(12, 2, generator=generator)
        labels = torch.randint(3, (12,), generator=generator)
        d = squared_distances(rows)
        torch.testing.assert_close(d, torch.cdist(rows, rows).pow(2), rtol=1e-4, atol=1e-4)
        same = labels[:, None] == labels
        anchors, positives, negatives = mine_triplets(d, same, same, how, torch.rand(12, 2, generator=generator))
        wanted = [i for i in range(12) if 1 < same[i].sum() < 12]
        assert anchors.tolist() == wanted
        for i, p, n in zip(anchors.tolist(), positives.tolist(), negatives.tolist(), strict=True):
            assert p != i
            assert same[i, p]
            assert n == brute_force(d, same, i, p, how)


def test_semi_hard_falls_back_to_the_farthest() -> None:
    """The positive is farther than every negative."""
    rows = torch.tensor([[0.0], [9.0], [1.0], [2.0]])
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    anchors, positives, negatives = mine_triplets(squared_distances(rows), same, same, "semi-hard", torch.zeros(4, 2))
    assert (anchors.tolist(), positives.tolist(), negatives.tolist()) == ([0, 1], [1, 0], [3, 2])


def test_random_draws_are_even() -> None:
    same = torch.eye(6, dtype=torch.bool)
    same[0, 1] = same[0, 2] = True
    counts = torch.zeros(6)
    for draw in torch.linspace(0, 0.9999, 600):
        anchors, positives, negatives = mine_triplets(torch.zeros(6, 6), same, same, "random", draw.expand(6, 2))
        assert anchors.tolist() == [0]  # the others have no positive
        counts[positives[0]] += 1
        counts[negatives[0]] += 1
    assert counts.tolist() == [0, 300, 300, 200, 200, 200]
