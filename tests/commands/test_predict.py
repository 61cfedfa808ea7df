"""The commands that read a checkpoint alone: what they write where, and what they refuse."""

from __future__ import annotations

import argparse
import csv
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.backbones import MLP, ConvNet
from ssl_lightning.checkpoint import checkpoint_of
from ssl_lightning.commands.predictions import write_classes, write_embeddings
from ssl_lightning.data import Vectors
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def saved(trainer: Any, tmp_path: Path) -> Path:
    """A folder with checkpoints of a method, a classifier and an encoder of vectors, five images, and 30 vectors."""
    facts = {"channels": 1, "image_size": 8, "class_names": ["a", "b"], "num_classes": 2}
    vectors = {"feature_dim": 4, "class_names": ["a", "b"], "num_classes": 2}
    for name, model, known in (
        ("method", SimCLR(ConvNet(width=4)), facts),
        ("classifier", Classifier(2, ConvNet(width=4)), facts),
        ("vectors", Classifier(2, MLP(feature_dim=4)), vectors),
    ):
        model.facts = known
        fit = trainer()
        fit.strategy.connect(model)
        fit.save_checkpoint(tmp_path / f"{name}.ckpt")
    (tmp_path / "flat").mkdir()
    for number in range(5):
        Image.new("L", (8, 8), 40 * number).save(tmp_path / "flat" / f"{number}.png")
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((30, 4), dtype=np.float32))
    (tmp_path / "v.csv").write_text("key,class\n" + "".join(f"{number},{'ab'[number % 2]}\n" for number in range(30)))
    return tmp_path


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "wrong", "right", "what"),
    [("method", "o.csv", "o.npy", "embeddings"), ("classifier", "o.npy", "o.csv", "classes")],
)
def test_the_ending_says_what_is_in_a_file(
    name: str, wrong: str, right: str, what: str, saved: Path, command: Command
) -> None:
    status, out = command("predict", f"{name}.ckpt", "flat", "--output", wrong)
    assert status == 2
    assert f"`output={wrong}` must end in {right[1:]}: the checkpoint is of a" in out
    assert out.endswith(f"which gives {what}.\n")
    assert not (saved / wrong).exists()
    status, out = command("predict", f"{name}.ckpt", "flat", "--output", right)
    assert status == 0, out
    rows = np.load(right) if what == "embeddings" else (saved / right).read_text().splitlines()[1:]
    assert len(rows) == 5


def test_a_device_is_written_into(saved: Path, command: Command) -> None:
    (saved / "null").symlink_to("/dev/null")
    for name in ("method", "classifier"):
        status, out = command("predict", f"{name}.ckpt", "flat", "--output", "null")
        assert status == 0, out
        assert (saved / "null").is_char_device()


@pytest.mark.parametrize(("name", "table"), [("method", "embeddings.npy"), ("classifier", "predictions.csv")])
def test_no_table_is_replaced_unasked(name: str, table: str, saved: Path, command: Command) -> None:
    assert command("predict", f"{name}.ckpt", "flat")[0] == 0
    before = (saved / table).read_bytes()
    (saved / "other").mkdir()
    (saved / "flat" / "1.png").rename(saved / "other" / "0.png")
    status, out = command("predict", f"{name}.ckpt", "other")
    assert status == 2
    assert f"`{table}` is there already, perhaps of other data; give `--output FILE{Path(table).suffix}`" in out
    assert (saved / table).read_bytes() == before
    assert command("predict", f"{name}.ckpt", "other", "--output", table)[0] == 0  # asked
    assert (saved / table).read_bytes() != before


def test_vectors_are_named_by_the_table_beside_them(saved: Path, command: Command) -> None:
    status, out = command("predict", "vectors.ckpt", "v.npy")
    assert status == 0, out
    assert "keys and classes of the rows: v.csv" in out
    named = read_rows(saved / "predictions.csv")
    assert [row["key"] for row in named] == [str(number) for number in range(30)]
    (saved / "v.csv").write_text("a,b\n1,2\n")
    with pytest.warns(UserWarning, match=r"`v.csv` is passed over, and rows are named by their content: `table=v.csv`"):
        status, out = command("predict", "vectors.ckpt", "v.npy", "--output", "o.csv")
    assert status == 0, out
    unnamed = read_rows(saved / "o.csv")
    assert [row["probability"] for row in unnamed] == [row["probability"] for row in named]  # the file's order
    assert all(len(row["key"]) == 16 for row in unnamed)


