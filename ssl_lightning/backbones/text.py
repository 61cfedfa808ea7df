"""Encoders of texts: a Transformer over tokens, and counts of tokens as the baseline."""

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.engine.ranges import between, layers, one_of, sizes, whole
from ssl_lightning.transforms.padded import Padded, inside, masked_mean
from ssl_lightning.transforms.text.tokens import SPECIAL

Pool = Literal["mean", "cls", "last"]


class Block(nn.Module):
    """A layer of a Transformer, normalised before each part: attention, then a network at each place.

    Args:
        dim: Numbers of a token.
        heads: Of the attention.
        dropout: Probability of dropping a number of what is added; attention itself drops nothing, so that one mask
            serves texts of any length.

    Reference:
        A. Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv 1706.03762; norms first: R. Xiong et al. 2020,
        arXiv 2002.04745.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drops = nn.ModuleList([nn.Dropout(dropout), nn.Dropout(dropout)])

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return tokens `(N, T, dim)`, each having seen those that `mask` allows, `(N, 1, T or 1, T)`."""
        count, total, dim = hidden.shape
        parts = self.qkv(self.norms[0](hidden)).view(count, total, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (N, heads, T, dim / heads)
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.drops[0](self.out(seen.transpose(1, 2).reshape(count, total, dim)))
        return hidden + self.drops[1](self.mlp(self.norms[1](hidden)))  # type: ignore[no-any-return]


class TextTransformer(Backbone):
    """A Transformer over tokens: embeddings of tokens and places, blocks that are normalised first, a mean over tokens.

    What a text is filled up with is never seen, so that its embedding is the one that it has alone.

    Args:
        vocab_size: Number of tokens; linked from the data on the command line.
        dim: Numbers of a token and of the embedding, a multiple of `heads`.
        depth: Number of blocks.
        heads: Of the attention.
        max_length: Tokens at most of a text; linked from the data on the command line.
        dropout: Probability of dropping a number, after the embeddings and in each block.
        causal: Let a token see those before it alone, as `CausalText` needs.
        pool: The embedding: the mean over all tokens, the first token's (`cls`), or the last one's.
        vocabulary: Hash of the tokenizer that it learns with; linked from the data on the command line. Null for any.

    Raises:
        ValueError: If a number is out of its range.
    """

    takes: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        vocab_size: int,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        max_length: int = 128,
        dropout: float = 0.1,
        causal: bool = False,
        pool: Pool = "mean",
        vocabulary: str | None = None,
    ) -> None:
        whole(SPECIAL + 1, vocab_size=vocab_size)
        sizes(1, dim=dim, heads=heads, max_length=max_length)
        layers(depth=depth)
        between(0, 1, "[)", dropout=dropout)
        one_of(get_args(Pool), pool=pool)
        if dim % heads:
            raise ValueError(f"`dim={dim}` must be a multiple of `heads={heads}`.")
        if causal and pool == "cls":
            raise ValueError("`pool=cls` with `causal=true` would embed every text alike; give `pool=last` or `mean`.")
        super().__init__(
            vocab_size=vocab_size, dim=dim, depth=depth, heads=heads, max_length=max_length, dropout=dropout,
            causal=causal, pool=pool, vocabulary=vocabulary,
        )  # fmt: skip
        self.feature_dim, self.causal, self.pool, self.max_length = dim, causal, pool, max_length
        self.embedding, self.places = nn.Embedding(vocab_size, dim), nn.Embedding(max_length, dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        for table in (self.embedding, self.places):
            nn.init.normal_(table.weight, std=0.02)

    @property
    def table(self) -> Tensor:
        """Embeddings of all tokens `(vocab_size, dim)`, for methods that predict tokens by them."""
        return self.embedding.weight

    def forward(self, inputs: Padded) -> Tensor:
        """Encode texts to embeddings `(N, feature_dim)`."""
        return self.rest(self.trunk(inputs))

    def trunk(self, inputs: Padded) -> Padded:
        """Embed tokens and places."""
        total = inputs.values.shape[1]
        if total > self.max_length:
            raise ValueError(
                f"a text of {total} tokens is longer than the encoder's `max_length={self.max_length}`; give "
                f"`--data.max_length {self.max_length}`, which cuts it, or an encoder for longer ones."
            )
        place = torch.arange(total, device=inputs.values.device)
        return Padded(self.embedding(inputs.values.long()) + self.places(place), inputs.length)

    def rest(self, hidden: Padded) -> Tensor:
        """Go on from `trunk` to embeddings `(N, feature_dim)`."""
        return self.pooled(self._encode(hidden), hidden.length)

    def pooled(self, values: Tensor, length: Tensor) -> Tensor:
        """Return embeddings `(N, feature_dim)` of encoded tokens `(N, T, feature_dim)`."""
        return pooled(values, length, self.pool)

    def tokens(self, inputs: Padded) -> Tensor:
        """Encode each token, `(N, T, feature_dim)`; what is behind a text's end means nothing."""
        return self._encode(self.trunk(inputs))

    def _encode(self, hidden: Padded) -> Tensor:
        values = self.drop(hidden.values)
        mask = inside(hidden.length.to(values.device), values.shape[1])[:, None, None]
        if self.causal:
            total = values.shape[1]
            mask = mask & torch.ones(total, total, dtype=torch.bool, device=values.device).tril()
        for block in self.blocks:
            values = block(values, mask)
        return self.norm(values)  # type: ignore[no-any-return]


def pooled(values: Tensor, length: Tensor, pool: str) -> Tensor:
    """Return one vector a text, `(N, d)`, of those of its tokens, `(N, T, d)`.

    Args:
        values: Of the tokens.
        length: Of each text, `(N,)`.
        pool: `mean`, `cls` for the first token, or `last`.
    """
    length = length.to(values.device)
    if pool == "mean":
        return masked_mean(values, inside(length, values.shape[1]))
    place = torch.zeros_like(length) if pool == "cls" else length - 1
    return values[torch.arange(len(values), device=values.device), place]


class BagOfTokens(Backbone):
    r"""How often each token is in a text, a baseline without weights: :math:`\log(1 + n)`, normalised to length 1.

    Args:
        vocab_size: Number of tokens; linked from the data on the command line.
        vocabulary: Hash of the tokenizer; linked from the data on the command line.

    Raises:
        ValueError: If there are none but special tokens.

    Example:
        >>> bag = BagOfTokens(8)(Padded(torch.tensor([[2, 5, 5, 3]]), torch.tensor([4])))
        >>> bag.shape, float(bag[0, 5])
        (torch.Size([1, 8]), 1.0)
    """

    takes: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, vocab_size: int, vocabulary: str | None = None) -> None:
        whole(SPECIAL + 1, vocab_size=vocab_size)
        super().__init__(vocab_size=vocab_size, vocabulary=vocabulary)
        self.feature_dim = vocab_size

    def forward(self, inputs: Padded) -> Tensor:
        """Count tokens, special ones left out, to embeddings `(N, vocab_size)`."""
        values = inputs.values.long()
        counts = torch.zeros(len(values), self.feature_dim, device=values.device)
        counts.scatter_add_(1, values, inside(inputs.length.to(values.device), values.shape[1]).float())
        counts[:, :SPECIAL] = 0
        return normalize(counts.log1p(), dim=1)


def require_tokens(backbone: Any, method: str) -> None:
    """Refuse an encoder that does not encode each token.

    Args:
        backbone: The encoder.
        method: Name of the method that asks.

    Raises:
        ValueError: If it lacks `tokens` or `table`, or the embeddings of tokens have another size.
    """
    if not callable(getattr(backbone, "tokens", None)) or not isinstance(getattr(backbone, "table", None), Tensor):
        raise ValueError(
            f"`{method}` predicts tokens, and the backbone `{type(backbone).__name__}` encodes none by itself; take "
            "`TextTransformer` or `HuggingFace`."
        )
    if backbone.table.shape[1] != backbone.feature_dim:
        raise ValueError(
            f"`{method}` predicts tokens by their embeddings, of {backbone.table.shape[1]} numbers, and the backbone "
            f"`{type(backbone).__name__}` gives {backbone.feature_dim}; take one where they are equal."
        )
