"""Causal language model."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.text import require_tokens
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import at_least, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.padded import Padded, inside
from ssl_lightning.transforms.text import CLS, SEP, SPECIAL, DropoutViews


class CausalText(SSLMethod):
    r"""Causal language model: predict each token of a text from those before it.

    .. math:: L = -\frac{1}{\sum_n (T_n - 1)} \sum_n \sum_{t=2}^{T_n} \log p(w_{n,t} \mid w_{n,1}, ..., w_{n,t-1})

    with :math:`p = \mathrm{softmax}(E\, h_{t-1})` by the encoder's own embeddings of tokens E. The last token of a text
    is its end (`SEP`), which is learnt as any other; so `generate` knows when to stop. Logs `val/loss` and
    `val/perplexity`.

    Args:
        backbone: An encoder of tokens that sees backwards alone: `TextTransformer` with `causal=true`.
        views: One random view; null for the texts themselves.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the backbone does not encode tokens, or sees those that follow.

    Reference:
        A. Radford, K. Narasimhan, T. Salimans, I. Sutskever, Improving Language Understanding by Generative
        Pre-Training, 2018, Eq. 1 and 2. Norms come first, as in GPT-2 (R. Xiong et al. 2020, arXiv
        2002.04745).

    Example:
        >>> from ssl_lightning.backbones import TextTransformer
        >>> from ssl_lightning.transforms.padded import Padded
        >>> model = CausalText(TextTransformer(50, dim=16, depth=1, heads=2, causal=True))
        >>> texts = Padded(torch.randint(10, 50, (2, 20)), torch.tensor([20, 5]))
        >>> model.predict_tokens(texts)[0].shape  # 19 and 4 tokens that follow others
        torch.Size([23, 50])
    """

    family: ClassVar[str] = "text"
    takes: ClassVar[tuple[str, ...]] = ("text",)
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(self, backbone: Backbone, views: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(backbone, views or DropoutViews(1), **kwargs)
        require_tokens(self.backbone, "CausalText")
        if not getattr(self.backbone, "causal", False):
            raise ValueError(
                f"`CausalText` predicts the next token, and the backbone `{type(self.backbone).__name__}` sees it; "
                "give `TextTransformer` with `--model.backbone.causal true`."
            )
        self.val_loss = MeanMetric()

    @property
    def _encoder(self) -> Any:
        return self.backbone

    def predict_tokens(self, inputs: Padded) -> tuple[Tensor, Tensor, Tensor]:
        """Predict each token from those before it.

        Args:
            inputs: N texts.

        Returns:
            Logits `(M, vocab_size)` of all tokens but the first of each text, the tokens `(M,)`, embeddings
            `(N, feature_dim)`.
        """
        encoded = self._encoder.tokens(inputs)
        follows = inside(inputs.length.to(encoded.device), encoded.shape[1])[:, 1:]
        logits = encoded[:, :-1][follows] @ self._encoder.table.T
        return logits, inputs.values[:, 1:][follows].long(), self._encoder.pooled(encoded, inputs.length)

    def compute_loss(self, views: Sequence[Padded], batch: Batch) -> Step:
        """Return the cross-entropy of each token that follows."""
        logits, wanted, embedding = self.predict_tokens(views[0])
        with full_precision(logits):
            loss = cross_entropy(logits.float(), wanted)
        return {"loss": loss, "embedding": embedding}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean input, and count how well its tokens are predicted."""
        found = super().validation_step(batch, batch_idx)
        logits, wanted, _ = self.predict_tokens(self.prepare(batch))
        with full_precision(logits):
            self.val_loss.update(cross_entropy(logits.float(), wanted, reduction="none"))
        return found

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample."""
        self.log("val/perplexity", self.val_loss.compute().exp())
        self.log("val/loss", self.val_loss)

    @torch.no_grad()
    def generate(
        self,
        prompt: Sequence[int],
        count: int,
        generator: torch.Generator,
        length: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> list[list[int]]:
        """Write texts on from a beginning, token by token.

        Args:
            prompt: Tokens of the beginning, without `CLS` and `SEP`; may be empty.
            count: How many texts.
            generator: Of the draws, on the CPU.
            length: Tokens at most of a text, the prompt's included; the encoder has an end of its own.
            temperature: What logits are divided by; 0 takes the most probable token each time.
            top_k: Draw from so many of the most probable tokens alone; null for all.

        Returns:
            Of each text its tokens, prompt included, without `CLS` and `SEP`.

        Raises:
            ValueError: If a number is out of its range, or the prompt fills the encoder.
        """
        whole(1, count=count, length=length)
        at_least(0, temperature=temperature)
        if top_k is not None:
            whole(1, top_k=top_k)
        longest = getattr(self.backbone, "max_length", math.inf)
        if len(prompt) + 1 >= longest:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens, and the encoder takes {longest} with the beginning; shorten it."
            )
        device = self._encoder.table.device
        rows = torch.tensor([[CLS, *prompt]] * count, device=device)
        done = torch.zeros(count, dtype=torch.bool, device=device)
        while rows.shape[1] - 1 < length and rows.shape[1] < longest and not done.all():
            whole_rows = torch.full((count,), rows.shape[1], device=device)
            logits = (self._encoder.tokens(Padded(rows, whole_rows))[:, -1] @ self._encoder.table.T).float().cpu()
            logits[:, [number for number in range(SPECIAL) if number != SEP]] = -math.inf
            drawn = _draw(logits, temperature, top_k, generator).to(device)
            rows = torch.cat([rows, drawn.masked_fill(done, SEP)[:, None]], dim=1)
            done |= drawn == SEP
        return [[number for number in row[1:] if number != SEP] for row in rows.tolist()]


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """Draw a token for each of several texts, `(N,)`, of logits `(N, vocab_size)`."""
    if temperature == 0:
        return logits.argmax(dim=1)
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=generator)[:, 0]
