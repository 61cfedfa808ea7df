"""What the label store tells: queries, answers, rounds, lines of the history."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

INITIAL = -1  # the round of the labels a run begins with
LONGEST = 1000  # characters of a class's name

Kind = Literal["class", "skip", "unsure"]
Part = Literal["train", "val", "test"]


class NoLabel(Enum):
    """An answer that names no class: `SKIP` where none can be given, `UNSURE` where somebody else should give it."""

    SKIP = "skip"
    UNSURE = "unsure"


Reply = str | NoLabel | None  # of an oracle: the name of a class; that no label will come; null while it is pending


class Query(NamedTuple):
    """One sample that was asked for, and what is known of it now.

    Attributes:
        key: Of the sample.
        label: The name of its class, or null while the answer is pending or none could be given.
        score: The strategy's, or null.
        round: After which it was asked; -1 for the initial labels.
        position: Rank within the round, 0 first.
        fingerprint: Of the sample's content when it was asked for; empty where the key stands for one content.
        kind: Of the answer: `class`, `skip`, `unsure`; null while it is pending.
        part: What the answer is for: training, validation or test.
        guess: The class that the model expected, or null.
        confidence: The model's probability of it.
        neighbours: Key, fingerprint and class of the labelled samples that are nearest to it for the model.
        id: Its number in the store; 0 before it is there.
        answer: Number of the answer that holds; null while it is pending.
    """

    key: str
    label: str | None = None
    score: float | None = None
    round: int = INITIAL
    position: int = 0
    fingerprint: str = ""
    kind: Kind | None = None
    part: Part = "train"
    guess: str | None = None
    confidence: float | None = None
    neighbours: Sequence[tuple[str, str, str]] = ()
    id: int = 0
    answer: int | None = None


class Answer(NamedTuple):
    """What somebody says of a sample.

    Attributes:
        key: Of the sample.
        label: The name of its class; null where none is given.
        annotator: Who says so.
        kind: `class`; `skip`, where it cannot be labelled; `unsure`, where somebody else should.
        fingerprint: Of the content that was shown; null for the content asked for last.
        milliseconds: From being shown to being answered.
        source: Where it came from: `page`, `oracle`, `import`, ...
        new_class: Whether the class may be one that nobody named before.
        answered_at: When, in UTC; null for now.
    """

    key: str
    label: str | None
    annotator: str
    kind: Kind = "class"
    fingerprint: str | None = None
    milliseconds: int | None = None
    source: str = "python"
    new_class: bool = False
    answered_at: datetime | None = None


class Given(NamedTuple):
    """An answer from somebody who saw the query some time ago.

    Attributes:
        query: Its number; the answer's key must be that of the same sample.
        answer: What they say.
        replaces: Number of the answer that held when they saw it; null where it was pending.
    """

    query: int
    answer: Answer
    replaces: int | None = None


class Outcome(NamedTuple):
    """What holds of a query after a `Given`.

    Attributes:
        query: Its number.
        taken: Whether the given answer holds now, this or an earlier time that it was given; otherwise somebody else's
            does, and nothing was changed.
        answer: Number of the answer that holds; null where it was undone.
        kind: Of that answer.
        label: Of that answer.
        annotator: Who gave that answer.
    """

    query: int
    taken: bool
    answer: int | None
    kind: str | None
    label: str | None
    annotator: str | None


class Event(NamedTuple):
    """One line of the history, which is only ever added to.

    Attributes:
        id: Number of the line; a later one has a larger.
        key: Of the sample.
        fingerprint: Of its content.
        round: That asked for it.
        kind: `class`, `skip`, `unsure`, `undo` (the answer before holds again), `audit` (a second opinion).
        label: The name of the class, or null.
        annotator: Who said so.
        answered_at: When, in UTC.
        milliseconds: From being shown to being answered.
        source: Where it came from.
        holds: Whether it is what holds now.
        part: What the answer is for.
        query: Number of the query.
    """

    id: int
    key: str
    fingerprint: str
    round: int
    kind: str
    label: str | None
    annotator: str
    answered_at: datetime
    milliseconds: int | None
    source: str
    holds: bool
    part: Part
    query: int = 0


class Round(NamedTuple):
    """What is known of a round.

    Attributes:
        strategy: That asked for labels; empty if the round asked for none.
        metrics: Once the round is finished.
        state: Of the strategy after it asked.
        upto: Number of the last answer that its model was trained on; null before it began.
        closed: Whether the next round goes on without the answers that are pending.
        doubts: Labels that its model finds likely wrong: dicts of `key`, `fingerprint`, `label`, `guess`,
            `confidence`, worst first.
    """

    strategy: str
    metrics: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    upto: int | None = None
    closed: bool = False
    doubts: Sequence[dict[str, Any]] = ()


def require_class_name(name: str) -> None:
    """Check that something can be the name of a class.

    Raises:
        ValueError: If it is empty, has spaces at its ends, is too long, breaks a line, or is not UTF-8.

    Example:
        >>> require_class_name("great tit")
        >>> require_class_name("")
        Traceback (most recent call last):
        ValueError: `label=''` cannot be the name of a class: it must be 1 to 1000 printable characters without spaces at its ends.
    """  # noqa: E501
    require_text(label=[name])
    if not 1 <= len(name) <= LONGEST or name != name.strip() or not name.isprintable():
        raise ValueError(
            f"`label={name[:80]!r}` cannot be the name of a class: it must be 1 to {LONGEST} printable characters "
            "without spaces at its ends."
        )


def require_text(**names: Iterable[str]) -> None:
    r"""Check that a database can keep some names.

    Args:
        names: Of samples or classes, by what they are.

    Raises:
        ValueError: If one is not UTF-8, as that of a file can be.

    Example:
        >>> require_text(key=["a.png", "\udcff.png"])
        Traceback (most recent call last):
        ValueError: `key='\udcff.png'` is not UTF-8, and no label store can keep it; rename the file or class.
    """
    for what, some in names.items():
        for name in some:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"`{what}={name!a}` is not UTF-8, and no label store can keep it; rename the file or class."
                ) from None
