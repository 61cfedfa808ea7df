"""`ssl-lightning compare`: run arms with several seeds, and say which is better and how sure that is."""

from __future__ import annotations

import argparse
import fcntl
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from rich.console import Console

from ssl_lightning.commands import configs
from ssl_lightning.commands.catalogue import entries
from ssl_lightning.engine.csv_files import replacing
from ssl_lightning.engine.naming import PLUGINS, meant
from ssl_lightning.experiments.aggregate import areas, curve_of, curves_of, unit_of
from ssl_lightning.experiments.fits import FINISHED
from ssl_lightning.experiments.grid import ACTIVE, Outcome, Task, run_grid
from ssl_lightning.experiments.ranks import ranking
from ssl_lightning.experiments.runs import (
    COMPARISON_FILE,
    DEFAULT_METRIC,
    Comparison,
    read_comparison,
    read_run,
    read_yaml,
    run_folder,
    slug,
)
from ssl_lightning.experiments.tables import conclusions, rich_table, write_tables

_OURS = ("--seed_everything", "--folder")
_KINDS = {"model": "classifiers", "strategy": "strategies"}
_UNTOLD = ("--trainer.callbacks", "--model.class_path", "--strategy.class_path")  # may name what logs anything
_COLUMNS = (
    *(f"{part}/{name}" for part in ("test", "val", "train") for name in ("accuracy", "loss")),
    "test/accuracy_low", "test/accuracy_high", "test/count", "steps", "cost", "agreement",
)  # fmt: skip
_MORE = {"VAAL": ("active/vaal_vae", "active/vaal_discriminator")}


@dataclass(frozen=True)
class CompareConfig:
    """What to compare.

    Args:
        folder: where runs and results go, one folder a run: `folder/slug(arm)/seedN`.
        arms: name -> arguments of `ssl-lightning active` that make this arm; `{seed}` in them becomes the seed.
        seeds: from 0 to 2^32 - 1; each arm is run once with each; pairs are contrasted seed by seed.
        base: arguments common to all arms, before those of the arm.
        pairs: (better, baseline) names of arms to contrast.
        metric: key in the runs' rounds.csv.
        range: first and last number of labels that pairs and areas are averaged over; None takes all.
        jobs: worker processes; the cores are shared out among them.
        gpus: numbers of GPUs, each worker sees one of them, in turn; empty where all see all, or there are none.
        data: name -> arguments of a data set: every arm is run on each, and ranked over all; empty for the arms' own.
        target: value of the metric of which the table says with how many labels it is reached; None for none.
        command: `active`, or `fit` to compare methods by what they log of each epoch, as `val/knn_accuracy`.
    """

    folder: Path
    arms: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)
    base: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    metric: str = DEFAULT_METRIC
    range: tuple[int, int] | None = None
    jobs: int = 1
    gpus: tuple[int, ...] = ()
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    target: float | None = None
    command: Literal["active", "fit"] = "active"

    def __post_init__(self) -> None:
        """Refuse what cannot be compared before an hour is spent on it."""
        if not self.arms:
            raise ValueError("`arms` is empty; give at least one `name: [arguments]`")
        if not self.seeds or len({seed for seed in self.seeds if 0 <= seed < 2**32}) < len(self.seeds):
            raise ValueError(f"`seeds={list(self.seeds)}` must be different integers from 0 to 2^32 - 1, at least one")
        if self.jobs < 1:
            raise ValueError(f"`jobs={self.jobs}` must be at least 1")
        if min(self.gpus, default=0) < 0 or len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"`gpus={list(self.gpus)}` must be different numbers of GPUs, from 0")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"`range={list(self.range)}` must be [first, last] with first <= last")
        for key, names in (("arms", self.arms), ("data", self.data)):
            same = [name for name, count in Counter(map(slug, names)).items() if count > 1]
            if same:
                raise ValueError(f"`{key}` holds two names with the same folder `{same[0]}`; rename one")
        for better, baseline in self.pairs:
            for name in (better, baseline):
                if name not in self.arms:
                    raise ValueError(
                        f"`pairs` names the unknown arm `{name}`{meant(name, self.arms)}; there are "
                        f"{', '.join(self.arms)}"
                    )
        parts = [part for given in (*self.arms.values(), *self.data.values()) for part in given]
        for argument in (*self.base, *parts):
            if argument.partition("=")[0] in _OURS:
                raise ValueError(f"`{argument}` is set by compare for each run; use `seeds` and `folder` instead")

    def each(self) -> dict[str, CompareConfig]:
        """The comparison on each data set, in a folder of its name; where none is named, this one."""
        if not self.data:
            return {"": self}
        return {
            name: replace(self, folder=self.folder / slug(name), base=(*self.base, *given), data={})
            for name, given in self.data.items()
        }

    def tasks(self) -> list[Task]:
        """All runs, seed by seed, so that a stopped comparison already has some of every arm."""
        tasks = []
        for seed in self.seeds:
            for name, arm in self.arms.items():
                folder = run_folder(self.folder, name, seed)
                given = [part.replace("{seed}", str(seed)) for part in (*self.base, *arm)]
                last = folder / "checkpoints" / "last.ckpt"
                more: list[str] = []
                if self.command == "fit":
                    more = ["--ckpt_path", str(last)] if last.is_file() else []
                elif not any(part.partition("=")[0] == "--cache" for part in given):
                    more = ["--cache", str(self.folder / "embeddings")]
                own = ("--seed_everything", str(seed), "--folder", str(folder))
                arguments = (self.command, *given, *own, *more)
                tasks.append(Task(f"{name}, seed {seed}", arguments, folder, self.folder.name))
        return tasks


