"""Anybody's own folder of images, labelled by its sub-folders or not labelled at all."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from ssl_lightning.data.base import Batch, ImageData, Images, TensorImages
from ssl_lightning.seeding import derive_generator

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


def decode(path: Path, channels: int, size: int) -> Tensor:
    """Read one image, scale its shorter side to `size` and crop the centre.

    Args:
        path: Of the file.
        channels: 1 for gray, 3 for colour.
        size: Side of the result in pixels.

    Returns:
        Pixels `(channels, size, size)`, uint8.

    Raises:
        ValueError: If the file is no readable image; the message names it.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"`{path}` is no readable image ({error}); replace or remove it, or skip such files by `skip_corrupt=true`."
        ) from error
    pixels: Tensor = F.pil_to_tensor(image)
    if pixels.shape[1:] != (size, size):
        pixels = F.center_crop(F.resize(pixels, [size], antialias=True), [size, size])
    return pixels


class LazyImages(Dataset[Batch]):
    """Images decoded when asked for, where they are too many to keep; use `num_workers`.

    Args:
        paths: Files.
        targets: `(N,)`, int64.
        channels: 1 or 3.
        size: Side in pixels.
    """

    def __init__(self, paths: Sequence[Path], targets: Tensor, channels: int, size: int) -> None:
        self.paths, self.targets, self.channels, self.size = paths, targets, channels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        return Batch(decode(self.paths[index], self.channels, self.size), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        images = torch.stack([decode(self.paths[index], self.channels, self.size) for index in indices])
        return Batch(images, self.targets[indices], torch.as_tensor(indices))


class ImageFolder(ImageData):
    """Your own folder of images: `root/CLASS/image.jpg`, or `root/image.jpg` without labels, or either under `train` and `test`.

    Without a `test` folder, `test_size` of the images are set apart. Images are scaled to one size and kept in memory as
    far as `memory_gib` goes, else decoded when needed.

    Args:
        root: The folder.
        image_size: Side of the images in pixels after scaling and centre crop.
        channels: 3 for colour, 1 for gray.
        test_size: Fraction of the images for test where there is no `test` folder.
        skip_corrupt: Leave unreadable files out and count them, instead of stopping at the first.
        memory_gib: Keep decoded images in memory up to this many GiB a part.
        kwargs: As for `ImageData`.

    Raises:
        ValueError: If the folder is missing or empty, a class has no image, or a file is unreadable.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        channels: Literal[1, 3] = 3,
        test_size: float = 0.2,
        skip_corrupt: bool = False,
        memory_gib: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 8 <= image_size <= 1024:
            raise ValueError(f"`image_size={image_size}` must be from 8 to 1024 pixels.")
        if not 0 < test_size < 1:
            raise ValueError(f"`test_size={test_size}` must be a fraction between 0 and 1.")
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(f"`root={root}` is no folder ({self.root.resolve()}); give the folder that holds the images.")
        self.image_size, self.channels = image_size, channels
        self.test_size, self.skip_corrupt, self.memory_gib = test_size, skip_corrupt, memory_gib
        train = self.root / "train"
        self._train_folder = train if train.is_dir() else self.root
        self._test_folder = self.root / "test" if train.is_dir() and (self.root / "test").is_dir() else None
        self.class_names = tuple(sorted(path.name for path in self._train_folder.iterdir() if path.is_dir()))
        self.num_classes = max(1, len(self.class_names))

    def load(self, split: Literal["train", "test"]) -> Images:
        """List and decode one part."""
        if self._test_folder is not None:
            paths, targets = self._list(self._test_folder if split == "test" else self._train_folder)
        else:
            paths, targets = self._list(self._train_folder)
            order = torch.randperm(len(paths), generator=derive_generator(self.split_seed, "folder"))
            test = max(1, round(self.test_size * len(paths)))
            part = (order[:test] if split == "test" else order[test:]).sort().values
            paths, targets = [paths[i] for i in part.tolist()], targets[part]
        if self.skip_corrupt:
            paths, targets = self._without_corrupt(paths, targets)
        lazy = LazyImages(paths, targets, self.channels, self.image_size)
        if len(paths) * self.channels * self.image_size**2 > self.memory_gib * 2**30:
            return lazy
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda path: decode(path, self.channels, self.image_size), paths))
        return TensorImages(torch.stack(images), targets)

    def _list(self, folder: Path) -> tuple[list[Path], Tensor]:
        paths: list[Path] = []
        targets: list[int] = []
        for target, name in enumerate(self.class_names):
            found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"class folder `{folder / name}` holds no image; add some, or remove it from every part.")
            paths += found
            targets += [target] * len(found)
        strangers = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(self.class_names))
        if strangers:
            raise ValueError(f"`{folder}` has classes that the training part lacks: {', '.join(strangers)}; make them agree.")
        if not self.class_names:
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
            targets = [-1] * len(paths)
        if len(paths) < 2:
            raise ValueError(f"`root={self.root}` holds {len(paths)} images; required are at least 2 ({', '.join(sorted(SUFFIXES))}).")
        return paths, torch.tensor(targets)

    def _without_corrupt(self, paths: list[Path], targets: Tensor) -> tuple[list[Path], Tensor]:
        def readable(path: Path) -> bool:
            try:
                decode(path, self.channels, self.image_size)
            except ValueError as error:
                rank_zero_info(str(error))
                return False
            return True

        with ThreadPoolExecutor() as pool:
            good = torch.tensor(list(pool.map(readable, paths)), dtype=torch.bool)
        if not good.all():
            names = [str(path) for path, fine in zip(paths, good.tolist(), strict=True) if not fine]
            rank_zero_warn(f"skipped {len(names)} unreadable of {len(paths)} images: {', '.join(names[:5])}{' ...' * (len(names) > 5)}")
        if not good.any():
            raise ValueError(f"no image under `root={self.root}` is readable.")
        return [path for path, fine in zip(paths, good.tolist(), strict=True) if fine], targets[good]
