"""The command `list`: what there is to choose from."""

import argparse

from ssl_lightning.commands.catalogue import BASES, entries
from ssl_lightning.commands.configs import config_names, find_config
from ssl_lightning.engine.naming import meant

KINDS = [*BASES, "configs"]


def main(arguments: list[str]) -> int:
    """Print a line for each class of a kind: name, family, data it is about, one sentence, paper; and for each config.

    Args:
        arguments: The kind; none for all.

    Returns:
        Exit status.

    Raises:
        ValueError: If there is no such kind.
    """
    parser = argparse.ArgumentParser("ssl-lightning list", description="What there is to choose from, a line each.")
    parser.add_argument("kind", nargs="*", help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}; none for all")
    kinds = parser.parse_args(arguments).kind or KINDS
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there is no kind `{kind}`{meant(kind, KINDS)}; there are {', '.join(KINDS)}.")
    for kind in kinds:
        if len(kinds) > 1:
            print(f"{kind}:")
        found = [entry for entry in entries() if entry.kind == kind]
        wide = max((len(entry.name) for entry in found), default=0)
        about = max((len(entry.modality) for entry in found), default=0)
        for entry in found:
            what = f"{entry.modality:<{about}}  " if about else ""
            print(f"{entry.name:<{wide}}  {entry.family:<16}  {what}{entry.sentence}  {entry.paper}".rstrip())
        if kind == "configs":
            _print_configs()
    return 0


def _print_configs() -> None:
    names = config_names()
    wide = max(map(len, names), default=0)
    for name in names:
        lines = find_config(name).read_text(encoding="utf-8").splitlines()
        print(f"{name:<{wide}}  {lines[1].removeprefix('# ') if len(lines) > 1 else ''}".rstrip())
