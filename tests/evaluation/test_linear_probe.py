import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_lightning.evaluation import linear_probe


def problem(n: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, 10, generator=generator)
    logits = rows @ torch.randn(10, 4, generator=generator) + torch.randn(n, 4, generator=generator)
    return 5 * rows + 3, logits.argmax(dim=1)


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_agrees_with_scikit_learn(decay: float) -> None:
    """Its C is one over N times ours."""
    rows, labels = problem()
    train, test = rows[:400], rows[400:]
    scaled, others = ((x - train.mean(0)) / train.std(0, correction=0) for x in (train, test))
    reference = LogisticRegression(C=1 / (400 * decay), tol=1e-8, max_iter=1000).fit(scaled.numpy(), labels[:400])
    expected = (torch.from_numpy(reference.predict(others.numpy())) == labels[400:]).float().mean()
    got = linear_probe(train, labels[:400], test, labels[400:], 4, decays=(decay,))
    assert got == pytest.approx(float(expected), abs=0.0051)  # one sample of 200 on the border


def test_chooses_the_regularisation_that_generalises() -> None:
    """Many dimensions of noise, and one of signal."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(2000) % 2
    rows = torch.randn(2000, 200, generator=generator)
    rows[:, 0] += 2 * labels
    args = (rows[:600], labels[:600], rows[600:], labels[600:], 2)
    chosen, bad = linear_probe(*args, decays=(1e-6, 0.1)), linear_probe(*args, decays=(1e-6,))
    assert chosen > bad + 0.02


def test_same_seed_same_result_and_scale_does_not_matter() -> None:
    rows, labels = problem()
    one = linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4, seed=3)
    assert one == linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4, seed=3)
    assert one == pytest.approx(
        linear_probe(7 * rows[:400], labels[:400], 7 * rows[400:], labels[400:], 4, 3), abs=0.006
    )


def test_a_constant_dimension_does_no_harm() -> None:
    rows, labels = problem()
    rows = torch.cat([rows, torch.ones(600, 1)], dim=1)
    assert linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4) > 0.6


def test_a_class_without_a_label_is_allowed() -> None:
    rows, labels = problem()
    kept = labels[:400] != 2
    assert 0.3 < linear_probe(rows[:400][kept], labels[:400][kept], rows[400:], labels[400:], 4) < 0.9
