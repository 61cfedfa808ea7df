"""The command `start`: what it makes of a folder, that a stopped run goes on to the same picks, what it refuses."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image

from ssl_lightning.commands import look, start_plan
from ssl_lightning.commands.start_plan import CHOICES, divide_labels, in_epochs, make_plan, spec
from ssl_lightning.commands.start_run import StartRun
from ssl_lightning.data import ImageFolder, LabelledBy
from ssl_lightning.evaluation.features_check import check_features

Command = Callable[..., tuple[int, str]]
SMALL = {
    "images": {"backbone": spec("ConvNet", width=4), "batch": 16, "train_batch": 4, "most_steps": 24, "most_passes": 5},
    "sound": {"backbone": spec("AudioNet", width=4, dim=8), "batch": 4, "train_batch": 2},
    "text": {"backbone": spec("TextTransformer", dim=8, depth=1, heads=2), "batch": 8, "train_batch": 4},
    "rows": {"batch": 16, "train_batch": 4},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small networks and batches, and four steps of a trial."""
    for kind, options in SMALL.items():
        monkeypatch.setitem(CHOICES, kind, dataclasses.replace(CHOICES[kind], **options))  # type: ignore[arg-type]
    monkeypatch.setattr("ssl_lightning.engine.clock.MOST_TRIED", 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the trials: a step takes 5 ms."""
    monkeypatch.setattr(StartRun, "_measure", lambda run: run.state.update(seconds={"pretrain": 0.005, "train": 0.005}))


def pictures(folder: Path, classes: int = 2, count: int = 25, mode: str = "L") -> None:
    random = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"c{number}").mkdir(parents=True)
        for n in range(count):
            pixels = random.integers(0, 60, (8, 8)) + 180 * number // max(1, classes - 1)
            Image.fromarray(pixels.astype("uint8")).convert(mode).save(folder / f"c{number}" / f"{n}.png")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def config(path: str) -> Any:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def test_a_whole_run_goes_on_to_the_same_picks(
    tmp_path: Path, command: Command, monkeypatch: Any, known_speed: None
) -> None:
    pictures(tmp_path / "pics")
    (tmp_path / "pics" / "c0" / "broken.png").write_bytes(b"no picture")
    arguments = ["start", "pics", "--labels", "15", "--minutes", "0.5"]
    status, out = command(*arguments)
    assert status == 0, out
    assert "1 unreadable" in out
    assert "the folder's own labels answer: a simulation" in out
    assert "% (95 %: " in out
    run = tmp_path / "runs" / "start-pics"
    for name in ("report.html", "predictions.csv", "train/checkpoints/last.ckpt"):
        assert (run / name).is_file()
    assert len(rows_of(run / "predictions.csv")) == 50
    told = rows_of(run / "labels.csv")
    assert len(told) == 15
    assert all(row["path"].split("/")[0] == row["class"] for row in told)

    once, state = told, json.loads((run / "start.json").read_text())
    for name in ("predictions.csv", "labels.csv"):  # as if it was killed in the second round
        (run / name).unlink()
    shutil.rmtree(run / "active")
    del state["done"]["active"]
    (run / "start.json").write_text(json.dumps(state))
    from ssl_lightning.active.record import Record

    write, calls = Record.write, []

    def stop(record: Record, number: int) -> None:
        calls.append(number)
        if number == 1:
            raise KeyboardInterrupt
        write(record, number)

    monkeypatch.setattr(Record, "write", stop)
    status, out = command(*arguments)
    assert status == 130
    assert "give the same command again to go on" in out
    monkeypatch.setattr(Record, "write", write)
    status, out = command(*arguments)
    assert status == 0, out
    assert "pretrain: done already" in out
    assert calls == [0, 1]
    assert rows_of(run / "labels.csv") == once
    assert len(rows_of(run / "predictions.csv")) == 50


def test_a_dry_run_of_pictures(tmp_path: Path, command: Command, known_speed: None) -> None:
    pictures(tmp_path / "pics", mode="RGB")
    (tmp_path / "pics" / "c2").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), "uint8") + np.array([250, 0, 0], "uint8")).save(tmp_path / "pics/c2/red.png")
    status, out = command("start", "pics", "--labels", "12", "--minutes", "1", "--dry-run", "--folder", "runs/it")
    assert status == 0, out
    for name, kind in (("1-pretrain", "fit"), ("2-active", "active"), ("3-train", "fit")):
        assert f"ssl-lightning {kind} -c runs/it/{name}.yaml" in out
    pretrain, active, train = (config(f"runs/it/{name}.yaml") for name in ("1-pretrain", "2-active", "3-train"))
    assert pretrain["data"]["init_args"]["channels"] == 3
    assert pretrain["data"]["init_args"]["image_size"] == 8
    assert active["initial"] + active["rounds"] * active["strategy"]["init_args"]["query_size"] == 12
    assert active["model"]["init_args"]["freeze"] is True
    assert train["model"]["class_path"] == "FreeMatch"
    assert not (tmp_path / "runs/it/pretrain").exists()

    (tmp_path / "runs/it/2-active.yaml").write_text("rounds: 1\n")  # edited: kept, also by other options
    status, out = command("start", "pics", "--labels", "10", "--minutes", "1", "--dry-run", "--folder", "runs/it")
    assert status == 0, out
    assert "2-active.yaml: edited since it was written, and kept" in out
    assert config("runs/it/2-active.yaml") == {"rounds": 1}


def test_a_class_that_the_folder_does_not_have_is_no_answer_of_its_labels(
    tmp_path: Path, command: Command, known_speed: None
) -> None:
    pictures(tmp_path / "pics")
    given = ["start", "pics", "--labels", "12", "--minutes", "1", "--dry-run", "--classes"]
    status, out = command(*given, "c0,cl1")
    assert status == 2
    assert "`classes` names `cl1` (did you mean `c1`?), which is no class of `folder=pics`" in out
    status, out = command(*given, "c1,c0")
    assert status == 0, out
    assert "; classes: c0, c1\n" in out


def test_people_are_asked_where_labels_are_missing(tmp_path: Path, command: Command, known_speed: None) -> None:
    pictures(tmp_path / "pics", classes=1)
    (tmp_path / "pics" / "c0").rename(tmp_path / "pics" / "unlabelled")
    given = ("start", "pics", "--labels", "8", "--minutes", "1", "--dry-run")
    status, out = command(*given)
    assert status == 2
    assert "`folder=pics` names no class; at least 2 are required: give `--classes cat,dog`" in out
    status, out = command(*given, "--classes", "cat,dog")
    assert status == 0, out
    assert "people answer" in out
    assert "; classes: cat, dog\n" in out
    assert "20 % of the answers only test" in out
    active = config("runs/start-pics/2-active.yaml")
    assert active["oracle"] == "Human"
    assert active["classes"] == ["cat", "dog"]
    assert active["test_share"] == 0.2


def sounds(folder: Path) -> None:
    for number in range(2):
        (folder / f"c{number}").mkdir(parents=True)
        for n in range(8):
            wave = np.sin(np.arange(1600) * (0.1 + 0.2 * number) + n)
            soundfile.write(folder / f"c{number}" / f"{n}.wav", 0.5 * wave, 16000)


def texts(path: Path) -> None:
    lines = [f"{'sport' if n % 2 else 'money'},a story of {'goals' if n % 2 else 'banks'} number {n} today" for n in range(40)]  # fmt: skip # noqa: E501
    path.write_text("label,text\n" + "\n".join(lines) + "\n")


def table(path: Path) -> None:
    lines = [f"{n % 2 + 0.01 * n},{'red' if n % 3 else 'blue'},{'yes' if n % 2 else 'no'}" for n in range(40)]
    path.write_text("size,colour,class\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("make", "name", "data", "classifier"),
    [
        (sounds, "sounds", "AudioFolder", "FreeMatch"),
        (texts, "texts.csv", "Texts", "FreeMatch"),
        (table, "table.csv", "Table", "Classifier"),
    ],
)
def test_a_dry_run_of_other_data_tries_both_trainings(
    make: Callable[[Path], None], name: str, data: str, classifier: str, tmp_path: Path, command: Command
) -> None:
    make(tmp_path / name)
    status, out = command("start", name, "--labels", "6", "--minutes", "20", "--dry-run", "--folder", "run")
    assert status == 0, out
    assert config("run/1-pretrain.yaml")["data"]["class_path"] == data
    assert config("run/3-train.yaml")["model"]["class_path"] == classifier
    seconds = json.loads((tmp_path / "run" / "start.json").read_text())["seconds"]
    assert seconds["pretrain"] > 0
    assert seconds["train"] > 0
    if data == "Table":
        assert config("run/1-pretrain.yaml")["data"]["init_args"]["categories"] == ["colour"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "`folder=nowhere` does not exist"),
        (["empty"], "`folder=empty` is empty; give one with files of"),
        (["one"], "`folder=one` names the single class `c0`; at least 2 are required: give a folder for each class"),
        (["pics", "--labels", "500"], "`labels=500` exceeds the 45 samples that can be asked for; give at most 45"),
        (["pics", "--labels", "1"], "`labels=1` must be at least 2"),
        (["pics", "--minutes", "0.001"], "`minutes=0.001` are too few: a step of pretraining takes 0.005 s here"),
        (["pics", "--minutes", "-1"], "`minutes=-1.0` must be above 0"),
        (["pics", "--oracle", "Humans"], "`oracle=Humans` is not possible (did you mean `Human`?)"),
        (["pics", "--lables", "20"], "there is no option `--lables`"),
        (["pics", "--labels", "many"], "`--labels=many` is not possible; required is a whole number"),
    ],
)
def test_mistakes(arguments: list[str], said: str, tmp_path: Path, command: Command, known_speed: None) -> None:
    pictures(tmp_path / "pics")
    pictures(tmp_path / "one", classes=1)
    (tmp_path / "empty").mkdir()
    status, out = command("start", *arguments, *([] if "--labels" in arguments else ["--labels", "20"]))
    assert status == 2, out
    assert said in out
    assert "Traceback" not in out


def test_another_option_is_another_run(tmp_path: Path, command: Command, known_speed: None) -> None:
    pictures(tmp_path / "pics")
    given = ("start", "pics", "--minutes", "1", "--dry-run")
    assert command(*given, "--labels", "20")[0] == 0
    (tmp_path / "runs" / "start-pics" / "pretrain").mkdir()
    status, out = command(*given, "--labels", "19")
    assert status == 2
    assert "`labels=19` differs from 20 of the run in `runs/start-pics`; give the same to go on with it" in out


def test_minutes_and_labels_are_divided() -> None:
    for labels in (2, 3, 10, 11, 57, 500):
        initial, query, rounds = divide_labels(labels)
        assert initial + query * rounds == labels
        assert initial >= 2
    choice = CHOICES["images"]
    found = make_plan(dataclasses.replace(choice, most_passes=10**6, most_steps=10**6), 10, 50, 1000, 100, {
        "pretrain": 0.5, "train": 0.25,
    })  # fmt: skip
    assert sum(found.seconds.values()) <= 600 * (1 - start_plan.RESERVE)
    assert sum(found.seconds.values()) >= 600 * (0.95 - start_plan.RESERVE)
    capped = make_plan(dataclasses.replace(choice, most_passes=1, batch=100, most_steps=10**6), 10, 50, 1000, 100, {
        "pretrain": 0.5, "train": 0.25,
    })  # fmt: skip
    assert capped.pretrain == in_epochs(10, 0.5)
    assert capped.seconds["train"] > 0.8 * 600  # what pretraining does not need


def test_looking_at_pictures(tmp_path: Path) -> None:
    for side, size in ((8, 8), (28, 28), (32, 32), (300, 64)):
        assert look.image_size(side) == size
    pictures(tmp_path / "gray", mode="RGB")  # gray, saved in colour
    assert look.look(str(tmp_path / "gray")).data["init_args"]["channels"] == 1


def test_labels_of_a_table_alone(tmp_path: Path) -> None:
    pictures(tmp_path / "pics")
    data = ImageFolder(str(tmp_path / "pics"), image_size=8, channels=1, val_size=0, test_size=0)
    (tmp_path / "labels.csv").write_text("path,class,part\nc0/1.png,cat,train\nc1/1.png,dog,train\nc0/2.png,cat,test\n")
    told = LabelledBy(data, str(tmp_path / "labels.csv"), val_size=0)
    told.setup("fit")
    told.setup("test")
    assert told.train_samples is not None
    assert told.test_samples is not None
    names = told.class_names
    known = {
        key: names[target]
        for key, target in zip(told.train_samples.keys, told.train_samples.targets.tolist(), strict=True)
        if target >= 0
    }
    assert known == {"c0/1.png": "cat", "c1/1.png": "dog"}  # the folders' own labels are not seen
    assert list(told.test_samples.keys) == ["c0/2.png"]
    assert "c0/2.png" not in told.train_samples.keys
    assert len(told.train_samples) == 49
    batch = told.train_samples.__getitems__([3, 1])
    assert batch.index.tolist() == [3, 1]
    inner, place = data.find(told.train_samples.keys[3])
    assert torch.equal(batch.input[0], inner.__getitems__([place]).input[0])
    (tmp_path / "labels.csv").write_text("path,class\nother.png,cat\n")
    with pytest.raises(ValueError, match="names no training sample of `ImageFolder`"):
        LabelledBy(data, str(tmp_path / "labels.csv"), val_size=0).setup("fit")


def test_features_are_compared_by_what_they_predict() -> None:
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    good = torch.nn.functional.one_hot(targets, 3) + 0.1 * torch.randn(60, 3, generator=random)
    noise = torch.randn(60, 5, generator=random)
    won = check_features({"raw": noise, "untrained": noise, "pretrained": good}, targets)
    lost = check_features({"raw": good, "untrained": noise, "pretrained": noise}, targets)
    assert won is not None
    assert lost is not None
    assert won.keep
    assert won.accuracy["pretrained"] > 0.95
    assert "the pretrained features win" in str(won)
    assert not lost.keep
    assert "do not win: pretrain longer" in str(lost)
    same = check_features({"raw": good, "pretrained": good}, targets)
    assert same is not None
    assert same.keep
    assert check_features({"raw": good[:9], "pretrained": good[:9]}, targets[:9]) is None
    with pytest.raises(ValueError, match="must hold `pretrained`"):
        check_features({"raw": good}, targets)
