"""Transformer layers of one stream, and of two that attend to each other; what is padded is never attended to."""

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head attention of some vectors to others.

    There is no dropout of attention weights: one mask for all samples would depend on the padded length.

    Args:
        dim: Size of a vector, a multiple of `heads`.
        heads: Heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: `(N, Q, d)`.
            context: What gives keys and values, `(N, K, d)`.
            mask: Which of it may be attended to, boolean, `(N, K)`, at least one a row; null for all.

        Returns:
            `(N, Q, d)`.
        """
        q, k, v = (
            layer(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, rows in ((self.query, queries), (self.key, context), (self.value, context))
        )
        seen = None if mask is None else mask[:, None, None]
        return self.out(scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Sublayer(nn.Module):
    """Attention to a context, then two fully connected layers, each added to what came in.

    Args:
        dim: Size of a vector.
        heads: Heads of the attention.
        dropout: Probability of dropping a number of what is added.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop, self.drop_feed = nn.Dropout(dropout), nn.Dropout(dropout)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # else a first vector, as CLS, would hardly differ from sample to sample
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the stream after the layer.

        Args:
            hidden: The stream, `(N, Q, d)`.
            context: Normalised vectors of another stream, `(N, K, d)`; null to attend to its own.
            mask: As for `Attention`, of the context.
        """
        rows = self.norm(hidden)
        hidden = hidden + self.drop(self.attention(rows, rows if context is None else context, mask))
        return hidden + self.drop_feed(self.feed(hidden))  # type: ignore[no-any-return]


class CoAttention(nn.Module):
    """Two streams that attend to each other (co-TRM), then each to itself (TRM).

    Args:
        dim: Size of a vector of either stream.
        heads: Heads of each attention.
        dropout: Probability of dropping a number of what is added.

    Reference:
        J. Lu, D. Batra, D. Parikh, S. Lee, ViLBERT, NeurIPS 2019, arXiv 1908.02265, figures 1 and 2b. Norms come before
        the layers, and not behind them, so that small networks learn from scratch without warm-up tricks.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.to_words, self.to_regions = (Sublayer(dim, heads, dropout) for _ in range(2))
        self.regions, self.words = (Sublayer(dim, heads, dropout) for _ in range(2))

    def forward(self, regions: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams after the layer.

        Args:
            regions: The visual stream, `(N, R, d)`.
            words: The linguistic stream, `(N, T, d)`.
            mask: Which words are no padding, boolean, `(N, T)`.
        """
        seen, told = self.to_regions.norm(regions), self.to_words.norm(words)  # each stream's own normalised form
        regions, words = self.to_words(regions, told, mask), self.to_regions(words, seen)
        return self.regions(regions), self.words(words, mask=mask)