def read_config(name: str | Path) -> CompareConfig:
    """Read a comparison's YAML file, of that path or of the package.

    Raises:
        ValueError: an unknown key, or a value of the wrong kind; the message says which and what is required.
    """
    content = configs.read_config(configs.find_config(str(name)), str(name))
    configs.require_comparison(content, str(name))
    known = [item.name for item in fields(CompareConfig)]
    for key in content:
        if key not in known:
            raise ValueError(
                f"`{name}` has the unknown key `{key}`{meant(str(key), known)}; there are {', '.join(known)}."
            )
    for key in ("folder", "arms"):
        if content.get(key) is None:
            raise ValueError(f"`{name}` lacks `{key}`; see `ssl-lightning compare --help` for an example.")
    return _parse({key: value for key, value in content.items() if value is not None})


def _parse(content: dict[str, Any]) -> CompareConfig:
    """Let jsonargparse read the dataclass; what it refuses is told by what the key requires."""
    from jsonargparse import ArgumentError, ArgumentParser  # here, since --help need not wait for it

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CompareConfig, instantiate=False)
    try:
        read = parser.parse_object({key: _as_typed(key, value) for key, value in content.items()})
    except ArgumentError as error:
        found = re.search(r'[Kk]ey "(\w+)', str(error))
        key = found[1] if found else next(iter(content))
        raise ValueError(f"`{key}: {content.get(key)!r}` is not valid; `{key}` must be {_REQUIRED[key]}.") from None
    return CompareConfig(**{key: getattr(read, key) for key in content})


def _as_typed(key: str, value: Any) -> Any:
    """Write YAML values among arguments as they are typed on a command line: `true`, `null`, `[1, 2]`."""

    def typed(part: Any) -> str:
        return part if isinstance(part, str) else yaml.safe_dump(part, default_flow_style=True).partition("\n")[0]

    if key == "base" and isinstance(value, list):
        return [typed(part) for part in value]
    if key in ("arms", "data") and isinstance(value, dict):
        return {
            str(name): [typed(part) for part in arm] if isinstance(arm, list) else arm for name, arm in value.items()
        }
    return value


def compare(config: CompareConfig, runner: str = ACTIVE, console: Console | None = None) -> tuple[Comparison, int]:
    """Run what is not finished yet, aggregate, and write `summary.csv`, `table.md` and `table.txt`, of each data set.

    Calling it again goes on where it stopped: a finished run is recognised by `active` itself. A run whose process died
    is begun once more.

    Args:
        config: what to compare.
        runner: `module:function` that does one run; `ssl-lightning`'s own by default.
        console: where to print the table; stdout by default.

    Returns:
        The comparison of all runs that can be read, of several data sets the last, and the number of failed runs.

    Raises:
        ValueError: If no run logs the metric: before the first, where only classes of ours are named, else after it; or
            if another comparison runs in the folder.
    """
    console = console or Console()
    parts = config.each()
    for part in parts.values():
        _require_metric(part)
    with _alone(config.folder):
        for part in parts.values():
            _write_record(part)
        tasks = [task for part in parts.values() for task in part.tasks()]
        if config.command == "fit":  # `active` sees for itself that it has finished
            tasks = [task for task in tasks if not (task.folder / FINISHED).is_file()]
        outcomes = run_grid(tasks, config.jobs, runner, describe=_reached(config.metric), gpus=config.gpus)
        failed = [outcome for outcome in outcomes if outcome.code]
        for outcome in failed:
            _print_failure(console, outcome)
        found = {name: _conclude(part, name, console) for name, part in parts.items()}
        _rank(config, found, console)
    return list(found.values())[-1], len(failed)


