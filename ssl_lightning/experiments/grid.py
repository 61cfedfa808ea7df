"""Run many `active` runs in worker processes, each run's output in its own log, a failure stopping nothing else."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ssl_lightning.experiments.fits import FINISHED

ACTIVE = "ssl_lightning.__main__:main"
LOG_FILE = "log.txt"
_POLL = 1.0  # seconds between two looks at how far the runs are
_KILLED = "its worker process was killed; if memory ran out, use fewer `jobs`"


@dataclass(frozen=True)
class Task:
    """One run: the arguments after `ssl-lightning`, the folder they write to, and what W&B calls all of them."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    group: str = "compare"

    @property
    def command(self) -> str:
        """The command line that does the same by hand."""
        return shlex.join(("ssl-lightning", *self.arguments))


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `code` is 0 where it finished."""

    task: Task
    code: int
    seconds: float
    reason: str = ""

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that the run printed, progress bars overwritten as on a terminal."""
        path = self.task.folder / LOG_FILE
        if not path.is_file():
            return "(no log)"
        text = path.read_bytes().decode(errors="replace").rstrip().split("\n")  # keeps the carriage returns of bars
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text[-lines:])


def run_grid(
    tasks: Sequence[Task],
    jobs: int = 1,
    runner: str = ACTIVE,
    console: Console | None = None,
    describe: Callable[[Task], str] = lambda task: "",
    retries: int = 1,
    gpus: Sequence[int] = (),
) -> list[Outcome]:
    """Run all tasks, `jobs` at a time, and show how far they are.

    A worker process imports torch once for several runs; one that dies (out of memory, say) takes only its own run
    with it.

    Args:
        tasks: the runs, begun in this order.
        jobs: worker processes; the cores are shared out evenly among them.
        runner: `module:function` called in the worker with the task's arguments; must return an exit code.
        console: where to show progress; stderr by default.
        describe: a few words on a finished task, such as what it reached.
        retries: how often a run whose worker died, as of memory that ran out, is begun again, after all others.
        gpus: numbers of GPUs, of those that this process sees; each worker sees one of them. None: all see all.

    Returns:
        The outcomes, in the order of `tasks`.

    Raises:
        ValueError: a GPU is not among those that `CUDA_VISIBLE_DEVICES` names.
    """
    console = console or Console(stderr=True)
    outcomes: dict[Task, Outcome] = {}
    waiting, left = list(reversed(tasks)), dict.fromkeys(tasks, retries)
    workers = _Workers(max(1, min(jobs, len(tasks))), runner, _names_of(gpus))
    try:
        with _progress(console) as progress:
            bar = progress.add_task("", total=len(tasks))
            while len(outcomes) < len(tasks):
                while waiting and workers.free:
                    workers.start(waiting.pop())
                for outcome in workers.collect():
                    if outcome.reason == _KILLED and left[outcome.task]:
                        left[outcome.task] -= 1
                        waiting.insert(0, outcome.task)
                        progress.console.print(f"[yellow]again[/] {escape(outcome.task.name)}: {_KILLED}")
                        continue
                    outcomes[outcome.task] = outcome
                    progress.console.print(_line(outcome, describe(outcome.task)))
                    progress.advance(bar)
                progress.update(bar, description=", ".join(_state(task) for task in workers.tasks))
    except BaseException:  # an interrupt must not leave trainings behind
        workers.kill()
        raise
    finally:
        workers.close()
    return [outcomes[task] for task in tasks]


