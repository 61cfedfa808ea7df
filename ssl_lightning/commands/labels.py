"""The command `labels`: what people said of samples, out of a run's label store and into it."""

import argparse
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ssl_lightning.engine.csv_files import read_table, write_csv, write_lines
from ssl_lightning.engine.naming import meant
from ssl_lightning.experiments.runs import read_yaml
from ssl_lightning.labelling.audit import export_opinions, import_opinions, report
from ssl_lightning.labelling.records import Answer, Event, require_class_name
from ssl_lightning.labelling.store import LabelStore

LABELS = ("path", "class", "annotator", "time", "kind")
HISTORY = ("id", "path", "round", "kind", "class", "annotator", "time", "milliseconds", "source", "holds")
READ = {
    "path": ("key", "path", "file", "filename", "file_name", "filepath"),
    "class": ("class", "class_name", "label"),
    "annotator": ("annotator",),
    "time": ("time",),
    "kind": ("kind",),
}
LIMITS = {"path": 4096, "annotator": 255}  # of the store's columns
OF_FILES = ("ImageFolder", "AudioFolder")  # data whose keys are paths below their `root`
SOURCE = "import"  # what the history says of imported answers


class Row(NamedTuple):
    """A line of a table to be imported.

    Attributes:
        line: Its number in the file.
        key: Of the sample.
        kind: `class`, `skip` or `unsure`.
        label: The name of the class, or null.
        annotator: Who said so; empty where the cell is, null where there is no such column.
        time: When, in UTC without a zone, or null likewise.
    """

    line: int
    key: str
    kind: str
    label: str | None
    annotator: str | None
    time: datetime | None


def open_store(run: str, store: str | None) -> LabelStore:
    """Open the label store of a run that is there.

    Args:
        run: Folder of the run.
        store: URL of the store; null for `labels.sqlite` in the folder.

    Raises:
        ValueError: If there is none.
    """
    path: Path | None = Path(run) / "labels.sqlite"
    if store is not None:
        try:
            url = make_url(store)
        except ArgumentError as error:
            raise ValueError(f"`store={store}` is no URL, as `sqlite:///FOLDER/labels.sqlite`; mend it.") from error
        path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    if path is not None and not path.is_file():
        what = f"`store={store}`: there is no file {path}" if store else f"`run={run}` holds no labels.sqlite"
        raise ValueError(
            f"{what} ({path.absolute()}); give the folder of a run of `ssl-lightning active`, and `--store URL` where "
            "the run had one."
        )
    return LabelStore(store or f"sqlite:///{path}")


def holding(store: LabelStore) -> tuple[list[Event], int]:
    """Return the answers that hold, in the order they were given, and the number of those whose sample has changed.

    A sample that was asked for again with another content is told by its last content alone.
    """
    newest: dict[str, tuple[int, str]] = {}
    for query in store.queries():
        newest[query.key] = max(newest.get(query.key, (0, "")), (query.id, query.fingerprint))
    events = [event for event in store.history() if event.holds]
    kept = [event for event in events if newest[event.key][1] == event.fingerprint]
    return kept, len(events) - len(kept)


def export_labels(options: Any) -> int:
    """Write the answers that hold: path, class, annotator, time, kind."""
    events, changed = holding(open_store(options.run, options.store))
    _write(options.output, LABELS, [{name: _cells(event)[name] for name in LABELS} for event in events])
    if changed:
        print(f"left out {changed} answers to contents that their files no longer have", file=sys.stderr)
    return 0


def write_history(options: Any) -> int:
    """Write every answer that was ever given, the first first, corrections and all."""
    events = open_store(options.run, options.store).history()
    _write(options.output, HISTORY, [{name: _cells(event)[name] for name in HISTORY} for event in events])
    return 0


def _cells(event: Event) -> dict[str, Any]:
    return {
        "id": event.id, "path": event.key, "round": event.round, "kind": event.kind, "class": event.label,
        "annotator": event.annotator, "time": f"{event.answered_at.isoformat(timespec='microseconds')}Z",
        "milliseconds": event.milliseconds, "source": event.source, "holds": "true" if event.holds else "false",
    }  # fmt: skip


