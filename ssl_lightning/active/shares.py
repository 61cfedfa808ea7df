"""Shares of every query that test and validate the model instead of training it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ssl_lightning.data.splits import chances, side_of
from ssl_lightning.engine.ranges import between
from ssl_lightning.labelling import Query
from ssl_lightning.labelling.records import Part


class Shares(NamedTuple):
    """What fractions of each query are set apart.

    Every sample belongs to one part by its key, whatever comes or goes beside it. A strategy chooses among those that
    train; of those that test or validate, as many as the share says are drawn at random, so that an accuracy on them is
    one on samples drawn evenly from the pool, which what a strategy chose is not.

    Attributes:
        test: Fraction that tests.
        val: Fraction that validates.
        seed: Of the sides.
    """

    test: float
    val: float
    seed: int

    def check(self) -> None:
        """Check the fractions.

        Raises:
            ValueError: If one is out of its range, or together they leave too little.
        """
        between(0, 1, "[)", test_share=self.test, val_share=self.val)
        if self.test + self.val > 0.9:
            raise ValueError(
                f"`test_share={self.test}` and `val_share={self.val}` leave too little to train on; together at most "
                "0.9."
            )

    @property
    def any(self) -> bool:
        """Whether something is set apart."""
        return self.test + self.val > 0

    def parts(self, keys: Sequence[str]) -> dict[Part, Tensor]:
        """Tell which samples belong to each part, boolean, `(N,)`."""
        drawn = chances(map(side_of, keys), self.seed, "share")
        test, val = drawn < self.test, drawn >= 1 - self.val
        return {"train": ~test & ~val, "test": test, "val": val}

    def extras(self, size: int, asked: Counter[Part], spare: Mapping[Part, int]) -> dict[Part, int]:
        """Return how many samples of a query test and how many validate: what is due is carried on to the next.

        Args:
            size: Of the query, of which at least one sample trains.
            asked: How many of each part were asked for before, as a `Counter` tells.
            spare: How many of each part are left.

        Example:
            >>> Shares(0.2, 0.0, 0).extras(2, Counter(train=2), {"test": 9, "val": 9})
            {'test': 1, 'val': 0}
        """
        total = sum(asked.values()) + size
        due: tuple[tuple[Part, float], ...] = (("test", self.test), ("val", self.val))
        found = {part: max(0, min(round(total * share) - asked[part], spare[part])) for part, share in due}
        while sum(found.values()) > max(0, size - 1):
            found[max(found, key=lambda part: found[part])] -= 1
        return found

    def mix(
        self, chosen: Sequence[Query], extras: Mapping[Part, int], spare: Callable[[Part], list[str]], seed: int
    ) -> list[Query]:
        """Mix into a query the samples that are set apart, evenly: who stops in the middle has answered of each part.

        Args:
            chosen: By a strategy, in its order.
            extras: How many samples test, and how many validate.
            spare: Keys of a part's samples that were never asked for.
            seed: Of the order in which these are drawn.
        """
        mixed = [((place + 0.5) / max(1, len(chosen)), query) for place, query in enumerate(chosen)]
        for part, count in extras.items():
            if count:
                keys = spare(part)
                order = chances(map(side_of, keys), seed, part).argsort(stable=True).tolist()
                drawn = [keys[place] for place in order[:count]]
                mixed += [((k + 0.5) / len(drawn), Query(key, part=part)) for k, key in enumerate(drawn)]
        return [query for _, query in sorted(mixed, key=lambda item: item[0])]