def _conclude(config: CompareConfig, name: str, console: Console) -> Comparison:
    """Write and print the table of one data set."""
    comparison = read_comparison(config.folder)
    write_tables(comparison, config.folder, config.target)
    if name:
        console.print(f"\n{name}", markup=False, style="bold")
    console.print(rich_table(comparison))
    for line in conclusions(comparison, config.target):
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
    return comparison


def _rank(config: CompareConfig, found: Mapping[str, Comparison], console: Console) -> None:
    """Rank arms over data sets by their areas."""
    scores = {}
    for name, comparison in found.items():
        by_arm, _ = areas(curves_of(comparison), config.range)
        scores[name] = {arm: float(values.mean()) for arm, values in by_arm.items() if not np.isnan(values).any()}
    lines = ranking(scores, unit_of(config.metric).higher_is_better)
    if lines:
        with replacing(config.folder / "ranks.md") as file:
            file.write("\n".join(lines) + "\n")
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second comparison in the folder while one runs; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another `compare` runs in `folder={folder}`; wait for it, stop it, or give another `--folder`."
            ) from None
        except OSError:  # a file system that cannot lock
            pass
        yield


def main(argv: list[str]) -> int:
    """Entry point of `ssl-lightning compare`."""
    parser = argparse.ArgumentParser(
        prog="ssl-lightning compare",
        description="Run several arms of active learning, or several methods, with several seeds, and say which is "
        "better and how sure that is. The same command goes on where it was stopped.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file; see the example below")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time; default: the file's `jobs`")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="seeds of the runs; default: the file's")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="folder of the runs and results; default: the file's"
    )
    parser.add_argument("--no-report", action="store_true", help="tables only: no curves.png, curves.svg, report.html")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    changes = {"jobs": args.jobs, "seeds": args.seeds and tuple(args.seeds), "folder": args.folder}
    config = replace(config, **{key: value for key, value in changes.items() if value is not None})
    comparison, failed = compare(config)
    written = ["summary.csv", "table.md", "table.txt"]
    if not args.no_report:
        from ssl_lightning.experiments import plots, report  # here, since --help need not wait for matplotlib

        for part in config.each().values():
            comparison = read_comparison(part.folder)
            plots.learning_curves(comparison, part.folder / "curves.png", part.folder / "curves.svg")
            report.write_report(comparison, part.folder / "report.html")
        written += ["curves.png", "curves.svg", "report.html"]
    print(f"Wrote {', '.join(written)} to {', '.join(str(part.folder) for part in config.each().values())}")
    return 1 if failed else 0


_EXAMPLE = """an example of CONFIG (paths are relative to where the command is called):

  folder: runs/digits-demo
  seeds: [0, 1, 2]
  jobs: 2                                        # runs at a time
  gpus: [0, 1]                                   # each of them on one of these; leave it out where there are none
  base: [-c, experiment/digits_active]   # arguments of every `ssl-lightning active`
  arms:                                          # name: further arguments
    "Entropy, scratch": [--strategy, Entropy]
    "Entropy, SSL": [--strategy, Entropy, --model.checkpoint, runs/digits-simclr/checkpoints/last.ckpt]
  pairs:                                         # what to contrast: [better, baseline]
    - ["Entropy, SSL", "Entropy, scratch"]
  metric: test/accuracy
  range: [20, 60]                                # labels that pairs are averaged over
  target: 0.9                                    # with how many labels is it reached?
  data:                                          # each arm on each of these, ranked over all; leave it out for one
    digits: [--data, Digits]
    mine: [--data, ImageFolder, --data.root, pictures]
"""


def _require_metric(config: CompareConfig) -> None:
    """Refuse a metric that an arm is known not to log, before the first run."""
    for name, arm in config.arms.items() if config.command == "active" else ():
        known = _columns([part.replace("{seed}", str(config.seeds[0])) for part in (*config.base, *arm)])
        if known and config.metric not in known:
            raise ValueError(
                f"`metric={config.metric}` is logged by no run of the arm `{name}`{meant(config.metric, known)}; there "
                f"are {', '.join(known)}, and what callbacks such as `KNN` add."
            )