def _write(output: str | None, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    if output is not None:
        write_csv(Path(output), columns, lines)
        print(f"wrote {len(lines)} rows to {output}")
        return
    text = io.StringIO(newline="")
    write_lines(text, columns, lines)
    sys.stdout.flush()
    plain = getattr(sys.stdout, "buffer", None)  # a notebook's has none
    if plain is None:
        sys.stdout.write(text.getvalue())
    else:
        plain.write(text.getvalue().encode())  # UTF-8 whatever the terminal is, line ends as they are
        plain.flush()


def import_labels(options: Any) -> int:
    """Add the answers of a table to a run's, all or none; those that are there already are not added again."""
    store = open_store(options.run, options.store)
    shown = f"`table={options.table}`"
    rows, empty = read_rows(Path(options.table), shown)
    _require_classes(rows, store.class_names(), options.new_classes, shown)
    known: dict[str, list[Event]] = {}
    for event in store.history():
        known.setdefault(event.key, []).append(event)
    rows = [
        row._replace(annotator=options.annotator) if options.annotator and not row.annotator else row for row in rows
    ]
    new = [row for row in rows if not _is_there(row, known.get(row.key, ()))]
    asked = {query.key for query in store.queries()}
    _require_files(Path(options.run), [row.key for row in new if row.key not in asked], shown)
    if new:
        store.record([_answer(row) for row in new], asks=True)
    joining = len({row.key for row in new} - asked)
    print(
        f"answers added: {len(new)}, {joining} of them to samples that were never asked for, which join the initial "
        f"ones; there already: {len(rows) - len(new)}; rows without a class: {empty}"
    )
    return 0


def _require_files(run: Path, keys: Sequence[str], shown: str) -> None:
    """Refuse paths that are no files of the folder whose samples a run labels, where it is one and is there."""
    config = run / "config.yaml"
    data = (read_yaml(config).get("data") or {}) if config.is_file() else {}
    name = str(data.get("class_path", "")).rpartition(".")[2] if isinstance(data, dict) else ""
    root = Path(str((data.get("init_args") or {}).get("root", "")) or ".") if name in OF_FILES else None
    if root is None or not root.is_dir():
        return
    lost = [key for key in keys if not (root / key).is_file()]
    if lost:
        raise ValueError(
            f"{shown}: `path={lost[0]}`{f' and {len(lost) - 1} others are' if len(lost) > 1 else ' is'} no file of "
            f"`{root}`, whose samples the run labels; give paths as they are below that folder."
        )


def read_rows(path: Path, shown: str) -> tuple[list[Row], int]:
    """Read the answers of a table.

    Args:
        path: Of the CSV file, with the columns `path` and `class`, and perhaps `annotator`, `time` and `kind`.
        shown: Names it, for messages.

    Returns:
        The answers, and the number of lines that have none.

    Raises:
        ValueError: If the table cannot be read, a line is no answer, or two are of one sample and differ.
    """
    rows: list[Row] = []
    first: dict[str, Row] = {}
    lines = read_table(path, shown, READ, ["path", "class"])
    for number, cells in lines:
        try:
            row = _row(number, cells)
        except ValueError as error:
            raise ValueError(f"{shown}, line {number}: {error}") from error
        if row is None:
            continue
        other = first.setdefault(row.key, row)
        if (other.kind, other.label) != (row.kind, row.label):
            raise ValueError(
                f"{shown}, line {number}: `path={row.key}` is said to be `{row.label or row.kind}`, and "
                f"`{other.label or other.kind}` in line {other.line}; leave one of them."
            )
        rows.append(row)
    return rows, len(lines) - len(rows)


def _row(number: int, cells: Mapping[str, str]) -> Row | None:
    """Return a line's answer, or null where it has none.

    Raises:
        ValueError: If it is none, without the name of the file.
    """
    key, label = cells["path"], cells["class"] or None
    kind = cells.get("kind", "").strip() or ("class" if label else "")
    for name, longest in LIMITS.items():
        if len(cells.get(name, "")) > longest:
            raise ValueError(f"its {name} has more than {longest} characters; shorten it.")
    if not key:
        raise ValueError("it has no path; give the sample's, or remove the line.")
    if not kind:
        return None
    if kind not in ("class", "skip", "unsure") or (kind == "class") != (label is not None):
        raise ValueError(
            f"`kind={kind}` and `class={label or ''}` do not go together; give a class for `class`, and none for "
            "`skip` and `unsure`."
        )
    if label is not None:
        require_class_name(label)
    return Row(number, key, kind, label, cells.get("annotator"), _time(cells.get("time", "").strip()))


def _time(text: str) -> datetime | None:
    """Read a time, in UTC if it does not say otherwise.

    Raises:
        ValueError: If it is none.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo is not None else found
    except (ValueError, OverflowError):
        raise ValueError(
            f"`time={text}` is no time by ISO 8601, as 2026-01-31T12:00:00Z; mend it, or leave the cell empty for now."
        ) from None


def _require_classes(rows: Iterable[Row], known: Sequence[str], new_classes: bool, shown: str) -> None:
    """Refuse a class that the run does not know, as where it is misspelt, unless it knows none."""
    if new_classes or not known:
        return
    for row in rows:
        if row.label is not None and row.label not in known:
            raise ValueError(
                f"{shown}, line {row.line}: `class={row.label}` is no class of this run{meant(row.label, known)}; they "
                f"are {', '.join(known)}. Mend it, or add `--new_classes`. Nothing was changed."
            )


def _is_there(row: Row, events: Iterable[Event]) -> bool:
    """Tell whether a sample's history has an answer; one without a time is there if it is what holds."""
    same = [event for event in events if (event.kind, event.label) == (row.kind, row.label)]
    if row.time is None:
        return any(event.holds and row.annotator in (None, "", event.annotator) for event in same)
    return any(event.answered_at == row.time and row.annotator in (None, event.annotator) for event in same)


def _answer(row: Row) -> Answer:
    kind: Any = row.kind
    who = SOURCE if row.annotator is None else row.annotator
    return Answer(row.key, row.label, who, kind, source=SOURCE, new_class=True, answered_at=row.time)


def parser() -> argparse.ArgumentParser:
    """Return the command's options, those of each action by a parser of its own."""
    options = argparse.ArgumentParser(
        "ssl-lightning labels", allow_abbrev=False, description="The labels of an active run, as CSV tables."
    )
    actions = options.add_subparsers(metavar="ACTION", required=True)
    run = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    run.add_argument("run", help="folder of a run of `ssl-lightning active`, which holds labels.sqlite")
    run.add_argument("--store", metavar="URL", help="address of the label store, where the run was given one")
    output = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    output.add_argument("--output", metavar="FILE", help="file to write, ending in .csv; default: the terminal")
    for name, action, parents, what in (
        ("export", export_labels, [run, output], "write the labels that hold now: path, class, annotator, time, kind"),
        ("history", write_history, [run, output], "write every answer, correction and undoing, the first first"),
        ("import", import_labels, [run], "add the labels of a table to those of a run"),
    ):
        found = actions.add_parser(name, parents=parents, allow_abbrev=False, help=what, description=what)
        found.set_defaults(action=action)
        if name == "import":
            found.add_argument("table", help="CSV file with the columns path and class; annotator, time, kind if known")
            found.add_argument("--new_classes", action="store_true", help="take classes that the run does not know yet")
            who = f"who is noted where the table has no annotator; default: `{SOURCE}` where it has no such column"
            found.add_argument("--annotator", metavar="NAME", help=who)
    _add_audit(actions, run)
    return options


def _add_audit(actions: Any, run: argparse.ArgumentParser) -> None:
    what = "tell how far annotators agree and which labels are doubtful; write and read tables of second opinions"
    found = actions.add_parser("audit", parents=[run], allow_abbrev=False, help=what, description=what)
    found.set_defaults(action=audit)
    table = found.add_mutually_exclusive_group()
    meaning = "write a share of the labelled samples, without their labels, for somebody to fill in the column `class`"
    table.add_argument("--export", metavar="FILE", help=meaning)
    table.add_argument("--import", metavar="FILE", dest="filled", help="take over a table that was filled in")
    found.add_argument("--annotator", metavar="NAME", help="who gives the second opinions")
    found.add_argument(
        "--share", type=float, default=0.1, help="fraction of the labels that is seen again; default: 0.1"
    )
    found.add_argument("--seed", type=int, default=0, help="seed of the draw; default: 0")


def audit(options: argparse.Namespace) -> int:
    """Tell how good the labels are, or write or read a table of second opinions, which change no label.

    Args:
        options: The run, and the table.

    Raises:
        ValueError: If nobody is named who gives the opinions, or the table is none.
    """
    store = open_store(options.run, options.store)
    if options.export is None and options.filled is None:
        print("\n".join(report(store)))
        return 0
    if not options.annotator:
        raise ValueError("`--annotator` is missing: give the name of who looks at the samples again.")
    if options.export is not None:
        path = Path(options.export)
        count = export_opinions(store, path, options.share, options.annotator, options.seed, Path(options.run))
        print(f"wrote {count} samples to {path}: let {options.annotator} fill in the column `class`, then --import it")
        return 0
    print(f"{import_opinions(store, Path(options.filled), options.annotator)} second opinions were added")
    return 0


def main(arguments: list[str]) -> int:
    """Export labels, import them, or tell their history.

    Args:
        arguments: Of the command line: the action and its options.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, or a table that cannot be imported; then nothing is changed.
    """
    options = parser().parse_args(arguments)
    output = getattr(options, "output", None)
    if output is not None and Path(output).suffix != ".csv" and (Path(output).is_file() or not Path(output).exists()):
        raise ValueError(f"`output={output}` must end in .csv, for it becomes a table.")
    status: int = options.action(options)
    return status
