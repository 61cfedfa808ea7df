"""Many tests, many data sets: against statsmodels' and Demsar's numbers, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, ttest_rel

from ssl_lightning.experiments.aggregate import Curve, Difference
from ssl_lightning.experiments.ranks import (
    critical_difference,
    friedman,
    holm,
    labels_to_reach,
    mean_ranks,
    p_value,
    ranking,
)


def test_p_value_is_that_of_a_paired_t_test() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 6))
    found = p_value(Difference("a", "b", one - other, tuple(range(6)), (10,)))
    assert found == pytest.approx(float(ttest_rel(one, other).pvalue))
    assert math.isnan(p_value(Difference("a", "b", one[:1], (0,), (10,))))
    assert p_value(Difference("a", "b", np.full(3, 0.1), (0, 1, 2), (10,))) == 0.0
    assert p_value(Difference("a", "b", np.zeros(3), (0, 1, 2), (10,))) == 1.0


def test_holm_step_by_step() -> None:
    # the example of Holm's procedure in R's documentation: p.adjust(c(.01, .02, .03, .04), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([0.01, math.nan])[0] == 0.01
    assert holm([]) == []


def test_labels_to_reach() -> None:
    curve = Curve(np.array([10, 20, 40]), np.array([[0.2, 0.4, 0.8], [0.9, 0.1, 0.9], [0.1, np.nan, 0.3]]), (0, 1, 2))
    assert labels_to_reach(curve, 0.6).tolist() == [30.0, 10.0, math.inf]
    losses = Curve(np.array([10, 20]), np.array([[0.8, 0.4]]), (0,))
    assert labels_to_reach(losses, 0.6, higher_is_better=False).tolist() == [15.0]


def test_demsars_example() -> None:
    """Table 6 of Demsar 2006: four versions of C4.5 on 14 data sets, mean ranks 3.143, 2.000, 2.893, 1.964."""
    rows = """0.763 0.768 0.771 0.798|0.599 0.591 0.590 0.569|0.954 0.971 0.968 0.967|0.628 0.661 0.654 0.657
    0.882 0.888 0.886 0.898|0.936 0.931 0.916 0.931|0.661 0.668 0.609 0.685|0.583 0.583 0.563 0.625
    0.775 0.838 0.866 0.875|1.000 1.000 1.000 1.000|0.940 0.962 0.965 0.962|0.619 0.666 0.614 0.669
    0.972 0.981 0.975 0.9749|0.957 0.978 0.946 0.970"""
    # the third and fourth of its row `voting` are printed alike, and ranked 2 and 3
    table = np.array([[float(cell) for cell in row.split()] for line in rows.splitlines() for row in line.split("|")])
    names = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
    scores = {str(place): dict(zip(names, row.tolist(), strict=True)) for place, row in enumerate(table)}
    ranks = mean_ranks(scores)
    assert list(ranks.values()) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)  # the paper says 1.25 for q = 2.569
    # F_F = 3.69 in the paper, with 3 and 39 degrees; scipy's chi-square is corrected for ties, theirs is not
    assert friedman(scores, ranks) == pytest.approx(0.0197, abs=5e-4)
    assert float(friedmanchisquare(*table.T).pvalue) < 0.05
    said = ranking(scores)[-1]
    assert "Mean ranks over 14 data sets" in said
    assert "critical difference 1.25" in said
    assert "Not distinguishable from C4.5+m+cf: C4.5+m, C4.5+cf, C4.5" in said


def test_nothing_is_ranked_of_one_data_set() -> None:
    assert ranking({"a": {"x": 1.0, "y": 2.0}}) == []
    assert ranking({"a": {"x": 1.0}, "b": {"x": 2.0}}) == []
    assert "x is ahead of all" not in ranking({"a": {"x": 1.0, "y": 0.5}, "b": {"x": 1.0, "y": 0.5}})[-1]
