"""What a newcomer gets wrong is told in a line: the argument, the value, what is required, the remedy."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image

from ssl_lightning import methods
from ssl_lightning.__main__ import REMEDIES, USAGE
from ssl_lightning.commands import evaluate, train
from ssl_lightning.commands.configs import config_names, find_config
from ssl_lightning.commands.launch import FOLDER
from ssl_lightning.commands.mistakes import COMMANDS, describe_type, no_command

Command = Callable[..., tuple[int, str]]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "1"]
SIMCLR = ["--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--model.backbone.width", "4", *CPU]
ACTIVE = ["-c", "data/digits", "-c", "active/classifier", "--model.backbone.width", "4", "--steps_per_epoch", "2"]

FILES = {
    "tab.yaml": "data:\n  class_path: Digits\n\tinit_args: 3\n",
    "open.yaml": "data: {class_path: [Digits\nmodel: 3",
    "key.yaml": "modle: SimCLR\n",
    "nested.yaml": "trainer:\n  max_epoch: 3\n",
    "list.yaml": "- 1\n- 2\n",
    "init.yaml": "model:\n  class_path: SimCLR\n  init_arg:\n    temperature: 0.2\n",
    "inits.yaml": "trainer:\n  callbacks:\n  - class_path: KNN\n    init_arg:\n      k: 3\n",
    "empty.yaml": "# nothing\n",
    "binary.yaml": "\x00\x01",
}
TOLD = [
    (["fit", "-c", "tab.yaml"], "`tab.yaml`, line 3, column 1: this is no YAML", "never by tabs"),
    (["fit", "-c", "open.yaml"], "`open.yaml`, line 2, column 6: this is no YAML", ""),
    (["fit", "-c", "key.yaml"], "`key.yaml` has the unknown key `modle` (did you mean `model`?); `fit` takes", ""),
    (["fit", "-c", "nested.yaml", *SIMCLR], "`nested.yaml`: there is no option `trainer.max_epoch` (did you mean", ""),
    (["fit", "-c", "list.yaml"], "`list.yaml` holds list, not `key: value` lines", ""),
    (["fit", "-c", "empty.yaml"], "`empty.yaml` is empty", ""),
    (["fit", "-c", "binary.yaml"], "`binary.yaml`", "no YAML"),
    (["fit", "-c", "method/simcrl"], "nor a config of that name (did you mean `method/simclr`", "there are method/"),
    (["fit", "-c", "nowhere"], "`--config nowhere`", "`ssl-lightning list configs` names"),
    (["fit", "-c", "."], "`--config .`: is a folder, and there is no such file", ""),
    (["fit", "--data", "Digits"], "`--model` is required and missing; choose one of Classifier, ", "SimCLR"),
    (["fit", "--data", "ImageFolder", "--data.root", ".", "--data.channels", "2"], "`--data.channels=2`", "of 1, 3"),
    (["fit", *SIMCLR, "--model.views", "SimCLRViews", "--model.views.crop_scale", "0.4"],
     "`--model.views.crop_scale=0.4` is not possible; required is 2 numbers, such as [0.2, 1.0]", ""),
    (["fit", *SIMCLR, "--model.views.crop_scale", "[0.4, 1]"], "give `--model.views CLASS` first", ""),
    (["fit", *SIMCLR, "--trainer.precision", "foo"], "`--trainer.precision=foo` is not possible", "bf16-mixed"),
    (["fit", *SIMCLR, "--trainer.precision", "bf16-mixd"], "(did you mean `bf16-mixed`", ""),
    (["fit", *SIMCLR, "--model.temperature", "0"], "`--model.temperature=0.0` must be above 0", ""),
    (["fit", *SIMCLR, "--model.backbone.width", "0"], "`--model.backbone.width=0` must be", ""),
    (["fit", *SIMCLR, "--model.backbone.channels", "4"], "`--model.backbone.channels=4` contradicts the data", "say 1"),
    (["fit", *SIMCLR, "--folder", "key.yaml"], "`--folder=key.yaml` is a file; give a folder", ""),
    (["fit", *SIMCLR, "--folder", "/dev/null/x"], "`/dev/null/x`: Not a directory; a part of that path is a file", ""),
    (["fit", "-c", "active/classifier"], "`active/classifier` is a config of `active`: it says `initial`", "-c active"),
    (["fit", "-c", "experiment/digits_compare"], "is a config of `compare`; give `ssl-lightning compare exp", ""),
    (["active", "-c", "experiment/digits_pretrain"], "`--model=SimCLR` learns without labels, which", "pretrain it"),
    (["active", "-c", "method/simclr", "-c", "data/digits", "--strategy", "Entropy"], "`--model=SimCLR` learns", ""),
    (["compare", "method/simclr"], "`method/simclr` is a config of `fit`; give `ssl-lightning fit -c method/", ""),
    (["compare", "tab.yaml"], "`tab.yaml`, line 3, column 1", "never by tabs"),
    *(
        (["fit", *SIMCLR, f"--trainer.{given}"], f"`--trainer.{given}` is refused by Lightning: {why}", also)
        for given, why, also in [
            ("accelerator=foo", "You selected an invalid accelerator", "cpu"),
            ("accelerator=tpu", "Requirement 'torch_xla", ""),
            ("devices=foo", "`devices` selected with", "an int > 0"),
            ("devices=-1", "`devices` selected with", "an int > 0"),
            ("strategy=foo", "You selected an invalid strategy", "ddp"),
            ("num_nodes=0", "`num_nodes` must be a positive integer", ""),
            ("val_check_interval=99999", "`val_check_interval` (99999) must be less", ""),
            ("precision=transformer-engine", "Requirement 'transformer_engine", ""),
            ("max_time=foo", "`Timer(duration='foo')` is not a valid duration", "DD:HH:MM:SS"),
        ]
    ),
    (["fit", *SIMCLR, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/foo"],
     "`--trainer.callbacks` is refused by Lightning: Early stopping conditioned on metric `val/foo`", "not available"),
    (["fit", *SIMCLR, "--trainer.callbacks+=LearningRateFinder"],
     "`--trainer.callbacks` is refused by Lightning: When using the learning rate finder", ""),
    (["fit", *SIMCLR, "--trainer.callbacks+=Timer", "--trainer.callbacks.duration", "foo"],
     "`--trainer.callbacks` is refused by Lightning: `Timer(duration='foo')`", ""),
    *((["fit", *SIMCLR, f"--trainer.{name}", "0"], f"`--trainer.{name}=0` must be at least 1.", "")
      for name in ("check_val_every_n_epoch", "accumulate_grad_batches")),
    (["fit", *SIMCLR, "--trainer.gradient_clip_val", "-1"], "`--trainer.gradient_clip_val=-1` must be at least 0.", ""),
    (["active", *ACTIVE, *CPU, "--strategy", "Entropy", "--trainer.barebones", "true"],
     "`--trainer.barebones=True` allows neither logs nor checkpoints", "leave it out"),
    *((["fit", *SIMCLR, "--seed_everything", seed], f"`--seed_everything={seed}` must be from 0 to 4294967295.", "")
      for seed in ("-1", "99999999999")),
    *((["validate", *SIMCLR, "--ckpt_path", name], f"`ckpt_path={name}` is no file; give a checkpoint", "last.ckpt")
      for name in ("last", "best", "hpc", "registry")),
    (["validate", *SIMCLR, "--data.val_size", "0"], "nothing to judge on: the validation part is empty", "--data.val_"),
    (["test", *SIMCLR], "nothing to tell: `SimCLR` logs no metric of the test part", "--trainer.callbacks+=KNN"),
    (["active", *ACTIVE, *CPU, "--strategy", "Entropy", "--data.val_size", "9", "--stop+=NoGain", "--stop.rounds", "0"],
     "`--stop.rounds=0` must be at least 1", ""),
    (["fit", *SIMCLR, "--trainer.callbacks+=KNN", "--trainer.callbacks.kk", "3"],
     "`KNN` has no argument `kk` (did you mean `k`?); it takes", ""),
    (["fit", *SIMCLR, "-c", "init.yaml"], "`--model` has the unknown key `init_arg` (did you mean `init_args`?)", ""),
    (["fit", *SIMCLR, "-c", "inits.yaml"], "`--trainer.callbacks` has the unknown key `init_arg` (did you mean", ""),
    (["fit", *SIMCLR, "--model.optimizer", "adamw"],
     "`--model.optimizer=adamw` is not possible: it has name, lr, ", "give `--model.optimizer.name adamw`."),
    (["fit", *SIMCLR, "--model.backbone", "torch.nn.Linear"], "`--model.backbone torch.nn.Linear` is no `Backbone`",
     "--model.backbone.module torch.nn.Linear`."),
    (["list", "config"], "there is no kind `config` (did you mean `configs`?)", ""),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said", "also"), TOLD, ids=[" ".join(a[:1] + a[-2:]) for a, _, _ in TOLD])
def test_told_in_a_line(arguments: list[str], said: str, also: str, command: Command, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    status, out = command(*arguments)
    assert status == 2, out
    assert said in out
    assert also in out
    assert "Traceback" not in out
    assert len(out[out.index("error:") :].strip().splitlines()) == 1


def test_no_gpu(command: Command) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    status, out = command("fit", *SIMCLR, "--trainer.accelerator", "gpu")
    assert status == 2
    assert "`--trainer.accelerator=gpu` cannot be had" in out
    assert "give `cpu`, or `auto`" in out


def test_a_checkpoint_of_other_channels(command: Command, tmp_path: Path) -> None:
    for name in "ab":
        for number in range(12):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 20, 100, 30)).save(path)
    assert command("fit", *SIMCLR, "--folder", "run")[0] == 0
    pets = ["--data", "ImageFolder", "--data.root", "pets", "--data.image_size", "16", "--data.val_size", "0", *CPU]
    last = "run/checkpoints/last.ckpt"
    for more in (["--model", "Classifier", "--model.checkpoint", last], [*SIMCLR[2:8], "--ckpt_path", last]):
        status, out = command("fit", *pets, *more)
        assert status == 2, out
        assert "Traceback" not in out
        said = out[out.index("error:") :].strip()
        assert len(said.splitlines()) == 1, said
        assert "channels" in said or "another architecture" in said


@pytest.mark.parametrize("number", REMEDIES, ids=lambda number: errno.errorcode[number])
def test_what_the_system_refuses_names_the_path(number: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: list[str]) -> int:
        try:
            raise OSError(number, "refused", "/some/path")
        except OSError as error:
            raise RuntimeError("while saving") from error

    monkeypatch.setattr(train, "main", refuse)
    status, out = command("fit")
    assert status == 2
    assert out.startswith("ssl-lightning fit: error: `/some/path`: refused; ")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, ValueError, OSError])
def test_a_defect_stays_a_traceback(kind: type[Exception], command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[str]) -> int:
        raise kind("defect")

    monkeypatch.setattr(train, "main", fail)
    with pytest.raises(kind, match="defect"):
        command("fit")


def _fall_over(model: Any) -> None:
    torch.ones(2, 3) @ torch.ones(2, 3)


def _misuse_lightning(model: Any) -> None:
    model.log("train/pair", torch.ones(2))


@pytest.mark.parametrize("defect", [_fall_over, _misuse_lightning])
def test_a_defect_in_a_training_step_stays_a_traceback(
    defect: Callable[[Any], None], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Lightning is who raises it."""
    monkeypatch.setattr(methods.SimCLR, "compute_loss", lambda self, views, batch: defect(self))
    with pytest.raises((RuntimeError, ValueError)) as caught:
        command("fit", *SIMCLR)
    assert caught.traceback[-1].frame.f_globals["__name__"] != "ssl_lightning.commands.refusals"


