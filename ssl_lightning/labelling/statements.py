"""What the label store asks of its tables, within a transaction."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, insert, or_, select, update

from ssl_lightning.labelling.records import INITIAL, Answer, Outcome, Query
from ssl_lightning.labelling.tables import ANSWERS, CLASSES, MARKS, QUERIES, ROUNDS, add, now


def joined() -> Any:
    """Return queries beside the answers that hold."""
    return QUERIES.outerjoin(ANSWERS, QUERIES.c.answer == ANSWERS.c.id)


def current(upto: int | None = None) -> Select[Any]:
    """Select all queries with the answer that holds, or that held after the answer of a number."""
    source = joined()
    if upto is not None:
        last = select(ANSWERS.c.query, func.max(ANSWERS.c.id).label("last"))
        last = last.where(ANSWERS.c.id <= upto, ANSWERS.c.kind != "audit").group_by(ANSWERS.c.query)
        latest, said = last.subquery(), ANSWERS.alias("said")
        then = or_(
            and_(said.c.kind != "undo", ANSWERS.c.id == said.c.id),
            and_(said.c.kind == "undo", ANSWERS.c.id == said.c.before),
        )
        source = (
            QUERIES.outerjoin(latest, latest.c.query == QUERIES.c.id)
            .outerjoin(said, said.c.id == latest.c.last)
            .outerjoin(ANSWERS, then)
        )
    columns = (
        QUERIES.c.key, ANSWERS.c.label, QUERIES.c.score, QUERIES.c.round, QUERIES.c.position,
        QUERIES.c.fingerprint, ANSWERS.c.kind, QUERIES.c.part, QUERIES.c.guess, QUERIES.c.confidence,
        QUERIES.c.neighbours, QUERIES.c.id, ANSWERS.c.id,
    )  # fmt: skip
    return select(*columns).select_from(source).order_by(QUERIES.c.round, QUERIES.c.position)


def as_query(row: Any) -> Query:
    """Return a row of `current` as a query."""
    found = Query(*row)
    return found._replace(neighbours=tuple((key, print_, label) for key, print_, label in found.neighbours or ()))


def put(connection: Connection, table: Any, which: dict[str, Any], values: dict[str, Any]) -> None:
    """Change a row, or make it."""
    (name, value), *_ = which.items()
    changed = connection.execute(update(table).where(table.c[name] == value).values(**values))
    if not changed.rowcount:
        connection.execute(insert(table).values(**which, **values))


def mark(connection: Connection, name: str) -> Any:
    """Return what is marked of a run."""
    return connection.scalar(select(MARKS.c.value).where(MARKS.c.name == name))


def class_names(connection: Connection) -> list[str]:
    """Return the classes, in the order they came."""
    return list(connection.scalars(select(CLASSES.c.name).order_by(CLASSES.c.id)))


def name_classes(connection: Connection, names: Iterable[str], annotator: str | None) -> None:
    """Add the classes that are new."""
    known = set(class_names(connection))
    for name in dict.fromkeys(names):
        if name not in known:
            connection.execute(insert(CLASSES).values(name=name, added_by=annotator, added_at=now()))


def find(connection: Connection, key: str, fingerprint: str | None) -> Any:
    """Find the query of a sample, of some content or of that asked for last; null if there is none."""
    wanted = select(QUERIES.c.id, QUERIES.c.answer).where(QUERIES.c.key == key).order_by(QUERIES.c.id.desc())
    if fingerprint is not None:
        wanted = wanted.where(QUERIES.c.fingerprint == fingerprint)
    return connection.execute(wanted.limit(1)).first()


def ask(connection: Connection, answer: Answer) -> Any:
    """Add a sample that was never asked for to the initial ones."""
    if connection.scalar(select(ROUNDS.c.number).where(ROUNDS.c.number == INITIAL)) is None:
        values = {"number": INITIAL, "strategy": answer.source, "seed": 0, "asked_at": now()}
        connection.execute(insert(ROUNDS).values(**values))
    last = connection.scalar(select(func.max(QUERIES.c.position)).where(QUERIES.c.round == INITIAL))
    row = {"key": answer.key, "fingerprint": answer.fingerprint or "", "round": INITIAL}
    connection.execute(insert(QUERIES).values(**row, position=0 if last is None else last + 1, part="train"))
    return find(connection, answer.key, answer.fingerprint)


def held(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, Outcome]]:
    """Return the key of queries and what holds of them, by their numbers; those that are there."""
    columns = (QUERIES.c.id, QUERIES.c.key, QUERIES.c.answer, ANSWERS.c.kind, ANSWERS.c.label, ANSWERS.c.annotator)
    found = {}
    for start in range(0, len(numbers), 500):  # databases limit the parameters of a statement
        wanted = select(*columns).select_from(joined()).where(QUERIES.c.id.in_(numbers[start : start + 500]))
        for number, key, *rest in connection.execute(wanted):
            found[number] = key, Outcome(number, False, *rest)
    return found


def append(connection: Connection, query: int, before: int | None, given: Answer, kind: str | None = None) -> int:
    """Add to the history, and return the new line's number; the answer holds, if it is no second opinion."""
    (found,) = add(connection, ANSWERS, [_line(query, before, given, kind or given.kind)])
    if kind is None:
        hold(connection, {query: found})
    return found


def append_first(connection: Connection, given: dict[int, Answer]) -> None:
    """Begin the histories of queries, by their numbers: these answers hold."""
    found = add(connection, ANSWERS, [_line(query, None, answer, answer.kind) for query, answer in given.items()])
    hold(connection, dict(zip(given, found, strict=True)))


def hold(connection: Connection, answers: dict[int, int]) -> None:
    """Let answers hold for queries, both by their numbers."""
    if answers:
        one = update(QUERIES).where(QUERIES.c.id == bindparam("query")).values(answer=bindparam("found"))
        connection.execute(one, [{"query": query, "found": found} for query, found in answers.items()])


def _line(query: int, before: int | None, given: Answer, kind: str) -> dict[str, Any]:
    return {
        "query": query, "kind": kind, "label": given.label, "annotator": given.annotator,
        "answered_at": given.answered_at or now(), "milliseconds": given.milliseconds, "source": given.source,
        "before": before,
    }  # fmt: skip
