"""The report's chapters: what a run's last model makes of the data."""

import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssl_lightning.__main__ import main as command
from ssl_lightning.commands import analyse as module
from ssl_lightning.commands.analyse import analyse, open_data
from ssl_lightning.commands.pictured import evenly, nearest
from ssl_lightning.commands.predict import load_predictor, run_all
from ssl_lightning.commands.report import main
from ssl_lightning.commands.sheet import draw_sheet
from ssl_lightning.commands.sources import parts_of
from ssl_lightning.data.samples import Shown
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.experiments.analysis import FILE, NOT_ASKED, PARTS, Analysis, read_analysis
from ssl_lightning.experiments.chapter import fit_chapter
from ssl_lightning.experiments.model_plots import confusion_figure, map_figure, reliability_figure
from ssl_lightning.experiments.model_view import judge, of_model
from ssl_lightning.experiments.report import write_report
from ssl_lightning.experiments.runs import read_run, run_folder

TINY = [
    "--data",
    "Digits",
    "--model.backbone",
    "ConvNet",
    "--model.backbone.width",
    "4",
    "--trainer.accelerator",
    "cpu",
]
CPU = ["--accelerator", "cpu"]


class Page(HTMLParser):
    """Collects tags, texts and attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words = f"{self.words} {' '.join(data.split())}".strip()

    def count(self, tag: str, style: str) -> int:
        return sum(name == tag and style in attributes.get("class", "").split() for name, attributes in self.tags)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An active run, a pretraining with monitor and pictures, and a fit of a classifier: all tiny."""
    root = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    active = ["active", "--model", "Classifier", *TINY, "--model.dropout", "0.5", "--strategy", "BALD"]
    active += ["--strategy.query_size", "5", "--rounds", "1", "--initial", "10", "--steps_per_epoch", "5"]
    watch = [f"--trainer.callbacks+={name}" for name in ("CollapseMonitor", "KNN", "Pictures")]
    short = [*TINY, "--trainer.max_epochs", "2", "--data.limit", "300"]
    assert command([*active, "--trainer.max_epochs", "1", "--folder", str(root / "active")]) == 0
    assert command(["fit", "--model", "Autoencoder", *short, *watch, "--folder", str(root / "pretrained")]) == 0
    assert command(["fit", "--model", "Classifier", *short, "--folder", str(root / "classifier")]) == 0
    torch.set_num_threads(threads)
    return root


def test_active_run_is_looked_at_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs / "active"
    assert main([str(folder), *CPU]) == 0
    monkeypatch.setattr(module, "load_predictor", lambda *_: pytest.fail("opened again"))
    assert main([str(folder), *CPU]) == 0
    page = Page(folder / "report.html")
    for heading in ("Confusion", "Reliability", "most confident errors", "Map of the embedding", "three cases"):
        assert heading in page.words
    assert "Nearest neighbours" in page.words
    assert f"ssl-lightning active --model Classifier {' '.join(TINY)}" in page.words
    assert re.search(r"torch==\d", page.words)
    assert page.count("circle", "asked") + page.count("circle", "last") == 15
    assert page.count("circle", "last") == 5
    assert page.count("circle", "test") > 100
    said = [attributes["title"] for tag, attributes in page.tags if tag == "li" and "title" in attributes]
    run = read_run(folder)
    for sample in run.asked:
        assert any(text.startswith(f"sample {sample.key},") and ", guess " in text for text in said)


def test_numbers_are_those_of_predict(runs: Path) -> None:
    folder = runs / "active"
    found = analyse(folder, accelerator="cpu")
    data, predictor = open_data(folder), load_predictor(str(next((folder / "checkpoints").glob("*.ckpt"))))
    theirs = run_all(predictor, parts_of(data), 100, make_fabric("cpu", "32-true"))
    assert found.keys.tolist() == [str(key) for key in theirs.keys]
    best = theirs.rows.max(dim=1)
    assert found.predicted.tolist() == best.indices.tolist()
    np.testing.assert_allclose(found.confidence, best.values, atol=1e-5)
    np.testing.assert_allclose(found.entropy, torch.special.entr(theirs.rows.double()).sum(dim=1), atol=1e-4)
    judgement = judge(found)
    assert judgement is not None
    test = [row for row, part in enumerate(theirs.parts) if part == "test"]
    right = [predictor.class_names[int(best.indices[row])] == theirs.labels[row] for row in test]
    assert judgement.count == len(test) == 539
    assert judgement.accuracy == pytest.approx(np.mean(right))
    last = read_run(folder).rounds[-1].metrics["test/accuracy"]
    assert judgement.accuracy == pytest.approx(last, abs=1e-6)
    sure = [float(best.values[row]) for row, hit in zip(test, right, strict=True) if not hit]
    assert found.confidence[found.errors].tolist() == pytest.approx(sorted(sure, reverse=True)[: len(found.errors)])


