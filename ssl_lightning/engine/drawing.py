"""Figures of matplotlib that show themselves in a notebook."""

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Drawing(Figure):
    """A figure apart from pyplot's global state; a notebook shows it, whether pyplot was imported there or not.

    Args:
        options: As for `matplotlib.figure.Figure`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
