"""What is known of a run: its rounds, its classes, its settings; in the database that holds its labels."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ssl_lightning.labelling import statements
from ssl_lightning.labelling.records import Round, require_text
from ssl_lightning.labelling.tables import ANSWERS, MARKS, ROUNDS, SETTINGS, Database, now, reason


class RunStore:
    """Rounds, classes and settings of a run, in any database SQLAlchemy knows.

    Args:
        url: As for `LabelStore`.

    Attributes:
        url: As it was given.
        named: The same without a password, for messages.
        in_memory: Whether it ends with this process.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.url, self.named, self.in_memory = url, self.database.named, self.database.in_memory

    def rounds(self, connection: Connection | None = None) -> dict[int, Round]:
        """Return the rounds that began, asked or finished, in order."""
        if connection is None:
            with self.database.reading() as found:
                return self.rounds(found)
        rows = connection.execute(select(ROUNDS).order_by(ROUNDS.c.number))
        return {
            row.number: Round(row.strategy, row.metrics, row.state, row.upto, bool(row.closed), row.doubts or ())
            for row in rows
        }

    def begin(self, number: int) -> int:
        """Note which answers a round's model is trained on: those that are there now, or were when it began before.

        Args:
            number: Of the round.

        Returns:
            The number of the last answer that counts.
        """
        with self.writing() as connection:
            known = self.rounds(connection).get(number)
            if known is not None and known.upto is not None:
                return known.upto
            upto = connection.scalar(select(func.max(ANSWERS.c.id))) or 0
            new = {"strategy": "", "seed": 0, "asked_at": now()} if known is None else {}
            statements.put(connection, ROUNDS, {"number": number}, {**new, "upto": upto})
            return int(upto)

    def close(self, number: int) -> None:
        """Let the next round go on without the answers that are pending: they count in the round after they come.

        Args:
            number: Of the round that asked.

        Raises:
            ValueError: If it never asked.
        """
        with self.writing() as connection:
            known = self.rounds(connection).get(number)
            if known is None or not known.strategy:
                raise ValueError(f"round {number} has asked for nothing, so there is nothing to go on from.")
            connection.execute(update(ROUNDS).where(ROUNDS.c.number == number).values(closed=True))

    def add_metrics(self, number: int, metrics: dict[str, Any]) -> None:
        """Commit a finished round's metrics.

        Args:
            number: Of the round.
            metrics: Numbers and strings.
        """
        with self.writing() as connection:
            if number not in self.rounds(connection):  # the last round asks for nothing
                values = {"number": number, "strategy": "", "seed": 0, "asked_at": now()}
                connection.execute(insert(ROUNDS).values(**values))
            connection.execute(update(ROUNDS).where(ROUNDS.c.number == number).values(metrics=metrics))

    def marked(self, name: str) -> Any:
        """Return what `mark` noted; null where it noted nothing."""
        with self.database.reading() as connection:
            return statements.mark(connection, name)

    def mark(self, name: str, value: Any) -> None:
        """Note something of the run, a JSON value, in place of what was noted before.

        Args:
            name: Of what is noted.
            value: To note.
        """
        if self.marked(name) != value:
            with self.writing() as connection:
                statements.put(connection, MARKS, {"name": name}, {"value": value})

    def finish(self, finished: bool = True) -> None:
        """Note that a run is finished and takes no more answers, or that it goes on after all."""
        with self.database.reading() as connection:
            if bool(statements.mark(connection, "finished")) == finished:
                return
        with self.writing() as connection:
            statements.put(connection, MARKS, {"name": "finished"}, {"value": finished})

    @property
    def finished(self) -> bool:
        """Whether the run takes no more answers."""
        with self.database.reading() as connection:
            return bool(statements.mark(connection, "finished"))

    def settings(self) -> dict[str, Any]:
        """Return what `pin` noted."""
        with self.database.reading() as connection:
            return {row.key: row.value for row in connection.execute(select(SETTINGS))}

    def pin(self, settings: dict[str, Any]) -> None:
        """Note the settings of a run whose first model has asked or is judged, beside those noted before.

        Args:
            settings: What must not change when the run goes on, JSON values.
        """
        with self.writing() as connection:
            for name, value in settings.items():
                statements.put(connection, SETTINGS, {"key": name}, {"value": value})

    def require_settings(self, settings: dict[str, Any]) -> None:
        """Check that settings are those noted before, if any were.

        Args:
            settings: As for `pin`.

        Raises:
            ValueError: If one has changed; names it and both values.
        """
        known = self.settings()
        given = json.loads(json.dumps(settings))
        for key in given:
            if key in known and known[key] != given[key]:
                name, new, old = _first_difference(key, given[key], known[key])
                raise ValueError(
                    f"`{name}={new}` differs from `{name}={old}` of the run in `{self.named}`; give the same settings "
                    "to go on with it, or another `folder` for a new run."
                )

    def class_names(self) -> list[str]:
        """Return the classes that somebody named, in the order they came."""
        with self.database.reading() as connection:
            return statements.class_names(connection)

    def add_classes(self, names: Iterable[str], annotator: str | None = None) -> None:
        """Name classes, those that are known among them, as data have them: a folder's name may end in a space.

        Raises:
            ValueError: If one is not UTF-8.
        """
        names = list(names)
        require_text(label=names)
        if set(names) - set(self.class_names()):
            with self.writing() as connection:
                statements.name_classes(connection, names, annotator)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write, as the only one, all of it or nothing.

        Raises:
            ValueError: If the database refuses; says so where somebody else has asked meanwhile.
        """
        try:
            with self.database.writing() as connection:
                yield connection
        except ValueError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise self.asked_twice(reason(error.__cause__)) from error
            raise

    def asked_twice(self, why: str) -> ValueError:
        """Return the error of a run that asks where another one has asked."""
        return ValueError(
            f"the label store `{self.named}` cannot be written: {why}. What was committed before is safe; somebody "
            "else has asked meanwhile, as a second run in the same folder would. Let one of them end, then give the "
            "same command again to go on."
        )


def _first_difference(name: str, new: Any, old: Any) -> tuple[str, Any, Any]:
    """Find the innermost key in which two settings differ."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in dict.fromkeys((*new, *old)):
            if new.get(key) != old.get(key):
                return _first_difference(f"{name}.{key}", new.get(key), old.get(key))
    return name, new, old
