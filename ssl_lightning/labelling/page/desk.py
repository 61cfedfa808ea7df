"""What the labelling page does with a label store: one thread of its own that reads, and commits answers by groups."""

import asyncio
import json
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ssl_lightning.labelling.page.sights import Seen, sight_of
from ssl_lightning.labelling.records import INITIAL, Given, Outcome, Query, Round
from ssl_lightning.labelling.store import LabelStore
from ssl_lightning.labelling.tables import ANSWERS, QUERIES

Found = TypeVar("Found")
FRESH = 1.0  # seconds; what other processes write is seen so much later
SOON = 0.2  # seconds; what is written here
SCARCE = 20.0  # seconds for which everybody holds few samples, after somebody got none
RECENT = 20_000  # samples whose names are remembered, to find their pictures
SNIPPET = 300  # characters of a neighbour's or an old answer's text
REVIEWED = 200  # samples of a second look

Named = tuple[str, str, Sequence[tuple[str, str, str]]]  # key, fingerprint, neighbours


class _Waiting:
    """Answers of one request, and what became of them."""

    def __init__(self, given: Sequence[Given]) -> None:
        self.given = given
        self.outcome: list[Outcome] | Exception = []


class Media(NamedTuple):
    """A picture or sound that the page shows.

    Attributes:
        path: Of its file, within the run's folder.
        tag: That changes whenever the content of its address does.
    """

    path: Path
    tag: str


