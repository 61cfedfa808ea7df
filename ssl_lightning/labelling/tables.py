"""The label store's tables, how a database is opened, and how an older one is brought up to date."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

VERSION = 2  # of the tables; 1 had one label a sample, and no history
PAUSES = (0.01, 0.05, 0.2, 1.0, None)  # seconds before the next try
LOCK = 0x55_1A_BE_15  # any number: of PostgreSQL's advisory lock

METADATA = MetaData()
MARKS = Table("marks", METADATA, Column("name", String(64), primary_key=True), Column("value", JSON))
SETTINGS = Table("settings", METADATA, Column("key", String(64), primary_key=True), Column("value", JSON))
CLASSES = Table(
    "classes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(1024), unique=True, nullable=False),
    Column("added_by", String(255)),
    Column("added_at", DateTime),
)
ROUNDS = Table(
    "rounds",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("strategy", String(255), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("asked_at", DateTime, nullable=False),
    Column("metrics", JSON),
    Column("state", JSON),
    Column("upto", Integer),  # the last answer that the round's model was trained on
    Column("closed", Boolean),  # whether the next round goes on without the answers that are pending
    Column("doubts", JSON),  # labels that are likely wrong, by the round's model
)
QUERIES = Table(
    "queries",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", String(4096), nullable=False, index=True),
    Column("fingerprint", String(128), nullable=False, default=""),
    Column("round", Integer, ForeignKey("rounds.number"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("part", String(16), nullable=False, default="train"),
    Column("score", Float),
    Column("guess", String(1024)),
    Column("confidence", Float),
    Column("neighbours", JSON),
    Column("answer", Integer, index=True),  # that holds now; null while pending
    UniqueConstraint("key", "fingerprint"),
)
ANSWERS = Table(
    "answers",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("query", Integer, ForeignKey("queries.id"), nullable=False),
    Column("kind", String(16), nullable=False),  # class, skip, unsure; undo; audit: a second opinion
    Column("label", String(1024)),
    Column("annotator", String(255), nullable=False),
    Column("answered_at", DateTime, nullable=False),
    Column("milliseconds", Integer),
    Column("source", String(64), nullable=False),
    Column("before", Integer),  # the answer that held until then
    Index("by_query", "query", "id"),
    Index("by_annotator", "annotator", "id"),
    sqlite_autoincrement=True,  # a number is never given twice
)
LEASES = Table(
    "leases",
    METADATA,
    Column("query", Integer, ForeignKey("queries.id"), primary_key=True, autoincrement=False),
    Column("holder", String(255), nullable=False, index=True),
    Column("until", Float, nullable=False),  # seconds since 1970
)


def now() -> datetime:
    """Return the time in UTC, as the tables have it: without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


