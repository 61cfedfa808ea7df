"""Acquisition scores: predictions in, one number a sample out; a larger one always means: label first. In nats."""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_CACHED = 2**19  # numbers that stay in a processor's cache between two steps
_ROWS = 4096  # samples that are in float64 at a time


def least_confidence(log_probabilities: Tensor) -> Tensor:
    r"""How far the best class is from certain, :math:`1 - \max_c p_c`.

    Summed over the other classes, which keeps its digits where the model is all but certain.

    Args:
        log_probabilities: `(..., classes)`, normalised; entries may be -inf.

    Returns:
        `(...)`, from 0 to 1 - 1 / classes.

    Reference:
        B. Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009, section 3.1.

    Example:
        >>> least_confidence(torch.tensor([[0.75, 0.25], [1.0, 0.0]]).log())
        tensor([0.2500, 0.0000])
    """
    return _others(log_probabilities).sum(dim=-1)


def ratio(log_probabilities: Tensor) -> Tensor:
    r"""How close the two best classes are, :math:`p_{(2)} / p_{(1)} = e^{z_{(2)} - z_{(1)}}`, of logits z as well.

    Args:
        log_probabilities: `(..., classes)`; entries may be -inf.

    Returns:
        `(...)`, from 0 (certain) to 1 (undecided between two).

    Example:
        >>> ratio(torch.tensor([[0.75, 0.25], [1.0, 0.0]]).log())
        tensor([0.3333, 0.0000])
    """
    best = log_probabilities.topk(2, dim=-1).values
    return (best[..., 1] - best[..., 0]).exp()


def informativeness(log_probabilities: Tensor) -> Tensor:
    r"""How close the two best classes are, :math:`1 - (p_{(1)} - p_{(2)})`: the margin, so that a small one is large.

    Summed as :math:`2 p_{(2)} + p_{(3)} + \dots`, which keeps its digits where the model is all but certain.

    Args:
        log_probabilities: `(..., classes)`, normalised; entries may be -inf.

    Returns:
        `(...)`, from 0 (certain) to 1 (undecided between two).

    Reference:
        T. Scheffer, C. Decomain, S. Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001.

    Example:
        >>> informativeness(torch.tensor([[0.75, 0.25], [1.0, 0.0]]).log())
        tensor([0.5000, 0.0000])
    """
    others = _others(log_probabilities)
    return others.sum(dim=-1) + others.amax(dim=-1)


def _others(log_probabilities: Tensor) -> Tensor:
    """Return the probabilities with 0 for the best class, the first of equals."""
    best = log_probabilities.argmax(dim=-1, keepdim=True)
    return log_probabilities.exp().scatter(-1, best, 0.0)


def residuals(log_probabilities: Tensor) -> Tensor:
    r"""Gradient by the logits, were the predicted class right, :math:`q = p - \mathrm{onehot}(\arg\max p)`.

    The entry of the predicted class is minus the sum of the others: a difference from 1 would leave none of its digits
    where the model is all but certain.

    Args:
        log_probabilities: `(n, classes)`, normalised; entries may be -inf.

    Returns:
        q, `(n, classes)`; each row sums up to 0.

    Example:
        >>> residuals(torch.tensor([[0.75, 0.25], [1.0, 0.0]]).log())
        tensor([[-0.2500,  0.2500],
                [ 0.0000,  0.0000]])
    """
    others = _others(log_probabilities)
    return others.scatter(1, log_probabilities.argmax(dim=1, keepdim=True), 0 - others.sum(dim=1, keepdim=True))


def entropy(log_probabilities: Tensor) -> Tensor:
    r"""Shannon entropy of predictions, :math:`H(y) = -\sum_c p_c \log p_c`.

    Args:
        log_probabilities: `(..., classes)`, normalised; entries may be -inf.

    Returns:
        `(...)`, in nats, from 0 to log(classes).

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log())
        tensor([0.6931, 0.0000])
    """
    probabilities = log_probabilities.exp()
    return torch.where(probabilities > 0, -probabilities * log_probabilities, 0.0).sum(dim=-1)


