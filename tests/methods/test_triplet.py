from typing import Any

import lightning as L
import pytest
import torch

from ssl_lightning.backbones import Backbone, ConvNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import Triplet
from ssl_lightning.transforms.image import SimCLRViews


class Given(Backbone):
    """The views are the embeddings."""

    feature_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images


def same_of(positives: Any, rows: torch.Tensor, targets: list[int], **options: Any) -> torch.Tensor:
    method = Triplet(Given(), positives=positives, projection_dim=0, **options)
    index = torch.arange(len(rows) // 2).repeat(2)
    distances = torch.cdist(rows, rows).pow(2)
    return method._same(rows, distances, torch.tensor(targets).repeat(2), index)


ROWS = torch.tensor([[0.0, 0], [0, 1], [9, 0], [9, 1]]).repeat(2, 1)  # two pairs of near images, two views each


def test_positives_by_augmentation_are_the_own_views() -> None:
    assert torch.equal(same_of("augmentation", ROWS, [0, 0, 0, 0]), torch.eye(4).repeat(2, 2).bool())


def test_positives_by_label_leave_out_the_unlabelled() -> None:
    same = same_of("labels", ROWS, [5, -1, 5, -1])
    assert same[0].tolist() == [True, False, True, False] * 2
    assert same[1].tolist() == [False, True, False, False] * 2


def test_positives_by_neighbour_and_cluster_follow_the_embedding() -> None:
    near = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).repeat(2, 2).bool()
    assert torch.equal(same_of("neighbours", ROWS, [0, 1, 2, 3], neighbours=2), near)
    assert torch.equal(same_of("clusters", ROWS, [0, 1, 2, 3], clusters=2), near)


@pytest.mark.parametrize("positives", ["augmentation", "labels", "neighbours", "clusters"])
@pytest.mark.parametrize("negatives", ["random", "semi-hard", "hard"])
def test_every_kind_trains_and_repeats(positives: Any, negatives: Any, trainer: Any) -> None:
    losses = []
    for _ in range(2):
        L.seed_everything(2, verbose=False)
        model = Triplet(ConvNet(width=4), positives=positives, negatives=negatives)
        fit = trainer(max_steps=3)
        fit.fit(model, datamodule=Digits(batch_size=64))
        losses.append(float(fit.callback_metrics["train/loss"]))
        assert 0 < fit.callback_metrics["train/active_triplets"] <= 1
    assert losses[0] == losses[1] > 0


def test_labels_make_a_better_embedding_than_none(trainer: Any) -> None:
    found = {}
    for positives in ("augmentation", "labels"):
        L.seed_everything(0, verbose=False)
        model = Triplet(
            ConvNet(width=16), SimCLRViews(flip=0, crop_scale=(0.5, 1)), positives=positives, projection_dim=0,  # type: ignore[arg-type]
            optimizer=OptimizerSpec(lr=3e-3),
        )  # fmt: skip
        # many voters with almost equal weights: what counts is whether a class is one cluster
        fit = trainer(max_epochs=10, callbacks=[KNN(k=100, temperature=1.0, every_n_epochs=10)])
        fit.fit(model, datamodule=Digits(batch_size=128, val_size=400))
        found[positives] = float(fit.callback_metrics["val/knn_accuracy"])
    assert found["labels"] > found["augmentation"] + 0.02
    assert found["labels"] > 0.9


def test_a_triplet_in_order_has_no_loss() -> None:
    """The two views of each image are equal, and images are opposite: 0 + 0.2 - 4 < 0."""
    rows = torch.tensor([[1.0, 0], [-1, 0]])
    step = Triplet(Given(), projection_dim=0).compute_loss([rows, rows], Batch(None, -torch.ones(2), torch.arange(2)))
    assert float(step["loss"]) == 0.0


def test_one_image_has_no_negative_and_no_loss() -> None:
    rows = torch.ones(1, 2)
    step = Triplet(Given(), projection_dim=0).compute_loss([rows, rows], Batch(None, -torch.ones(1), torch.arange(1)))
    assert float(step["loss"].detach()) == 0.0


def test_numbers_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"`margin=0` must be above 0"):
        Triplet(ConvNet(), margin=0)


def test_many_neighbours_leave_a_negative() -> None:
    """The one farthest row, and the loss teaches; that the number is too large is said once."""
    rows = torch.nn.functional.normalize(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    same = same_of("neighbours", rows, list(range(8)), neighbours=1000)
    assert (same.sum(dim=1) == 15).all()
    method = Triplet(Given(), positives="neighbours", neighbours=1000, margin=4.5, projection_dim=0)
    views, batch = [rows[:8], rows[8:]], Batch(None, -torch.ones(8), torch.arange(8))
    with pytest.warns(UserWarning, match="in a batch of 8 samples `neighbours=1000` are all others but one") as told:
        losses = [float(method.compute_loss(views, batch)["loss"].detach()) for _ in range(2)]
    assert len(told) == 1
    assert min(losses) > 0


@pytest.mark.parametrize("positives", ["labels", "clusters"])
def test_a_batch_without_negatives_is_told_of_once(positives: Any) -> None:
    """One class; one cluster of equal rows."""
    rows = torch.ones(8, 2) if positives == "clusters" else torch.randn(8, 2)
    method = Triplet(Given(), positives=positives, projection_dim=0)
    batch = Batch(None, torch.ones(8, dtype=torch.int64), torch.arange(8))
    with pytest.warns(UserWarning, match=f'no sample has a negative with `positives="{positives}"`') as told:
        losses = [float(method.compute_loss([rows, rows], batch)["loss"].detach()) for _ in range(2)]
    assert len(told) == 1
    assert losses == [0.0, 0.0]


def test_a_projection_to_one_number_is_refused() -> None:
    with pytest.raises(ValueError, match="`projection_dim=1` must be at least 2; a normalised number is 1 or -1"):
        Triplet(ConvNet(), projection_dim=1)
    Triplet(ConvNet(), projection_dim=0)