class _Workers:
    """One single-process executor a slot, so that a worker's death is known to belong to its own run."""

    def __init__(self, jobs: int, runner: str, gpus: Sequence[str] = ()) -> None:
        self.runner = runner
        self.threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        self.others = set(multiprocessing.active_children())
        self.gpus: dict[ProcessPoolExecutor, str | None] = {}
        self.free = [self._new(gpus[number % len(gpus)] if gpus else None) for number in range(jobs)]
        self.running: dict[Future[tuple[int, float]], tuple[Task, ProcessPoolExecutor]] = {}

    def _new(self, gpu: str | None) -> ProcessPoolExecutor:
        # spawn, not fork: torch's threads do not survive a fork
        context, given = multiprocessing.get_context("spawn"), (self.threads, gpu)
        worker = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_worker, initargs=given)
        self.gpus[worker] = gpu
        return worker

    @property
    def tasks(self) -> list[Task]:
        """What runs now."""
        return [task for task, _ in self.running.values()]

    def start(self, task: Task) -> None:
        """Begin a task in a free worker."""
        worker = self.free.pop()
        self.running[worker.submit(_run, task, self.runner)] = (task, worker)

    def collect(self) -> list[Outcome]:
        """Wait a moment for runs to end; a worker that died is replaced."""
        outcomes = []
        for future in wait(self.running, timeout=_POLL, return_when=FIRST_COMPLETED).done:
            task, worker = self.running.pop(future)
            try:
                code, seconds = future.result()
                outcomes.append(Outcome(task, code, seconds))
                self.free.append(worker)
            except BrokenProcessPool:
                outcomes.append(Outcome(task, 1, 0.0, _KILLED))
                worker.shutdown(wait=False)
                self.free.append(self._new(self.gpus.pop(worker)))
        return outcomes

    def kill(self) -> None:
        """End the worker processes in the middle of their runs."""
        for child in set(multiprocessing.active_children()) - self.others:
            child.terminate()

    def close(self) -> None:
        """Let the workers end."""
        for worker in (*self.free, *(worker for _, worker in self.running.values())):
            worker.shutdown(wait=False, cancel_futures=True)


def _names_of(gpus: Sequence[int]) -> list[str]:
    """Return what `CUDA_VISIBLE_DEVICES` calls GPUs, of those that it lets this process see."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if seen and gpus and max(gpus) >= len(seen):
        raise ValueError(
            f"`gpus` names GPU {max(gpus)}, but `CUDA_VISIBLE_DEVICES={','.join(seen)}` lets {len(seen)} be seen, "
            "counted from 0."
        )
    return [seen[number] if seen else str(number) for number in gpus]


def _prepare_worker(threads: int, gpu: str | None) -> None:
    """Give the worker its share of the cores and its GPU, and let it die with its parent."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # read when torch and numpy are first imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # a killed `compare` must not leave a run that writes into the folder of its successor

    threading.Thread(target=follow, daemon=True).start()


def _run(task: Task, runner: str) -> tuple[int, float]:
    """In the worker: call the runner with everything it prints going to the task's log."""
    start = time.perf_counter()
    task.folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_RUN_GROUP"] = task.group  # where the run logs to W&B
    with _output_to(task.folder / LOG_FILE):
        print(f"$ {task.command}", flush=True)
        try:
            module, _, function = runner.partition(":")
            code = int(getattr(importlib.import_module(module), function)(list(task.arguments)) or 0)
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            traceback.print_exc()
            code = 1
    if not code:
        (task.folder / FINISHED).touch()
    return code, time.perf_counter() - start


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append what this process prints to `path`, at the level of file descriptors: libraries and children too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def _line(outcome: Outcome, words: str) -> str:
    mark = "[red]failed[/]" if outcome.code else "[green]done[/]  "
    took = f"{outcome.seconds:6.1f} s" if outcome.seconds else " " * 8
    return f"{mark} {took}  {escape(outcome.task.name)}" + (f"  {escape(words)}" if words and not outcome.code else "")


def _state(task: Task) -> str:
    """The task and, once there is one, the number of its finished rounds."""
    path = task.folder / "rounds.csv"
    finished = max(0, len(path.read_bytes().splitlines()) - 1) if path.is_file() else 0
    return escape(task.name) + (f" ({finished} rounds)" if finished else "")
