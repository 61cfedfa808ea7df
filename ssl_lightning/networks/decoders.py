"""Decoders: from a vector a sample back to an image."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_lightning.engine.ranges import whole


class ConvDecoder(nn.Module):
    """Small transposed-convolutional network from vectors to images: each block doubles the side, batch norm, ReLU.

    Args:
        dim: Size of the vectors.
        channels: Channels of the images.
        image_size: Side of the images in pixels, at least 4.
        width: Channels before the last layer; doubled by each block before it.

    Raises:
        ValueError: If the images are too small.
    """

    def __init__(self, dim: int, channels: int, image_size: int, width: int = 32) -> None:
        super().__init__()
        whole(1, dim=dim, channels=channels, width=width)
        whole(4, math.inf, "smaller images cannot be decoded", image_size=image_size)
        self.channels, self.image_size = channels, image_size
        doublings = max(1, min(4, int(math.log2(image_size)) - 1))
        exact = max(number for number in range(5) if image_size % 2**number == 0)
        if exact and image_size / 2**exact <= 14:  # nothing is to be resized then
            doublings = min(exact, doublings)
        side = math.ceil(image_size / 2**doublings)
        widths = [width * 2**place for place in range(doublings)][::-1]
        layers: list[nn.Module] = [
            nn.Linear(dim, widths[0] * side * side, bias=False), nn.BatchNorm1d(widths[0] * side * side), nn.ReLU(),
            nn.Unflatten(1, (widths[0], side, side)),
        ]  # fmt: skip
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1))
        self.net = nn.Sequential(*layers)

    def forward(self, vectors: Tensor) -> Tensor:
        """Decode `(N, dim)` to `(N, channels, image_size, image_size)`."""
        images: Tensor = self.net(vectors)
        size = (self.image_size, self.image_size)
        return images if images.shape[-2:] == size else interpolate(images, size=size, mode="bilinear")

    def require_shape(self, images: Tensor) -> None:
        """Check that images `(N, C, H, W)` have the size that this decoder makes.

        Raises:
            ValueError: If they have not.
        """
        wanted = (self.channels, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != wanted:
            raise ValueError(
                f"`channels={wanted[0]}` and `image_size={wanted[1]}` do not fit views of {tuple(images.shape[1:])}; "
                "give those of the data (the command line does)."
            )
