"""`ssl-lightning report`: one self-contained HTML page on finished runs."""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from ssl_lightning.experiments.aggregate import Curve, curves_of, penalty_matrix, unit_of
from ssl_lightning.experiments.chapter import Chapter
from ssl_lightning.experiments.plots import learning_curves, styles_of
from ssl_lightning.experiments.runs import (
    INITIAL_ROUND,
    AskedSample,
    Comparison,
    Run,
)
from ssl_lightning.experiments.tables import conclusions, table_rows

_SHOWN = 64  # images of a round at most, as many as a run draws
_CELL = 72  # pixels of a cell to which a large strip is shrunk
_SHARP = 48  # pixels of a cell as the page shows it: smaller ones are enlarged without blurring
_LARGE = 60_000  # bytes of a strip that are embedded as they are


@dataclass(frozen=True)
class Strip:
    """A row of square pictures as a data URI; `sharp` asks for enlarging without blur."""

    uri: str
    cells: int
    sharp: bool


@dataclass(frozen=True)
class Cell:
    """One sample that was asked for: where it is cut out of the strip, or its text, and what is written below."""

    offset: str
    text: str
    label: str
    score: str
    guess: str
    name: str
    alt: str


@dataclass(frozen=True)
class Bar:
    """How often one class was asked in a round; `height` is a share of the largest of the arm."""

    label: str
    count: int
    height: float


@dataclass(frozen=True)
class RoundView:
    """One round's queries as the page shows them; `strip` is None where there are no pictures."""

    title: str
    strip: Strip | None
    cells: tuple[Cell, ...]
    bars: tuple[Bar, ...]
    hidden: int


@dataclass(frozen=True)
class ArmView:
    """One arm's queries, by one of its runs."""

    name: str
    colour: str
    seed: int | None
    trained: int
    long_names: bool
    rounds: tuple[RoundView, ...]


