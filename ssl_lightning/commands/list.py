"""The command `list`: what there is to choose from."""

import argparse

from ssl_lightning.commands.catalogue import BASES, entries
from ssl_lightning.engine.naming import meant


def main(arguments: list[str]) -> int:
    """Print a line for each class of a kind: name, family, one sentence, paper.

    Args:
        arguments: The kind; none for all.

    Returns:
        Exit status.

    Raises:
        ValueError: If there is no such kind.
    """
    parser = argparse.ArgumentParser("ssl-lightning list", description="What there is to choose from, a line each.")
    parser.add_argument("kind", nargs="*", help=f"{', '.join(list(BASES)[:-1])} or {list(BASES)[-1]}; none for all")
    kinds = parser.parse_args(arguments).kind or list(BASES)
    for kind in kinds:
        if kind not in BASES:
            raise ValueError(f"there is no kind `{kind}`{meant(kind, BASES)}; there are {', '.join(BASES)}.")
    for kind in kinds:
        if len(kinds) > 1:
            print(f"{kind}:")
        rows = [entry for entry in entries() if entry.kind == kind]
        wide = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"{row.name:<{wide}}  {row.family:<16}  {row.sentence}  {row.paper}".rstrip())
    return 0
