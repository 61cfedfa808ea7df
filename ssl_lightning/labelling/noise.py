"""A simulated annotator with a person's ways: takes some classes for others, refuses, and costs."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.splits import chances
from ssl_lightning.engine.csv_files import unescaped
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.ranges import at_least, between
from ssl_lightning.labelling.oracle import GroundTruth
from ssl_lightning.labelling.records import NoLabel, Reply

WHY = ("refusal", "confusion")  # what is drawn of each sample
ByClass = float | dict[str, float]  # a number for all classes, or one for each that is named and 0 for the others


class Confusion(NamedTuple):
    """How often each class is answered where another is true.

    Attributes:
        rows: `(classes, classes)`, float64: a row for each true class, in which a column for each answered; rows sum
            to 1.
        names: Of the classes, in the order of rows and columns; null where it is that of the data.
    """

    rows: Tensor
    names: tuple[str, ...] | None


class NoisyTruth(GroundTruth):
    """The simulated annotator, less than perfect: it errs by a confusion matrix, skips, is unsure, and costs.

    What it answers for a sample is a function of the seed and the sample's key: the same in any batch, order, round or
    process, and independent of what else it does. A class `i` is answered as `j` with probability `confusion[i][j]`
    (class-conditional noise; D. Angluin and P. Laird, Learning from Noisy Examples, 1988, for two classes), after
    those that get no label at all are set apart.

    Args:
        confusion: A row for each true class, in which the share of each class among the answers, in the order of the
            data's classes, as `[[0.9, 0.1], [0, 1]]`; or a CSV file with the classes' names in the first row and
            column, in any order. Null for answers that are wrong by `noise`.
        noise: Fraction of answers that are wrong, evenly over the other classes; instead of `confusion`.
        skip: Fraction of samples that cannot be labelled; of all, or by the name of the true class.
        unsure: Fraction of samples that somebody else should label; of all, or by the name of the true class.
        cost: Of one label, in whatever unit; of any, or by the name of the class that is answered.
        refusal_cost: Of one sample that gets no label, in the same unit.
        seed: Of all that is drawn.

    Raises:
        ValueError: If a number is out of its range, the matrix is none, or both `confusion` and `noise` are given.
    """

    def __init__(
        self,
        confusion: list[list[float]] | str | None = None,
        noise: float = 0.0,
        skip: ByClass = 0.0,
        unsure: ByClass = 0.0,
        cost: ByClass = 1.0,
        refusal_cost: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(noise, seed)
        if confusion is not None and noise:
            raise ValueError(f"`confusion` and `noise={noise}` both say which answers are wrong; give one of them.")
        _each(skip=skip, unsure=unsure, cost=cost)
        for name, share in {"skip": skip, "unsure": unsure}.items():
            between(0, 1, **{name: max(share.values(), default=0) if isinstance(share, dict) else share})
        at_least(0, refusal_cost=refusal_cost)
        self.confusion = None if confusion is None else read_confusion(confusion)
        self.skip, self.unsure, self._cost, self.refusal_cost = skip, unsure, cost, refusal_cost

    def can_answer(self, data: DataModule) -> Tensor:
        """Tell which samples are labelled in the data, some of which may be refused when they are asked for.

        Raises:
            ValueError: If the classes are not those of the data.
        """
        self._shares(data.class_names)
        self._matrix(data.class_names)
        return super().can_answer(data)

    def answer(self, keys: Sequence[str], data: DataModule) -> Sequence[Reply]:
        """Answer at once.

        Raises:
            ValueError: If the classes are not those of the data, or a sample has none.
        """
        names = list(data.class_names)
        skipped, refused = self._shares(names)
        matrix = self._matrix(names)
        truths = GroundTruth().answer(keys, data)
        wrong = super().answer(keys, data) if matrix is None else truths
        # the hash of one key in 2**54 would be rounded to 1
        drawn = zip(*(chances(keys, self.seed, why).clamp(max=1 - 2**-53).tolist() for why in WHY), strict=True)
        replies: list[Reply] = []
        for truth, said, (refusal, confusion) in zip(truths, wrong, drawn, strict=True):
            place = names.index(str(truth))
            if refusal < refused[place]:
                replies.append(NoLabel.SKIP if refusal < skipped[place] else NoLabel.UNSURE)
            elif matrix is None:
                replies.append(said)
            else:
                replies.append(names[int((matrix[place] <= confusion).sum())])
        return replies

    def cost(self, replies: Sequence[Reply]) -> float:
        """Return what answers cost; pending ones nothing yet.

        Args:
            replies: As `answer` gives them.

        Example:
            >>> NoisyTruth(cost={"mitosis": 3.5, "other": 1}, refusal_cost=0.5).cost(["mitosis", NoLabel.SKIP, None])
            4.0
        """
        return math.fsum(
            self.refusal_cost if isinstance(reply, NoLabel) else _of_class(self._cost, reply)
            for reply in replies
            if reply is not None
        )

    def _shares(self, names: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return the fraction of each class that is skipped, and that gets no label at all."""
        for argument, shares in {"skip": self.skip, "unsure": self.unsure, "cost": self._cost}.items():
            for name in shares if isinstance(shares, dict) else ():
                if name not in names:
                    raise ValueError(
                        f"`{argument}` names `{name}`, which is no class of the data{meant(name, names)}; they are "
                        f"{', '.join(names)}."
                    )
        skipped = [_of_class(self.skip, name) for name in names]
        unsure = [_of_class(self.unsure, name) for name in names]
        for name, one, other in zip(names, skipped, unsure, strict=True):
            if one + other > 1:
                raise ValueError(
                    f"`skip={one}` and `unsure={other}` of `{name}` must be at most 1 together; lower one."
                )
        return skipped, [one + other for one, other in zip(skipped, unsure, strict=True)]

    def _matrix(self, names: Sequence[str]) -> Tensor | None:
        """Return the sums of the rows up to each class, in the order of the data's classes; null without a matrix."""
        if self.confusion is None:
            return None
        rows, own = self.confusion
        if own is None and len(rows) != len(names):
            raise ValueError(
                f"`confusion` has {len(rows)} rows, and the data have {len(names)} classes; give a row and a column "
                f"for each of {', '.join(names)}, in this order."
            )
        if own is not None:
            if set(own) != set(names):
                raise ValueError(
                    f"`confusion` is of the classes {', '.join(own)}; those of the data are {', '.join(names)}. Name "
                    "each of these once."
                )
            order = [own.index(name) for name in names]
            rows = rows[order][:, order]
        sums = rows.cumsum(dim=1)
        return sums / sums[:, -1:]  # the last is 1, and so are those before it that only classes of share 0 follow


