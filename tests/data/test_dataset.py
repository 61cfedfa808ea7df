"""Anybody's data set as a data module: keys, labels, pictures, and what is refused."""

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from ssl_lightning.data import FromDataset, TensorSamples
from ssl_lightning.data.foreign import input_of
from ssl_lightning.supervised import Classifier
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


def told(make: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(warning.message) for warning in caught if str(warning.message).startswith("samples of")]


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((4, 8, 8), "Of images of RGBA return `image[:3]`, or a PIL image"),
        ((2, 8, 8), "Of images of gray and alpha return `image[:1]`"),
        ((8, 8), "Of gray images return `image[None]`."),
        ((8, 8, 1), "Of images with channels last return `image.permute(2, 0, 1)`,"),
        ((8, 8, 4), "Of images of RGBA with channels last return `image.permute(2, 0, 1)[:3]`,"),
        ((5, 8, 8), "no views. For anything else"),
        ((), "no views. For anything else"),
    ],
)
def test_what_is_no_image_and_no_vector_is_told_with_what_to_do(shape: tuple[int, ...], remedy: str) -> None:
    rows = torch.rand(20, *shape)
    (found,) = told(lambda: FromDataset(TensorDataset(rows)))
    assert found.startswith(f"samples of `TensorDataset` are tensors of shape {shape}, which are neither images,")
    assert remedy in found
    if "`image" in remedy:  # the remedy is one
        code = compile(remedy.split("`")[1], "remedy", "eval")
        mended = TensorDataset(torch.stack([eval(code, {"image": row}) for row in rows]))
        assert told(lambda: FromDataset(mended)) == []
        assert FromDataset(mended).facts["image_size"] == 8


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (8,)])
def test_images_and_vectors_are_told_nothing_of(shape: tuple[int, ...]) -> None:
    assert told(lambda: FromDataset(TensorDataset(torch.rand(20, *shape)))) == []


