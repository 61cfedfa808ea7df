"""What several tests share and no fixture is."""

import os
import socket
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any, Literal

import torch
import torch.multiprocessing as mp

from ssl_lightning.data import Digits, TensorSamples

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SSL_LIGHTNING_DATA", ROOT / "data"))


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


def spawn(job: Any, world: int, path: Path) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # from a process that has imported everything once: seconds less for each than beginning from nothing
    set_forkserver_preload(["lightning", "ssl_lightning.active", "ssl_lightning.evaluation", "ssl_lightning.methods"])
    mp.start_processes(work, (world, port, str(path), job, dict(os.environ)), nprocs=world, start_method="forkserver")  # type: ignore[no-untyped-call]
    return [torch.load(path / f"{rank}.pt", weights_only=False) for rank in range(world)]
