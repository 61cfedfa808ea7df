"""The command `evaluate`, as a user gives it."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.evaluation import knn_accuracy, rankme
from ssl_lightning.evaluation.judge import fraction_of
from ssl_lightning.experiments.results import markdown
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import SimCLRViews


@pytest.fixture
def checkpoint(trainer: Any, tmp_path: Path) -> Path:
    """Two steps of SimCLR with a normalisation of its own."""
    model = SimCLR(ConvNet(width=8), SimCLRViews(mean=0.3, std=0.5))
    fit = trainer(max_steps=2)
    fit.fit(model, datamodule=Digits(batch_size=128))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    fit.save_checkpoint(path)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_one_table_for_all_protocols(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    quick = [
        "--data",
        "Digits",
        "--steps",
        "3",
        "--lidar_images",
        "20",
        "--views",
        "3",
        "--results",
        tmp_path / "r.csv",
    ]
    status, out = command("evaluate", checkpoint, *quick)
    assert status == 0, out
    found = {(row["protocol"], row["fraction"], row["metric"]): row for row in rows_of(tmp_path / "r.csv")}
    fractions = ("0.01", "0.1", "1")
    assert set(found) == {
        ("knn", "1", "accuracy"), *(("linear", f, "accuracy") for f in fractions),
        *(("finetune", f, "accuracy") for f in fractions), ("rank", "1", "rankme"), ("rank", "1", "lidar"),
    }  # fmt: skip
    assert {row["method"] for row in found.values()} == {"SimCLR"}
    data = Digits()
    data.setup("fit")
    data.setup("test")
    assert data.train_samples is not None
    assert data.test_samples is not None
    net = SimCLR.load_from_checkpoint(checkpoint, backbone=ConvNet(width=8)).backbone.eval()
    clean = SimCLRViews(mean=0.3, std=0.5).view.clean
    with torch.no_grad():
        train = net(clean(data.train_samples.inputs[data.train_indices]))  # type: ignore[attr-defined]
        test = net(clean(data.test_samples.inputs))  # type: ignore[attr-defined]
    targets = data.train_samples.targets[data.train_indices]
    expected = knn_accuracy(test, data.test_samples.targets, train, targets, 10, 200)
    assert float(found["knn", "1", "accuracy"]["value"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["rank", "1", "rankme"]["value"]) == pytest.approx(rankme(test), rel=1e-3)
    counts = [int(found["linear", f, "accuracy"]["labels"]) for f in fractions]
    assert counts[0] == 10
    assert abs(counts[1] - len(targets) / 10) <= 5  # of each class a tenth, rounded
    assert counts[2] == len(targets)
    for column in ("kNN", "linear 1 %", "linear 100 %", "finetune 10 %", "RankMe", "LiDAR"):
        assert f"| {column} |" in out


def test_again_it_replaces_its_rows_and_a_batch_changes_nothing(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    given = ["evaluate", checkpoint, "--data", "Digits", "--protocols", "knn,linear,rank", "--lidar_images", "20"]
    given += ["--results", tmp_path / "r.csv", "--fractions", "0.1"]
    assert command(*given)[0] == 0
    first = rows_of(tmp_path / "r.csv")
    assert command(*given, "--data.batch_size", "77")[0] == 0
    second = rows_of(tmp_path / "r.csv")
    assert len(first) == len(second) == 4
    for one, other in zip(first, second, strict=True):
        assert float(one["value"]) == pytest.approx(float(other["value"]), rel=1e-4)


def test_finetuning_learns_and_repeats(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    values = []
    for name in ("a", "b"):
        given = ["--data", "Digits", "--protocols", "finetune", "--fractions", "1.0", "--steps", "60", "--lr", "0.01"]
        status, out = command("evaluate", checkpoint, *given, "--results", tmp_path / f"{name}.csv")
        assert status == 0, out
        values.append(float(rows_of(tmp_path / f"{name}.csv")[0]["value"]))
    assert values[0] == values[1]
    assert values[0] > 0.6


def test_the_batch_size_of_finetuning_is_told_apart(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    given = ["evaluate", checkpoint, "--data", "Digits", "--protocols", "finetune,knn", "--fractions", "1.0"]
    for size in ("4", "32"):
        assert command(*given, "--steps", "2", "--data.batch_size", size, "--results", "r.csv")[0] == 0
    assert [row["protocol"] for row in rows_of(tmp_path / "r.csv")] == ["finetune", "knn", "finetune"]
    for size in ("4", "32"):
        assert f"| finetune 100 % (batch_size={size}) |" in (tmp_path / "r.md").read_text()


def test_baselines_and_transfer(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    """Gray pictures in a folder, for the encoder of the digits."""
    for part in ("train", "test"):
        for label in (0, 1):
            for number in range(6):
                path = tmp_path / "shades" / part / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), 40 + 150 * label + number).save(path)
    data = ["--data", "ImageFolder", "--data.root", tmp_path / "shades", "--data.image_size", "8"]
    data += ["--data.channels", "1", "--data.val_size", "0"]
    given = ["--backbone", "ConvNet", *data, "--protocols", "knn,linear", "--k", "3", "--results", tmp_path / "r.csv"]
    status, out = command("evaluate", checkpoint, "untrained", "pixels", *given)
    assert status == 0, out
    rows = rows_of(tmp_path / "r.csv")
    assert {row["checkpoint"] for row in rows} == {str(checkpoint), "untrained", "pixels"}
    assert {row["data"] for row in rows} == {"ImageFolder shades"}
    assert {float(row["value"]) for row in rows if row["checkpoint"] == "pixels"} == {1.0}  # black and white
    status, out = command("evaluate", checkpoint, *data, "--data.channels", "3", "--results", tmp_path / "r.csv")
    assert status == 2
    assert "was built for `channels=1`, and the data have `channels=3`; give data of 1" in out


def test_gray_images_for_a_colour_backbone(command: Any, tmp_path: Path, trainer: Any) -> None:
    fit = trainer()
    fit.strategy.connect(SimCLR(ConvNet(channels=3, width=4)))
    fit.save_checkpoint(tmp_path / "colour.ckpt")
    given = ["--data", "Digits", "--protocols", "knn,rank,finetune", "--fractions", "1.0", "--steps", "2"]
    given += ["--lidar_images", "5", "--views", "2"]
    status, out = command("evaluate", tmp_path / "colour.ckpt", *given)
    assert status == 0, out
    assert len(rows_of(tmp_path / "runs/evaluate/results.csv")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.ckpt", "--data", "Digits"], "`checkpoints=no.ckpt` is no file"),
        (["pixels", "--data.limit", "9"], "`--data.limit` comes before the class it belongs to; give `--data CLASS`"),
        (["untrained", "--data", "Digits"], "`untrained` needs `--backbone`"),
        (["pixels", "--data", "Digits", "--protocols", "knn,liner"], "there is no `liner` (did you mean `linear`?)"),
        (
            ["pixels", "--data", "Digits", "--fractions", "0.1,7"],
            "`fractions=0.1,7` must be numbers above 0 and up to 1",
        ),
        (["pixels", "--data", "Digits", "--k", "0"], "`k=0` must be at least 1"),
        (["pixels", "--data", "Digits", "--seed", "-1"], "`seed=-1` must be at least 0"),
        (["pixels", "--data", "Digits", "--lr", "-1"], "`lr=-1.0` must be a number above 0"),
        (["pixels", "--data", "Digits", "--temperature", "0"], "`temperature=0.0` must be at least 0.02"),
        (["pixels", "--data", "Digits", "--precision", "31"], "with `precision=31` cannot be had here"),
        (["pixels", "--data", "Digits", "--accelerator", "abacus"], "`accelerator=abacus` with"),
        (["pixels", "--data", "Digits", "--results", "."], "`results=.` must be a file that ends in .csv"),
        (["pixels", "--data", "Digits", "--results", "r.md"], "`results=r.md` must be a file that ends in .csv"),
        (["pixels", "--data", "Digits", "--results", "/dev/null/r.csv"], "its folder cannot be made"),
        (["pixels", "--data", "Digit"], "did you mean `Digits`"),
        (["pixels", "--data", "Digits", "--protocol", "knn"], "there is no option `--protocol`"),
        (["pixels"], "`--data` is required and missing"),
    ],
)
def test_mistakes_take_a_line(arguments: list[str], message: str, command: Any) -> None:
    status, out = command("evaluate", *arguments)
    assert status == 2
    assert message in out
    assert "Traceback" not in out


def test_results_of_another_kind_are_left_alone(command: Any, tmp_path: Path) -> None:
    other = tmp_path / "mine.csv"
    other.write_text("a,b\n1,2\n")
    status, out = command("evaluate", "pixels", "--data", "Digits", "--protocols", "knn", "--results", other)
    assert (status, other.read_text()) == (2, "a,b\n1,2\n")
    assert "has other columns than ours" in out


def test_an_encoder_that_diverged_takes_a_line(command: Any, tmp_path: Path, trainer: Any) -> None:
    model = SimCLR(ConvNet(width=4))
    next(model.backbone.parameters()).data.fill_(float("nan"))
    fit = trainer()
    fit.strategy.connect(model)
    fit.save_checkpoint(tmp_path / "nan.ckpt")
    for protocol in ("knn", "rank"):
        status, out = command("evaluate", tmp_path / "nan.ckpt", "--data", "Digits", "--protocols", protocol)
        assert status == 2
        assert "embeds samples as NaN or infinity" in out


def test_an_unknown_normalisation_is_said(command: Any, tmp_path: Path, trainer: Any) -> None:
    fit = trainer()
    fit.strategy.connect(Classifier(10, ConvNet(width=4)))
    fit.save_checkpoint(tmp_path / "classifier.ckpt")
    given = ["evaluate", tmp_path / "classifier.ckpt", "--data", "Digits", "--protocols", "knn,knn"]
    with pytest.warns(UserWarning, match="does not say how its input was normalised"):
        status, out = command(*given)
    assert status == 0, out
    assert len(rows_of(tmp_path / "runs/evaluate/results.csv")) == 1


def test_pixels_have_no_weights_to_finetune(command: Any, tmp_path: Path) -> None:
    status, out = command("evaluate", "pixels", "--data", "Digits", "--protocols", "finetune")
    assert status == 0
    assert "`pixels` has no weights to train" in out
    assert not (tmp_path / "runs/evaluate/results.csv").exists()


def test_lidar_does_not_depend_on_the_batch_size(checkpoint: Path, command: Any, tmp_path: Path) -> None:
    values = []
    for size in ("7", "256"):
        given = ["--protocols", "rank", "--lidar_images", "30", "--views", "3", "--data.batch_size", size]
        path = tmp_path / f"{size}.csv"
        status, out = command("evaluate", checkpoint, "--data", "Digits", *given, "--results", path)
        assert status == 0, out
        values.append({row["metric"]: float(row["value"]) for row in rows_of(path)})
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_unlabelled_data_can_only_be_ranked(command: Any, tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / "pile" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((16, 16), 60).convert("RGB").save(path)
    data = ["--data", "ImageFolder", "--data.root", tmp_path / "pile", "--data.image_size", "16"]
    status, out = command("evaluate", "untrained", "--backbone", "ConvNet", *data)
    assert status == 2
    assert "no labels to judge by" in out
    quick = ["--protocols", "rank", "--lidar_images", "4", "--views", "2"]
    status, out = command("evaluate", "untrained", "--backbone", "ConvNet", *data, *quick)
    assert status == 0, out


def test_fractions_are_balanced_and_nested() -> None:
    targets = torch.arange(1000) % 7
    targets[::10] = -1
    few = fraction_of(targets, torch.arange(900), 0.05, 7, seed=1)
    many = fraction_of(targets, torch.arange(900), 0.3, 7, seed=1)
    assert set(few.tolist()) < set(many.tolist())
    counts = torch.bincount(targets[few], minlength=7)
    assert counts.min() >= counts.max() - 1
    assert (targets[few] >= 0).all()
    assert not torch.equal(few, fraction_of(targets, torch.arange(900), 0.05, 7, seed=2))
    assert len(fraction_of(targets, torch.arange(900), 1e-9, 7, seed=1)) == 7


def test_markdown_leaves_a_gap_where_nothing_was_measured() -> None:
    base = {"checkpoint": "a", "method": "M", "backbone": "B", "data": "D", "protocol": "knn", "fraction": "1"}
    base |= {"settings": "{}", "seed": "0"}
    rows = [{**base, "metric": "accuracy", "value": "0.5"}]
    rows += [{**base, "checkpoint": "b", "protocol": "rank", "metric": "rankme", "value": "12.34"}]
    lines = markdown(rows).splitlines()
    assert lines[2:] == ["| a | M | B | D | 50.0 |  |", "| b | M | B | D |  | 12.3 |"]
