"""The map of an embedding: which samples it draws, and that the model is left as it was."""

from typing import Any

import pytest
import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.evaluation import embedding_map
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier


def _points(figure: Any) -> int:
    return sum(len(drawn.get_offsets()) for drawn in figure.axes[0].collections if drawn.get_label() != "asked")


def test_it_draws_so_many_and_all_that_are_ringed() -> None:
    data = Digits()
    data.setup("fit")
    ringed = [data.train_samples.keys[place] for place in data.train_indices.tolist()[1:4]]
    figure = embedding_map(SimCLR(ConvNet(width=4)), data, "train", 20, ringed=ringed)
    asked = [drawn for drawn in figure.axes[0].collections if drawn.get_label() == "asked"]
    assert len(asked[0].get_offsets()) == 3
    assert 20 <= _points(figure) <= 23
    assert _points(embedding_map(SimCLR(ConvNet(width=4)), data, count=10**6)) == len(data.test_samples)


def test_the_model_is_left_as_it_was() -> None:
    model = Classifier(10, ConvNet(width=4), dropout=0.5)
    model.backbone.eval()  # as of a frozen encoder
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [child.training for child in model.modules()]
    embedding_map(model, Digits(), count=40)
    assert [child.training for child in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_samples_without_a_label_are_gray() -> None:
    figure = embedding_map(SimCLR(ConvNet(width=4)), Digits(keep_labels=10), "train", 200)
    assert "no label" in [drawn.get_label() for drawn in figure.axes[0].collections]


@pytest.mark.parametrize(
    ("given", "said"),
    [({"part": "val"}, "part"), ({"kind": "mds"}, "kind"), ({"count": 4}, "count")],
    ids=["part", "kind", "count"],
)
def test_mistakes(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"`{said}="):
        embedding_map(SimCLR(ConvNet(width=4)), Digits(), **given)
