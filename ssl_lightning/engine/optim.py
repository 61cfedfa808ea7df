"""Optimizers with weight decay where it belongs, and a learning rate that warms up and decays by the step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from lightly.utils.lars import LARS
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class OptimizerSpec:
    """What optimizer to build, and how its learning rate moves over the steps of a fit.

    Args:
        name: SGD with momentum, AdamW, or LARS (You et al. 2017, arXiv 1708.03888) for batches of thousands.
        lr: Peak learning rate, of one step; no scaling by the batch size happens behind your back.
        weight_decay: Decay of weights; biases, norms and other parameters of one dimension have none.
        momentum: Of SGD and LARS, and the first beta of AdamW (0.9 if left out).
        warmup: Fraction of all steps over which the rate rises linearly from near 0 to `lr`.
        schedule: `cosine` to 0 at the last step (Loshchilov and Hutter 2017, arXiv 1608.03983), or `constant`.

    Raises:
        ValueError: If a number is out of its range.
    """

    name: Literal["sgd", "adamw", "lars"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        for key, low, high in (
            ("lr", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("momentum", 0, 1),
            ("warmup", 0, 1),
        ):
            value = getattr(self, key)
            if not low <= value <= high or value == math.inf:
                raise ValueError(f"`optimizer.{key}={value}` is out of range; give a number from {low} to {high}.")


torch.serialization.add_safe_globals([OptimizerSpec])  # checkpoints hold it among the hyper-parameters


def rate(step: int, total: float, spec: OptimizerSpec) -> float:
    """Return the factor on `spec.lr` at a step.

    Args:
        step: Optimizer steps taken, from 0.
        total: Steps of the whole fit; may be infinite, then there is neither warm-up nor decay.
        spec: The schedule.

    Returns:
        A number in [0, 1].

    Example:
        >>> spec = OptimizerSpec(warmup=0.5)
        >>> [round(rate(step, 8, spec), 2) for step in range(9)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
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
    optimizer: torch.optim.Optimizer
    match spec.name:
        case "sgd":
            optimizer = torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum)
        case "adamw":
            optimizer = torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.momentum, 0.999))
        case "lars":
            optimizer = LARS(groups, lr=spec.lr, momentum=spec.momentum)
    total = module.trainer.estimated_stepping_batches
    length = total if cycle is None else cycle
    scheduler = LambdaLR(optimizer, lambda step: rate(step if cycle is None else step % cycle, length, spec))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


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
            f"last "
            "good step. Lower `optimizer.lr`, add `warmup`, clip gradients (`--trainer.gradient_clip_val 1`), or "
            "look at "
            "the images of that batch."
        )
