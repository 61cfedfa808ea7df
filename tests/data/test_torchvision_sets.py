from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from ssl_lightning import data as sets


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN", "STL10"])
def test_layouts_become_one_uint8_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set in torchvision's own layout, with pixels that tell channel, row and column."""
    kind = getattr(sets, name)
    size, channels = kind.image_size, kind.channels
    c, h, w = np.meshgrid(np.arange(channels), np.arange(size), np.arange(size), indexing="ij")
    image = (50 * c + h + w // 2).astype(np.uint8)

    class Fake:
        def __init__(self, root: str, download: bool, train: bool | None = None, split: str | None = None) -> None:
            chw = np.stack([image] * 4)
            if name.endswith("MNIST"):
                self.data: Any = torch.from_numpy(chw[:, 0])
            elif name.startswith("CIFAR"):
                self.data = chw.transpose(0, 2, 3, 1)
            else:
                self.data = chw
            labels = [0, 1, 2, -1 if split == "train+unlabeled" else 3]
            if name in ("SVHN", "STL10"):
                self.labels = np.array(labels)
            else:
                self.targets = labels

    monkeypatch.setattr(torchvision.datasets, name, Fake)
    data = kind(val_size=0)
    data.setup()
    batch = data.train_samples.__getitems__([1, 3])
    assert torch.equal(batch.input, torch.from_numpy(np.stack([image] * 2)))
    assert batch.target.tolist() == [1, -1 if name == "STL10" else 3]


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN", "STL10"])
def test_missing_set_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"`root=.*` holds no {name} .*--data.download true"):
        getattr(sets, name)(root=str(tmp_path)).setup("fit")


def test_real_mnist(mnist_root: Path) -> None:
    data = sets.MNIST(root=str(mnist_root))
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    assert (len(data.train_samples), len(data.test_samples)) == (60_000, 10_000)
    assert data.train_samples.targets[:5].tolist() == [5, 0, 4, 1, 9]  # the well-known first digits
    assert len(data.val_indices) == 6_000
