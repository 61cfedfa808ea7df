"""Where labels come from and where they are kept.

Names are imported when they are used: the labelling page and the commands that read a store do without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lightning.labelling.doubts import doubtful as doubtful
    from ssl_lightning.labelling.human import Human as Human
    from ssl_lightning.labelling.label_studio import LabelStudio as LabelStudio
    from ssl_lightning.labelling.noise import NoisyTruth as NoisyTruth
    from ssl_lightning.labelling.oracle import GroundTruth as GroundTruth
    from ssl_lightning.labelling.oracle import Oracle as Oracle
    from ssl_lightning.labelling.records import INITIAL as INITIAL
    from ssl_lightning.labelling.records import Answer as Answer
    from ssl_lightning.labelling.records import NoLabel as NoLabel
    from ssl_lightning.labelling.records import Query as Query
    from ssl_lightning.labelling.records import require_text as require_text
    from ssl_lightning.labelling.shown import keep_sight as keep_sight
    from ssl_lightning.labelling.store import LabelStore as LabelStore

_HOMES = {
    "doubtful": "doubts", "Human": "human", "LabelStudio": "label_studio", "NoisyTruth": "noise",
    "GroundTruth": "oracle", "Oracle": "oracle",
    "INITIAL": "records", "Answer": "records", "NoLabel": "records", "Query": "records", "require_text": "records",
    "keep_sight": "shown", "LabelStore": "store",
}  # fmt: skip
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
