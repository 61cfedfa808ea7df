"""Strategies that trust one model's uncertainty."""

from torch import Tensor

from ssl_lightning.active.scoring import entropy
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions


class Entropy(AcquisitionStrategy):
    r"""Asks for the samples of largest predictive entropy, :math:`-\sum_c p_c \log p_c`.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        B. Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009, section 3.1, Eq. 2.
    """

    def score(self, predictions: Predictions) -> Tensor:
        """Return entropies in nats, `(N,)`."""
        return entropy(predictions.log_probabilities)
