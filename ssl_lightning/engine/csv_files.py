"""Files that are replaced as a whole, so that nobody ever reads half of one, and a lock for those who add to one."""

import csv
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file in place of the one that is there, if any; two processes may do so at once.

    Args:
        path: Of the file; its folder is made.
        columns: In their order.
        lines: By column; what is missing or null is left empty.

    Raises:
        ValueError: If a line has a column that is not named.
    """
    with replacing(path) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in line.items()} for line in lines)


@contextmanager
def replacing(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when it is complete; what was there stays if writing fails.

    A link stays one, and what it points to is replaced. What is no file, as a pipe or a device, is written into.

    Args:
        path: Of the file; its folder is made.
        mode: Text in UTF-8, or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {"newline": "", "encoding": "utf-8"} if mode == "w" else {}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:
            yield file
        return
    path = path.resolve()
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # of no other process, on no other machine
    try:
        with scratch.open(mode, **text) as file:
            yield file
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(scratch):
            error.filename = str(path)  # the one that the user knows
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process is between reading a file and replacing it.

    Args:
        path: Of the file; the lock is an empty file beside it, and dies with the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
