"""All concrete strategies, each built to be quick."""

import inspect
from typing import Any

from ssl_lightning.active import AcquisitionStrategy


def concrete(base: type[AcquisitionStrategy]) -> list[type[AcquisitionStrategy]]:
    """Return this package's classes below a base that are no base themselves."""
    below = [kind for kind in base.__subclasses__() if kind.__module__.startswith("ssl_lightning.")]
    return [kind for child in below for kind in concrete(child)] or [base]


STRATEGIES = concrete(AcquisitionStrategy)
MEMBERS = 5


def make(kind: type[AcquisitionStrategy], **options: Any) -> AcquisitionStrategy:
    """Build a strategy, one that asks a committee with few members."""
    few = {"members": MEMBERS} if "members" in inspect.signature(kind).parameters else {}
    return kind(**{**few, **options})
