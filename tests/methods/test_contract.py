"""What strangers may bring and forget: any network, any transform, any modality, batches of one, plain loaders."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from every_method import METHODS, PATCHES, digits_for, make
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from ssl_lightning.backbones import AnyModule, ConvNet, ResNet, ViT
from ssl_lightning.data import Batch, DataModule, Digits, TensorSamples
from ssl_lightning.evaluation import KNN, CollapseMonitor, OnlineLinearProbe
from ssl_lightning.methods import (
    BYOL,
    DINO,
    MAE,
    VAE,
    Autoencoder,
    BarlowTwins,
    Colorization,
    DeepCluster,
    Inpainting,
    Jigsaw,
    MoCo,
    RelativePosition,
    Rotation,
    SimCLR,
    SSLMethod,
    SupCon,
    SwAV,
    Triplet,
    VICReg,
)
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.base import Unchanged
from ssl_lightning.transforms.image import CleanView, RandomView, SimCLRViews


def batch_of(count: int, channels: int = 1, side: int = 8) -> Batch:
    """Return random images."""
    images = torch.randint(256, (count, channels, side, side), dtype=torch.uint8)
    return Batch(images, torch.arange(count) % 2, torch.arange(count))


def test_prepare_is_the_clean_input_or_the_views() -> None:
    model, batch = SimCLR(ConvNet(width=4), SimCLRViews()), batch_of(4)
    assert torch.equal(model.prepare(batch), CleanView()(batch.input))
    views = model.prepare(batch, random=True)
    assert [view.shape for view in views] == [(4, 1, 8, 8)] * 2
    assert not torch.equal(views[0], views[1])
    assert all(torch.equal(one, other) for one, other in zip(views, model.prepare(batch, random=True), strict=True))


@pytest.mark.parametrize("kind", METHODS)
def test_views_are_made_once_a_step(kind: type[SSLMethod], trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the loss is given the raw input beside them; nothing else is done on transfer."""
    model, calls = make(kind), [0]
    model.views = model.views or digits_for(kind).views(model.view_count, local_count=model.local_count)
    forward = model.views.forward

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return forward(*args)

    monkeypatch.setattr(model.views, "forward", counted)
    compute = model.compute_loss
    seen: list[Batch] = []
    monkeypatch.setattr(model, "compute_loss", lambda views, batch: (seen.append(batch), compute(views, batch))[1])
    callbacks = [] if kind in PATCHES else [OnlineLinearProbe(), CollapseMonitor()]
    trainer(max_steps=2, callbacks=callbacks).fit(model, datamodule=digits_for(kind, batch_size=128))
    assert calls == [2]
    assert all(batch.input.dtype == torch.uint8 for batch in seen)
    assert "on_after_batch_transfer" not in vars(SSLMethod)


