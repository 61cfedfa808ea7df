import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from skactiveml.pool import average_kl_divergence, uncertainty_scores
from skactiveml.pool import vote_entropy as their_vote_entropy

import ssl_lightning.functional.scoring as scoring
from ssl_lightning.functional.scoring import (
    entropy,
    expected_predictive_information_gain,
    informativeness,
    least_confidence,
    mutual_information,
    ratio,
    residuals,
    vote_entropy,
)
from ssl_lightning.functional.selection import top


def probabilities(*shape: int) -> torch.Tensor:
    return torch.distributions.Dirichlet(torch.full((shape[-1],), 0.5)).sample(shape[:-1])


def test_entropy_is_scipys() -> None:
    p = probabilities(50, 7)
    torch.testing.assert_close(entropy(p.log()), torch.from_numpy(scipy_entropy(p.numpy(), axis=1)), check_dtype=False)


def test_entropy_of_certainty_and_of_ignorance() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert entropy(p.log()).tolist() == [0.0, pytest.approx(math.log(3))]


def test_mutual_information_by_enumeration() -> None:
    """As the mean Kullback-Leibler divergence of the members from their mean, in float64."""
    p = probabilities(6, 30, 4).double()
    mean = p.mean(dim=0)
    expected = (p * (p / mean).log()).sum(dim=-1).mean(dim=0)
    torch.testing.assert_close(mutual_information(p.log()), expected)


def test_mutual_information_survives_minus_infinity() -> None:
    p = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert mutual_information(p.log()).item() == 0.0
    p = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) - 0.5 * math.log(2)
    assert mutual_information(p.log()).item() == pytest.approx(expected, abs=1e-6)


def test_mutual_information_bounds() -> None:
    p = probabilities(3, 200, 10)
    score = mutual_information(p.log())
    assert (score >= 0).all()
    assert (score <= math.log(3) + 1e-6).all()
    assert (mutual_information(p[:1].expand(4, -1, -1).log()) < 1e-6).all()


def test_top_is_a_sort() -> None:
    scores, indices = torch.rand(100), torch.randperm(1000)[:100]
    expected = sorted(range(100), key=lambda i: (-round(scores[i].item(), 6), indices[i].item()))[:10]
    assert top(scores, indices, 10).tolist() == expected


def test_ties_go_to_the_smaller_index_and_permutation_permutes() -> None:
    scores, indices = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0]), torch.tensor([4, 9, 3, 7, 1])
    assert indices[top(scores, indices, 2)].tolist() == [3, 7]
    order = torch.randperm(5)
    assert indices[order][top(scores[order], indices[order], 2)].tolist() == [3, 7]


def test_the_last_bits_do_not_decide() -> None:
    scores = torch.tensor([0.5, 0.5 + 1e-8, 0.4], dtype=torch.float64)
    assert top(scores, torch.tensor([0, 1, 2]), 2).tolist() == [0, 1]


def test_large_scores_are_compared_by_their_own_digits() -> None:
    """A float32 of 10,000 has no sixth decimal; beside it the small ones are compared as ever."""
    scores = torch.tensor([12345.001, 12345.002, 0.5, 0.50001, -math.inf, math.inf, -12345.0], dtype=torch.float64)
    assert top(scores, torch.arange(7), 7).tolist() == [5, 0, 1, 3, 2, 6, 4]
    assert top(torch.tensor([9.999999, 10.0]), torch.arange(2), 1).tolist() == [1]
    assert top(torch.full((4,), -math.inf), torch.arange(4), 2).tolist() == [0, 1]


def test_certain_predictions_keep_their_digits() -> None:
    """Residual and informativeness where 1 - p has no digits left, against float64."""
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 1] += 25
    exact = logits.double().log_softmax(dim=1).exp()
    others = exact.clone()
    others[:, 1] = 0
    expected = others.clone()
    expected[:, 1] = -others.sum(dim=1)
    found = residuals(logits.log_softmax(dim=1))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    found = informativeness(logits.log_softmax(dim=1))
    torch.testing.assert_close(found.double(), others.sum(dim=1) + others.amax(dim=1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("score", [entropy, ratio, informativeness, least_confidence])
@pytest.mark.parametrize("order", [1, -1])
def test_a_confident_pool_is_chosen_from_by_score(score: Any, order: int) -> None:
    """Against float64, where all scores are below a millionth."""
    logits = torch.zeros(100, 3)
    logits[:, 0] = torch.tensor(np.linspace(17, 30, 100)[::order].copy())
    expected = score(logits.double().log_softmax(dim=1)).argsort(descending=True)[:20]
    assert top(score(logits.log_softmax(dim=1)), torch.arange(100), 20).tolist() == expected.tolist()


def test_small_scores_are_compared_by_their_own_digits() -> None:
    """The last bits of a small score are no more known than those of a large one; from 0.01 on it is a millionth."""
    scores = torch.tensor([1e-9, 1e-9 * (1 + 1e-6), 1.001e-9, 0.0, -1e-9, -2e-9], dtype=torch.float64)
    assert top(scores, torch.arange(6), 6).tolist() == [2, 0, 1, 3, 4, 5]
    assert top(torch.tensor([0.01, 0.0100004, 0.010002]), torch.arange(3), 3).tolist() == [2, 0, 1]


def test_mutual_information_of_members_that_all_but_agree() -> None:
    """Against float64: a difference of entropies in float32 would be rounding, 1e-7."""
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    members = logits + 1e-3 * torch.randn(10, 200, 5, generator=torch.Generator().manual_seed(1))
    p = members.double().softmax(dim=-1)
    expected = (p * (p / p.mean(dim=0)).log()).sum(dim=-1).mean(dim=0)
    found = mutual_information(members.log_softmax(dim=-1)).double()
    assert float(expected.max()) < 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-9)
    assert (mutual_information(members[:1].expand(7, -1, -1).log_softmax(dim=-1)) == 0).all()


def test_epig_of_members_that_all_but_agree() -> None:
    logits = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    members = (logits + 5e-3 * torch.randn(10, 60, 5, generator=torch.Generator().manual_seed(1))).transpose(0, 1)
    p = members.double().softmax(dim=-1)
    joint = torch.einsum("nkc,mkd->nmcd", p, p[:9]) / 10
    alone = torch.einsum("nc,md->nmcd", p.mean(dim=1), p[:9].mean(dim=1))
    exact = (joint * (joint / alone).log()).sum(dim=(2, 3)).mean(dim=1)
    found = expected_predictive_information_gain(members.softmax(dim=-1), members[:9].softmax(dim=-1))
    assert float(exact.max()) < 1e-5
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-9)


