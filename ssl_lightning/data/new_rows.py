"""New rows to predict, read by what a checkpoint knows of the columns."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from ssl_lightning.data.columns import SUFFIXES, Wanted, read_columns
from ssl_lightning.data.samples import Part, TensorSamples, number_copies
from ssl_lightning.data.schema import Schema, schema_of, without_gaps
from ssl_lightning.data.vectors import MappedVectors, NamedRows, read_rows, require_keys
from ssl_lightning.engine.processes import first_process


def rows_to_predict(source: str, facts: dict[str, Any]) -> Part:
    """Read a table, or vectors, in the file's order.

    Where the checkpoint knows the names of the columns, they are found by name in a table, in whatever order; columns
    that it does not know are passed over.

    Args:
        source: File `.csv`, `.parquet` or `.npy`.
        facts: Of the data that the checkpoint was trained on.

    Raises:
        ValueError: If the file cannot be read, or its rows are others than the checkpoint takes.
    """
    schema = schema_of(facts)
    if schema is not None and Path(source).suffix.lower() in SUFFIXES:
        return _by_names(source, schema)
    if schema is not None and schema.categories:
        raise ValueError(
            f"`source={source}` must be a table, {' or '.join(SUFFIXES)}: the checkpoint takes the categories "
            f"{', '.join(f'`{name}`' for name in list(schema.categories)[:8])}, which go by their names."
        )
    table = _named_rows(source)
    if table.rows.shape[1] != facts["feature_dim"]:
        raise ValueError(
            f"`source={source}` has rows of {table.rows.shape[1]} numbers, and the checkpoint takes "
            f"{facts['feature_dim']}; give embeddings of the same model."
        )
    count = len(table.places)
    vectors = MappedVectors(table.rows, table.places, torch.full((count,), -1), table.keys)
    return Part("", vectors, [""] * count, table.labels, nn.Identity())


def _by_names(source: str, schema: Schema) -> Part:
    shown = f"`source={source}`"
    categories = list(schema.categories)
    perhaps = [name for name in (schema.key or "key", schema.label or "class") if name not in schema.numbers]
    wanted = Wanted(categories, perhaps, (), schema.numbers)
    columns = without_gaps(read_columns(source, shown, wanted), categories, schema.missing, shown, "missing=skip")
    inputs = schema.code(columns, shown)
    count = len(columns.places)
    keys = columns.words.get(schema.key or "key")
    if keys is None:
        keys = number_copies(columns.contents(categories))
    else:
        require_keys(shown, keys)
    labels = columns.words.get(schema.label or "class", [""] * count)
    return Part("", TensorSamples(inputs, torch.full((count,), -1), keys), [""] * count, labels, nn.Identity())


def _named_rows(source: str) -> NamedRows:
    """Read vectors, and the table of the same name beside them, if there is one."""
    beside = Path(source).with_suffix(".csv")
    if not beside.is_file() or Path(source).suffix.lower() in SUFFIXES:
        return read_rows("source", source)
    try:
        table = read_rows("source", source, "table", str(beside))
    except ValueError as error:
        table = read_rows("source", source)  # says what is wrong with the vectors themselves
        rank_zero_warn(f"`{beside}` is passed over, and rows are named by their content: {error}")
        return table
    if first_process():
        print(f"keys and classes of the rows: {beside}", flush=True)
    return table
