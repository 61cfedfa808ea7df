"""What `export` writes works without this package."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

from ssl_lightning.backbones import Backbone, ConvNet, ResNet, Timm, Torchvision
from ssl_lightning.commands.export import Network, loading_lines, open_checkpoint
from ssl_lightning.data import Digits
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import CleanView, SimCLRViews


@pytest.fixture
def save(trainer: Any, tmp_path: Path) -> Any:
    """Return a function that saves a module's checkpoint, with weights and statistics unlike fresh ones."""

    def saved(module: Any) -> tuple[Path, Any]:
        generator = torch.Generator().manual_seed(3)
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.data.mul_(1 + 0.1 * torch.rand(value.shape, generator=generator))
                if value.ndim == 1:  # biases and running means begin as zero
                    value.data.add_(0.05 * torch.rand(value.shape, generator=generator))
        fit = trainer()
        fit.strategy.connect(module)
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        fit.save_checkpoint(path)
        return path, module.eval()

    return saved


def run_lines(out: str) -> Any:
    """Run the Python that the command printed, in an empty scope."""
    scope: dict[str, Any] = {}
    exec(out[out.index("from safetensors") :], scope)
    return scope["net"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNet("resnet18", channels=3, image_size=32),
        lambda: ResNet("resnet18", channels=1, image_size=28),
        lambda: ResNet("resnet50", image_size=96),
        lambda: Torchvision("resnet18", image_size=64),
        pytest.param(lambda: Torchvision("vit_b_16", image_size=32), marks=pytest.mark.long),
        lambda: Timm("resnet18"),
        lambda: Timm("resnet10t", channels=1),
        lambda: ConvNet(channels=3, width=8),
    ],
    ids=["small stem", "gray", "imagenet stem", "torchvision", "torchvision vit", "timm", "timm gray", "ConvNet"],
)
def test_plain_libraries_load_it_strictly(make: Any, save: Any, command: Any) -> None:
    # in the other format sums are rounded otherwise, which fifty layers make visible
    path, method = save(SimCLR(make(), SimCLRViews(mean=0.4, std=0.2), channels_last=False))
    status, out = command("export", path, "--to", "safetensors")
    assert status == 0, out
    assert "'mean': [0.4], 'std': [0.2]" in out
    about = json.loads((path.parent.parent / "export" / "about.json").read_text())
    assert about["clean"]["init_args"] == {"mean": [0.4], "std": [0.2]}
    net = run_lines(out)
    if not isinstance(method.backbone, ConvNet):
        assert type(net).__module__.split(".")[0] in ("torchvision", "timm")
    size = method.backbone.init_args.get("image_size") or 32
    images = torch.randn(4, method.backbone.init_args["channels"], size, size)
    with torch.no_grad():
        torch.testing.assert_close(net(images), method.backbone(images), rtol=1e-5, atol=1e-5)


def test_weights_have_torchvisions_names(save: Any, command: Any) -> None:
    path, method = save(SimCLR(ResNet("resnet18", image_size=96)))
    assert command("export", path, "--to", "safetensors")[0] == 0
    weights = load_file(path.parent.parent / "export" / "backbone.safetensors")
    plain = torchvision.models.resnet18()
    assert set(plain.state_dict()) - set(weights) == {"fc.weight", "fc.bias"}
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), method.backbone(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNet(),
        *(
            pytest.param(make, marks=pytest.mark.long)
            for make in (
                lambda: Timm("resnet18"),
                lambda: Torchvision("mobilenet_v3_small"),
            )
        ),
    ],
    ids=["resnet", "timm", "torchvision"],
)
def test_a_classifiers_head_goes_along(make: Any, save: Any, command: Any) -> None:
    path, classifier = save(Classifier(7, make()))
    status, out = command("export", path)
    assert status == 0, out
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(run_lines(out)(images), classifier(images), rtol=1e-4, atol=1e-4)


