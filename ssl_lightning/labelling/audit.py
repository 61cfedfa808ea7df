"""How good the labels are: agreement of those who label, second opinions, and a report; needs no torch."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ssl_lightning.engine.csv_files import read_table, write_csv
from ssl_lightning.engine.naming import meant
from ssl_lightning.labelling.records import Answer, Event, Kind, Query
from ssl_lightning.labelling.shown import see
from ssl_lightning.labelling.store import LabelStore

COLUMNS = ("path", "class", "shown", "text", "fingerprint")  # of a file of second opinions
READ = {"path": ("path", "key"), "class": ("class", "label"), "fingerprint": ("fingerprint",)}
REFUSALS: Mapping[str, Kind] = {"skip": "skip", "unsure": "unsure"}  # that a file may have where it names no class
DOUBTS = 20  # that a report shows

Sample = tuple[str, str]  # key and fingerprint


class Agreement(NamedTuple):
    """How far two annotators agree.

    Attributes:
        one: An annotator.
        other: Another.
        samples: How many both have labelled.
        agreement: Fraction of these that got the same class from both.
        kappa: The same, corrected for chance: 1 for all, 0 as by chance, below for less; null where it is undefined,
            since both named one class only.
    """

    one: str
    other: str
    samples: int
    agreement: float
    kappa: float | None


def standing(events: Iterable[Event]) -> dict[Sample, list[Event]]:
    """Return what was said of each sample and not taken back, second opinions included, the first first.

    Args:
        events: The history, in order.
    """
    found: dict[Sample, list[Event]] = {}
    for event in events:
        said = found.setdefault((event.key, event.fingerprint), [])
        if event.kind != "undo":
            said.append(event)
        elif places := [place for place, other in enumerate(said) if other.kind != "audit"]:
            del said[places[-1]]  # what holds is what is taken back, and that is what was said last
    return found


def kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    r"""Return Cohen's kappa, $(p_o - p_e) / (1 - p_e)$: agreement beyond that of two who guess.

    $p_o$ is the fraction of equal labels, and $p_e = \sum_k n_{1k} n_{2k} / N^2$ that expected if each named class k as
    often as they did, independently of the sample.

    Args:
        one: Labels, `(N,)`.
        other: Labels of the same samples, `(N,)`.

    Returns:
        At most 1; null where both name one class only, and without samples: there is nothing to agree on.

    Reference:
        J. Cohen, A Coefficient of Agreement for Nominal Scales, Educational and Psychological Measurement 20, 1960.

    Example:
        >>> kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
        0.5
    """
    total, equal = len(one), sum(a == b for a, b in zip(one, other, strict=True))
    often = Counter(other)
    by_chance = sum(count * often[name] for name, count in Counter(one).items())  # whole numbers, so 1 is exact
    if by_chance == total**2:
        return None
    return (equal * total - by_chance) / (total**2 - by_chance)


def agreement(events: Iterable[Event]) -> list[Agreement]:
    """Compare each two annotators over the samples that both have labelled, by what each said last.

    Args:
        events: The history, in order, as `LabelStore.history` gives it.

    Returns:
        By names; pairs without a common sample are left out.
    """
    labels: dict[str, dict[Sample, str]] = {}
    for sample, said in standing(events).items():
        for annotator, event in {event.annotator: event for event in said}.items():
            if event.label is not None:
                labels.setdefault(annotator, {})[sample] = event.label
    found = []
    for one, other in combinations(sorted(labels), 2):
        both = sorted(labels[one].keys() & labels[other].keys())
        if both:
            left, right = [labels[one][sample] for sample in both], [labels[other][sample] for sample in both]
            equal = sum(a == b for a, b in zip(left, right, strict=True))
            found.append(Agreement(one, other, len(both), equal / len(both), kappa(left, right)))
    return found


def draw(store: LabelStore, share: float, seed: int = 0, annotator: str | None = None) -> list[Query]:
    """Draw labelled samples for a second opinion, each by its own key.

    Whoever is drawn stays drawn: more labels, or a larger share, only add to them.

    Args:
        store: With the labels.
        share: Fraction to draw, above 0 and at most 1: of so many labels, about.
        seed: Of the draw.
        annotator: Who gives the second opinion: samples that they have given one of already are left out.

    Raises:
        ValueError: If the share is out of its range.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"`share={share}` must be above 0 and at most 1.")
    known = set()
    if annotator is not None:
        said = standing(store.history())
        known = {sample for sample, some in said.items() if any(event.annotator == annotator for event in some)}
    return [
        query
        for query in store.queries()
        if query.label is not None and (query.key, query.fingerprint) not in known and _chance(query.key, seed) < share
    ]


def _chance(key: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}/audit/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def export_opinions(
    store: LabelStore, path: Path, share: float, annotator: str, seed: int = 0, folder: Path | None = None
) -> int:
    """Write samples for a second opinion into a table, for somebody to fill in its column `class`.

    It does not tell what the first opinion was, or it would not be a second.

    Args:
        store: With the labels.
        path: CSV file to write.
        share: Fraction of the labels, as for `draw`.
        annotator: Who will fill it in.
        seed: Of the draw.
        folder: Of the run, to tell where its pictures and sounds are; null to leave that out.

    Returns:
        How many samples.
    """
    lines = []
    for query in draw(store, share, seed, annotator):
        sight = see(folder, query.key, query.fingerprint) if folder is not None else None
        line = {"path": query.key, "class": "", "fingerprint": query.fingerprint}
        if sight is not None:
            line |= {"shown": str(sight.media or ""), "text": sight.text or ""}
        lines.append(line)
    write_csv(path, COLUMNS, sorted(lines, key=lambda line: _chance(line["path"], seed)))
    return len(lines)


