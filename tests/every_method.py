"""All concrete methods, each built for the digits."""

import inspect
from typing import Any

import lightning as L
from support import ColourDigits, LargeDigits

from ssl_lightning.backbones import ConvNet, ViT
from ssl_lightning.data import Digits
from ssl_lightning.methods import MAE, Colorization, RelativePosition, SimMIM, SSLMethod


def concrete(base: type[SSLMethod]) -> list[type[SSLMethod]]:
    """Return this package's classes below a base that are no base themselves."""
    below = [kind for kind in base.__subclasses__() if kind.__module__.startswith("ssl_lightning.")]
    return [kind for child in below for kind in concrete(child)] or [base]


METHODS = [kind for kind in concrete(SSLMethod) if not kind.takes or "images" in kind.takes]
DIGITS = {RelativePosition: LargeDigits, Colorization: ColourDigits}  # 8 px are too small, or too gray
PATCHES = {MAE, SimMIM}
NARROW = 64


def digits_for(kind: type[L.LightningModule], **options: Any) -> Digits:
    """Return the digits, enlarged or coloured where a method needs it."""
    return DIGITS.get(kind, Digits)(**options)


def takes(kind: type[SSLMethod], name: str) -> bool:
    """Tell whether a method, or what it is next of kin to, has an option."""
    return any(name in inspect.signature(parent).parameters for parent in kind.__mro__[:2])


def make(kind: type[SSLMethod], **options: Any) -> SSLMethod:
    """Build a method for the digits, whose heads are narrow."""
    options = {**{name: NARROW for name in ("projection_dim", "hidden_dim") if takes(kind, name)}, **options}
    if takes(kind, "image_size"):
        options["image_size"] = 8
    if kind in PATCHES:
        return kind(ViT(1, 8, patch_size=2, dim=16, depth=2, heads=2), **options)  # type: ignore[arg-type]
    return kind(ConvNet(channels=3 if kind is Colorization else 1, width=4), **options)  # type: ignore[arg-type]
