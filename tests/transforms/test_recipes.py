import pytest
import torch

from ssl_lightning.transforms.base import clean_of
from ssl_lightning.transforms.image import BYOLViews, MultiCropViews

IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_multi_crop_has_large_and_small_views() -> None:
    views = MultiCropViews(local_count=3, local_size=12)(IMAGES, generator())
    assert [view.shape[-1] for view in views] == [32, 32, 12, 12, 12]
    assert [view.shape[-1] for view in MultiCropViews(local_count=2)(IMAGES[..., :20, :20])] == [20, 20, 10, 10]
    assert len(MultiCropViews(local_count=0)(IMAGES)) == 2


def test_small_crops_show_a_smaller_part() -> None:
    """On a ramp from left to right, a crop's range of gray is its share of the width."""
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).view(1, 1, 1, 64).expand(200, 1, 64, 64)
    views = MultiCropViews(global_scale=(0.5, 1.0), local_scale=(0.05, 0.2), strength=0, flip=0)(ramp, generator())
    ranges = [(view.amax((1, 2, 3)) - view.amin((1, 2, 3))) for view in views]
    assert ranges[0].min() > ranges[2].max()


def test_same_seed_same_views() -> None:
    for recipe in (MultiCropViews(), BYOLViews()):
        one, other = recipe(IMAGES, generator(4)), recipe(IMAGES, generator(4))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert not torch.equal(one[0], recipe(IMAGES, generator(5))[0])
        assert not torch.equal(one[0], one[1])


def test_byol_blurs_the_first_view_and_solarizes_some_of_the_second() -> None:
    """A checkerboard loses its contrast by blurring; a dark image turns bright by solarizing only if it was bright."""
    options = {"crop_scale": (1.0, 1.0), "flip": 0, "strength": 0, "grayscale": 0}
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255
    boards = board.to(torch.uint8).expand(300, 3, 32, 32)
    first, second = BYOLViews(solarize=(0, 0), **options)(boards, generator())  # type: ignore[arg-type]
    sharp = second.std((1, 2, 3)) > 1.9
    assert 0.8 < sharp.float().mean() < 0.97  # a tenth is blurred
    assert (first.std((1, 2, 3)) < 1.9).float().mean() > 0.8  # a small sigma blurs little
    bright = torch.full((300, 3, 32, 32), 255, dtype=torch.uint8)
    first, second = BYOLViews(**options)(bright, generator())  # type: ignore[arg-type]
    assert (first.mean((1, 2, 3)) > 0).all()
    assert 0.1 < (second.mean((1, 2, 3)) < 0).float().mean() < 0.3


def test_normalisation_is_found() -> None:
    for recipe in (MultiCropViews(mean=0.3, std=0.2), BYOLViews(mean=0.3, std=0.2)):
        assert clean_of(recipe).mean == (0.3,)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"`local_count=-1` must be at least 0"):
        MultiCropViews(local_count=-1)
