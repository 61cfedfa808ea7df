"""What a run's model makes of the data, as a report shows it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ssl_lightning.experiments.analysis import NOT_ASKED, PARTS, Analysis
from ssl_lightning.experiments.figures import (
    Column,
    Matrix,
    Spot,
    hues,
    levels,
    matrix,
    reliability,
    scaled,
    shortened,
)
from ssl_lightning.experiments.measures import ClassAccuracy, by_class, calibration, confusion
from ssl_lightning.experiments.runs import INITIAL_ROUND
from ssl_lightning.functional.intervals import wilson

MAP = (680.0, 460.0)  # width and height of the map
LEVELS = 8  # of uncertainty
LISTED = 60  # classes in a table
CONFUSED = 10  # pairs of classes that are told
CASES = (
    ("no disagreement", "the members agree on a class: nothing to ask"),
    ("high disagreement", "the members disagree, and a label settles it: ask"),
    ("data disagreement", "all agree that it is unclear: a label is noise; look at the data and the model"),
)


class Thumb(NamedTuple):
    """A sample: where its picture is on the sheet (-1: none), its text, and what is written below, line by line."""

    cell: int
    text: str
    lines: tuple[str, ...]
    right: bool | None
    hint: str


class Share(NamedTuple):
    """How often a class is among those asked for, in the pool and in the test part."""

    name: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


class Case(NamedTuple):
    """One of the three cases: its name, what it means, its share of the pool, and its clearest examples."""

    name: str
    meaning: str
    share: float
    examples: list[Thumb]


class Row(NamedTuple):
    """A class's accuracy by its name."""

    name: str
    found: ClassAccuracy


@dataclass(frozen=True)
class Judgement:
    """How good a classifier's guesses are, by one part of the data."""

    part: str
    count: int
    accuracy: float
    low: float
    high: float
    error: float
    confidence: float
    bins: list[Column]
    matrix: Matrix
    confused: list[tuple[str, str, int]]
    classes: list[Row]
    hidden: int
    errors: list[Thumb]


@dataclass(frozen=True)
class MapView:
    """Embeddings on a plane."""

    spots: list[Spot]
    axes: str
    hues: list[int]
    legend: list[tuple[int, str]]
    by_class: bool
    by_doubt: bool
    count: int


def guesses_of(analysis: Analysis | None) -> dict[str, str]:
    """Return what the model takes each sample for that was asked, by its key; what it said when it asked, if known."""
    if analysis is None or not analysis.classifies:
        return {}
    told: Mapping[str, Any] = analysis.about["guesses"]
    found = {}
    for place in np.flatnonzero(analysis.asked != NOT_ASKED).tolist():
        key = str(analysis.keys[place])
        name, sure = analysis.name_of(int(analysis.predicted[place])), float(analysis.confidence[place])
        if key in told:
            name, sure = told[key][0], told[key][1] if told[key][1] is not None else sure
        found[key] = f"{name} {100 * sure:.0f} %"
    return found