class Database:
    """A label store's database: opened, of this version, written by one at a time.

    Args:
        url: As for `LabelStore`.

    Raises:
        ValueError: If it cannot be opened, or is of a newer version.
    """

    def __init__(self, url: str) -> None:
        self.url = self.named = url
        try:
            parsed = make_url(url)
            self.named = parsed.render_as_string(hide_password=True)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            self.in_memory = self.is_sqlite and parsed.database in (None, "", ":memory:")
            if self.is_sqlite and not self.in_memory:
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            # one shared connection, or each would see a memory of its own
            options: dict[str, Any] = {"poolclass": StaticPool} if self.in_memory else {}
            if self.in_memory:
                options["connect_args"] = {"check_same_thread": False}
            self.engine: Engine = create_engine(url, **options)
            if self.is_sqlite:
                event.listen(self.engine, "connect", _sqlite_settings)
            event.listen(self.engine, "begin", self._begin)
            self._update()
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise ValueError(
                f"`store={self.named}`: the label store cannot be opened: {reason(error)}; give the URL of a database "
                "that can be written, as `sqlite:///FOLDER/labels.sqlite`, or `postgresql+psycopg://USER@HOST/NAME` "
                "(which needs `pip install ssl-lightning[postgres]`)."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read, all of it at one moment.

        Raises:
            ValueError: If the database cannot be read.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise ValueError(
                f"the label store `{self.named}` cannot be read: {reason(error)}. Mend the cause (rights, address, a "
                "damaged file) and give the same command again."
            ) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write, as the only one, all of it or nothing.

        Raises:
            ValueError: If the database refuses, as on a full disk.
        """
        try:
            with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise ValueError(
                f"the label store `{self.named}` cannot be written: {reason(error)}. What was committed before is "
                "safe; mend the cause (free space, rights, address) and give the same command again to go on."
            ) from error

    def _begin(self, connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        if self.is_sqlite:
            # who reads first and writes later would be refused when two do so
            _patiently(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")
            if not writes:  # hold what is there from here on
                _patiently(connection, "SELECT name FROM sqlite_master LIMIT 1")
        elif writes and connection.dialect.name == "postgresql":
            # one writer at a time, so that answers become visible in the order of their numbers
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    def _update(self) -> None:
        """Make the tables, or bring those of an earlier version up to date, in one transaction."""
        with self.engine.begin() as connection:
            if _version(connection, self.named) == VERSION:
                return
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            version = _version(connection, self.named)  # another process may have been faster
            if version == VERSION:
                return
            if version == 1:
                _from_first(connection)
            else:
                METADATA.create_all(connection)
            connection.execute(insert(MARKS).values(name="version", value=VERSION))


def _version(connection: Connection, url: str) -> int:
    """Return the version of the tables that are there, 0 without any."""
    there = inspect(connection).get_table_names()
    if "marks" in there:
        found = connection.scalar(select(MARKS.c.value).where(MARKS.c.name == "version"))
        if found is not None and int(found) > VERSION:
            raise ValueError(
                f"the label store `{url}` is of version {found}, made by a newer ssl-lightning; this one reads up to "
                f"{VERSION}: upgrade it (`pip install --upgrade ssl-lightning`). Nothing was changed."
            )
        return int(found or 0)
    if "labels" not in there:
        return 0
    if "key" not in {column["name"] for column in inspect(connection).get_columns("labels")}:
        raise ValueError(
            f"the label store `{url}` was made by an earlier version, whose labels belong to positions in a list and "
            "not to samples; begin a new run in another `folder`."
        )
    return 1


def _from_first(connection: Connection) -> None:
    """Bring tables of version 1 up to date: each label becomes a query and its first answer."""
    for column in (ROUNDS.c.upto, ROUNDS.c.closed, ROUNDS.c.doubts):
        kind = column.type.compile(connection.dialect)
        connection.execute(text(f"ALTER TABLE rounds ADD COLUMN {column.name} {kind}"))
    METADATA.create_all(connection)
    old = Table("labels", MetaData(), autoload_with=connection)
    names: dict[str, None] = {}
    for row in connection.execute(select(old).order_by(old.c.id)).mappings().all():
        values = {name: row[name] for name in ("key", "fingerprint", "round", "position", "score")}
        (number,) = add(connection, QUERIES, [{**values, "part": "train"}])
        if row["label"] is None:
            continue
        names[row["label"]] = None
        given = {
            "query": number, "kind": "class", "label": row["label"], "annotator": row["annotator"] or "",
            "answered_at": row["answered_at"] or now(), "source": "version 1",
        }  # fmt: skip
        (found,) = add(connection, ANSWERS, [given])
        connection.execute(QUERIES.update().where(QUERIES.c.id == number).values(answer=found))
    if names:
        connection.execute(insert(CLASSES), [{"name": name, "added_at": now()} for name in names])
    old.drop(connection)


def add(connection: Connection, table: Any, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows that name the same columns, and return their numbers."""
    if not rows:
        return []
    return list(connection.scalars(insert(table).returning(table.c.id, sort_by_parameter_order=True), rows))


def _patiently(connection: Connection, statement: str) -> None:
    """Run a statement that changes nothing, again where SQLite was disturbed: two processes clean up after a third.

    When a process was killed while it wrote, the next ones undo its half of the work, and one of them may find the
    journal gone that it was about to read: that is told as an I/O error, and is none.
    """
    for pause in PAUSES:
        try:
            connection.exec_driver_sql(statement)
            return
        except OperationalError as error:
            name = str(getattr(error.orig, "sqlite_errorname", ""))
            if not name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) or pause is None:
                raise
            time.sleep(pause)


def _sqlite_settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so, and hold the making of tables, too
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA busy_timeout=30000")  # ms; a reader and the run may meet


def reason(error: Exception) -> str:
    """Return what a database said, without SQLAlchemy's own text."""
    return str(getattr(error, "orig", None) or error)
