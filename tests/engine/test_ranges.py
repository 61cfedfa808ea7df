"""What is refused, and how it is said."""

import math
import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from ssl_lightning import active, backbones
from ssl_lightning.active.stream import Threshold
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.ranges import (
    above,
    at_least,
    at_most,
    between,
    given,
    layers,
    one_of,
    ordered,
    rates,
    seeds,
    several,
    sizes,
    text,
    whole,
)
from ssl_lightning.evaluation import KNN, CollapseMonitor, OnlineLinearProbe, Pictures
from ssl_lightning.labelling import GroundTruth
from ssl_lightning.methods import Inpainting, RelativePosition


@pytest.mark.parametrize("value", [True, 2.0, "2", None, math.nan, [2], torch.tensor(2)])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^`width=.*` must be a whole number, at least 1\.$"):
        whole(1, width=value)


@pytest.mark.parametrize("value", [True, "2", None, math.nan, math.inf, -math.inf, (1.0,)])
@pytest.mark.parametrize("require", [lambda x: above(0, x=x), lambda x: at_least(0, x=x), lambda x: between(0, 9, x=x)])
def test_what_is_no_finite_number(require: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^`x=.*` must be a finite number (above|at least|from) 0"):
        require(value)


def test_the_ends_of_intervals() -> None:
    for ends, low, high in (("[]", True, True), ("[)", True, False), ("(]", False, True), ("()", False, False)):
        for value, fits in ((0.0, low), (1.0, high), (0.5, True), (-1e-9, False), (1 + 1e-9, False)):
            if fits:
                between(0, 1, ends, value=value)  # type: ignore[arg-type]
            else:
                with pytest.raises(ValueError, match="`value="):
                    between(0, 1, ends, value=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.4, (0.2,), (0.5, 0.2), (0.0, 1.0), (0.2, 1.1), (0.2, math.nan), "01", None])
def test_pairs(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`crop_scale=.*` must be two numbers, each above 0 and at most 1, the sma"):
        ordered(0, 1, "(]", crop_scale=value)


def test_what_fits_passes_without_a_word() -> None:
    whole(0, 5, count=5, other=np.int64(0))
    above(0, lr=1e-9, other=np.float32(1))
    at_least(0, noise=0)
    ordered(0, 1, scale=[0.5, 0.5])
    several(2, 0, 1, blur=(1.0, 0.0))
    one_of(("a", 1), first="a", second=1)
    whole(1, **given(limit=None))


def test_the_first_that_does_not_fit_is_named_with_its_remedy() -> None:
    with pytest.raises(ValueError, match=r"^`dim=0` must be at least 1; take 64\.$"):
        whole(1, math.inf, "take 64", width=3, dim=0)
    with pytest.raises(ValueError, match=r"^`version=True` must be one of 1, 2\.$"):
        one_of((1, 2), version=True)
    with pytest.raises(ValueError, match=r"^`rows=a tensor of shape \(2, 3\)` must be a finite number above 0\.$"):
        above(0, rows=torch.zeros(2, 3))


def test_sizes_depths_rates_and_seeds() -> None:
    sizes(1, width=1_000_000)
    layers(depth=1000)
    rates(lr=0, weight_decay=1000.0)
    seeds(seed=2**32 - 1)
    several(None, 0, 1, decays=(0.5, 1))
    text(name="resnet18")
    for require, message in (
        (lambda: sizes(6, "take `ConvNet`", image_size=5), "`image_size=5` must be at least 6; take `ConvNet`."),
        (lambda: sizes(1, width=10**12), "`width=1000000000000` must be at most 1000000."),
        (lambda: layers(depth=1001), "`depth=1001` must be at most 1000."),
        (lambda: rates(lr=1e99), "`lr=1e+99` must be at most 1000; whatever is larger diverges."),
        (lambda: at_most(1, x=math.nan), "`x=nan` must be a finite number at most 1."),
        (lambda: seeds(seed=2**32), "`seed=4294967296` must be from 0 to 4294967295."),
        (lambda: several(None, 0, 1, decays=()), "`decays=()` must be one or more numbers, each from 0 to 1."),
        (lambda: text(name=""), "`name=''` must be text, and not empty."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            require()


def test_a_number_too_large_for_a_float_is_compared() -> None:
    at_least(0, x=10**400)
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        between(0, 1, x=10**400)


REQUIRED: dict[Any, dict[str, Any]] = {
    active.PoolDataModule: {"data": Digits()},
    active.Budget: {"labels": 50},
    active.TargetAccuracy: {"accuracy": 0.9},
    backbones.Flat: {"feature_dim": 8},
    backbones.MLP: {"feature_dim": 8},
    backbones.Torchvision: {"name": "resnet18"},
    backbones.Timm: {"name": "resnet18"},
    Inpainting: {"backbone": ConvNet(width=4)},
    RelativePosition: {"backbone": ConvNet(width=4)},
}
BASE = active.AcquisitionStrategy
STRATEGIES = [k for k in vars(active).values() if isinstance(k, type) and issubclass(k, BASE) and k is not BASE]
KINDS = [
    *REQUIRED, *STRATEGIES, active.NoGain, active.StablePredictions, active.PoolCases, Threshold, GroundTruth, KNN,
    CollapseMonitor, OnlineLinearProbe, Pictures, backbones.ConvNet, backbones.StridedNet, backbones.LeNet,
    backbones.ResNet, backbones.ViT,
]  # fmt: skip
NONSENSE = {int: (True, 1.5, math.nan, math.inf, "foo", [], -3), float: (True, math.nan, math.inf, "foo", [], -3.0)}


def wrong_values() -> list[Any]:
    """Return class, argument and value, of every argument that is a number, a choice or text."""
    found = []
    for kind in KINDS:
        for name, hint in get_type_hints(kind.__init__).items():
            parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
            values: list[Any] = [value for part in parts for value in NONSENSE.get(part, ())]
            if get_origin(hint) is Literal:
                values += ["foo", 0, []]
            if hint is str:
                values += [0, 1.5, []]
            if values and type(None) not in parts:
                values.append(None)
            found += [pytest.param(kind, name, value, id=f"{kind.__name__}.{name}={value}") for value in values]
    return found


def test_all_strategies_are_asked() -> None:
    assert len(STRATEGIES) == 20


@pytest.mark.parametrize(("kind", "name", "value"), wrong_values())
def test_every_constructor_names_what_does_not_fit(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^`{name}={re.escape(repr(value))}` must be "):
        kind(**{**REQUIRED.get(kind, {}), name: value})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (backbones.Flat, "feature_dim"), (backbones.MLP, "width"), (backbones.MLP, "depth"),
        (backbones.ConvNet, "width"), (backbones.StridedNet, "image_size"), (backbones.LeNet, "image_size"),
        (backbones.ResNet, "channels"), (backbones.ViT, "image_size"), (backbones.ViT, "depth"),
        (backbones.ViT, "dim"), (backbones.ViT, "mlp_dim"), (backbones.Torchvision, "image_size"),
        (Inpainting, "image_size"), (Inpainting, "latent_dim"), (RelativePosition, "hidden_dim"),
        (active.VAAL, "width"), (active.VAAL, "latent_dim"),
    ],
)  # fmt: skip
def test_an_absurd_size_is_refused_before_anything_is_built(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^`{name}=1000000000000` must be at most 1000"):
        kind(**{**REQUIRED.get(kind, {}), name: 10**12})


def test_a_grid_that_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match=r"`grid=2` is none of `RelativePosition`, whose tiles are 3 x 3.*`Jigsaw`"):
        RelativePosition(ConvNet(width=4), grid=2)