def test_images_of_data_are_taken_as_the_checkpoint_was_trained(saved: Path, command: Command) -> None:
    data = ["--data", "ImageFolder", "--data.root", "flat"]
    status, out = command("predict", "classifier.ckpt", "flat", "--output", "a.csv", "--all")
    assert status == 0, out
    status, out = command("predict", "classifier.ckpt", *data, "--output", "b.csv", "--all")
    assert status == 0, out
    assert "--data.image_size 8: as the checkpoint was trained" in out
    assert "--data.channels 1: as the checkpoint was trained" in out
    kept = [{name: row[name] for name in ("key", "probability of a")} for row in read_rows(saved / "a.csv")]
    assert [{name: row[name] for name in kept[0]} for row in read_rows(saved / "b.csv")] == kept
    with pytest.warns(UserWarning, match=r"images of 32 px, and `checkpoint=classifier.ckpt` was trained on 8 px"):
        status, out = command("predict", "classifier.ckpt", *data, "--data.image_size", "32", "--output", "c.csv")
    assert status == 0, out
    status, out = command("predict", "classifier.ckpt", *data, "--data.channels", "3", "--output", "d.csv")
    assert status == 2
    assert "was built for `channels=1`, and the data have `channels=3`; give data of 1" in out


def test_colour_is_not_predicted_of_gray(trainer: Any, saved: Path, command: Command) -> None:
    model = Classifier(2, ConvNet(channels=3, width=4))
    model.facts = {"channels": 3, "image_size": 8, "class_names": ["a", "b"], "num_classes": 2}
    fit = trainer()
    fit.strategy.connect(model)
    fit.save_checkpoint(saved / "colour.ckpt")
    status, out = command("predict", "colour.ckpt", "--data", "Digits")
    assert status == 2
    assert "`checkpoint=colour.ckpt` was built for `channels=3`, and the data have `channels=1`; give data of 3" in out


def test_an_unreadable_file_is_left_out_and_named(saved: Path, command: Command) -> None:
    (saved / "flat" / "2.png").write_text("junk")
    with pytest.warns(UserWarning, match=r"left out 1 of 5 samples: `flat/2.png` is no readable image") as told:
        assert command("predict", "classifier.ckpt", "flat")[0] == 0
    assert not any("skip_corrupt" in str(one.message) for one in told)
    assert [row["key"] for row in read_rows(saved / "predictions.csv")] == ["0.png", "1.png", "3.png", "4.png"]


def test_the_second_guess_stands_beside_the_first(saved: Path, command: Command) -> None:
    assert command("predict", "classifier.ckpt", "flat", "--all")[0] == 0
    rows = read_rows(saved / "predictions.csv")
    assert list(rows[0])[:6] == ["path", "key", "class", "probability", "second class", "second probability"]
    for row in rows:
        order = sorted("ab", key=lambda name: -float(row[f"probability of {name}"]))
        assert [row["class"], row["second class"]] == order
        assert [row["probability"], row["second probability"]] == [row[f"probability of {name}"] for name in order]


def test_a_single_class_has_no_second(tmp_path: Path) -> None:
    write_classes(tmp_path / "a.csv", ["x"], [""], [""], torch.ones(1, 1), ["only"])
    (row,) = read_rows(tmp_path / "a.csv")
    assert row == {"key": "x", "class": "only", "probability": "1.000000", "second class": "", "second probability": ""}


