"""Processes of one run that somebody else started, as torchrun and SLURM do: what they must agree on."""

import os
from collections.abc import Callable
from pathlib import Path

FOLDER = "SSL_LIGHTNING_FOLDER"  # tells the processes that Lightning starts their common folder


def agree_on_folder(command: str, first: bool) -> str:
    """Return the folder of a run whose command names none, the same in each of its processes.

    Alone, and where Lightning starts the others, the first process takes the next number and leaves it in the
    environment. Under torchrun it tells the others by torchrun's own store; under SLURM the folder is named by the job.

    Args:
        command: `fit`, ...
        first: Whether this is the first process.

    Raises:
        ValueError: If another launcher started the processes, which then cannot agree.
    """
    env = os.environ
    if env.get("TORCHELASTIC_RUN_ID") and env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _by_store(lambda: next_folder(command), first)
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_JOB_ID" in env:
        step = env.get("SLURM_STEP_ID", "0")
        return f"runs/{command}-slurm-{env['SLURM_JOB_ID']}" + (f".{step}" if step != "0" else "")
    if first:
        return next_folder(command)
    if FOLDER in env:
        return env[FOLDER]
    raise ValueError(
        "`folder` is missing: the processes of this launcher cannot agree on a number; add `--folder runs/NAME`."
    )


def next_folder(command: str) -> str:
    """Return `runs/COMMAND-001`, or the first number that is free."""
    number = 1
    while (Path("runs") / f"{command}-{number:03d}").exists():
        number += 1
    return f"runs/{command}-{number:03d}"


def _by_store(choose: Callable[[], str], first: bool) -> str:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    env = os.environ
    store = TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False)
    key = f"ssl_lightning/folder/{env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if first:
        store.set(key, choose())
    return store.get(key).decode()  # waits until the first process has set it
