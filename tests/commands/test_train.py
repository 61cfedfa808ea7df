"""The command line as its users meet it: what works, and what a mistake says."""

import contextlib
import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import begin
from support import command as line

from ssl_lightning.commands import catalogue, startup, train

Command = Callable[..., tuple[int, str]]
SMALL = ["--data", "Digits", "--data.batch_size", "64", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
SIMCLR = [*SMALL, "--model", "SimCLR", "--model.backbone", "ConvNet", "--model.backbone.width", "4"]
CLASSIFIER = [*SMALL, "--model", "Classifier", "--model.backbone", "ConvNet", "--model.backbone.width", "4"]
ACTIVE = ["active", *CLASSIFIER, "--trainer.max_epochs", "1", "--steps_per_epoch", "3"]
FOLDER = [*CLASSIFIER, "--data", "ImageFolder", "--data.root", "ic", "--data.image_size", "8", "--data.channels", "1"]
FOLDER += ["--trainer.max_epochs", "1", "--steps_per_epoch", "2", "--strategy", "Random", "--strategy.query_size", "2"]


def test_fit_test_predict_resume(command: Command, tmp_path: Path) -> None:
    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "2", "--folder", "run", "--trainer.callbacks+=KNN")
    assert status == 0, out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["seed_everything"] == 0
    assert config["model"]["class_path"].endswith("SimCLR")
    with next((tmp_path / "run" / "logs").rglob("metrics.csv")).open() as file:
        assert "val/knn_accuracy" in next(csv.reader(file))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.exists()

    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "3", "--folder", "run")
    assert status == 2
    assert "`folder=run` holds a run already; add `--ckpt_path run/checkpoints/last.ckpt`" in out
    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "3", "--folder", "run", "--ckpt_path", str(last))
    assert status == 0, out
    assert torch.load(last, weights_only=True)["global_step"] == 3 * (1132 // 64)

    status, out = command("test", *SIMCLR, "--trainer.callbacks+=KNN", "--ckpt_path", str(last))
    assert status == 0, out
    assert "test/knn_accuracy" in out
    status, out = command("predict", *SIMCLR, "--ckpt_path", str(last), "--folder", "out")
    assert status == 0, out
    assert np.load(tmp_path / "out" / "embeddings.npy").shape == (1797, 16)  # of all parts

    options = [*SMALL, "--model", "Classifier", "--model.checkpoint", str(last), "--trainer.max_epochs", "1"]
    status, out = command("fit", *options, "--folder", "tuned")
    assert status == 0, out
    status, out = command("predict", *options, "--ckpt_path", "tuned/checkpoints/last.ckpt", "--folder", "tuned-out")
    assert status == 0, out
    with (tmp_path / "tuned-out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["key"]) for row in rows) == list(range(1797))
    assert sum(row["part"] == "test" for row in rows) == 539
    assert all(row["class"] in "0123456789" and 0.1 <= float(row["probability"]) <= 1 for row in rows)


def test_default_folders_are_numbered(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("fit", *SIMCLR, "--trainer.max_steps", "1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fit-001", "fit-002"]


def test_channels_and_classes_come_from_the_data(command: Command, tmp_path: Path) -> None:
    """A folder of three classes in colour: nothing is typed twice."""
    for name in "abc":
        for number in range(12):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 20, 100, 30)).save(path)
    status, out = command(
        "fit", "--data", "ImageFolder", "--data.root", "pets", "--data.image_size", "16", "--model", "Classifier",
        "--model.backbone", "ResNet", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--folder", "run",
    )  # fmt: skip
    assert status == 0, out
    weights = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["head.1.weight"].shape == (3, 512)
    assert weights["backbone.net.conv1.weight"].shape == (64, 3, 3, 3)


MISTAKES = [
    (["fti"], "there is no command `fti` (did you mean `fit`?)"),
    (["fit", *SMALL, "--model", "SimCRL"], "--model: there is no class `SimCRL` (did you mean `SimCLR`?)"),
    (["fit", "--data", "Digit", "--model", "SimCLR"], "--data: there is no class `Digit` (did you mean `Digits`?)"),
    (
        ["fit", *SIMCLR, "--trainer.max_epoch", "3"],
        "there is no option `--trainer.max_epoch` (did you mean `--trainer.max_epochs`",
    ),
    (["fit", *SIMCLR, "--model.backbone.widht", "3"], "`ConvNet` has no argument `widht` (did you mean `width`?)"),
    (
        ["fit", *SIMCLR, "--model.temprature", "3"],
        "`SimCLR` has no argument `temprature` (did you mean `temperature`?)",
    ),
    (
        ["fit", *SIMCLR, "--trainer.max_epochs", "abc"],
        "`--trainer.max_epochs=abc` is not possible; required is a whole number or null.",
    ),
    (
        ["fit", *SIMCLR, "--model.optimizer.name", "adma"],
        "`--model.optimizer.name=adma` is not possible (did you mean `adamw`?)",
    ),
    (["fit", *SIMCLR, "--model.optimizer.lr", "-1"], "`--model.optimizer.lr=-1.0` must be at least 0."),
    (
        ["fit", *SIMCLR, *(["--trainer.callbacks+=OnlineLinearProbe"] * 2)],
        "`--trainer.callbacks` names `OnlineLinearProbe` 2 times",
    ),
    (["fit", *SMALL, "--model", "SimCLR"], "`--model.backbone` of `SimCLR` is required and missing; choose one of"),
    (["fit", "-c", "nofile.yaml"], "nofile.yaml"),
    (
        ["fit", "--data", "ImageFolder", "--data.root", "nowhere", *SIMCLR[-6:]],
        "`--data.root=nowhere` is no folder",
    ),
    (
        ["active", "--data.batch_size", "3", "--data", "Digits", "--strategy", "Random"],
        "`--data.batch_size` comes before the class it belongs to; give `--data CLASS` first",
    ),
    (
        [*ACTIVE, "--strategy", "Entrpy"],
        "--strategy: there is no class `Entrpy` (did you mean `Entropy` or `VoteEntropy`?)",
    ),
    (
        [*ACTIVE, "--strategy", "Entropy", "--strategy.query_siz", "3"],
        "`Entropy` has no argument `query_siz` (did you mean `query_size`?)",
    ),
    (
        [*ACTIVE, "--strategy", "Entropy", "--strategy.query_size", "0"],
        "`--strategy.query_size=0` must be at least 1.",
    ),
    (
        [*ACTIVE, "--strategy", "Entropy", "--strategy.query_size", "500"],
        "= 4020 labels exceed the 1132 samples of the pool",
    ),
    ([*ACTIVE, "--strategy", "BALD"], "the model has no dropout to draw from; give `dropout`"),
    ([*ACTIVE, "--strategy", "Entropy", "--model.checkpoint", "no.ckpt"], "`--model.checkpoint=no.ckpt` is no file"),
    (["list", "strategys"], "there is no kind `strategys` (did you mean `strategies`?)"),
    (["report", "nowhere"], "nowhere"),
    (["compare", "nowhere.yaml"], "nowhere.yaml"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a[:1] + a[-2:]) for a, _ in MISTAKES])