def _columns(arguments: list[str]) -> list[str]:
    """Return what `rounds.csv` can hold of a run; nothing where a callback, or a stranger's class, may log anything."""
    named: dict[str, list[str]] = {key: [] for key in _KINDS}
    rest = iter(arguments)
    for argument in rest:
        option, _, value = argument.partition("=")
        if option.startswith(_UNTOLD) or option == "--trainer":
            return []
        if option in ("-c", "--config"):
            content = _config(value or next(rest, ""))
            if content is None:
                return []
            for key in named.keys() & content.keys():
                spec = content[key]
                named[key].append(str(spec.get("class_path") if isinstance(spec, dict) else spec))
        elif option.removeprefix("--") in named:
            named[option.removeprefix("--")].append(value or next(rest, ""))
    if not all(paths and all(_is_own(path, _KINDS[key]) for path in paths) for key, paths in named.items()):
        return []
    return [*_COLUMNS, *(name for path in named["strategy"] for name in _MORE.get(path.rpartition(".")[2], ()))]


def _config(name: str) -> dict[str, Any] | None:
    """Return a config of a run; null where it cannot be read, which the run will tell, or has callbacks."""
    try:
        content = configs.read_config(configs.find_config(name), name)
    except (ValueError, OSError):
        return None
    trainer = content.get("trainer") or {}
    plain = isinstance(trainer, dict) and not any(trainer[key] for key in trainer if str(key).startswith("callbacks"))
    return content if plain else None


def _is_own(path: str, kind: str) -> bool:
    """Tell whether a class that a run names is of this package, and no plug-in could be meant."""
    module, _, name = path.rpartition(".")
    ours = module.split(".")[0] == "ssl_lightning" if module else not entry_points(group=PLUGINS)
    return ours and any(entry.name == name and entry.kind == kind for entry in entries())


def _write_record(config: CompareConfig) -> None:
    """Write what `report` needs; refuse to mix runs of different arguments in one folder."""
    path = config.folder / COMPARISON_FILE
    old = read_yaml(path) if path.is_file() else {"arms": {}, "base": []}
    for name, arguments in config.arms.items():
        if name in old["arms"] and [*old["base"], *old["arms"][name]] != [*config.base, *arguments]:
            raise ValueError(
                f"`folder={config.folder}` already holds `{name}` with other arguments "
                f"({' '.join([*old['base'], *old['arms'][name]])}); choose another `folder`, or delete this one"
            )
    record = {
        "metric": config.metric,
        "range": list(config.range) if config.range else None,
        "seeds": list(config.seeds),
        "pairs": [list(pair) for pair in config.pairs],
        "base": list(config.base),
        "arms": {name: list(arguments) for name, arguments in config.arms.items()},
    }
    config.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    path.write_text(f"# Written by `ssl-lightning compare`, read by `ssl-lightning report`.\n{text}", encoding="utf-8")


_REQUIRED = {
    "folder": "a path",
    "arms": "a mapping of names to lists of arguments, such as `Entropy: [--strategy, Entropy]`",
    "seeds": "a list of integers, such as [0, 1, 2]",
    "base": "a list of arguments, such as [-c, experiment/digits_active]",
    "pairs": "a list of [better, baseline] names of arms",
    "metric": "a metric's key, such as test/accuracy",
    "range": "[first, last] numbers of labels",
    "jobs": "an integer",
    "gpus": "a list of integers, such as [0, 1]",
    "data": "a mapping of names to lists of arguments, such as `digits: [--data, Digits]`",
    "target": "a number, as 0.9",
    "command": "active or fit",
}


def _reached(metric: str) -> Callable[[Task], str]:
    """A function that says what a finished run has reached, and ends the comparison if that cannot be compared."""

    def describe(task: Task) -> str:
        try:
            run = read_run(task.folder)
        except ValueError:
            return ""
        curve_of([run], metric)  # refuses a metric that strangers do not log after the first run, not after the last
        labels, value = run.curves[metric][-1]
        unit = unit_of(metric)
        return f"{metric} {unit.number(value)} {unit.symbol} at {labels} {run.axis}"

    return describe


def _print_failure(console: Console, outcome: Outcome) -> None:
    reason = outcome.reason or f"exit code {outcome.code}"
    text = f"\n{outcome.task.name} failed ({reason}). By hand:\n  {outcome.task.command}\nIts log ends:"
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    tail = "\n".join(f"  {line}" for line in outcome.log_tail().splitlines())
    console.print(tail, markup=False, highlight=False, soft_wrap=True)
