"""What every command that builds classes does first: plug-ins, modules beside the command."""

import argparse
import contextlib
import os
import sys
from importlib.metadata import entry_points
from itertools import pairwise

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.engine.naming import PLUGINS, import_class
from ssl_lightning.engine.processes import first_process


def say(text: str) -> None:
    """Print, in the first process only."""
    if first_process():
        print(text, flush=True)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets a checkpoint name anybody's classes."""
    meaning = "build classes that a checkpoint names and that are neither ours nor a plug-in's: they run their code"
    parser.add_argument("--trust", action="store_true", help=meaning)


def load_plugins() -> None:
    """Import what installed packages offer as plug-ins, so that bare names find it; find modules beside the command."""
    if os.getcwd() not in sys.path:  # for a stranger's module there
        sys.path.insert(0, os.getcwd())
    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:  # a stranger's import can fail in any way, and must not break ours
            rank_zero_warn(f"plug-in `{plugin.name}` ({plugin.value}) cannot be imported: {error}")


def import_data(argv: list[str]) -> None:
    """Import a stranger's data module that the command names by its dotted path, so that its facts are known."""
    named = [after for before, after in pairwise(argv) if before == "--data"]
    named += [argument.partition("=")[2] for argument in argv if argument.startswith("--data=")]
    for path in named:
        if "." in path and not path.startswith("ssl_lightning."):
            with contextlib.suppress(Exception):  # the parser says what is wrong with it
                import_class(path)


def require_wandb(logger: WandbLogger) -> None:
    """Start a W&B run now, before hours of training, and say what is missing if it does not start.

    Args:
        logger: To be started.

    Raises:
        ValueError: If there is no key or no network.
    """
    import wandb

    if not first_process():
        return
    try:
        _ = logger.experiment
    except (wandb.errors.Error, OSError) as error:
        raise ValueError(
            f"W&B does not start: {str(error).splitlines()[0]} Log in once by `wandb login` where there is a network, "
            "or add `--wandb offline` and `wandb sync` the run's folder later."
        ) from error
