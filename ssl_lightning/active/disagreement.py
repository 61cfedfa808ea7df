"""Strategies that ask where draws of the weights disagree: dropout masks, members of an ensemble, snapshots."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.engine.processes import Rows
from ssl_lightning.engine.ranges import between, given, whole
from ssl_lightning.functional.scoring import (
    entropy,
    expected_predictive_information_gain,
    mean_prediction,
    mutual_information,
    vote_entropy,
)
from ssl_lightning.functional.selection import top


class CommitteeStrategy(AcquisitionStrategy):
    """Base of the strategies that compare several opinions; refuses a model of one before it is trained.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, members: int | None = None, query_size: int = 10, batch_size: int | None = None) -> None:
        super().__init__(query_size, batch_size)
        self.members = require_members(members)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Refuse a model of one opinion before it is trained, too."""
        super().on_fit_start(trainer, module)
        require_samples(module, self.members)


class HighestDisagreement(CommitteeStrategy):
    r"""Asks for the samples of largest entropy of the mean prediction, :math:`H(E_w[y])`.

    It does not tell members that disagree from members that agree on being undecided; `BALD` does.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        Y. Gal, R. Islam, Z. Ghahramani, Deep Bayesian Active Learning with Image Data, ICML 2017, arXiv 1703.02910,
        section 4, "max entropy".

    Example:
        >>> from types import SimpleNamespace
        >>> opinions = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])  # (members, N, classes)
        >>> model = SimpleNamespace(sample_logits=lambda probabilities, members, seed: probabilities.log())
        >>> HighestDisagreement().score(Predictions(model, opinions, seed=0))  # log 2: it does not tell them apart
        tensor([0.6931, 0.6931])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return entropies in nats, `(N,)`."""
        return entropy(mean_prediction(predictions.samples(self.members)))


class VoteEntropy(CommitteeStrategy):
    r"""Asks for the samples on whose class the members' votes are most divided, :math:`-\sum_c V_c/K \log V_c/K`.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        I. Dagan, S. Engelson, Committee-Based Sampling for Training Probabilistic Classifiers, ICML 1995, section 3.

    Example:
        >>> from types import SimpleNamespace
        >>> opinions = torch.tensor([[[0.6, 0.4], [0.9, 0.1]], [[0.6, 0.4], [0.1, 0.9]]])  # (members, N, classes)
        >>> model = SimpleNamespace(sample_logits=lambda probabilities, members, seed: probabilities.log())
        >>> VoteEntropy().score(Predictions(model, opinions, seed=0))  # votes 2 to 0, and 1 to 1
        tensor([0.0000, 0.6931])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return entropies in nats, `(N,)`."""
        return vote_entropy(predictions.samples(self.members))


class BALD(CommitteeStrategy):
    r"""Asks for the samples whose label tells most about the weights, :math:`H(E_w[y]) - E_w[H(y|w)]`.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, Bayesian Active Learning for Classification and Preference
        Learning, 2011, arXiv 1112.5745, Eq. 2; by dropout: Y. Gal, R. Islam, Z. Ghahramani, ICML 2017, arXiv
        1703.02910. There every forward pass draws masks of its own; ours are shared, so that picks do not depend on
        batches.

    Example:
        >>> from types import SimpleNamespace
        >>> opinions = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])  # (members, N, classes)
        >>> model = SimpleNamespace(sample_logits=lambda probabilities, members, seed: probabilities.log())
        >>> BALD().score(Predictions(model, opinions, seed=0))  # unclear to both: nothing to tell; each sure: log 2
        tensor([0.0000, 0.6931])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return mutual information in nats, `(N,)`."""
        return mutual_information(predictions.samples(self.members))


class PowerBALD(CommitteeStrategy):
    r"""Draws samples with a probability that grows with a power of their BALD score, :math:`p_i \propto s_i^\beta`.

    A batch by chance that avoids near copies, at the cost of BALD: the largest :math:`\log s_i + g_i / \beta` with
    Gumbel noise g are such a draw without replacement.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        beta: From 0.001 to 1000: near 0 it is random, and the larger, the nearer to BALD.
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        A. Kirsch, S. Farquhar, P. Atighehchian, A. Jesson, F. Branchaud-Charron, Y. Gal, Stochastic Batch Acquisition,
        TMLR 2023, arXiv 2106.12059, section 3.

    Example:
        >>> rows = {"score": torch.tensor([0.0, 0.6, 0.0]), "index": torch.arange(3)}
        >>> PowerBALD(query_size=1).select(rows, torch.Generator().manual_seed(0))  # the others have no chance
        tensor([1])
    """

    def __init__(
        self, members: int | None = None, beta: float = 1.0, query_size: int = 10, batch_size: int | None = None
    ) -> None:
        super().__init__(members, query_size, batch_size)
        between(1e-3, 1e3, "[]", "with less take `Random`, with more `BALD`", beta=beta)
        self.beta = beta

    def score(self, predictions: Predictions) -> Tensor:
        """Return mutual information in nats, `(N,)`."""
        return mutual_information(predictions.samples(self.members))

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Add the noise, one number a sample by index, and take the largest."""
        uniform = torch.rand(len(rows["index"]), generator=generator, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(min=1e-30)))
        scores = rows["score"].double().clamp(min=1e-12).log() + gumbel / self.beta
        return top(scores, rows["index"], self.query_size)


