"""Aggregation against numpy, scipy and brute force."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_lightning.experiments.aggregate import (
    Curve,
    area_under_curve,
    areas,
    curve_of,
    paired_difference,
    penalty_matrix,
    sentence,
    unit_of,
    what_seeds_vary,
)
from ssl_lightning.experiments.runs import Comparison, read_run

WriteRun = Any
LABELS = (20, 30, 40, 50)


def curve(values: Any, labels: Any = LABELS, seeds: Any = None) -> Curve:
    values = np.asarray(values, dtype=float)
    return Curve(np.array(labels), values, tuple(range(len(values))) if seeds is None else seeds)


def test_curve_lines_runs_up_by_labels(tmp_path: Path, make_run: WriteRun) -> None:
    one = make_run(tmp_path / "a", seed=0, accuracy=[0.5, 0.7], labelled=[10, 20])
    two = make_run(tmp_path / "b", seed=1, accuracy=[0.7, 0.8], labelled=[10, 30])
    result = curve_of([read_run(one), read_run(two)], "test/accuracy")
    assert result.labels.tolist() == [10, 20, 30]
    assert result.count.tolist() == [2, 1, 1]
    assert result.mean == pytest.approx([0.6, 0.7, 0.8])
    assert result.std == pytest.approx([np.std([0.5, 0.7], ddof=1), math.nan, math.nan], nan_ok=True)
    assert result.seeds == (0, 1)


def test_unknown_metric_is_named(tmp_path: Path, make_run: WriteRun) -> None:
    run = read_run(make_run(tmp_path / "a"))
    with pytest.raises(
        ValueError, match=r"`metric=test/acuracy` was not logged .* \(did you mean `test/accuracy`\?\); there are"
    ):
        curve_of([run], "test/acuracy")


def test_interval_is_student_t() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.05, (5, 4))
    low, high = stats.t.interval(0.95, 4, values.mean(0), stats.sem(values, axis=0))
    result = curve(values)
    assert result.mean - result.half_width == pytest.approx(low)
    assert result.mean + result.half_width == pytest.approx(high)


def test_area_by_hand() -> None:
    # 20 to 40: (0.2 + 0.4) / 2 * 10 + (0.4 + 0.8) / 2 * 10 = 9, over a width of 20
    assert area_under_curve(LABELS, [0.2, 0.4, 0.8, 1.0], 20, 40) == pytest.approx(0.45)
    # 25 to 30, between the points: 0.3 to 0.4
    assert area_under_curve(LABELS, [0.2, 0.4, 0.8, 1.0], 25, 30) == pytest.approx(0.35)
    assert area_under_curve(LABELS, [0.2, 0.4, 0.8, 1.0], 30, 30) == pytest.approx(0.4)
    assert area_under_curve(LABELS, [0.7] * 4, 20, 50) == pytest.approx(0.7)
    assert math.isnan(area_under_curve(LABELS, [0.2, 0.4, 0.8, 1.0], 10, 40))
    assert math.isnan(area_under_curve(LABELS, [0.2, 0.4, math.nan, math.nan], 20, 40))


def test_areas_cover_the_same_labels_for_all() -> None:
    curves = {"a": curve([[0.0, 1, 1, 1]]), "b": curve([[1.0, 1, 1]], labels=(30, 40, 60))}
    result, span = areas(curves)
    assert span == (30, 50)
    assert result["a"] == pytest.approx([1.0])
    assert areas(curves, (0, 40))[1] == (30, 40)
    assert math.isnan(areas(curves, (0, 10))[0]["a"][0])  # the range lies outside: no area rather than a wrong one


def test_paired_difference_matches_scipy() -> None:
    generator = np.random.default_rng(1)
    one, two = generator.normal(0.9, 0.02, (5, 4)), generator.normal(0.8, 0.02, (5, 4))
    order = [3, 1, 4, 0, 2]  # pairing goes by seed, not by place
    curves = {"a": curve(one), "b": curve(two[order], seeds=tuple(order))}
    result = paired_difference(curves, "a", "b", (20, 40))
    expected = stats.ttest_rel(one[:, :3].mean(1), two[:, :3].mean(1))
    assert result.mean == pytest.approx((one[:, :3] - two[:, :3]).mean())
    assert result.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert result.labels == (20, 30, 40)


def test_unfinished_seed_is_left_out_and_said() -> None:
    one = [[0.9, 0.9, 0.9, 0.9], [0.8, 0.9, math.nan, math.nan], [0.9, 0.9, 0.9, 0.95]]
    curves = {"a": curve(one), "b": curve(np.full((2, 4), 0.5), seeds=(0, 1)), "c": curve(np.full((3, 4), 0.5))}
    result = paired_difference(curves, "a", "c")
    assert result.seeds == (0, 2)
    assert "Left out, since not finished in both: seed 1." in sentence(result, "test/accuracy")
    assert paired_difference(curves, "a", "c", (20, 30)).seeds == (0, 1, 2)
    assert paired_difference(curves, "a", "b").left_out == (1, 2)


def test_pairs_that_cannot_be_made() -> None:
    curves = {"a": curve([[1.0] * 4]), "b": curve([[1.0]], labels=(7,)), "c": curve([[1.0] * 4], seeds=(9,))}
    with pytest.raises(ValueError, match="share no number of labels"):
        paired_difference(curves, "a", "b")
    with pytest.raises(ValueError, match=r"no number of labels in `range: \[60, 70\]`"):
        paired_difference(curves, "a", "c", (60, 70))
    with pytest.raises(ValueError, match="no seed has finished both"):
        paired_difference(curves, "a", "c")


@pytest.mark.parametrize(
    ("one", "two", "metric", "expected"),
    [
        # differences .1, .12, .14: mean .12, standard error .02 / sqrt 3, t = 4.303
        ([0.9, 0.92, 0.94], [0.8] * 3, "test/accuracy", "+12.0 points of test/accuracy, averaged over 20 to 50 labels; "
         "95 % CI [7.0, 17.0] over 3 paired seeds."),
        ([0.8, 0.9], [0.85, 0.85], "test/accuracy", "+0.0 points of test/accuracy, averaged over 20 to 50 labels; "
         "not distinguishable from 0 with 2 seeds (95 % CI [-63.5, 63.5], paired)."),
        ([0.9], [0.8], "test/accuracy", "1 paired seed, so no interval can be given: run more seeds."),
        ([0.7, 0.71, 0.72], [0.8] * 3, "test/accuracy", "-9.0 points of test/accuracy, averaged over 20 to 50 labels; "
         "95 % CI [-11.5, -6.5] over 3 paired seeds; the other way round than expected."),
        ([0.1, 0.11, 0.12], [0.2] * 3, "test/loss", "-0.0900 of test/loss, averaged over 20 to 50 labels; "
         "95 % CI [-0.1148, -0.0652] over 3 paired seeds."),
        ([0.8, 0.8], [0.8, 0.8], "test/accuracy", "not distinguishable from 0 with 2 seeds"),
    ],
)  # fmt: skip
def test_sentence(one: list[float], two: list[float], metric: str, expected: str) -> None:
    spread = np.ones(4)
    curves = {"A": curve(np.outer(one, spread)), "B": curve(np.outer(two, spread))}
    text = sentence(paired_difference(curves, "A", "B"), metric)
    assert text.startswith("A against B: ")
    assert expected in text


def brute_force(settings: list[dict[str, Curve]], names: list[str]) -> np.ndarray:
    matrix = np.zeros((len(names), len(names)))
    for curves in settings:
        for i, j in permutations(range(len(names)), 2):
            if names[i] not in curves or names[j] not in curves:
                continue
            for column in range(len(LABELS)):
                test = stats.ttest_rel(curves[names[i]].values[:, column], curves[names[j]].values[:, column])
                if test.pvalue < 0.05 and test.statistic > 0:
                    matrix[i, j] += 1 / len(LABELS)
    return matrix


@pytest.mark.parametrize("seed", range(4))
def test_penalty_matrix_by_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    settings = [
        {name: curve(generator.normal(0.02 * k, 0.03, (5, 4))) for k, name in enumerate(names)}
        for names in ("abcd", "abcd", "abd")
    ]
    names, matrix = penalty_matrix(settings)
    expected = brute_force(settings, names)
    assert names == list("abcd")
    assert expected.sum() > 1  # the case is not empty
    assert matrix == pytest.approx(expected)
    flipped = [{name: Curve(c.labels, -c.values, c.seeds) for name, c in curves.items()} for curves in settings]
    assert penalty_matrix(flipped, higher_is_better=False)[1] == pytest.approx(expected)


def test_penalty_matrix_needs_two_seeds_and_takes_shared_labels() -> None:
    better, worse = curve([[1.0, 1, 1, 1]]), curve([[0.0, 0, 0, 0]])
    assert not penalty_matrix([{"a": better, "b": worse}])[1].any()
    better, worse = curve(np.ones((2, 2)), labels=(30, 60)), curve(np.zeros((2, 4)))
    assert penalty_matrix([{"a": better, "b": worse}])[1].tolist() == [[0, 1], [0, 0]]


def test_units() -> None:
    assert unit_of("test/accuracy").number(0.8766) == "87.7"
    assert unit_of("val/knn_accuracy").symbol == "%"
    assert unit_of("train/loss").number(0.25) == "0.2500"
    assert not unit_of("val/nll_loss").higher_is_better
    assert unit_of("test/accuracy").number(math.nan) == "-"


def test_says_what_seeds_vary(tmp_path: Path, make_run: WriteRun) -> None:
    def arm(*checkpoints: str | None, validation: tuple[int, ...] = (0, 0)) -> Comparison:
        runs = [
            read_run(make_run(tmp_path / f"{seed}", seed=seed, checkpoint=checkpoint, validation=validation[seed]))
            for seed, checkpoint in enumerate(checkpoints)
        ]
        return Comparison({"a": tuple(runs)})

    assert "but not the test set" in what_seeds_vary(arm(None, None))
    assert "but not the pretrained checkpoint nor the test set" in what_seeds_vary(arm("x.ckpt", "x.ckpt"))
    assert "batches and the pretrained checkpoint, but not the test set" in what_seeds_vary(arm("0.ckpt", "1.ckpt"))
    assert what_seeds_vary(arm(None, None, validation=(0, 3))).endswith("batches and the test set.")