def test_mistakes_take_a_few_lines(arguments: list[str], message: str, command: Command) -> None:
    try:
        status, out = command(*arguments)
    except SystemExit as stop:  # argparse
        pytest.fail(f"left by {stop!r}")
    assert status == 2
    assert message in out
    assert "Traceback" not in out
    said = out[out.index("error:") :]
    assert len(said.strip().splitlines()) <= 4


def test_resuming_another_architecture(command: Command) -> None:
    assert command("fit", *SIMCLR, "--trainer.max_steps", "1", "--folder", "run")[0] == 0
    options = [*SMALL, "--model", "Classifier", "--model.backbone", "ResNet", "--trainer.max_steps", "1"]
    status, out = command("fit", *options, "--model.checkpoint", "run/checkpoints/last.ckpt")
    assert status == 2
    assert "holds another architecture: ConvNet(" in out
    wider = [*SIMCLR[:-1], "8", "--folder", "other", "--ckpt_path"]
    for name, message in (
        ("run/checkpoints/last.ckpt", "`ckpt_path` holds another architecture: "),
        ("no.ckpt", "no.ckpt"),
    ):
        status, out = command("fit", *wider, name)
        assert status == 2, out
        assert message in out
        assert "Traceback" not in out


@pytest.fixture
def pictures(command: Command, tmp_path: Path) -> list[str]:
    """The options of an active run on a folder of three classes, whose first call is done."""
    for name in ("cat", "dog", "owl"):
        draw(tmp_path / "ic" / name)
    options = ["active", *FOLDER, "--initial", "6", "--folder", "run", "--rounds"]
    status, out = command(*options, "1")
    assert status == 0, out
    return options