class Words(nn.Module):
    """The mean of the tokens' embeddings."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens).mean(dim=1)  # type: ignore[no-any-return]


def test_rows_of_tokens_reach_an_embedding_layer_as_they_are(trainer: Any) -> None:
    rows = torch.randint(9, (40, 6), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"rows of torch.int64, and reach the model as they are.* `row.float\(\)`"):
        data = FromDataset(TensorDataset(rows, torch.arange(40) % 2), batch_size=8)
    assert data.views() is None
    fit: L.Trainer = trainer(max_epochs=1)
    fit.fit(Classifier(2, Words()), datamodule=data)
    assert np.isfinite(float(fit.callback_metrics["val/loss"]))


class Pair(NamedTuple):
    """Two tensors."""

    one: Any
    other: Any


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.eye(3)[0].to_sparse(),
            r"is a sparse tensor \(sparse_coo\); required is a dense one.* `tensor.to_dense",
        ),
        (lambda: torch.eye(3).to_sparse_csr(), r"is a sparse tensor \(sparse_csr\)"),
        (lambda: Pair(torch.ones(3), torch.eye(3).to_sparse()), r"is a sparse tensor \(sparse_coo\)"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "is a nested tensor; .*: pad to one length",
        ),
    ],
)
def test_tensors_of_which_no_batch_is_made_are_refused(make: Callable[[], Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that these are new
        sample = make()
    with pytest.raises(ValueError, match=f"a sample of the data set {message}"):
        FromDataset(Made(lambda place: sample, targets=[0, 1] * 15), keys=range(30))


def test_sparse_inputs_in_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`inputs` is a sparse tensor .*`tensor.to_dense\(\)`"):
        TensorSamples(torch.eye(3).to_sparse(), torch.zeros(3))


class Claims(Dataset[Any]):
    """Says that it has another number of samples than it has, or none."""

    def __init__(self, length: Any, targets: Any = None) -> None:
        self.length, self.targets = length, targets

    def __len__(self) -> Any:
        if self.length is None:
            raise NotImplementedError("unknown")
        return self.length

    def __getitem__(self, place: int) -> Any:
        return ROWS[:20][place], place % 2


class Endless(IterableDataset[Any]):
    """A stream that tells a length."""

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Any:
        return iter(ROWS)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Claims(25), r"`len\(Claims\)` is 25, and `Claims\[20\]` raises IndexError .*let `__len__` return the number"),
        (Claims(25, [0] * 25), r"`len\(Claims\)` is 25, and `Claims\[20\]` raises IndexError"),
        ({"a": 1, "b": 2}, r"`len\(dict\)` is 2, and `dict\[0\]` raises KeyError"),
        (Claims(2.5), "`dataset=Claims` tells no length .*let `__len__` return the number of samples"),
        (Claims(-1), "`dataset=Claims` tells no length"),
        (Claims(None), r"`dataset=Claims` tells no length \(unknown\)"),
        (Endless(), "`dataset=Endless` is no map-style data set"),
    ],
)
def test_a_length_that_is_none_is_refused_before_training(dataset: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FromDataset(dataset)


def test_a_data_set_that_shrinks_says_so() -> None:
    shrinking = Made(lambda place: (ROWS[place], place % 2))
    data = FromDataset(shrinking, val_size=0, test_size=0)
    data.setup("fit")
    shrinking.count = 20
    assert data.train_samples is not None
    with pytest.raises(ValueError, match=r"`Made\[25\]` raises IndexError"):
        data.train_samples.__getitems__([25])


def test_attributes_that_are_no_lists_are_no_labels() -> None:
    data = FromDataset(Made(lambda place: (ROWS[place], place % 3), targets=3), **NONE_APART)
    assert targets_in(data)[:4] == [0, 1, 2, 0]


IMAGES = torch.rand(20, 3, 8, 8)


@pytest.mark.parametrize(
    ("dataset", "test", "message"),
    [
        (
            ROWS,
            torch.rand(5, 4),
            r"sample 0 of `test` is a tensor of shape \(4,\), and sample 0 of `dataset` is .*\(3,\)",
        ),
        (
            IMAGES,
            torch.rand(5, 3, 9, 9),
            r"shape \(3, 9, 9\), and .* \(3, 8, 8\); samples must be .* crop, scale or pad",
        ),
        (IMAGES, torch.rand(5, 1, 8, 8), r"shape \(1, 8, 8\), and"),
        (IMAGES, torch.rand(5, 8), r"shape \(8,\), and"),
        (torch.rand(20, 8, 8), torch.rand(5, 8), r"shape \(8,\), and"),
        (
            torch.randn(20, 3, 8, 8),
            IMAGES.mul(255).byte(),
            "`test` is of torch.uint8, and .* `dataset` of torch.float32",
        ),
        (ROWS, torch.ones(5, 3, dtype=torch.int64), "`test` is of torch.int64"),
    ],
)
def test_a_test_set_of_another_shape_is_refused_before_training(dataset: Any, test: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FromDataset(TensorDataset(dataset), test=TensorDataset(test))


def test_pixels_may_be_floats_or_bytes_and_sequences_of_two_lengths() -> None:
    for dataset, test in (
        (IMAGES, IMAGES.mul(255).byte()),
        (torch.rand(20, 8, 5), torch.rand(5, 9, 5)),
    ):
        FromDataset(TensorDataset(dataset), test=TensorDataset(test)).setup()


def test_one_name_in_two_forms_of_unicode_is_one_class() -> None:
    names = ["Zoe\u0308", "Zo\u00eb", "x"]
    data = FromDataset(Made(lambda place: (ROWS[place], names[place % 3])), **NONE_APART)
    assert data.class_names == ("Zo\u00eb", "x")
    assert targets_in(data)[:3] == [0, 0, 1]
    named = FromDataset(
        Named(["Zoe\u0308", "x"], ROWS, torch.arange(30) % 2), class_names=["x", "Zo\u00eb"], **NONE_APART
    )
    assert targets_in(named)[:2] == [1, 0]


def double(row: torch.Tensor) -> torch.Tensor:
    return 2 * row


class Mapped(Dataset[Any]):
    """Rows changed by a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function = function

    def __len__(self) -> int:
        return 20

    def __getitem__(self, place: int) -> Any:
        return self.function(ROWS[place]), place % 2


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_loader_processes_cannot_get_is_refused(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none=False: method)
    data = FromDataset(Mapped(lambda row: 2 * row), num_workers=1, batch_size=4)
    data.setup("fit")
    message = f"`num_workers=1` starts processes by `{method}`, .*cannot be: .*lambda.*or give `num_workers=0`"
    with pytest.raises(ValueError, match=message):
        data.train_dataloader()
    fine = FromDataset(Mapped(double), num_workers=1, batch_size=4)
    fine.setup("fit")
    fine.train_dataloader()
    data.num_workers = 0
    assert len(next(iter(data.train_dataloader())).input) == 4
    data.num_workers = 1
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none=False: "fork")
    data.train_dataloader()  # inherited, not pickled