def test_a_timer_ends_a_fit_and_is_in_its_config(command: Command, tmp_path: Path) -> None:
    timer = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration", "00:00:10:00"]
    status, out = command("fit", *SIMCLR, *timer, "--folder", "run")
    assert status == 0, out
    assert "interval: step" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_checkpoint_callback_in_an_active_run(command: Command, tmp_path: Path) -> None:
    given = ["--strategy", "Entropy", "--rounds", "0", "--folder", "run", "--trainer.callbacks+=ModelCheckpoint"]
    status, out = command("active", *ACTIVE, *CPU, *given)
    assert status == 0, out
    assert len(list((tmp_path / "run").rglob("*.ckpt"))) == 2  # the callback's, and that of the round


def test_going_on_by_another_optimizer(command: Command) -> None:
    assert command("fit", *SIMCLR, "--folder", "run")[0] == 0
    last = "run/checkpoints/last.ckpt"
    given = ["-c", "run/config.yaml", "--folder", "other", "--trainer.max_steps", "2", "--ckpt_path", last]
    status, out = command("fit", *given, "--model.optimizer.name", "sgd")
    assert status == 2, out
    assert "`--model.optimizer.name=sgd` cannot go on from `ckpt_path`, which was trained by adamw; give" in out
    status, out = command("fit", *given)
    assert status == 0, out


