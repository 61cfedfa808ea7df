"""Encoders of sounds: log-mel frames of any number in, one embedding a sound out."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.backbones.patches import Encoded, Patches, run_blocks, seen_first, sine_positions
from ssl_lightning.engine.ranges import between, given, layers, sizes
from ssl_lightning.transforms.padded import Padded, inside, masked_mean


class AudioBlock(nn.Module):
    """A convolution over frames and bands, batch norm over what is within the sounds, ReLU, and zeros behind the end.

    Args:
        before: Channels in.
        after: Channels out.
        stride: Frames that become one; bands are halved.
        dropout: Probability of dropping a channel of a sound.
    """

    def __init__(self, before: int, after: int, stride: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, (stride, 2), padding=1, bias=False)
        self.norm = nn.BatchNorm1d(after)
        self.drop = nn.Dropout2d(dropout)
        self.stride = stride

    def forward(self, values: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return what comes of `(N, C, T, M)`, which is 0 behind the end, and the new lengths."""
        places = self.conv(values).permute(0, 2, 3, 1)  # (N, T, M, C), as memory has it in channels-last format
        length = (length + self.stride - 1) // self.stride
        within = inside(length, places.shape[1]).flatten().nonzero()[:, 0]  # padding is in no statistics
        rows = places.flatten(0, 1).flatten(1).index_select(0, within)  # (frames, M * C)
        normal = self.norm(rows.view(-1, places.shape[3])).relu().view_as(rows)
        filled = normal.new_zeros(len(places) * places.shape[1], rows.shape[1]).index_copy(0, within, normal)
        filled = filled.view(places.shape)
        return self.drop(filled.permute(0, 3, 1, 2)), length


class AudioNet(Backbone):
    """Convolutional network on log-mel frames, small enough for a CPU: four blocks, then a pooling over time.

    Behind each layer, what lies beyond a sound's end is 0 as beyond the edge of a picture, and batch norm counts only
    what is within: a sound has the same embedding alone and in a batch of much longer ones, in training, too. The
    embedding is mean plus maximum over time, as of BYOL-A, and batch norm, without which all would point the same way.

    Args:
        mels: Bands of a frame, as `LogMel` has them.
        width: Channels of the first block; the others have 2, 4 and 4 times as many.
        dim: Size of the embedding.
        dropout: Probability of dropping a channel behind each of the last two blocks, of all frames alike.
        sample_rate: Samples a second of the sounds, filled in from the data on the command line: a checkpoint then
            takes sounds of no other rate. Null takes any.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        The pooling: D. Niizumi et al., BYOL for Audio, 2021, arXiv 2103.06695, section IV-A.
    """

    takes: ClassVar[tuple[str, ...]] = ("sound",)

    def __init__(
        self, mels: int = 64, width: int = 32, dim: int = 256, dropout: float = 0.0, sample_rate: int | None = None
    ) -> None:
        sizes(1, mels=mels, width=width, dim=dim)
        between(0, 1, "[)", dropout=dropout)
        super().__init__(mels=mels, width=width, dim=dim, dropout=dropout, sample_rate=sample_rate)
        self.blocks = nn.ModuleList(
            [
                AudioBlock(1, width),
                AudioBlock(width, 2 * width),
                AudioBlock(2 * width, 4 * width, 2, dropout),
                AudioBlock(4 * width, 4 * width, 1, dropout),
            ]
        )
        self.last = nn.Linear(4 * width * math.ceil(mels / 16), dim)
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.mels, self.feature_dim = mels, dim

    def forward(self, inputs: Padded) -> Tensor:
        """Encode frames `(N, T, mels)` to embeddings `(N, dim)`."""
        return self.rest(self.trunk(inputs))

    def trunk(self, inputs: Padded) -> Padded:
        """Compute the first two blocks: `(N, T / 4, channels, mels / 4)`."""
        require_mels(inputs, self.mels, self)
        hidden, length = zeroed(inputs)
        hidden = hidden[:, None].to(memory_format=torch.channels_last)  # (N, 1, T, mels)
        for block in self.blocks[:2]:
            hidden, length = block(hidden, length)
        return Padded(hidden.transpose(1, 2), length)

    def rest(self, hidden: Padded) -> Tensor:
        """Go on from `trunk` to embeddings `(N, dim)`."""
        values, length = hidden.values.transpose(1, 2), hidden.length
        for block in self.blocks[2:]:
            values, length = block(values, length)
        frames = self.last(values.permute(0, 2, 3, 1).flatten(2)).relu()  # (N, T, dim)
        mask = inside(length, frames.shape[1])
        highest = frames.masked_fill(~mask[..., None], 0).amax(dim=1)  # no number is below 0
        embedding: Tensor = self.norm(masked_mean(frames, mask) + highest)
        return embedding


