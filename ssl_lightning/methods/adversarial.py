"""The base of generative adversarial networks: two players, one step."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import relu, softplus
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import Optimizer

from ssl_lightning.backbones import Backbone
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, one_of, whole
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.networks.decoders import ConvDecoder
from ssl_lightning.networks.teacher import Teacher
from ssl_lightning.transforms.image import SimCLRViews, normalisation

GanLoss = Literal["hinge", "non-saturating"]


def discriminator_loss(real: Tensor, fake: Tensor, kind: GanLoss) -> Tensor:
    r"""Loss of telling real images from made ones.

    .. math:: \text{hinge: } E[\max(0, 1 - D(x))] + E[\max(0, 1 + D(G(z)))], \qquad
        \text{non-saturating: } -E[\log \sigma(D(x))] - E[\log(1 - \sigma(D(G(z))))]

    Args:
        real: What the discriminator says of real images, `(N,)`.
        fake: What it says of made ones, `(M,)`.
        kind: Which loss.

    Returns:
        A scalar.

    Reference:
        Hinge: T. Miyato et al., Spectral Normalization for GANs, ICLR 2018, arXiv 1802.05957, Eq. 17; non-saturating:
        I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, arXiv 1406.2661, Eq. 1.

    Example:
        >>> discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-3.0]), "hinge")
        tensor(0.5000)
    """
    if kind == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake: Tensor, kind: GanLoss) -> Tensor:
    r"""Loss of not deceiving: :math:`-E[D(G(z))]` for hinge, :math:`-E[\log \sigma(D(G(z)))]` else.

    Args:
        fake: What the discriminator says of made images, `(M,)`.
        kind: Which loss.

    Returns:
        A scalar.
    """
    return -fake.mean() if kind == "hinge" else softplus(-fake).mean()


def frozen(module: nn.Module, inputs: Tensor) -> Tensor:
    """Apply a module with its parameters held constant: gradients pass through it to its inputs alone."""
    constant = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, constant, (inputs,))  # type: ignore[no-any-return]


def clip_apart(player: nn.Module, module: nn.Module, limit: float | None, algorithm: str | None) -> None:
    """Clip the gradients of one player, and those of all else in a module, each to a norm of their own.

    Else the one who loses, whose gradients are large, would shrink the other's.

    Args:
        player: A part of the module.
        module: The whole.
        limit: `--trainer.gradient_clip_val`; null or 0 for none.
        algorithm: `--trainer.gradient_clip_algorithm`: `norm` (or null), or `value`.
    """
    if not limit:
        return
    clip = nn.utils.clip_grad_value_ if algorithm == "value" else nn.utils.clip_grad_norm_
    own = list(player.parameters())
    known = {id(parameter) for parameter in own}
    for weights in (own, [parameter for parameter in module.parameters() if id(parameter) not in known]):
        if weights:
            clip(weights, limit)


class AdversarialMethod(SSLMethod):
    """A generator makes images, and a discriminator, which is the backbone with a head, tells them from real ones.

    Both players learn in the same step, from one backward pass: the generator through a discriminator that is held
    constant, the discriminator from images that are. One optimizer therefore serves both; clipping (of each player by
    itself), accumulation, precision and resuming are the Trainer's. The images one looks at come from a running average
    of the generator.

    Args:
        backbone: The discriminator without its head; the running batch-norm statistics are those of real images.
        views: One random view; null for the images themselves.
        channels: Channels of the images; linked from the data on the command line.
        image_size: Side of the images in pixels; linked from the data on the command line.
        latent_dim: Size of the noise that an image is made of.
        width: Width of the generator: channels before its last layer.
        loss: Loss of both players: `hinge`, or `non-saturating` as in the first GAN.
        spectral: Divide every weight of the discriminator by its largest singular value.
        average: Momentum of the running average of the generator's weights. It rises to that: after t steps it is at
            most (1 + t) / (10 + t), so that the average forgets its random start.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if it has another size.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        channels: int = 1,
        image_size: int = 28,
        latent_dim: int = 64,
        width: int = 32,
        loss: GanLoss = "hinge",
        spectral: bool = True,
        average: float = 0.999,
        **kwargs: Any,
    ) -> None:
        whole(1, channels=channels, latent_dim=latent_dim, width=width)
        one_of(get_args(GanLoss), loss=loss)
        between(0, 1, "[)", average=average)
        views = views or SimCLRViews(count=1, crop_scale=(1.0, 1.0), flip=0.0, strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.latent_dim, self.loss_kind, self.average_momentum = latent_dim, loss, average
        self.decoder = ConvDecoder(latent_dim, channels, image_size, width)
        self.average = Teacher(self.decoder)
        self.head = self.limited(nn.Linear(self.backbone.feature_dim, 1), spectral)
        self.limited(self.backbone, spectral)

    @staticmethod
    def limited(module: nn.Module, spectral: bool) -> Any:
        """Give every convolution and linear layer of a module a spectral norm of 1, if so wanted."""
        if spectral:
            for layer in [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]:
                if not is_parametrized(layer, "weight"):  # as where the backbone comes from another GAN
                    spectral_norm(layer)
        return module

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise `(count, latent_dim)`, on the device."""
        return onto(torch.randn(count, self.latent_dim, generator=generator), self.device)

    def paint(self, noise: Tensor, decoder: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Make normalised images `(N, C, S, S)` of noise `(N, latent_dim)`; pixels lie in [0, 1] before normalising."""
        mean, std = normalisation(self.clean, noise.device)
        return ((decoder or self.decoder)(noise).sigmoid() - mean) / std

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each player's gradients by themselves."""
        clip_apart(self.decoder, self, gradient_clip_val, gradient_clip_algorithm)

    def after_step(self) -> None:
        """Move the average."""
        step = self.global_step
        self.average.follow(min(self.average_momentum, (1 + step) / (10 + step)), self.decoder)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Make images of fresh noise by the average of the generator.

        Args:
            count: How many.
            generator: Of the noise, on the CPU.

        Returns:
            Normalised, `(count, C, S, S)`.
        """
        return self.paint(self.draw(count, generator), self.average)

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return three rows of images made of the same noise every time, `(N, C, H, W)` each."""
        made = self.sample(3 * len(images), generator)
        return {f"made {place + 1}": row for place, row in enumerate(made.chunk(3))}
