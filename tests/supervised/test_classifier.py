from pathlib import Path
from typing import Any

import pytest
import torch
from support import equal_weights
from torch import nn

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.supervised.mc_dropout import dropout_layers, fixed_masks, mc_dropout
from ssl_lightning.transforms.image import CleanView, RandomView


@pytest.fixture
def checkpoint(trainer: Any, tmp_path: Path) -> str:
    """A pretraining's checkpoint: ConvNet of width 8."""
    fit = trainer(max_steps=3)
    fit.fit(SimCLR(ConvNet(width=8)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "ssl.ckpt")
    return str(tmp_path / "ssl.ckpt")


def test_from_scratch_learns_digits(trainer: Any) -> None:
    views = RandomView(flip=0, crop_scale=(0.7, 1.0), jitter=(0.2, 0.2, 0, 0))
    model = Classifier(10, ConvNet(), views=views, optimizer=OptimizerSpec(lr=3e-3))
    fit = trainer(max_epochs=8)
    fit.fit(model, datamodule=Digits(batch_size=64))
    result = fit.test(model, datamodule=Digits(batch_size=64), verbose=False)[0]
    assert result["test/accuracy"] > 0.93
    assert result["test/loss"] < 0.4


def test_metrics_are_exact(trainer: Any) -> None:
    """With a last batch of another size, accuracy and loss are those over all samples."""
    data, model = Digits(batch_size=100), Classifier(10, ConvNet(width=8))
    result = trainer().test(model, datamodule=data, verbose=False)[0]
    assert data.test_samples is not None
    batch = data.test_samples.__getitems__(list(range(len(data.test_samples))))
    model.eval()
    with torch.no_grad():
        logits = model(model.clean(batch.input))
    assert result["test/accuracy"] == pytest.approx(float((logits.argmax(1) == batch.target).float().mean()), abs=1e-6)
    assert result["test/loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, batch.target)), rel=1e-4)


def test_linear_probe_trains_the_head_alone(checkpoint: str, trainer: Any) -> None:
    model = Classifier(10, checkpoint=checkpoint, freeze=True, optimizer=OptimizerSpec(lr=1e-2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer(max_epochs=1).fit(model, datamodule=Digits(batch_size=64))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"head.1.weight", "head.1.bias"}  # no batch-norm statistics either


def test_fine_tuning_begins_at_the_checkpoint(checkpoint: str, trainer: Any) -> None:
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    model = Classifier(10, checkpoint=checkpoint)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, saved[f"backbone.{key}"])
    trainer(max_steps=1).fit(model, datamodule=Digits(batch_size=64))
    assert not torch.equal(model.backbone.state_dict()["blocks.0.weight"], saved["backbone.blocks.0.weight"])


def test_classifier_checkpoint_opens_again(checkpoint: str, trainer: Any, tmp_path: Path) -> None:
    model = Classifier(10, ConvNet(width=4))
    fit = trainer(max_steps=1)
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "classifier.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "classifier.ckpt", backbone=ConvNet(width=4))
    assert equal_weights(model, again)
    assert Classifier(3, checkpoint=str(tmp_path / "classifier.ckpt")).backbone.feature_dim == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": ConvNet(width=16)},
            r"holds another architecture: ConvNet\(.*width=8.*\), not ConvNet\(.*width=16",
        ),
        (
            {"backbone": ConvNet(channels=3, width=8)},
            r"first difference `blocks.0.weight`: \(8, 1, 3, 3\) there, \(8, 3, 3, 3\)",
        ),
        ({"num_classes": 1}, "`num_classes=1` must be at least 2"),
        ({"dropout": 1.0}, "`dropout=1.0` must be from 0 to below 1"),
        ({"checkpoint": None}, "`backbone` and `checkpoint` are both missing"),
        ({"checkpoint": "nowhere.ckpt"}, "`checkpoint=nowhere.ckpt` is no file"),
        ({"checkpoint": __file__}, "is no checkpoint of ours"),
        ({"checkpoint": None, "freeze": True}, "`freeze=true` without `checkpoint`"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, checkpoint: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(**{"num_classes": 10, "checkpoint": checkpoint, **options})


def test_number_of_classes_must_be_the_datas(trainer: Any) -> None:
    with pytest.raises(ValueError, match=r"`num_classes=5` of the classifier is not the data's 10"):
        trainer(max_steps=1).fit(Classifier(5, ConvNet(width=4)), datamodule=Digits())


@pytest.mark.parametrize("trunk", [0.0, 0.3])
def test_masks_do_not_depend_on_the_batch(trunk: float) -> None:
    """One mask a member for all samples; batch norm, mode and the global random state stay as they were."""
    model = Classifier(10, ConvNet(width=8, dropout=trunk), dropout=0.5).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, state = torch.randn(12, 1, 8, 8), torch.get_rng_state()
    with torch.no_grad():
        together = model.sample_logits(images, members=4, seed=3)
        alone = torch.cat([model.sample_logits(image[None], members=4, seed=3) for image in images], dim=1)
        other = model.sample_logits(images, members=4, seed=4)
        whole = mc_dropout(model, images, members=4, seed=3)
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, other)
    assert together.std(dim=0).mean() > 0.01
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if trunk == 0.0:  # one pass of the trunk gives what one for each member gives
        torch.testing.assert_close(together, whole)


def test_dropped_values_have_the_right_scale_and_share() -> None:
    layer = nn.Sequential(nn.Dropout(0.3)).eval()
    ones = torch.ones(5, 2000)
    drawn = mc_dropout(layer, ones, members=20, seed=0)
    assert (drawn == drawn[:, :1]).all()  # the same for every sample
    assert drawn.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert drawn.mean() == pytest.approx(1.0, abs=0.02)


def test_dropout2d_drops_whole_channels() -> None:
    layer = nn.Sequential(nn.Dropout2d(0.5)).eval()
    with fixed_masks(layer, seed=0):
        out = layer(torch.ones(3, 64, 4, 4))
    assert (out == out[:1, :, :1, :1]).all()
    assert 0.2 < (out == 0).float().mean() < 0.8
    assert (layer(torch.ones(1, 4, 2, 2)) == 1).all()  # the hooks are gone


def test_without_dropout_mc_dropout_is_refused() -> None:
    model = Classifier(10, ConvNet(width=4)).eval()
    assert dropout_layers(model)
    with pytest.raises(ValueError, match=r"no dropout to draw from; give `dropout`"):
        model.sample_logits(torch.randn(2, 1, 8, 8), 3, 0)


@pytest.mark.parametrize("kind", ["classifier", "method"])
def test_a_checkpoint_of_a_given_optimizer_is_loaded(kind: str, trainer: Any, tmp_path: Path) -> None:
    """A checkpoint keeps its fields."""
    spec = OptimizerSpec("sgd", lr=0.1, warmup=0.2)
    model: Any = (
        Classifier(10, ConvNet(width=4), optimizer=spec)
        if kind == "classifier"
        else SimCLR(ConvNet(width=4), optimizer=spec)
    )
    fit = trainer(max_steps=1)
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "m.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "m.ckpt", backbone=ConvNet(width=4))
    assert again.optimizer_spec == spec


class Turned(Digits):
    """The digits, their classes in another order."""

    class_names = tuple("9876543210")


def test_a_classifier_is_not_fitted_again_on_classes_in_another_order(trainer: Any, tmp_path: Path) -> None:
    model = Classifier(10, ConvNet(width=4))
    fit = trainer(max_steps=1)
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "c.ckpt")
    for learnt in (model, Classifier.load_from_checkpoint(tmp_path / "c.ckpt")):
        with pytest.raises(ValueError, match="the classifier has learnt the classes 0, 1"):
            trainer(max_steps=1).fit(learnt, datamodule=Turned(batch_size=64))


def test_a_checkpoint_brings_its_normalisation_to_the_test(trainer: Any, tmp_path: Path) -> None:
    fit = trainer(max_steps=1)
    fit.fit(Classifier(10, ConvNet(width=4), clean=CleanView(0.0, 1.0)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "c.ckpt")
    other = Classifier(10, ConvNet(width=4))
    trainer().test(other, datamodule=Digits(batch_size=64), ckpt_path=tmp_path / "c.ckpt", verbose=False)
    assert other.clean.init_args == CleanView(0.0, 1.0).init_args
    given = Classifier(10, ConvNet(width=4), clean=CleanView(0.5, 0.25))
    with pytest.warns(UserWarning, match="the checkpoint was trained with clean input by CleanView"):
        trainer().test(given, datamodule=Digits(batch_size=64), ckpt_path=tmp_path / "c.ckpt", verbose=False)