def import_opinions(store: LabelStore, path: Path, annotator: str) -> int:
    """Record the second opinions of a table that somebody has filled in; they change no label.

    Lines without a class are passed over, likewise what is recorded already: a file may be imported again.

    Args:
        store: Whose samples were exported.
        path: CSV file with the columns `path` and `class`, which is the name of one, `skip` or `unsure`; better with
            `fingerprint`, too, as it was exported.
        annotator: Who has filled it in.

    Returns:
        How many were recorded.

    Raises:
        ValueError: If the file cannot be read, a class is unknown, or a sample was never asked for. Then nothing is
            recorded.
    """
    names, latest = store.class_names(), _second_opinions(store, annotator)
    newest = {query.key: query.fingerprint for query in sorted(store.queries(), key=lambda query: query.id)}
    answers = []
    for number, cells in read_table(path, f"`{path}`", READ, ("path", "class")):
        key, label = cells["path"], cells["class"].strip()
        fingerprint = cells.get("fingerprint", newest.get(key, ""))
        if not label:
            continue
        kind = "class" if label in names else REFUSALS.get(label.casefold())
        if kind is None:
            raise ValueError(
                f"`{path}`, line {number}: `class={label}` is no class of this run{meant(label, names)}; they are "
                f"{', '.join(names)}, or `skip` or `unsure`."
            )
        given = label if kind == "class" else None
        if latest.get((key, fingerprint), "") != given:
            answers.append(Answer(key, given, annotator, kind, fingerprint, source="import"))
    store.record(answers, audit=True)
    return len(answers)


def _second_opinions(store: LabelStore, annotator: str) -> dict[Sample, str | None]:
    """Return the classes that somebody gave as second opinions, null where they gave none."""
    said = [event for event in store.history() if event.annotator == annotator and event.kind == "audit"]
    return {(event.key, event.fingerprint): event.label for event in said}


def report(store: LabelStore) -> list[str]:
    """Tell of a run's labels who gave them, how far they agree, what was corrected, and which are likely wrong.

    Args:
        store: With the labels.

    Returns:
        Lines of text.
    """
    events = store.history()
    said, pairs = standing(events), agreement(events)
    return [*_of_annotators(said), *_of_agreement(pairs), *_of_corrections(said), *_of_doubts(store)]


def _of_annotators(said: Mapping[Sample, list[Event]]) -> list[str]:
    by_name: dict[str, list[Event]] = {}
    for event in (event for some in said.values() for event in some):
        by_name.setdefault(event.annotator, []).append(event)
    lines = ["annotators:" if by_name else "annotators: none yet, nothing is labelled"]
    for name, some in sorted(by_name.items()):
        kinds = Counter(event.kind for event in some)
        counts = [f"{kinds['class']} labels"]
        counts += [f"{kinds[kind]} {word}" for kind, word in WORDS.items() if kinds[kind]]
        times = [event.milliseconds for event in some if event.milliseconds is not None]
        took = f"; median {median(times) / 1000:.1f} s each" if times else ""
        lines.append(f"  {name or '(no name)'}: {', '.join(counts)}{took}")
    return lines


WORDS = {"skip": "skipped", "unsure": "unsure", "audit": "second opinions"}


def _of_agreement(pairs: Sequence[Agreement]) -> list[str]:
    if not pairs:
        return ["agreement: no sample has labels of two annotators"]
    lines = ["agreement (Cohen's kappa: 1 for all, 0 as by chance):"]
    for pair in pairs:
        value = f"kappa {pair.kappa:.2f}" if pair.kappa is not None else "kappa undefined, both name one class only"
        lines.append(f"  {pair.one} and {pair.other}: {value}; {pair.agreement:.1%} of {pair.samples} samples equal")
    return lines


def _of_corrections(said: Mapping[Sample, list[Event]]) -> list[str]:
    labels = [[event.label for event in some if event.kind == "class"] for some in said.values()]
    changed = [some for some in labels if some and some[0] != some[-1]]
    return [f"corrected: {len(changed)} of {sum(map(bool, labels))} labels are not those that were given first"]


def _of_doubts(store: LabelStore) -> list[str]:
    found = [(number, record.doubts) for number, record in store.rounds().items() if record.doubts]
    if not found:
        return ["doubts: none"]
    number, doubts = found[-1]
    now = {(query.key, query.fingerprint): query.label for query in store.queries()}
    open_ = [doubt for doubt in doubts if now.get((doubt["key"], doubt["fingerprint"])) == doubt["label"]]
    gone = f", {len(doubts) - len(open_)} of them corrected since" if len(open_) < len(doubts) else ""
    lines = [f"doubts: {len(doubts)} labels that the model of round {number} finds likely wrong{gone}"]
    for doubt in open_[:DOUBTS]:
        rather = f"rather `{doubt['guess']}` ({doubt['confidence']:.0%})"
        lines.append(f"  {doubt['key']}: `{doubt['label']}`, {rather}")
    return [*lines, f"  and {len(open_) - DOUBTS} more"] if len(open_) > DOUBTS else lines
