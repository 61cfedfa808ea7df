"""Acquisition scores: predictions in, one number a sample out; a larger one always means: label first. In nats."""

import math

import torch
from torch import Tensor


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


def mutual_information(log_probabilities: Tensor) -> Tensor:
    r"""BALD: what a label would tell about the weights, :math:`I(y; w) = H(E_w[y]) - E_w[H(y|w)]`.

    Args:
        log_probabilities: Of draws of the weights, `(members, ..., classes)`, normalised; entries may be -inf.

    Returns:
        `(...)`, in nats, from 0 to log(min(members, classes)).

    Reference:
        N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, Bayesian Active Learning for Classification and Preference
        Learning, 2011, arXiv 1112.5745, Eq. 2; with MC dropout: Y. Gal, R. Islam, Z. Ghahramani, ICML 2017, arXiv
        1703.02910.

    Example:
        >>> certain_but_divided = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
        >>> mutual_information(certain_but_divided)
        tensor([0.6931])
    """
    mean = torch.logsumexp(log_probabilities, dim=0) - math.log(len(log_probabilities))
    return (entropy(mean) - entropy(log_probabilities).mean(dim=0)).clamp(min=0)
