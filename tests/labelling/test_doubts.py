from typing import Any

import numpy as np
import pytest

from ssl_lightning.labelling.doubts import confident_joint, doubtful, out_of_fold, suspects, thresholds


def brute_force(probabilities: Any, labels: Any) -> tuple[list[list[int]], dict[int, int]]:
    """Equations 1 and 2 of the paper, read word for word: the joint, and the class of each off-diagonal sample."""
    classes = range(probabilities.shape[1])
    of_class = {j: [k for k in range(len(labels)) if labels[k] == j] for j in classes}
    t = {j: sum(probabilities[k][j] for k in of_class[j]) / len(of_class[j]) for j in classes if of_class[j]}
    joint, found = [[0 for _ in classes] for _ in classes], {}
    for i in classes:
        for k in of_class[i]:
            reached = [(probabilities[k][j], -j) for j in t if probabilities[k][j] >= t[j]]
            if reached:
                j = -max(reached)[1]
                joint[i][j] += 1
                if i != j:
                    found[k] = j
    return joint, found


@pytest.mark.parametrize("seed", range(10))
def test_confident_joint_as_the_paper_has_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    classes = 2 + seed % 4
    probabilities = draw.dirichlet(np.full(classes, 0.5), size=80)
    labels = draw.integers(0, classes - (seed == 7), size=80)  # once a class that nobody has
    joint, found = brute_force(probabilities, labels)
    assert confident_joint(probabilities, labels).tolist() == joint
    assert dict(suspects(probabilities, labels)) == found
    assert found
    margins = [
        probabilities[place, labels[place]] - max(np.delete(probabilities[place], labels[place]))
        for place, _ in suspects(probabilities, labels)
    ]
    assert margins == sorted(margins)


def test_thresholds_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.2, 0.6, 0.2]])
    assert thresholds(probabilities, np.array([0, 0, 1])).tolist() == [0.7, 0.6, np.inf]


def test_equal_probabilities_reach_their_own_mean() -> None:
    """0.1 + 0.1 + 0.1 over 3 is above 0.1."""
    probabilities = np.tile([0.1, 0.9], (3, 1))
    assert confident_joint(probabilities, np.array([0, 0, 0])).tolist() == [[3, 0], [0, 0]]
    assert suspects(probabilities, np.array([0, 0, 0])) == []


def clusters(seed: int, size: int = 600, classes: int = 4, spread: float = 1.0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, size=size)
    centres = draw.normal(size=(classes, 8)) * 3
    return centres[truth] + draw.normal(size=(size, 8)) * spread, truth


def test_flipped_labels_are_found() -> None:
    points, truth = clusters(0)
    draw = np.random.default_rng(1)
    flipped = draw.random(len(truth)) < 0.1
    given = np.where(flipped, (truth + draw.integers(1, 4, size=len(truth))) % 4, truth)
    names = [f"class {label}" for label in given]
    found = doubtful(points, names, [f"{k}" for k in range(len(truth))])
    picked = {int(one["key"]) for one in found}
    wrong = set(np.flatnonzero(flipped).tolist())
    assert len(picked & wrong) / len(picked) > 0.9
    assert len(picked & wrong) / len(wrong) > 0.8  # what lies between two classes cannot be told
    assert {int(one["key"]) for one in found[:20]} <= wrong  # worst first
    for one in found:
        if int(one["key"]) in wrong:
            assert one["guess"] == f"class {truth[int(one['key'])]}"
        assert one["label"] == names[int(one["key"])] != one["guess"]
        assert 0 < one["confidence"] <= 1
        assert one["fingerprint"] == ""


def test_clean_labels_raise_few_doubts() -> None:
    points, truth = clusters(3)
    assert len(doubtful(points, [str(label) for label in truth], [str(k) for k in range(len(truth))])) < 6


def test_the_order_of_the_samples_does_not_matter() -> None:
    points, truth = clusters(5, size=120, spread=3)
    names, keys, prints = [str(k) for k in truth], [f"k{k}" for k in range(120)], [f"p{k}" for k in range(120)]
    found = doubtful(points, names, keys, prints)
    assert found
    assert all(one["fingerprint"] == one["key"].replace("k", "p") for one in found)
    order = np.random.default_rng(0).permutation(120)
    mixed = doubtful(points[order], *([some[k] for k in order] for some in (names, keys, prints)))
    assert [one["key"] for one in mixed] == [one["key"] for one in found]


def test_no_sample_is_judged_by_a_model_that_saw_it() -> None:
    """Points that all lie alone: who saw them knows their label, and who did not, does not."""
    draw = np.random.default_rng(0)
    points, labels = draw.normal(size=(100, 200)), draw.integers(0, 2, size=100)
    probabilities = out_of_fold(points, labels)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert 0.3 < (probabilities.argmax(axis=1) == labels).mean() < 0.7


def test_small_classes() -> None:
    points, truth = clusters(2, size=40, classes=2)
    names = [*(f"{k}" for k in truth), "rare", "rare", "single"]
    points = np.concatenate([points, points[:1] + 30, points[:1] + 30.1, points[:1]])
    found = doubtful(points, names, [f"{k}" for k in range(43)], folds=5)
    assert "single" not in {one["label"] for one in found} | {one["guess"] for one in found}
    assert not {"40", "41"} & {one["key"] for one in found}  # each of the two rare ones is known by the other
    numbers = np.array([*truth, 2, 2])
    assert (out_of_fold(points[:42], numbers, folds=5)[40:].argmax(axis=1) == 2).all()


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"], ["a", "a"], ["a", "a", "b"]])
def test_too_little_to_doubt(names: list[str]) -> None:
    assert doubtful(np.zeros((len(names), 2)), names, [str(k) for k in range(len(names))]) == []


def test_a_model_that_tells_nothing() -> None:
    names, keys = ["a", "b"] * 20, [str(k) for k in range(40)]
    assert doubtful(np.full((40, 3), np.nan), names, keys) == []
    assert doubtful(np.ones((40, 3)), names[:21] + ["a"] * 19, keys) == doubtful(
        np.zeros((40, 3)), names[:21] + ["a"] * 19, keys
    )


def test_two_of_each_of_two() -> None:
    points = np.array([[0.0], [0.1], [9.0], [9.1]])
    assert doubtful(points, ["a", "a", "b", "b"], list("1234"), folds=2) == []


def test_folds() -> None:
    with pytest.raises(ValueError, match="`folds=1` of 4 samples: both must be at least 2"):
        out_of_fold(np.zeros((4, 1)), np.array([0, 0, 1, 1]), folds=1)
