"""One run's chapter of a report: its curves, and what its model makes of the data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_lightning.experiments.analysis import Analysis
from ssl_lightning.experiments.figures import Chart, chart
from ssl_lightning.experiments.model_view import Case, Judgement, MapView, Share, Thumb, of_model
from ssl_lightning.experiments.runs import Run
from ssl_lightning.experiments.trained import Fit, Made, Points, read_curves, read_fit, read_made

CONFIG = 40_000  # letters of a config
WIDE = 900  # px: width of a picture of a pretraining
PICTURES = 4
_QUALITY = ("accuracy", "knn", "probe", "recall", "retrieval")
_SPREAD = ("val/embedding_std", "val/projection_std")
_RANKS = ("val/effective_rank", "val/rankme", "val/projection_rank")
_STATES = ("healthy", "dimensional collapse", "complete collapse")


@dataclass(frozen=True)
class Chapter:
    """What is shown of one run; an empty part is left out.

    Args:
        title: What was trained.
        folder: Of the run.
        prefix: Tells its controls from those of other chapters.
        note: Why there is nothing of its model.
        facts: On the run and what was looked at.
        charts: Loss and quality.
        collapse: Charts of the collapse monitor.
        state: Its last word.
        pictures: Of a pretraining, with what they are.
        judgement: Of a classifier.
        balance: Of the classes, and the heads of its columns.
        map: Of the embeddings.
        neighbours: Rows of samples, the first that whose neighbours the others are.
        precision: A sentence on them.
        cases: The three cases, with a sentence on them, the number of draws, and a chart over rounds.
        sheet: Of small pictures, as a data URI; with its columns, rows, and whether they are enlarged.
        made: How it was made.
    """

    title: str
    folder: str
    prefix: str
    note: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    collapse: list[Chart] = field(default_factory=list)
    state: str = ""
    pictures: list[tuple[str, str]] = field(default_factory=list)
    judgement: Judgement | None = None
    balance: tuple[list[str], list[Share], int] | None = None
    map: MapView | None = None
    neighbours: list[list[Thumb]] = field(default_factory=list)
    precision: str = ""
    cases: list[Case] = field(default_factory=list)
    advice: str = ""
    draws: int = 0
    case_chart: Chart | None = None
    sheet: str = ""
    columns: int = 1
    rows: int = 1
    sharp: bool = False
    made: Made | None = None


def fit_chapter(folder: Path, analysis: Analysis | None, note: str = "", prefix: str = "r0") -> Chapter:
    """Make the chapter of a run of `fit`.

    Args:
        folder: Of the run.
        analysis: Of its model; null where there is none.
        note: Why not.
        prefix: Tells the chapter's controls from others'.
    """
    fit = read_fit(folder)
    return Chapter(
        title=f"{fit.method} on {fit.data}",
        folder=str(folder),
        prefix=prefix,
        note=note,
        charts=_charts(fit.curves),
        collapse=_collapse(fit.curves),
        state=_state(fit.curves),
        pictures=_pictures(fit),
        made=_made(folder, "fit"),
        **of_model(analysis),
    )


def active_chapter(run: Run, analysis: Analysis | None, note: str = "", prefix: str = "r0") -> Chapter:
    """Make the chapter of a run of `active`; else as `fit_chapter`."""
    curves = read_curves(run.folder)
    labelled = [one.labelled for one in run.rounds]
    names = ("no", "high", "data")
    shares: dict[str, Points] = {}
    for name in names:
        points = curves.get(f"active/{name}_disagreement", [])
        if len(points) == len(labelled):
            shares[f"{name} disagreement"] = [(float(x), y) for x, (_, y) in zip(labelled, points, strict=True)]
    drawn = chart("Share of the pool, by labels", shares, "labels", "By the callback PoolCases, after each round.", 0.0)
    view = of_model(analysis)
    return Chapter(
        title="The last model",
        folder=str(run.folder),
        prefix=prefix,
        note=note,
        case_chart=drawn,
        made=_made(run.folder, "active"),
        **view,
    )


def _charts(curves: Mapping[str, Points]) -> list[Chart]:
    """Draw losses and what tells quality."""
    losses = {name: points for name, points in curves.items() if name.endswith("loss") and "step" not in name}
    if not losses or max(map(len, losses.values())) < 3:
        losses |= {name: points for name, points in curves.items() if name.endswith("step_loss")}
    quality = {
        name: points
        for name, points in curves.items()
        if any(word in name for word in _QUALITY) and not name.startswith("test/")
    }
    judges = "; kNN and probes judge embeddings by labels that did not train them" if _judged(quality) else ""
    found = [
        chart("Loss", losses, about="By the optimizer's step."),
        chart("Quality", quality, about=f"As a share{judges}."),
    ]
    return [one for one in found if one is not None]


def _judged(names: Iterable[str]) -> bool:
    return any("knn" in name or "probe" in name for name in names)


def _collapse(curves: Mapping[str, Points]) -> list[Chart]:
    spread = {name: curves[name] for name in _SPREAD if name in curves}
    ranks = {name: curves[name] for name in _RANKS if name in curves}
    found = [
        chart(
            "Spread of the directions",
            spread,
            about="1: embeddings fill the sphere evenly; below 0.05: they point the same way, complete collapse.",
            bottom=0.0,
        ),
        chart(
            "Dimensions in use",
            ranks,
            about="Effective rank and RankMe; far below the embedding's size: samples differ in few directions, "
            "dimensional collapse. The projection collapses first.",
            bottom=0.0,
        ),
    ]
    return [one for one in found if one is not None]


def _state(curves: Mapping[str, Points]) -> str:
    points = curves.get("val/collapse", [])
    if not points:
        return ""
    worst = max(points, key=lambda point: point[1])
    said = f"The monitor's last word: {_STATES[int(points[-1][1])]}"
    if worst[1] > points[-1][1]:
        said += f"; at step {worst[0]:.0f} it was {_STATES[int(worst[1])]}"
    return f"{said}."


def _pictures(fit: Fit) -> list[tuple[str, str]]:
    """Take some of the pictures, the last among them, shrunk where they are wide."""
    files = fit.pictures
    places = np.linspace(0, len(files) - 1, min(PICTURES, len(files))).round().astype(int)
    shown = []
    for path in (files[place] for place in places):
        try:
            with Image.open(path) as opened:
                picture = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
        except OSError as error:
            raise ValueError(f"`{path}` is not a readable picture ({error}); delete it to leave it out") from None
        if picture.width > WIDE:
            picture = picture.resize((WIDE, max(1, round(picture.height * WIDE / picture.width))))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        content = base64.b64encode(buffer.getvalue()).decode()
        shown.append((f"after epoch {int(path.stem.rpartition('_')[2]) + 1}", f"data:image/jpeg;base64,{content}"))
    return shown


def _made(folder: Path, command: str) -> Made:
    made = read_made(folder, command)
    if len(made.config) <= CONFIG:
        return made
    return Made(made.command, made.known, made.versions, made.config[:CONFIG] + "\n# and more: see config.yaml")
