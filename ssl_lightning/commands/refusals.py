"""What Lightning refuses of the trainer's switches, told in a line that names the switch."""

import inspect
import opcode
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from types import TracebackType
from typing import Any, Literal

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from ssl_lightning.commands.mistakes import own_mistake
from ssl_lightning.data import DataModule
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.ranges import at_least, given, whole
from ssl_lightning.supervised import Classifier

RAISE = opcode.opmap["RAISE_VARARGS"]
ENTRANCES = (
    "insert_env_defaults",
    "instantiate_trainer",
    "_run_subcommand",
    "fit",
    "test",
    "estimated_stepping_batches",
)
OPTIMIZERS = {"sgd": "nesterov", "adamw": "betas", "lars": "trust"}  # and what only their states tell
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(L.Trainer.__init__).parameters.items()}


def require_numbers(options: Mapping[str, Any]) -> None:
    """Refuse what Lightning would divide by, or accept and never do.

    Args:
        options: Of the trainer, by name.

    Raises:
        ValueError: If there is such a number, or `barebones`.
    """
    names = ("accumulate_grad_batches", "check_val_every_n_epoch")
    whole(1, **given(**{f"--trainer.{name}": options.get(name) for name in names}))
    at_least(0, **given(**{"--trainer.gradient_clip_val": options.get("gradient_clip_val")}))
    if options.get("barebones"):
        raise ValueError(
            "`--trainer.barebones=True` allows neither logs nor checkpoints, which a run leaves in its folder; leave "
            "it out, or use Lightning's `Trainer` in Python."
        )


def require_single(callbacks: Sequence[Callback]) -> None:
    """Refuse a callback twice whose state could not be told apart in a checkpoint, as Lightning does by a traceback.

    Args:
        callbacks: Of the trainer.

    Raises:
        ValueError: If there is one.
    """
    stateful = [callback for callback in callbacks if type(callback).state_dict is not Callback.state_dict]
    key, times = max(Counter(callback.state_key for callback in stateful).items(), key=itemgetter(1), default=("", 0))
    if times > 1:
        raise ValueError(
            f"`--trainer.callbacks` names `{key.partition('{')[0]}` {times} times, one perhaps in a config file; give "
            "it once."
        )


def require_same_optimizer(model: L.LightningModule, saved: Container[str]) -> None:
    """Refuse to go on by an optimizer that cannot read what the checkpoint's has left.

    Args:
        model: To go on with.
        saved: What the checkpoint tells of a group of parameters, by name; empty where it tells nothing.

    Raises:
        ValueError: If the checkpoint is of another optimizer.
    """
    spec = getattr(model, "optimizer_spec", None)
    theirs = next((name for name, mark in OPTIMIZERS.items() if mark in saved), None)
    if isinstance(spec, OptimizerSpec) and theirs not in (None, spec.name):
        raise ValueError(
            f"`--model.optimizer.name={spec.name}` cannot go on from `ckpt_path`, which was trained by {theirs}; give "
            f"`--model.optimizer.name {theirs}`, or begin a run without `--ckpt_path`."
        )


def require_judged(trainer: L.Trainer, part: Literal["val", "test"], remedy: str) -> None:
    """Say where nothing was judged, which Lightning leaves unsaid.

    Args:
        trainer: That has validated or tested.
        part: That it judged on.
        remedy: What to do where that part is empty.

    Raises:
        ValueError: If there was no sample, or no metric.
    """
    words = "validation" if part == "val" else part
    batches: Any = trainer.num_val_batches if part == "val" else trainer.num_test_batches
    if not sum(batches):
        raise ValueError(
            f"there is nothing to judge on: the {words} part is empty, or `--trainer.limit_{part}_batches` is 0; "
            f"{remedy}."
        )
    if not trainer.callback_metrics:
        raise ValueError(
            f"there is nothing to tell: `{type(trainer.lightning_module).__name__}` logs no metric of the {words} "
            "part; add a callback that judges, such as `--trainer.callbacks+=KNN`."
        )