class Desk:
    """Answers the labelling page's questions.

    A database is written by one at a time, so that threads would only wait for each other: one does it all, and commits
    all answers that wait by then in one transaction.

    Args:
        folder: Of the run.
        store: Its labels.
        lease: Seconds for which a browser's tab holds what it was given.
    """

    def __init__(self, folder: Path, store: LabelStore, lease: float = 300) -> None:
        self._folder, self._store, self._lease = folder, store, lease
        self.run = blake2b(f"{folder.resolve()}\0{store.url}".encode(errors="replace"), digest_size=8).hexdigest()
        self._nonce = secrets.token_hex(8)
        self._thread = ThreadPoolExecutor(1, "labels")
        self._waiting: deque[_Waiting] = deque()
        self._names: dict[int, Named] = {}
        self._sights: dict[tuple[str, str], Seen] = {}
        self._state: dict[str, Any] = {}
        self._seen_at = self._scarce_until = float("-inf")

    async def _do(self, what: Callable[..., Found], *given: Any) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what, *given)

    async def state(self) -> dict[str, Any]:
        """Return what the page shows beside the samples: classes, counts, round."""
        found = await self._do(self._look)
        return {**found, "scarce": time.monotonic() < self._scarce_until}

    def _look(self) -> dict[str, Any]:
        if time.monotonic() - self._seen_at < FRESH:
            return self._state
        store, now = self._store, time.monotonic()
        rounds = store.rounds()
        asked = [number for number, record in rounds.items() if record.strategy]
        newest = max(asked, default=None)
        self._state = {
            "run": self.run, "name": self._folder.resolve().name, "finished": store.finished, "lease": self._lease,
            "round": newest, "strategy": "" if newest is None else rounds[newest].strategy,
            "closed": newest is not None and rounds[newest].closed,
            "classes": [{"name": name, "count": count} for name, count in store.class_counts().items()],
            "counts": store.counts(), "round_counts": {} if newest is None else store.counts(newest),
            "doubts": len(_newest_doubts(rounds)[0]),
        }  # fmt: skip
        self._seen_at = now
        return self._state

    def _changed(self) -> None:
        # not at once: with twenty people, the counts of ten thousand queries would be all that the thread does
        self._seen_at = min(self._seen_at, time.monotonic() + SOON - FRESH)

    async def take(self, session: str, count: int) -> list[dict[str, Any]]:
        """Give a browser's tab samples to label; it keeps those it has.

        Args:
            session: The tab.
            count: How many it wants to hold.
        """

        def work() -> list[dict[str, Any]]:
            if self._store.finished:
                return []
            rounds, queries = self._store.rounds(), self._store.claim(session, count, self._lease)
            if not queries and self._look()["counts"]["pending"]:  # the others have all: they may hold less
                self._scarce_until = time.monotonic() + SCARCE
            return [self._item(query, rounds) for query in queries]

        return await self._do(work)

    async def release(self, session: str, after: float) -> None:
        """Let others have what a tab holds, unless it asks again within some seconds."""
        await self._do(self._store.release, session, after)

    async def answer(self, given: Sequence[Given]) -> list[Outcome]:
        """Commit answers, together with those that others give at the same moment; return when they are safe.

        Raises:
            ValueError: If one cannot be; then none of them is committed.
        """
        waiting = _Waiting(given)
        self._waiting.append(waiting)
        await self._do(self._commit)
        if isinstance(waiting.outcome, Exception):
            raise waiting.outcome
        return waiting.outcome

    def _commit(self) -> None:
        some: list[_Waiting] = []
        while self._waiting:
            some.append(self._waiting.popleft())
        if not some:  # an earlier one has taken ours along
            return
        self._changed()
        try:
            for waiting, outcome in zip(some, self._store.settle([one.given for one in some]), strict=True):
                waiting.outcome = outcome
        except Exception as error:  # each of them has to hear of it
            for waiting in some:
                waiting.outcome = error

    async def undo(self, session: str, annotator: str, answers: Sequence[int]) -> list[dict[str, Any]]:
        """Take answers back, and give their samples to a tab again.

        Args:
            session: The tab.
            annotator: Who gave them.
            answers: Their numbers, the last first; none for the last that the annotator gave.

        Returns:
            The samples; with their `answer` where an earlier one holds again.
        """

        def work() -> list[dict[str, Any]]:
            self._changed()
            rounds, found = self._store.rounds(), []
            numbers: list[int | None] = [*answers] or [None]
            for number in numbers:
                key = self._store.undo(annotator, "page", number)
                if key is None:
                    continue
                last = self._store.history(limit=1, key=key)[-1]
                query = self._store.query(last.query)
                assert query is not None
                if query.kind is None:
                    self._store.lease(session, query.id, self._lease)
                found.append(self._item(query, rounds))
            return found

        return await self._do(work)

    async def close(self, number: int) -> None:
        """Let the run go on without the answers that are pending.

        Raises:
            ValueError: If another round is the newest.
        """

        def work() -> None:
            self._changed()
            rounds = self._store.rounds()
            newest = max((known for known, record in rounds.items() if record.strategy), default=None)
            if number != newest:
                raise ValueError(f"`round={number}` is not the newest, which is {newest}; look at the page again.")
            self._store.close(number)
            self._changed()

        await self._do(work)

    async def history(self, before: int | None, limit: int) -> list[dict[str, Any]]:
        """Return the last answers, the newest first.

        Args:
            before: Only what was said before this line; null for the last.
            limit: How many.
        """

        def work() -> list[dict[str, Any]]:
            found = []
            for event in reversed(self._store.history(before, limit)):
                self._remember(event.query, (event.key, event.fingerprint, ()))
                seen = self._seen(event.key, event.fingerprint, f"/media/{event.query}")
                line = event._asdict() | {"answered_at": event.answered_at.isoformat(timespec="seconds") + "Z"}
                found.append(line | {"media": seen.media, "sight": seen.kind, "text": _snippet(seen)})
            return found

        return await self._do(work)

    async def item(self, number: int) -> dict[str, Any] | None:
        """Return one sample, with its answer, or null if there is none of this number."""

        def work() -> dict[str, Any] | None:
            query = self._store.query(number)
            return None if query is None else self._item(query, self._store.rounds())

        return await self._do(work)

    async def review(self, which: str) -> list[dict[str, Any]]:
        """Return samples that deserve a second look, each with its answer.

        Args:
            which: `unsure`, `skip`: those so answered; `doubts`: whose label the newest model finds likely wrong, but
                for those that somebody answered since.
        """

        def work() -> list[dict[str, Any]]:
            rounds = self._store.rounds()
            if which != "doubts":
                some = self._store.queries(where=ANSWERS.c.kind == which)[-REVIEWED:]
                return [self._item(query, rounds) for query in some]
            doubts, upto = _newest_doubts(rounds)
            known: dict[tuple[str, str], Query] = {}
            for start in range(0, len(doubts), 500):
                keys = [doubt["key"] for doubt in doubts[start : start + 500]]
                found = self._store.queries(where=QUERIES.c.key.in_(keys))
                known |= {(query.key, query.fingerprint): query for query in found}
            items: list[dict[str, Any]] = []
            for doubt in doubts:
                query = known.get((doubt["key"], doubt.get("fingerprint", "")))
                open_ = query is not None and query.label == doubt["label"] and (query.answer or 0) <= upto
                if query is not None and open_ and len(items) < REVIEWED:
                    guess, confidence = doubt.get("guess"), doubt.get("confidence")
                    items.append(self._item(query._replace(guess=guess, confidence=confidence), rounds))
            return items

        return await self._do(work)

    async def media(self, number: int, neighbour: int | None = None, tag: str | None = None) -> Media | None:
        """Find the picture or sound of a query, or of a neighbour of it.

        Args:
            number: Of the query.
            neighbour: Its place, 0 the nearest; null for the query itself.
            tag: That the file should have; null for any.

        Returns:
            Null where there is none.
        """
        for fresh in (False, True):  # a name that was remembered may be that of another sample by now
            name = None if fresh else self._names.get(number)
            if name is None or (neighbour is not None and neighbour >= len(name[2])):
                name = await self._do(self._name, number)
            if name is None or (neighbour is not None and neighbour >= len(name[2])):
                return None
            key, fingerprint = name[:2] if neighbour is None else name[2][neighbour][:2]
            path = sight_of(self._folder, key, fingerprint, "").path
            found = self._tag(key, fingerprint)
            if path is not None and tag in (None, found):
                return Media(path, found)
        return None

    def _name(self, number: int) -> Named | None:
        query = self._store.query(number)
        if query is None:
            return None
        return self._remember(number, (query.key, query.fingerprint, query.neighbours))

    def _remember(self, number: int, name: Named) -> Named:
        _bounded(self._names)[number] = name
        return name

    def _tag(self, key: str, fingerprint: str) -> str:
        """Return what tells a file from that which another run, or a later one, has at the same address."""
        return blake2b(f"{self._nonce}\0{self.run}\0{key}\0{fingerprint}".encode(), digest_size=8).hexdigest()

    def _seen(self, key: str, fingerprint: str, url: str) -> Seen:
        found = self._sights.get((key, fingerprint))
        if found is None:
            found = sight_of(self._folder, key, fingerprint, "")
            if found.kind in ("image", "audio"):  # once kept they stay; whether a file may be sent is asked again
                _bounded(self._sights)[key, fingerprint] = found
        if found.media is None:
            return found
        return found._replace(media=f"{url}?v={self._tag(key, fingerprint)}")

    def _item(self, query: Query, rounds: dict[int, Round]) -> dict[str, Any]:
        """Return a sample as the page shows it."""
        self._remember(query.id, (query.key, query.fingerprint, query.neighbours))
        seen = self._seen(query.key, query.fingerprint, f"/media/{query.id}")
        near = []
        for place, (key, fingerprint, label) in enumerate(query.neighbours):
            other = self._seen(key, fingerprint, f"/neighbour/{query.id}/{place}")
            near.append({"label": label, "media": other.media, "kind": other.kind, "text": _snippet(other)})
        strategy = rounds[query.round].strategy if query.round in rounds else ""
        answer = None
        if query.kind is not None:
            answer = {"id": query.answer, "kind": query.kind, "label": query.label}
        return {
            "id": query.id, "key": query.key, **seen.shown(), "score": _finite(query.score), "strategy": strategy,
            "round": query.round, "position": query.position, "part": query.part, "guess": query.guess,
            "confidence": _finite(query.confidence), "neighbours": near, "why": why(query, strategy), "answer": answer,
        }  # fmt: skip


