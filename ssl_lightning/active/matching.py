"""Which of the samples that were asked for are there now, and what has become of the others."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.labelling import GroundTruth, Oracle, Query


def match(
    queries: Sequence[Query],
    indices: Tensor,
    data: DataModule,
    oracle: Oracle,
    fingerprint: Callable[[str], str],
    url: str,
) -> tuple[list[int], list[str]]:
    """Find the samples that were asked for, by key and content.

    Args:
        queries: All that were asked.
        indices: Positions of the training part's samples that can be in the pool.
        data: Where they are now.
        oracle: Who answers.
        fingerprint: Of the content that a key has now.
        url: Of the store, to be named.

    Returns:
        The position of each query's sample, -1 where it is not there; and a sentence for each thing worth saying.
    """
    assert data.train_samples is not None
    keys = data.train_samples.keys
    wanted = {query.key for query in queries}
    positions = {keys[place]: place for place in indices.tolist() if keys[place] in wanted}
    there = wanted.intersection(keys) | wanted.intersection(
        data.test_samples.keys if data.test_samples is not None else ()
    )
    places: list[int] = []
    vanished: list[str] = []
    changed: list[str] = []
    elsewhere: list[str] = []
    strange: list[str] = []
    corrected: list[str] = []
    for query in queries:
        place = positions.get(query.key, -1)
        if place < 0:
            (elsewhere if query.key in there else vanished).append(query.key)
        elif query.fingerprint and query.fingerprint != fingerprint(query.key):
            changed.append(query.key)
            place = -1
        if query.label is not None and query.label not in data.class_names:
            strange.append(query.label)
        elif place >= 0 and query.label is not None and _contradicts(query, place, data, oracle):
            corrected.append(query.key)
        places.append(place)
    where, news = f"in the label store `{url}`", []
    if vanished:
        news.append(f"{listed(vanished)} {where} are no longer there: kept, and not trained on.")
    if changed:
        news.append(
            f"{listed(changed)} {where} have changed since: another sample of the same name, whose old label is "
            "kept and not used; it is in the pool again."
        )
    if elsewhere:
        news.append(f"{listed(elsewhere)} {where} are not in the training part now: kept, and not trained on.")
    if strange:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(strange))
        news.append(
            f"{len(strange)} labels {where} name classes that the data do not have: {names}, of "
            f"{', '.join(data.class_names)}. Kept, and not trained on; was a class renamed?"
        )
    if corrected:
        news.append(
            f"{listed(corrected)} {where} have another class in the data now: the labels that were given are kept "
            "and trained on. Correct them in the store, or begin a new run in another `folder`."
        )
    return places, news


def _contradicts(query: Query, place: int, data: DataModule, oracle: Oracle) -> bool:
    """Tell whether the data, or the ground truth, would now answer otherwise than it did."""
    assert data.train_samples is not None
    truth = int(data.train_samples.targets[place])
    if truth < 0 or data.class_names[truth] == query.label:
        return False
    if not isinstance(oracle, GroundTruth):
        return oracle.external
    return oracle.answer([query.key], data) != [query.label]  # which may be noisy


def listed(keys: Sequence[str]) -> str:
    """Return how many samples there are, and the names of the first five."""
    names = ", ".join(f"`{key}`" for key in keys[:5]) + " ..." * (len(keys) > 5)
    return f"{len(keys)} samples ({names})"
