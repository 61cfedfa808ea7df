import copy
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from ssl_lightning.backbones import (
    AnyModule,
    Backbone,
    ConvNet,
    LeNet,
    ResNet,
    StridedNet,
    Timm,
    Torchvision,
    ViT,
    as_backbone,
    build,
    describe,
)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (28, 1), (32, 3), (64, 3)])
def test_convnet_embeds_any_size(size: int, channels: int) -> None:
    backbone = ConvNet(channels=channels, width=8)
    assert backbone(torch.randn(2, channels, size, size)).shape == (2, backbone.feature_dim)


def test_convnet_has_the_parameters_it_says() -> None:
    assert sum(p.numel() for p in ConvNet().parameters()) == 9 * (32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)


@pytest.mark.parametrize("backbone", [ConvNet(width=4, dropout=0.3), ConvNet(width=4), LeNet(), ResNet(channels=1)])
def test_trunk_and_rest_are_the_whole(backbone: Backbone) -> None:
    """And with all dropout on, the trunk gives the same twice: no dropout is in it."""
    images = torch.randn(3, 1, 28, 28)
    backbone.eval()
    assert torch.equal(backbone.rest(backbone.trunk(images)), backbone(images))
    for module in backbone.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.train()
    assert torch.equal(backbone.trunk(images), backbone.trunk(images))


def test_lenet_is_the_papers() -> None:
    """Two convolutions of 5x5 with 32 and 64 maps, a hidden layer of 128: parameters counted by hand."""
    counted = 32 * 25 + 32 + 64 * 32 * 25 + 64 + 1024 * 128 + 128
    assert sum(parameter.numel() for parameter in LeNet().parameters()) == counted
    assert LeNet()(torch.randn(2, 1, 28, 28)).shape == (2, 128)
    with pytest.raises(ValueError, match="`image_size=12` must be at least 16; for smaller images take `ConvNet`"):
        LeNet(image_size=12)


@pytest.mark.parametrize(("size", "channels"), [(6, 1), (8, 3), (28, 1), (32, 3), (64, 3)])
def test_strided_net_halves_until_little_is_left(size: int, channels: int) -> None:
    backbone = StridedNet(channels, size, width=4)
    assert backbone(torch.randn(2, channels, size, size)).shape == (2, backbone.feature_dim)
    with pytest.raises(ValueError, match="`image_size=5` must be at least 6; for smaller images take `ConvNet`"):
        StridedNet(image_size=5)


@pytest.mark.parametrize(("size", "channels", "patch"), [(8, 1, 2), (28, 1, 4), (32, 3, 4), (96, 3, 12), (224, 3, 28)])
def test_vit_is_torchvisions_with_about_eight_patches_a_side(size: int, channels: int, patch: int) -> None:
    """With the class token, the embedding is torchvision's own; the mean is that of what comes beside it."""
    with pytest.raises(ValueError, match="`image_size=31` is no multiple of patches"):
        ViT(image_size=31)
    token, mean = (ViT(channels, size, dim=16, depth=2, heads=2, pool=pool).eval() for pool in ("token", "mean"))  # type: ignore[arg-type]
    assert token.net.patch_size == patch
    mean.load_state_dict(token.state_dict())
    kept: list[torch.Tensor] = []
    token.net.encoder.register_forward_hook(lambda module, inputs, output: kept.append(output))
    images = torch.randn(2, channels, size, size)
    torch.testing.assert_close(token(images), token.net(images))
    torch.testing.assert_close(mean(images), kept[0][:, 1:].mean(dim=1))
    assert torch.equal(build(describe(mean)).net.encoder.pos_embedding, mean.net.encoder.pos_embedding)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions(name: str) -> None:
    """With the ImageNet stem and the same weights, the embedding is torchvision's before its classifier."""
    backbone = ResNet(name=name, image_size=224).eval()  # type: ignore[arg-type]
    reference = torchvision.models.get_model(name).eval()
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(backbone.net.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), reference(images))


def test_small_stem_keeps_resolution() -> None:
    small, large = ResNet(image_size=32), ResNet(image_size=96)
    assert small.net.conv1.stride == (1, 1)
    assert isinstance(small.net.maxpool, torch.nn.Identity)
    assert large.net.conv1.stride == (2, 2)
    assert small(torch.randn(2, 3, 32, 32)).shape == (2, 512)
    assert ResNet(channels=1, image_size=96)(torch.randn(2, 1, 96, 96)).shape == (2, 512)


@pytest.mark.parametrize("backbone", [ConvNet(channels=3, width=4, dropout=0.1), ResNet(channels=1, image_size=28)])
def test_description_builds_the_same_architecture(backbone: Backbone) -> None:
    description = describe(backbone)
    assert description["class_path"] == f"ssl_lightning.backbones.{type(backbone).__name__}"  # as one imports it
    again = build(description)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in backbone.state_dict().items()}


