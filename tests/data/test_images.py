from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data import ImageFolder
from ssl_lightning.data.decoding import decode
from ssl_lightning.data.images import LazyImages, decode_all


def write(path: Path, value: int, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten images; the pixels tell class and number."""
    for place, name in enumerate(["cat", "dog"]):
        for number in range(10):
            write(tmp_path / "pets" / name / f"{number}.png", 100 * place + number)
    return tmp_path / "pets"


def test_labelled_folder(folder: Path) -> None:
    data = ImageFolder(str(folder), image_size=8, test_size=0.5)
    data.setup()
    assert (data.num_classes, data.class_names, data.channels, data.image_size) == (2, ("cat", "dog"), 3, 8)
    seen = []
    for part in (data.train_samples, data.test_samples):
        assert part is not None
        batch = part.__getitems__(list(range(len(part))))
        assert batch.input.dtype == torch.uint8
        values = batch.input[:, 0, 0, 0].long()
        assert torch.equal(values // 100, batch.target)
        seen += values.tolist()
    assert sorted(seen) == [*range(10), *range(100, 110)]
    assert 4 <= len(data.test_samples) <= 16  # type: ignore[arg-type]


def test_a_sample_never_changes_sides(folder: Path) -> None:
    def test_keys() -> set[str]:
        data = ImageFolder(str(folder), image_size=8, test_size=0.5, val_size=0)
        data.setup()
        return set(data.test_samples.keys)  # type: ignore[union-attr]

    before = test_keys()
    for number in range(40):
        write(folder / "ant" / f"{number}.png", number)
    (folder / "dog" / "3.png").unlink()
    after = test_keys()
    assert before - {"dog/3.png"} == {key for key in after if not key.startswith("ant")}
    assert 8 < sum(key.startswith("ant") for key in after) < 32


def test_classes_missing_from_a_part_are_said(folder: Path) -> None:
    for path in sorted((folder / "dog").iterdir())[1:]:
        path.unlink()
    with pytest.warns(UserWarning, match=r"the (test|training) part has no sample of 1 of 2 classes: `dog`; give such"):
        ImageFolder(str(folder), image_size=8).setup()


def test_what_is_beside_class_folders_is_unlabelled(folder: Path) -> None:
    write(folder / "loose.png", 7)
    write(folder / "unlabelled" / "a.png", 8)
    write(folder / ".thumbnails" / "b.png", 9)
    with pytest.warns(UserWarning, match="unlabelled"):
        (data := ImageFolder(str(folder), image_size=8)).setup()
    assert data.class_names == ("cat", "dog")
    samples = data.train_samples
    assert samples is not None
    assert [key for key, target in zip(samples.keys, samples.targets.tolist(), strict=True) if target < 0] == [
        "loose.png", "unlabelled/a.png",
    ]  # fmt: skip


def test_a_folder_for_validation(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "train")
    write(tmp_path / "validation" / "cat" / "v.png", 1)
    data = ImageFolder(str(tmp_path), image_size=8, test_size=0)
    data.setup()
    assert data.train_samples is not None
    assert [data.train_samples.keys[place] for place in data.val_indices.tolist()] == ["validation/cat/v.png"]
    assert len(data.train_indices) == 20


def test_unlabelled_folder(folder: Path) -> None:
    data = ImageFolder(str(folder / "cat"), image_size=8, val_size=2)
    data.setup("fit")
    assert data.train_samples is not None
    assert (data.train_samples.targets == -1).all()
    assert (data.num_classes, len(data.train_indices)) == (1, 8)  # without labels there is nothing to test


def test_train_and_test_folders(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "train")
    write(tmp_path / "test" / "cat" / "a.png", 1)
    write(tmp_path / "test" / "dog" / "b.png", 101)
    data = ImageFolder(str(tmp_path), image_size=8)
    data.setup()
    assert (len(data.train_samples), len(data.test_samples)) == (20, 2)  # type: ignore[arg-type]


def test_gray_and_scaling(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200  # the centre
    Image.fromarray(pixels).save(path)
    gray = decode(path, channels=1, size=10)
    assert gray.shape == (1, 10, 10)
    assert (gray[:, :, 1:-1] == 200).all()


def test_lazy_images_are_those_in_memory(folder: Path) -> None:
    kept, lazy = ImageFolder(str(folder), image_size=8), ImageFolder(str(folder), image_size=8, memory_gib=0)
    for data in (kept, lazy):
        data.setup("fit")
    assert isinstance(lazy.train_samples, LazyImages)
    one, other = (data.train_samples.__getitems__([3, 0, 5]) for data in (kept, lazy))  # type: ignore[union-attr]
    assert torch.equal(one.input, other.input)
    assert torch.equal(one.target, other.target)


def test_corrupt_image_is_named(folder: Path) -> None:
    (folder / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png` is no readable image .* `skip_corrupt=true`"):
        ImageFolder(str(folder), image_size=8).setup()


def test_truncated_image_is_corrupt(folder: Path) -> None:
    path = folder / "dog" / "3.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"3\.jpg` is no readable image"):
        ImageFolder(str(folder), image_size=8).setup()


def test_corrupt_images_are_skipped_and_counted_by_option(folder: Path) -> None:
    (folder / "dog" / "3.png").write_bytes(b"no image")
    data = ImageFolder(str(folder), image_size=8, skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"skipped 1 unreadable of [0-9]+ images: .*3\.png"):
        data.setup()
    assert len(data.train_samples) + len(data.test_samples) == 19  # type: ignore[arg-type]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`root=.*nowhere` is no folder"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_empty_class(folder: Path) -> None:
    (folder / "bird").mkdir()
    with pytest.warns(UserWarning, match=r"folder `bird` holds no picture"):
        (data := ImageFolder(str(folder))).setup()
    assert data.class_names == ("cat", "dog")


def test_class_only_in_test(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "train")
    for name in ("cat", "dog", "bird"):
        write(tmp_path / "test" / name / "a.png", 1)
    with pytest.warns(UserWarning, match=r"the training part has no sample of 1 of 3 classes: `bird`"):
        (data := ImageFolder(str(tmp_path), image_size=8)).setup()
    assert data.class_names == ("bird", "cat", "dog")


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no picture"):
        ImageFolder(str(tmp_path)).setup()


def test_any_number_of_threads_decodes_alike_and_names_a_damaged_file(folder: Path) -> None:
    paths = sorted(folder.glob("*/*.png"))
    one = decode_all(paths, 3, 8, threads=1)
    assert one[:, 0, 0, 0].tolist() == [100 * (path.parent.name == "dog") + int(path.stem) for path in paths]
    for threads in (2, 30, None):
        assert torch.equal(decode_all(paths, 3, 8, threads), one)
    paths[7].write_bytes(b"no image")
    for threads in (1, 2):
        with pytest.raises(ValueError, match=rf"{paths[7].name}` is no readable image"):
            decode_all(paths, 3, 8, threads)
