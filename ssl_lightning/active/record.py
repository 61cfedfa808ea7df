"""What a run writes into its folder: tables and pictures from the store, replaced as a whole, by the samples' keys."""

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from ssl_lightning.active.matching import listed
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.engine.csv_files import replacing, write_csv
from ssl_lightning.engine.loggers import log_picture, log_table
from ssl_lightning.engine.naming import class_path
from ssl_lightning.engine.processes import first_process
from ssl_lightning.labelling import INITIAL, LabelStore

SHOWN = 64  # samples of a query that are shown at most
CELL = 64  # px: side of a picture in a strip, unless all are smaller
READ_FILES, READ_BYTES = 2000, 64 * 2**20  # whose content is noted, so that a copied folder is none that was written


def finished_rows(store: LabelStore) -> list[dict[str, Any]]:
    """Return the metrics of the finished rounds, as in `rounds.csv`."""
    return [record.metrics for record in store.rounds().values() if record.metrics is not None]


class Record:
    """Writes what people and reports read of a run. The truth is the label store; all of this can be made again.

    Args:
        folder: Of the run.
        pool: Whose store and samples.
    """

    def __init__(self, folder: Path, pool: PoolDataModule) -> None:
        self.folder, self.pool = folder, pool

    def describe(self, strategy: Any) -> None:
        """Write what reports read of a run, unless the command line has written all of its config."""
        path = self.folder / "config.yaml"
        if path.exists():
            return
        config = {
            "seed_everything": self.pool.seed,
            "strategy": {"class_path": class_path(type(strategy)), "init_args": {"query_size": strategy.query_size}},
            "data": {"class_path": class_path(type(self.pool.data)), "init_args": {}},
            "model": {"init_args": {}},
        }
        with replacing(path) as file:
            yaml.safe_dump(config, file)

    def compare_samples(self) -> None:
        """Say which samples have come, gone or changed their part since the last call, and note those of now."""
        data, path = self.pool.data, self.folder / "samples.json"
        assert data.train_samples is not None
        val = set(data.val_indices.tolist())
        now = {key: "validation" if place in val else "training" for place, key in enumerate(data.train_samples.keys)}
        if data.test_samples is not None:
            now |= dict.fromkeys(data.test_samples.keys, "test")
        before: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
        changes = {
            "added": [key for key in now if key not in before],
            "removed": [key for key in before if key not in now],
            "moved to another part": [key for key in now if before.get(key, now[key]) != now[key]],
        }
        for what, keys in changes.items():
            if keys:
                names = ", ".join(f"`{key}`" for key in keys[:5]) + " ..." * (len(keys) > 5)
                rank_zero_warn(f"{len(keys)} samples were {what} since the run's last call: {names}.")
        with replacing(path) as file:
            file.write(json.dumps(now))  # of a million keys six times as fast as `dump`, which encodes in Python
        self._compare_files(now)

    def compare_classes(self) -> None:
        """Say which classes the data have lost since the last call, which people have labelled; in process 0."""
        if not first_process():
            return
        store, own = self.pool.store, list(self.pool.data.class_names)
        used = {query.label for query in store.queries()}
        if lost := [name for name in store.marked("class_names") or [] if name not in own and name in used]:
            names = ", ".join(f"`{name}`" for name in lost)
            rank_zero_warn(
                f"the data have no class {names} any more, and labels that people gave name it: they stay a class of "
                "that name. If the folder was renamed, name it back, or correct these labels (`ssl-lightning labels`)."
            )
        store.mark("class_names", own)

    def _compare_files(self, keys: Iterable[str]) -> None:
        """Say which samples' files were written since the last call; what was asked for is compared by content.

        Another size is another content. Where the time alone is another, the content decides, which is noted of so many
        files as are soon read. Of the others nobody knows it: where all files have other times, the folder was copied.
        """
        path = self.folder / "files.json"
        now: dict[str, list[Any]] = {}
        for key in keys:
            name = self.pool.data.path_of(key)
            if name is not None and os.path.exists(name):
                found = os.stat(name)
                now[key] = [found.st_size, found.st_mtime_ns]
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        there = [key for key in now if key in before]
        touched = [key for key in there if before[key][:2] != now[key]]
        self._note_contents(now, before)
        copied = len(touched) == len(there)
        if written := [key for key in touched if _was_written(before[key], now[key], not copied)]:
            rank_zero_warn(
                f"The files of {listed(written)} were written since the run's last call: same names, "
                "other size or time, so their content may have changed."
            )
        if now:
            with replacing(path) as file:
                json.dump(now, file)

    def _note_contents(self, now: dict[str, list[Any]], before: dict[str, list[Any]]) -> None:
        """Add a hash of the content to size and time of the first files; of those that are as before, it is known."""
        count, size = 0, 0
        for key in sorted(now, key=lambda key: len(before.get(key, ())) < 3):  # first those of which it was noted
            if count < READ_FILES and size + now[key][0] <= READ_BYTES:
                count, size = count + 1, size + now[key][0]
                same = before.get(key, [])[:2] == now[key] and len(before[key]) == 3
                content = before[key][2] if same else self._content(key)
                now[key] += [content] if content else []

    def _content(self, key: str) -> str:
        try:
            return self.pool.fingerprint(key)
        except ValueError:  # a file that cannot be read is told where it is decoded
            return ""

    def write(self, number: int) -> None:
        """Write tables, and what was asked for in a round.

        Args:
            number: Of the round.
        """
        self.write_tables()
        for which in (INITIAL, number):
            self.show(which)

    def write_tables(self) -> None:
        """Write `rounds.csv` and `queries.csv` from the store."""
        rows = finished_rows(self.pool.store)
        if rows:
            write_csv(self.folder / "rounds.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)
        there, asked = set(self.pool.keys), self.pool.store.rounds()
        lines = [
            {
                "round": query.round, "position": query.position, "key": query.key,
                "path": (self.pool.data.path_of(query.key) or "") if query.key in there else "",
                "class_name": query.label or "", "score": "" if query.score is None else query.score,
                # what tests or validates nobody chose
                "strategy": asked[query.round].strategy if query.part == "train" and query.round in asked else "",
            }
            for query in self.pool.store.queries()
        ]  # fmt: skip
        columns = ["round", "position", "key", "path", "class_name", "score", "strategy"]
        write_csv(self.folder / "queries.csv", columns, lines)

    def asked(self, number: int) -> list[tuple[str, str, float | None]]:
        """Return key, answer and score of what was asked after a round, in the order of choice."""
        return [
            (query.key, query.label or "", query.score) for query in self.pool.queries if query.round == number
        ]  # fmt: skip

    def strip(self, number: int) -> Path:
        """Return where the picture of a round's query is, if there is one."""
        return self.folder / "queries" / ("initial.png" if number == INITIAL else f"round_{number:03d}.png")

    def show(self, number: int) -> None:
        """Write what a person sees of a round's query, in the order of choice: a strip of pictures, or of texts.

        Pictures with captions make both.

        Args:
            number: Of the round; -1 for the initial labels.
        """
        there = set(self.pool.keys)
        keys = [query.key for query in self.pool.queries if query.round == number and query.key in there][:SHOWN]
        path = self.strip(number).with_suffix("")
        if not keys or path.with_suffix(".png").exists() or path.with_suffix(".json").exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = [self.pool.data.show(key) for key in keys]
        if all(item.kind == "image" for item in shown):
            _strip([item.content for item in shown if isinstance(item.content, bytes)]).save(path.with_suffix(".png"))
            if not any(item.caption for item in shown):
                return
        texts = [
            {
                "key": key,
                "kind": item.kind,
                "text": item.content if isinstance(item.content, str) else item.caption or "",
            }
            for key, item in zip(keys, shown, strict=True)
        ]
        with replacing(path.with_suffix(".json")) as file:
            json.dump(texts, file)


def _was_written(before: list[Any], now: list[Any], unknown: bool) -> bool:
    """Tell whether a file whose size or time is another has another content; `unknown` where no hash was noted."""
    if before[0] != now[0]:
        return True
    return before[2] != now[2] if len(before) == len(now) == 3 else unknown


def _strip(pictures: list[bytes]) -> Image.Image:
    """Put pictures side by side in square cells."""
    opened = [Image.open(io.BytesIO(content)).convert("RGB") for content in pictures]
    side = min(CELL, max(max(picture.size) for picture in opened))
    strip = Image.new("RGB", (side * len(opened), side), "white")
    for place, picture in enumerate(opened):
        picture.thumbnail((side, side))
        strip.paste(picture, (place * side + (side - picture.width) // 2, (side - picture.height) // 2))
    return strip


def log_round(loggers: Iterable[Logger], row: dict[str, Any], step: int, record: Record | None = None) -> None:
    """Log a round's metrics as `active/...`, on W&B against the number of labels, and what was asked.

    Args:
        loggers: Of the run.
        row: As in `rounds.csv`.
        step: Steps over all rounds.
        record: Of the run, whose pictures of queries are logged; null for none.
    """
    metrics = {f"active/{key}": value for key, value in row.items()}
    asked = [] if record is None or not first_process() else record.asked(int(row["round"]))
    for logger in loggers:
        if isinstance(logger, WandbLogger) and first_process():
            logger.experiment.define_metric("active/*", step_metric="active/labelled")
        logger.log_metrics(metrics, step=step)
        if asked and record is not None and (strip := record.strip(int(row["round"]))).is_file():
            words = ", ".join(str(label) for _, label, _ in asked[:SHOWN])
            log_picture(logger, strip, words, step, "active/query")
        logger.save()
    if asked:
        log_table(loggers, f"active/query_{int(row['round']):03d}", ["key", "label", "score"], asked)