def draw(folder: Path, count: int = 12) -> None:
    """Make gray pictures, no two the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng([number, *folder.name.encode()]).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_run_goes_on_with_another_class(pictures: list[str], command: Command, tmp_path: Path) -> None:
    draw(tmp_path / "ic" / "zebra")
    with pytest.warns(UserWarning, match=r"samples were added since the run's last call: `zebra/"):
        status, out = command(*pictures, "2")
    assert status == 0, out
    shutil.rmtree(tmp_path / "ic" / "zebra")
    shutil.rmtree(tmp_path / "ic" / "owl")
    with pytest.warns(UserWarning, match="name classes that the data do not have: `owl`"):
        status, out = command(*pictures, "3")
    assert status == 0, out
    (tmp_path / "ic" / "dog").rename(tmp_path / "ic" / "hound")
    with pytest.warns(UserWarning, match=r"of cat, hound\. Kept, and not trained on; was a class renamed\?"):
        status, out = command(*pictures, "4")
    assert status == 0, out
    assert len((tmp_path / "run" / "rounds.csv").read_text().splitlines()) == 6


def test_what_changes_no_result_may_change(pictures: list[str], command: Command, tmp_path: Path) -> None:
    (tmp_path / "ic" / "cat" / "3.png").write_text("junk")
    status, out = command(*pictures, "2")
    assert status == 2
    assert "`skip_corrupt=true`" in out
    remedy = ["--data.skip_corrupt", "true", "--data.memory_gib", "1", "--data.num_workers", "1"]
    for root, more in (("./ic", remedy), (str(tmp_path / "ic"), [*remedy[:4], "--data.resident", "true"])):
        status, out = command(*pictures, "2", *more, "--data.root", root)
        assert status == 0, out
    shutil.copytree(tmp_path / "ic", tmp_path / "other")
    for option, value in (("--data.image_size", "16"), ("--data.root", "other"), ("--data.batch_size", "5")):
        status, out = command(*pictures, "3", *remedy[:2], option, value)
        assert status == 2, option
        assert f"`{option.removeprefix('--').replace('.', '.init_args.')}=" in out


def test_a_classifier_meets_data_of_fewer_classes(pictures: list[str], command: Command, tmp_path: Path) -> None:
    draw(tmp_path / "flat")
    draw(tmp_path / "one" / "owl")
    for number, root in enumerate(("flat", "one")):
        given = ["-c", "run/config.yaml", "--ckpt_path", "run/checkpoints/round_001.ckpt", "--data.root", root]
        given += ["--folder", f"out{number}"]
        status, out = command("predict", *given)
        assert status == 0, out
        with (tmp_path / f"out{number}" / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 12
        assert {row["class"] for row in rows} <= {"cat", "dog", "owl"}
        status, out = command("predict", *given)
        assert status == 2
        assert f"`--folder=out{number}` holds `predictions.csv` already, perhaps of other data; give another." in out
        for judged in ("validate", "test"):
            status, out = command(judged, *given)
            assert status == (2 if root == "flat" else 0), out
            if root == "flat":
                assert "no sample of `ImageFolder` that would be judged is labelled; give data with labels" in out
            else:
                assert f"{'val' if judged == 'validate' else 'test'}/accuracy" in out


def test_what_the_data_say_is_nobodys_option(command: Command, tmp_path: Path) -> None:
    draw(tmp_path / "ic")
    status, out = command("fit", *FOLDER[:-6])
    assert status == 2
    assert (
        "error: `num_classes=1` must be at least 2 to classify; a folder without class folders has no classes: where "
        "people label, name them by `--classes cat,dog`." in out
    )


def test_full_disk_takes_a_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(train, "main", full)
    status, out = command("fit")
    assert status == 2
    assert "No space left on device; free some space" in out


def test_list_is_quick_and_imports_no_torch() -> None:
    code = "import sys; from ssl_lightning.__main__ import main; main(['list']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
    for name in ("SimCLR", "Entropy", "BALD", "Random", "ConvNet", "ResNet", "Digits", "ImageFolder", "CIFAR10"):
        assert any(line.startswith(name) for line in out.splitlines()), name


def test_list_gives_family_sentence_and_paper(command: Command) -> None:
    status, out = command("list", "methods")
    assert status == 0
    assert "contrastive" in out.lower()
    assert "arXiv 2002.05709" in out
    lines = command("list", "data")[1].splitlines()
    assert all(line.split("  ")[-1].strip() or line for line in lines)
    assert not any("et al.\n" in line for line in lines)


def test_catalogue_agrees_with_the_classes() -> None:
    from ssl_lightning import active, backbones, data, methods

    listed = {kind: {entry.name for entry in catalogue.entries() if entry.kind == kind} for kind in catalogue.BASES}

    def concrete(base: type) -> set[str]:
        own = [kind for kind in base.__subclasses__() if kind.__module__.startswith("ssl_lightning.")]
        return {name for kind in own for name in (concrete(kind) or {kind.__name__})}

    assert listed["methods"] == concrete(methods.SSLMethod)
    assert listed["strategies"] == concrete(active.AcquisitionStrategy)
    assert listed["backbones"] == concrete(backbones.Backbone)
    assert listed["data"] == concrete(data.DataModule)


STRANGER = '''
import torch
from ssl_lightning.active import AcquisitionStrategy
from ssl_lightning.methods import SSLMethod
from ssl_lightning.transforms.image import SimCLRViews


class Pull(SSLMethod):
    """Pulls two views together."""

    def __init__(self, backbone, weight: float = 1.0):
        super().__init__(backbone, SimCLRViews())
        self.weight = weight

    def compute_loss(self, views, batch):
        a, b = (self.backbone(view) for view in views)
        return {"loss": self.weight * (a - b).pow(2).mean(), "embedding": a}


class Brightest(AcquisitionStrategy):
    """Asks for the brightest images."""

    def score(self, predictions):
        return predictions.points.mean(dim=1)
'''


def test_a_strangers_classes_by_dotted_path(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger_a.py").write_text(STRANGER.replace("backbone, weight", "backbone: Backbone, weight").replace(
        "import torch\n", "import torch\nfrom ssl_lightning.backbones import Backbone\n"))  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--model.backbone", "ConvNet", "--model.weight", "2", "--trainer.max_steps", "2"]
    status, out = command("fit", *SMALL, "--model", "stranger_a.Pull", *options)
    assert status == 0, out
    status, out = command(*ACTIVE, "--strategy", "stranger_a.Brightest", "--rounds", "1", "--folder", "run")
    assert status == 0, out
    assert "asked 10 by Brightest" in out


def test_a_strangers_classes_by_entry_point(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger_b.py").write_text(STRANGER.replace("Brightest", "Lightest").replace("Pull", "Tug"))
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("light", "stranger_b:Lightest", catalogue.PLUGINS),
        EntryPoint("broken", "no_such:X", catalogue.PLUGINS),
    ]
    monkeypatch.setattr(startup, "entry_points", lambda group: points)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points)
    catalogue.entries.cache_clear()
    try:
        assert "Lightest" in command("list", "strategies")[1]
        with pytest.warns(UserWarning, match=r"plug-in `broken` \(no_such:X\) cannot be imported"):
            status, out = command(*ACTIVE, "--strategy", "Lightest", "--rounds", "0", "--folder", "run")
        assert status == 0, out
    finally:
        catalogue.entries.cache_clear()


def test_wandb_offline(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written without a network, read back by W&B's own reader, also where W&B started in another directory."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    import wandb

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with contextlib.chdir(elsewhere):
        wandb.teardown()
        wandb.init(mode="offline", dir=elsewhere).finish()
    try:
        few = ["--trainer.log_every_n_steps", "1", "--folder", "run", "--wandb", "offline"]
        status, out = command(*ACTIVE, "--strategy", "Entropy", "--rounds", "2", *few)
    finally:
        wandb.finish()
    assert status == 0, out
    files = list((tmp_path / "run").rglob("*.wandb"))
    assert len(files) == 1
    leet = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", "--summary", str(files[0])]
    summary = subprocess.run(leet, capture_output=True, text=True, check=True).stdout
    assert "active/labelled" in summary
    assert json.dumps(40) in summary
    assert "active/query" in summary
    assert "active/query_001" in summary
    assert "train/step_loss" in summary
    pictures = list((tmp_path / "run").rglob("media/images/active/query*.png"))
    assert len(pictures) == 2  # of rounds 0 and 1; the last asks for nothing
    known = (tmp_path / "run" / "wandb-run-id").read_text()
    assert known in files[0].name
    goes_on = command(*ACTIVE, "--strategy", "Entropy", "--rounds", "3", "--folder", "run", "--wandb", "offline")
    wandb.finish()
    assert goes_on[0] == 0, goes_on[1]
    assert all(known in path.name for path in (tmp_path / "run").rglob("*.wandb"))  # one run, once they are synced


def test_wandb_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    places = {"HOME": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path), "NETRC": str(tmp_path / "none")}
    log = tmp_path / "log"
    options = ["--strategy", "Entropy", "--folder", "run", "--wandb", "online"]
    process = begin(line(*ACTIVE, *options), tmp_path, log, **places)
    process.join(200)
    said = log.read_text()
    assert process.exitcode == 2, said[-2000:]
    assert "W&B does not start" in said
    assert "--wandb offline" in said
    assert "Traceback" not in said


def test_usage(command: Command) -> None:
    assert command()[0] == 0
    assert "ssl-lightning COMMAND" in command("--help")[1]
    assert command("--version")[1].strip() == "0.1.0"


@pytest.mark.timeout(240)
def test_a_killed_fit_goes_on_from_its_last_epoch(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    """There is a checkpoint after every epoch, not only at the end."""
    fit = ["fit", "--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--trainer.accelerator=cpu"]
    endless = [*fit, "--folder", str(tmp_path / "run"), "--trainer.max_epochs", "999"]
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = begin(line(*endless), tmp_path, tmp_path / "log")
    epoch = 0
    while epoch < 2:
        assert process.exitcode is None, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.2)
        with contextlib.suppress(Exception):  # it may be half written
            epoch = torch.load(path, weights_only=True)["epoch"]
    process.kill()
    process.join()
    saved = torch.load(path, weights_only=True)
    more = ["--folder", tmp_path / "run", "--ckpt_path", path, "--trainer.max_epochs", str(saved["epoch"] + 2)]
    status, out = command(*fit, *more)
    assert status == 0, out
    assert torch.load(path, weights_only=True)["global_step"] == saved["global_step"] // (saved["epoch"] + 1) * (
        saved["epoch"] + 2
    )
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
