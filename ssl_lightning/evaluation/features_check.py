"""Is pretraining worth it? Its features against raw inputs and an untrained encoder, by the labels that there are."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_lightning.data.samples import Samples
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.logistic import logistic_head
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.vectors.row import Row

FOLDS = 5
DECAY = (1e-2,)  # one for all: with few labels a choice would be luck
TOKENS = 8192  # of raw texts, whose vector is how often each token comes
STEP = 256  # samples that are encoded at once
PRETRAINED = "pretrained"
ADVICE = "pretrain longer, take milder views (`model.views` of its config), or train without the weights"


class FeaturesCheck(NamedTuple):
    """What cross-validation found.

    Attributes:
        accuracy: Of logistic regression on each kind of features, by name.
        labels: How many were compared by.
        lead: Accuracy of the pretrained features less that of the best others.
        error: Standard error of that difference, over the samples.
    """

    accuracy: dict[str, float]
    labels: int
    lead: float
    error: float

    @property
    def keep(self) -> bool:
        """Whether to begin from the pretrained weights: unless others are better by more than chance."""
        return self.lead >= -self.error

    def __str__(self) -> str:
        """Say what was found, and what to do."""
        numbers = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.accuracy.items())
        if self.lead > self.error:
            verdict = "the pretrained features win"
        elif self.keep:
            verdict = f"too close to tell; if more labels say the same, {ADVICE}"
        else:
            verdict = f"the pretrained features do not win: {ADVICE}"
        return f"logistic regression on {self.labels} labels, cross-validated: {numbers}; {verdict}."


def check_features(rows: dict[str, Tensor], targets: Tensor, seed: int = 0) -> FeaturesCheck | None:
    """Compare features by logistic regression, cross-validated over the labelled samples; no test label is needed.

    Args:
        rows: Features of the same samples by name, `(N, d)` each; `pretrained` is one.
        targets: Classes `(N,)`.
        seed: Of the folds.

    Returns:
        What was found; null where the labels are too few to tell: fewer than ten, or of one class.

    Raises:
        ValueError: If `pretrained` or something to compare it with is missing.

    Example:
        >>> rows = {"raw": torch.zeros(20, 1), "pretrained": torch.arange(20.0)[:, None]}
        >>> check_features(rows, (torch.arange(20) >= 10).long()).keep
        True
    """
    if PRETRAINED not in rows or len(rows) < 2:
        raise ValueError(f"`rows` must hold `{PRETRAINED}` and others to compare it with; got {', '.join(rows)}.")
    if len(targets) < 2 * FOLDS or len(targets.unique()) < 2:  # type: ignore[no-untyped-call]
        return None
    right = {name: _right(features, targets, seed) for name, features in rows.items()}
    accuracy = {name: float(hits.mean()) for name, hits in right.items()}
    other = max((name for name in rows if name != PRETRAINED), key=lambda name: accuracy[name])
    difference = right[PRETRAINED] - right[other]
    error = float(difference.std(correction=0)) / math.sqrt(len(targets))
    return FeaturesCheck(accuracy, len(targets), float(difference.mean()), error)


def _right(rows: Tensor, targets: Tensor, seed: int) -> Tensor:
    """Tell which samples are classified right by what was fitted on the other folds, `(N,)`, 0 or 1."""
    classes = int(targets.max()) + 1
    order = torch.randperm(len(targets), generator=derive_generator(seed, "features check"))
    order = order[targets[order].argsort(stable=True)]  # each fold has its share of each class
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % FOLDS
    hits = torch.zeros(len(targets), dtype=torch.float64)
    for number in range(FOLDS):
        out = fold == number
        weight, bias = logistic_head(rows[~out], targets[~out], classes, seed, DECAY)
        hits[out] = ((rows[out] @ weight.T + bias).argmax(dim=1) == targets[out]).double()
    return hits


@torch.inference_mode()
def features_of(samples: Samples, places: Sequence[int], clean: nn.Module, backbone: Any = None) -> Tensor:
    """Return the features of some samples.

    Args:
        samples: The data set.
        places: Which of it, N of them.
        clean: Makes clean input.
        backbone: The encoder; null for the clean input itself as a vector.

    Returns:
        `(N, d)`, float32.
    """
    net = as_vectors if backbone is None else backbone.eval()
    parts = [list(places[first : first + STEP]) for first in range(0, len(places), STEP)]
    found = [net(clean(samples.__getitems__(part).input)) for part in parts]
    return torch.cat(found).float().clone()


def as_vectors(inputs: Any) -> Tensor:
    """Return clean input as vectors: of sounds the mean over time, of texts how often each token comes."""
    if isinstance(inputs, Row):
        codes = [nn.functional.one_hot(codes.clamp(max=63), 64) for codes in inputs.categories.T]
        return torch.cat([inputs.numbers, *codes], dim=1).float()
    if not isinstance(inputs, Padded):
        return inputs.flatten(1).float()  # type: ignore[no-any-return]
    values, length = inputs.values, inputs.length
    if values.ndim == 2 and not values.is_floating_point():
        counts = [row[:n].long() % TOKENS for row, n in zip(values, length.tolist(), strict=True)]
        return torch.stack([torch.bincount(row, minlength=TOKENS) for row in counts]).float().log1p()
    inside = (torch.arange(values.shape[1]) < length[:, None])[..., None]
    return (values * inside).sum(dim=1) / length[:, None]