def read_confusion(given: Sequence[Sequence[float]] | str) -> Confusion:
    """Read a confusion matrix, and check that it is one.

    Args:
        given: As `NoisyTruth` takes it.

    Raises:
        ValueError: If it cannot be read, is not square, or a row is no distribution.

    Example:
        >>> read_confusion([[0.75, 0.25], [0, 1]]).rows.tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    names, rows = _from_file(Path(given)) if isinstance(given, str) else (None, given)
    shown = f"`confusion={given}`" if isinstance(given, str) else "`confusion`"
    if not len(rows) or any(len(row) != len(rows) for row in rows):
        raise ValueError(
            f"{shown} has {len(rows)} rows of {', '.join(sorted({str(len(row)) for row in rows})) or 'no'} numbers; it "
            "must have a row and a column for each class."
        )
    for place, row in enumerate(rows):
        name = names[place] if names else str(place)
        for share in row:
            between(0, 1, "[]", "it is a share of the answers", **{f"confusion[{name}]": share})
        if abs(math.fsum(row) - 1) > 1e-6:
            raise ValueError(f"row `{name}` of {shown} sums to {math.fsum(row):g}; the shares of a row must sum to 1.")
    return Confusion(torch.tensor(rows, dtype=torch.float64), names)


def _from_file(path: Path) -> tuple[tuple[str, ...], list[list[float]]]:
    """Read names and rows, the rows in the order of the columns."""
    try:
        lines = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"`confusion={path}` cannot be read as a table ({error}); give a CSV file in UTF-8."
        ) from error
    columns = tuple(unescaped(cell.strip()) for cell in lines[0][1:]) if lines else ()
    rows: dict[str, list[float]] = {}
    for name, *cells in lines[1:]:
        try:
            rows[unescaped(name.strip())] = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(
                f"`confusion={path}`, row `{name}`: {cells} are no numbers; give a share in each."
            ) from None
    if not columns or set(rows) != set(columns) or len(set(columns)) != len(columns) or len(lines) - 1 != len(columns):
        raise ValueError(
            f"`confusion={path}` has the columns {', '.join(columns) or 'none'} and the rows "
            f"{', '.join(rows) or 'none'}; the first row and the first column must name the same classes, each once."
        )
    return columns, [rows[name] for name in columns]


def _each(**values: float | Mapping[str, float]) -> None:
    """Require a number from 0, or some by the name of a class."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            at_least(0, **{f"{name}[{key}]": number for key, number in value.items()})
        else:
            at_least(0, **{name: value})


def _of_class(value: float | Mapping[str, float], name: str) -> float:
    return float(value.get(name, 0.0) if isinstance(value, Mapping) else value)