class RequireLabels(Callback):
    """Refuses to judge a classifier on samples without a label, whose classes it would miss by name."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look at the part that is judged; where it is empty, at all the data."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, Classifier) or not isinstance(data, DataModule) or data.train_samples is None:
            return
        every = data.train_samples.targets
        judged = every[data.val_indices] if stage == "validate" or data.test_samples is None else (
            data.test_samples.targets
        )  # fmt: skip
        if not ((judged if len(judged) else every) >= 0).any():
            raise ValueError(
                f"there is nothing to judge by: no sample of `{type(data).__name__}` that would be judged is labelled; "
                "give data with labels, or `predict` the classes of these."
            )


@contextmanager
def refusals(options: Mapping[str, Any]) -> Iterator[None]:
    """Turn what Lightning refuses within into a mistake of ours; a defect stays as it is.

    Args:
        options: Of the trainer, by name.

    Raises:
        ValueError: If Lightning refuses something; names the option where it can be told.
    """
    try:
        yield
    except Exception as error:
        if own_mistake(error) is not None:
            raise
        for cause in _causes(error):
            if said := _architecture(cause) or _refusal(cause, options):
                raise ValueError(said) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:  # jsonargparse buries one among the types that it tried
        yield error
        error = error.__cause__ or error.__context__


def _architecture(error: BaseException) -> str | None:
    if not isinstance(error, RuntimeError) or "loading state_dict" not in str(error):
        return None
    first = " ".join(str(error).split("\n\t")[1:2])
    return (
        f"`ckpt_path` holds another architecture: {first} Give the model and data of its run, by `-c "
        "FOLDER/config.yaml`."
    )


def _refusal(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """Return a line for what Lightning refuses; null for a defect."""
    frames = _frames(error)
    if not isinstance(error, MisconfigurationException) and not _is_refusal(frames):
        return None
    words = " ".join(str(error).replace("HINT: ", "").split())
    if found := re.search(r"No supported (\w+) backend found|(\w+)Accelerator` can not run", words):
        kind = (found[1] or found[2]).lower()
        return (
            f"`--trainer.accelerator={kind}` cannot be had: this machine has none that works with the installed torch; "
            "give `cpu`, or `auto` for what there is."
        )
    brief = f"{words.rstrip('.')}." if len(words) <= 300 else f"{words[:297]}..."
    return f"{_blamed(words, frames, options)}: {brief}"


def _is_refusal(frames: list[TracebackType]) -> bool:
    """Tell whether Lightning raised an error by a statement of its own, in what a command called of it.

    Where a model, its data or a callback called Lightning, or Lightning fell over, it is a defect.
    """
    last = frames[-1]
    if not _of_lightning(last) or last.tb_frame.f_code.co_code[last.tb_lasti] != RAISE:
        return False
    outside = max((place for place, frame in enumerate(frames) if not _of_lightning(frame)), default=-1)
    return frames[outside + 1].tb_frame.f_code.co_name in ENTRANCES


def _frames(error: BaseException) -> list[TracebackType]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames


def _module(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__"))


def _of_lightning(frame: TracebackType) -> bool:
    return _module(frame).partition(".")[0] == "lightning"


def _blamed(words: str, frames: list[TracebackType], options: Mapping[str, Any]) -> str:
    """Name the option that Lightning speaks of, or whose part of Lightning speaks, among those that were given."""
    changed = [name for name, value in options.items() if value != DEFAULTS.get(name)]
    spoken = [name for name in re.findall(r"\w+", words) if name in changed]
    shown = [name for name in changed if isinstance(options[name], str) and repr(options[name]) in words]
    parts = [part.removesuffix("s") for frame in frames[::-1] for part in _module(frame).split(".")]
    places = [name for part in parts for name in changed if name.removesuffix("s") == part]
    for name in (*spoken, *shown, *places):
        value = f"={options[name]}" if isinstance(options[name], str | int | float) else ""
        return f"`--trainer.{name}{value}` is refused by Lightning"
    return "Lightning refuses this"
