"""How a query is put: which samples are asked for beside those a strategy chose, and what people see of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.labelling import INITIAL, NoLabel, Query, keep_sight
from ssl_lightning.labelling.records import Part

if TYPE_CHECKING:
    from ssl_lightning.active.pool import PoolDataModule

Places = list[int]  # positions in the training part


class Explanation(NamedTuple):
    """What a person should know of a query.

    Attributes:
        notes: For each chosen sample a query with the model's guess, its confidence and the nearest labelled samples.
        doubts: Labels that are likely wrong: dicts of `key`, `fingerprint`, `label`, `guess`, `confidence`.
    """

    notes: Sequence[Query] = ()
    doubts: Sequence[dict[str, Any]] = ()


def ask(
    pool: PoolDataModule,
    number: int,
    strategy: str,
    seed: int,
    indices: Places,
    scores: Sequence[float] | None = None,
    state: dict[str, Any] | None = None,
    explained: Explanation | None = None,
    size: int = 0,
) -> None:
    """Ask the oracle, keep what people see of the samples, and commit the query; in process 0.

    Args:
        pool: Of the samples.
        number: Of the round.
        strategy: That chose, for the record.
        seed: Of its draws, for the record.
        indices: Of its choice, in order.
        scores: Of these.
        state: Of the strategy after it chose.
        explained: What a person should know.
        size: Of the whole query, of which further samples test and validate; 0 for what was chosen alone.

    Raises:
        ValueError: If an answer is no class of the data.
    """
    notes, doubts = explained or Explanation()
    found = list(notes) or [Query(pool.keys[place]) for place in indices]
    if scores is not None:
        found = [query._replace(score=score) for query, score in zip(found, scores, strict=True)]
    queries = pool.shares.mix(found, extras(pool, size) if size else {}, pool.spare, pool.seed)
    answers = pool.oracle.answer([query.key for query in queries], pool.data)
    asked = []
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, str) and answer not in pool.data.class_names:
            raise ValueError(
                f"`{type(pool.oracle).__name__}` answered `{answer}` for `{query.key}`; a label must be one of "
                f"{', '.join(pool.data.class_names)}."
            )
        said = {"kind": answer.value} if isinstance(answer, NoLabel) else {"label": answer}
        asked.append(query._replace(fingerprint=pool.fingerprint(query.key), **said))
    _keep_sights(pool, asked)
    settings = None if number == INITIAL or pool.store.settings() else pool.settings
    pool.store.add_classes(pool.data.class_names)  # late answers name some of them
    pool.store.add_round(number, strategy, seed, asked, pool.oracle.name, state, settings, doubts)


def extras(pool: PoolDataModule, size: int) -> dict[Part, int]:
    """Return how many samples of the next query test, and how many validate.

    Args:
        pool: With its shares.
        size: Of the query.
    """
    if not pool.shares.any:
        return {}
    apart: tuple[Part, ...] = ("test", "val")
    asked = Counter(query.part for query in pool.queries)
    return pool.shares.extras(size, asked, {part: len(pool.spare(part)) for part in apart})


def choose_initial(pool: PoolDataModule, seed: int, choose: Callable[[int], Places] | None) -> Places:
    """Choose the samples to begin with.

    Args:
        pool: To choose from.
        seed: Of the draw.
        choose: Chooses so many; null to draw them at random.

    Raises:
        ValueError: If the pool is too small, or nothing would be labelled.
    """
    candidates, wanted = pool.indices, pool.to_choose(pool.initial)
    if wanted > len(candidates):
        raise ValueError(f"`initial={pool.initial}` exceeds the {len(candidates)} samples of the pool; lower it.")
    if not pool.initial and not len(pool.given):
        raise ValueError("`initial=0` leaves the first model nothing to train on; give at least 1.")
    order = candidates[torch.randperm(len(candidates), generator=derive_generator(seed))]
    if pool.balanced:
        order = _evenly(pool, order)
    chosen = [] if choose is None else choose(wanted)[:wanted]
    others = [place for place in order.tolist() if place not in set(chosen)]
    return chosen + others[: wanted - len(chosen)]  # a stream may choose fewer


def _evenly(pool: PoolDataModule, order: Tensor) -> Tensor:
    """Order samples so that the first have all classes as often."""
    if pool.oracle.external:
        raise ValueError("`balanced=true` needs to know the classes of what is asked for; leave it out.")
    assert pool.data.train_samples is not None
    targets = pool.data.train_samples.targets[order]
    turn = torch.zeros(len(order), dtype=torch.int64)  # how many of its class came before each
    for target in targets.unique().tolist():  # type: ignore[no-untyped-call]
        turn[targets == target] = torch.arange(int((targets == target).sum()))
    if pool.initial < pool.num_classes:
        rank_zero_warn(
            f"`initial={pool.initial}` labels with `balanced=true` cannot cover {pool.num_classes} classes; "
            f"give at least `initial={pool.num_classes}`."
        )
    return order[turn.argsort(stable=True)]


def _keep_sights(pool: PoolDataModule, asked: Sequence[Query]) -> None:
    """Keep what people see of what is asked for and of its neighbours, where their content is still that."""
    if pool.folder is None or not pool.oracle.external:
        return
    wanted = [(query.key, query.fingerprint) for query in asked]
    wanted += [near[:2] for query in asked for near in query.neighbours]
    for key, fingerprint in dict.fromkeys(wanted):
        with suppress(ValueError, OSError):  # a file that is gone meanwhile: the page says that there is none
            if pool.fingerprint(key) == fingerprint:
                shown = pool.data.show(key)
                keep_sight(pool.folder, key, fingerprint, *shown)
