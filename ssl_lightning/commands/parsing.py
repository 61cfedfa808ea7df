"""The parser of all commands that build classes: short messages, our classes by bare names, configs by short names."""

import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse._typehints as typehints
import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

from ssl_lightning.commands.configs import find_config, read_config, require_command
from ssl_lightning.commands.mistakes import explain

_resolve, _subclasses = typehints.resolve_class_path_by_name, typehints.get_all_subclass_paths


def _resolve_ours_first(cls: Any, name: str) -> str:
    """Find a class by its bare name: ours, where torchvision or timm have one of the same name, too."""
    if "." not in name and not isinstance(cls, tuple):
        paths = typehints.get_all_subclass_paths(cls, include_abstract=False)
        ours = {path for path in paths if path.rpartition(".")[2] == name and path.startswith("ssl_lightning.")}
        if len(ours) == 1:
            return ours.pop()
    return str(_resolve(cls, name))


def _listed_subclasses(cls: Any, include_abstract: bool = False, closed_types: bool = True) -> list[str]:
    """Leave the thousand networks of torch, torchvision and timm out of what `--help` lists."""
    paths: list[str] = _subclasses(cls, include_abstract, closed_types)
    foreign = ("torch.", "torchvision.", "timm.", "lightly.", "lightning.", "torchmetrics.", "transformers.")
    return paths if closed_types else [path for path in paths if not path.startswith(foreign)]


typehints.resolve_class_path_by_name = _resolve_ours_first
typehints.get_all_subclass_paths = _listed_subclasses
# a default of Lightning's `Timer` is a member of an enumeration, which YAML does not know
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


class Parser(LightningArgumentParser):
    """Says in a few lines what is wrong with an option, and what was perhaps meant.

    Attributes:
        command: That it parses; empty for the parser above all commands.
        inner: The command's parser, of the one above it.
        keys_of_others: Tells what the other commands that share configs take at the top of one, by their names.
        given: Configs that were read, by the names that the user gave.
    """

    command: str
    inner: "Parser | None"
    keys_of_others: Callable[[], dict[str, set[str]]]
    given: dict[str, dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command, self.inner, self.keys_of_others, self.given = "", None, dict, {}

    def top_keys(self) -> set[str]:
        """Return what may stand at the top of a config."""
        keys = {action.dest.partition(".")[0] for action in self._actions}
        return keys - {"config", "help", "print_config", "print_shtab"}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser: Any = getattr(ex, "subcommand_parser", None) or self
        parser = getattr(parser, "inner", None) or parser
        given: dict[str, dict[str, Any]] = getattr(parser, "given", {})
        said = explain(message, parser, given)
        sys.stderr.write(f"{parser.prog.replace(' [options]', '')}: error: {said}\n")
        self.exit(2)


class ConfigFile(ActionConfigFile):
    """Takes a config by its short name, and checks what can be checked before it is merged."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge a config into what was given before.

        Raises:
            ValueError: If there is no such config, it is no YAML, or it is for another command.
        """
        text = str(values)
        if "\n" in text or "{" in text or ": " in text or not isinstance(parser, Parser) or not parser.command:
            super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]  # the content itself
            return
        path = find_config(text)
        content = read_config(path, text)
        keys = {parser.command: parser.top_keys()}
        if content.keys() - keys[parser.command]:
            keys |= parser.keys_of_others()
        left_out = require_command(content, text, parser.command, keys)
        parser.given[text] = content
        if left_out:
            kept = {key: value for key, value in content.items() if key not in left_out}
            self.apply_config(parser, cfg, self.dest, yaml.safe_dump(kept, sort_keys=False))
        else:
            self.apply_config(parser, cfg, self.dest, str(Path(path)))
