"""VAAL: a discriminator learns to tell labelled from unlabelled samples, and what it is sure of is asked for."""

import math
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.passes import in_evaluation
from ssl_lightning.engine.processes import share_buffers
from ssl_lightning.engine.ranges import at_least, rates, sizes, whole
from ssl_lightning.engine.seeding import derive_generator, derive_seed
from ssl_lightning.functional.losses import gaussian_divergence

KEY = "vaal"  # in checkpoints


class VAEAndDiscriminator(nn.Module):
    """The networks of VAAL: a convolutional variational autoencoder, and a discriminator on its latent means.

    Args:
        channels: Of the images.
        size: Side of the images in pixels, at least 4.
        latent_dim: Size of the latent.
        width: Channels after the first convolution; doubled by each further one.
    """

    def __init__(self, channels: int, size: int, latent_dim: int, width: int) -> None:
        super().__init__()
        halvings = max(1, min(4, int(math.log2(size)) - 2))
        widths = [width * 2**place for place in range(halvings)]
        side = size // 2**halvings
        encoder: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            encoder += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(widths[-1] * side * side, 2 * latent_dim))
        decoder: list[nn.Module] = [
            nn.Linear(latent_dim, widths[-1] * side * side), nn.Unflatten(1, (widths[-1], side, side)),
        ]  # fmt: skip
        for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
            decoder += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, nn.ConvTranspose2d(widths[0], channels, 4, 2, 1))
        self.discriminator = _judge(latent_dim)

    def scaled(self, images: Tensor) -> Tensor:
        """Return what is encoded and built up again: the images."""
        return images

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return latent means and log variances of images `(N, C, H, W)`, `(N, latent_dim)` each."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: Tensor, size: int) -> Tensor:
        """Return images `(N, C, size, size)` of latents `(N, latent_dim)`."""
        images: Tensor = self.decoder(latent)
        return images if images.shape[-1] == size else interpolate(images, size=(size, size), mode="bilinear")

    def judge(self, mean: Tensor) -> Tensor:
        """Return the logit of being labelled, `(N,)`."""
        logits: Tensor = self.discriminator(mean)
        return logits[:, 0]


