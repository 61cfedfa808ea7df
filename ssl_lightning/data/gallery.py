"""Samples and data sets as a notebook shows them: HTML of what a person sees."""

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

import torch

from ssl_lightning.data.samples import Shown

LETTERS = 280  # of a text that are shown
CELLS = 8  # of a table's row
CLASSES = 10  # that are named


class Shows(Protocol):
    """What tells what people see of a sample, as every data module does."""

    def show(self, key: str) -> Shown:
        """Return what a person sees of a sample."""


class Gallery:
    """Samples side by side, as a person sees them; a notebook shows it where it is a cell's last value.

    Args:
        data: That shows its samples.
        keys: Of the samples, in order.
        notes: A line under each; none where there are fewer.

    Example:
        >>> from ssl_lightning.data import Digits
        >>> data = Digits()
        >>> data.setup()
        >>> data.gallery(3)
        Gallery of 3 samples of Digits
    """

    def __init__(self, data: Shows, keys: Sequence[str], notes: Sequence[str] = ()) -> None:
        self.data, self.keys, self.notes = data, list(keys), list(notes)

    def __repr__(self) -> str:
        return f"Gallery of {len(self.keys)} samples of {type(self.data).__name__}"

    def _repr_html_(self) -> str:
        notes = [*self.notes, *[""] * len(self.keys)]
        shown = [_figure(self.data.show(key), key, note) for key, note in zip(self.keys, notes, strict=False)]
        return f'<div style="display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start">{"".join(shown)}</div>'


def describe(data: Any) -> str:
    """Return HTML of a data module: its parts, facts and some samples; it loads nothing.

    Args:
        data: A data module.
    """
    name = f"<b>{escape(type(data).__name__)}</b>"
    if data.train_samples is None:
        return f"{name}: not loaded yet, by <code>setup()</code>"
    targets = data.train_samples.targets
    parts = [("training", targets[data.train_indices]), ("validation", targets[data.val_indices])]
    if data.test_samples is not None:
        parts.append(("test", data.test_samples.targets))
    rows = [(part, f"{len(found):,} samples, {int((found >= 0).sum()):,} labelled") for part, found in parts]
    facts = {fact: value for fact, value in data.facts.items() if fact not in ("num_classes", "class_names")}
    classes = [str(label) for label in data.class_names]
    more = f" and {len(classes) - CLASSES} more" if len(classes) > CLASSES else ""
    shown: Gallery = data.gallery(8)
    rows.append((f"{len(classes)} classes", ", ".join(classes[:CLASSES]) + more))
    rows += [(fact.replace("_", " "), _brief(value)) for fact, value in facts.items()]
    return name + html_table(rows) + shown._repr_html_()


def html_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return an HTML table of names and what they stand for."""
    cells = "".join(f"<tr><th style='text-align:left'>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"


def chosen(data: Any, samples: int | Sequence[int | str]) -> list[str]:
    """Return keys of training samples.

    Args:
        data: A data module that is set up.
        samples: Their keys or positions in the training part; or how many, evenly chosen.
    """
    keys = data.train_samples.keys
    if isinstance(samples, int):
        indices = data.train_indices
        spread = torch.linspace(0, len(indices) - 1, min(samples, len(indices))).long()
        return [keys[place] for place in indices[spread].tolist()]
    return [one if isinstance(one, str) else keys[int(one)] for one in samples]


def class_of(data: Any, key: str) -> str:
    """Return the name of a sample's class, or nothing where it has no label."""
    samples, place = data.find(key)
    target = int(samples.targets[place])
    return str(data.class_names[target]) if target >= 0 else ""


def _figure(shown: Shown, key: str, note: str) -> str:
    caption = "".join(f"<div>{escape(line[:LETTERS])}</div>" for line in (note, shown.caption or "") if line)
    inner = _content(shown)
    return (
        f'<figure title="{escape(key)}" style="margin:0;max-width:220px;font-size:85%">{inner}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _content(shown: Shown) -> str:
    if isinstance(shown.content, bytes):
        packed = base64.b64encode(shown.content).decode()
        if shown.kind == "audio":
            return f'<audio controls style="width:200px" src="data:audio/wav;base64,{packed}"></audio>'
        style = "min-width:64px;max-width:160px;image-rendering:auto"
        return f'<img style="{style}" src="data:image/png;base64,{packed}">'
    if shown.kind == "row":
        cells = [(str(column), str(cell)) for column, cell in json.loads(shown.content).items()]
        left_out = [("…", f"{len(cells) - CELLS} more")] if len(cells) > CELLS else []
        return html_table(cells[:CELLS] + left_out)
    text = shown.content
    return f"<blockquote>{escape(text[:LETTERS])}{'…' if len(text) > LETTERS else ''}</blockquote>"


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple | dict) and len(value) > CLASSES:
        return f"{len(value):,} of them"
    return str(value)
