from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from ssl_lightning.transforms.image import CleanView, StrongView
from ssl_lightning.transforms.image.strong_view import _COLOUR, MOVES, move, operations_of


def images(channels: int = 3, size: int = 12, count: int = 40) -> Tensor:
    return torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 17)])
def test_views_are_the_same_for_a_seed_and_differ_between_samples(channels: int, size: int) -> None:
    view, one = StrongView(), images(channels, size, 1).expand(30, -1, -1, -1)
    first = view(one, torch.Generator().manual_seed(1))
    assert torch.equal(first, view(one, torch.Generator().manual_seed(1)))
    assert first.shape == (30, channels, size, size)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert (first.min(), first.max()) >= (-2, -2)  # (x - 0.5) / 0.25 of pixels in [0, 1]
    assert first.max() <= 2
    assert len({tuple(row.flatten().tolist()) for row in first}) > 25


def test_nothing_to_do_is_the_clean_view() -> None:
    view = StrongView(operations=0, cover=0, crop_scale=(1, 1), flip=0)
    assert torch.allclose(view(images()), CleanView()(images()), atol=1e-5)


def test_a_samples_view_does_not_depend_on_the_others() -> None:
    """The parts that are done to all samples of an operation at once give what each alone gives."""
    view, batch = StrongView(), images()
    drawn: list[Tensor] = []
    rand = torch.rand

    def keep(*args: Any, **options: Any) -> Tensor:
        drawn.append(rand(*args, **options))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", keep)
        whole = view(batch)
    for place in (0, 7, 39):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, place=place, **__: drawn[0][place : place + 1])
            assert torch.allclose(view(batch[place : place + 1])[0], whole[place], atol=1e-5)


@pytest.mark.parametrize("strength", [-0.9, 0.0, 0.6])
def test_operations_are_torchvisions(strength: float) -> None:
    rows = images(3, 16, 4).float() / 255
    strengths = torch.full((4,), strength)
    factor = 1 + 0.95 * strength
    wanted = {
        "autocontrast": vision.autocontrast(rows),
        "brightness": vision.adjust_brightness(rows, factor),
        "contrast": vision.adjust_contrast(rows, factor),
        "saturation": vision.adjust_saturation(rows, factor),
        "sharpness": vision.adjust_sharpness(rows, factor),
        "solarize": vision.solarize(rows, (1 + strength) / 2),
        "equalize": vision.equalize((rows * 255).round().to(torch.uint8)).float() / 255,
        "posterize": vision.posterize((rows * 255).round().to(torch.uint8), round(6 + 2.5 * strength)).float() / 255,
    }
    assert wanted.keys() == _COLOUR.keys()
    for name, result in wanted.items():
        found = _COLOUR[name](rows, strengths)
        assert torch.allclose(found, result, atol=2e-3), name


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_torchvisions(name: str) -> None:
    """Up to the direction, which is drawn evenly anyway, and the interpolation at the border."""
    size = 20
    rows = torch.zeros(1, 1, size, size)
    rows[..., 6:14, 8:12] = 1
    found = move(rows, [name], torch.tensor([0.5]))
    options: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    degrees = float(torch.tensor(0.15).atan().rad2deg())
    turned = {
        "rotate": {"angle": -15.0}, "shear_x": {"shear": [-degrees, 0.0]}, "shear_y": {"shear": [0.0, -degrees]},
        "translate_x": {"translate": [3, 0]}, "translate_y": {"translate": [0, 3]},
    }[name]  # fmt: skip
    bilinear = vision.InterpolationMode.BILINEAR
    wanted = vision.affine(rows, **{**options, **turned}, interpolation=bilinear)
    other = {key: [-part for part in value] if isinstance(value, list) else -value for key, value in turned.items()}
    mirrored = vision.affine(rows, **{**options, **other}, interpolation=bilinear)
    assert min(float((found - result).abs().mean()) for result in (wanted, mirrored)) < 0.005
    assert (found - rows).abs().max() > 0.2


def test_gray_images_have_no_saturation() -> None:
    assert "saturation" in operations_of(3)
    assert "saturation" not in operations_of(1)
    assert len(operations_of(3)) == 14  # of FixMatch's table


def test_the_square_is_no_larger_than_said() -> None:
    view = StrongView(operations=0, cover=0.5, crop_scale=(1, 1), flip=0)
    covered = view(torch.full((200, 1, 20, 20), 255, dtype=torch.uint8), torch.Generator().manual_seed(0)) == 0
    sides = covered[:, 0].any(dim=1).sum(dim=1)
    assert sides.max() == 10
    assert (sides == 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": -1}, "`operations=-1` must be at least 0"),
        ({"cover": 1.5}, "`cover=1.5`"),
        ({"crop_scale": (0.9, 0.1)}, "`crop_scale="),
        ({"flip": 2}, "`flip=2`"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StrongView(**options)
