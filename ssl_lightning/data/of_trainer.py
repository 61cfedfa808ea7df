"""What the data of a trainer tell a model: facts, transforms; and whether a batch is theirs."""

from typing import Any

from torch import nn

from ssl_lightning.data.samples import Batch
from ssl_lightning.transforms.base import Unchanged


def facts_of(trainer: Any) -> dict[str, Any]:
    """Return the facts of the data that a trainer works on; none without a data module."""
    return dict(getattr(getattr(trainer, "datamodule", None), "facts", None) or {})


def clean_for(trainer: Any) -> nn.Module:
    """Return the clean transform of the data that a trainer works on; without data, inputs stay as they are."""
    make = getattr(getattr(trainer, "datamodule", None), "clean", None)
    found: nn.Module = make() if callable(make) else Unchanged()
    return found


def views_for(trainer: Any, count: int, local_count: int = 0, mild: bool = False) -> nn.Module | None:
    """Return the random views that suit the data a trainer works on; null where they suggest none.

    Args:
        trainer: With its data.
        count: Views of each sample.
        local_count: Further views that show a part.
        mild: Near to the sample.
    """
    make = getattr(getattr(trainer, "datamodule", None), "views", None)
    found: nn.Module | None = make(count, mild=mild, local_count=local_count) if callable(make) else None
    return found


def view_for(trainer: Any, name: str) -> nn.Module | None:
    """Return the `weak_views` or the `strong_views` of the data a trainer works on; null where they suggest none."""
    make = getattr(getattr(trainer, "datamodule", None), name, None)
    found: nn.Module | None = make() if callable(make) else None
    return found


def require_batch(batch: Any) -> None:
    """Refuse what a plain `DataLoader` gives.

    Raises:
        ValueError: If it is no `Batch`; says which class to use.
    """
    if not isinstance(batch, Batch):
        raise ValueError(
            f"the model got a {type(batch).__name__} where a `Batch` with input, target and index is required, as "
            "from a plain DataLoader; wrap the data set itself: `trainer.fit(model, datamodule=FromDataset(dataset))`, "
            "of `ssl_lightning.data`."
        )
