"""Embeddings by a frozen encoder: each sample is encoded once, in memory or in a folder that runs can share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.data.embedding_files import EmbeddingFiles, Names, match
from ssl_lightning.engine.processes import first_process, shared

LIMIT = 2 * 2**30  # bytes in memory; samples beyond it are encoded every time


class Embeddings:
    """Remembers what a frozen encoder made of the samples of a data module's parts, of one encoder at a time.

    Args:
        name_samples: Names the samples of a part, `train` or `test`, by what they hold; null where no folder is used.
        limit: Bytes at most in memory; a folder has no limit.

    Attributes:
        off: Whether to remember nothing.
        folder: Where embeddings are kept and those of former runs are found; null for memory alone.
        maker: What tells the encoder from any other.
    """

    def __init__(self, name_samples: Callable[[str], Names] | None = None, limit: int = LIMIT) -> None:
        self.limit, self._name_samples = limit, name_samples
        self.off = False
        self.folder: Path | None = None
        self.maker: Any = None
        self._of = uuid.uuid4().hex  # tells these data from others
        self._where: dict[str, Tensor] = {}  # of each part's samples, the number of their row, or -1, `(N,)`
        self._names: dict[str, Names] = {}
        self._matched: dict[str, int] = {}  # how many of the blocks read were looked through for a part
        self.forget()

    def keep_in(self, folder: Path | None) -> None:
        """Keep embeddings in a folder, or in memory alone."""
        self.folder = folder
        self.forget()

    def name(self, split: str) -> str:
        """Return what names a part of these data."""
        return f"{self._of}/{split}"

    def knows(self, part: str) -> bool:
        """Tell whether a part is of these data, and embeddings of it are remembered."""
        return not self.off and part.startswith(f"{self._of}/")

    def by(self, maker: Any) -> Embeddings:
        """Forget what another encoder made."""
        if maker != self.maker:
            self.maker = maker
            self.forget()
        return self

    def forget(self, part: str | None = None) -> None:
        """Forget a part, or all; what is in a folder stays there."""
        for known in (self._where, self._names, self._matched):
            for name in [part] if part else list(known):
                known.pop(name, None)
        if part is None:
            self._blocks: list[Tensor] = []  # rows, `(n, dim)`
            self._starts = torch.zeros(1, dtype=torch.int64)  # number of each block's first row, and of the next
            self._read: list[tuple[Names, int]] = []  # of blocks from the folder: whose they are, and the first row
            self._files: EmbeddingFiles | None = None
            self._held = 0  # bytes in memory

    def find(self, part: str, index: Tensor) -> Tensor | None:
        """Return the embeddings of samples, on the device of `index`; null if one is missing.

        Args:
            part: Its name.
            index: Positions in it, `(N,)`.
        """
        places = index.cpu()
        if not self.has(part, places):
            return None
        numbers = self._where[part][places]
        blocks = torch.bucketize(numbers, self._starts, right=True) - 1
        inside = numbers - self._starts[blocks]
        found = torch.unique(blocks).tolist()
        if len(found) == 1:
            only: Tensor = self._blocks[found[0]][inside]
            return only.to(index.device)
        rows: Tensor = self._blocks[found[0]].new_empty(len(places), self._blocks[found[0]].shape[1])
        for block in found:
            rows[blocks == block] = self._blocks[block][inside[blocks == block]]
        return rows.to(index.device)

    def has(self, part: str, index: Tensor) -> bool:
        """Tell whether the embeddings of samples are there, of all."""
        return len(index) > 0 and not len(self.missing(part, index))

    def missing(self, part: str, index: Tensor) -> Tensor:
        """Return the positions of `index`, `(N,)`, whose embeddings are not there, `(n,)`."""
        where, places = self._where.get(part), index.cpu()
        if where is None or not len(places):
            return places
        known = places < len(where)
        known[known.clone()] = where[places[known]] >= 0
        return places[~known]

    def keep(self, part: str, index: Tensor, rows: Tensor, write: bool = True) -> None:
        """Remember embeddings, if there is room; those that are there stay.

        Args:
            part: Its name.
            index: Positions in it, each once, `(N,)`.
            rows: Embeddings, `(N, dim)`.
            write: Into the folder, if there is one.
        """
        if not len(index) or rows.ndim != 2 or self.off:
            return
        places = index.cpu()
        with torch.inference_mode(False):  # what is made in it cannot be trained on
            places = places.clone()
            where = self._table(part, int(places.max()) + 1)
            new = where[places] < 0
            places = places[new]
            if not len(places):
                return
            block = rows.detach().cpu()[new].clone()
            mapped = self._write(part, places, block) if write else None
            if mapped is None and self._held + block.nbytes > self.limit:
                return
            self._held += block.nbytes if mapped is None else 0
            where[places] = self._append(block if mapped is None else mapped) + torch.arange(len(places))

    def look(self, part: str) -> None:
        """Find what is in the folder by now."""
        if self.folder is None or self._name_samples is None:
            return
        with torch.inference_mode(False):
            self._read += [(names, self._append(rows)) for names, rows in self._opened().refresh()]
            names = self._names_of(part)
            where = self._table(part, len(names))[: len(names)]
            matched, self._matched[part] = self._matched.get(part, 0), len(self._read)
            for theirs, start in self._read[matched:]:  # which another part's look may have read
                place = torch.from_numpy(match(names, theirs))
                where[:] = torch.where((where < 0) & (place >= 0), place + start, where)

    @contextmanager
    def filling(self, part: str, index: Tensor) -> Iterator[None]:
        """Let one run at a time encode what is missing; the others wait, and find it. All processes of a run come here.

        Args:
            part: Its name.
            index: Positions of the samples that this process is about to encode, `(N,)`.
        """
        self.look(part)
        # the first process decides, also for one that could not write and keeps its own in memory
        if shared(lambda: self.folder is None or not len(self.missing(part, index))):
            yield
            return
        with self._opened().lock() if first_process() else nullcontext():
            shared(lambda: True)  # the others go on when the first has the lock
            self.look(part)
            yield

    def _opened(self) -> EmbeddingFiles:
        assert self.folder is not None
        if self._files is None:
            self._files = EmbeddingFiles(self.folder, self.maker)
        return self._files

    def _append(self, block: Tensor) -> int:
        """Take a block of rows, and return the number of its first."""
        start = int(self._starts[-1])
        self._blocks.append(block)
        self._starts = torch.cat([self._starts, self._starts[-1:] + len(block)])
        return start

    def _table(self, part: str, size: int) -> Tensor:
        """Return where the rows of a part are, of at least so many samples."""
        where = self._where.get(part)
        if where is None or len(where) < size:
            before = torch.empty(0, dtype=torch.int64) if where is None else where
            more = torch.full((max(size - len(before), len(before)),), -1)
            self._where[part] = where = torch.cat([before, more])
        return where

    def _names_of(self, part: str) -> Names:
        assert self._name_samples is not None
        if part not in self._names:
            self._names[part] = self._name_samples(part.rpartition("/")[2])
        return self._names[part]

    def _write(self, part: str, places: Tensor, block: Tensor) -> Tensor | None:
        """Write a block into the folder, and map it; null if it is to stay in memory."""
        if self.folder is None or self._name_samples is None:
            return None
        names = np.ascontiguousarray(self._names_of(part)[places.numpy()])
        try:
            return self._opened().add(names, block)
        except OSError as error:
            rank_zero_warn(
                f"embeddings cannot be kept in `{self.folder}` ({error}), and are in memory; free some space, or give "
                "`--cache FOLDER` elsewhere."
            )
            self.folder = None
            return None
