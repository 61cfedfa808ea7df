"""CSV files that are replaced as a whole: nobody ever reads half of one."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file in place of the one that is there, if any; two processes may do so at once.

    Args:
        path: Of the file; its folder is made.
        columns: In their order.
        lines: By column; what is missing or null is left empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    with scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in line.items()} for line in lines)
    scratch.replace(path)