def mean_prediction(log_probabilities: Tensor) -> Tensor:
    r"""Average predictions over draws of the weights, :math:`\log E_w[p(y|w)]`.

    Args:
        log_probabilities: `(members, ..., classes)`, normalised; entries may be -inf.

    Returns:
        `(..., classes)`, normalised.

    Example:
        >>> mean_prediction(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()).exp()
        tensor([0.7500, 0.2500])
    """
    return torch.logsumexp(log_probabilities, dim=0) - math.log(len(log_probabilities))


def vote_entropy(log_probabilities: Tensor) -> Tensor:
    r"""Entropy of the members' votes, :math:`-\sum_c \frac{V_c}{K} \log \frac{V_c}{K}`.

    Args:
        log_probabilities: Of draws of the weights, `(members, ..., classes)`; each votes for its best class, the first
            of equals.

    Returns:
        `(...)`, in nats, from 0 to log(min(members, classes)).

    Reference:
        I. Dagan, S. Engelson, Committee-Based Sampling for Training Probabilistic Classifiers, ICML 1995, section 3;
        there divided by log(members), which changes no order.

    Example:
        >>> vote_entropy(torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]]]).log())
        tensor([0.6931])
    """
    classes = log_probabilities.shape[-1]
    shares = one_hot(log_probabilities.argmax(dim=-1), classes).float().mean(dim=0)
    return entropy(shares.log())


def mutual_information(log_probabilities: Tensor) -> Tensor:
    r"""BALD: what a label would tell about the weights, :math:`I(y; w) = H(E_w[y]) - E_w[H(y|w)]`.

    The difference of two entropies, of which rounding would leave nothing where the members all but agree, is added up
    from terms that are at least 0, with the mean prediction m:

    .. math:: I(y; w) = \sum_c m_c E_w[\phi(\log p_c - \log m_c)], \qquad \phi(r) = r e^r - e^r + 1

    Args:
        log_probabilities: Of draws of the weights, `(members, ..., classes)`, normalised; entries may be -inf.

    Returns:
        `(...)`, in nats, from 0 to log(min(members, classes)), to a billionth: less is what float32 makes of equals.

    Reference:
        N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, Bayesian Active Learning for Classification and Preference
        Learning, 2011, arXiv 1112.5745, Eq. 2; with MC dropout: Y. Gal, R. Islam, Z. Ghahramani, ICML 2017, arXiv
        1703.02910.

    Example:
        >>> certain_but_divided = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
        >>> mutual_information(certain_but_divided)
        tensor([0.6931])
    """
    mean = mean_prediction(log_probabilities)
    ratios = (log_probabilities - mean).nan_to_num(nan=0.0).clamp(min=-100)  # of minus infinities: m is 0
    terms = torch.expm1(ratios) * (ratios - 1) + ratios
    return (mean.exp() * terms.mean(dim=0)).sum(dim=-1).clamp(min=0).round(decimals=9)


