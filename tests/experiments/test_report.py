"""The report page: complete, well formed, self-contained."""

from __future__ import annotations

import base64
import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from ssl_lightning.commands.report import main
from ssl_lightning.experiments.report import write_report
from ssl_lightning.experiments.runs import Comparison, read_comparison, read_run, run_folder

WriteRun = Any
_VOID = {"meta", "img", "source", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects text, attributes and images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]


def strips(indices: np.ndarray) -> dict[int, np.ndarray]:
    images = (load_digits().images * 15.9).astype(np.uint8)
    return {number - 1: np.concatenate(images[row], axis=1) for number, row in enumerate(indices)}


@pytest.fixture
def folder(tmp_path: Path, make_run: WriteRun) -> Path:
    """A comparison of two arms with three seeds and three rounds."""
    arms = {"Entropy, <SSL>": ["--model.checkpoint", "x.ckpt"], "Entropy, scratch": []}
    record = {
        "metric": "test/accuracy",
        "range": [20, 24],
        "seeds": [0, 1, 2],
        "pairs": [list(arms)],
        "base": ["--config", "digits.yaml"],
        "arms": arms,
    }
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    targets = load_digits().target
    for shift, name in enumerate(arms):
        for seed in (0, 1, 2):
            indices = np.random.default_rng(seed).permutation(1797)[:12].reshape(3, 4)
            accuracy = [0.8 - 0.2 * shift + 0.01 * seed * shift, 0.85, 0.9]
            checkpoint = None if shift else "x.ckpt"
            target = run_folder(tmp_path, name, seed)
            labels = targets[indices.ravel()].tolist()
            make_run(target, "Entropy", checkpoint, seed, accuracy, images=strips(indices), targets=labels)
    return tmp_path


def test_page_shows_every_image_with_label_and_score(folder: Path) -> None:
    assert main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    page = Page(text)
    embedded = [value for value in page.values("style") if value.startswith("--strip: url(data:image/png;base64,")]
    assert len(embedded) == 2 * 3  # one run of each arm, initial labels and two rounds
    for name in ("Entropy, <SSL>", "Entropy, scratch"):
        run = read_run(run_folder(folder, name, 0))
        for number in (-1, 0, 1):
            path = run.strip_of(number)
            assert path is not None
            assert base64.b64encode(path.read_bytes()).decode() in text
            for sample in run.asked_after(number):
                alt = f"sample {sample.key} ({sample.path}), label {sample.label}"
                alt += "" if sample.score is None else f", score {sample.score:#.3g}"
                assert alt in page.values("aria-label")
                assert sample.key in page.words
    assert page.values("aria-label").count("labels of each class in this round") == 6
    offsets = [value for value in page.values("style") if value.startswith("background-position")]
    assert offsets[:4] == [f"background-position: {x} 0" for x in ("0.0000%", "33.3333%", "66.6667%", "100.0000%")]


def test_page_says_what_was_run_and_how_sure_it_is(folder: Path) -> None:
    write_report(read_comparison(folder), folder / "x" / "page.html", title="Tom & Jerry")
    page = Page((folder / "x" / "page.html").read_text())
    words = " ".join(page.words)
    assert "Tom & Jerry" in words
    assert "Entropy, <SSL> against Entropy, scratch: +9.5 points of test/accuracy" in words
    assert "over 3 paired seeds" in words
    assert "not the pretrained checkpoint nor the test set" in words
    assert "85.0 ± 0.0" in words
    assert "area 20-24" in words
    seed_folder = run_folder(folder, "Entropy, scratch", 0)
    assert f"ssl-lightning active --config digits.yaml --seed_everything 0 --folder {seed_folder}" in words
    shares = [value for value in page.values("style") if value.startswith("--share: 0.33")]
    assert shares  # SSL wins at one of the three label counts


def test_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    main([str(folder)])
    page = Page((folder / "report.html").read_text())
    assert all(value.startswith("data:image/png") for value in page.values("src") + page.values("srcset"))
    assert not page.values("href")
    assert "script" not in {tag for tag, _, _ in page.attributes}
    assert all(alt for alt in page.values("alt"))


def test_histogram_counts_labels(tmp_path: Path, make_run: WriteRun) -> None:
    labels = [3, 3, 3, 5, 5, 5, 3, 1]
    folder = make_run(tmp_path / "run", accuracy=[0.5, 0.6], targets=labels)
    main([str(folder)])
    titles = [t for t in Page((folder / "report.html").read_text()).values("title") if ": " in t]
    assert titles == ["1: 0", "3: 3", "5: 1", "1: 1", "3: 1", "5: 2"]


def test_single_run_and_several_runs_without_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_folder(folder, "Entropy, scratch", seed) for seed in (0, 1)]
    assert main([str(runs[0])]) == 0
    assert "Wrote" in capsys.readouterr().out
    words = " ".join(Page((runs[0] / "report.html").read_text()).words)
    assert "1 run of active learning, from 20 to 28 labels." in words
    assert "How sure" not in words
    assert "Who beats whom" not in words
    output = folder / "two.html"
    assert main([*map(str, runs), "--output", str(output), "--metric", "train/loss"]) == 0
    words = " ".join(Page(output.read_text()).words)
    assert "train/loss: mean ± standard deviation" in words
    assert "Seeds vary" in words


