"""What a run or a result depends on, among all that a command line says."""

from collections.abc import Container
from pathlib import Path
from typing import Any

PATHS = ("root", "path", "table", "test_path", "test_table", "checkpoint", "labels")
NO_MATTER = (  # speed, whether it goes on at all, or where people answer
    "num_workers", "resident", "memory_gib", "download", "skip_corrupt", "host", "port", "page",
)  # fmt: skip
NEWER = ("labels",)  # left out where null: a run that began before they were there goes on


def settings_of(spec: Any, facts: Container[str] = ()) -> Any:
    """Return what matters of a class with its arguments: the same result, the same settings, however they are written.

    Args:
        spec: As a config has it: `class_path` and `init_args`, or any value.
        facts: Names of arguments that the data fill in; what the data are today is no setting.

    Returns:
        The same without facts and what changes no result; paths are absolute.

    Example:
        >>> settings_of({"class_path": "MLP", "init_args": {"dim": 8, "num_classes": 3}}, ["num_classes"])
        {'class_path': 'MLP', 'init_args': {'dim': 8}}
        >>> settings_of({"class_path": "ImageFolder", "init_args": {"image_size": 8, "labels": None}})
        {'class_path': 'ImageFolder', 'init_args': {'image_size': 8}}
    """
    if isinstance(spec, list):
        return [settings_of(part, facts) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        name: str(Path(value).resolve()) if name in PATHS and isinstance(value, str) else settings_of(value, facts)
        for name, value in spec.items()
        if name not in NO_MATTER and name not in facts and not (name in NEWER and value is None)
    }