@pytest.mark.parametrize("kind", METHODS)
def test_hyper_parameters_are_what_the_constructor_was_given(
    kind: type[SSLMethod], trainer: Any, tmp_path: Path
) -> None:
    """So that a checkpoint is loaded again, and with other values; networks and transforms are no hyper-parameters."""
    own: dict[str, Any] = {"channels_last": True}
    numbers = {
        "projection_dim": 24,
        "hidden_dim": 24,
        "latent_dim": 24,
        "gap": 0,
        "temperature": 0.7,
        "mask_ratio": 0.5,
    }
    known = inspect.signature(kind).parameters
    own.update({name: value for name, value in numbers.items() if name in known})
    model = make(kind, **own)
    assert {name: model.hparams[name] for name in own} == own
    assert not {"backbone", "views", "clean"} & set(model.hparams)
    fit = trainer(max_steps=1)
    fit.fit(model, datamodule=digits_for(kind, batch_size=64))
    fit.save_checkpoint(tmp_path / "m.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "m.ckpt", backbone=make(kind).backbone.fresh())
    assert dict(again.hparams) == dict(model.hparams)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


class Strangers(SimCLR):
    """Passes on what it chose itself."""

    def __init__(self, backbone: Any, sharpness: float = 5.0, **kwargs: Any) -> None:
        super().__init__(backbone, temperature=1 / sharpness, **kwargs)


def test_a_strangers_subclass_has_its_own_hyper_parameters() -> None:
    model = Strangers(ConvNet(width=4), sharpness=4.0, projection_dim=16)
    assert dict(model.hparams) == {"sharpness": 4.0, "projection_dim": 16}
    Strangers(ConvNet(width=4), **model.hparams)


@pytest.mark.parametrize(
    "views",
    [
        v2.Compose([v2.RandomCrop(8, padding=1), v2.ToDtype(torch.float32, scale=True)]),
        lambda image: image.float() / 255 + 0.1 * torch.rand(()),
        RandomView(),
    ],
    ids=["torchvision", "function", "one view of ours"],
)
def test_any_network_and_any_transform(views: Any, trainer: Any) -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = SimCLR(net, views)
    assert isinstance(model.backbone, AnyModule)
    assert model.backbone.feature_dim == 6
    made = model.prepare(batch_of(4), random=True)
    assert len(made) == 2
    assert not torch.equal(made[0], made[1])
    fit = trainer(max_epochs=1, callbacks=[KNN(), OnlineLinearProbe()])
    fit.fit(model, datamodule=Digits(batch_size=256))
    assert {"val/knn_accuracy", "val/probe_accuracy"} <= set(fit.callback_metrics)
    assert isinstance(model.clean, CleanView)


class Pair(NamedTuple):
    """A sample of two tensors."""

    ids: Tensor
    mask: Tensor


class Shake(nn.Module):
    """Views of pairs."""

    def forward(self, inputs: Pair, generator: torch.Generator | None = None) -> list[Pair]:
        """Hide some of the mask."""
        drawn = [torch.rand(inputs.mask.shape, generator=generator) > 0.2 for _ in range(2)]
        return [Pair(inputs.ids, inputs.mask * keep) for keep in drawn]


class Words(nn.Module):
    """Mean of embedded ids, where the mask is."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)

    def forward(self, pair: Pair) -> Tensor:
        """Embed."""
        mask = pair.mask[..., None].float()
        return (self.embed(pair.ids) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class Pairs(DataModule):
    """Sequences of ids: one half of the ids is of each class."""

    num_classes, class_names, fixed = 2, ("a", "b"), True

    def load(self, split: str) -> Any:
        """Draw them."""
        generator = torch.Generator().manual_seed(len(split))
        targets = torch.arange(120) % 2
        ids = torch.randint(5, (120, 6), generator=generator) + 5 * targets[:, None]
        return TensorSamples(Pair(ids, torch.ones(120, 6, dtype=torch.bool)), targets)


@pytest.mark.parametrize("kind", [SimCLR, BYOL, BarlowTwins, VICReg, MoCo, SupCon, Triplet, DeepCluster, DINO, SwAV])
def test_a_sample_may_be_several_tensors(kind: type[SSLMethod], trainer: Any) -> None:
    example = Pair(torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6))
    options: dict[str, Any] = {"clusters": 4} if kind in (DeepCluster, Triplet) else {}
    model = kind(AnyModule(Words(), example), Shake(), channels_last=True, **options)  # type: ignore[arg-type]
    fit = trainer(max_epochs=3, callbacks=[KNN(), OnlineLinearProbe(), CollapseMonitor()])
    fit.fit(model, datamodule=Pairs(batch_size=32))
    assert isinstance(model.clean, Unchanged)
    assert fit.callback_metrics["val/knn_accuracy"] > 0.9
    assert fit.predict(model, datamodule=Pairs(batch_size=32))[0][0]["embedding"].shape == (32, 8)


def test_clean_is_the_given_then_that_of_the_views_then_that_of_the_data(trainer: Any) -> None:
    assert SimCLR(ConvNet(width=4), SimCLRViews(mean=0.3)).clean.mean == (0.3,)
    assert SimCLR(ConvNet(width=4), SimCLRViews(mean=0.3), clean=CleanView(0.7)).clean.mean == (0.7,)
    model = SimCLR(ConvNet(width=4), lambda image: image.float())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`SimCLR` does not know how to make clean input: .* give `clean`"):
        model.prepare(batch_of(2))
    trainer(max_steps=1).fit(model, datamodule=Digits(batch_size=64))
    assert isinstance(model.clean, CleanView)
    assert model.facts["num_classes"] == 10


def test_too_few_views_are_named() -> None:
    with pytest.raises(ValueError, match="`views` made 1 of each sample where 2 are looked at; give the view"):
        SimCLR(ConvNet(width=4), SimCLRViews(count=1)).prepare(batch_of(2), random=True)


@pytest.mark.parametrize("kind", METHODS)
def test_a_batch_of_one_learns_or_says_that_it_cannot(kind: type[SSLMethod], trainer: Any) -> None:
    model = make(kind)
    fit = trainer(max_steps=1)
    data = digits_for(kind, batch_size=1)
    if model.least_batch == 1:
        fit.fit(model, datamodule=data)
        assert float(fit.callback_metrics["train/loss"]) > 0
    else:
        with pytest.raises(ValueError, match=f"`batch_size=1` is too small for `{kind.__name__}`"):
            fit.fit(model, datamodule=data)


def test_batch_norm_of_one_value_is_said_as_well(trainer: Any) -> None:
    """Where the method could learn from one sample, but its encoder cannot."""
    with pytest.raises(ValueError, match="`batch_size=1` is too small for `MoCo`"):
        trainer(max_steps=1).fit(MoCo(ResNet(channels=1)), datamodule=Digits(batch_size=1))


@pytest.mark.parametrize(
    "model", [lambda: SupCon(ConvNet(width=4)), lambda: Triplet(ConvNet(width=4), positives="labels")]
)
def test_without_any_label_it_says_so_once(model: Any, trainer: Any) -> None:
    data = Digits(batch_size=256)
    data.setup("fit")
    data.train_samples.targets.fill_(-1)  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="learns from labels, and no training sample has one") as told:
        trainer(max_epochs=2).fit(model(), datamodule=data)
    assert len([warning for warning in told if "learns from labels" in str(warning.message)]) == 1


def test_a_plain_loader_is_named(trainer: Any) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8)), batch_size=4)
    for run in ("fit", "validate", "predict"):
        with pytest.raises(ValueError, match=r"the model got a list where a `Batch` .* is required.*FromDataset"):
            getattr(trainer(max_steps=1), run)(SimCLR(ConvNet(width=4), clean=CleanView()), loader)


def net() -> Any:
    """Return a small encoder."""
    return ConvNet(width=4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SimCLR(net(), temperature=0), "`temperature=0` must be above 0"),
        (lambda: SimCLR(net(), projection_dim=-5), "`projection_dim=-5` must be at least 2"),
        (lambda: SimCLR(net(), temperature=float("nan")), "`temperature=nan` must be a finite number above 0"),
        (lambda: SupCon(net(), temperature=-1), "`temperature=-1` must be above 0"),
        (lambda: BarlowTwins(net(), redundancy=0), "`redundancy=0` must be above 0"),
        (lambda: BYOL(net(), momentum=1.5), "`momentum=1.5` must be from 0 to 1"),
        (lambda: VICReg(net(), variance=-1), "`variance=-1` must be at least 0"),
        (lambda: DINO(net(), outputs=1), "`outputs=1` must be at least 2"),
        (lambda: SwAV(net(), epsilon=0), "`epsilon=0` must be at least 0.025"),
        (lambda: MoCo(net(), version=4), "`version=4` must be one of 2, 3"),  # type: ignore[arg-type]
        (lambda: MoCo(net(), queue_size=2.5), "`queue_size=2.5` must be a whole number"),  # type: ignore[arg-type]
        (lambda: Triplet(net(), positives="mine"), "`positives=.mine.` must be one of augm"),  # type: ignore[arg-type]
        (lambda: DeepCluster(net(), clusters=1), "`clusters=1` must be at least 2"),
        (lambda: Rotation(net(), lambda image: image), None),  # type: ignore[arg-type]
        (lambda: Rotation(net(), views=3), "`views=3` cannot be called"),  # type: ignore[arg-type]
        (lambda: Jigsaw(net(), grid=1), "`grid=1` must be at least 2"),
        (lambda: RelativePosition(net(), gap=-1), "`gap=-1` must be at least 0"),
        (lambda: Autoencoder(net(), noise=-0.1), "`noise=-0.1` must be at least 0"),
        (lambda: VAE(net(), width=0), "`width=0` must be at least 1"),
        (lambda: Inpainting(net(), region="edge"), "`region=.edge.` must be one of centre, random"),  # type: ignore[arg-type]
        (lambda: Colorization(ConvNet(3), bin_size=0), "`bin_size=0` must be from 5 to 40"),
        (lambda: MAE(ViT(1, 8), decoder_depth=0), "`decoder_depth=0` must be at least 1"),
        (lambda: ViT(1, 8, depth=0), "`depth=0` must be at least 1"),
        (lambda: ViT(1, 8, heads=0), "`heads=0` must be at least 1"),
        (lambda: ConvNet(width=0), "`width=0` must be at least 1"),
        (lambda: ConvNet(dropout=1.0), "`dropout=1.0` must be from 0 to below 1"),
        (lambda: KNN(k=0), "`k=0` must be at least 1"),
        (lambda: KNN(bank_size=0), "`bank_size=0` must be at least 1"),
        (lambda: CollapseMonitor(limit=0), "`limit=0` must be at least 1"),
        (lambda: OnlineLinearProbe(lr=0), "`lr=0` must be above 0"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_built(build: Any, message: str | None) -> None:
    if message is None:
        build()
        return
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("callback", [KNN, OnlineLinearProbe])
def test_callbacks_without_a_data_module_say_so(callback: Any, trainer: Any) -> None:
    data = Digits(batch_size=64)
    data.setup("fit")
    for run in ("fit", "validate"):
        fit = trainer(max_steps=1, callbacks=[callback()])
        with pytest.raises(ValueError, match=f"`{callback.__name__}` learns from labelled training samples, and so"):
            getattr(fit, run)(SimCLR(ConvNet(width=4)), data.train_dataloader())


def test_more_neighbours_than_samples_are_said_once(trainer: Any) -> None:
    with pytest.warns(UserWarning, match="`k=500` exceeds the 100 labelled training samples; all are used") as told:
        trainer(max_epochs=3, callbacks=[KNN(k=500)]).fit(
            SimCLR(ConvNet(width=4)), datamodule=Digits(batch_size=50, limit=150, val_size=50)
        )
    assert len([warning for warning in told if "exceeds" in str(warning.message)]) == 1


class Diverged(SimCLR):
    def embed(self, inputs: Any) -> Tensor:
        return super().embed(inputs) * float("nan")


def test_neighbours_of_nan_are_refused(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`queries` holds NaN or infinity, which has no neighbours"):
        trainer(callbacks=[KNN()]).validate(Diverged(ConvNet(width=4)), datamodule=Digits(), verbose=False)


def test_the_seed_decides_the_views(trainer: Any) -> None:
    """Steps, ranks and seeds have views of their own."""
    batch, model = batch_of(4), SimCLR(ConvNet(width=4), SimCLRViews())
    first = model.prepare(batch, random=True)[0]
    model._seed = 1
    assert not torch.equal(first, model.prepare(batch, random=True)[0])
    found = []

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
            found.append(module.prepare(batch, random=True)[0])

    trainer(max_steps=3, callbacks=[Keep()]).fit(model, datamodule=Digits(batch_size=64))
    assert len({float(view.sum()) for view in found}) == 3


class Rows(DataModule):
    """Vectors of four numbers."""

    num_classes, class_names, feature_dim = 2, ("low", "high"), 4
    fact_names = (*DataModule.fact_names, "feature_dim")

    def load(self, split: str) -> TensorSamples:
        return TensorSamples(torch.randn(64, 4), torch.arange(64) % 2, [f"{split}-{place}" for place in range(64)])


def test_a_method_or_an_encoder_on_data_that_it_does_not_take_says_which_it_takes(trainer: Any) -> None:
    with pytest.raises(ValueError, match=r"`Rotation` takes images, and these data are rows; .*list methods"):
        trainer(max_steps=1).fit(Rotation(ConvNet(width=4), views=Shake()), datamodule=Rows())
    with pytest.raises(ValueError, match=r"backbone `ConvNet` takes images, and these data are rows; .*list backbones"):
        trainer(max_steps=1).fit(SimCLR(ConvNet(width=4)), datamodule=Rows())
    with pytest.raises(ValueError, match="backbone `ConvNet` takes images"):
        trainer(max_steps=1).fit(Classifier(2, ConvNet(width=4)), datamodule=Rows())


def test_transforms_that_are_given_may_make_what_an_encoder_takes(trainer: Any) -> None:
    def as_image(row: Tensor) -> Tensor:
        return row.view(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)

    class Image(nn.Module):
        def forward(self, inputs: Tensor, generator: Any = None) -> Tensor:
            return torch.stack([as_image(row) for row in inputs])

    trainer(max_steps=1).fit(SimCLR(ConvNet(width=4), views=as_image, clean=Image()), datamodule=Rows(batch_size=32))