def test_unknown_class_in_a_description_is_named() -> None:
    with pytest.raises(ValueError, match=r"Backbone `__main__\.Mine` cannot be imported .* pass it yourself"):
        build({"class_path": "__main__.Mine", "init_args": {}}, trust=True)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "mobilenet_v3_small", "squeezenet1_1", "densenet121"])
def test_torchvision_features_are_what_its_classifier_gets(name: str) -> None:
    if name == "squeezenet1_1":
        with pytest.raises(ValueError, match=r"`squeezenet1_1` has no linear classifier"):
            Torchvision(name, image_size=64)
        return
    backbone = Torchvision(name, image_size=64).eval()
    net = torchvision.models.get_model(name, **({"image_size": 64} if name.startswith("vit") else {})).eval()
    path, head = [(path, layer) for path, layer in net.named_modules() if isinstance(layer, torch.nn.Linear)][-1]
    own = dict(backbone.net.state_dict().items())
    net.load_state_dict({**net.state_dict(), **own}, strict=True)
    seen: list[torch.Tensor] = []
    net.get_submodule(path).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        net(images)
        torch.testing.assert_close(backbone(images), seen[0])
    assert backbone.feature_dim == head.in_features


def test_timm_features_are_timms() -> None:
    timm = pytest.importorskip("timm")
    backbone = Timm("resnet18", channels=1).eval()
    net = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    net.load_state_dict(backbone.net.state_dict(), strict=True)
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), net(images))
    assert backbone(images).shape == (2, backbone.feature_dim)


def test_timm_vision_transformer_takes_the_datas_size() -> None:
    pytest.importorskip("timm")
    backbone = Timm("vit_tiny_patch16_224", image_size=32)
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, 192)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Torchvision("resnet81"),
            r"`name=resnet81` is no network of torchvision.models \(did you mean `resnet18`",
        ),
        (lambda: Timm("resnet188"), r"`name=resnet188` is no network of timm \(did you mean `resnet18`"),
        (lambda: Torchvision("vit_b_16", image_size=33), r"`vit_b_16` cannot be built for `image_size=33`"),
        (lambda: Torchvision("resnet18", pretrained=True, channels=1), r"`pretrained=true` needs `channels=3`, got 1"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_offline_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(ValueError, match=r"weights of `resnet18` are not in .* cannot be downloaded \(URLError\)"):
        Torchvision("resnet18", pretrained=True)


def test_offline_timm_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")

    def refuse(*args: Any, **options: Any) -> Any:
        if options["pretrained"]:
            raise FileNotFoundError("outgoing traffic has been disabled")
        return create(*args, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match=r"weights of `resnet18` are not in .* leave out `pretrained`"):
        Timm("resnet18", pretrained=True)


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'pip install "ssl-lightning\[timm\]"'):
        Timm("resnet18")


def test_built_again_it_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint has the weights: a pretrained backbone is described without its download."""
    weights = torchvision.models.get_model("resnet18").state_dict()
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: weights)
    description = describe(Torchvision("resnet18", pretrained=True))
    monkeypatch.undo()
    assert description["init_args"]["pretrained"] is False
    build(description)


class Strangers(ConvNet):
    """A backbone of a user's module."""


def test_a_class_is_named_as_one_imports_it() -> None:
    assert describe(Strangers())["class_path"] == f"{__name__}.Strangers"
    assert isinstance(build(describe(Strangers(width=4)), trust=True), Strangers)


@pytest.mark.parametrize(
    ("module", "dim", "channels", "side"),
    [
        (torchvision.models.resnet18(num_classes=7), 7, 3, 64),
        (nn.Sequential(nn.Conv2d(1, 7, 3), nn.ReLU()), 7, 1, 8),  # a map, averaged
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), 5, 1, 8),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), 5, 3, 8),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 6)), 6, 1, 28),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 222 * 222, 6)), 6, 3, 224),
    ],
)
def test_any_network_is_a_backbone(module: nn.Module, dim: int, channels: int, side: int) -> None:
    """Also where it knows one size alone."""
    backbone = as_backbone(module)
    assert isinstance(backbone, AnyModule)
    assert backbone.module is module
    assert backbone.feature_dim == dim
    assert backbone.eval()(torch.randn(3, channels, side, side)).shape == (3, dim)


def test_the_dry_run_leaves_no_trace() -> None:
    """Modes, statistics, weights and the global random state are as before."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.get_rng_state()
    assert AnyModule(module).feature_dim == 4
    assert [layer.training for layer in module] == [True, False, True, True, True]
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


class Pooled(nn.Module):
    """Returns a map and something else, of ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 5)

    def forward(self, ids: torch.Tensor) -> Any:
        """Embed."""
        return self.embed(ids).mean(dim=1), "else"