class EPIG(CommitteeStrategy):
    r"""Asks for the samples whose label tells most about predictions elsewhere, :math:`E_{x_*}[I(y; y_* | x, x_*)]`.

    BALD likes what teaches the weights anything; EPIG only what teaches them about inputs that matter, here a random
    part of the pool. The largest scores are taken.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        targets: Inputs that matter, drawn from the pool.
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        F. Bickford Smith et al., Prediction-Oriented Bayesian Active Learning, AISTATS 2023, arXiv 2304.08151, Eq. 5.
        Targets are drawn anew each round.

    Example:
        >>> sure = torch.tensor([[0.99, 0.01], [0.01, 0.99]])  # of two members each is, of another class
        >>> rows = {"samples": torch.stack([torch.full((2, 2), 0.5), sure]), "index": torch.arange(2)}
        >>> EPIG(query_size=1).select(rows, torch.Generator().manual_seed(0))  # a label tells which of the two is right
        tensor([1])
    """

    def __init__(
        self, members: int | None = None, targets: int = 100, query_size: int = 10, batch_size: int | None = None
    ) -> None:
        super().__init__(members, query_size, batch_size)
        whole(1, targets=targets)
        self.targets = targets

    def rows(self, predictions: Predictions) -> Rows:
        """Return every member's probabilities, `(N, members, classes)`."""
        return {"samples": predictions.samples(self.members).exp().transpose(0, 1)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Draw the targets, score, and take the largest."""
        samples = rows["samples"]
        targets = samples[torch.randperm(len(samples), generator=generator)[: self.targets]]
        rows["score"] = expected_predictive_information_gain(samples, targets, self.query_size)
        return top(rows["score"], rows["index"], self.query_size, decimals=5)  # a small difference of large numbers


def require_members(members: int | None) -> int | None:
    """Check a number of members.

    Raises:
        ValueError: If it is none, or below 2.
    """
    whole(2, math.inf, "one draw cannot disagree", **given(members=members))
    return members


def require_samples(module: L.LightningModule, members: int | None) -> None:
    """Check that a model can be drawn from.

    Raises:
        ValueError: If it cannot.
    """
    if not hasattr(module, "require_samples"):
        raise ValueError(
            f"`{type(module).__name__}` has no draws of its weights, which this strategy needs; use `Classifier` with "
            "dropout, or an ensemble."
        )
    check: Any = module.require_samples
    check(members)
