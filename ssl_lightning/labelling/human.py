"""People who answer at the labelling page."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.data.base import DataModule
from ssl_lightning.engine.ranges import one_of, whole
from ssl_lightning.labelling.oracle import Oracle
from ssl_lightning.labelling.records import Answer, Query, Reply

START = 30  # seconds that the page may take to start, on a machine that is busy


class Human(Oracle):
    """People at a page, which runs beside the training in a process of its own; their answers come later.

    Args:
        host: Address that the page is served at; `0.0.0.0` for other machines, too.
        port: Of the page; the next that is free.
        page: Open the page with the run; without it, `ssl-lightning label RUN` does, on any machine with the folder.

    Raises:
        ValueError: If the port is out of its range.
    """

    name = "human"
    external: ClassVar[bool] = True

    def __init__(self, host: str = "127.0.0.1", port: int = 8765, page: bool = True) -> None:
        whole(0, 65535, port=port)
        one_of((False, True), page=page)
        self.host, self.port, self.page = host, port, page
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: tuple[Path, str] | None = None  # folder and store of the run

    def answer(self, keys: Sequence[str], data: DataModule) -> Sequence[Reply]:
        """Answer later."""
        return [None] * len(keys)

    def collect(self, pending: Sequence[Query], data: DataModule) -> Sequence[Answer]:
        """Start the page again if it has died; what is answered there is in the store already."""
        if self._process is not None and self._process.poll() is not None and self._opened is not None:
            try:
                self.open(*self._opened)
                rank_zero_warn(f"the labelling page had died and was started again: {self.address}")
            except ValueError as error:  # the run waits on, and answers may come by other ways
                self.address, self._process = f"`ssl-lightning label {self._opened[0]}`", None
                rank_zero_warn(str(error))
        return []

    def open(self, folder: Path, store: str) -> None:
        """Start the page, and note its address.

        Raises:
            ValueError: If it does not start.
        """
        self._opened = folder, store
        if not self.page:
            self.address = f"`ssl-lightning label {folder}`"
            return
        command = [sys.executable, "-m", "ssl_lightning", "label", str(folder), "--store", store, "--attached"]
        command += ["--host", self.host, "--port", str(self.port)]
        # its output would break the progress display; its end is that of our pipe
        log = folder / "page.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        told, until = folder / "page.json", time.monotonic() + START
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(told.read_text(encoding="utf-8"))
                if found["pid"] == self._process.pid:
                    self.address = str(found["url"])
                    return
            time.sleep(0.05)
        self.close()
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ValueError(
            f"the labelling page at `host={self.host}`, `port={self.port}` does not start: "
            f"{said[-1] if said else 'it says nothing'}. Give another `--oracle.port`, or `--oracle.page false`."
        )

    def close(self) -> None:
        """End the page that this run started."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
