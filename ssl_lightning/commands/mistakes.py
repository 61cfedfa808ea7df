"""Turns the command line parser's nested errors into a line or two: what is wrong, and what was perhaps meant."""

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ssl_lightning.commands.catalogue import BASES, entries
from ssl_lightning.engine.naming import arguments, import_class, meant

COMMANDS = {
    "start": "from a folder to a model: look, pretrain, ask for labels, train, test, report, in one command",
    "init": "look at a folder, say what is in it, and write configs for it that run",
    "fit": "pretrain a method on unlabelled data, or train a classifier",
    "validate": "judge a checkpoint on the validation part",
    "test": "judge a checkpoint on the test part",
    "evaluate": "kNN, linear probe, fine-tuning and rank of finished encoders, on any data set, in one table",
    "predict": "write a class for every file of a folder, or an embedding, from a checkpoint alone",
    "sample": "write new images, drawn from a GAN, SSGAN or VAE",
    "export": "write an encoder for plain torchvision, timm, torch.export or ONNX",
    "active": "active learning: train, ask for labels, again",
    "label": "open the page where people label what an active run asks for",
    "labels": "export, import, or list the history of a run's labels; audit them",
    "compare": "run several strategies over several seeds, and say how sure the difference is",
    "report": "make a page of finished runs",
    "list": "methods, strategies, backbones, data, configs",
}
KINDS = {
    "data": ("data",),
    "strategy": ("strategies",),
    "stop": ("stopping",),
    "backbone": ("backbones",),
    "model": ("methods", "classifiers"),
}
ABSTRACT = ("LightningModule", "LightningDataModule", "Module", "Callback", "Logger", *BASES.values())


def no_command(name: str) -> str:
    """Say that there is no such command, and which there are."""
    return f"there is no command `{name}`{meant(name, COMMANDS)}; the commands are {', '.join(COMMANDS)}."


def no_option(name: str, options: Iterable[str], command: str) -> str:
    """Say that there is no such option, and which was perhaps meant."""
    return f"there is no option `{name}`{meant(name, options)}; `{command} --help all` tells all."


def no_argument(owner: str, name: str, accepted: Iterable[str]) -> str:
    """Say that a class has no such argument, and which it takes, if that is known."""
    accepted = sorted(set(accepted))
    which = f"; it takes {', '.join(accepted)}." if accepted else "."
    return f"`{owner}` has no argument `{name}`{meant(name, accepted)}{which}"


def no_class(name: str, option: str) -> str:
    """Say that there is no such class, and which an option can take."""
    names = _names(option)
    listed = f"; there are {', '.join(names)}" if option.rpartition(".")[2].lstrip("-") in KINDS else ""
    return (
        f"{option}: there is no class `{name}`{meant(name, names)}{listed}. A class of your own is named by its dotted "
        "path, `my_module.MyClass`."
    )


