"""The table of `evaluate`: a CSV file that grows, and the same as Markdown."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ssl_lightning.engine.csv_files import locked, replacing, unescaped, write_csv

USUAL = ("knn", "linear", "finetune", "rank")  # what is done unless somebody says otherwise
PROTOCOLS = (*USUAL, "semi", "zeroshot", "retrieval")
SHARED = ("linear", "finetune", "semi")  # what is done for each fraction of the labels
KEY = ("settings", "protocol", "fraction", "metric", "seed")
COLUMNS = ("checkpoint", "data", *KEY[1:], "method", "backbone", "labels", "value", "seconds", "date", "settings")
METRICS = {"rankme": "RankMe", "lidar": "LiDAR"} | {
    f"{name}_{k}": f"{title} @{k}"
    for name, title in (("image_to_text", "image to text"), ("text_to_image", "text to image"), ("chance", "chance"))
    for k in (1, 5, 10)
}  # titles, in the order of the columns; others are called by their protocol

Result = dict[str, str]


def read(path: Path) -> list[Result]:
    """Return the results of a file; none where there is no file.

    A result has all of `COLUMNS`. `data` is a short name for the table; `settings` is the JSON, keys sorted, of
    `{"subject": the file or network, "data": the class and all options that matter, PROTOCOL: its options}`. What
    differs in a column of `KEY` is another result.

    Raises:
        ValueError: The file is no table of ours.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            results = list(reader)
            ours = set(reader.fieldnames or ()) == set(COLUMNS)
    except (UnicodeDecodeError, csv.Error):
        ours = False
    if not ours:
        raise ValueError(f"`results={path}` has other columns than ours; give another file.")
    return [{name: unescaped(line[name] or "") for name in COLUMNS} for line in results]


def write(path: Path, results: list[Result]) -> None:
    """Add results to a file, in place of those with the same key; other processes may do the same at the same time."""
    with locked(path):
        merged = {tuple(result[name] for name in KEY): result for result in [*read(path), *results]}
        write_csv(path, COLUMNS, merged.values())
        with replacing(path.with_suffix(".md")) as file:
            file.write(markdown(list(merged.values())))


def markdown(results: list[Result]) -> str:
    """Return one table: a line for each checkpoint and data set, a column for each protocol and fraction.

    Several seeds are one cell, mean ± standard deviation. Where two data sets share a short name, or two columns a
    protocol, the options that differ are added.
    """
    data = _distinct([(result["data"], json.dumps(_part(result, "data"))) for result in results])
    columns = _columns(results)
    cells: dict[tuple[str, ...], dict[tuple[Any, ...], list[float]]] = {}
    metrics: dict[tuple[Any, ...], str] = {}
    for result, where in zip(results, data, strict=True):
        column = _column(result)
        metrics[column] = result["metric"]
        line = cells.setdefault((result["checkpoint"], result["method"], result["backbone"], where), {})
        line.setdefault(column, []).append(float(result["value"]))
    table = [["checkpoint", "method", "backbone", "data", *columns.values()]]
    table.append(["---", "---", "---", "---", *("---:" for _ in columns)])
    for subject, line in cells.items():
        table.append([*subject, *(_cell(line.get(column, []), metrics[column]) for column in columns)])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table) + "\n"


def _part(result: Result, name: str) -> dict[str, Any]:
    part = json.loads(result["settings"] or "{}").get(name)
    return part if isinstance(part, dict) else {}


def _column(result: Result) -> tuple[Any, ...]:
    options = json.dumps(_part(result, result["protocol"]), sort_keys=True)
    place = [*METRICS, result["metric"]].index(result["metric"])
    return (PROTOCOLS.index(result["protocol"]), place, float(result["fraction"]), options)


def _columns(results: list[Result]) -> dict[tuple[Any, ...], str]:
    """Return the columns in their order, each with its title."""
    order = {_column(result): result for result in sorted(results, key=_column)}
    names = []
    for column, result in order.items():
        share = f" {100 * float(result['fraction']):g} %" if result["protocol"] in SHARED else ""
        name = METRICS.get(
            result["metric"], {"knn": "kNN", "zeroshot": "zero-shot"}.get(result["protocol"], result["protocol"])
        )
        names.append((name + share, column[-1]))
    return dict(zip(order, _distinct(names), strict=True))


def _distinct(named: list[tuple[str, str]]) -> list[str]:
    """Tell things of one name apart by those of their settings, JSON objects, that are not the same in all of them."""
    flat = [(name, _flat(json.loads(text))) for name, text in named]
    kinds: dict[str, list[dict[str, str]]] = {}
    for name, settings in flat:
        kinds.setdefault(name, []).append(settings)
    result = []
    for name, settings in flat:
        keys = dict.fromkeys(key for other in kinds[name] for key in other)
        differ = [key for key in keys if len({other.get(key) for other in kinds[name]}) > 1]
        words = ", ".join(f"{key.rpartition('.')[2]}={settings.get(key, 'default')}" for key in differ)
        result.append(f"{name} ({words})" if words else name)
    return result


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = "null" if value is None else str(value)
    return found


def _cell(values: list[float], metric: str) -> str:
    if not values:
        return ""
    scale = 1 if metric in ("rankme", "lidar") else 100
    spread = f" ± {scale * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{scale * fmean(values):.1f}{spread}"
