"""Optimizers with weight decay where it belongs, and a learning rate that warms up and decays by the step."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ssl_lightning.engine.hparams import as_settings
from ssl_lightning.engine.ranges import between, one_of, rates


@dataclass(frozen=True)
class OptimizerSpec:
    """What optimizer to build, and how its learning rate moves over the steps of a fit.

    Args:
        name: The optimizer: SGD with momentum, AdamW, or LARS (You et al. 2017, arXiv 1708.03888) for batches of
            thousands.
        lr: Peak learning rate, of one step; no scaling by the batch size happens behind your back.
        weight_decay: Decay of weights; biases, norms and other parameters of one dimension have none.
        momentum: Momentum of SGD and LARS, and the first beta of AdamW.
        warmup: Fraction of all steps over which the rate rises linearly from near 0 to `lr`.
        schedule: How the rate moves after that: `cosine` falls to 0, which it has after the last step and nearly at it
            (Loshchilov and Hutter 2017, arXiv 1608.03983, Eq. 5), or `constant`.
        layer_decay: Factor on the rate from each layer of the encoder to the one before it: below 1, pretrained layers
            move the less the nearer to the input they are, and the head at `lr` (Clark et al. 2020, arXiv 2003.10555,
            table 7). A layer is whatever has weights of two dimensions or more.

    Raises:
        ValueError: If a number is out of its range.
    """

    name: Literal["sgd", "adamw", "lars"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        try:
            one_of(("sgd", "adamw", "lars"), name=self.name)
            one_of(("cosine", "constant"), schedule=self.schedule)
            rates(lr=self.lr, weight_decay=self.weight_decay)
            between(0, 1, "[)", momentum=self.momentum)
            between(0, 1, warmup=self.warmup)
            between(0, 1, "(]", layer_decay=self.layer_decay)
        except ValueError as error:
            raise ValueError(str(error).replace("`", "`optimizer.", 1)) from None


def as_spec(optimizer: Any) -> OptimizerSpec:
    """Return what optimizer to build, from a specification, its fields as a checkpoint keeps them, or null.

    Raises:
        ValueError: If it is anything else, or has a field that there is none of.

    Example:
        >>> as_spec({"name": "sgd", "lr": 0.1}).lr
        0.1
    """
    return as_settings(
        OptimizerSpec, optimizer, "optimizer", "an `OptimizerSpec`, such as `OptimizerSpec('adamw', lr=0.001)`"
    )


class LARS(torch.optim.Optimizer):
    r"""SGD with momentum whose step of each layer has a size relative to the layer's weights.

    .. math:: v \leftarrow m v + \eta \frac{\lVert w \rVert}{\lVert g \rVert + \beta \lVert w \rVert} (g + \beta w),
        \qquad w \leftarrow w - \gamma v

    A group with `adapt=False`, as of biases and norms, takes steps of plain SGD.

    Args:
        params: Parameters, or groups of them.
        lr: The global rate, :math:`\gamma`.
        momentum: Momentum, m.
        weight_decay: Weight decay, :math:`\beta`, which may be 0.
        trust: How far a layer moves in a step, relative to its weights: :math:`\eta`.
        adapt: Whether the step has a size relative to the weights.

    Reference:
        Y. You, I. Gitman, B. Ginsburg, Large Batch Training of Convolutional Networks, 2017, arXiv 1708.03888, Eq. 6
        and algorithm 1. There the rate is within the momentum, here outside, as in SGD of torch and in the code of
        SimCLR and BYOL. lightly's takes steps of plain SGD where the weight decay is 0.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001,
        adapt: bool = True,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                decay, move = group["weight_decay"], weight.grad
                if decay:
                    move = move.add(weight, alpha=decay)
                if group["adapt"]:
                    size, steepness = weight.norm(), weight.grad.norm()
                    whole = steepness + decay * size
                    ratio = group["trust"] * size / whole
                    # weights of 0 would stay there, and 0 / 0 is no number
                    move = move * torch.where((size > 0) & (whole > 0), ratio, 1.0)
                if group["momentum"]:
                    state = self.state[weight]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(weight)
                    move = state["momentum_buffer"].mul_(group["momentum"]).add_(move)
                weight.add_(move, alpha=-group["lr"])
        return loss


torch.serialization.add_safe_globals([OptimizerSpec])  # checkpoints hold it among the hyper-parameters