def test_interrupted(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    monkeypatch.setattr(train, "main", interrupt)
    monkeypatch.setattr(evaluate, "main", interrupt)
    monkeypatch.setenv(FOLDER, "runs/mine")
    again = "interrupted; give the same command again to go on\n"
    assert command("evaluate") == (130, again)
    assert command("fit") == (130, again)  # before its first epoch ended
    last = tmp_path / "runs" / "mine" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert command("fit") == (130, "interrupted; add --ckpt_path runs/mine/checkpoints/last.ckpt to go on\n")

    def terminate(_: list[str]) -> int:
        raise SIGTERMException

    monkeypatch.setattr(train, "main", terminate)
    assert command("fit") == (143, "stopped by SIGTERM; add --ckpt_path runs/mine/checkpoints/last.ckpt to go on\n")


def test_every_command_is_listed_in_one_place(command: Command) -> None:
    assert all(f"  {name} " in USAGE for name in COMMANDS)
    assert command("--help")[1] == USAGE
    status, out = command("smaple")
    assert (status, "(did you mean `sample`?)" in out) == (2, True)
    assert all(name in no_command("x") for name in COMMANDS)
    for name in COMMANDS:
        if name != "list":
            assert command(name, "--help")[0] == 0, name


@pytest.mark.parametrize(
    "name", ["method/simclr", "method/simclr.yaml", "configs/method/simclr.yaml", "configs/method/simclr"]
)
def test_a_config_is_found_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = find_config(name)
    assert packaged.parts[-3:] == ("configs", "method", "simclr.yaml")
    assert "method/simclr" in config_names()
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text("model: BYOL\n")
    assert find_config(name).resolve() == own  # the path as given comes first


def test_later_configs_prevail_over_those_of_the_package(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer:\n  max_epochs: 7\n")
    status, out = command("fit", "-c", "data/digits", "-c", "method/simclr.yaml", "-c", "mine.yaml", "--print_config")
    assert status == 0
    assert "max_epochs: 7" in out
    assert "temperature: 0.5" in out


def test_judging_commands_read_the_config_of_an_active_run(command: Command, tmp_path: Path) -> None:
    status, out = command("active", *ACTIVE, "--strategy", "Entropy", "--rounds", "1", "--folder", "run")
    assert status == 0, out
    before = (tmp_path / "run" / "config.yaml").read_text()
    given = ["-c", "run/config.yaml", "--ckpt_path", "run/checkpoints/round_001.ckpt"]
    for name, metric in (("test", "test/accuracy"), ("validate", "val/accuracy"), ("predict", "wrote")):
        status, out = command(name, *given)
        assert status == 0, out
        assert metric in out
    assert (tmp_path / "run" / "config.yaml").read_text() == before  # which reports read
    assert (tmp_path / "run" / "test.yaml").exists()
    status, out = command("fit", "-c", "run/config.yaml")
    assert status == 2
    assert "is a config of `active`" in out


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (Literal["a", "b"], "one of a, b"),
        (int | Literal["auto"], "one of auto or a whole number"),
        (list[str], "a list of texts"),
        (tuple[int, ...], "whole numbers"),
        (bool, "true or false"),
        (dict[str, Any], "a dict"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    assert describe_type(hint) == words
