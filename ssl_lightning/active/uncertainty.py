"""Strategies that trust one model's uncertainty."""

from torch import Tensor

from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.functional.scoring import entropy, informativeness, least_confidence, ratio


class LeastConfidence(AcquisitionStrategy):
    r"""Asks for the samples whose best class is least certain, by :math:`1 - \max_c p_c`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        D. Lewis, W. Gale, A Sequential Algorithm for Training Text Classifiers, SIGIR 1994; B. Settles, Active Learning
        Literature Survey, University of Wisconsin-Madison, 2009, section 3.1.

    Example:
        >>> from torch import nn, tensor
        >>> said = Predictions(nn.Identity(), tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]).log(), seed=0)
        >>> LeastConfidence().score(said)  # 1 - 0.5, 1 - 0.8
        tensor([0.5000, 0.2000])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return what is missing to certainty, `(N,)`."""
        return least_confidence(predictions.log_probabilities)


class Margin(AcquisitionStrategy):
    r"""Asks for the samples whose two best classes differ least, by :math:`1 - (p_{(1)} - p_{(2)})`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        T. Scheffer, C. Decomain, S. Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001.

    Example:
        >>> from torch import nn, tensor
        >>> said = Predictions(nn.Identity(), tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]).log(), seed=0)
        >>> Margin().score(said)  # 1 - (0.5 - 0.3), 1 - (0.8 - 0.1)
        tensor([0.8000, 0.3000])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return one less the margins, `(N,)`, which keeps its digits where the model is all but certain."""
        return informativeness(predictions.log_probabilities)


class Ratio(AcquisitionStrategy):
    r"""Asks for the samples whose two best classes are nearest by ratio, :math:`p_{(2)} / p_{(1)}`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        R. Monarch, Human-in-the-Loop Machine Learning, Manning 2021, section 3.2.3 (ratio of confidence).

    Example:
        >>> from torch import nn, tensor
        >>> said = Predictions(nn.Identity(), tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]).log(), seed=0)
        >>> Ratio().score(said)  # 0.3 / 0.5, 0.1 / 0.8
        tensor([0.6000, 0.1250])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return ratios, `(N,)`."""
        return ratio(predictions.log_probabilities)


class Entropy(AcquisitionStrategy):
    r"""Asks for the samples of largest predictive entropy, :math:`-\sum_c p_c \log p_c`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        B. Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009, section 3.1, Eq. 2.

    Example:
        >>> from torch import nn, tensor
        >>> said = Predictions(nn.Identity(), tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]]).log(), seed=0)
        >>> Entropy().score(said)  # log 4, and nothing
        tensor([1.3863, 0.0000])
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return entropies in nats, `(N,)`."""
        return entropy(predictions.log_probabilities)
