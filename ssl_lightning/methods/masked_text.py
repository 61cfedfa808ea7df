"""Masked language model."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.text import require_tokens
from ssl_lightning.data.samples import Batch
from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.text import DropoutViews
from ssl_lightning.transforms.text.masks import chosen_tokens, fixed_draws, hidden_tokens, random_draws


class MaskedText(SSLMethod):
    r"""Masked language model: hide some tokens of a text, and predict them from all others.

    .. math:: L = -\frac{1}{|M|} \sum_{i \in M} \log p(w_i \mid \tilde w), \qquad
        p(w \mid \tilde w) = \mathrm{softmax}(E\, g(h_i) + b)

    over the chosen tokens M of a batch. Of these 80 % become `MASK`, 10 % another token and 10 % stay, so that what is
    seen at use, without any mask, is known. E are the encoder's own embeddings of tokens. Each step draws anew; special
    tokens are never chosen. Logs `train/token_accuracy`, and in validation `val/loss` and `val/token_accuracy` of a
    choice that hangs on the text alone.

    Args:
        backbone: An encoder of tokens: `TextTransformer` or `HuggingFace`.
        views: One random view; null for the texts themselves.
        mask_ratio: Probability of choosing a token.
        whole_words: Choose words, with all their tokens, in place of tokens.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the backbone does not encode tokens, or a number is out of range.

    Reference:
        J. Devlin, M. Chang, K. Lee, K. Toutanova, BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019,
        arXiv 1810.04805, section 3.1. There is no prediction of the next sentence (Y. Liu et al. 2019, arXiv
        1907.11692, section 4.2, where it does not help).

    Example:
        >>> from ssl_lightning.backbones import TextTransformer
        >>> from ssl_lightning.transforms.padded import Padded
        >>> model = MaskedText(TextTransformer(50, dim=16, depth=1, heads=2))
        >>> texts = Padded(torch.randint(10, 50, (2, 20)), torch.tensor([20, 20]))
        >>> logits, wanted, _ = model.predict_tokens(texts, torch.rand(3, 2, 20))
        >>> logits.shape[1], len(logits) == len(wanted)  # any of 50 tokens, for each that was chosen
        (50, True)
    """

    family: ClassVar[str] = "text"
    takes: ClassVar[tuple[str, ...]] = ("text",)
    view_count: ClassVar[int] = 1
    least_batch: int = 1
    starts: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        mask_ratio: float = 0.15,
        whole_words: bool = False,
        **kwargs: Any,
    ) -> None:
        between(0, 1, "()", mask_ratio=mask_ratio)
        super().__init__(backbone, views or DropoutViews(1), **kwargs)
        require_tokens(self.backbone, "MaskedText")
        dim, self.mask_ratio, self.whole_words = self.backbone.feature_dim, mask_ratio, whole_words
        self.predictor = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(len(self._encoder.table)))
        self.register_buffer("starts", None, persistent=False)
        self.val_loss, self.val_token_accuracy = MeanMetric(), MeanMetric()

    @property
    def _encoder(self) -> Any:
        return self.backbone

    def setup(self, stage: str) -> None:
        """Learn where words begin, if they are hidden as a whole.

        Raises:
            ValueError: If the data have no tokenizer that tells.
        """
        super().setup(stage)
        if self.whole_words and not isinstance(self.facts.get("tokenizer"), str):
            raise ValueError("`whole_words=true` needs data that tell their tokenizer, as `Texts` do; leave it out.")
        if self.whole_words:
            self.starts = Tokenizer.from_json(self.facts["tokenizer"]).word_starts.to(self.device)

    def predict_tokens(self, inputs: Padded, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hide tokens, and predict them.

        Args:
            inputs: N texts.
            draws: From [0, 1), `(3, N, T)`: what is chosen, what becomes of it, and which token takes its place.

        Returns:
            Logits `(M, vocab_size)` of the chosen tokens, the tokens `(M,)`, embeddings `(N, feature_dim)`.
        """
        chosen = chosen_tokens(inputs, self.mask_ratio, draws[0], self.starts)
        encoded = self._encoder.tokens(hidden_tokens(inputs, chosen, draws[1:], len(self.bias)))
        text, place = onto(chosen.nonzero(), encoded.device).unbind(1)  # found on the CPU: how many is known there
        logits = self.predictor(encoded[text, place]) @ self._encoder.table.T + self.bias
        return logits, inputs.values[text, place].long(), self._encoder.pooled(encoded, inputs.length)

    def compute_loss(self, views: Sequence[Padded], batch: Batch) -> Step:
        """Return the cross-entropy of hidden tokens."""
        logits, wanted, embedding = self.predict_tokens(views[0], random_draws(views[0], self.local_generator("masks")))
        with full_precision(logits):
            loss = cross_entropy(logits.float(), wanted)
        accuracy = (logits.detach().argmax(dim=1) == wanted).float().mean()
        self.log("train/token_accuracy", accuracy, sync_dist=True, batch_size=len(batch.target))
        return {"loss": loss, "embedding": embedding}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean input, and count how well its tokens are predicted."""
        found = super().validation_step(batch, batch_idx)
        inputs = self.prepare(batch)
        logits, wanted, _ = self.predict_tokens(inputs, fixed_draws(inputs))
        with full_precision(logits):
            self.val_loss.update(cross_entropy(logits.float(), wanted, reduction="none"))
        self.val_token_accuracy.update((logits.argmax(dim=1) == wanted).float())
        return found

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample."""
        self.log_dict({"val/loss": self.val_loss, "val/token_accuracy": self.val_token_accuracy})
