"""What methods that hide patches ask of an encoder, whether patches are of images or of spectrograms."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between


class Patches(NamedTuple):
    """Samples, cut into patches.

    Attributes:
        values: What each patch holds, `(N, P, D)`.
        inside: Boolean, `(N, P)`: which patches are of the sample and no padding; null where all are.
    """

    values: Tensor
    inside: Tensor | None


class Encoded(NamedTuple):
    """What an encoder makes of the patches that it sees.

    Attributes:
        tokens: `(N, K, dim)`: first those that are of no patch, then those of the seen patches.
        places: `(N, K)`: number of each token among those of the whole sample; that of no token, behind the last, for
            padding.
        inside: Boolean, `(N, K)`: which are no padding; null where none is.
    """

    tokens: Tensor
    places: Tensor
    inside: Tensor | None


@runtime_checkable
class PatchEncoder(Protocol):
    """A transformer on patches, as `MAE` and `SimMIM` use one.

    Attributes:
        patch_dim: Numbers of a patch, D.
        patch_area: Places that a patch covers: pixels, or frames times bands.
        prefix: Tokens before those of the patches, such as a class token.
        count: Patches of a sample; null where samples differ.
    """

    patch_dim: int
    patch_area: int
    prefix: int
    count: int | None

    def require(self, inputs: Any) -> None:
        """Check that inputs are such as the encoder takes.

        Raises:
            ValueError: If they are not.
        """

    def cut(self, inputs: Any) -> Patches:
        """Cut samples into patches."""

    def positions(self, patches: int, dim: int) -> Tensor:
        """Return fixed codes of where tokens are, those before the patches first, `(prefix + patches, dim)`."""

    def encode_seen(self, inputs: Any, seen: Tensor) -> Encoded:
        """Encode the patches that are seen, and nothing of the others.

        Args:
            inputs: Of N samples.
            seen: Boolean, `(N, P)`, at least one of each sample.
        """

    def encode_filled(self, inputs: Any, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode all patches, with a token in the place of each hidden one.

        Args:
            inputs: Of N samples.
            hidden: Boolean, `(N, P)`.
            token: `(1, 1, dim)`.

        Returns:
            Tokens of the patches, `(N, P, dim)`.
        """


def draw_hidden(patches: Patches, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw, for each sample, which of its patches are hidden: a share of those that it has.

    Args:
        patches: Of N samples.
        ratio: Share of a sample's patches to hide, rounded; at least one, and at least one is left. A sample of one
            patch shows it.
        generator: Of the CPU; as many numbers are drawn as there are patches, however far samples are filled up.

    Returns:
        Boolean, `(N, P)`, on the CPU.

    Example:
        >>> inside = torch.tensor([[True] * 8, [True] * 4 + [False] * 4])
        >>> hidden = draw_hidden(Patches(torch.zeros(2, 8, 1), inside), 0.75, torch.Generator().manual_seed(0))
        >>> hidden.sum(dim=1), bool(hidden[1, 4:].any())
        (tensor([6, 3]), False)
    """
    between(0, 1, "()", mask_ratio=ratio)
    within = torch.ones(patches.values.shape[:2], dtype=torch.bool)
    if patches.inside is not None:
        within = patches.inside.cpu()
    total = within.sum(dim=1)
    numbers = torch.full(within.shape, math.inf)
    numbers[within] = torch.rand(int(total.sum()), generator=generator)
    rank = numbers.argsort(dim=1).argsort(dim=1)
    wanted = (ratio * total.double()).round().clamp(min=1).minimum(total - 1)
    return rank < wanted[:, None]


def seen_first(seen: Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor | None]:
    """Return the places that are seen, in order, and which of them are padding.

    Args:
        seen: Boolean, `(N, P)`; on the CPU, no GPU has to be waited for.
        device: Of the answer; null for that of `seen`.

    Returns:
        Places `(N, K)`, with P for padding, K being the most that a sample has; boolean `(N, K)`, true for places that
        are none, or null where all are true.

    Example:
        >>> seen_first(torch.tensor([[False, True, True], [True, False, False]]))
        (tensor([[1, 2],
                [0, 3]]), tensor([[ True,  True],
                [ True, False]]))
    """
    count, device = seen.sum(dim=1), seen.device if device is None else device
    most = int(count.max())
    places = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    if int(count.min()) == most:
        return onto(places, device), None
    inside = torch.arange(most, device=seen.device) < count[:, None]
    return onto(places.masked_fill(~inside, seen.shape[1]), device), onto(inside, device)


def run_blocks(blocks: Iterable[Any], tokens: Tensor, inside: Tensor | None) -> Tensor:
    """Run blocks of torchvision's vision transformer, whose attention leaves padding out.

    Args:
        blocks: `EncoderBlock`.
        tokens: `(N, K, dim)`.
        inside: Boolean, `(N, K)`, false for padding; null where there is none.

    Returns:
        `(N, K, dim)`; of padding, anything.
    """
    padding = None if inside is None else ~inside
    for block in blocks:
        normal = block.ln_1(tokens)
        attended, _ = block.self_attention(normal, normal, normal, key_padding_mask=padding, need_weights=False)
        tokens = tokens + block.dropout(attended)
        tokens = tokens + block.mlp(block.ln_2(tokens))
    return tokens


def sine_positions(places: Tensor, dim: int) -> Tensor:
    r"""Return fixed codes of places along some axes: sines and cosines of wave lengths from :math:`2 \pi` to 10,000 times that.

    Args:
        places: `(P, axes)`.
        dim: Numbers of a code; each axis has an even share of it, and what is left over is 0.

    Returns:
        float32, `(P, dim)`.

    Example:
        >>> sine_positions(torch.tensor([[0, 0], [1, 5]]), 4)[:, :2]
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """  # noqa: E501
    axes = places.shape[1]
    half = dim // (2 * axes)
    omega = 10000 ** -(torch.arange(half, device=places.device, dtype=torch.float64) / max(1, half))
    angles = places.double()[:, :, None] * omega  # (P, axes, half)
    codes = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).float()
    return torch.nn.functional.pad(codes, (0, dim - codes.shape[1]))