def test_a_classifiers_classes_and_normalisation_go_along(save: Any, command: Any) -> None:
    model = Classifier(2, ConvNet(channels=1, width=4), clean=CleanView(mean=0.4, std=0.2))
    model.facts = {"num_classes": 2, "class_names": ["dog", "cat"], "channels": 1, "image_size": 8}
    path, _ = save(model)
    status, out = command("export", path.parent.parent, "--to", "safetensors")  # the run's folder
    assert status == 0, out
    assert f"checkpoint: {path}" in out
    assert "then (x - mean) / std with {'mean': [0.4], 'std': [0.2]}" in out
    assert "classes, in the order of the outputs: dog, cat" in out
    folder = path.parent.parent / "export"
    with safe_open(folder / "backbone.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["about"])
    for about in (kept, json.loads((folder / "about.json").read_text())):
        assert about["facts"]["class_names"] == ["dog", "cat"]
        assert about["clean"]["init_args"] == {"mean": [0.4], "std": [0.2]}


def test_our_own_backbones_say_where_the_head_is(save: Any, command: Any) -> None:
    path, classifier = save(Classifier(7, ConvNet(channels=1, width=4)))
    status, out = command("export", path, "--to", "safetensors")
    assert status == 0, out
    assert "# net(x) gives the embedding, and net.head(net(x)) the logits" in out
    images, net = torch.randn(3, 1, 8, 8), run_lines(out)
    with torch.no_grad():
        torch.testing.assert_close(net.head(net(images)), classifier(images), rtol=1e-5, atol=1e-5)
    path, _ = save(SimCLR(ConvNet(channels=1, width=4)))
    assert "net.head" not in command("export", path, "--to", "safetensors")[1]


def test_pt2_takes_any_batch(save: Any, command: Any) -> None:
    path, method = save(SimCLR(ConvNet(channels=1, width=8)))
    assert command("export", path, "--to", "pt2", "--folder", path.parent / "out")[0] == 0
    program = torch.export.load(path.parent / "out" / "backbone.pt2").module()
    for count in (1, 5):
        images = torch.randn(count, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(program(images), method.backbone(images), rtol=1e-5, atol=1e-5)


def test_onnxruntime_gives_the_same(save: Any, command: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path, method = save(SimCLR(ResNet(image_size=32)))
    status, out = command("export", path, "--to", "onnx")
    assert status == 0, out
    session = runtime.InferenceSession(path.parent.parent / "export" / "backbone.onnx")
    for count in (1, 3):
        images = torch.randn(count, 3, 32, 32)
        (got,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(got), method.backbone(images), rtol=1e-4, atol=1e-4)


def test_a_strangers_backbone_loads_by_its_own_class(save: Any) -> None:
    lines = loading_lines(Network(ConvNet(width=4), None), "x.safetensors")
    assert "from ssl_lightning.backbones import ConvNet" in lines
    assert "ConvNet(channels=1, width=4, dropout=0.0)" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.ckpt"], "`checkpoint=missing.ckpt` is no file"),
        (["{path}", "--to", "onxx"], "there is no format `onxx` (did you mean `onnx`?)"),
        (["{junk}"], "is no checkpoint"),
    ],
)
def test_mistakes_take_a_line(arguments: list[str], message: str, save: Any, command: Any, tmp_path: Path) -> None:
    path, _ = save(SimCLR(ConvNet(width=4)))
    (tmp_path / "junk.ckpt").write_text("junk")
    given = [argument.format(path=path, junk=tmp_path / "junk.ckpt") for argument in arguments]
    status, out = command("export", *given)
    assert status == 2
    assert message in out
    assert "Traceback" not in out


def test_two_checkpoints_do_not_share_a_folder(save: Any, command: Any, tmp_path: Path) -> None:
    path, _ = save(SimCLR(ConvNet(width=4)))
    other = path.with_name("other.ckpt")
    other.write_bytes(path.read_bytes())
    folder = tmp_path / "out"
    assert command("export", path, "--to", "safetensors", "--folder", folder)[0] == 0
    assert command("export", path, "--to", "safetensors", "--folder", folder)[0] == 0
    status, out = command("export", other, "--to", "safetensors", "--folder", folder)
    assert status == 2
    assert "holds the export of" in out


def test_missing_onnx_names_the_extra(save: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = save(SimCLR(ConvNet(width=4)))
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, out = command("export", path, "--to", "safetensors,onnx")
    assert status == 2
    assert 'pip install "ssl-lightning[export]"' in out
    assert (path.parent.parent / "export" / "backbone.safetensors").exists()


def test_active_rounds_models_export(save: Any) -> None:
    """A checkpoint of an active round is a Classifier's."""
    path, classifier = save(Classifier(Digits.num_classes, ConvNet(width=4), dropout=0.3))
    network, _about = open_checkpoint(str(path))
    backbone: Backbone = network.backbone
    assert isinstance(backbone, ConvNet)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(images), classifier(images))