def of_model(analysis: Analysis | None) -> dict[str, Any]:
    """Return the parts of a chapter that are by the model, by their names; none where there is no analysis."""
    if analysis is None:
        return {}
    about = analysis.about
    rows = -(-int((analysis.cell >= 0).sum()) // max(1, int(about["columns"])))
    kind = "png" if bytes(analysis.sheet[:4]) == b"\x89PNG" else "jpeg"
    content = base64.b64encode(analysis.sheet.tobytes()).decode()
    precision = about["precision"]
    said = (
        f"The nearest sample of the pool is of the same class for {precision['same']:.1%} of {precision['count']} "
        f"samples; always saying the largest class would be right for {precision['chance']:.1%}."
        if precision
        else ""
    )
    return {
        "facts": _facts(analysis),
        "judgement": judge(analysis),
        "balance": _balance(analysis),
        "map": _map(analysis),
        "neighbours": [_neighbours(analysis, place) for place in range(len(analysis.neighbours))],
        "precision": said,
        "cases": _cases(analysis),
        "advice": str(about["advice"]),
        "draws": int(about["draws"]),
        "sheet": f"data:image/{kind};base64,{content}" if len(analysis.sheet) else "",
        "columns": max(1, int(about["columns"])),
        "rows": max(1, rows),
        "sharp": int(about["cell"]) < 32,
    }


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    about, totals = analysis.about, analysis.about["totals"]
    seen = {name: int((analysis.part == number).sum()) for number, name in enumerate(PARTS)}
    looked = ", ".join(f"{count} of {'the pool' if name == 'train' else name}" for name, count in seen.items() if count)
    total = sum(totals.values())
    more = "" if total == len(analysis.keys) else f", evenly chosen of {total}, and all that were asked for"
    return [
        ("Model", f"{about['method']}, {about['checkpoint']}"),
        ("Embedding", f"{about['dim']} dimensions"),
        ("Looked at", looked + more),
    ]


def judge(analysis: Analysis) -> Judgement | None:
    """Judge guesses by the test part, or else by the validation part; null where there is nothing to judge."""
    part, places = analysis.judged
    if not len(places):
        return None
    target, predicted, names = analysis.target[places], analysis.predicted[places], analysis.class_names
    counts = confusion(target, predicted, len(names))
    found = calibration(analysis.confidence[places], target == predicted)
    classes, accuracy = by_class(counts), float((target == predicted).mean())
    low, high = wilson(accuracy, len(places))
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong.ravel(), kind="stable")[:CONFUSED]
    confused = [(int(place) // len(names), int(place) % len(names)) for place in order]
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    listed = sorted(sorted(classes, key=lambda one: one.accuracy)[:LISTED], key=lambda one: one.place)
    return Judgement(
        part=part,
        count=len(places),
        accuracy=accuracy,
        low=low,
        high=high,
        error=found.error,
        confidence=float(analysis.confidence[places].mean()),
        bins=reliability(found),
        matrix=matrix(counts[np.ix_(used, used)], [names[place] for place in used]),
        confused=[(names[a], names[b], int(wrong[a, b])) for a, b in confused if wrong[a, b]],
        classes=[Row(names[one.place], one) for one in listed],
        hidden=len(classes) - len(listed),
        errors=[_error(analysis, int(place)) for place in analysis.errors],
    )


def _told(analysis: Analysis, place: int) -> str:
    """Say in a line what is known of a sample."""
    number = int(analysis.part[place])
    asked = int(analysis.asked[place])
    part, name = "pool" if number == 0 else PARTS[number], analysis.name_of(int(analysis.target[place]))
    text = f"{analysis.keys[place]}, {part}, class {name}"
    if asked != NOT_ASKED:
        text += ", initial label" if asked == INITIAL_ROUND else f", asked after round {asked}"
    if analysis.predicted[place] >= 0:
        guess = analysis.name_of(int(analysis.predicted[place]))
        text += f", guess {guess} {100 * float(analysis.confidence[place]):.0f} %"
    return text


def _thumb(analysis: Analysis, place: int, lines: tuple[str, ...], right: bool | None = None) -> Thumb:
    has_picture = bool(len(analysis.sheet)) and int(analysis.cell[place]) >= 0
    text = analysis.text_of(place)
    if not has_picture and not text:
        text = str(analysis.keys[place])
    return Thumb(int(analysis.cell[place]) if has_picture else -1, text, lines, right, _told(analysis, place))


def _error(analysis: Analysis, place: int) -> Thumb:
    target, guess = (analysis.name_of(int(numbers[place])) for numbers in (analysis.target, analysis.predicted))
    return _thumb(analysis, place, (f"{target} → {guess}", f"{100 * float(analysis.confidence[place]):.1f} %"))


def _neighbours(analysis: Analysis, row: int) -> list[Thumb]:
    first, *others = analysis.neighbours[row].tolist()
    target = int(analysis.target[first])
    shown = [_thumb(analysis, first, (analysis.name_of(target),))]
    for place, cosine in zip(others, analysis.similarity[row].tolist(), strict=True):
        own = int(analysis.target[place])
        same = own == target if own >= 0 and target >= 0 else None
        shown.append(_thumb(analysis, place, (analysis.name_of(own), f"{cosine:.3f}"), same))
    return shown


def _cases(analysis: Analysis) -> list[Case]:
    known = analysis.case >= 0
    if not known.any():
        return []
    found = []
    for number, (name, meaning) in enumerate(CASES):
        share = float((analysis.case[known] == number).mean())
        examples = []
        for place in analysis.about["examples"][number]:
            numbers = f"I {analysis.disagreement[place]:.2f}", f"H {analysis.own[place]:.2f}"
            examples.append(_thumb(analysis, place, (analysis.name_of(int(analysis.target[place])), *numbers)))
        found.append(Case(name, meaning, share, examples))
    return found


def _balance(analysis: Analysis) -> tuple[list[str], list[Share], int] | None:
    """Count the classes of what was asked or labelled, of the pool and of the test part."""
    asked = analysis.asked != NOT_ASKED
    pool = analysis.part == 0
    groups = [("Pool", pool), ("Test", analysis.part == PARTS.index("test"))]
    if asked.any():
        groups.insert(0, ("Asked", asked))
    elif (analysis.labelled != pool).any():
        groups.insert(0, ("Labelled", analysis.labelled))
    known = analysis.target >= 0
    groups = [(name, where & known) for name, where in groups if (where & known).any()]
    if not groups:
        return None
    names = analysis.class_names
    counts = [np.bincount(analysis.target[where], minlength=len(names)) for _, where in groups]
    rows = [
        Share(name, tuple(int(one[place]) for one in counts), tuple(float(one[place] / one.sum()) for one in counts))
        for place, name in enumerate(names)
    ]
    rows = [row for row in rows if sum(row.counts)]
    rows.sort(key=lambda row: -max(row.shares))
    kept = {id(row) for row in rows[:LISTED]}
    order = {name: place for place, name in enumerate(names)}
    shown = sorted((row for row in rows if id(row) in kept), key=lambda row: order[row.name])
    heads = [f"{name} ({int(one.sum())})" for (name, _), one in zip(groups, counts, strict=True)]
    return heads, shown, len(rows) - len(shown)


def _map(analysis: Analysis) -> MapView | None:
    drawn = np.flatnonzero(np.isfinite(analysis.spot[:, 0]))
    if len(drawn) < 2:
        return None
    places = scaled(analysis.spot[drawn], *MAP)
    doubt = levels(analysis.entropy[drawn], LEVELS)
    target, names = analysis.target[drawn], analysis.class_names
    last = int(analysis.asked.max())
    few = 2 * int(analysis.labelled.sum()) < int((analysis.part == 0).sum())  # else rings tell nothing
    spots = []
    kinds = []
    for row, place in enumerate(drawn.tolist()):
        asked, learnt = int(analysis.asked[place]), bool(analysis.labelled[place])
        kind, radius = ("test", 2.6) if analysis.part[place] != 0 else ("pool", 2.6)
        if analysis.part[place] == 0 and asked == NOT_ASKED and learnt and few:
            kind = "learnt"
        if asked != NOT_ASKED:
            kind, radius = ("last", 6.0) if asked == last >= 0 else ("asked", 4.5)
        kinds.append(("test", "pool", "learnt", "asked", "last").index(kind))
        style = f"{kind} {f'c{target[row]}' if target[row] >= 0 else 'cu'} d{max(0, int(doubt[row]))}"
        cell = int(analysis.cell[place]) if len(analysis.sheet) else -1
        text = _told(analysis, place) + (f"; {words}" if (words := analysis.text_of(place)) else "")
        spots.append(Spot(round(float(places[row, 0]), 1), round(float(places[row, 1]), 1), radius, style, cell, text))
    order = np.argsort(kinds, kind="stable")
    explained = analysis.about["explained"]
    axes = (
        f"Principal components 1 (across, {explained[0]:.0%} of the variance) and 2 (up, {explained[1]:.0%})"
        if len(explained) == 2
        else {"tsne": "t-SNE", "umap": "UMAP"}.get(analysis.about["map"], "One principal component")
    )
    there = sorted({int(number) for number in target if number >= 0})
    legend = [(number, shortened(names[number], 24)) for number in there[:LISTED]]
    seen = [spots[place] for place in order]
    return MapView(seen, axes, hues(len(names)), legend, bool(there), bool((doubt >= 0).any()), len(spots))