def expected_predictive_information_gain(pool: Tensor, targets: Tensor, count: int | None = None) -> Tensor:
    r"""EPIG: what a label would tell about predictions elsewhere, :math:`E_{x_*}[I(y; y_* | x, x_*)]`.

    .. math:: H(y) + \frac1M \sum_m H(y_m) - \frac1M \sum_m H(y, y_m), \qquad
        p(y, y_m) = \frac1K \sum_k p_k(y | x)\, p_k(y_m | x_m)

    It never exceeds `mutual_information`: what the weights do not know, no prediction can.

    Args:
        pool: Probabilities under K draws of the weights, `(N, K, classes)`.
        targets: Of the inputs that matter, under the same draws, `(M, K, classes)`.
        count: Only so many largest scores are wanted, and those as large up to rounding; null for all. Samples that an
            upper bound tells to be smaller are passed over.

    Returns:
        `(N,)`, in nats, at least 0; minus infinity for those that were passed over.

    Reference:
        F. Bickford Smith, A. Kirsch, S. Farquhar, Y. Gal, A. Foster, T. Rainforth, Prediction-Oriented Bayesian Active
        Learning, AISTATS 2023, arXiv 2304.08151, Eq. 5 and 10. The bound is ours: that of the Kullback-Leibler
        divergence by chi squared.

    Example:
        >>> divided = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # one sample, two members
        >>> agreed = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
        >>> expected_predictive_information_gain(torch.cat([divided, agreed]), divided)
        tensor([0.6931, 0.0000])
    """
    members = pool.shape[1]
    means, ratios = _relative(targets)
    there, share = ratios.transpose(0, 1).flatten(1) / members, means.flatten() / len(targets)  # (K, M * classes)
    if count is None or count >= len(pool):
        return _gains(pool, there, share)
    # with f(r) = (1 + r) log(1 + r) - r <= r^2, the sum of p q r^2 is a square of K numbers, whatever the targets
    values, vectors = torch.linalg.eigh((there * share) @ there.T)
    root = vectors * values.clamp(min=0).sqrt()
    parts = []
    for part in torch.split(pool, _ROWS):
        means, ratios = _relative(part)
        parts.append((means * (ratios.transpose(1, 2) @ root).square().sum(dim=2)).sum(dim=1))
    bounds = torch.cat(parts) * (1 + 1e-4)
    order = bounds.argsort(descending=True, stable=True)
    scores = torch.full((len(pool),), -torch.inf, device=pool.device)
    done, width = 0, max(_ROWS, count)
    while done < len(order):
        some = order[done : done + width]
        scores[some] = _gains(pool[some], there, share)
        done += len(some)
        least = scores[order[:done]].topk(min(count, done)).values[-1]
        if done < len(order) and bounds[order[done]] < least * (1 - 5e-3):  # less than any rounding makes equal
            break
        width *= 2
    return scores


def _gains(pool: Tensor, there: Tensor, share: Tensor) -> Tensor:
    """Return EPIG of samples.

    Args:
        pool: `(N, K, classes)`.
        there: How far the targets' probabilities lie from their means, relative to these, over K, `(K, M * classes)`.
        share: The means, over M, `(M * classes,)`.
    """
    # with D the covariance over draws and r = D / p q the joint is p q (1 + r); as r sums to 0 by p q, EPIG is the mean
    # over targets of the sum of p q ((1 + r) log(1 + r) - r): each at least 0, so that float32 will do
    there, share = there.float(), share.float()
    scores = torch.empty(len(pool), device=pool.device)
    height = max(1, _CACHED // there.shape[1])
    for start in range(0, len(pool), _ROWS):
        means, ratios = _relative(pool[start : start + _ROWS])
        here = ratios.transpose(1, 2).flatten(0, 1).float()  # (n * classes, K)
        told = []
        for rows in torch.split(here, height):
            ratio = (rows @ there).clamp_(min=-1)  # (height, M * classes)
            logs = ratio.log1p().clamp_(min=-20)  # 0 log 0 is 0
            told.append(logs.addcmul_(logs, ratio).sub_(ratio) @ share)
        scores[start : start + _ROWS] = (torch.cat(told).view(means.shape).double() * means).sum(dim=1).float()
    return scores.clamp(min=0)


def _relative(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of probabilities `(N, K, classes)` over draws, and how far each lies from it, relative to it."""
    exact = samples.double()
    exact = exact / exact.sum(dim=-1, keepdim=True)  # rounded sums of probabilities would show
    mean = exact.mean(dim=1)
    return mean, torch.where(mean[:, None] > 0, exact / mean[:, None].clamp(min=1e-300) - 1, 0.0)
