"""What of a run's samples a report shows: neighbours, errors and examples."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.experiments.analysis import PARTS

ERRORS = 12  # that are shown
EXAMPLES = 8  # of each case
QUERIES, NEAREST = 6, 5  # samples whose nearest ones are shown, and how many of these
JUDGED = 1_000  # samples by which nearest neighbours are judged


def evenly(keys: Sequence[str], count: int) -> list[int]:
    """Choose some of all places, whatever the order, always the same ones; all where there are no more.

    Example:
        >>> evenly(["a", "b", "c"], 5), len(evenly([str(n) for n in range(100)], 7))
        ([0, 1, 2], 7)
    """
    if len(keys) <= count:
        return list(range(len(keys)))
    digests = [hashlib.blake2b(str(key).encode(), digest_size=8).digest() for key in keys]
    return sorted(sorted(range(len(keys)), key=digests.__getitem__)[:count])


def most_confident_errors(part: Any, target: Any, predicted: Any, confidence: Any) -> Any:
    """Return the numbers of the errors that the model is surest of, in the test part or else in the validation part."""
    for number in (PARTS.index("test"), PARTS.index("validation")):
        judged = (part == number) & (target >= 0) & (predicted >= 0)
        if judged.any():
            wrong = np.flatnonzero(judged & (target != predicted))
            return wrong[np.argsort(-confidence[wrong], kind="stable")][:ERRORS].astype(np.int64)
    return np.empty(0, np.int64)


def clearest(case: Any, disagreement: Any, own: Any) -> list[list[int]]:
    """Return the numbers of the clearest examples of each case, the clearest first."""
    found = []
    for number, unclear in enumerate((disagreement + own, -disagreement, -own)):
        places = np.flatnonzero(case == number)
        found.append([int(place) for place in places[np.argsort(unclear[places], kind="stable")][:EXAMPLES]])
    return found


def nearest(embeddings: Tensor, part: Any, target: Any, keys: Any) -> tuple[Any, Any, dict[str, float]]:
    """Find the nearest samples of the pool by cosine, of some samples of the test part or else of the pool itself.

    Args:
        embeddings: `(N, d)`.
        part: Numbers in `PARTS`.
        target: Classes; -1 where unknown.
        keys: Of the samples.

    Returns:
        Numbers `(queries, 1 + k)`, the sample first; cosines `(queries, k)`; and how often the nearest is of the same
        class, with the number of samples that says so and what guessing would reach; empty where classes are unknown.
    """
    rows = torch.nn.functional.normalize(embeddings.float(), dim=1)
    pool = np.flatnonzero(part == 0)
    test = np.flatnonzero(part == PARTS.index("test"))
    asking = test if len(test) else pool
    asking = asking[evenly(keys[asking], JUDGED)]
    count = min(NEAREST, len(pool) - 1)
    if count < 1:
        return np.empty((0, 1), np.int64), np.empty((0, 0)), {}
    similarity = rows[asking] @ rows[pool].T
    similarity[torch.from_numpy(asking)[:, None] == torch.from_numpy(pool)] = -torch.inf  # itself
    found = similarity.topk(count, dim=1)
    places = pool[found.indices.numpy()]
    known = (target[asking] >= 0) & (target[places[:, 0]] >= 0)
    precision = {}
    if known.any():
        shares = np.bincount(target[pool][target[pool] >= 0])
        precision = {
            "count": int(known.sum()),
            "same": float((target[asking] == target[places[:, 0]])[known].mean()),
            "chance": float(shares.max() / shares.sum()),
        }
    _, first = np.unique(target[asking], return_index=True)  # of each class one, then others
    order = list(dict.fromkeys([*first[:QUERIES].tolist(), *range(len(asking))]))[:QUERIES]
    shown = np.concatenate([asking[order][:, None], places[order]], axis=1)
    return shown.astype(np.int64), found.values[order].double().numpy(), precision
