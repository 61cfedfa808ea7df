import importlib
import math
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_lightning.evaluation import linear_probe

module = importlib.import_module("ssl_lightning.functional.logistic")


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


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e9])
def test_no_dimension_is_too_small_to_count(scale: float) -> None:
    rows, labels = problem()
    one = linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4)
    sizes = torch.tensor([1.0, scale]).repeat(5)
    assert one == pytest.approx(
        linear_probe(sizes * rows[:400], labels[:400], sizes * rows[400:], labels[400:], 4), abs=0.006
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20])
def test_a_dimension_that_never_varied_in_training_says_nothing(value: float) -> None:
    rows, labels = problem()
    one = linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4)
    rows = torch.cat([rows, torch.full((600, 1), value)], dim=1)
    rows[400:, -1] += 1 + value
    assert one == pytest.approx(linear_probe(rows[:400], labels[:400], rows[400:], labels[400:], 4), abs=0.006)


def test_a_class_without_a_label_is_allowed() -> None:
    rows, labels = problem()
    kept = labels[:400] != 2
    assert 0.3 < linear_probe(rows[:400][kept], labels[:400][kept], rows[400:], labels[400:], 4) < 0.9


def hard() -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised rows whose directions differ in size by ten thousand: the optimum is some hundred steps away."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1000, 64, generator=generator, dtype=torch.float64)
    mixed = (base * torch.logspace(-2, 2, 64, dtype=torch.float64)) @ torch.randn(64, 64, generator=generator).double()
    logits = base @ torch.randn(64, 10, generator=generator).double() + torch.randn(1000, 10, generator=generator)
    return (mixed - mixed.mean(dim=0)) / mixed.std(dim=0, correction=0), logits.argmax(dim=1)


def objective(rows: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> float:
    """Return what is minimised, with a decay of 1e-4."""
    loss = torch.nn.functional.cross_entropy(rows @ weight.T + bias, labels)
    return float(loss + 0.5e-4 * weight.pow(2).sum())


def test_hard_data_converge_to_scikit_learns_optimum(recwarn: pytest.WarningsRecorder) -> None:
    """And by 200 steps, where the probe once stopped, they do not."""
    rows, labels = hard()
    reference = LogisticRegression(C=10, tol=1e-7, max_iter=100_000).fit(rows.numpy(), labels)
    least = objective(rows, labels, torch.from_numpy(reference.coef_), torch.from_numpy(reference.intercept_))
    assert reference.n_iter_[0] > 400
    assert objective(rows, labels, *module.fit(rows, labels, 10, 1e-4)) == pytest.approx(least, abs=3e-6)
    assert not [warning for warning in recwarn if "converged" in str(warning.message)]


def test_a_probe_that_stops_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = hard()
    monkeypatch.setattr(module, "MAX_STEPS", 200)
    with pytest.warns(UserWarning, match=r"linear probe \(decay 0.0001\) has not converged after 200 steps"):
        early = module.fit(rows, labels, 10, 1e-4)
    monkeypatch.undo()
    assert objective(rows, labels, *early) > objective(rows, labels, *module.fit(rows, labels, 10, 1e-4)) + 3e-6


def test_what_is_not_finite_is_named() -> None:
    rows, labels = problem()
    rows[3, 2] = torch.nan
    with pytest.raises(ValueError, match="`train` holds NaN or infinity: the embedding has diverged"):
        linear_probe(rows, labels, rows[:0], labels[:0], 4)
    with pytest.raises(ValueError, match="`test` holds no embedding"):
        linear_probe(rows[10:], labels[10:], rows[:0], labels[:0], 4)


@pytest.mark.parametrize("options", [{"decays": ()}, {"decays": (1e-3, math.nan)}, {"decays": 0.1}, {"seed": 1.5}])
def test_what_is_out_of_range_is_named(options: dict[str, Any]) -> None:
    rows, labels = problem()
    with pytest.raises(ValueError, match=f"^`{next(iter(options))}=.*` must be "):
        linear_probe(rows, labels, rows, labels, 4, **options)