def test_names_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    write_classes(tmp_path / "a.csv", ["=k"], ["@p"], [""], torch.tensor([[0.25, 0.75]]), ["+x", "-y"])
    (row,) = read_rows(tmp_path / "a.csv")
    assert [row[name] for name in ("path", "key", "class", "second class")] == ["'@p", "'=k", "'-y", "'+x"]
    write_embeddings(tmp_path / "e.npy", ["=k", "'=k", "'k"], ["-y", "", "''-y"], torch.eye(3))
    data = Vectors(str(tmp_path / "e.npy"), str(tmp_path / "e.csv"), test_size=0, val_size=0)
    data.setup("fit")
    assert data.train_samples is not None
    found = dict(zip(data.train_samples.keys, data.train_samples.targets.tolist(), strict=True))
    assert {key: (*data.class_names, "")[target] for key, target in found.items()} == {
        "=k": "-y", "'=k": "", "'k": "''-y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["round_000.ckpt", "round_009.ckpt", "round_010.ckpt", "round_9999.ckpt.part"], "round_010.ckpt"),
        (["round_999.ckpt", "round_1000.ckpt", "last.ckpt"], "round_1000.ckpt"),
        (["last.ckpt", "round_x.ckpt", "epoch=3.ckpt"], "last.ckpt"),
    ],
)
def test_the_newest_checkpoint_of_a_run(
    there: list[str], taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in there:
        (tmp_path / "checkpoints" / name).touch()
    path = tmp_path / "checkpoints" / taken
    for given in (tmp_path, tmp_path / "checkpoints"):
        assert checkpoint_of(str(given)) == str(path)
        assert capsys.readouterr().out == f"checkpoint: {path}\n"
    assert checkpoint_of(str(path)) == str(path)
    assert checkpoint_of("missing.ckpt") == "missing.ckpt"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command_line", [["predict", "{}", "flat"], ["export", "{}", "--to", "safetensors"],
                                          ["evaluate", "{}", "--data", "Digits", "--protocols", "knn"]],
                         ids=lambda line: str(line[0]))  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_runs_folder_stands_for_its_checkpoint(command_line: list[str], saved: Path, command: Command) -> None:
    (saved / "run" / "checkpoints").mkdir(parents=True)
    (saved / "run" / "checkpoints" / "mine.ckpt").touch()
    line = [part.format("run") for part in command_line]
    status, out = command(*line)
    assert status == 2
    argument = "checkpoints" if line[0] == "evaluate" else "checkpoint"
    assert f"`{argument}=run` is a folder, and holds neither checkpoints/round_*.ckpt nor checkpoints/last.ckpt" in out
    assert "there is run/checkpoints/mine.ckpt; give a checkpoint, or the folder of a run" in out
    (saved / "classifier.ckpt").rename(saved / "run" / "checkpoints" / "last.ckpt")
    status, out = command(*line)
    assert status == 0, out
    assert "checkpoint: run/checkpoints/last.ckpt\n" in out


@pytest.mark.parametrize("command_line", [["predict"], ["evaluate", "--protocols", "knn"]], ids=["predict", "evaluate"])
def test_data_of_another_kind(command_line: list[str], saved: Path, command: Command) -> None:
    vectors = ["--data", "Vectors", "--data.path", "v.npy"]
    for checkpoint, data, takes, have in (
        ("method.ckpt", vectors, "channels", "feature_dim"),
        ("classifier.ckpt", vectors, "channels", "feature_dim"),
        ("vectors.ckpt", ["--data", "Digits"], "feature_dim", "channels"),
    ):
        status, out = command(command_line[0], checkpoint, *data, *command_line[1:])
        assert status == 2, out
        assert (
            f"was built for `{takes}`, which the data do not have, and they have `{have}`: they are of another" in out
        )
        assert len(out.splitlines()) == 1


def test_a_classifier_makes_no_images(saved: Path, command: Command) -> None:
    status, out = command("sample", "classifier.ckpt")
    assert status == 2
    assert (
        "`checkpoint=classifier.ckpt` is of a Classifier, which sorts images and makes none; give one of a GAN" in out
    )


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["export", "method.ckpt", "--folder", "/proc/x"], "/proc/x"),
        (["predict", "classifier.ckpt", "flat", "--output", "/proc/o.csv"], "/proc/o.csv"),
        (["compare", "c.yaml"], "/proc/x"),
    ],
)
def test_where_nothing_can_be_made(arguments: list[str], path: str, saved: Path, command: Command) -> None:
    (saved / "c.yaml").write_text("folder: /proc/x\narms: {a: [--strategy, Entropy]}\n")
    status, out = command(*arguments)
    assert status == 2, out
    assert f"error: `{path}`: No such file or directory; give a path that exists, or where one can be made." in out


def test_a_pickle_is_refused_without_a_warning(saved: Path, command: Command) -> None:
    (saved / "p.ckpt").write_bytes(pickle.dumps({"a": print}))
    with warnings.catch_warnings(action="error"):
        status, out = command("predict", "p.ckpt", "flat")
    assert status == 2
    assert "`checkpoint=p.ckpt` is no checkpoint of ours" in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("name", ["evaluate", "predict", "sample", "export", "compare", "report", "list"])
def test_each_line_of_help_makes_sense_alone(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parsers: list[argparse.ArgumentParser] = []
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda self, file=None: parsers.append(self))
    assert command(name, "--help")[0] == 0
    helps = [action.help or "" for action in parsers[0]._actions if action.help != argparse.SUPPRESS]
    assert len(helps) > 1
    for text in helps:
        assert text.split()[:1] not in ([], ["of"], ["that"], ["such"], ["for"], ["as"], ["instead"], ["default:"]), (
            text
        )
