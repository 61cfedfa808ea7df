"""ViLBERT's encoder: a stream of image regions and one of words, joined by co-attention."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.backbones.co_attention import CoAttention, Sublayer
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, sizes, whole
from ssl_lightning.transforms.padded import Padded, inside
from ssl_lightning.transforms.pairs import Pair


class TwoStreams(Backbone):
    r"""A visual and a linguistic stream of transformer layers that attend to each other.

    Regions are the cells of a grid, each encoded by a small convolutional network of its own pixels alone, in place of
    a detector's boxes; their place is told by a linear layer of their box :math:`(x_1, y_1, x_2, y_2, \text{area})`.
    Before them stands IMG: the mean of all regions, with the box of the whole image. Words begin with CLS, and pass
    some layers of their own first. The embedding of a pair is the product of what both streams make of their first:

    .. math:: h = h_{IMG} \odot h_{CLS}, \qquad \text{match} = w \cdot h + b

    Args:
        vocab_size: Tokens of the vocabulary; linked from the data on the command line.
        channels: Channels of the image; linked from the data.
        image_size: Side of the image in pixels, a multiple of `regions`; linked from the data.
        vocabulary: Short hash of the tokenizer; linked from the data, so that others are refused.
        dim: Size of both streams' vectors, a multiple of `heads`, and even.
        regions: Regions on each side of the image.
        text_layers: Layers of the words alone.
        co_layers: Layers of both streams: co-attention, then attention to themselves.
        heads: Heads of each attention.
        dropout: Probability of dropping a number of what a layer adds.

    Raises:
        ValueError: If the numbers do not go together.

    Reference:
        J. Lu, D. Batra, D. Parikh, S. Lee, ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for
        Vision-and-Language Tasks, NeurIPS 2019, arXiv 1908.02265, sections 2.2 and 3. Positions of words are sines and
        cosines, so that texts may be of any length.
    """

    takes: ClassVar[tuple[str, ...]] = ("images with text",)

    def __init__(
        self,
        vocab_size: int,
        channels: int = 3,
        image_size: int = 32,
        vocabulary: str | None = None,
        dim: int = 128,
        regions: int = 4,
        text_layers: int = 1,
        co_layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        sizes(1, vocab_size=vocab_size, channels=channels, image_size=image_size, dim=dim, regions=regions, heads=heads)
        whole(0, 1000, text_layers=text_layers)
        whole(1, 1000, co_layers=co_layers)
        between(0, 1, "[)", dropout=dropout)
        super().__init__(
            vocab_size=vocab_size, channels=channels, image_size=image_size, vocabulary=vocabulary, dim=dim,
            regions=regions, text_layers=text_layers, co_layers=co_layers, heads=heads, dropout=dropout,
        )  # fmt: skip
        if image_size % regions or image_size // regions < 2:
            raise ValueError(
                f"`regions={regions}` must divide `image_size={image_size}` into cells of 2 px or more; choose another."
            )
        if dim % heads or dim % 2:
            raise ValueError(f"`dim={dim}` must be even and a multiple of `heads={heads}`.")
        self.feature_dim, self.side, self.cell, self.regions = dim, regions, image_size // regions, regions**2
        rest = math.ceil(self.cell / 2)
        self.region = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.GELU(),
            nn.Flatten(), nn.Linear(32 * rest * rest, dim, bias=False), nn.BatchNorm1d(dim),
        )  # fmt: skip
        self.box = nn.Linear(5, dim)
        nn.init.normal_(self.box.weight, std=0.1)  # at first what is there counts for more than where
        self.register_buffer("boxes", boxes(regions), persistent=False)
        self.word = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.word.weight, std=dim**-0.5)  # which also makes words again (see `ViLBERT`)
        self.start_regions, self.start_words = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        self.text_layers = nn.ModuleList(Sublayer(dim, heads, dropout) for _ in range(text_layers))
        self.co_layers = nn.ModuleList(CoAttention(dim, heads, dropout) for _ in range(co_layers))
        self.end_regions, self.end_words = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.alignment = nn.Linear(dim, 1)

    def pixels(self, images: Tensor) -> Tensor:
        """Cut images `(N, C, S, S)` into the regions' pixels, `(N, R, C, cell, cell)`.

        Raises:
            ValueError: If they have another size than the encoder was built for.
        """
        side = self.side * self.cell
        if images.shape[2:] != (side, side):
            raise ValueError(
                f"the backbone `TwoStreams` takes images of {side} x {side} px, and these are "
                f"{images.shape[2]} x {images.shape[3]}; give `--data.image_size {side}`."
            )
        rows = images.reshape(*images.shape[:2], self.side, self.cell, self.side, self.cell)
        return rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)

    def see(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode IMG and the regions, as the visual stream begins.

        Args:
            images: Clean images, `(N, C, S, S)`.
            hidden: Regions whose features are set to 0, also for IMG, boolean, `(N, R)`; null for none.

        Returns:
            `(N, 1 + R, d)`.
        """
        cells = self.pixels(images)
        features = self.region(cells.flatten(0, 1)).view(*cells.shape[:2], -1)
        if hidden is not None:
            features = features.masked_fill(hidden[..., None], 0.0)
        features = torch.cat([features.mean(dim=1, keepdim=True), features], dim=1)
        return self.drop(self.start_regions(features + self.box(self.boxes)))  # type: ignore[no-any-return]

    def read(self, text: Padded) -> Tensor:
        """Encode words by themselves, `(N, T, d)`."""
        total = text.values.shape[1]
        words = self.word(text.values) * math.sqrt(self.feature_dim)
        place = onto(positions(total, self.feature_dim), words.device, words.dtype)
        words = self.drop(self.start_words(words + place))
        mask = inside(text.length, total)
        for layer in self.text_layers:
            words = layer(words, mask=mask)
        return words  # type: ignore[no-any-return]

    def join(self, regions: Tensor, words: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Let both streams attend to each other.

        Args:
            regions: As `see` returns them, `(N, 1 + R, d)`.
            words: As `read` returns them, `(N, T, d)`.
            length: Of the texts, `(N,)`.

        Returns:
            What both streams end as, of the same shapes; what is behind a text's end means nothing.
        """
        mask = inside(length, words.shape[1])
        for layer in self.co_layers:
            regions, words = layer(regions, words, mask)
        return self.end_regions(regions), self.end_words(words)

    def forward(self, pairs: Pair) -> Tensor:
        """Encode clean pairs to embeddings `(N, d)`."""
        regions, words = self.join(self.see(pairs.image), self.read(pairs.text), pairs.text.length)
        product = holistic(regions, words)
        # every weight takes part in every loss, as gradients that processes share must
        return product + 0.0 * self.alignment(product)  # type: ignore[no-any-return]

    def match(self, pairs: Pair) -> Tensor:
        """Tell how well image and text of clean pairs belong together, `(N,)`: the log of the odds that they do."""
        return self._match(self.see(pairs.image), self.read(pairs.text), pairs.text.length)

    def _match(self, regions: Tensor, words: Tensor, length: Tensor) -> Tensor:
        return self.alignment(holistic(*self.join(regions, words, length)))[:, 0]  # type: ignore[no-any-return]

    def compare(self, images: Tensor, texts: Padded, batch_size: int = 256) -> Tensor:
        """Match every image with every text, `(N, M)`, each of them encoded by itself once.

        Args:
            images: Clean, `(N, C, S, S)`.
            texts: Of M texts.
            batch_size: Pairs at once.
        """
        seen = torch.cat([self.see(some) for some in torch.split(images, batch_size)])
        found = []
        for values, length in zip(texts.values, texts.length, strict=True):  # one text at a time: nothing is filled up
            words = self.read(Padded(values[None, : int(length)], length[None]))
            found += [
                self._match(some, words.expand(len(some), -1, -1), length.expand(len(some)))
                for some in torch.split(seen, batch_size)
            ]
        return torch.cat(found).view(len(texts.length), len(images)).T


def holistic(regions: Tensor, words: Tensor) -> Tensor:
    """Return the product of the first vectors of both streams, `(N, d)`."""
    return regions[:, 0] * words[:, 0]


def boxes(side: int) -> Tensor:
    """Return the boxes of the whole image and of the cells of a grid, row by row, `(1 + side^2, 5)`.

    Example:
        >>> boxes(2)[[0, 2]]
        tensor([[0.0000, 0.0000, 1.0000, 1.0000, 1.0000],
                [0.5000, 0.0000, 1.0000, 0.5000, 0.2500]])
    """
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    left, top = columns.flatten() / side, rows.flatten() / side
    area = torch.full((side * side,), 1 / side**2)
    cells = torch.stack([left, top, left + 1 / side, top + 1 / side, area], dim=1)
    return torch.cat([torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), cells])


def positions(total: int, dim: int) -> Tensor:
    """Return sines and cosines of places, `(T, d)` (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(total)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