class MeanFrames(Backbone):
    """Mean and standard deviation of the frames over time: no weights, what any encoder of sounds must surpass.

    Args:
        mels: Bands of a frame, as `LogMel` has them.
        deviation: Give the standard deviation of each band, too.
        sample_rate: As for `AudioNet`.
    """

    takes: ClassVar[tuple[str, ...]] = ("sound",)

    def __init__(self, mels: int = 64, deviation: bool = False, sample_rate: int | None = None) -> None:
        sizes(1, mels=mels)
        super().__init__(mels=mels, deviation=deviation, sample_rate=sample_rate)
        self.mels, self.deviation, self.feature_dim = mels, deviation, mels * (1 + deviation)

    def forward(self, inputs: Padded) -> Tensor:
        """Average frames `(N, T, mels)` to `(N, feature_dim)`."""
        require_mels(inputs, self.mels, self)
        mask = inside(inputs.length, inputs.values.shape[1])
        mean = masked_mean(inputs.values, mask)
        if not self.deviation:
            return mean
        return torch.cat([mean, masked_mean((inputs.values - mean[:, None]).square(), mask).sqrt()], dim=1)


def zeroed(frames: Padded) -> Padded:
    """Return frames that are 0 behind the end, whatever was there."""
    mask = inside(frames.length, frames.values.shape[1])
    return frames._replace(values=frames.values.masked_fill(~mask[..., None], 0))


def require_mels(inputs: Padded, mels: int, backbone: Backbone) -> None:
    """Check that frames have the bands that an encoder was built for.

    Raises:
        ValueError: If they have not.
    """
    if not isinstance(inputs, Padded) or inputs.values.ndim != 3 or inputs.values.shape[2] != mels:
        shown = tuple(inputs.values.shape) if isinstance(inputs, Padded) else f"of type {type(inputs).__name__}"
        raise ValueError(
            f"`{type(backbone).__name__}` takes `Padded` frames of `mels={mels}` bands, (N, T, {mels}), and its input "
            f"is {shown}; give both `LogMel` and the backbone the same `mels`."
        )


