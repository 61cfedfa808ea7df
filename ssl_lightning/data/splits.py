"""Which part a sample belongs to, as a function of its key and a seed: nothing changes sides when others come or go."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

COPY = "~copy"  # between a key that is a sample's content and the number of an exact copy


def side_of(key: str) -> str:
    """Return what a sample's side is drawn by: its key; of exact copies, which are one content, that of the first."""
    return key.partition(COPY)[0]


def chances(keys: Iterable[str], seed: int, purpose: str) -> Tensor:
    """Hash each key to a number that looks drawn evenly from [0, 1).

    Args:
        keys: Of samples.
        seed: Of the split.
        purpose: What is decided, so that two decisions on a sample are independent.

    Returns:
        float64, `(N,)`; each depends on its own key alone.

    Example:
        >>> both, one = chances(["a.png", "b.png"], 0, "test"), chances(["b.png"], 0, "test")
        >>> bool(both[1] == one[0]), bool(both[0] == both[1])
        (True, False)
    """
    start = hashlib.blake2b(f"{seed}/{purpose}/".encode(), digest_size=8)
    numbers = []
    for key in keys:
        digest = start.copy()
        digest.update(key.encode("utf-8", "surrogateescape"))
        numbers.append(int.from_bytes(digest.digest(), "little") / 2**64)
    return torch.tensor(numbers, dtype=torch.float64)


def chosen_by_share(keys: Sequence[str], share: float, seed: int, purpose: str) -> Tensor:
    """Tell which samples belong to a part that takes a share of all, each by its own key.

    The part's size is about `share * N`: it varies as that of coins thrown, and so do its classes. In return no sample
    ever changes sides, whatever is added or removed beside it.

    Args:
        keys: Of samples, `N` of them.
        share: From 0 to 1.
        seed: Of the split.
        purpose: As for `chances`.

    Returns:
        Boolean, `(N,)`.
    """
    return chances([side_of(key) for key in keys], seed, purpose) < share


def chosen_by_count(keys: Sequence[str], targets: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Tell which samples belong to a part of a fixed size, its classes as even as in the whole.

    For sets that do not change: where samples come or go, others take their places.

    Args:
        keys: Of samples, `N` of them.
        targets: Classes, -1 where unknown, `(N,)`.
        count: Samples of the part, at most `N`.
        seed: Of the split.
        purpose: As for `chances`.

    Returns:
        Boolean, `(N,)`, true for `count`.

    Example:
        >>> targets = torch.tensor([0] * 90 + [1] * 10)
        >>> part = chosen_by_count([str(n) for n in range(100)], targets, 10, seed=0, purpose="val")
        >>> torch.bincount(targets[part])
        tensor([9, 1])
    """
    numbers = chances([side_of(key) for key in keys], seed, purpose)
    place = torch.empty_like(numbers)
    for target in targets.unique().tolist():  # type: ignore[no-untyped-call]
        mine = (targets == target).nonzero()[:, 0]
        order = mine[numbers[mine].argsort(stable=True)]
        place[order] = (torch.arange(len(mine), dtype=torch.float64) + numbers[order]) / len(mine)
    part = torch.zeros(len(numbers), dtype=torch.bool)
    part[place.argsort(stable=True)[:count]] = True
    return part


def keep_labels(targets: Tensor, keys: Sequence[str], among: Tensor, count: int, seed: int) -> Tensor:
    """Hide all labels of some samples but a number, whose classes are as even as in the whole.

    Args:
        targets: Classes, -1 where unknown, `(N,)`.
        keys: Of the samples.
        among: Positions of the samples whose labels are hidden or kept; the others keep theirs, `(M,)`.
        count: Labels to keep.
        seed: Of the draw.

    Returns:
        `(N,)`, a new tensor.

    Raises:
        ValueError: If there are fewer.

    Example:
        >>> keep_labels(torch.tensor([0, 1, 1, 0]), ["a", "b", "c", "d"], torch.tensor([0, 1, 2]), 2, seed=0)
        tensor([ 0, -1,  1,  0])
    """
    known = among[targets[among] >= 0]
    if count > len(known):
        raise ValueError(
            f"`keep_labels={count}` exceeds the {len(known)} labelled training samples; lower it, or leave it out."
        )
    kept = known[chosen_by_count([keys[place] for place in known.tolist()], targets[known], count, seed, "labels")]
    hidden = targets.clone()
    hidden[among] = -1
    hidden[kept] = targets[kept]
    return hidden


def with_copies(part: Tensor, keys: Sequence[str]) -> Tensor:
    """Take the exact copies of what was chosen, too, so that one content is in one part.

    Args:
        part: Boolean, `(N,)`.
        keys: Of the samples.

    Example:
        >>> with_copies(torch.tensor([True, False, False]), ["a", "b", "a~copy2"])
        tensor([ True, False,  True])
    """
    if not any(COPY in key for key in keys):
        return part
    chosen = {side_of(key) for key, inside in zip(keys, part.tolist(), strict=True) if inside}
    return torch.tensor([side_of(key) in chosen for key in keys])


def tell_missing(targets: Tensor, class_names: Sequence[str], part: str, remedy: str) -> None:
    """Warn of classes that a part has no sample of.

    Args:
        targets: Of the part's samples, -1 where unknown, `(N,)`.
        class_names: Of all classes.
        part: Its name.
        remedy: What can be done.
    """
    known = targets[targets >= 0]
    missing = (torch.bincount(known, minlength=len(class_names)) == 0).nonzero()[:, 0].tolist()
    if missing:
        names = ", ".join(f"`{class_names[place]}`" for place in missing[:5]) + " ..." * (len(missing) > 5)
        rank_zero_warn(
            f"the {part} part has no sample of {len(missing)} of {len(class_names)} classes: {names}; {remedy}."
        )
