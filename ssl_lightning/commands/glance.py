"""Mistakes of a command line that are told at a glance: before torch and Lightning are imported, which takes seconds.

What is unknown here is left to the parser; nothing is refused that it would take.
"""

import ast
import importlib.util
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from ssl_lightning.commands.catalogue import arguments_of, entries
from ssl_lightning.commands.configs import find_config, read_config
from ssl_lightning.commands.mistakes import no_argument, no_class, no_option
from ssl_lightning.engine.naming import PLUGINS

_TRAIN = {"config", "data", "folder", "help", "model", "print_config", "seed_everything", "trainer", "wandb"}
_TEST = {"ckpt_path", "verbose", "weights_only"}
_PREDICT = {"accelerator", "data", "help", "precision", "trust"}
OPTIONS = {  # tests/commands/test_glance.py compares them with the parsers
    "fit": _TRAIN | {"ckpt_path", "plan", "weights_only"},
    "validate": _TRAIN | _TEST,
    "test": _TRAIN | _TEST,
    "active": _TRAIN
    | {"balanced", "cache", "classes", "cold_start", "initial", "oracle", "rounds", "steps_per_epoch", "stop", "store"}
    | {"strategy", "test_share", "val_share", "wait"},
    "evaluate": _PREDICT
    | {"backbone", "candidates", "fractions", "k", "lidar_images", "lr", "protocols", "results", "seed", "steps"}
    | {"temperature", "template", "views"},
    "predict": _PREDICT | {"all", "batch_size", "link", "min_probability", "output", "sort"},
    "export": {"folder", "help", "to", "trust"},
    "sample": {"count", "folder", "help", "length", "prompt", "seed", "temperature", "top_k", "trust"},
    "init": {"help", "labels", "minutes", "name", "overwrite", "seed"},
    "start": {"classes", "config", "dry-run", "dry_run", "folder", "help", "labels", "minutes", "oracle", "seed"}
    | {"test_size"},
}
_RUNS = ("fit", "validate", "test", "active")  # whose configs may be named in short
_PARTS = {"class_path", "init_args", "dict_kwargs", "help"}  # of an option that takes a class


def glance(arguments: list[str]) -> None:
    """Refuse an option, a class or a config that does not exist.

    Args:
        arguments: The command, and its options.

    Raises:
        ValueError: For the first mistake that can be seen.
    """
    command, known = arguments[0], OPTIONS.get(arguments[0])
    if known is None:
        return
    classes: dict[str, str] = {}  # named by options so far
    strangers = bool(entry_points(group=PLUGINS))  # their classes may have bare names that no list of ours holds
    for name, value in _options(arguments[1:]):
        first, _, rest = name.partition(".")
        if first.rstrip("+") not in known:
            raise ValueError(no_option(f"--{name}", [f"--{one}" for one in sorted(known)], f"ssl-lightning {command}"))
        if name == "config" and command in _RUNS and not any(mark in value for mark in ("\n", "{", ": ")):
            read_config(find_config(value), value)
        elif name in ("data", "model", "strategy") and value.isidentifier() and value != "null":
            classes[name] = value
            if not strangers and value not in {entry.name for entry in entries()}:
                raise ValueError(no_class(value, f"--{name}"))
        elif first == "trainer" and rest:
            _require_trainer_option(rest.partition(".")[0].rstrip("+"), command)
        elif rest and first in classes and rest.partition(".")[0].rstrip("+") not in _PARTS:
            accepted = arguments_of(classes[first])
            if accepted and (part := rest.partition(".")[0].rstrip("+")) not in accepted:
                raise ValueError(no_argument(classes[first], part, accepted))


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of options, without dashes, and what follows them, which may be nothing."""
    for place, argument in enumerate(arguments):
        after = arguments[place + 1] if place + 1 < len(arguments) else ""
        if argument == "-c":
            yield "config", after
        elif argument.startswith("--") and len(argument) > 2:
            name, given, value = argument[2:].partition("=")
            yield name, value if given else after


def _require_trainer_option(name: str, command: str) -> None:
    spec = importlib.util.find_spec("lightning")  # imports nothing
    where = next(iter(spec.submodule_search_locations or ()), None) if spec is not None else None
    file = Path(where or "") / "pytorch" / "trainer" / "trainer.py"
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    start = text.find("    def __init__(")
    head = text[start : text.find(") -> None:", start)]
    try:
        init = ast.parse(f"{head.strip()}): pass").body[0]
    except SyntaxError:  # another Lightning; the parser knows
        return
    known = {one.arg for one in init.args.kwonlyargs} if isinstance(init, ast.FunctionDef) else set()
    if known and name not in known:
        options = {f"--trainer.{one}" for one in known}
        raise ValueError(no_option(f"--trainer.{name}", options, f"ssl-lightning {command}"))
