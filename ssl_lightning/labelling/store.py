"""The label store: who labelled what, in which round, as one SQL database that survives being killed at any instant."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

INITIAL = -1  # the round of the labels a run begins with


class _Base(DeclarativeBase):
    pass


class _Setting(_Base):
    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class _Round(_Base):
    __tablename__ = "rounds"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    strategy: Mapped[str] = mapped_column(String(255))
    seed: Mapped[int]
    asked_at: Mapped[datetime]
    metrics: Mapped[Any] = mapped_column(JSON, nullable=True)
    state: Mapped[Any] = mapped_column(JSON, nullable=True)


class _Label(_Base):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(4096), index=True)
    fingerprint: Mapped[str] = mapped_column(String(128), default="")
    round: Mapped[int] = mapped_column(ForeignKey("rounds.number"))
    position: Mapped[int]
    label: Mapped[str | None] = mapped_column(String(1024))
    score: Mapped[float | None]
    annotator: Mapped[str | None] = mapped_column(String(255))
    answered_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("key", "fingerprint"),)


class Query(NamedTuple):
    """One sample that was asked for.

    Attributes:
        key: Of the sample.
        label: The name of its class, or null while the answer is pending.
        score: The strategy's, or null.
        round: After which it was asked; -1 for the initial labels.
        position: Rank within the round, 0 first.
        fingerprint: Of the sample's content when it was asked for; empty where the key stands for one content.
    """

    key: str
    label: str | None
    score: float | None = None
    round: int = INITIAL
    position: int = 0
    fingerprint: str = ""


class Round(NamedTuple):
    """What is known of a round.

    Attributes:
        strategy: That asked for labels; empty if the round asked for none.
        metrics: Once the round is finished.
        state: Of the strategy after it asked.
    """

    strategy: str
    metrics: dict[str, Any] | None
    state: dict[str, Any] | None = None


class LabelStore:
    """Rounds, labels in their order, pending queries and round metrics, in any database SQLAlchemy knows.

    Every change is one transaction: it is there whole, or not at all.

    Args:
        url: `sqlite:///path/labels.sqlite`, `postgresql://...`; without one, a database in memory.

    Raises:
        ValueError: If the database cannot be opened or written.

    Example:
        >>> store = LabelStore()
        >>> asked = [Query("b.png", label="cat"), Query("a.png", label="dog")]
        >>> store.add_round(INITIAL, "initial", seed=0, queries=asked, annotator="oracle")
        >>> [(query.key, query.label) for query in store.queries()]
        [('b.png', 'cat'), ('a.png', 'dog')]
    """

    def __init__(self, url: str = "sqlite://") -> None:
        self.url = url
        try:
            parsed = make_url(url)
            in_memory = self.in_memory = parsed.get_backend_name() == "sqlite" and parsed.database in (
                None,
                "",
                ":memory:",
            )
            if parsed.get_backend_name() == "sqlite" and not in_memory:
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            # one shared connection, or each would see a memory of its own
            self._engine = create_engine(url, poolclass=StaticPool) if in_memory else create_engine(url)
            if parsed.get_backend_name() == "sqlite":
                event.listen(self._engine, "connect", _sqlite_settings)
            known = inspect(self._engine).get_table_names()
            if "labels" in known:
                _require_keys({column["name"] for column in inspect(self._engine).get_columns("labels")}, url)
            with self._engine.begin() as connection:
                for table in _Base.metadata.sorted_tables:
                    if table.name in known:
                        continue
                    # another process may make it now: a run and its page start together
                    connection.execute(CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        connection.execute(CreateIndex(index, if_not_exists=True))
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise ValueError(
                f"`store={url}`: the label store cannot be opened: {_reason(error)}; give the URL of a database that "
                "can be written, as `sqlite:///FOLDER/labels.sqlite` or `postgresql://USER@HOST/NAME`."
            ) from error

    def _write(self, rows: Iterable[_Base]) -> None:
        try:
            with Session(self._engine) as session, session.begin():
                for row in rows:
                    if isinstance(row, _Label):
                        session.add(row)  # a sample is asked for once
                    else:
                        session.merge(row)
                    session.flush()  # rounds before the labels that refer to them
        except IntegrityError as error:
            raise self._asked_twice(_reason(error)) from error
        except SQLAlchemyError as error:
            raise ValueError(
                f"the label store `{self.url}` cannot be written: {_reason(error)}. What was committed before is safe; "
                "mend the cause (free space, rights, address) and give the same command again to go on."
            ) from error

    def _asked_twice(self, reason: str) -> ValueError:
        return ValueError(
            f"the label store `{self.url}` cannot be written: {reason}. What was committed before is safe; somebody "
            "else has asked meanwhile, as a second run in the same folder would. Let one of them end, then give the "
            "same command again to go on."
        )

    def add_round(
        self,
        number: int,
        strategy: str,
        seed: int,
        queries: Sequence[Query],
        annotator: str | None,
        state: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Commit a round's queries, answered or pending, in one transaction.

        Args:
            number: Of the round; -1 for the initial labels.
            strategy: That chose them.
            seed: Of the strategy's random draws in this round.
            queries: In the order they were chosen; their `round` and `position` are set here.
            annotator: Who answered.
            state: Of the strategy, to go on with; JSON values.
            settings: To note with it, as by `pin`.

        Raises:
            ValueError: If the round has asked before, a name is not UTF-8, or the database refuses, as for a sample
                asked before, or a full disk. Then nothing is changed.
        """
        require_text(key=[query.key for query in queries], label=[query.label for query in queries if query.label])
        now = datetime.now(UTC)
        known = self.rounds().get(number)
        if known is not None and known.strategy:
            raise self._asked_twice(f"`{known.strategy}` has asked in round {number} before")
        metrics = None if known is None else known.metrics
        rows: list[_Base] = [
            *(_Setting(key=key, value=value) for key, value in (settings or {}).items()),
            _Round(number=number, strategy=strategy, seed=seed, asked_at=now, metrics=metrics, state=state or None),
        ]
        for place, query in enumerate(queries):
            answered = query.label is not None
            rows.append(
                _Label(
                    key=query.key,
                    fingerprint=query.fingerprint,
                    round=number,
                    position=place,
                    label=query.label,
                    score=query.score,
                    annotator=annotator if answered else None,
                    answered_at=now if answered else None,
                )
            )
        self._write(rows)

    def answer(self, key: str, label: str, annotator: str, fingerprint: str | None = None) -> None:
        """Commit the answer to a pending query, or correct an earlier one.

        Args:
            key: Of the sample.
            label: The name of its class.
            annotator: Who answered.
            fingerprint: Of the content that was shown; null for the content asked for last.

        Raises:
            ValueError: If the sample was never asked for, or a name is not UTF-8.
        """
        require_text(label=[label])
        with Session(self._engine) as session, session.begin():
            wanted = select(_Label).where(_Label.key == key).order_by(_Label.id.desc())
            if fingerprint is not None:
                wanted = wanted.where(_Label.fingerprint == fingerprint)
            row = session.scalars(wanted).first()
            if row is None:
                raise ValueError(f"`key={key}` was never asked for; answer one of the pending queries.")
            row.label, row.annotator, row.answered_at = label, annotator, datetime.now(UTC)

    def queries(self) -> list[Query]:
        """Return all that was asked, in order of round and position."""
        with Session(self._engine) as session:
            rows = session.scalars(select(_Label).order_by(_Label.round, _Label.position))
            return [Query(r.key, r.label, r.score, r.round, r.position, r.fingerprint) for r in rows]

    def rounds(self) -> dict[int, Round]:
        """Return the rounds that asked or finished, in order."""
        with Session(self._engine) as session:
            rows = session.scalars(select(_Round).order_by(_Round.number))
            return {row.number: Round(row.strategy, row.metrics, row.state) for row in rows}

    def add_metrics(self, number: int, metrics: dict[str, Any]) -> None:
        """Commit a finished round's metrics.

        Args:
            number: Of the round.
            metrics: Numbers and strings.
        """
        with Session(self._engine) as session:
            row = session.get(_Round, number)
        if row is None:  # the last round asks for nothing
            row = _Round(number=number, strategy="", seed=0, asked_at=datetime.now(UTC))
        row.metrics = metrics
        self._write([row])

    def forget(self, annotator: str) -> None:
        """Remove the initial labels of a run that never trained a model, if one annotator gave them all.

        Args:
            annotator: A simulated one, who gives them again; what a person labelled is never removed.
        """
        with Session(self._engine) as session, session.begin():
            labels = list(session.scalars(select(_Label)))
            if labels and all(row.annotator == annotator and row.round == INITIAL for row in labels):
                for row in (*labels, *session.scalars(select(_Round))):
                    session.delete(row)
                    session.flush()

    def settings(self) -> dict[str, Any]:
        """Return what `pin` noted."""
        with Session(self._engine) as session:
            return {row.key: row.value for row in session.scalars(select(_Setting))}

    def pin(self, settings: dict[str, Any]) -> None:
        """Note the settings of a run whose first model has asked or is judged, beside those noted before.

        Args:
            settings: What must not change when the run goes on, JSON values.
        """
        self._write([_Setting(key=key, value=value) for key, value in settings.items()])

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
                    f"`{name}={new}` differs from `{name}={old}` of the run in `{self.url}`; give the same settings to "
                    "go on with it, or another `folder` for a new run."
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


def _first_difference(name: str, new: Any, old: Any) -> tuple[str, Any, Any]:
    """Find the innermost key in which two settings differ."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in dict.fromkeys((*new, *old)):
            if new.get(key) != old.get(key):
                return _first_difference(f"{name}.{key}", new.get(key), old.get(key))
    return name, new, old


def _sqlite_settings(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA busy_timeout=30000")  # ms; a reader and the run may meet


def _require_keys(columns: set[str], url: str) -> None:
    if "key" not in columns:
        raise ValueError(
            f"the label store `{url}` was made by an earlier version, whose labels belong to positions in a list and "
            "not to samples; begin a new run in another `folder`."
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)
