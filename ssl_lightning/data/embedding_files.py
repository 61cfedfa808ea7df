"""A folder of embeddings that runs share: files that are written once, checked when read, and mapped into memory."""

import fcntl
import hashlib
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Names = NDArray[np.uint64]  # 128 bits that tell what a sample holds from all else, `(N, 2)`
SUFFIX = ".safetensors"
WAIT = 600.0  # seconds that a run lets another encode before it does so itself
LOOK = 0.1  # seconds between two looks whether it has


class EmbeddingFiles:
    """Embeddings of one encoder, each file a block of rows with the names of their samples and a checksum.

    Args:
        folder: Of all encoders.
        maker: What tells the encoder, what it is given and its numbers from any other.
    """

    def __init__(self, folder: Path, maker: object) -> None:
        self.folder = folder / hashlib.sha256(repr(maker).encode()).hexdigest()[:16]
        self._read: set[str] = set()

    def refresh(self) -> list[tuple[Names, Tensor]]:
        """Return the blocks that were not read yet: names `(N, 2)` and rows `(N, dim)`; a damaged file is removed."""
        found = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name not in self._read:
                self._read.add(path.name)
                block = _open(path)
                if block is not None:
                    found.append(block)
                    continue
                with suppress(OSError):
                    path.unlink()
        return found

    def add(self, names: Names, rows: Tensor) -> Tensor:
        """Write a block, and return its rows as they are mapped.

        Raises:
            OSError: If it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}{SUFFIX}"
        draft = path.with_suffix(".draft")
        tensors = {"names": torch.from_numpy(names.view(np.int64)), "rows": rows}
        try:
            save_file(tensors, draft, {"checksum": str(_checksum(names, rows))})
            os.replace(draft, path)
        except (OSError, SafetensorError) as error:  # the latter where the disk is full
            with suppress(OSError):
                draft.unlink()
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        self._read.add(path.name)
        block = _open(path)
        return rows if block is None else block[1]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time fill the folder; after `WAIT` seconds, or where files cannot be locked, all do."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / "lock", "ab")  # noqa: SIM115
        except OSError:
            yield
            return
        with file:
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(LOOK)
                except OSError:
                    break
                else:
                    break
            yield  # closing the file frees it


def match(wanted: Names, there: Names) -> NDArray[np.int64]:
    """Return for each name the place of the same name among others, or -1, `(N,)`."""
    if not len(there):
        return np.full(len(wanted), -1)
    order = np.argsort(there[:, 0], kind="stable")
    place = order[np.searchsorted(there[order, 0], wanted[:, 0]).clip(max=len(there) - 1)]
    return np.where((there[place] == wanted).all(axis=1), place, -1)  # two of one first half: the later is encoded anew


def _open(path: Path) -> tuple[Names, Tensor] | None:
    """Map a file's block; null if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            names, rows = file.get_tensor("names").numpy().view(np.uint64), file.get_tensor("rows")
            sound = str(_checksum(names, rows)) == (file.metadata() or {}).get("checksum")
    except (OSError, SafetensorError, ValueError):
        return None
    return (names, rows) if sound and len(names) == len(rows) and rows.ndim == 2 else None


def _checksum(names: Names, rows: Tensor) -> int:
    return zlib.crc32(rows.view(torch.uint8).numpy().data, zlib.crc32(np.ascontiguousarray(names).data))