def test_epig_of_certain_members() -> None:
    """Probabilities of 0 and 1, classes that no member knows: nothing is 0 times infinity."""
    pool = torch.eye(3)[torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]])]
    found = expected_predictive_information_gain(pool, pool[:1])
    torch.testing.assert_close(found, torch.tensor([math.log(2), 0.0, 0.0]), atol=1e-6, rtol=0)


def test_informativeness_is_one_and_the_margin() -> None:
    p = probabilities(60, 5)
    best = p.topk(2, dim=1).values
    torch.testing.assert_close(informativeness(p.log()), 1 - best[:, 0] + best[:, 1], rtol=0, atol=1e-6)
    q = p - torch.nn.functional.one_hot(p.argmax(dim=1), 5)
    torch.testing.assert_close(residuals(p.log()), q, rtol=0, atol=1e-6)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="`count=3` exceeds the 2 samples"):
        top(torch.rand(2), torch.arange(2), 3)
    with pytest.raises(ValueError, match="the score of sample 8 is NaN"):
        top(torch.tensor([0.1, math.nan]), torch.tensor([3, 8]), 1)


def test_scores_are_scikit_activemls() -> None:
    """Least confidence, margin and entropy of one model; vote entropy and BALD of a committee."""
    p = probabilities(60, 5).double()
    numbers = p.numpy()
    pairs = (
        ("least_confident", least_confidence, 0.0),
        ("margin_sampling", informativeness, 0.0),
        ("entropy", entropy, 0.0),
    )
    for name, score, offset in pairs:
        theirs = torch.from_numpy(uncertainty_scores(numbers, method=name))
        torch.testing.assert_close(score(p.log()) + offset, theirs)  # their margin is counted from 1
    members = probabilities(7, 60, 5).double()
    votes = members.argmax(dim=2).T.numpy()
    theirs = torch.from_numpy(their_vote_entropy(votes, range(5)))
    torch.testing.assert_close(vote_entropy(members.log()), theirs, check_dtype=False)
    theirs = torch.from_numpy(average_kl_divergence(members.numpy()))
    torch.testing.assert_close(mutual_information(members.log()), theirs)


def test_ratio_is_that_of_the_two_best() -> None:
    p = probabilities(40, 6).double()
    best = p.sort(dim=1, descending=True).values
    torch.testing.assert_close(ratio(p.log()), best[:, 1] / best[:, 0])
    torch.testing.assert_close(ratio(p.log() + 5), ratio(p.log()))  # of logits, too


def test_epig_by_enumeration() -> None:
    """As the mean Kullback-Leibler divergence of the joint of two labels from the product of its margins."""
    pool, targets = probabilities(5, 6, 3).double(), probabilities(4, 6, 3).double()
    expected = torch.zeros(5, dtype=torch.float64)
    for i in range(5):
        for j in range(4):
            joint = sum(pool[i, k][:, None] * targets[j, k] for k in range(6)) / 6
            alone = pool[i].mean(dim=0)[:, None] * targets[j].mean(dim=0)
            expected[i] += (joint * (joint / alone).log()).sum() / 4  # type: ignore[union-attr]
    found = expected_predictive_information_gain(pool, targets)
    torch.testing.assert_close(found, expected, check_dtype=False, atol=1e-7, rtol=1e-5)
    assert (found <= mutual_information(pool.transpose(0, 1).log()) + 1e-6).all()


@pytest.mark.parametrize("kind", ["a model's", "drawn", "copies", "certain", "of one opinion"])
def test_the_largest_epig_scores_are_found_without_all_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same samples and scores as if all were looked at closely; of a model's predictions, few are."""
    monkeypatch.setattr(scoring, "_ROWS", 64)
    draws = torch.Generator().manual_seed(1)
    common, own = torch.randn(900, 1, 4, generator=draws), torch.randn(900, 8, 4, generator=draws)
    logits = 4 * common + 2 * torch.rand(900, 1, 1, generator=draws) * own
    if kind == "drawn":
        logits = own
    elif kind == "copies":
        logits = logits[:30].repeat(30, 1, 1)
    elif kind == "certain":
        logits = 1e3 * own
    elif kind == "of one opinion":
        logits = common.repeat(1, 8, 1)
    pool = logits.softmax(dim=2)
    every, index = expected_predictive_information_gain(pool, pool[::30]), torch.arange(900)
    for count in (1, 10, 100):
        found = expected_predictive_information_gain(pool, pool[::30], count)
        assert torch.equal(top(found, index, count, decimals=5), top(every, index, count, decimals=5))
        looked = found > -torch.inf
        torch.testing.assert_close(found[looked], every[looked])
        assert kind != "a model's" or count == 100 or looked.sum() < 450