class VectorVAEAndDiscriminator(nn.Module):
    """The same of vectors: fully connected layers; the vectors' numbers are brought to one scale first.

    Args:
        dim: Numbers of a vector.
        latent_dim: Size of the latent.
        hidden: Numbers of a hidden layer.
    """

    def __init__(self, dim: int, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(dim, affine=False)
        self.encoder = nn.Sequential(*_layer(dim, hidden), *_layer(hidden, hidden), nn.Linear(hidden, 2 * latent_dim))
        self.decoder = nn.Sequential(*_layer(latent_dim, hidden), *_layer(hidden, hidden), nn.Linear(hidden, dim))
        self.discriminator = _judge(latent_dim)

    def scaled(self, vectors: Tensor) -> Tensor:
        """Return what is encoded and built up again: vectors `(N, dim)` whose numbers have mean 0 and variance 1."""
        numbers: Tensor = self.scale(vectors)
        return numbers

    def encode(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Return latent means and log variances of scaled vectors `(N, dim)`, `(N, latent_dim)` each."""
        mean, log_variance = self.encoder(scaled).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: Tensor, size: int) -> Tensor:
        """Return scaled vectors `(N, dim)` of latents `(N, latent_dim)`; `size` is that of images."""
        vectors: Tensor = self.decoder(latent)
        return vectors

    def judge(self, mean: Tensor) -> Tensor:
        """Return the logit of being labelled, `(N,)`."""
        logits: Tensor = self.discriminator(mean)
        return logits[:, 0]


def _judge(latent_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent_dim, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1))


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]


Form = Literal["images", "vectors", "embeddings"]


def form_of(inputs: Any) -> Form:
    """Tell what of the inputs an autoencoder builds up, by nothing but their form.

    Args:
        inputs: As the task model takes them, of N samples.

    Returns:
        `images` for square ones `(N, C, H, H)` of at least 4 px; `vectors` for one matrix of floats `(N, d)`; else
        `embeddings`: the task model's.

    Example:
        >>> form_of(torch.zeros(2, 3, 8, 8)), form_of(torch.zeros(2, 5)), form_of(torch.zeros(2, 5).long())
        ('images', 'vectors', 'embeddings')
    """
    if isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.shape[2] == inputs.shape[3] >= 4:
        return "images"
    if isinstance(inputs, Tensor) and inputs.ndim == 2 and inputs.is_floating_point():
        return "vectors"
    return "embeddings"


def vae_loss(images: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor, beta: float) -> Tensor:
    r"""Negative evidence lower bound a pixel value, :math:`\frac{1}{D} (\lVert x - \hat x \rVert^2 + \beta\, KL)`.

    .. math:: KL = \frac12 \sum_j (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)

    Args:
        images: `(N, C, H, W)`, or vectors `(N, D)`; D values each.
        decoded: The same.
        mean: `(N, latent_dim)`.
        log_variance: `(N, latent_dim)`.
        beta: Weight of the divergence.

    Returns:
        The mean over the samples.
    """
    divergence = gaussian_divergence(mean, log_variance)
    errors = (images - decoded).pow(2).flatten(1).sum(dim=1)
    return (errors + beta * divergence).mean() / images[0].numel()


class VAAL(AcquisitionStrategy):
    r"""Asks for the samples that a discriminator is most certain are unlike the labelled ones.

    Beside the task model, a variational autoencoder learns to encode labelled and unlabelled samples alike, and a
    discriminator D to tell their latent means apart:

    .. math:: L_{VAE} = ELBO_L + ELBO_U + \lambda [BCE(D(\mu_L), 1) + BCE(D(\mu_U), 1)], \qquad
        L_D = BCE(D(\mu_L), 1) + BCE(D(\mu_U), 0)

    The lowest :math:`D(\mu)` is asked for. The task model's predictions play no part. Every step of the fit trains on
    its labelled batch and as many unlabelled samples under the same views; logs `active/vaal_vae` and
    `active/vaal_discriminator`. Under DDP gradients are averaged.

    The autoencoder is one of convolutions for images, and of fully connected layers for vectors. Of anything else, as
    sound, text, rows with categories, or pairs, it builds up the task model's embeddings, which move while the model
    learns, and through which no gradient flows.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        latent_dim: Size of the latent.
        width: Channels after the encoder's first convolution, doubled by each further one; the paper's is 128. Of
            vectors, a hidden layer has eight times as many numbers.
        beta: Weight of the divergence.
        adversarial: :math:`\lambda`.
        lr: Of Adam, for both.
        vae_steps: Steps of the autoencoder to one of the discriminator.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        S. Sinha, S. Ebrahimi, T. Darrell, Variational Adversarial Active Learning, ICCV 2019, arXiv 1904.00370, Eq. 1
        to 4. The bound is divided by the number of pixel values, so that the adversarial term weighs the same at any
        image size; the authors' code averages the error and sums the divergence. The paper knows images alone: vectors
        and embeddings in their place are ours, each number of which is brought to mean 0 and variance 1 first.

    Example:
        >>> strategy = VAAL(query_size=10)
        >>> strategy.needs_fit  # its networks train beside the model
        True
    """

    needs_fit: ClassVar[bool] = True
    _form: str = "images"  # of what the networks build up

    def __init__(
        self,
        query_size: int = 10,
        batch_size: int | None = None,
        latent_dim: int = 32,
        width: int = 32,
        beta: float = 1.0,
        adversarial: float = 1.0,
        lr: float = 5e-4,
        vae_steps: int = 2,
    ) -> None:
        super().__init__(query_size, batch_size)
        sizes(1, latent_dim=latent_dim, width=width)
        whole(1, vae_steps=vae_steps)
        at_least(0, beta=beta, adversarial=adversarial)
        rates(lr=lr)
        self.latent_dim, self.width, self.beta, self.adversarial = latent_dim, width, beta, adversarial
        self.lr, self.vae_steps = lr, vae_steps
        self._restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Build the networks, or take them up from a checkpoint."""
        super().on_fit_start(trainer, module)
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._seed_of_round = derive_seed(pool.seed, "vaal", pool.round)
        self._unlabelled, self._samples = pool.unlabelled, pool.samples
        first: Any = self._samples.__getitems__(self._unlabelled[:1].tolist())
        shape, self._form = self._shape_of(trainer, module, first)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of_round)
            if self._form == "images":
                self.networks: Any = VAEAndDiscriminator(shape[1], shape[2], self.latent_dim, self.width)
            else:
                self.networks = VectorVAEAndDiscriminator(shape[1], self.latent_dim, 8 * self.width)
        self.networks.to(trainer.strategy.root_device, memory_format=torch.channels_last)  # convolutions are faster so
        judge = list(self.networks.discriminator.parameters())
        others = [*self.networks.encoder.parameters(), *self.networks.decoder.parameters()]
        self.optimizers = [torch.optim.Adam(others, self.lr), torch.optim.Adam(judge, self.lr)]
        if self._restored is not None:
            self.networks.load_state_dict(self._restored["networks"])
            for optimizer, state in zip(self.optimizers, self._restored["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self._restored = None

    def _shape_of(self, trainer: L.Trainer, module: Any, first: Batch) -> tuple[torch.Size, Form]:
        """Return the shape of what the autoencoder builds up of a sample, and what that is."""
        raw = first.input
        if form_of(raw) == "images":
            return raw.shape, "images"
        batch = trainer.strategy.batch_to_device(first, trainer.strategy.root_device)
        with in_evaluation(module), torch.no_grad():
            inputs = module.prepare(batch) if hasattr(module, "prepare") else batch.input
            form = form_of(inputs)
            if form == "embeddings" and not hasattr(module, "embed"):
                raise ValueError(
                    f"`{type(module).__name__}` has no method `embed`, and `VAAL` builds up embeddings where inputs "
                    f"are neither images nor vectors, as these {type(inputs).__name__}; `Classifier` has it."
                )
            return (module.embed(inputs) if form == "embeddings" else inputs).shape, form

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Train the autoencoder, then the discriminator."""
        step = (trainer.current_epoch, batch_idx, trainer.global_rank)
        generator = derive_generator(self._seed_of_round, "step", *step)
        drawn = torch.randint(len(self._unlabelled), (len(batch.index),), generator=generator)
        other = self._samples.__getitems__(self._unlabelled[drawn].tolist())
        other = trainer.strategy.batch_to_device(other, trainer.strategy.root_device)
        labelled, unlabelled = (self._seen(pl_module, part) for part in (batch, other))
        self.networks.train()
        for _ in range(self.vae_steps):
            vae = self.vae_objective(labelled, unlabelled, generator)
            self._descend(vae, self.optimizers[0])
        discriminator = self.discriminator_objective(labelled, unlabelled)
        self._descend(discriminator, self.optimizers[1])
        pl_module.log_dict({"active/vaal_vae": vae.detach(), "active/vaal_discriminator": discriminator.detach()})

    def _seen(self, module: Any, batch: Batch) -> Tensor:
        """Return a batch as the task model sees it in training: the same view of labelled and of unlabelled samples."""
        views = module.prepare(batch, random=True) if hasattr(module, "prepare") else batch.input
        inputs = views[0] if isinstance(views, list) else views
        if self._form != "embeddings":
            return inputs.float()  # type: ignore[no-any-return]
        with in_evaluation(module), torch.no_grad():
            return module.embed(inputs).float()  # type: ignore[no-any-return]

    def vae_objective(self, labelled: Tensor, unlabelled: Tensor, generator: torch.Generator) -> Tensor:
        """Return the autoencoder's loss, Eq. 3; noise comes from the generator."""
        images = self.networks.scaled(torch.cat([labelled, unlabelled]))
        mean, log_variance = self.networks.encode(images)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = self.networks.decode(mean + noise * (0.5 * log_variance).exp(), images.shape[-1])
        fooled = binary_cross_entropy_with_logits(self.networks.judge(mean), torch.ones_like(mean[:, 0]))
        # the sum of the labelled and the unlabelled half's means, each of equal size
        return 2 * (vae_loss(images, decoded, mean, log_variance, self.beta) + self.adversarial * fooled)

    def discriminator_objective(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """Return the discriminator's loss, Eq. 4: labelled is 1, unlabelled 0."""
        with torch.no_grad():
            mean, _ = self.networks.encode(self.networks.scaled(torch.cat([labelled, unlabelled])))
        truth = torch.cat([torch.ones(len(labelled)), torch.zeros(len(unlabelled))]).to(mean)
        return 2 * binary_cross_entropy_with_logits(self.networks.judge(mean), truth)

    def _descend(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        if not loss.isfinite():
            raise ValueError(
                f"`VAAL`: the loss of its own networks is {loss.item()}; lower its `lr={self.lr}`, `beta={self.beta}` "
                f"or `adversarial={self.adversarial}`."
            )
        self.networks.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= torch.distributed.get_world_size()
        optimizer.step()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Make the networks the same in every process, too."""
        super().on_train_end(trainer, module)
        share_buffers(self.networks)
        self.networks.eval()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the networks and optimizers of a fit that may go on."""
        if hasattr(self, "networks"):
            states = [optimizer.state_dict() for optimizer in self.optimizers]
            checkpoint[KEY] = {"networks": self.networks.state_dict(), "optimizers": states}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take them up when the fit starts."""
        self._restored = checkpoint.get(KEY)

    def score(self, predictions: Predictions) -> Tensor:
        """Return the negative logit of being labelled, `(N,)`."""
        self.networks.eval()
        seen = predictions.embeddings if self._form == "embeddings" else predictions.input.float()
        mean, _ = self.networks.encode(self.networks.scaled(seen))
        return -self.networks.judge(mean)  # type: ignore[no-any-return]