def own_mistake(error: BaseException | None) -> ValueError | None:
    """Find the user's mistake, a ValueError raised by our code, among an error and its causes; a defect has none."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_in = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
        if isinstance(error, ValueError) and raised_in.startswith("ssl_lightning"):
            return error
        error = error.__cause__ or error.__context__
    return None


def explain(message: str, parser: Any, given: Mapping[str, Any] | None = None) -> str:
    """Say in a line or two what is wrong with an option.

    Args:
        message: Of jsonargparse; it may nest, the cause last.
        parser: That found the mistake; its options are what can be meant.
        given: Configs that were read, by name: one of them may hold it.

    Returns:
        Text without a final newline.
    """
    option = "--" + ".".join(re.findall(r'Parser key "([^"]+)"', message))
    owners = re.findall(r"Problem with given class_path '([^']+)'", message)
    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        return no_command(found[1])
    if found := re.search(r"unrecognized arguments: (\S+)(.*)", message, re.IGNORECASE):
        name = found[1].split("=")[0]
        return no_option(name, _options(parser), parser.prog.replace(" [options]", ""))
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _unknown_key(found[1], parser, given or {})
    if unaccepted := re.findall(r"(?:class_path '([^']+)':\s+)?Option '([^']+)' is not accepted", message):
        return _not_accepted(unaccepted, option)
    if "Expected an instantiatable class" in message and (found := re.search(r"NestedArg\(key='([^']+)'", message)):
        return f"`{option}.{found[1]}` comes before the class it belongs to; give `{option} CLASS` first."
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return _parts(option, owners, parser, found[1]) or no_class(found[1], option)
    if found := re.search(r"(?:No module named|Failed to import|Import path|does not correspond)[^\n]*", message):
        name = _value(message) or ""
        if "does not correspond" in found[0] and option.endswith("backbone"):
            return (
                f"`{option} {name}` is no `Backbone` of ours; any other network goes within `AnyModule`: `{option} "
                f"AnyModule {option}.module {name}`."
            )
        return (
            f"{option}: {found[0].strip().rstrip('.')}{meant(name.rpartition('.')[2], _names(option))}{_see(parser)}."
        )
    if found := re.search(
        r"(?:the following arguments are required: |[Kk]ey )\"?([\w.]+)\"?(?:,|$|\n| is required)", message
    ):
        return _missing(found[1], option, owners, parser)
    return _wrong_value(message, option, owners, parser)


def describe_type(hint: Any, default: Any = None) -> str:
    """Say in words what values a type has.

    Args:
        hint: A type, as of an argument.
        default: Of the argument, as an example of a sequence.

    Example:
        >>> describe_type(Literal[1, 3]), describe_type(int | None), describe_type(tuple[float, float], (0.2, 1.0))
        ('one of 1, 3', 'a whole number or null', '2 numbers, such as [0.2, 1.0]')
    """
    parts = [part for part in _alternatives(hint) if part is not type(None)]
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    words = [f"one of {', '.join(dict.fromkeys(map(str, choices)))}"] if choices else []
    words += [_describe_one(part, default) for part in parts if get_origin(part) is not Literal]
    if len(parts) < len(_alternatives(hint)):
        words.append("null")
    return " or ".join(dict.fromkeys(words))


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [part for inner in get_args(hint) for part in _alternatives(inner)]
    return [hint]


def _describe_one(hint: Any, default: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple or hint is tuple:
        count = f"{len(inner)} " if inner and Ellipsis not in inner else ""
        kinds = {_plural(part) for part in inner if part is not Ellipsis}
        example = f", such as {list(default)}" if isinstance(default, tuple | list) else ""
        return f"{count}{kinds.pop() if len(kinds) == 1 else 'values'}{example}"
    if isinstance(origin, type) and not issubclass(origin, Mapping) and inner:
        return f"a list of {_plural(inner[0])}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    name: str = getattr(hint, "__name__", str(hint))
    return plain.get(hint, f"a {name}")


def _plural(hint: Any) -> str:
    plain = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
    return plain.get(hint, f"{getattr(hint, '__name__', 'value')}s")


def _wrong_value(message: str, option: str, owners: list[str], parser: Any) -> str:
    value = _value(message)
    if value is not None:
        hint, default = _argument(option, owners, parser)
        if hint is not Parameter.empty and "such as" not in message:
            required = describe_type(hint, default)
            choices = [
                str(choice) for part in _alternatives(hint) if get_origin(part) is Literal for choice in get_args(part)
            ]
            return f"`{option}={value}` is not possible{meant(value, choices)}; required is {required}."
        if found := re.search(r"Expected a typing\.Literal\[(.*?)\]\.", message):
            choices = [choice.strip(" '\"") for choice in found[1].split(",")]
            return (
                f"`{option}={value}` is not possible{meant(value, choices)}; required is one of {', '.join(choices)}."
            )
        expected = [kind for kind in re.findall(r"Expected an? <class '([^']+)'>", message) if kind != "NoneType"]
        if expected:
            return f"`{option}={value}` is not possible; required is {' or '.join(dict.fromkeys(expected))}."
    return "\n".join(line for line in message.splitlines() if line.strip() and "NoneType" not in line)


def _value(message: str) -> str | None:
    """Return the value that the user gave, which jsonargparse may tell as the argument of another."""
    values = re.findall(r"(?:Given|Got) value: (.*)", message)
    if not values:
        return None
    value: str = next((value for value in values if not value.startswith("NestedArg(")), values[0])
    nested = re.match(r"NestedArg\(key='[^']+', val='?([^']*)'?\)", value)
    return nested[1] if nested else value


def _not_accepted(pairs: list[tuple[str, str]], option: str) -> str:
    """Say that a class has no such argument.

    Args:
        pairs: Path of a class, or nothing, and what it does not accept; a list's base may follow the class in it.
        option: That names the class.
    """
    path, name = next(((path, name) for path, name in pairs if path and not _is_abstract(path)), pairs[0])
    first = name.partition(".")[0]
    if first != name and (perhaps := meant(first, ("init_args",))):
        return f"`{option}` has the unknown key `{first}`{perhaps}; a class is given by `class_path` and `init_args`."
    if _is_abstract(path):  # no class was named before
        return f"`{option}.{name}` comes before the class it belongs to; give `{option} CLASS` first."
    accepted = arguments(import_class(path)) if path else ()
    return no_argument(path.rpartition(".")[2] or option, name, accepted)


def _is_abstract(path: str) -> bool:
    name = path.rpartition(".")[2]
    return name in ABSTRACT and name != "Classifier"


def _parts(option: str, owners: list[str], parser: Any, value: str) -> str | None:
    """Say how an argument is given that is no class to be named but has parts; null for any other."""
    for kind in _alternatives(_argument(option, owners, parser)[0]):
        if is_dataclass(kind):
            names = [part.name for part in fields(kind)]
            return f"`{option}={value}` is not possible: it has {', '.join(names)}; give `{option}.{names[0]} {value}`."
    return None


def _argument(option: str, owners: list[str], parser: Any) -> tuple[Any, Any]:
    """Return the type and the default of an option's argument; empty where they are not known."""
    for action in getattr(parser, "_actions", []):
        if action.dest == option.removeprefix("--") and getattr(action, "_typehint", None) is not None:
            hint = action._typehint
            plain = all(get_origin(part) is Literal or not isinstance(part, type) or part.__module__ == "builtins"
                        for part in _alternatives(hint))  # fmt: skip
            return (hint, action.default) if plain else (Parameter.empty, None)
    name = option.rpartition(".")[2]
    for owner in owners[::-1]:
        for kind in getattr(import_class(owner), "__mro__", ()):
            if "__init__" in vars(kind) and name in signature(kind.__init__).parameters:
                try:
                    hint = typing.get_type_hints(kind.__init__).get(name, Parameter.empty)
                except (NameError, TypeError):  # of a stranger, who imports for type checkers alone
                    return Parameter.empty, None
                return hint, signature(kind.__init__).parameters[name].default
    return Parameter.empty, None


