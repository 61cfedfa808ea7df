"""Every config runs by the command on its first line, made short."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from every_modality import write
from PIL import Image
from support import DATA, ROOT

from ssl_lightning.__main__ import main

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SHORT = {
    "fit": ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0"],
    "active": [
        "--rounds",
        "1",
        "--steps_per_epoch",
        "1",
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_test_batches",
        "2",
        "--strategy.query_size",
        "3",
    ],
}


def test_there_are_configs() -> None:
    assert len(CONFIGS) > 10
    assert {path.parent.name for path in CONFIGS} == {"data", "method", "trainer", "active", "experiment"}


def command_of(path: Path) -> list[str]:
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ssl-lightning "), "the first line is the exact command"
    name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    assert name in first.split(), "the command names this file"
    assert second.startswith("# "), "the second line says what to expect"
    return shlex.split(first.removeprefix("# ssl-lightning "))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder of colour images in two classes."""
    for name in ("cat", "dog"):
        for number in range(15):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (number * 9, 90, 200)).save(path)
    return tmp_path / "pets"


def test_strategies_differ_by_the_strategy_alone() -> None:
    """One place says how an active run trains; a file for each strategy, and none is forgotten."""
    from ssl_lightning.commands.catalogue import entries

    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "configs" / "active").glob("*.yaml")}
    assert set(files.pop("classifier")) == {"initial", "rounds", "steps_per_epoch", "model", "trainer"}
    assert all(set(content) == {"strategy"} for content in files.values())
    named = [content["strategy"] for content in files.values()]
    named = [strategy["class_path"] if isinstance(strategy, dict) else strategy for strategy in named]
    assert sorted(named) == sorted(entry.name for entry in entries() if entry.kind == "strategies")
    assert [name.lower() for name in named] == list(files)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_runs(
    path: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command = command_of(path)
    if command[0] == "compare":
        compare_config_parses(path, capfd)
        return
    text = " ".join(command)
    if "mnist" in text:
        if not (DATA / "MNIST" / "raw").is_dir():
            pytest.skip(f"no MNIST in {DATA}")
        command += ["--data.root", str(DATA), "--data.limit", "400", "--data.val_size", "100"]
    if "cifar10" in text or path.name in ("folder.yaml", "cifar10_folder.yaml"):  # the layout is what matters
        command += ["--data.root", str(folder), "--data.val_size", "4", "--data.batch_size", "8"]
        command += ["--data.limit", "null"]
    if "people_active" in text:  # asks, and does not wait for anybody
        for number in range(20):
            Image.new("RGB", (32, 32), (number * 9, 9, 20)).save(folder / f"loose_{number}.png")
        given = ["-c", "experiment/people_pretrain", "--data.root", str(folder), "--folder", str(tmp_path / "ssl")]
        assert main(["fit", *given, *SHORT["fit"], "--trainer.max_epochs", "1", "--data.batch_size", "8"]) == 0
        command[command.index("--model.checkpoint") + 1] = str(tmp_path / "ssl" / "checkpoints" / "last.ckpt")
        command += ["--wait", "false", "--oracle.page", "false", "--initial", "4"]
    if "data/tables" in text or "data/table" in text:
        lines = [f"k{number},{number},{number % 7},{'ab'[number % 2]}" for number in range(40)]
        (tmp_path / "t.csv").write_text("\n".join(["key,width,height,class", *lines]))
        command += ["--data.path", str(tmp_path / "t.csv"), "--data.batch_size", "8"]
    if "ag_news" in text or "data/texts" in text:
        news = [f'{number % 4 + 1},"Title {number}","the words, number {number}"' for number in range(60)]
        (tmp_path / "news.csv").write_text("\n".join(["topic,title,text", *news]))
        command += ["--data.path", str(tmp_path / "news.csv"), "--data.batch_size", "8", "--data.vocab_size", "270"]
        if "ag_news" in text:
            command += [
                "--data.columns",
                '{"names": ["topic", "title", "text"], "text": ["title", "text"], "label": "topic"}',
            ]
            (tmp_path / "names.txt").write_text("World\nSports\nBusiness\nSci/Tech\n")
            command += ["--data.class_names", str(tmp_path / "names.txt")]
        if "ag_news_active" in text:  # from an encoder that was pretrained on the same news
            given = ["-c", "experiment/ag_news_pretrain", *command[command.index("--data.path") :]]
            assert main(["fit", *given, *SHORT["fit"], "--folder", str(tmp_path / "ssl")]) == 0
            command += ["--model.checkpoint", str(tmp_path / "ssl" / "checkpoints" / "last.ckpt")]
    if "spoken_digits" in text:
        for number in range(120):
            path = tmp_path / "digits" / f"{number % 10}_{'ab'[number // 10 % 2]}_{number // 20}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, 0.1 * np.sin(np.arange(600 + 9 * number) * (number % 10 + 1) / 20), 8000)
        command += ["--data.root", str(path.parent), "--data.batch_size", "8"]
    if "audio_folder" in text:
        command += ["--data.root", str(write("sound", tmp_path / "sounds", 20))]
    if "emoji" in text:
        given = ["--data.path", str(write("images with text", tmp_path / "pairs", 30) / "pairs.csv")]
        given += ["--data.caption", "caption", "--data.batch_size", "8"]
        command += given
        if "emoji_active" in text:  # from an encoder that was pretrained on the same pairs
            first = ["-c", "experiment/emoji_pretrain", *given, "--folder", str(tmp_path / "ssl")]
            assert main(["fit", *first, *SHORT["fit"]]) == 0
            command += ["--model.checkpoint", str(tmp_path / "ssl" / "checkpoints" / "last.ckpt")]
    if "FOLDER" in command:
        command[command.index("FOLDER")] = str(folder)
    if "--data.batch_size" not in command:
        command += ["--data.batch_size", "16"]
    command += [*SHORT[command[0]], "--folder", str(tmp_path / "run")]
    command += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    if "trainer/gpu" in text:  # whose bf16 many a processor only imitates
        command += ["--trainer.precision", "32-true"]
    status = main(command)
    captured = capfd.readouterr()
    assert status == 0, captured.out + captured.err


def compare_config_parses(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each arm's command line is understood, and the files that it names are made by the config that it says."""
    config = yaml.safe_load(path.read_text())
    assert len(config["arms"]) == 6
    assert {name for pair in config["pairs"] for name in pair} <= set(config["arms"])
    for arguments in config["arms"].values():
        status = main(["active", *config["base"], *arguments, "--print_config"])
        captured = capfd.readouterr()
        assert status == 0, captured.err
        printed = yaml.safe_load(captured.out)
        assert printed["strategy"]["class_path"].endswith(arguments[1])
        for checkpoint in re.findall(r"runs/\S+\.ckpt", " ".join(arguments)):
            pretraining = yaml.safe_load((path.parent / f"{path.stem.split('_')[0]}_pretrain.yaml").read_text())
            assert checkpoint == f"{pretraining['folder']}/checkpoints/last.ckpt"


ENCODERS = {"sound": "AudioNet", "text": "TextTransformer", "rows": "RowNet", "images with text": "TwoTowers"}


def fits() -> list[Any]:
    """Every config of a method, with every modality besides images that the method takes; not all at each test."""
    from ssl_lightning import methods

    found: list[Any] = []
    for path in sorted((ROOT / "configs" / "method").glob("*.yaml")):
        takes = getattr(methods, yaml.safe_load(path.read_text())["model"]["class_path"]).takes or tuple(ENCODERS)
        first, *more = [name for name in ENCODERS if name in takes] or [None]
        found += [pytest.param(path.stem, first)] if first else []
        found += [pytest.param(path.stem, name, marks=pytest.mark.long) for name in more]
    return found


@pytest.mark.parametrize(("method", "modality"), fits(), ids=str)
def test_a_methods_config_runs_on_every_modality_it_fits(
    method: str, modality: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    folder = write(modality, tmp_path / "data", 24)
    encoder = "SpectrogramTransformer" if method in ("mae", "simmim") else ENCODERS[modality]
    if method == "vilbert":
        encoder = "TwoStreams"
    given = {
        "sound": ["-c", "data/audio_folder", "--data.root", str(folder), "--data.sample_rate", "8000"],
        "text": ["-c", "data/texts", "--data.path", str(folder / "texts.csv"), "--data.columns.label", "label"],
        "rows": ["-c", "data/table", "--data.path", str(folder / "rows.csv"), "--data.categories", "[switch]"],
        "images with text": ["--data", "Pairs", "--data.path", str(folder / "pairs.csv"), "--data.image_size", "16"],
    }[modality]
    if modality in ("text", "images with text"):
        given += ["--data.vocab_size", "300"]
    short = [*SHORT["fit"], "--data.batch_size", "8", "--data.val_size", "4", "--trainer.precision", "32-true"]
    if method == "deepcluster":
        short += ["--model.clusters", "8"]
    chosen = ["-c", f"method/{method}", "-c", "trainer/cpu", "--model.backbone", encoder]
    status, out = command("fit", *given, *chosen, *short, "--folder", str(tmp_path / "run"))
    assert status == 0, out


def test_gpu_config_without_a_gpu_says_so(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str]]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(ROOT)
    arguments = command_of(ROOT / "configs" / "trainer" / "gpu.yaml")
    status, out = command(*arguments, "--data.root", folder, "--data.val_size", "4", "--folder", tmp_path / "run")
    assert status == 2
    assert "gpu" in out.lower() or "cuda" in out.lower()
    assert "Traceback" not in out
