"""The label store: who labelled what, in which round, as one SQL database that survives being killed at any instant."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from ssl_lightning.engine.naming import meant
from ssl_lightning.labelling import statements
from ssl_lightning.labelling.records import (
    INITIAL,
    Answer,
    Event,
    Given,
    Outcome,
    Query,
    require_class_name,
    require_text,
)
from ssl_lightning.labelling.run_store import RunStore
from ssl_lightning.labelling.tables import (
    ANSWERS,
    CLASSES,
    LEASES,
    QUERIES,
    ROUNDS,
    SETTINGS,
    add,
    now,
)

LONGEST_LEASE = 2 * 86_400  # seconds


class LabelStore(RunStore):
    """Rounds, queries and the history of their answers, in any database SQLAlchemy knows.

    Every change is one transaction: it is there whole, or not at all. Answers are only ever added; the last one of a
    sample holds, and an undone one gives way to that before it. Times are noted and never compared, but for leases.

    Args:
        url: `sqlite:///path/labels.sqlite`, `postgresql+psycopg://...`; without one, a database in memory.

    Raises:
        ValueError: If the database cannot be opened or written, or was made by a newer version.

    Example:
        >>> store = LabelStore()
        >>> asked = [Query("b.png", label="cat"), Query("a.png")]
        >>> store.add_round(INITIAL, "initial", seed=0, queries=asked, annotator="oracle")
        >>> store.answer("a.png", "cat", "me")
        >>> [(query.key, query.label) for query in store.queries()]
        [('b.png', 'cat'), ('a.png', 'cat')]
    """

    def __init__(self, url: str = "sqlite://") -> None:
        super().__init__(url)

    def add_round(
        self,
        number: int,
        strategy: str,
        seed: int,
        queries: Sequence[Query],
        annotator: str | None,
        state: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        doubts: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Commit a round's queries, answered or pending, in one transaction.

        Args:
            number: Of the round; -1 for the initial labels.
            strategy: That chose them.
            seed: Of the strategy's random draws in this round.
            queries: In the order they were chosen; their `round` and `position` are set here. Labels may name new
                classes.
            annotator: Who answered those that have an answer.
            state: Of the strategy, to go on with; JSON values.
            settings: To note with it, as by `pin`.
            doubts: Labels that the round's model finds likely wrong.

        Raises:
            ValueError: If the round has asked before, a name is not UTF-8, or the database refuses, as for a sample
                asked before, or a full disk. Then nothing is changed.
        """
        require_text(key=[query.key for query in queries], label=[query.label for query in queries if query.label])
        with self.writing() as connection:
            known = self.rounds(connection).get(number)
            if known is not None and known.strategy:
                raise self.asked_twice(f"`{known.strategy}` has asked in round {number} before")
            values = {"strategy": strategy, "seed": seed, "asked_at": now(), "state": state or None}
            values |= {"doubts": list(doubts) or None}
            statements.put(connection, ROUNDS, {"number": number}, values)
            for name, value in (settings or {}).items():
                statements.put(connection, SETTINGS, {"key": name}, {"value": value})
            statements.name_classes(connection, [query.label for query in queries if query.label], annotator)
            rows = [
                {
                    "key": query.key, "fingerprint": query.fingerprint, "round": number, "position": place,
                    "part": query.part, "score": query.score, "guess": query.guess, "confidence": query.confidence,
                    "neighbours": list(query.neighbours) or None,
                }
                for place, query in enumerate(queries)
            ]  # fmt: skip
            answers = {}
            for found, query in zip(add(connection, QUERIES, rows), queries, strict=True):
                kind = query.kind or ("class" if query.label is not None else None)
                if kind is not None:
                    answers[found] = Answer(query.key, query.label, annotator or "", kind, source="oracle")
            statements.append_first(connection, answers)

    def answer(self, key: str, label: str, annotator: str, fingerprint: str | None = None) -> None:
        """Commit the answer to a query, or correct an earlier one.

        Args:
            key: Of the sample.
            label: The name of its class.
            annotator: Who answered.
            fingerprint: Of the content that was shown; null for the content asked for last.

        Raises:
            ValueError: As for `record`.
        """
        self.record([Answer(key, label, annotator, fingerprint=fingerprint)])

    def record(self, given: Sequence[Answer], audit: bool = False, asks: bool = False) -> None:
        """Commit answers, all or none.

        Args:
            given: Each to a query, pending or answered before.
            audit: Whether they are second opinions, which are kept beside the labels and change none.
            asks: Whether samples that were never asked for join the initial ones, as where labels are imported.

        Raises:
            ValueError: If a sample was never asked for, a class is unknown, a name is not UTF-8, or the run is
                finished. Then nothing is changed.
        """
        for name in ("key", "label", "annotator"):
            require_text(**{name: [value for answer in given if (value := getattr(answer, name)) is not None]})
        with self.writing() as connection:
            if statements.mark(connection, "finished") and not audit:
                raise ValueError(
                    f"the run of `{self.named}` is finished, and its labels are those its model was trained on; give "
                    "`active` again with more `rounds` to go on with it."
                )
            known = statements.class_names(connection)
            for answer in given:
                known = self._check(connection, answer, known)
                row = statements.find(connection, answer.key, answer.fingerprint)
                if row is None and asks:
                    row = statements.ask(connection, answer)
                if row is None:
                    raise ValueError(f"`key={answer.key}` was never asked for; answer one of the pending queries.")
                statements.append(connection, row.id, row.answer, answer, "audit" if audit else None)

    def settle(self, groups: Sequence[Sequence[Given]]) -> list[list[Outcome] | ValueError]:
        """Commit what several people say, each group whole or not at all, but where others answered meanwhile.

        An answer that was given before, as by a program that did not hear of it, is not added again.

        Args:
            groups: Answers to queries by their numbers.

        Returns:
            For each group what holds now of its queries, or why nothing of it was changed.

        Raises:
            ValueError: If the database refuses. Then nothing at all is changed.
        """
        with self.writing() as connection:
            numbers = sorted({given.query for group in groups for given in group})
            found, known = statements.held(connection, numbers), statements.class_names(connection)
            over = bool(statements.mark(connection, "finished"))
            done: list[list[Outcome] | ValueError] = []
            for group in groups:
                before = dict(found), list(known)
                try:
                    with connection.begin_nested():
                        done.append([self._settle(connection, given, found, known, over) for given in group])
                except ValueError as error:
                    found, known = before
                    done.append(error)
        return done

    def _settle(
        self,
        connection: Connection,
        given: Given,
        found: dict[int, tuple[str, Outcome]],
        known: list[str],
        over: bool,
    ) -> Outcome:
        """Commit one answer, unless another one holds than was seen; note what holds now, and the classes."""
        answer, (key, now_held) = given.answer, found.get(given.query, ("", None))
        if now_held is None or key != answer.key:
            raise ValueError(f"`query={given.query}` of `key={answer.key}` was never asked; reload what is asked.")
        said, holds = answer[1:4], (now_held.label, now_held.annotator, now_held.kind)
        if now_held.answer != given.replaces:
            return now_held._replace(taken=said == holds)
        if over:
            raise ValueError(f"the run of `{self.named}` is finished and takes no more answers; export its labels.")
        require_text(annotator=[answer.annotator])
        known[:] = self._check(connection, answer, known)
        number = statements.append(connection, given.query, now_held.answer, answer)
        new = Outcome(given.query, True, number, answer.kind, answer.label, answer.annotator)
        found[given.query] = key, new
        return new

    def _check(self, connection: Connection, answer: Answer, known: list[str]) -> list[str]:
        """Refuse an answer that says nothing, or an unknown class; return the classes known with it."""
        if answer.kind not in ("class", "skip", "unsure") or (answer.kind == "class") != (answer.label is not None):
            raise ValueError(
                f"the answer to `key={answer.key}` has `kind={answer.kind}` and `label={answer.label}`; give a label "
                "for `class`, and none for `skip` and `unsure`."
            )
        if answer.label is None or answer.label in known:
            return known
        require_class_name(answer.label)
        if not answer.new_class:
            raise ValueError(
                f"`label={answer.label}` of `key={answer.key}` is no class of this run{meant(answer.label, known)}; "
                f"they are {', '.join(known) or 'none yet'}. Add it as a new class, or give one of them."
            )
        statements.name_classes(connection, [answer.label], answer.annotator)
        return [*known, answer.label]

    def undo(self, annotator: str, source: str = "python", answer: int | None = None) -> str | None:
        """Take back the last answer that somebody gave and that holds; the one before it holds again, if there was one.

        Args:
            annotator: Who takes it back, from those they gave.
            source: Where it came from.
            answer: Number of the answer to take back; null for the last.

        Returns:
            The sample's key, or null where there is nothing to undo.

        Raises:
            ValueError: If the run is finished.
        """
        with self.writing() as connection:
            if statements.mark(connection, "finished"):
                raise ValueError(f"the run of `{self.named}` is finished; its answers cannot be undone.")
            wanted = (
                select(QUERIES.c.id, QUERIES.c.key, ANSWERS.c.id.label("answer"), ANSWERS.c.before)
                .join(ANSWERS, QUERIES.c.answer == ANSWERS.c.id)
                .where(ANSWERS.c.annotator == annotator, *([] if answer is None else [ANSWERS.c.id == answer]))
                .order_by(ANSWERS.c.id.desc())
                .limit(1)
            )
            row = connection.execute(wanted).first()
            if row is None:
                return None
            given = {
                "query": row.id, "kind": "undo", "label": None, "annotator": annotator, "answered_at": now(),
                "source": source, "before": row.before,
            }  # fmt: skip
            connection.execute(insert(ANSWERS).values(**given))
            connection.execute(update(QUERIES).where(QUERIES.c.id == row.id).values(answer=row.before))
            return str(row.key)

    def claim(self, holder: str, count: int, seconds: float = 300) -> list[Query]:
        """Take pending queries, so that nobody else gets them; those held before are held longer. Newest round first.

        Args:
            holder: Who takes them: a browser's tab, a program.
            count: How many to hold; what was held beyond is given back.
            seconds: For how long; then they are free again.
        """
        with self.writing() as connection:
            time_now = time.time()
            over = or_(LEASES.c.until < time_now, LEASES.c.until > time_now + LONGEST_LEASE)  # the clock went back
            answered = LEASES.c.query.in_(select(QUERIES.c.id).where(QUERIES.c.answer.is_not(None)))
            connection.execute(delete(LEASES).where(or_(over, answered)))
            connection.execute(update(LEASES).where(LEASES.c.holder == holder).values(until=time_now + seconds))
            held = list(connection.scalars(select(LEASES.c.query).where(LEASES.c.holder == holder)))
            order = (QUERIES.c.round.desc(), QUERIES.c.position)
            if len(held) < count:
                free = select(QUERIES.c.id).where(QUERIES.c.answer.is_(None)).order_by(*order)
                free = free.where(QUERIES.c.id.not_in(select(LEASES.c.query))).limit(count - len(held))
                new = list(connection.scalars(free))
                if new:
                    rows = [{"query": number, "holder": holder, "until": time_now + seconds} for number in new]
                    connection.execute(insert(LEASES), rows)
                held += new
            wanted = statements.current().where(QUERIES.c.id.in_(held)).order_by(None).order_by(*order).limit(count)
            kept = [statements.as_query(row) for row in connection.execute(wanted)]
            if len(held) > count:
                beyond = LEASES.c.query.not_in([query.id for query in kept])
                connection.execute(delete(LEASES).where(LEASES.c.holder == holder, beyond))
            return kept

    def release(self, holder: str, after: float = 0) -> None:
        """Give back what somebody took and did not answer.

        Args:
            holder: Who took it.
            after: Seconds, in which they can still take it again, as a browser that loads its page anew.
        """
        held = LEASES.c.holder == holder
        with self.writing() as connection:
            until = update(LEASES).where(held).values(until=time.time() + after)
            connection.execute(until if after else delete(LEASES).where(held))

    def lease(self, holder: str, number: int, seconds: float = 300) -> None:
        """Take one query, as that whose answer was undone, if nobody has it.

        Args:
            holder: Who takes it.
            number: Of the query.
            seconds: For how long.
        """
        with self.writing() as connection:
            connection.execute(delete(LEASES).where(LEASES.c.query == number, LEASES.c.until < time.time()))
            if connection.scalar(select(LEASES.c.holder).where(LEASES.c.query == number)) is None:
                row = {"query": number, "holder": holder, "until": time.time() + seconds}
                connection.execute(insert(LEASES).values(**row))

    def queries(self, upto: int | None = None, where: Any = None) -> list[Query]:
        """Return all that was asked, in order of round and position, with the answers that hold.

        Args:
            upto: As they were after the answer of this number; null for now.
            where: Condition on the tables, for those that look for few.
        """
        wanted = statements.current(upto)
        with self.database.reading() as connection:
            return [
                statements.as_query(row) for row in connection.execute(wanted if where is None else wanted.where(where))
            ]

    def query(self, number: int) -> Query | None:
        """Return a query by its number in the store, or null."""
        found = self.queries(where=QUERIES.c.id == number)
        return found[0] if found else None

    def history(self, before: int | None = None, limit: int | None = None, key: str | None = None) -> list[Event]:
        """Return what was answered, corrected and undone, the first first.

        Args:
            before: Only what was said before the line of this number; null for all.
            limit: The last so many of these; null for all.
            key: Of one sample; null for all.
        """
        columns = (
            ANSWERS.c.id, QUERIES.c.key, QUERIES.c.fingerprint, QUERIES.c.round, ANSWERS.c.kind, ANSWERS.c.label,
            ANSWERS.c.annotator, ANSWERS.c.answered_at, ANSWERS.c.milliseconds, ANSWERS.c.source,
            func.coalesce(QUERIES.c.answer == ANSWERS.c.id, False).label("holds"), QUERIES.c.part,
            QUERIES.c.id.label("query"),
        )  # fmt: skip
        wanted = select(*columns).join(QUERIES, ANSWERS.c.query == QUERIES.c.id).order_by(ANSWERS.c.id.desc())
        if before is not None:
            wanted = wanted.where(ANSWERS.c.id < before)
        if key is not None:
            wanted = wanted.where(QUERIES.c.key == key)
        with self.database.reading() as connection:
            rows = connection.execute(wanted.limit(limit)).all()
        return [Event(*row)._replace(holds=bool(row.holds)) for row in reversed(rows)]

    def counts(self, number: int | None = None) -> dict[str, int]:
        """Return how many queries have which answer: `class`, `skip`, `unsure`, `pending`.

        Args:
            number: Of the round that asked; null for all.
        """
        kind = func.coalesce(ANSWERS.c.kind, "pending")
        wanted = select(kind, func.count()).select_from(statements.joined()).group_by(kind)
        if number is not None:
            wanted = wanted.where(QUERIES.c.round == number)
        with self.database.reading() as connection:
            found: dict[str, int] = dict(connection.execute(wanted).all())
        return {name: found.get(name, 0) for name in ("class", "skip", "unsure", "pending")}

    def class_counts(self) -> dict[str, int]:
        """Return how many samples are of which class, for the classes in the order they came."""
        wanted = select(CLASSES.c.name, func.count(QUERIES.c.id)).group_by(CLASSES.c.id).order_by(CLASSES.c.id)
        source = CLASSES.outerjoin(ANSWERS, ANSWERS.c.label == CLASSES.c.name)
        with self.database.reading() as connection:
            joined = source.outerjoin(QUERIES, QUERIES.c.answer == ANSWERS.c.id)
            rows = connection.execute(wanted.select_from(joined)).all()
        return {row[0]: row[1] for row in rows}

    def forget(self, annotator: str) -> None:
        """Remove the initial labels of a run that never trained a model, if one annotator gave them all.

        Args:
            annotator: A simulated one, who gives them again; what a person labelled is never removed.
        """
        with self.writing() as connection:
            asked = set(connection.scalars(select(QUERIES.c.round)))
            who = {(row.annotator, row.source) for row in connection.execute(select(ANSWERS))}
            pending = connection.scalar(select(func.count()).where(QUERIES.c.answer.is_(None)))
            if asked == {INITIAL} and who == {(annotator, "oracle")} and not pending:
                for table in (LEASES, ANSWERS, QUERIES, ROUNDS, CLASSES):
                    connection.execute(delete(table))
