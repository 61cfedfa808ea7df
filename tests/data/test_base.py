import pickle
from typing import Any

import pytest
import torch

from ssl_lightning.data import Batch, Digits, ImageData, TensorSamples
from ssl_lightning.data.sampling import ShareSampler, TrainSampler


class Toy(ImageData):
    """A hundred images whose pixels are their index."""

    num_classes, channels, image_size = 3, 1, 8
    fixed = True

    def __init__(self, targets: torch.Tensor | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.targets = torch.arange(100) % 3 if targets is None else targets
        self.calls = 0

    def load(self, split: str) -> TensorSamples:
        self.calls += 1
        images = torch.arange(len(self.targets), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        return TensorSamples(images, self.targets)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = Digits()
    data.setup()
    raw = load_digits()
    assert data.train_samples is not None
    assert data.test_samples is not None
    assert len(data.train_samples) + len(data.test_samples) == len(raw.images)
    assert int(data.train_samples.__getitems__([0]).input.max()) <= 255
    total = sum(int(part.inputs.long().sum()) for part in (data.train_samples, data.test_samples))  # type: ignore[attr-defined]
    assert total == int((raw.images * 255 / 16).round().sum())


def test_splits_are_disjoint_whole_and_independent_of_the_run() -> None:
    parts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        data = Toy(val_size=0.2)
        data.setup("fit")
        parts.append((data.train_indices.tolist(), data.val_indices.tolist()))
    assert parts[0] == parts[1]
    train, val = parts[0]
    assert len(val) == 20
    assert sorted(train + val) == list(range(100))
    other = Toy(val_size=0.2, split_seed=1)
    other.setup("fit")
    assert other.val_indices.tolist() != val


def test_validation_samples_are_labelled_ones() -> None:
    targets = torch.full((100,), -1)
    targets[::4] = 1
    data = Toy(targets, val_size=20)
    data.setup("fit")
    assert (targets[data.val_indices] == 1).all()


def test_limit() -> None:
    data = Toy(limit=30, val_size=10)
    data.setup("fit")
    assert (len(data.train_indices), len(data.val_indices)) == (20, 10)


def test_data_are_decoded_once() -> None:
    data = Toy()
    for _ in range(3):
        data.setup("fit")
    assert data.calls == 1


def test_a_batch_is_one_indexing_call() -> None:
    data = Toy(batch_size=16, val_size=0)
    data.setup("fit")
    asked: list[int] = []
    inner = data.train_samples.__getitems__  # type: ignore[union-attr]

    class Counting(TensorSamples):
        def __getitems__(self, indices: list[int]) -> Batch:
            asked.append(len(indices))
            return inner(indices)

    batches = list(data.training_loader(Counting(data.train_samples.inputs, data.targets), data.train_indices))  # type: ignore[union-attr]
    assert asked == [16] * 6
    for batch in batches:
        assert (batch.input[:, 0, 0, 0] == batch.index).all()
        assert (batch.target == data.targets[batch.index]).all()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_share_is_exact_for_any_number_of_processes(world: int) -> None:
    indices = torch.randperm(11)
    shares = [list(ShareSampler(indices, rank, world)) for rank in range(world)]
    assert sorted(place for share in shares for place in share) == list(range(11))


@pytest.mark.parametrize("world", [2, 3])
def test_global_batches_do_not_depend_on_processes(world: int) -> None:
    indices, batch = torch.arange(100, 142), 12 // world
    alone = list(TrainSampler(indices, 12, 7, seed=5))
    shares = [
        torch.tensor(list(TrainSampler(indices, batch, 7, 5, rank, world))).view(7, batch) for rank in range(world)
    ]
    assert torch.equal(torch.cat(shares, dim=1).flatten(), torch.tensor(alone))


def test_few_samples_repeat_evenly() -> None:
    sampler = TrainSampler(torch.tensor([3, 8, 9]), 4, steps=6, seed=0)
    counts = torch.tensor(list(sampler)).bincount(minlength=10)
    assert counts.sum() == 24
    assert counts[[3, 8, 9]].tolist() == [8, 8, 8]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    sampler = TrainSampler(torch.arange(20), 4, None, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again != list(sampler)
    assert sorted(first) == list(range(20))
    sampler.set_epoch(0)
    sampler.skip = 2
    assert list(sampler) == first[8:]


def test_fewer_samples_than_processes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 training samples are too few for 2 process"):
        TrainSampler(torch.arange(1), 4, 5, seed=0, rank=0, world=2)


def test_loader_works_with_workers() -> None:
    data = Toy(num_workers=1, val_size=0, batch_size=50)
    data.setup("fit")
    assert sorted(torch.cat([b.index for b in data.train_dataloader()]).tolist()) == list(range(100))
    assert pickle.loads(pickle.dumps(data.train_samples)).targets.equal(data.targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size=0` must be at least 1"),
        ({"val_size": -0.1}, "`val_size=-0.1` must be at least 0"),
        ({"val_size": 1.5}, "`val_size=1.5` must be a fraction"),
        ({"limit": 1}, "`limit=1` must be at least 2"),
    ],
)
def test_bad_numbers_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Toy(**options)


@pytest.mark.parametrize(
    ("options", "message"), [({"limit": 200}, "`limit=200` exceeds the 100"), ({"val_size": 100}, "leaves no training")]
)
def test_splits_beyond_the_data_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Toy(**options).setup("fit")


@pytest.mark.parametrize("label", [3, -2])
def test_label_out_of_range(label: int) -> None:
    targets = torch.zeros(10, dtype=torch.int64)
    targets[4] = label
    with pytest.raises(ValueError, match=r"a label of `Toy` \(train part\) is out of range: .* required are 0 to 2"):
        Toy(targets).setup("fit")
