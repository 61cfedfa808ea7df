"""Read the folders that `ssl-lightning active` and `ssl-lightning compare` leave behind.

Nothing here knows how a run was trained: files in, plain values out.
"""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.engine.csv_files import unescaped
from ssl_lightning.experiments.fits import epochs_of, seconds_of

COMPARISON_FILE = "comparison.yaml"
DEFAULT_METRIC = "test/accuracy"
INITIAL_ROUND = -1
_REMEDY = "give the --folder of a finished `ssl-lightning active` run"
_COUNTS = ("round", "labelled", "validation", "queried")


@dataclass(frozen=True)
class AskedSample:
    """One sample that a run asked a label for; `label` is a class's name, empty while the answer is pending."""

    round: int
    position: int
    key: str
    path: str = ""
    label: str = ""
    score: float | None = None

    @property
    def label_text(self) -> str:
        """The label, or a question mark."""
        return self.label or "?"


@dataclass(frozen=True)
class FinishedRound:
    """One finished round: how many labels its model was trained on, and what it reached."""

    number: int
    labelled: int
    validation: int
    queried: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class Run:
    """What one `active` run logged, or one of `fit`, whose rounds are epochs."""

    folder: Path
    config: Mapping[str, Any]
    rounds: tuple[FinishedRound, ...]
    asked: tuple[AskedSample, ...] = ()
    axis: str = "labels"

    @property
    def strategy(self) -> str:
        """Class name of the acquisition strategy, without its modules."""
        return _class_name(self.config.get("strategy")) or "unknown strategy"

    @property
    def checkpoint(self) -> str | None:
        """Path of the SSL checkpoint that every round started from; None from scratch."""
        value = _get(self.config, "model", "init_args", "checkpoint")
        return None if value is None else str(value)

    @property
    def initialisation(self) -> str:
        """`scratch`, or `SSL` where a checkpoint was loaded."""
        return "scratch" if self.checkpoint is None else "SSL"

    @property
    def seed(self) -> int | None:
        """The base seed; None where the run was not seeded."""
        value = self.config.get("seed_everything")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def data(self) -> str:
        """Class name of the data."""
        return _class_name(self.config.get("data")) or "unknown data"

    @property
    def validation(self) -> int:
        """Labelled validation samples, spent besides the labels trained on."""
        return max((one.validation for one in self.rounds), default=0)

    @property
    def seconds(self) -> float:
        """Time of all finished rounds together."""
        return sum(one.seconds for one in self.rounds)

    @cached_property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """For each metric, its value against the number of labels trained on."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for one in self.rounds:
            for metric, value in one.metrics.items():
                curves.setdefault(metric, []).append((one.labelled, value))
        return curves

    def __repr__(self) -> str:
        return f"Run({self.folder.name}: {self.data}, {len(self.rounds)} rounds)"

    def _repr_html_(self) -> str:
        """Return the table of rounds, as a notebook shows it."""
        metrics = list(self.curves)
        rows = [[str(one.labelled), *(_shown(one.metrics.get(name)) for name in metrics)] for one in self.rounds]
        return _html_table([self.axis, *metrics], rows)

    def asked_after(self, number: int) -> tuple[AskedSample, ...]:
        """Samples asked after round `number` (-1: the initial labels), in the order of choice."""
        return tuple(sorted((a for a in self.asked if a.round == number), key=lambda a: a.position))

    def strip_of(self, number: int) -> Path | None:
        """Picture of the samples asked after round `number`; None where the run drew none."""
        path = self._shown(number).with_suffix(".png")
        return path if path.is_file() else None

    def texts_of(self, number: int) -> dict[str, str]:
        """Text of each sample asked after round `number`, by its key; empty where the run wrote none.

        Raises:
            ValueError: the file that the run wrote is no list of keys and texts.
        """
        path = self._shown(number).with_suffix(".json")
        if not path.is_file():
            return {}
        try:
            return {str(item["key"]): str(item["text"]) for item in json.loads(path.read_text(encoding="utf-8"))}
        except (ValueError, TypeError, LookupError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"`{path}` is no list of keys and texts ({reason}); delete it to leave it out.") from None

    def _shown(self, number: int) -> Path:
        return self.folder / "queries" / ("initial" if number == INITIAL_ROUND else f"round_{number:03d}")


@dataclass(frozen=True, repr=False)
class Comparison:
    """Arms, each one setting run with several seeds, and what to contrast.

    Args:
        arms: name -> its runs, in the order to show.
        metric: key of the metric that is compared.
        pairs: (better, baseline) names of arms.
        label_range: first and last number of labels to average over; None takes all that both arms have.
        arguments: name -> command-line arguments that made the arm, for the record.
        missing: one sentence for each run that failed or is not finished.
    """

    arms: Mapping[str, tuple[Run, ...]]
    metric: str = DEFAULT_METRIC
    pairs: tuple[tuple[str, str], ...] = ()
    label_range: tuple[int, int] | None = None
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def axis(self) -> str:
        """What the curves are over: `labels`, or `epochs` of a fit."""
        return next((runs[0].axis for runs in self.arms.values() if runs), "labels")

    def __repr__(self) -> str:
        return f"Comparison({', '.join(f'{name}: {len(runs)} runs' for name, runs in self.arms.items())})"

    def _repr_html_(self) -> str:
        """Return the table of means and spreads, as a notebook shows it."""
        from ssl_lightning.experiments.tables import table_rows  # which imports this module

        return _html_table(*table_rows(self))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in [("th", header), *(("td", row) for row in rows)]
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def read_run(folder: str | Path) -> Run:
    """Read one run's folder: `config.yaml`, `rounds.csv` and, where present, `queries.csv`.

    Raises:
        ValueError: the folder is not that of a run with at least one finished round.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder={folder}` does not exist; {_REMEDY}")
    if not (folder / "rounds.csv").is_file() and (epochs := epochs_of(folder)):
        fit = tuple(
            FinishedRound(row["epoch"] - 1, row["epoch"], 0, 0, seconds_of(folder) / len(epochs), row) for row in epochs
        )
        return Run(folder, read_yaml(folder / "config.yaml"), fit, axis="epochs")
    for name in ("rounds.csv", "config.yaml"):
        if not (folder / name).is_file():
            raise ValueError(f"`folder={folder}` holds no {name}; {_REMEDY}")
    rounds = tuple(_read_round(line, where) for line, where in _lines(folder / "rounds.csv", ("round", "labelled")))
    if not rounds:
        raise ValueError(
            f"`folder={folder}` holds no finished round yet (rounds.csv is empty); "
            "wait for the first, or go on with the same `ssl-lightning active` command"
        )
    path, needed = folder / "queries.csv", ("round", "position", "key")
    asked = tuple(_read_asked(line, where) for line, where in _lines(path, needed)) if path.is_file() else ()
    return Run(folder, read_yaml(folder / "config.yaml"), rounds, asked)


def read_comparison(folder: str | Path) -> Comparison:
    """Read a folder of `ssl-lightning compare`: its `comparison.yaml` and every run that can be read."""
    folder = Path(folder)
    record = read_yaml(folder / COMPARISON_FILE)
    arms: dict[str, tuple[Run, ...]] = {}
    missing: list[str] = []
    for name in record["arms"]:
        runs = []
        for seed in record["seeds"]:
            try:
                runs.append(read_run(run_folder(folder, name, seed)))
            except ValueError as error:
                missing.append(f"{name}, seed {seed}: {error}")
        if runs:
            arms[name] = tuple(runs)
    if not arms:
        raise ValueError(f"`folder={folder}` holds no finished run; call `ssl-lightning compare` again")
    return Comparison(
        arms=arms,
        metric=record["metric"],
        pairs=tuple((better, base) for better, base in record["pairs"] if better in arms and base in arms),
        label_range=tuple(record["range"]) if record["range"] else None,
        arguments={name: (*record["base"], *arguments) for name, arguments in record["arms"].items()},
        missing=tuple(missing),
    )


def group_runs(runs: Sequence[Run], metric: str | None = None) -> Comparison:
    """Make arms of loose runs: those that share strategy, data and checkpoint are seeds of one arm.

    The checkpoint's folder, and last the run's own, is added to a name only where it is needed to tell two arms apart.
    """
    arms: dict[str, list[Run]] = {}
    namings: tuple[Callable[[Run], str], ...] = (
        lambda run: f"{run.strategy}, {run.initialisation}",
        lambda run: (
            f"{run.strategy}, {run.initialisation} ({Path(run.checkpoint).parent.name})"
            if run.checkpoint
            else f"{run.strategy}, scratch"
        ),
        lambda run: f"{run.strategy}, {run.initialisation}, {run.data} ({run.folder})",
    )
    for naming in namings:
        arms = {}
        for run in runs:
            arms.setdefault(naming(run), []).append(run)
        if all(_same_setting(group) for group in arms.values()):
            break
    return Comparison({name: tuple(group) for name, group in arms.items()}, metric or default_metric(runs))


def find_runs(folder: str | Path) -> list[Run]:
    """Read the run in `folder`, or else all runs in folders below it."""
    folder = Path(folder)
    if (folder / "rounds.csv").is_file():
        return [read_run(folder)]
    found = sorted(path.parent for path in folder.rglob("rounds.csv"))
    return [read_run(path) for path in found] if found else [read_run(folder)]


def default_metric(runs: Iterable[Run]) -> str:
    """`test/accuracy` where it was logged, else the first accuracy, else the first metric."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.curves))
    candidates = [m for m in metrics if m == DEFAULT_METRIC] + [m for m in metrics if "accuracy" in m] + metrics
    return candidates[0] if candidates else DEFAULT_METRIC


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where `compare` puts one run: `folder/slug(arm)/seedN`."""
    return folder / slug(arm) / f"seed{seed}"


def slug(name: str) -> str:
    """Turn a name into a folder's name.

    Example:
        >>> slug("Entropy, SSL (400 epochs)")
        'entropy-ssl-400-epochs'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; a mistake in it becomes a ValueError that names the file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"`{path}` does not exist; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"`{path}` holds {type(content).__name__}, not `key: value` lines; is it the right file?")
    return content


def _lines(path: Path, needed: Sequence[str]) -> Iterable[tuple[dict[str, str], str]]:
    """Lines of a CSV file with a text that says where each stands; empty cells are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in needed if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"`{path}` lacks the column {', '.join(lacking)}; {_REMEDY}")
        for line in reader:
            cells = {
                key: unescaped(value) for key, value in line.items() if key and isinstance(value, str) and value.strip()
            }
            where = f"line {reader.line_num} of `{path}`"
            for name in needed:
                if name not in cells:
                    raise ValueError(f"{where} has no {name}; the file is cut off or was edited")
            yield cells, where


def _read_round(line: Mapping[str, str], where: str) -> FinishedRound:
    try:
        number, labelled, validation, queried = (int(line.get(name, "0")) for name in _COUNTS)
        metrics = {key: float(value) for key, value in line.items() if key not in (*_COUNTS, "seconds")}
        return FinishedRound(number, labelled, validation, queried, float(line.get("seconds", "0")), metrics)
    except ValueError as error:
        raise ValueError(f"{where} is not a row of numbers: {error}") from None


def _read_asked(line: Mapping[str, str], where: str) -> AskedSample:
    try:
        number, position = int(line["round"]), int(line["position"])
        score = float(line["score"]) if "score" in line else None
    except ValueError as error:
        raise ValueError(f"{where} holds no number where one is required: {error}") from None
    return AskedSample(number, position, line["key"], line.get("path", ""), line.get("class_name", ""), score)


def _same_setting(group: Sequence[Run]) -> bool:
    """Whether the runs differ by their seed alone."""
    settings = {(run.strategy, run.data, run.checkpoint) for run in group}
    return len(settings) == 1 and len({run.seed for run in group}) == len(group)


def _class_name(spec: object) -> str:
    path = spec.get("class_path", "") if isinstance(spec, Mapping) else spec
    return str(path or "").rpartition(".")[2]


def _get(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
