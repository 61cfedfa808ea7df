"""Strategies that ask where draws of the weights disagree."""

import lightning as L
from torch import Tensor

from ssl_lightning.active.scoring import mutual_information
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.classifier import require_dropout


class BALD(AcquisitionStrategy):
    r"""Asks for the samples whose label tells most about the weights, :math:`H(E_w[y]) - E_w[H(y|w)]`, by MC dropout.

    Needs a model with dropout (`Classifier(dropout=0.5)`).

    Args:
        members: Dropout masks, each the same for all samples.
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        Y. Gal, R. Islam, Z. Ghahramani, Deep Bayesian Active Learning with Image Data, ICML 2017, arXiv 1703.02910,
        section 4. There every forward pass draws masks of its own; ours are shared, so that picks do not depend on
        batches.
    """

    def __init__(self, members: int = 20, query_size: int = 10, batch_size: int | None = None) -> None:
        super().__init__(query_size, batch_size)
        if members < 2:
            raise ValueError(f"`members={members}` must be at least 2: one draw cannot disagree.")
        self.members = members

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Refuse a model without dropout before it is trained, too."""
        super().on_fit_start(trainer, module)
        require_dropout(module)

    def score(self, predictions: Predictions) -> Tensor:
        """Return mutual information in nats, `(N,)`."""
        return mutual_information(predictions.samples(self.members))
