import pytest
import torch
import torchvision

from ssl_lightning.backbones import Backbone, ConvNet, ResNet, build, describe


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (28, 1), (32, 3), (64, 3)])
def test_convnet_embeds_any_size(size: int, channels: int) -> None:
    backbone = ConvNet(channels=channels, width=8)
    assert backbone(torch.randn(2, channels, size, size)).shape == (2, backbone.feature_dim)


def test_convnet_has_the_parameters_it_says() -> None:
    assert sum(p.numel() for p in ConvNet().parameters()) == 9 * (32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)


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
    again = build(describe(backbone))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in backbone.state_dict().items()}


def test_unknown_class_in_a_description_is_named() -> None:
    with pytest.raises(ValueError, match=r"backbone `__main__\.Mine` cannot be imported .* pass `backbone=`"):
        build({"class_path": "__main__.Mine", "init_args": {}})
