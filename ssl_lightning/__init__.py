"""From unlabelled data to a good model with few labels: self-supervised and active learning on PyTorch Lightning.

`from ssl_lightning import SimCLR, Digits` takes any public name of `methods`, `supervised`, `active`, `data`,
`backbones`, `labelling` and `evaluation`; importing the package alone imports no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# torch on Linux: large tensors in large pages of memory, whose first use costs a third; read once, before the first one
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from ssl_lightning.active import *  # noqa: F403
    from ssl_lightning.backbones import *  # noqa: F403
    from ssl_lightning.commands.start import start as start
    from ssl_lightning.data import *  # noqa: F403
    from ssl_lightning.engine.quiet import quieten as quieten
    from ssl_lightning.evaluation import *  # noqa: F403
    from ssl_lightning.labelling import *  # noqa: F403
    from ssl_lightning.methods import *  # noqa: F403
    from ssl_lightning.supervised import *  # noqa: F403

__version__ = "0.1.0"
_ALONE = {"start": "commands.start", "quieten": "engine.quiet"}
_PARTS = ("methods", "supervised", "active", "data", "backbones", "labelling", "evaluation")


def __getattr__(name: str) -> Any:
    """Return a public name when it is first asked for."""
    if name in _ALONE:
        return getattr(import_module(f"ssl_lightning.{_ALONE[name]}"), name)
    if name == "__all__":  # of `import *`
        return [one for one in __dir__() if not one.startswith("_")]
    if not name.startswith("_"):
        for part in _PARTS:
            module = import_module(f"ssl_lightning.{part}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module `ssl_lightning` has no attribute `{name}`")


def __dir__() -> list[str]:
    """Return all public names, for tab completion."""
    return sorted({"__version__", *_ALONE, *_PARTS, *(name for part in _PARTS for name in _public(part))})


def _public(part: str) -> list[str]:
    names: list[str] = import_module(f"ssl_lightning.{part}").__all__
    return names
