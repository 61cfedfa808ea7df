"""The weak view of data: near to the sample, the same through whatever the data are wrapped in."""

from pathlib import Path

import pytest
import torch
from support import ColourDigits
from torch.utils.data import TensorDataset

from ssl_lightning.active import PoolDataModule
from ssl_lightning.data import DataModule, Digits, FromDataset, LabelledBy


def wrapped(folder: Path) -> list[DataModule | PoolDataModule]:
    (folder / "labels.csv").write_text("path,class\n0,0\n1,1\n")
    images = TensorDataset(torch.randint(256, (20, 3, 8, 8)).to(torch.uint8), torch.arange(20) % 2)
    labelled = LabelledBy(ColourDigits(), str(folder / "labels.csv"))
    return [ColourDigits(), labelled, PoolDataModule(ColourDigits()), FromDataset(images)]


@pytest.mark.parametrize("place", range(4))
def test_it_is_a_crop_of_most_of_the_image(place: int, tmp_path: Path) -> None:
    data = wrapped(tmp_path)[place]
    if isinstance(data, FromDataset):
        data.setup("fit")
    view = data.weak_views()
    assert view is not None
    bright = torch.full((500, 3, 32, 32), 0, dtype=torch.uint8)
    bright[:, :, :, :16] = 255  # the left half: what a crop and a mirror leave of it is seen
    made = view(bright, torch.Generator().manual_seed(0))
    seen = made[0] if isinstance(made, list) else made
    high = seen[:, 0].amax()
    left, right = (seen[:, 0, :, side] > high / 2 for side in (slice(0, 12), slice(20, 32)))
    straight = left.all(dim=(1, 2)) & ~right.any(dim=(1, 2))
    turned = right.all(dim=(1, 2)) & ~left.any(dim=(1, 2))
    assert (straight | turned).all()  # by crops of half the image one in ten is neither
    assert 0.4 < turned.float().mean() < 0.6
    assert torch.equal(seen[:, 0], seen[:, 1])  # colours stay


def test_writing_is_not_mirrored() -> None:
    bright = torch.zeros(300, 1, 32, 32, dtype=torch.uint8)
    bright[..., :16] = 255
    view = Digits().weak_views()
    assert view is not None
    made = view(bright, torch.Generator().manual_seed(0))
    seen = made[0] if isinstance(made, list) else made
    assert (seen[:, 0, :, :8].mean(dim=(1, 2)) > seen[:, 0, :, 24:].mean(dim=(1, 2))).all()