def why(query: Query, strategy: str) -> str:
    """Say why a sample was asked for.

    Args:
        query: The sample.
        strategy: Of its round.

    Example:
        >>> why(Query("a.png", score=0.6931, round=2, position=4), "Entropy")
        'Entropy chose it in round 2, as number 5: score 0.693'
        >>> why(Query("a.png", part="test"), "Entropy")
        'drawn at random to judge the model: it is not trained on'
    """
    if query.part != "train":
        return "drawn at random to judge the model: it is not trained on"
    if query.round == INITIAL:
        return "one of the labels to begin with"
    score = "" if query.score is None else f": score {query.score:.3g}"
    return f"{strategy} chose it in round {query.round}, as number {query.position + 1}{score}"


def _bounded(known: dict[Any, Any]) -> dict[Any, Any]:
    """Make room for one more; what came first goes first."""
    if len(known) >= RECENT:
        del known[next(iter(known))]
    return known


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None  # JSON has no infinity


def _snippet(seen: Seen) -> str | None:
    text = json.dumps(seen.row, ensure_ascii=False)[1:-1] if seen.row is not None else seen.text or seen.caption
    return text if text is None or len(text) <= SNIPPET else f"{text[:SNIPPET]}..."


def _newest_doubts(rounds: dict[int, Round]) -> tuple[Sequence[dict[str, Any]], int]:
    """Return the newest model's doubts, and the number of the last answer that it knew."""
    for number in sorted(rounds, reverse=True):
        if rounds[number].doubts:
            upto = rounds[number].upto
            return rounds[number].doubts, 2**63 if upto is None else upto
    return [], 0
