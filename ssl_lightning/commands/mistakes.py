"""Turns the command line parser's nested errors into a line or two: what is wrong, and what was perhaps meant."""

import re
from collections.abc import Iterator
from typing import Any

from ssl_lightning.commands.catalogue import BASES, entries
from ssl_lightning.engine.naming import arguments, import_class, meant

KINDS = {
    "data": ("data",),
    "strategy": ("strategies",),
    "stop": ("stopping",),
    "backbone": ("backbones",),
    "model": ("methods", "classifiers"),
}


def explain(message: str, parser: Any) -> str:
    """Say in a line or two what is wrong with an option.

    Args:
        message: Of jsonargparse; it may nest, the cause last.
        parser: That found the mistake; its options are what can be meant.

    Returns:
        Text without a final newline.
    """
    option = "--" + ".".join(re.findall(r'Parser key "([^"]+)"', message))
    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        choices = [*re.findall(r"'([^']+)'", found[2]), *("evaluate", "export", "compare", "report", "list")]
        return f"there is no command `{found[1]}`{meant(found[1], choices)}; the commands are {', '.join(choices)}."
    if found := re.search(r"unrecognized arguments: (\S+)(.*)", message, re.IGNORECASE):
        name = found[1].split("=")[0]
        return f"there is no option `{name}`{meant(name, _options(parser))}{_see(parser)}."
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        owners = re.findall(r"Problem with given class_path '([^']+)'", message)
        accepted = sorted(set(arguments(import_class(owners[-1])))) if owners else []
        owner = owners[-1].rpartition(".")[2] if owners else option
        if (
            owner in ("LightningModule", "LightningDataModule", *BASES.values()) and owner != "Classifier"
        ):  # no class was named before
            return f"`{option}.{found[1]}` comes before the class it belongs to; give `{option} CLASS` first."
        which = f"; it takes {', '.join(accepted)}." if accepted else "."
        return f"`{owner}` has no argument `{found[1]}`{meant(found[1], accepted)}{which}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return _no_class(found[1], option)
    if found := re.search(r"(?:No module named|Failed to import|Import path|does not correspond)[^\n]*", message):
        given = re.search(r"Given value: (\S+)", message)
        name = given[1] if given else ""
        return (
            f"{option}: {found[0].strip().rstrip('.')}{meant(name.rpartition('.')[2], _names(option))}{_see(parser)}."
        )
    if found := re.search(r"the following arguments are required: (\S+)", message):
        owners = re.findall(r"Problem with given class_path '([^']+)'", message)
        owner = f" of `{owners[-1].rpartition('.')[2]}`" if owners else ""
        name = found[1].rstrip(",")  # several may be missing; the first is enough
        missing = f"{option}.{name}" if option != "--" else name
        names = _names(f"--{name}") if name in KINDS else []
        choose = f"; choose one of {', '.join(names)}" if names else ""
        return f"`{missing}`{owner} is required and missing{choose}."
    if found := re.search(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", message):
        choices = re.findall(r"'([^']+)'", found[1])
        return (
            f"`{option}={found[2]}` is not possible{meant(found[2], choices)}; required is one of {', '.join(choices)}."
        )
    expected = [kind for kind in re.findall(r"Expected an? <class '([^']+)'>", message) if kind != "NoneType"]
    given = re.search(r"Given value: (.*)", message) or re.search(r"Got value: (.*)", message)
    if expected and given:
        nested = re.match(r"NestedArg\(key='([^']+)', val='?([^']*)'?\)", given[1])
        value = nested[2] if nested else given[1]
        return f"`{option}={value}` is not possible; required is {' or '.join(dict.fromkeys(expected))}."
    return "\n".join(line for line in message.splitlines() if line.strip() and "NoneType" not in line)


def _names(option: str) -> list[str]:
    kinds = KINDS.get(option.rpartition(".")[2].lstrip("-"))
    names = [entry.name for entry in entries() if kinds is None or entry.kind in kinds]
    return [name for name in names if name == "Classifier" or name not in BASES.values()]


def _no_class(name: str, option: str) -> str:
    names = _names(option)
    listed = f"; there are {', '.join(names)}" if option.rpartition(".")[2].lstrip("-") in KINDS else ""
    return (
        f"{option}: there is no class `{name}`{meant(name, names)}{listed}. A class of your own is named by its dotted "
        "path, `my_module.MyClass`."
    )


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))


def _see(parser: Any) -> str:
    return f"; `{parser.prog.replace(' [options]', '')} --help` tells all"
