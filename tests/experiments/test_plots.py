"""The learning-curve picture: what is drawn, and that matplotlib's global state is left alone."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.experiments.aggregate import curves_of
from ssl_lightning.experiments.plots import _spread, caption, learning_curves, styles_of
from ssl_lightning.experiments.runs import Comparison, read_run

WriteRun = Any


@pytest.fixture
def comparison(tmp_path: Path, make_run: WriteRun) -> Comparison:
    arms = {}
    for strategy in ("Random", "Entropy"):
        for checkpoint in (None, "runs/simclr/last.ckpt"):
            runs = []
            for seed in (0, 1, 2):
                accuracy = [0.5 + 0.01 * seed, 0.7, 0.8 + 0.1 * bool(checkpoint) - 0.01 * seed]
                folder = tmp_path / f"{strategy}{bool(checkpoint)}{seed}"
                runs.append(read_run(make_run(folder, strategy, checkpoint, seed, accuracy, validation=16)))
            arms[f"{strategy}, {runs[0].initialisation}"] = tuple(runs)
    return Comparison(arms, pairs=(("Entropy, SSL", "Entropy, scratch"),), label_range=(20, 24))


def test_draws_means_bands_and_names(comparison: Comparison) -> None:
    figure = learning_curves(comparison)
    (axes,) = figure.axes
    means = [line.get_ydata() for line in axes.lines[:4]]
    for mean, curve in zip(means, curves_of(comparison).values(), strict=True):
        assert mean == pytest.approx(100 * curve.mean)
    texts = [text.get_text() for text in axes.texts]
    assert {text.rpartition("  ")[0] for text in texts[:4]} == set(comparison.arms)
    assert "Entropy, SSL  89.0" in texts
    assert axes.get_ylabel() == "Test accuracy [%]"
    assert axes.get_xlabel() == "Labels to train on [samples] (and 16 more for validation)"
    assert "±1 standard deviation" in figure.texts[1].get_text()


@pytest.mark.parametrize(("band", "width"), [("std", 1.0), ("ci", 4.302653 / np.sqrt(3))])
def test_band_is_what_the_caption_says(comparison: Comparison, band: Any, width: float) -> None:
    figure = learning_curves(comparison, band=band)
    path = figure.axes[0].collections[0].get_paths()[0].vertices
    first = path[path[:, 0] == 20][:, 1]
    assert first.min() == pytest.approx(51 - width)
    assert first.max() == pytest.approx(51 + width)


def test_colour_is_the_strategy_and_dash_the_initialisation(comparison: Comparison) -> None:
    styles = styles_of(comparison)
    assert styles["Random, SSL"].colour == styles["Random, scratch"].colour != styles["Entropy, SSL"].colour
    assert styles["Random, SSL"].dashes == styles["Entropy, SSL"].dashes == "-" != styles["Random, scratch"].dashes
    assert len({(style.colour, style.dashes) for style in styles.values()}) == 4


def test_arms_alike_in_both_still_differ(comparison: Comparison) -> None:
    runs = comparison.arms["Entropy, SSL"]
    styles = styles_of(Comparison({"one": runs, "two": runs, "three": runs}))
    assert len(set(styles.values())) == 3


def test_writes_png_and_svg(comparison: Comparison, tmp_path: Path) -> None:
    png, svg = tmp_path / "new" / "curves.png", tmp_path / "new" / "curves.svg"
    learning_curves(comparison, png, svg, title="My own title")
    with Image.open(png) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or []) > 20
    assert ET.parse(svg).getroot().tag.endswith("svg")


def test_one_seed_has_no_band(tmp_path: Path, make_run: WriteRun) -> None:
    one = Comparison({"a": (read_run(make_run(tmp_path / "a", accuracy=[0.5])),)}, label_range=(20, 60))
    assert caption(curves_of(one), "std") == "One seed an arm: no band."
    learning_curves(one, tmp_path / "one.png")


def test_global_state_of_matplotlib_is_left_alone() -> None:
    code = "import sys, ssl_lightning.experiments.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_keep_their_distance() -> None:
    heights = [0.1, 0.5, 0.51, 0.52, 0.98, 1.0]
    places = _spread(heights, 0.06)
    assert np.diff(places).min() >= 0.06 - 1e-12
    assert places[0] == pytest.approx(0.1)
    assert places[-1] <= 1
    assert places[1:4].mean() == pytest.approx(0.51)  # moved apart around their centre
    assert _spread([0.0, 0.5], 0.06) == pytest.approx([0.0, 0.5])