def rate(step: int, total: float, spec: OptimizerSpec) -> float:
    """Return the factor on `spec.lr` at a step.

    Args:
        step: Optimizer steps taken, from 0.
        total: Steps of the whole fit; may be infinite, then there is neither warm-up nor decay.
        spec: The schedule.

    Returns:
        A number in [0, 1]; a cosine is 0 at `total`, after the last step, so that every step learns something.

    Reference:
        I. Loshchilov, F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, arXiv 1608.03983, Eq.
        5, whose :math:`T_{cur}` counts the steps taken.

    Example:
        >>> spec = OptimizerSpec(warmup=0.5)
        >>> [round(rate(step, 8, spec), 2) for step in range(8)]  # one for each step
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.85, 0.5, 0.15]
        >>> rate(8, 8, spec)
        0.0
    """
    if math.isinf(total):
        return 1.0
    warm = int(spec.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if spec.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warm) / max(1, total - warm))
    return 0.5 * (1.0 + math.cos(math.pi * done))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those with weight decay and those without (biases, norms: one dimension).

    Args:
        module: Any module; frozen parameters are left out.
        weight_decay: Of the first group.

    Returns:
        Two groups for an optimizer.

    Raises:
        ValueError: If nothing is trainable.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError(
            f"`{type(module).__name__}` has no trainable parameter; unfreeze a part of it, or do not fit it."
        )
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def layer_scales(encoder: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor on the rate of each parameter of an encoder, by the layer it belongs to.

    Args:
        encoder: Whose parameters are in the order of its layers.
        decay: Factor from each layer to the one before it; the last layer has it once.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 1, bias=False))
        >>> list(layer_scales(net, 0.5).values())  # weight and bias, those of the norm, weight
        [0.25, 0.25, 0.25, 0.25, 0.5]
    """
    numbers: dict[nn.Parameter, int] = {}
    count = 0
    for layer in encoder.modules():
        own = [one for one in layer.parameters(recurse=False) if one not in numbers]
        count += any(one.ndim > 1 for one in own)
        numbers.update(dict.fromkeys(own, count))
    return {one: decay ** (count - max(1, number) + 1) for one, number in numbers.items()}


def configure_optimizers(module: L.LightningModule, spec: OptimizerSpec, cycle: int | None = None) -> dict[str, Any]:
    """Build what `LightningModule.configure_optimizers` returns: the optimizer and its schedule by the step.

    Args:
        module: Attached to a trainer, which knows the number of steps (`estimated_stepping_batches`).
        spec: What to build.
        cycle: Begin the schedule anew after so many steps; null for one schedule over the fit.

    Returns:
        Lightning's dictionary of an optimizer and a scheduler.
    """
    groups = parameter_groups(module, spec.weight_decay)
    if spec.layer_decay < 1:
        groups = _by_layer(groups, layer_scales(cast(nn.Module, module.backbone), spec.layer_decay), spec.lr)
    optimizer: torch.optim.Optimizer
    match spec.name:
        case "sgd":
            optimizer = torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum)
        case "adamw":
            optimizer = torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.momentum, 0.999))
        case "lars":
            for group in groups:
                group["adapt"] = any(parameter.ndim > 1 for parameter in group["params"])
            optimizer = LARS(groups, lr=spec.lr, momentum=spec.momentum)
    total = module.trainer.estimated_stepping_batches
    length = total if cycle is None else cycle
    scheduler = LambdaLR(optimizer, lambda step: rate(step if cycle is None else step % cycle, length, spec))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _by_layer(groups: list[dict[str, Any]], scales: dict[nn.Parameter, float], lr: float) -> list[dict[str, Any]]:
    """Split groups by the factor on their parameters' rate."""
    found: list[dict[str, Any]] = []
    for group in groups:
        parts: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(scales.get(parameter, 1.0), []).append(parameter)
        found += [{**group, "params": params, "lr": lr * scale} for scale, params in parts.items()]
    return found


def require_finite(loss: Tensor, module: L.LightningModule, batch_idx: int) -> None:
    """Stop a fit whose loss is not finite, before the step spoils the weights.

    Args:
        loss: A scalar.
        module: Being trained.
        batch_idx: Of the batch in its epoch.

    Raises:
        ValueError: If the loss is NaN or infinite; says where.
    """
    if not torch.isfinite(loss):
        raise ValueError(
            f"the training loss of `{type(module).__name__}` is {loss.item()} at epoch {module.current_epoch}, batch "
            f"{batch_idx}, step {module.global_step}, rank {module.global_rank}; the weights are still those of the "
            "last good step. Lower `optimizer.lr`, add `warmup`, clip gradients (`--trainer.gradient_clip_val 1`), or "
            "look at the samples of that batch."
        )


@contextmanager
def enough_samples(count: int, least: int, module: L.LightningModule) -> Iterator[None]:
    """Take a step with a batch, or say that it is too small.

    Args:
        count: Samples of the batch, in this process.
        least: Those that a step makes sense with.
        module: Being trained.

    Raises:
        ValueError: If there are fewer, or batch norm finds too few.
    """
    mistake = ValueError(
        f"`batch_size={count}` is too small for `{type(module).__name__}`, which compares the samples of a batch, or "
        f"normalises by them: give {max(least, 2)} or more in each process (`--data.batch_size`), better a hundred."
    )
    if count < least:
        raise mistake
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):  # torch's batch norm
            raise mistake from error
        raise
