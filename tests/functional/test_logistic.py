from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_lightning.functional.logistic import fit, logistic_head


def rows(count: int = 120, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (count,), generator=generator)
    return 2 * torch.randn(count, 5, generator=generator) + targets[:, None], targets


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_fit_is_scikit_learns(decay: float) -> None:
    """Whose C is the inverse of decay times samples."""
    inputs, targets = rows()
    weight, bias = fit(inputs.double(), targets, 3, decay)
    theirs = LogisticRegression(C=1 / (decay * len(inputs)), tol=1e-10, max_iter=10_000).fit(inputs.double(), targets)
    assert torch.allclose(weight, torch.from_numpy(theirs.coef_), atol=1e-4)
    assert torch.allclose(bias - bias.mean(), torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean()), atol=1e-4)


def test_head_takes_embeddings_of_any_scale() -> None:
    """Far from the origin, of very different deviations, one of them constant: the same predictions."""
    inputs, targets = rows()
    scale, shift = torch.tensor([1.0, 100.0, 0.01, 3.0, 0.0]), torch.tensor([0.0, 500.0, -20.0, 1.0, 7.0])
    plain = logistic_head(inputs * (scale > 0), targets, 3)
    moved = logistic_head(inputs * scale + shift, targets, 3)
    logits = [
        one @ weight.T + bias
        for one, (weight, bias) in zip((inputs * (scale > 0), inputs * scale + shift), (plain, moved), strict=True)
    ]
    assert torch.allclose(logits[0], logits[1], atol=0.05)
    assert plain[0].dtype == torch.float32


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_few_labels_and_classes_without_any(count: int) -> None:
    inputs, targets = rows(count)
    weight, bias = logistic_head(inputs, targets.clamp(max=1), 7)
    assert weight.shape == (7, 5)
    assert weight.isfinite().all()
    predicted = (inputs @ weight.T + bias).argmax(dim=1)
    assert (predicted < 2).all()


def test_noise_is_regularised_more_than_signal() -> None:
    inputs, _ = rows(60)
    noise = torch.randint(3, (60,), generator=torch.Generator().manual_seed(5))
    clear = inputs.argmax(dim=1).clamp(max=2)
    assert logistic_head(inputs, noise, 3)[0].norm() < logistic_head(inputs, clear, 3)[0].norm()


def test_scipys_threads_do_not_fight_with_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two threads each, a fit of 10 samples took 8 s instead of 0.1 s."""
    import scipy.optimize
    from threadpoolctl import threadpool_info, threadpool_limits

    def blas() -> set[int]:
        found = [one for one in threadpool_info() if one["user_api"] == "blas" and "scipy" in one["filepath"]]
        return {one["num_threads"] for one in found}

    within, minimize = [], scipy.optimize.minimize

    def spied(*arguments: Any, **options: Any) -> Any:
        within.append(blas())
        return minimize(*arguments, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", spied)
    with threadpool_limits(2, "blas"):
        logistic_head(torch.randn(12, 3), torch.arange(12) % 2, 2)
        assert blas() == {2}
    assert within
    assert all(found == {1} for found in within)


def test_a_head_is_the_minimum_to_far_below_what_picks_depend_on() -> None:
    """Stopped at a gradient of 1e-5, embeddings that differ by rounding, kept and made anew, gave other picks."""
    inputs, targets = rows(40)
    mean, std = inputs.double().mean(dim=0), inputs.double().std(dim=0, correction=0)
    weight, bias = logistic_head(inputs.double(), targets, 3, decays=(1e-4,))
    weight = (weight * std).requires_grad_()
    bias = (bias + (weight.detach() / std) @ mean).requires_grad_()
    logits = (inputs.double() - mean) / std @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, targets) + 1e-4 / 2 * weight.square().sum()
    slopes = torch.autograd.grad(loss, [weight, bias])
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-8