def _missing(name: str, option: str, owners: list[str], parser: Any) -> str:
    name = name.rstrip(",")  # several may be missing; the first is enough
    command = getattr(parser, "prog", "").split()[-1] if getattr(parser, "prog", "") else ""
    first, _, rest = name.partition(".")
    if rest and (first == command or first in COMMANDS):
        name = rest
    owner = f" of `{owners[-1].rpartition('.')[2]}`" if owners else ""
    missing = f"{option}.{name}" if option != "--" else name if name.startswith("-") else f"--{name}"
    names = _names(f"--{name}") if name.lstrip("-") in KINDS else []
    choose = f"; choose one of {', '.join(names)}" if names else ""
    return f"`{missing}`{owner} is required and missing{choose}."


def _unknown_key(key: str, parser: Any, given: Mapping[str, Any]) -> str:
    known = [option.removeprefix("--") for option in _options(parser)]
    where = next((f"`{name}`: " for name, content in given.items() if _holds(content, key.split("."))), "")
    return f"{where}there is no option `{key}`{meant(key, known)}{_see(parser)}."


def _holds(content: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _names(option: str) -> list[str]:
    kinds = KINDS.get(option.rpartition(".")[2].lstrip("-"))
    names = [entry.name for entry in entries() if kinds is None or entry.kind in kinds]
    return [name for name in names if name == "Classifier" or name not in BASES.values()]


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))


def _see(parser: Any) -> str:
    return f"; `{parser.prog.replace(' [options]', '')} --help all` tells all"
