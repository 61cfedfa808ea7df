"""Convolutional encoders of our own, and torchvision's residual networks with a stem for small images."""

from itertools import pairwise
from typing import ClassVar, Literal

import torchvision
from torch import Tensor, nn

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.engine.ranges import between, one_of, sizes


class ConvNet(Backbone):
    """Small convolutional network for images of 8 to 64 px: three blocks of convolution, batch norm, ReLU and pooling.

    93 thousand parameters at the default width and one channel.

    Args:
        channels: Channels of the input; linked from the data on the command line.
        width: Channels after the first block; the embedding has four times as many values.
        dropout: Probability of dropping a whole feature map after each block (Dropout2d); for MC dropout.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    channels_last = True

    def __init__(self, channels: int = 1, width: int = 32, dropout: float = 0.0) -> None:
        sizes(1, channels=channels, width=width)
        between(0, 1, "[)", dropout=dropout)
        super().__init__(channels=channels, width=width, dropout=dropout)
        self.feature_dim = 4 * width
        widths = [channels, width, 2 * width, 4 * width]
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            # ceil_mode keeps odd sizes, and 8 px end as 1 px
            blocks += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            if dropout > 0:
                blocks.append(nn.Dropout2d(dropout))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.rest(self.trunk(images))

    def trunk(self, images: Tensor) -> Tensor:
        """Compute the first block."""
        return self.blocks[:4](images)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, feature_dim)`."""
        return self.blocks[4:](hidden).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images to embeddings, and to the feature map that they are the mean of."""
        found = self.blocks(images)
        return found.mean(dim=(2, 3)), found


class StridedNet(Backbone):
    """DCGAN's discriminator without its last layer: strided convolutions and leaky ReLU, no pooling, no batch norm.

    Every convolution halves the side, until 3 to 5 px are left; the embedding is all that is left, flattened.

    Args:
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, at least 6; linked from the data.
        width: Channels after the first convolution; doubled by each one after it.

    Raises:
        ValueError: If the images are too small.

    Reference:
        A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with DCGAN, ICLR 2016, arXiv 1511.06434;
        without batch norm as T. Miyato et al. 2018, arXiv 1802.05957, table 3.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    channels_last = True

    def __init__(self, channels: int = 1, image_size: int = 28, width: int = 32) -> None:
        sizes(1, channels=channels, width=width)
        sizes(6, "for smaller images take `ConvNet`", image_size=image_size)
        super().__init__(channels=channels, image_size=image_size, width=width)
        layers: list[nn.Module] = []
        before, after, side = channels, width, image_size
        while side > 5:
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            before, after, side = after, 2 * after, side // 2
        self.feature_dim = before * side * side
        self.net = nn.Sequential(*layers, nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]


class LeNet(Backbone):
    """Network of the deep active learning papers on MNIST: two 5x5 convolutions and one hidden layer, all with dropout.

    With `Classifier(dropout=0.5)`, which adds dropout and the last layer, it is that of BatchBALD (A. Kirsch, J. van
    Amersfoort, Y. Gal 2019, arXiv 1906.08158, section 4.2). There is no batch norm.

    Args:
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, at least 16; linked from the data.
        dropout: Probability of dropping a whole feature map after each convolution (Dropout2d).

    Raises:
        ValueError: If the images are too small.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    channels_last = True

    def __init__(self, channels: int = 1, image_size: int = 28, dropout: float = 0.5) -> None:
        sizes(1, channels=channels)
        sizes(16, "for smaller images take `ConvNet`", image_size=image_size)
        between(0, 1, "[)", dropout=dropout)
        super().__init__(channels=channels, image_size=image_size, dropout=dropout)
        side = ((image_size - 4) // 2 - 4) // 2
        self.feature_dim = 128
        self.net = nn.Sequential(
            # dropping whole maps after pooling is the same as before it, as in the paper, and a quarter of the work
            nn.Conv2d(channels, 32, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(dropout),
            nn.Conv2d(32, 64, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(dropout),
            nn.Flatten(), nn.Linear(64 * side * side, 128), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, 128)`."""
        return self.rest(self.trunk(images))

    def trunk(self, images: Tensor) -> Tensor:
        """Compute the first convolution."""
        return self.net[:3](images)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, 128)`."""
        return self.net[3:](hidden)  # type: ignore[no-any-return]


class ResNet(Backbone):
    """Residual network of torchvision, with the stem for small images where they are small.

    The small stem is a 3x3 convolution of stride 1 without max-pooling, as is customary on CIFAR-10 (He et al. 2016,
    arXiv 1512.03385, section 4.2; Chen et al. 2020, arXiv 2002.05709, appendix B.9). Parameter names are torchvision's.

    Args:
        name: Depth.
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, which decides `stem="auto"`; linked from the data.
        stem: `small`, `imagenet` (7x7 of stride 2 and max-pooling), or `auto`: small up to 64 px.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    channels_last = True

    def __init__(
        self,
        name: Literal["resnet18", "resnet34", "resnet50"] = "resnet18",
        channels: int = 3,
        image_size: int = 32,
        stem: Literal["auto", "small", "imagenet"] = "auto",
    ) -> None:
        one_of(("resnet18", "resnet34", "resnet50"), name=name)
        one_of(("auto", "small", "imagenet"), stem=stem)
        sizes(1, channels=channels, image_size=image_size)
        super().__init__(name=name, channels=channels, image_size=image_size, stem=stem)
        self.net = torchvision.models.get_model(name)
        self.feature_dim = self.net.fc.in_features
        self.net.fc = nn.Identity()
        if stem == "small" or (stem == "auto" and image_size <= 64):
            self.net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            self.net.maxpool = nn.Identity()
        elif channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]
