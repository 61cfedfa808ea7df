"""What several tests share and no fixture is."""

import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import get_context, set_forkserver_preload
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.multiprocessing as mp
from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only

from ssl_lightning.__main__ import main
from ssl_lightning.data import Digits, TensorSamples

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SSL_LIGHTNING_DATA", ROOT / "data"))


def some(cases: Iterable[Any], *names: str) -> list[Any]:
    """Return all cases, classes or strings, as parameters: those that are not named are for the long tests."""
    found = {getattr(case, "__name__", case): case for case in cases}
    assert set(names) <= set(found), names
    return [pytest.param(case, marks=() if name in names else pytest.mark.long) for name, case in found.items()]


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Tell whether two modules have bit-equal parameters and buffers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class LargeDigits(Digits):
    """The digits, each pixel enlarged to nine: 24 px, for what 8 px are too small for."""

    image_size = 24

    def load(self, split: Literal["train", "test"]) -> Any:
        """Enlarge them."""
        small = super().load(split)
        large = small.inputs.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
        return TensorSamples(large, small.targets)


class ColourDigits(Digits):
    """The digits, each in a colour of its class: 8 px, three channels."""

    channels = 3

    def load(self, split: Literal["train", "test"]) -> Any:
        """Colour them."""
        small = super().load(split)
        hues = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))[small.targets, :, None, None]
        return TensorSamples((small.inputs * hues).to(torch.uint8), small.targets)


def work(rank: int, world: int, port: int, path: str, job: Any, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the process that this one comes from began earlier
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(job(rank, world), f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def preload() -> None:
    """Let processes come from one that has imported everything once: seconds less for each than from nothing."""
    names = ("active", "commands.train", "evaluation", "methods")
    set_forkserver_preload(["lightning.pytorch.cli", *(f"ssl_lightning.{name}" for name in names)])


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def spawn(job: Any, world: int, path: Path) -> list[Any]:
    """Run a function on several processes that form a group, and return what each returned."""
    preload()
    mp.start_processes(  # type: ignore[no-untyped-call]
        work, (world, free_port(), str(path), job, dict(os.environ)), nprocs=world, start_method="forkserver"
    )
    return [torch.load(path / f"{rank}.pt", weights_only=False) for rank in range(world)]


def give(job: Callable[[], int | None], cwd: str, log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, cwd)  # as `python -m` does
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    torch.set_num_threads(1)
    rank_zero_only.rank = _get_rank() or 0  # as importing Lightning sets it
    sys.exit(job())


def begin(job: Callable[[], int | None], cwd: Path, log: Path, **environment: str) -> BaseProcess:
    """Call a function in a process and session of its own, which has imported all that it needs.

    Args:
        job: The function, which returns an exit status.
        cwd: Where it runs.
        log: What it prints is added to this file.
        environment: Beside that of the tests.
    """
    preload()
    known = {**os.environ, **environment}
    process = get_context("forkserver").Process(target=give, args=(job, str(cwd), str(log), known))
    process.start()
    return process


def command(*arguments: str) -> Callable[[], int]:
    """Return a command line as a function; the arguments are those after `ssl-lightning`."""
    return partial(main, list(arguments))


def run_file(path: Path) -> int:
    """Run a Python file."""
    runpy.run_path(str(path), run_name="__main__")
    return 0


def run_command(*arguments: str, cwd: Path, processes: int = 1, **environment: str) -> str:
    """Give a command line as `begin` does, wait for it, and return what it printed, if it went well.

    Args:
        arguments: After `ssl-lightning`.
        cwd: Where it runs.
        processes: More than one are a group, as a launcher makes it: its options are added to the arguments.
        environment: Beside that of the tests.
    """
    more, group = [], [environment]
    if processes > 1:
        more = ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
        group = [{**environment, **shared, "LOCAL_RANK": str(rank)} for rank in range(processes)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        begun = [begin(command(*arguments, *more), cwd, log, **known) for known in group]
        for process in begun:
            process.join(250)
        said = log.read_text(errors="replace")
        codes = [process.exitcode for process in begun]
        for process in begun:
            process.kill()
        assert codes == [0] * processes, f"exit codes {codes}: {said[-4000:]}"
        return said
