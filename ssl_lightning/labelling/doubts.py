"""Labels that are likely wrong, by confident learning; needs no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

ROUNDING = 1e-9  # the mean of equal numbers may be above all of them


def thresholds(probabilities: Floats, labels: Labels) -> Floats:
    r"""Return how sure a model is of each class, on average over what is labelled so.

    $$t_j = \frac{1}{|X_j|} \sum_{x \in X_j} p(j; x), \quad X_j = \{x: \text{label of } x \text{ is } j\}$$

    Args:
        probabilities: Of each class by a model that did not see the sample's label, `(N, classes)`.
        labels: Classes, `(N,)`.

    Returns:
        `(classes,)`; infinite where no sample has the label.

    Reference:
        C. G. Northcutt, L. Jiang, I. L. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70,
        2021, arXiv 1911.00068, equation 2.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    found: Floats = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    return found


def confident_classes(probabilities: Floats, labels: Labels) -> Labels:
    """Return the class that a sample confidently belongs to: the most probable of those that reach their threshold.

    Args:
        probabilities: As for `thresholds`.
        labels: Classes, `(N,)`.

    Returns:
        `(N,)`; -1 where no class reaches it.
    """
    reached = np.where(probabilities >= thresholds(probabilities, labels) - ROUNDING, probabilities, -np.inf)
    return np.where(np.isfinite(reached).any(axis=1), reached.argmax(axis=1), -1)


def confident_joint(probabilities: Floats, labels: Labels) -> Labels:
    r"""Count the samples that are labelled i and confidently belong to j.

    $$C_{ij} = |\{x \in X_i: p(j; x) \ge t_j,\ j = \arg\max_{l:\, p(l; x) \ge t_l} p(l; x)\}|$$

    Args:
        probabilities: As for `thresholds`.
        labels: Classes, `(N,)`.

    Returns:
        `(classes, classes)`.

    Reference:
        C. G. Northcutt, L. Jiang, I. L. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70,
        2021, arXiv 1911.00068, equation 1.

    Example:
        >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.85, 0.15]])
        >>> confident_joint(sure, np.array([0, 0, 1, 1]))
        array([[1, 0],
               [1, 1]])
    """
    found = confident_classes(probabilities, labels)
    joint = np.zeros((probabilities.shape[1],) * 2, dtype=np.int64)
    np.add.at(joint, (labels[found >= 0], found[found >= 0]), 1)
    return joint


def suspects(probabilities: Floats, labels: Labels) -> list[tuple[int, int]]:
    """Return the samples that confidently belong to another class than their label's, likeliest wrong first.

    These are the confident joint's off-diagonal entries, in the order of the normalised margin: the probability of the
    label less the largest of another class.

    Args:
        probabilities: As for `thresholds`.
        labels: Classes, `(N,)`.

    Returns:
        Position and likely class of each.

    Reference:
        C. G. Northcutt, L. Jiang, I. L. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70,
        2021, arXiv 1911.00068, section 3.2, method 2.
    """
    found = confident_classes(probabilities, labels)
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    margin = probabilities[rows, labels] - others.max(axis=1, initial=-np.inf)
    order = np.argsort(margin, kind="stable")
    return [(int(place), int(found[place])) for place in order if found[place] not in (-1, labels[place])]


def out_of_fold(embeddings: Floats, labels: Labels, folds: int = 5, seed: int = 0) -> Floats:
    """Predict each sample by a logistic regression that did not see its label.

    The samples of each class are dealt to the folds one after the other, so that every fold has its share, and a class
    of two samples is seen by the model that judges either of them.

    Args:
        embeddings: `(N, d)`.
        labels: Classes, `(N,)`.
        folds: That the samples are divided into, at least 2; more see more labels, and cost more.
        seed: Of the division.

    Returns:
        Probabilities, `(N, classes)`: 0 for a class that only the sample itself has.

    Raises:
        ValueError: If there are fewer than two folds or two samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if folds < 2 or len(labels) < 2:
        raise ValueError(f"`folds={folds}` of {len(labels)} samples: both must be at least 2; give more.")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, at random within each
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % folds
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for held in np.unique(fold):
        seen, judged = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        classes = np.unique(labels[seen])
        if len(classes) == 1:  # which no regression tells from another
            probabilities[judged, classes[0]] = 1
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))
        model.fit(embeddings[seen], labels[seen])
        probabilities[np.ix_(judged, classes)] = model.predict_proba(embeddings[judged])
    return probabilities


def doubtful(
    embeddings: Floats,
    labels: Sequence[str],
    keys: Sequence[str],
    fingerprints: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Find labels that are likely wrong, by confident learning on embeddings; the order of the samples does not matter.

    A class with one label is not judged: nobody else knows it.

    Args:
        embeddings: `(N, d)`; of a model that was not trained on these labels it finds most.
        labels: Names of classes, `(N,)`.
        keys: Of the samples, `(N,)`.
        fingerprints: Of their contents, `(N,)`; null where keys tell them.
        folds: As for `out_of_fold`.
        seed: Of the folds.

    Returns:
        Dicts of `key`, `fingerprint`, `label`, `guess` and `confidence`, the guess's probability; worst first.
    """
    prints = [""] * len(keys) if fingerprints is None else fingerprints
    names, counts = np.unique(np.asarray(labels, dtype=object), return_counts=True)
    judged = set(names[counts > 1])
    rows = sorted((k for k, name in enumerate(labels) if name in judged), key=lambda k: (keys[k], prints[k]))
    if len(judged) < 2 or not np.isfinite(embeddings).all():  # a model that diverged knows nothing
        return []
    number = {name: place for place, name in enumerate(sorted(judged))}
    given = np.array([number[labels[k]] for k in rows])
    probabilities = out_of_fold(np.asarray(embeddings)[rows], given, folds, seed)
    return [
        {
            "key": keys[rows[place]],
            "fingerprint": prints[rows[place]],
            "label": labels[rows[place]],
            "guess": sorted(judged)[guess],
            "confidence": float(probabilities[place, guess]),
        }
        for place, guess in suspects(probabilities, given)
    ]
