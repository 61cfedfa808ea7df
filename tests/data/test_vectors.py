"""A file of vectors and its table: names, classes, copies, and tables that are not what they seem."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.data import Vectors

ROWS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def vectors(folder: Path, table: str, rows: Any = ROWS, **options: Any) -> Vectors:
    np.save(folder / "v.npy", rows)
    (folder / "v.csv").write_text(table, encoding="utf-8")
    return Vectors(str(folder / "v.npy"), str(folder / "v.csv"), **{"val_size": 0, "test_size": 0, **options})


def classes_in(data: Vectors) -> dict[str, str]:
    data.setup("fit")
    assert data.train_samples is not None
    names = [*data.class_names, ""]
    return {
        key: names[target]
        for key, target in zip(data.train_samples.keys, data.train_samples.targets.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    "table",
    [
        "key,class\na,x\nb,y\nc,\nd,x\ne,y\nf,x\n",
        "\ufeffkey,class\r\na,x\r\nb,y\r\nc,\r\nd,x\r\ne,y\r\nf,x\r\n\r\n",
        'class,key,note\nx,"a",1\ny,b,\n,c,"one, two"\nx,d,\ny,e,\nx,f,\n',
        "key,class\na,x,\nb,y,\nc,,\nd,x,\ne,y,\nf,x,\n",  # a comma too many, and nothing behind it
    ],
)
def test_tables_of_many_hands_are_read_alike(table: str, tmp_path: Path) -> None:
    expected = {"a": "x", "b": "y", "c": "", "d": "x", "e": "y", "f": "x"}
    assert classes_in(vectors(tmp_path, table)) == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("key,class\na,3.png,x\nb,y\nc,x\nd,x\ne,y\nf,x\n", "line 2: 3 cells under 2 columns; put what holds a comma"),
        ("key,class\na,x\nb\nc,x\nd,x\ne,y\nf,x\n", "line 3: 1 cells under 2 columns"),
        ("key,class,class\n" + "a,x,z\n" * 6, "has the columns key, class, class; required is `key` or `class`"),
        ("Key,class\n" + "a,x\n" * 6, "has the columns Key, class; required"),
        ("key, class\n" + "a,x\n" * 6, "has the columns key,  class; required"),
        ("key,label\n" + "a,x\n" * 6, "has the columns key, label; required"),
        ("key;class\n" + "a;x\n" * 6, "columns are separated by commas"),
        ("", "has the columns none; required"),
        ("key,class\n" + "a,x\n" * 5, "has 5 lines and .* 6 rows"),
    ],
)
def test_tables_that_are_not_what_they_seem_are_refused(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        vectors(tmp_path, table)


def test_a_single_column_may_have_empty_cells_and_an_empty_line_at_its_end(tmp_path: Path) -> None:
    for table in ("class\nx\n\ny\nx\ny\nx\n", "class\nx\n\ny\nx\ny\nx\n\n"):
        assert sorted(classes_in(vectors(tmp_path, table)).values()) == ["", "x", "x", "x", "y", "y"]


def test_another_name_for_keys_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no column `key`: rows are named by their content, and not by `id`"):
        vectors(tmp_path, "id,class\n" + "a,x\n" * 6)


def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path: Path) -> None:
    assert vectors(tmp_path, "class\nZoe\u0308\nZo\u00eb\nx\nx\nx\nx\n").class_names == ("Zo\u00eb", "x")


def test_names_by_which_others_mean_none_are_names_and_it_is_said(tmp_path: Path) -> None:
    names = ["-1", "nan", "NaN", "None", "", "x"]
    with pytest.warns(
        UserWarning, match=r"has the class `-1` \(1 rows\), `NaN` .*`None` .*`nan` .*leave the cell empty"
    ):
        data = vectors(tmp_path, "key,class\n" + "".join(f"k{place},{name}\n" for place, name in enumerate(names)))
    assert data.class_names == ("-1", "NaN", "None", "nan", "x")
    assert list(classes_in(data).values()) == names


def test_other_names_are_not_told_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    vectors(tmp_path, "class\n" + "nano\nnone of these\n1\n-2\n\nx\n")
    assert not recwarn.list


@pytest.mark.parametrize("val_size", [0.4, 4])
def test_exact_copies_are_on_one_side(val_size: float, tmp_path: Path) -> None:
    data = vectors(tmp_path, "class\n" + "x\ny\n" * 30, np.repeat(ROWS, 10, axis=0), val_size=val_size, test_size=0.3)
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    every = torch.from_numpy(ROWS)
    parts = []
    for samples, places in (
        (data.train_samples, data.train_indices),
        (data.train_samples, data.val_indices),
        (data.test_samples, torch.arange(len(data.test_samples))),
    ):
        rows = samples.__getitems__(places.tolist()).input if len(places) else every[:0]
        parts.append({int(torch.cdist(row[None], every).argmin()) for row in rows})
    assert len(parts[0]) + len(parts[1]) + len(parts[2]) == 6


def test_a_content_may_be_in_both_files(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", ROWS)
    np.save(tmp_path / "two.npy", ROWS[:2])
    data = Vectors(str(tmp_path / "one.npy"), test_path=str(tmp_path / "two.npy"), val_size=0)
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    assert not set(data.train_samples.keys) & set(data.test_samples.keys)
