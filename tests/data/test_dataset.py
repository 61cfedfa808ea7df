"""Anybody's data set as a data module: keys, labels, pictures, and what is refused."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from ssl_lightning.data import FromDataset
from ssl_lightning.data.foreign import input_of
from ssl_lightning.transforms.base import Unchanged


class Made(Dataset[Any]):
    """Samples by a function of their place."""

    def __init__(self, make: Callable[[int], Any], count: int = 30, **attributes: Any) -> None:
        self.make, self.count = make, count
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        if place >= self.count:
            raise IndexError
        return self.make(place)


class Named(TensorDataset):
    """Tensors with names of classes."""

    def __init__(self, classes: list[str], *tensors: torch.Tensor) -> None:
        super().__init__(*tensors)
        self.classes = classes


ROWS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def sides(data: FromDataset) -> dict[bytes, str]:
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    found = {}
    for samples, name in ((data.train_samples, "train"), (data.test_samples, "test")):
        batch = samples.__getitems__(list(range(len(samples))))
        for place, row in enumerate(batch.input):
            val = name == "train" and place in data.val_indices.tolist()
            found[row.numpy().tobytes()] = "val" if val else name
    return found


def test_keys_are_content_so_that_samples_keep_their_sides_and_names() -> None:
    targets = torch.arange(30) % 2
    before = FromDataset(TensorDataset(ROWS, targets))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))[:25]
    new = torch.cat([torch.full((1, 3), 7.0), ROWS[order]])
    after = FromDataset(TensorDataset(new, torch.cat([torch.tensor([0]), targets[order]])))
    there, here = sides(before), sides(after)
    assert {there[row] for row in here if row in there} == {"train", "val", "test"}
    assert all(here[row] == there[row] for row in here if row in there)


def test_exact_copies_are_on_one_side() -> None:
    data = FromDataset(TensorDataset(torch.cat([ROWS, ROWS]), torch.arange(60) % 2), val_size=0.3, test_size=0.4)
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    rows = [
        samples.__getitems__(list(range(len(samples)))).input for samples in (data.train_samples, data.test_samples)
    ]
    train, val = rows[0][data.train_indices], rows[0][data.val_indices]
    parts = [{row.numpy().tobytes() for row in part} for part in (train, val, rows[1])]
    assert all(parts)
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 30


def test_changed_content_under_given_keys_has_another_fingerprint() -> None:
    keys = [f"s{place}" for place in range(30)]
    one, other = (FromDataset(TensorDataset(rows), keys=keys) for rows in (ROWS, ROWS.flip(0)))
    for data in (one, other):
        data.setup()
    assert one.fingerprint("s3") == one.fingerprint("s3") != other.fingerprint("s3")
    unnamed = FromDataset(TensorDataset(ROWS))
    unnamed.setup()
    assert unnamed.train_samples is not None
    assert unnamed.fingerprint(unnamed.train_samples.keys[0]) is None  # its key is its content


def test_samples_that_differ_at_each_reading_have_numbers_for_keys_and_it_is_said() -> None:
    with pytest.warns(UserWarning, match="differ from one reading to the next"):
        data = FromDataset(Made(lambda place: (torch.rand(3), 0)), test_size=0, val_size=0)
    data.setup("fit")
    assert data.train_samples is not None
    assert list(data.train_samples.keys[:2]) == ["0", "1"]


def test_a_file_list_gives_keys_paths_and_fingerprints(tmp_path: Any) -> None:
    for name, level in (("cat/1.png", 0), ("dog/2.png", 255)):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (8, 8), level).save(tmp_path / name)
    listed = [(str(tmp_path / "cat/1.png"), 0), (str(tmp_path / "dog/2.png"), 1)]
    data = FromDataset(
        Made(lambda place: (Image.open(listed[place][0]), listed[place][1]), 2, samples=listed, root=str(tmp_path)),
        test_size=0, val_size=0,
    )  # fmt: skip
    data.setup("fit")
    assert data.train_samples is not None
    assert list(data.train_samples.keys) == ["cat/1.png", "dog/2.png"]
    assert data.path_of("cat/1.png") == listed[0][0]
    assert data.fingerprint("cat/1.png") != data.fingerprint("dog/2.png")


def test_classes_of_a_test_set_are_compared_by_name() -> None:
    whole = Named(["cat", "dog", "owl"], ROWS, torch.arange(30) % 3)
    data = FromDataset(whole, test=Named(["dog"], ROWS[:4], torch.zeros(4, dtype=torch.int64)))
    data.setup()
    assert data.test_samples is not None
    assert data.test_samples.targets.tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="`test` has the classes fox, which are not among cat, dog, owl"):
        FromDataset(whole, test=Named(["fox"], ROWS[:4], torch.zeros(4, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (lambda place: "ab"[place % 2], [0, 1, 0]),
        (lambda place: float(place % 3), [0, 1, 2]),
        (lambda place: torch.tensor([place % 3]), [0, 1, 2]),
        (lambda place: np.int32(place % 3), [0, 1, 2]),
        (lambda place: bool(place % 2), [0, 1, 0]),
        (lambda place: None if place else 1, [1, -1, -1]),
    ],
)
def test_labels_of_any_whole_kind_are_read(label: Any, expected: list[int]) -> None:
    data = FromDataset(Made(lambda place: (ROWS[place], label(place))), test_size=0, val_size=0)
    data.setup("fit")
    assert data.train_samples is not None
    assert data.train_samples.targets[:3].tolist() == expected


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda place: place * 0.3, "must be whole numbers"),
        (lambda place: torch.eye(3)[place % 3], "the label of sample 0 is `.1.0, 0.0, 0.0.`"),
        (lambda place: float("nan"), "the label of sample 0 is `nan`"),
        (lambda place: {"a": 1}, "the label of sample 0 is `{'a': 1}`"),
        (lambda place: -5, "a label of `dataset` is -5"),
    ],
)
def test_labels_that_are_no_class_are_refused(label: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FromDataset(Made(lambda place: (ROWS[place], label(place)))).setup()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (TensorDataset, "`dataset=TensorDataset` is no map-style data set that is built"),
        ("folder", "`dataset=str` is no map-style data set"),
        (None, "`dataset=NoneType` is no map-style data set"),
        (Made(lambda place: {"image": ROWS[place]}), "a sample of the data set is dict"),
    ],
)
def test_what_is_no_data_set_is_refused(dataset: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FromDataset(dataset)


def test_pictures_are_made_as_a_person_sees_them() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (16, 1)))
    assert float(input_of(ramp).float().mean()) == pytest.approx(127.5, abs=0.5)
    assert input_of(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))[:, 0, 0].tolist() == [255, 255, 255]
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=exif)
    assert input_of(Image.open(buffer)).shape == (3, 16, 8)


def test_arrays_have_channels_last_and_numbers_of_32_bits() -> None:
    assert input_of(np.zeros((8, 9, 3), np.uint8)).shape == (3, 8, 9)
    assert input_of(np.zeros(7)).dtype == torch.float32


def test_images_that_are_normalised_already_stay_as_they_are() -> None:
    images, targets = torch.randn(20, 3, 8, 8), torch.arange(20) % 2
    data = FromDataset(TensorDataset(images, targets))
    assert isinstance(data.clean(), Unchanged)
    assert data.views() is None
    assert FromDataset(TensorDataset(images.sigmoid(), targets)).views() is not None


def targets_in(data: FromDataset) -> list[int]:
    data.setup("fit")
    assert data.train_samples is not None
    return data.train_samples.targets.tolist()


NONE_APART: Any = {"val_size": 0, "test_size": 0}


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (["b", "c"], [0, 1]),
        (["a", "b", "c"], [1, 2]),  # its classes among others: by name
        (["c", "b"], [1, 0]),
        (["x", "y"], [0, 1]),  # renamed: by place
    ],
)
def test_given_class_names_are_matched_by_name_or_are_new_ones(class_names: list[str], expected: list[int]) -> None:
    data = FromDataset(Named(["b", "c"], ROWS[:2], torch.arange(2)), class_names=class_names, **NONE_APART)
    assert data.class_names == tuple(class_names)
    assert targets_in(data) == expected


@pytest.mark.parametrize("class_names", [["b", "x"], ["x"], ["x", "y", "z"]])
def test_class_names_that_are_neither_are_refused(class_names: list[str]) -> None:
    with pytest.raises(ValueError, match="the data set has the classes b, c, and `class_names` are"):
        FromDataset(Named(["b", "c"], ROWS[:2], torch.arange(2)), class_names=class_names)


def test_a_renamed_class_is_found_in_the_test_set_by_its_old_name() -> None:
    old, test = Named(["a", "b"], ROWS, torch.arange(30) % 2), Named(["b", "a"], -ROWS[:3], torch.tensor([0, 1, 0]))
    data = FromDataset(old, test=test, class_names=["x", "y"])
    data.setup()
    assert data.test_samples is not None
    assert data.test_samples.targets.tolist() == [1, 0, 1]


def test_what_a_data_set_returns_counts_not_what_it_lists() -> None:
    class Flipped(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            row, target = super().__getitem__(index)
            return row, 1 - target

    assert targets_in(FromDataset(Flipped(ROWS[:4], torch.tensor([0, 1, 1, 0])), **NONE_APART)) == [1, 0, 0, 1]
    listed = Made(lambda place: (ROWS[place], 1 - place % 2), 4, targets=[0, 1, 0, 1])
    assert targets_in(FromDataset(listed, **NONE_APART)) == [1, 0, 1, 0]
    names = Made(lambda place: (ROWS[place], place), 2, labels=["cat", "dog"])
    assert targets_in(FromDataset(names, **NONE_APART)) == [0, 1]
    apart = Made(lambda place: ROWS[place], 3, targets=[2, 0, 1])  # listed, and not returned
    assert targets_in(FromDataset(apart, **NONE_APART)) == [2, 0, 1]


def test_parts_and_sums_of_data_sets_keep_the_names_of_classes() -> None:
    whole = Named(["cat", "dog"], ROWS, torch.arange(30) % 2)
    for data in (Subset(whole, range(5, 20)), ConcatDataset([Subset(whole, range(10)), whole])):
        assert FromDataset(data).class_names == ("cat", "dog")
    FromDataset(Subset(whole, range(10)), test=Named(["cat", "dog"], -ROWS, torch.arange(30) % 2)).setup()


@pytest.mark.parametrize("unknown", [None, -1, "", float("nan")])
def test_a_sample_without_a_name_among_named_ones_is_unlabelled(unknown: Any) -> None:
    data = FromDataset(Made(lambda place: (ROWS[place], "ab"[place % 2] if place else unknown)), **NONE_APART)
    assert targets_in(data)[:3] == [-1, 1, 0]


def test_texts_are_no_files() -> None:
    data = FromDataset(Made(lambda place: ROWS[place], samples=[f"sentence {place}" for place in range(30)]))
    data.setup()
    assert data.train_samples is not None
    key = data.train_samples.keys[0]
    assert data.path_of(key) is None
    assert data.fingerprint(key) is None


def test_a_transform_that_seldom_draws_is_noticed() -> None:
    def grayed(place: int) -> torch.Tensor:
        return ROWS[place] * (0.5 if float(torch.rand(())) < 0.1 else 1.0)

    for seed in range(10):
        torch.manual_seed(seed)
        with pytest.warns(UserWarning, match="differ from one reading to the next"):
            FromDataset(Made(grayed))


def test_files_are_listed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    paths = [tmp_path / f"{place}.png" for place in range(20)]
    for place, path in enumerate(paths):
        Image.new("L", (8, 8), place).save(path)
    data = FromDataset(Made(lambda place: (Image.open(paths[place]), 0), 20, samples=[(str(p), 0) for p in paths]))
    data.setup()
    monkeypatch.setattr("ssl_lightning.data.foreign.files_of", None)
    assert data.train_samples is not None
    assert {data.path_of(key) for key in data.train_samples.keys} <= {str(path) for path in paths}


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.bfloat16])
def test_floats_of_any_size_are_of_32_bits(kind: torch.dtype) -> None:
    assert input_of((ROWS[0].to(kind), 0)).dtype == torch.float32
    assert input_of(np.ones((8, 9, 3), ">f8")).shape == (3, 8, 9)


def test_floats_up_to_255_are_told() -> None:
    images = torch.linspace(0, 255, 20 * 192).view(20, 3, 8, 8)
    with pytest.warns(UserWarning, match="images are floats from 0 to 255"):
        FromDataset(TensorDataset(images, torch.arange(20) % 2))