class SpectrogramTransformer(Backbone):
    """Transformer on patches of log-mel frames; `MAE` and `SimMIM` take it.

    A patch is some frames of some bands; the last ones of a sound are filled up with zeros. Attention and the mean
    leave out what is behind a sound's end. Where a patch is in time and pitch is told by sines and cosines that stay
    fixed, so that any length will do.

    Args:
        mels: Bands of a frame, as `LogMel` has them.
        patch_frames: Frames of a patch.
        patch_mels: Bands of a patch, which must divide `mels`.
        dim: Size of a token and of the embedding, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Number of heads of the attention.
        mlp_dim: Size of a block's hidden layer; null for 4 `dim`.
        dropout: Probability of dropping a number behind attention and in the hidden layer of each block.
        sample_rate: As for `AudioNet`.

    Raises:
        ValueError: If the numbers do not go together.

    Reference:
        Y. Gong, Y.-A. Chung, J. Glass, AST: Audio Spectrogram Transformer, Interspeech 2021, arXiv 2104.01778; patches
        there overlap, and positions are learnt. The embedding is the mean, as for `ViT`.
    """

    takes: ClassVar[tuple[str, ...]] = ("sound",)
    prefix: int = 0
    count: int | None = None

    def __init__(
        self,
        mels: int = 64,
        patch_frames: int = 4,
        patch_mels: int = 16,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_dim: int | None = None,
        dropout: float = 0.0,
        sample_rate: int | None = None,
    ) -> None:
        sizes(1, mels=mels, patch_frames=patch_frames, patch_mels=patch_mels, dim=dim, heads=heads)
        sizes(1, **given(mlp_dim=mlp_dim))
        layers(depth=depth)
        between(0, 1, "[)", dropout=dropout)
        if mels % patch_mels or dim % heads or dim % 4:
            raise ValueError(
                f"`patch_mels={patch_mels}` must divide `mels={mels}`, and `dim={dim}` be a multiple of 4 and of "
                f"`heads={heads}`."
            )
        super().__init__(
            mels=mels, patch_frames=patch_frames, patch_mels=patch_mels, dim=dim, depth=depth, heads=heads,
            mlp_dim=mlp_dim, dropout=dropout, sample_rate=sample_rate,
        )  # fmt: skip
        self.mels, self.patch_frames, self.patch_mels, self.feature_dim = mels, patch_frames, patch_mels, dim
        self.patch_dim = self.patch_area = patch_frames * patch_mels
        self.project = nn.Linear(self.patch_dim, dim)
        self.blocks = nn.ModuleList([EncoderBlock(heads, dim, mlp_dim or 4 * dim, dropout, 0.0) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Padded) -> Tensor:
        """Encode frames `(N, T, mels)` to embeddings `(N, dim)`."""
        return self.rest(self.trunk(inputs))

    def trunk(self, inputs: Padded) -> Padded:
        """Make tokens of the patches, `(N, P, dim)`."""
        self.require(inputs)
        patches = self.cut(inputs)
        assert patches.inside is not None
        tokens = self.project(patches.values)
        return Padded(tokens + self.positions(tokens.shape[1], tokens.shape[2]), patches.inside.sum(dim=1))

    def rest(self, hidden: Padded) -> Tensor:
        """Go on from `trunk` to embeddings `(N, dim)`."""
        mask = inside(hidden.length, hidden.values.shape[1])
        return masked_mean(self.norm(run_blocks(self.blocks, hidden.values, mask)), mask)

    def require(self, inputs: Any) -> None:
        """Check that inputs are frames of as many bands."""
        require_mels(inputs, self.mels, self)

    def cut(self, inputs: Padded) -> Patches:
        """Cut frames into patches, all of the first frames first: `(N, P, patch_frames * patch_mels)`."""
        frames, length = zeroed(inputs)
        rows, bands = self.mels // self.patch_mels, self.patch_mels
        frames = nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.patch_frames))
        patches = frames.float().view(len(length), -1, self.patch_frames, rows, bands).transpose(2, 3)
        columns = (length + self.patch_frames - 1) // self.patch_frames
        return Patches(patches.flatten(3).flatten(1, 2), inside(columns * rows, patches.shape[1] * rows))

    def positions(self, patches: int, dim: int) -> Tensor:
        """Return fixed codes of the patches' places in time and pitch, `(patches, dim)`."""
        rows = self.mels // self.patch_mels
        place = torch.arange(patches, device=self.project.weight.device)
        return sine_positions(torch.stack([place // rows, place % rows], dim=1), dim)

    def encode_seen(self, inputs: Padded, seen: Tensor) -> Encoded:
        """Encode the patches that are seen, and nothing of the others."""
        places, within = seen_first(seen, inputs.values.device)
        values = self.cut(inputs).values
        chosen = places.clamp(max=values.shape[1] - 1)[..., None]
        tokens = self.project(values.gather(1, chosen.expand(-1, -1, values.shape[2])))
        tokens = tokens + self.positions(values.shape[1], self.feature_dim)[chosen[..., 0]]
        return Encoded(self.norm(run_blocks(self.blocks, tokens, within)), places, within)

    def encode_filled(self, inputs: Padded, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode all patches, with a token in the place of each hidden one."""
        patches = self.cut(inputs)
        tokens = torch.where(hidden[..., None], token, self.project(patches.values))
        tokens = tokens + self.positions(tokens.shape[1], self.feature_dim)
        encoded: Tensor = self.norm(run_blocks(self.blocks, tokens, patches.inside))
        return encoded