def test_labelled_and_asked_are_those_of_the_run(runs: Path) -> None:
    found = analyse(runs / "active", accelerator="cpu")
    asked = {sample.key: sample.round for sample in read_run(runs / "active").asked}
    there = {str(key): int(number) for key, number in zip(found.keys, found.asked, strict=True) if number != NOT_ASKED}
    assert there == asked
    assert set(found.keys[found.labelled].tolist()) == set(asked)
    assert (found.case[found.labelled] == -1).all()
    assert (found.case[(found.part == 0) & ~found.labelled] >= 0).all()


def test_neighbours_are_the_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 4, generator=generator)
    part, target = np.repeat([0, PARTS.index("test")], [50, 10]), np.arange(60) % 3
    shown, cosines, precision = nearest(rows, part, target, np.arange(60).astype(str))
    for (first, *others), similarity in zip(shown.tolist(), cosines.tolist(), strict=True):
        assert part[first] == PARTS.index("test")
        theirs = torch.nn.functional.cosine_similarity(rows[first][None], rows[:50])
        order = theirs.argsort(descending=True)[: len(others)]
        assert others == order.tolist()
        assert similarity == pytest.approx(theirs[order].tolist(), abs=1e-6)
    assert precision["count"] == 10
    alone, _, _ = nearest(rows[:50], part[:50], target[:50], np.arange(50).astype(str))
    assert all(first not in others for first, *others in alone.tolist())  # of the pool itself


def test_pretraining_has_curves_monitor_pictures_and_map(runs: Path) -> None:
    folder = runs / "pretrained"
    assert main([str(folder), *CPU]) == 0
    page = Page(folder / "report.html")
    for text in ("val/knn_accuracy", "val/embedding_std", "val/rankme", "After epoch 2", "config.yaml"):
        assert text in page.words
    assert "The monitor's last word" in page.words
    assert "Reliability" not in page.words
    chapter = fit_chapter(folder, read_analysis(folder / FILE))
    assert chapter.neighbours
    assert chapter.map is not None
    assert not chapter.map.by_doubt
    assert len(chapter.pictures) == 2
    knn = next(line for chart in chapter.charts for line in chart.lines if line.name == "val/knn_accuracy")
    assert len(knn.points.split()) == 2


def test_several_runs_on_one_page_load_nothing_from_elsewhere(runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    assert (
        main([str(runs / name) for name in ("active", "pretrained", "classifier")] + ["--output", str(output), *CPU])
        == 0
    )
    page = Page(output)
    assert all(
        re.match("data:image/", value)
        for _, all_ in page.tags
        for key, value in all_.items()
        if key in ("src", "srcset")
    )
    assert not [all_ for _, all_ in page.tags if "href" in all_]
    policy = next(all_["content"] for tag, all_ in page.tags if all_.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:")
    assert len({all_["id"] for tag, all_ in page.tags if tag == "section"}) == 3
    names = [all_["name"] for tag, all_ in page.tags if tag == "input" and "name" in all_]
    assert len(set(names)) == 3  # the controls of each map are its own
    assert output.stat().st_size < 5_000_000


def test_comparison_of_methods_is_one_page_of_curves(runs: Path, tmp_path: Path) -> None:
    arms = {"one": ["pretrained"], "other": ["pretrained"]}
    record = {"metric": "val/knn_accuracy", "range": None, "seeds": [0], "pairs": [], "base": [], "arms": arms}
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(record))
    for name in arms:
        shutil.copytree(runs / "pretrained", run_folder(tmp_path, name, 0))
    assert main([str(tmp_path), *CPU]) == 0
    page = Page(tmp_path / "report.html")
    assert "Results" in page.words
    assert "Map of the embedding" not in page.words


def test_without_model_or_with_a_foreign_checkpoint(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "page.html"
    with monkeypatch.context() as patched:
        patched.setattr(module, "analyse", lambda *_: pytest.fail("looked"))
        assert main([str(runs / "classifier"), "--no-model", "--output", str(output)]) == 0
    assert "Map of the embedding" not in Page(output).words
    assert "val/accuracy" in Page(output).words
    copy = tmp_path / "copy"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "config.yaml").write_bytes((runs / "classifier" / "config.yaml").read_bytes())
    for content, reason in ((None, "holds neither"), (b"no checkpoint", "another kind of file")):
        if content is not None:
            (copy / "checkpoints" / "last.ckpt").write_bytes(content)
        capsys.readouterr()
        assert main([str(copy), "--output", str(output), *CPU]) == 0
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert reason in said
        assert reason in Page(output).words


def test_config_names_no_class_of_strangers(runs: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((runs / "classifier" / "config.yaml").read_text())
    for data in (
        {"class_path": "os.system"},
        {"class_path": "ssl_lightning.LabelledBy", "init_args": {"data": {"class_path": "os.system"}}},
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "data": data}))
        with pytest.raises(ValueError, match=r"os\.system"):
            open_data(tmp_path)


EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def invented(count: int, names: list[str], key: str = "k{}") -> Analysis:
    """Make up what a model says of samples, a fifth of them in the pool."""
    generator = np.random.default_rng(0)
    numbers = np.arange(count)
    shown = 1500
    unknown = np.full(count, np.nan)
    predicted, target = generator.integers(0, len(names), (2, count))
    noise = generator.integers(0, 256, (48 * -(-shown // 40), 48 * 40, 3), dtype=np.uint8)
    data = SimpleNamespace(show=lambda key: Shown("image", _png(noise[:48, :48])))
    sheet: Any = draw_sheet(data, [str(number) for number in range(min(count, shown))])  # type: ignore[arg-type]
    about = {
        "class_names": names, "method": "Classifier", "checkpoint": "x.ckpt", "map": "pca", "explained": [0.5, 0.2],
        "totals": {"train": count}, "dim": 3, "precision": {}, "advice": "", "draws": 0, "guesses": {},
        "examples": [[], [], []], "cell": sheet.cell, "columns": sheet.columns, "texts": [EVIL] * count,
    }  # fmt: skip
    spot = generator.standard_normal((count, 2))
    spot[shown:] = np.nan
    return Analysis(
        about=about,
        keys=np.array([key.format(number) for number in numbers]),
        part=np.where(numbers % 5, 0, 2).astype(np.uint8),
        target=target,
        asked=np.where(numbers % 7, NOT_ASKED, 0),
        labelled=numbers % 7 == 0,
        predicted=predicted,
        confidence=generator.random(count),
        entropy=generator.random(count),
        spot=spot,
        cell=np.where(numbers < shown, numbers, -1),
        case=np.full(count, -1),
        disagreement=unknown,
        own=unknown,
        errors=numbers[:3],
        neighbours=numbers[:12].reshape(2, 6),
        similarity=np.ones((2, 5)),
        sheet=np.frombuffer(sheet.content, np.uint8),
    )


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(pixels.sum()).integers(0, 256, pixels.shape, dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def test_names_of_classes_and_keys_are_text(runs: Path, tmp_path: Path) -> None:
    view = of_model(invented(60, [f"a {EVIL}", "b"], EVIL + "{}"))
    chapter = fit_chapter(runs / "pretrained", None)
    page = Page(write_report(None, tmp_path / "page.html", chapters=[type(chapter)(**{**vars(chapter), **view})]))
    scripts = [all_ for tag, all_ in page.tags if tag == "script"]
    assert len(scripts) == 1  # ours
    assert not [key for _, all_ in page.tags for key in all_ if key.startswith("on")]
    assert {tag for tag, all_ in page.tags if all_.get("src") == "x"} == set()
    assert EVIL in page.words


def test_page_of_2000_samples_with_noisy_pictures_is_small(runs: Path, tmp_path: Path) -> None:
    found = invented(2000, [f"class {number}" for number in range(100)])
    chapter = fit_chapter(runs / "pretrained", found)
    path = write_report(None, tmp_path / "page.html", chapters=[chapter])
    assert Page(path).count("circle", "pool") + Page(path).count("circle", "test") > 1000
    assert path.stat().st_size < 5_000_000


def test_figures_of_matplotlib_show_the_same() -> None:
    found = invented(200, ["a", "b", "c"])
    part, places = found.judged
    axes = confusion_figure(found).axes[0]
    right = found.target[places] == found.predicted[places]
    shares = np.asarray(axes.images[0].get_array())
    assert part == "test"
    assert shares.sum(axis=1) == pytest.approx(np.ones(3))
    assert shares[1, 1] == pytest.approx(right[found.target[places] == 1].mean())
    judgement = judge(found)
    assert judgement is not None
    assert f"{judgement.error:.3f}" in reliability_figure(found).axes[0].get_title()
    *classes, asked = map_figure(found).axes[0].collections
    assert sum(len(points.get_offsets()) for points in classes) == 200
    assert len(asked.get_offsets()) == (found.asked != NOT_ASKED).sum()
    with pytest.raises(ValueError, match="no guess of this model"):
        confusion_figure(replace(found, predicted=np.full(200, -1)))


def test_what_was_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = invented(20, ["a", "b"])
    found.about["made_of"] = {"format": 1}
    found.write(tmp_path / FILE)
    again = read_analysis(tmp_path / FILE)
    assert again is not None
    assert json.dumps(again.about) == json.dumps(found.about)
    np.testing.assert_equal(again.entropy, found.entropy)
    (tmp_path / FILE).write_bytes(b"PK damaged")
    assert read_analysis(tmp_path / FILE) is None
    assert read_analysis(tmp_path / "nothing.npz") is None


def test_some_are_chosen_whatever_the_order() -> None:
    keys = [f"k{number}" for number in range(500)]
    chosen = {keys[place] for place in evenly(keys, 40)}
    assert len(chosen) == 40
    assert {keys[::-1][place] for place in evenly(keys[::-1], 40)} == chosen