def write_report(
    comparison: Comparison | None,
    path: str | Path,
    title: str = "",
    chapters: Sequence[Chapter] = (),
    guesses: Mapping[str, str] | None = None,
) -> Path:
    """Write the page: learning curves, how sure the differences are, the table, what was asked in each round; chapters.

    Everything is in the one file (pictures as base64), so that it can be mailed. It loads nothing; its one script shows
    what the points of a map are.

    Args:
        comparison: arms of runs; a single run is an arm with one seed. None where no run is of active learning.
        path: the HTML file to write.
        title: the page's heading; by default the data and the arms' number.
        chapters: of runs, one after the other.
        guesses: what a model takes the samples for that were asked, by their keys.

    Returns:
        `path`.
    """
    path = Path(path)
    script = _source("hover.js.jinja") if any(chapter.map for chapter in chapters) else ""
    page = _template().render(
        title=title or (_title(comparison) if comparison else _fits_title(chapters)),
        **({"summary": _fits_summary(chapters)} if comparison is None else _of_comparison(comparison, guesses or {})),
        commands=[] if comparison is None else _commands(comparison, chapters),
        comparison=comparison is not None,
        guesses=bool(guesses),
        chapters=chapters,
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        version=version("ssl-lightning"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _of_comparison(comparison: Comparison, guesses: Mapping[str, str]) -> dict[str, object]:
    runs = [run for group in comparison.arms.values() for run in group]
    curves, (header, rows) = curves_of(comparison), table_rows(comparison)
    styles = styles_of(comparison)
    about, *sentences = conclusions(comparison)
    return {
        "summary": _summary(comparison, runs),
        "light": _figure(comparison, dark=False),
        "dark": _figure(comparison, dark=True),
        "alt": _describe(comparison, curves),
        "sentences": sentences,
        "about": about,
        "header": header,
        "rows": [(row, _best(row, curves, comparison.metric)) for row in rows],
        "penalties": _penalties(curves, unit_of(comparison.metric).higher_is_better),
        "facts": _facts(comparison, runs),
        "arms": [_arm(name, group[0], styles[name].colour, guesses) for name, group in comparison.arms.items()],
    }


def _commands(comparison: Comparison, chapters: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Name each arm's command, unless it is in the chapter of its only run."""
    told = {chapter.folder for chapter in chapters}
    runs = [str(run.folder) for group in comparison.arms.values() for run in group]
    return [] if told & set(runs) else [(name, _command(comparison, name)) for name in comparison.arms]


def _fits_title(chapters: Sequence[Chapter]) -> str:
    return chapters[0].title if len(chapters) == 1 else f"{len(chapters)} trained models"


def _fits_summary(chapters: Sequence[Chapter]) -> str:
    return ", ".join(chapter.folder for chapter in chapters)


def _source(name: str) -> str:
    return resources.files("ssl_lightning.experiments").joinpath(name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    # autoescape: names of arms and classes come from the user
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")


def _title(comparison: Comparison) -> str:
    data = dict.fromkeys(run.data for group in comparison.arms.values() for run in group)
    arms = list(comparison.arms)
    return f"{', '.join(data)}: {arms[0] if len(arms) == 1 else f'{len(arms)} ways to choose labels'}"


def _summary(comparison: Comparison, runs: Sequence[Run]) -> str:
    labels = [one.labelled for run in runs for one in run.rounds]
    count = len(runs)
    text = f"{count} run{'s' * (count > 1)} of active learning, from {min(labels)} to {max(labels)} labels"
    if validation := sorted({run.validation for run in runs} - {0}):
        text += f", and {' or '.join(map(str, validation))} more for validation, which the budget must pay too"
    return text + "."


def _facts(comparison: Comparison, runs: Sequence[Run]) -> list[tuple[str, str]]:
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    seconds = sum(run.seconds for run in runs)
    rounds = [len(run.rounds) for run in runs]
    facts = [
        ("Data", ", ".join(dict.fromkeys(run.data for run in runs))),
        ("Arms", f"{len(comparison.arms)}"),
        ("Seeds", ", ".join(map(str, seeds)) or "none set"),
        ("Rounds", str(max(rounds)) if min(rounds) == max(rounds) else f"{min(rounds)} to {max(rounds)}"),
        ("Time of all rounds", f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"),
    ]
    if apart := [text for run in runs if (text := _tested(run))]:
        facts.append(("Tested on", "; ".join(apart)))
    checkpoints = dict.fromkeys(run.checkpoint for run in runs if run.checkpoint)
    return facts + ([("Checkpoints", ", ".join(checkpoints))] if checkpoints else [])


def _tested(run: Run) -> str:
    """How many answers were set apart for test, and how sure the last accuracy is by them; empty where none were."""
    last = run.rounds[-1].metrics
    if "test/count" not in last:
        return ""
    share, low, high = (f"{last[f'test/accuracy{end}']:.1%}" for end in ("", "_low", "_high"))
    return f"{last['test/count']:.0f} answers drawn at random: {share} right, 95 % interval {low} to {high} (Wilson)"


def _command(comparison: Comparison, name: str) -> str:
    run = comparison.arms[name][0]
    arguments = comparison.arguments.get(name)
    if arguments is None:
        return shlex.join(["ssl-lightning", "active", "--config", str(run.folder / "config.yaml")])
    seed = "SEED" if run.seed is None else str(run.seed)
    given = [part.replace("{seed}", seed) for part in arguments]
    own = ["--seed_everything", seed, "--folder", str(run.folder)]
    return shlex.join(["ssl-lightning", "active", *given, *own])


def _figure(comparison: Comparison, dark: bool) -> str:
    buffer = io.BytesIO()
    learning_curves(comparison, dark=dark).savefig(buffer, format="png")
    return _data_uri(buffer.getvalue(), "png")


def _describe(comparison: Comparison, curves: dict[str, Curve]) -> str:
    """The picture in words, for those who cannot see it."""
    unit = unit_of(comparison.metric)
    lines = []
    for name, curve in curves.items():
        ends = [(int(curve.labels[i]), unit.number(float(curve.mean[i]))) for i in (0, -1)]
        lines.append(f"{name}: {ends[0][1]} at {ends[0][0]} labels, {ends[1][1]} at {ends[1][0]}")
    return f"Learning curves, {comparison.metric} {unit.symbol} against labels. {'; '.join(lines)}."


def _best(row: Sequence[str], curves: dict[str, Curve], metric: str) -> int | None:
    """Column of the best mean in a row of the table; None with one arm or a gap."""
    means = [cell.split(" ")[0] for cell in row[1:]]
    if len(means) < 2 or "-" in means:
        return None
    values = [float(mean) for mean in means]
    return 1 + int(np.argmax(values) if unit_of(metric).higher_is_better else np.argmin(values))


def _penalties(curves: dict[str, Curve], higher_is_better: bool) -> dict[str, object] | None:
    """The pairwise penalty matrix with its column means; None where no pair can be tested."""
    if len(curves) < 2 or min(len(curve.seeds) for curve in curves.values()) < 2:
        return None
    names, matrix = penalty_matrix([curves], higher_is_better)
    means = matrix.sum(axis=0) / (len(names) - 1)
    return {"names": names, "rows": list(zip(names, matrix.tolist(), strict=True)), "means": means.tolist()}


def _arm(arm: str, run: Run, colour: str, guesses: Mapping[str, str]) -> ArmView:
    numbers = sorted({sample.round for sample in run.asked})
    names = sorted({sample.label for sample in run.asked if sample.label}, key=_natural)
    counts = {number: Counter(sample.label for sample in run.asked_after(number)) for number in numbers}
    tallest = max((max(counter[name] for name in names) for counter in counts.values() if names), default=1)
    rounds = []
    for number in numbers:
        bars = tuple(Bar(name, counts[number][name], counts[number][name] / max(tallest, 1)) for name in names)
        rounds.append(_round(run, number, bars, guesses))
    long_names = any(len(name) > 2 for name in names)
    return ArmView(arm, colour, run.seed, len(run.rounds), long_names, tuple(rounds))


def _natural(name: str) -> tuple[int, int, str]:
    """Order class names as a person does: 2 before 10, numbers before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _round(run: Run, number: int, bars: tuple[Bar, ...], guesses: Mapping[str, str]) -> RoundView:
    asked, path = run.asked_after(number), run.strip_of(number)
    strip, texts = _strip(path) if path else None, run.texts_of(number)
    shown = asked[: min(strip.cells if strip else _SHOWN, _SHOWN)]
    drawn = strip.cells if strip else 1
    cells = tuple(
        _cell(sample, place, drawn, texts.get(sample.key, ""), guesses.get(sample.key, ""))
        for place, sample in enumerate(shown)
    )
    labelled = next((one.labelled for one in run.rounds if one.number == number), None)
    after = "" if labelled is None else f", by the model of {labelled} labels"
    title = "Initial labels" if number == INITIAL_ROUND else f"Asked after round {number}{after}"
    return RoundView(f"{title}: {len(asked)} samples", strip, cells, bars, len(asked) - len(shown))


def _cell(sample: AskedSample, place: int, drawn: int, text: str, guess: str) -> Cell:
    offset = f"{100 * place / (drawn - 1):.4f}%" if drawn > 1 else "0"
    score = "" if sample.score is None else f"{sample.score:#.3g}"
    where = f" ({sample.path})" if sample.path and sample.path != sample.key else ""
    told = {"score": score, "guess": guess}
    alt = f"sample {sample.key}{where}, label {sample.label_text}"
    alt += "".join(f", {name} {value}" for name, value in told.items() if value)
    return Cell(offset, text, sample.label_text, score, guess, sample.key, alt)


def _strip(path: Path) -> Strip:
    """Read a strip, and shrink it where it is large."""
    try:
        with Image.open(path) as image:
            image.load()
            width, height = image.size
            drawn = max(1, round(width / height))
            content = path.read_bytes()
            if len(content) <= _LARGE:
                return Strip(_data_uri(content, "png"), drawn, height <= _SHARP)
            side, buffer = min(_CELL, height), io.BytesIO()
            image.convert("RGB").resize((side * drawn, side), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
            return Strip(_data_uri(buffer.getvalue(), "jpeg"), drawn, side <= _SHARP)
    except OSError as error:
        raise ValueError(f"`{path}` is not a readable picture ({error}); delete it to leave it out") from None


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