def test_page_without_images_or_queries(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "run")
    main([str(folder)])
    page = Page((folder / "report.html").read_text())
    assert not [value for value in page.values("style") if "--strip" in value]
    assert "2.26" in page.words
    (folder / "queries.csv").unlink()
    main([str(folder)])
    assert "This run logged no queries." in Page((folder / "report.html").read_text()).words


def test_what_is_no_image_is_told_as_text(tmp_path: Path, make_run: WriteRun) -> None:
    told = ["a <b>bold</b> claim", "x" * 400, "three", "four"]
    folder = make_run(tmp_path / "run", accuracy=[0.5, 0.6], texts={0: told}, targets=["pos", "neg"] * 4)
    main([str(folder)])
    page = Page((folder / "report.html").read_text())
    assert {"a <b>bold</b> claim", "three", "four", "pos", "k4"} <= set(page.words)
    assert any(word.startswith("xxx") and word.endswith("...") for word in page.words)
    assert "sample k4 (data/k4.png), label pos, score 2.26" in page.values("title")
    assert not page.values("aria-label") or all(not v.startswith("sample") for v in page.values("aria-label"))


def test_classes_are_ordered_as_a_person_does(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "run", accuracy=[0.5, 0.6], targets=["10", "9", "cat", "9", "", "", "", ""])
    main([str(folder)])
    titles = [t for t in Page((folder / "report.html").read_text()).values("title") if ": " in t]
    assert titles == ["9: 2", "10: 1", "cat: 1", "9: 0", "10: 0", "cat: 0"]  # pending ones are in no bar


def test_more_queries_than_images(tmp_path: Path, make_run: WriteRun) -> None:
    strip = np.zeros((8, 8 * 64), np.uint8)
    folder = make_run(tmp_path / "run", accuracy=[0.5, 0.6], query_size=70, images={0: strip})
    main([str(folder)])
    page = Page((folder / "report.html").read_text())
    assert "and 6 more" in page.words
    assert len([alt for alt in page.values("aria-label") if alt.startswith("sample")]) == 64


def test_large_strips_are_shrunk(tmp_path: Path, make_run: WriteRun) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (224, 224 * 10, 3), dtype=np.uint8)
    folder = make_run(tmp_path / "run", accuracy=[0.5, 0.6], query_size=10, images={0: strip})
    main([str(folder)])
    style = next(v for v in Page((folder / "report.html").read_text()).values("style") if v.startswith("--strip"))
    with Image.open(io.BytesIO(base64.b64decode(style.partition("base64,")[2].rstrip(")")))) as image:
        assert (image.format, image.size) == ("JPEG", (720, 72))


def test_broken_picture_is_named(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "run", images={0: np.zeros((8, 32), np.uint8)})
    (folder / "queries" / "round_000.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"round_000\.png` is not a readable picture"):
        main([str(folder)])


def test_demo_sized_report_stays_small(tmp_path: Path, make_run: WriteRun) -> None:
    digits = (load_digits().images * 15.9).astype(np.uint8)
    arms = {}
    for arm in range(6):
        images = {
            number: np.kron(np.concatenate(digits[10 * number + 10 :][:10], axis=1), np.ones((4, 4), np.uint8))
            for number in range(-1, 9)
        }
        run = make_run(tmp_path / str(arm), accuracy=[0.5] * 10, query_size=10, images=images)
        arms[f"arm {arm}"] = (read_run(run),)
    path = write_report(Comparison(arms), tmp_path / "report.html")
    assert path.stat().st_size < 3_000_000


def test_mistakes_are_named(tmp_path: Path, make_run: WriteRun) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match=r"did you mean `test/accuracy`\?"):
        main([str(make_run(tmp_path / "run")), "--metric", "test/acc"])


def test_names_of_classes_and_files_are_text(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "run", images=strips(np.arange(12).reshape(3, 4)))
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    with (folder / "queries.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "position", "key", "path", "class_name", "score"])
        for position in range(4):
            writer.writerow([-1, position, f"{evil}{position}.png", f"data/{evil}.png", evil, ""])
    text = write_report(Comparison({"one": (read_run(folder),)}), tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in {tag for tag, _, _ in page.attributes}
    assert "<script" not in text
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert any(evil in value for value in [*page.words, *(value for _, _, value in page.attributes)])


def test_report_says_from_how_many_answers_an_accuracy_is(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "run")
    with (folder / "rounds.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line |= {"test/count": "40", "test/accuracy_low": "0.5447", "test/accuracy_high": "0.8185"}
    with (folder / "rounds.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    page = Page(
        write_report(Comparison({"one": (read_run(folder),)}), tmp_path / "report.html").read_text(encoding="utf-8")
    )
    assert "40 answers drawn at random: 70.0% right, 95 % interval 54.5% to 81.8% (Wilson)" in " ".join(page.words)
