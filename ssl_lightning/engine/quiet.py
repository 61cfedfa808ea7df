"""What Lightning says at every start, and nobody needs to read; and how our own warnings look."""

import logging
import os
import warnings
from contextlib import suppress
from typing import Any

_ROOTS = ("lightning.fabric", "lightning.pytorch", "pytorch_lightning")  # all messages go by whichever came last


_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def quieten() -> None:
    """Leave out what Lightning tells everybody at every start, and what does not apply to our loaders.

    Warnings of this package are shown without the place in its source. Commands begin with it; in a notebook, call it
    before Lightning is imported.
    """
    for text in (".*IProgress not found.*", ".*install .ipywidgets. for Jupyter.*"):  # of tqdm and rich, in notebooks
        warnings.filterwarnings("ignore", text)
    import lightning.pytorch  # noqa: F401  # which would set its level when it is imported later

    for name in ("lightning.fabric", "lightning.pytorch", *(f"{root}.utilities.rank_zero" for root in _ROOTS)):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",  # the data module is
        ".*isinstance.treespec, LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*Total length of `list` across ranks is zero.*",  # no validation part
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",  # a checkpoint of another run
        ".*module\\(s\\) in eval mode at the start of training.*",  # a frozen encoder is
    ):
        warnings.filterwarnings("ignore", text)
    with suppress(ImportError):  # lightly imports it later; it sets how warnings look, as Lightning does
        import lightning_fabric.utilities.warnings  # noqa: F401
    if warnings.formatwarning is not _format:
        _before.append(warnings.formatwarning)
        warnings.formatwarning = _format


_before: list[Any] = []  # how warnings of others look


def _format(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    if filename.startswith(_OURS):
        return f"warning: {message}\n"
    found: str = _before[-1](message, category, filename, lineno, line)
    return found
