"""What a file says is data, not code; and a checkpoint tells all that its encoder needs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.checkpoint import Checkpoint, Pretrained, match_classes
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import VAE, SimCLR, SupCon
from ssl_lightning.supervised import Classifier, Ensemble
from ssl_lightning.transforms.image import CleanView, SimCLRViews


@pytest.fixture
def pretrained(trainer: Any, tmp_path: Path) -> Path:
    """A step of SimCLR with a normalisation of its own."""
    fit = trainer(max_steps=1)
    fit.fit(SimCLR(ConvNet(width=4), SimCLRViews(mean=0.1, std=0.9)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "run" / "ssl.ckpt")
    return tmp_path / "run" / "ssl.ckpt"


@pytest.fixture
def classifier(trainer: Any, tmp_path: Path) -> Path:
    """A step of a classifier with a normalisation of its own."""
    fit = trainer(max_steps=1)
    model = Classifier(10, ConvNet(width=4), clean=CleanView(0.2, 0.7))
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "run" / "classifier.ckpt")
    return tmp_path / "run" / "classifier.ckpt"


FOREIGN = [
    ("subprocess.Popen", {"args": ["touch", "touched"]}),
    ("os.system", {"command": "touch touched"}),
    ("builtins.exec", {"source": "open('touched', 'w')"}),
    ("pathlib.Path.touch", {"self": "touched"}),
    ("ssl_lightning.checkpoint.Path", {"args": "touched"}),
    ("ssl_lightning.data.images.ThreadPoolExecutor", {}),
    ("ssl_lightning.commands.train.main", {"argv": ["fit"]}),
    ("ssl_lightning.checkpoint.torch.nn.Linear", {"in_features": 1, "out_features": 1}),
    ("torch.nn.Linear", {"in_features": 1, "out_features": 1}),
    ("evil_module.Encoder", {}),
    ("", {}),
    (None, {}),
    (3, {}),
    ("no path at all; import os", {}),
]


def poison(path: Path, where: str, class_path: Any, init_args: Any) -> None:
    """Let a part of a checkpoint's description name another class."""
    saved = torch.load(path, weights_only=True)
    about = saved["ssl_lightning"]
    if where == "class_path":
        about["class_path"] = class_path
    else:
        about[where] = {"class_path": class_path, "init_args": init_args}
        if where == "backbone":
            about[where]["any_module"] = bool(len(str(class_path)) % 2)
    torch.save(saved, path)


@pytest.mark.parametrize(("class_path", "init_args"), FOREIGN)
@pytest.mark.parametrize("where", ["backbone", pytest.param("clean", marks=pytest.mark.long)])
def test_foreign_classes_are_neither_imported_nor_called(
    where: str, class_path: Any, init_args: Any, pretrained: Path, command: Any, tmp_path: Path
) -> None:
    (tmp_path / "evil_module.py").write_text("open('touched', 'w')\nclass Encoder: pass\n")
    poison(pretrained, where, class_path, init_args)
    data = ["--data", "Digits", "--protocols", "rank"]
    for arguments in (
        ["evaluate", pretrained, *data],
        ["export", pretrained],
        ["sample", pretrained],
        ["predict", pretrained, "--data", "Digits"],
        ["fit", "--data", "Digits", "--model", "Classifier", "--model.checkpoint", pretrained, "--folder", "f"],
    ):
        status, out = command(*arguments)
        assert status == 2, (arguments, out)
        assert "Traceback" not in out
        assert not (tmp_path / "touched").exists(), arguments
    with pytest.raises(ValueError, match=str(pretrained)):
        Checkpoint.open(pretrained)


@pytest.mark.parametrize(("class_path", "init_args"), FOREIGN)
def test_foreign_models_are_neither(
    class_path: Any, init_args: Any, classifier: Path, command: Any, tmp_path: Path
) -> None:
    poison(classifier, "class_path", class_path, init_args)
    for arguments in (["sample", classifier], ["predict", classifier, "--data", "Digits"]):
        status, out = command(*arguments)
        assert status == 2, out
        assert "Traceback" not in out
        assert not (tmp_path / "touched").exists()