def test_several_outputs_and_tokens() -> None:
    backbone = as_backbone(Pooled())
    assert backbone.feature_dim == 5
    assert backbone(torch.zeros(2, 30, dtype=torch.int64)).shape == (2, 5)
    with_example = AnyModule(nn.Linear(3, 2), torch.zeros(1, 3))
    assert with_example.feature_dim == 2


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(0), r"`backbone`: `Flatten` must return one vector a sample.*it returned \(3072,\)"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2, 1, 1))),
            r"returned \(1, 2, 2, 1, 1\).*example=SAMPLE",
        ),
        (nn.Conv2d, "not the class `Conv2d`"),
        ("ConvNet", "must be a network that is built"),
        (nn.Transformer(8, 2), r"`Transformer` must return one vector.*TypeError"),
    ],
)
def test_what_is_no_backbone_is_named(module: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_backbone(module)


def test_fresh_weights_are_of_their_own_draw() -> None:
    for backbone in (ConvNet(width=4), as_backbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))):
        again = backbone.fresh()
        assert type(again) is type(backbone)
        assert again.feature_dim == backbone.feature_dim
        weights, others = (next(module.parameters()) for module in (backbone, again))
        assert not torch.equal(weights, others)


class Flattened(nn.Module):
    """A network of a user's module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode."""
        return self.layer(images.flatten(1))  # type: ignore[no-any-return]


def test_a_strangers_network_is_built_again_by_those_who_trust_the_file() -> None:
    description = describe(as_backbone(Flattened()))
    with pytest.raises(ValueError, match=r"is a network of your own.* pass it .*--trust"):
        build(description)
    again = build(description, trust=True)
    assert isinstance(again, AnyModule)
    assert isinstance(again.module, Flattened)
    with pytest.raises(ValueError, match=r"`torch\.nn\.Linear` cannot be built again"):
        build(describe(AnyModule(nn.Linear(3, 2))), trust=True)


@pytest.mark.parametrize(
    "description",
    [
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "{path}"]}},
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "{path}"]}, "any_module": True},
        {"class_path": "ssl_lightning.checkpoint.read", "init_args": {"path": "{path}"}},
        {"class_path": "ssl_lightning.checkpoint.Path.touch", "init_args": {"self": "{path}"}},
        {"class_path": "ssl_lightning.methods.SimCLR", "init_args": {}},
        {"class_path": "ssl_lightning.methods.SimCLR", "init_args": {}, "any_module": True},
        {"class_path": ["os.system"], "init_args": {}},
        {"class_path": None, "init_args": {}},
        {"class_path": "os.system", "init_args": ["touch {path}"]},
        {},
    ],
    ids=str,
)
def test_a_description_calls_nothing_but_encoders(description: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a file says."""
    path = tmp_path / "touched"
    init_args = description.get("init_args")
    if isinstance(init_args, dict):
        filled = {key: [v.replace("{path}", str(path)) for v in value] if isinstance(value, list) else
                  value.replace("{path}", str(path)) for key, value in init_args.items()}  # fmt: skip
        description = {**description, "init_args": filled}
    with pytest.raises(ValueError):  # noqa: PT011  # each its own message
        build(description)
    assert not path.exists()


def test_what_a_file_says_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    init_args = {"name": "resnet18", "pretrained": True}
    found = build({"class_path": "ssl_lightning.backbones.Torchvision", "init_args": init_args})
    assert isinstance(found, Torchvision)


class Bare(nn.Module):
    """Weights that no layer can draw anew."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.norm(rows @ self.weight)  # type: ignore[no-any-return]


def test_a_copy_that_would_begin_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="`Bare` cannot draw its weights `weight` anew"):
        AnyModule(Bare(), torch.zeros(1, 4)).fresh()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), r"is as long as its input is large \(3600 numbers"),
        (nn.Identity(), "is as long as its input is large"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten()), "has lazy layers"),
    ],
)
def test_an_embedding_whose_size_hangs_on_the_input_wants_an_example(module: nn.Module, message: str) -> None:
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=message):
        as_backbone(module)
    assert module.state_dict().keys() == before.keys()


def test_another_size_than_that_of_the_example_is_named() -> None:
    encoder = AnyModule(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.zeros(1, 3, 8, 8))
    assert encoder(torch.zeros(2, 3, 8, 8)).shape == (2, encoder.feature_dim) == (2, 144)
    with pytest.raises(ValueError, match=r"returned \(2, 196\) for input \(2, 3, 9, 9\), and not 144 numbers"):
        encoder(torch.zeros(2, 3, 9, 9))
