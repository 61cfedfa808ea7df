"""`fit --plan`: how long a fit takes here, by some steps of it, before hours are spent."""

import math
import sys
import warnings
from typing import Any, NamedTuple

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

from ssl_lightning.backbones.base import convolves
from ssl_lightning.commands.startup import say
from ssl_lightning.engine.clock import StepClock
from ssl_lightning.engine.lines import duration
from ssl_lightning.engine.precision import multiplies_bf16
from ssl_lightning.learner import Learner

SECONDS = 8.0  # of each trial
WORTH_TELLING = 1.05  # times as fast, of another setting
# what a trial does without: it leaves no trace, and takes steps only
QUIET = {
    "logger": False, "enable_checkpointing": False, "callbacks": None, "limit_val_batches": 0,
    "num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False, "min_epochs": None,
    "min_steps": None,
}  # fmt: skip


class Trial(NamedTuple):
    """What some steps have shown.

    Attributes:
        step: Seconds of each.
        waiting: Share of these spent on waiting for data.
        samples: Of each step, of all processes.
        an_epoch: Steps of an epoch; infinite where nobody knows.
        total: Steps of the whole fit; infinite where it has no end.
        gigabytes: Of memory at most, of the device; null where it cannot be told.
    """

    step: float
    waiting: float
    samples: int
    an_epoch: float
    total: float
    gigabytes: float | None

    @property
    def speed(self) -> float:
        """Samples a second."""
        return self.samples / self.step


def plan_fit(cli: Any) -> None:
    """Time the fit as it is configured and by settings that may be faster, and print what came out.

    Args:
        cli: The command, its classes built, its trainer's options `QUIET`.

    Raises:
        ValueError: If the fit takes no step.
    """
    if getattr(cli.model, "frozen", False) and getattr(cli.model, "solves", False):
        raise ValueError(
            "`--plan` has no step to measure: the encoder is frozen, and the head is found by logistic regression."
        )
    first = _try(cli, {})
    trainer, model = cli.trainer, cli.model
    place = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
    say(
        f"{place}, {trainer.precision}{_format(model)}: {first.speed:.0f} samples/s, "
        f"{first.step:.3g} s a step of {first.samples}, {first.waiting:.0%} of it waiting for data"
        + (f"; {first.gigabytes:.1f} GB of memory" if first.gigabytes is not None else "")
    )
    say(_duration(first))
    if first.waiting > 0.2 and getattr(cli.datamodule, "num_workers", 1) == 0:
        say("the model waits for data: `--data.num_workers 2`, or more, may load them beside it")
    if trainer.world_size > 1:
        return
    best, faster = WORTH_TELLING, ""
    for option, value in _others(cli):
        told = f"--{option} {str(value).lower()}"
        try:
            other = _try(cli, {option: value})
        except Exception as error:  # as where memory runs out
            say(f"{told}: it failed ({type(error).__name__}: {' '.join(str(error).split())[:100]})")
            continue
        say(f"{told}: {other.speed:.0f} samples/s, {other.speed / first.speed:.2f} times as fast")
        if other.speed / first.speed > best:
            best, faster = other.speed / first.speed, told
    say(f"faster here: `{faster}`" if faster else "no other setting that was tried is faster")


def _others(cli: Any) -> list[tuple[str, Any]]:
    """Return options that might be faster by another value: memory format and number format."""
    found: list[tuple[str, Any]] = []
    if isinstance(cli.model, Learner) and convolves(cli.model.backbone):
        found.append(("model.channels_last", not cli.model.channels_last))
    now = str(cli.trainer.precision)
    if "bf16" in now:
        found.append(("trainer.precision", "32-true"))
    elif multiplies_bf16(str(cli._get(cli.config, "trainer").accelerator)):
        found.append(("trainer.precision", "bf16-mixed"))
    return found


def _try(cli: Any, changes: dict[str, Any]) -> Trial:
    """Build model and trainer by the config with some changes, and take some steps."""
    config = cli.config.clone()
    inner: Namespace = config[cli.subcommand]
    inner["data"] = cli.datamodule  # as it is: read once
    for option, value in changes.items():
        inner[option.replace("model.", "model.init_args.")] = value
    cli.config_init = cli.parser.instantiate_classes(config)
    model: Any = cli._get(cli.config_init, "model")
    clock = StepClock(SECONDS)
    trainer: L.Trainer = LightningCLI.instantiate_trainer(cli, callbacks=[clock])
    if not changes:
        cli.trainer, cli.model = trainer, model
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with warnings.catch_warnings(action="ignore"):
        trainer.fit(model, datamodule=cli.datamodule)
    if not clock.seconds_a_step:
        raise ValueError("`--plan` has nothing to measure: the fit takes no step.")
    an_epoch = float(trainer.num_training_batches)
    epochs = float("inf") if trainer.max_epochs in (None, -1) else float(trainer.max_epochs)
    most = math.inf if trainer.max_steps == -1 else float(trainer.max_steps * trainer.accumulate_grad_batches)
    samples = clock.samples * trainer.world_size
    return Trial(clock.seconds_a_step, clock.waiting, samples, an_epoch, min(an_epoch * epochs, most), _memory(trainer))


def _memory(trainer: L.Trainer) -> float | None:
    """Return the most memory that was taken so far, in gigabytes: of a GPU, else of this process."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _format(model: L.LightningModule) -> str:
    return ", channels-last" if isinstance(model, Learner) and model.channels_last else ""


def _duration(trial: Trial) -> str:
    """Say how long an epoch takes, and all of them."""
    if math.isinf(trial.an_epoch):
        return "an epoch has no end that is known"
    said = f"an epoch of {trial.an_epoch:.0f} steps takes {duration(trial.an_epoch * trial.step)}"
    if not math.isinf(trial.total) and trial.total != trial.an_epoch:
        said += f", all {trial.total:.0f} steps {duration(trial.total * trial.step)}"
    return f"{said}, validation not counted"