def test_weights_are_no_download(pretrained: Path) -> None:
    """A description that asks for pretrained weights gets none: nothing goes out to a network."""
    saved = torch.load(pretrained, weights_only=True)
    description = {"class_path": "ssl_lightning.backbones.Torchvision", "init_args": {"name": "resnet18"}}
    description["init_args"]["pretrained"] = True  # type: ignore[index]
    saved["ssl_lightning"]["backbone"] = description
    torch.save(saved, pretrained)
    with pytest.raises(ValueError, match="holds another architecture"):
        Checkpoint.open(pretrained)


def test_a_file_that_would_run_code_is_refused(command: Any, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": {}, "ssl_lightning": Evil()}, tmp_path / "evil.ckpt")
    status, out = command("evaluate", "evil.ckpt", "--data", "Digits")
    assert status == 2
    assert "would run code" in out
    data = ["--data", "Digits", "--model", "Classifier", "--model.backbone", "ConvNet", "--trainer.accelerator", "cpu"]
    for name in ("test", "validate", "predict"):
        status, out = command(name, *data, "--ckpt_path", "evil.ckpt", "--folder", name)
        assert status != 0
        assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
def test_files_that_are_no_checkpoint_say_so_in_a_line(content: bytes, command: Any, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    for arguments in (["evaluate", "x.ckpt", "--data", "Digits"], ["export", "x.ckpt"], ["sample", "x.ckpt"]):
        status, out = command(*arguments)
        assert status == 2
        assert "x.ckpt` is no checkpoint" in out or "x.ckpt` is a file of torch" in out
        assert len(out.strip().splitlines()) == 1


def test_normalisation_is_not_lost(pretrained: Path) -> None:
    """SimCLR's mean 0.1 and std 0.9 reach whoever takes its encoder, whose embeddings are those of the pretraining."""
    opened = Checkpoint.open(pretrained)
    assert isinstance(opened.clean, CleanView)
    assert (opened.clean.mean, opened.clean.std) == ((0.1,), (0.9,))
    data = Digits(batch_size=32)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    method = SimCLR(ConvNet(width=4), SimCLRViews(mean=0.1, std=0.9)).eval()
    method.load_state_dict(torch.load(pretrained, weights_only=True)["state_dict"])
    for options in ({}, {"views": SimCLRViews(count=1).view}, {"freeze": True}):
        model = Classifier(10, checkpoint=str(pretrained), **options).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            assert torch.equal(model.embed(model.prepare(batch)), method.embed(method.prepare(batch)))
    view = model = Classifier(10, checkpoint=str(pretrained), views=SimCLRViews(count=1).view)
    clean = [module for module in view.views.modules() if isinstance(module, CleanView)]  # type: ignore[union-attr]
    assert all(module.mean == (0.1,) for module in clean), "random views end as the encoder was trained"
    with pytest.warns(UserWarning, match="`views` normalise by"):
        Classifier(10, checkpoint=str(pretrained), views=SimCLRViews(count=1, mean=0.4).view)


def test_facts_and_class_names_are_kept(pretrained: Path, classifier: Path) -> None:
    for path in (pretrained, classifier):
        opened = Checkpoint.open(path)
        assert opened.class_names == tuple("0123456789")
        assert opened.facts["channels"] == 1
        assert opened.facts["image_size"] == 8
    assert Checkpoint.open(classifier).head is not None
    assert Checkpoint.open(pretrained).method == "SimCLR"


class Shuffled(Digits):
    """The digits, whose classes are in another order."""

    class_names = tuple("9876543210")

    def load(self, split: Any) -> Any:
        found: Any = super().load(split)
        found.targets = 9 - found.targets
        return found


class Renamed(Digits):
    """The digits with a class of another name."""

    class_names = ("nought", *"123456789")


class Fewer(Digits):
    """The digits without the nine, whose classes are fewer."""

    num_classes = 9
    class_names = tuple("012345678")

    def load(self, split: Any) -> Any:
        found: Any = super().load(split)
        kept = (found.targets < 9).nonzero()[:, 0]
        return type(found)(found.inputs[kept], found.targets[kept], [found.keys[place] for place in kept.tolist()])


@pytest.mark.parametrize("kind", [Classifier, Ensemble])
def test_classes_are_compared_by_name(kind: Any, trainer: Any, tmp_path: Path) -> None:
    model = kind(10, backbone=ConvNet(width=8), optimizer=OptimizerSpec(lr=0.01))
    fit = trainer(max_epochs=4)
    fit.fit(model, datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "c.ckpt")
    wanted = fit.test(model, datamodule=Digits(), verbose=False)[0]["test/accuracy"]
    assert wanted > 0.6

    def tested(data: Any) -> float:
        other = kind(data.num_classes, backbone=ConvNet(width=8))
        result = trainer().test(other, datamodule=data, ckpt_path=str(tmp_path / "c.ckpt"), verbose=False)
        return float(result[0]["test/accuracy"])

    assert tested(Digits()) == pytest.approx(wanted)
    assert tested(Shuffled()) == pytest.approx(wanted)
    with pytest.warns(UserWarning, match=r"the data have no class `9`, which the checkpoint knows"):
        assert tested(Fewer()) > 0.6
    with pytest.raises(ValueError, match=r"does not know: `nought`, and lack `0`: was a class renamed\?"):
        tested(Renamed())
    with pytest.raises(ValueError, match=r"has learnt the classes 0, 1, .* and the data have 9, 8"):
        trainer(max_epochs=5).fit(kind(10, backbone=ConvNet(width=8)), datamodule=Shuffled(),
                                  ckpt_path=str(tmp_path / "c.ckpt"))  # fmt: skip
    again = kind.load_from_checkpoint(tmp_path / "c.ckpt").eval()
    assert trainer().test(again, datamodule=Digits(), verbose=False)[0]["test/accuracy"] == pytest.approx(wanted)


def test_match_classes() -> None:
    assert match_classes("abc", "cab", "it").tolist() == [2, 0, 1]
    with pytest.warns(UserWarning, match="no class `b`, which it knows"):
        assert match_classes("abc", "ca", "it").tolist() == [2, 0]
    with pytest.raises(ValueError, match="does not know: `d`"):
        match_classes("abc", "abcd", "it")


def test_other_channels_are_said_in_a_line(pretrained: Path, trainer: Any) -> None:
    from support import ColourDigits

    model = Classifier(10, checkpoint=str(pretrained))
    with pytest.raises(ValueError, match=r"was built for `channels=1`, and the data have `channels=3`; give data of 1"):
        trainer(max_steps=1).fit(model, datamodule=ColourDigits())


def test_a_generative_method_is_built_again(trainer: Any, tmp_path: Path, command: Any) -> None:
    fit = trainer(max_steps=1)
    fit.fit(VAE(ConvNet(width=4), image_size=8, latent_dim=3), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "vae.ckpt")
    status, out = command("sample", "vae.ckpt", "--count", "4")
    assert status == 0, out


def test_pretraining_goes_on_by_another_method(pretrained: Path, trainer: Any, command: Any, tmp_path: Path) -> None:
    """What comes of it does not need the first file."""
    encoder = Pretrained(str(pretrained))
    assert type(encoder) is ConvNet
    first = Checkpoint.open(pretrained).backbone.state_dict()
    assert all(torch.equal(first[name], value) for name, value in encoder.state_dict().items())
    arguments = ["fit", "--data", "Digits", "--data.keep_labels", "40", "--data.batch_size", "64", "--model", "SupCon"]
    arguments += ["--model.backbone", "Pretrained", "--trainer.accelerator", "cpu", "--trainer.max_steps", "1"]
    arguments += ["--model.optimizer.lr", "1e-6", "--folder"]
    status, said = command(*arguments, "more", "--model.backbone.checkpoint", "run/ssl.ckpt")
    assert status == 0, said
    status, said = command(*arguments, "none", "--model.backbone.checkpoint", "run/none.ckpt")
    assert status == 2
    assert "`--model.backbone.checkpoint=run/none.ckpt` is no file" in said
    pretrained.unlink()
    last = Checkpoint.open(tmp_path / "more" / "checkpoints" / "last.ckpt")
    assert last.method == "SupCon"
    for name, value in last.backbone.named_parameters():
        torch.testing.assert_close(value, first[name], atol=1e-4, rtol=0)
    trainer(max_steps=1).fit(SupCon(last.backbone), datamodule=Digits(batch_size=64))
