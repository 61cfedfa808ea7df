"""Where configs stand, and what is wrong with one: found by a short name, as `method/simclr`, from anywhere."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.engine.naming import meant


def configs_folder() -> Path:
    """Return the folder of the configs that come with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names(folder: str = "") -> list[str]:
    """Return the names of the configs that come with the package, as `method/simclr`, those of one folder or all."""
    root = configs_folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in (root / folder).rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Find a config: the file of that path, else the one that comes with the package.

    Args:
        name: A path, or a name as `method/simclr`; `.yaml` and a leading `configs/` may be there or not.

    Raises:
        ValueError: If there is none; says which was perhaps meant.
    """
    path = Path(name)
    if path.is_file():
        return path
    short = _short(name)
    packaged = configs_folder() / f"{short}.yaml"
    if packaged.is_file():
        return packaged
    with_suffix = path.with_name(f"{path.name}.yaml") if path.name else path
    if with_suffix.is_file():
        return with_suffix
    folder = short.partition("/")[0]
    names = config_names(folder) if "/" in short and (configs_folder() / folder).is_dir() else []
    listed = f"there are {', '.join(names)}" if names else "`ssl-lightning list configs` names those of the package"
    is_folder = " is a folder, and" if path.is_dir() else ""
    raise ValueError(
        f"`--config {name}`:{is_folder} there is no such file, nor a config of that name"
        f"{meant(short, names or config_names())}; {listed}."
    )


def _short(name: str) -> str:
    parts = Path(name).with_suffix("").parts if name.endswith((".yaml", ".yml")) else Path(name).parts
    return "/".join(parts[1:] if parts[:1] == ("configs",) else parts)


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Read a config.

    Args:
        path: Of the file.
        name: As the user gave it, for messages.

    Raises:
        ValueError: If it is no YAML, or no mapping; says where.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        tab = " (YAML is indented by spaces, never by tabs)" if "\\t" in str(error) or "tab" in str(error) else ""
        raise ValueError(f"`{name}`{where}: this is no YAML: {error.problem}{tab}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"`{name}` is no YAML: {' '.join(str(error).split())}.") from error
    if content is None:
        raise ValueError(f"`{name}` is empty; give a config with `key: value` lines.")
    if not isinstance(content, dict):
        raise ValueError(f"`{name}` holds {type(content).__name__}, not `key: value` lines; is it the right file?")
    return content


def require_command(content: dict[str, Any], name: str, command: str, keys: dict[str, set[str]]) -> set[str]:
    """Refuse a config of another command, and an unknown key.

    Args:
        content: Of the config.
        name: As the user gave it.
        command: That it was given to.
        keys: What each command takes, at the top of a config.

    Returns:
        Keys of the config that belong to the command that wrote it, and are to be left out: `validate`, `test` and
        `predict` read the config of a run.

    Raises:
        ValueError: If it is for another command, or has a key that no command knows.
    """
    if "arms" in content:
        raise ValueError(f"`{name}` is a config of `compare`; give `ssl-lightning compare {name}`.")
    foreign = [key for key in content if key not in keys[command]]
    owners = [other for other in keys if other != command and set(foreign) <= keys[other]]
    if not foreign:
        return set()
    if command != "active" and "active" in owners and not any(set(foreign) <= keys[o] for o in owners if o != "active"):
        if command == "fit":
            raise ValueError(
                f"`{name}` is a config of `active`: it says {_some(foreign)}; give `ssl-lightning active -c {name}`, "
                "or leave them out."
            )
        return set(foreign)
    if owners:
        return set(foreign)  # of fit, validate, test and predict, which share nearly all
    unknown = next(key for key in foreign if not any(key in known for known in keys.values()))
    raise ValueError(
        f"`{name}` has the unknown key `{unknown}`{meant(str(unknown), keys[command])}; `{command}` takes "
        f"{', '.join(sorted(keys[command]))}."
    )


def _some(names: Iterable[Any]) -> str:
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:3]) + (" and more" if len(quoted) > 3 else "")


def require_comparison(content: dict[str, Any], name: str) -> None:
    """Refuse a config of `fit` or `active` where one of `compare` is required.

    Raises:
        ValueError: If it is one.
    """
    if "arms" not in content and (content.keys() & {"model", "data", "trainer", "strategy"}):
        command = "active" if "strategy" in content else "fit"
        raise ValueError(f"`{name}` is a config of `{command}`; give `ssl-lightning {command} -c {name}`.")
