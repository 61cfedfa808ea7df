"""A file of vectors and its table: names, classes, copies, and tables that are not what they seem."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.backbones import MLP
from ssl_lightning.data import Vectors
from ssl_lightning.methods import SimCLR

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


def columns(folder: Path, text: str, **options: Any) -> Vectors:
    (folder / "c.csv").write_text(text, encoding="utf-8")
    return Vectors(str(folder / "c.csv"), **{"val_size": 0, "test_size": 0, **options})


def test_columns_of_one_file_are_as_two_files(tmp_path: Path) -> None:
    lines = [",".join(map(str, row)) for row in ROWS.tolist()]
    text = "a,key,b,c,class\n"
    for place, line in enumerate(lines):
        a, b, c = line.split(",")
        text += f"{a},k{place},{b},{c},{'xy '[place % 3].strip()}\n"
    one = columns(tmp_path, text)
    two = vectors(tmp_path, "key,class\n" + "".join(f"k{place},{'xy '[place % 3].strip()}\n" for place in range(6)))
    assert classes_in(one) == classes_in(two)
    for data in (one, two):
        assert torch.equal(data.train_samples.__getitems__(list(range(6))).input, torch.from_numpy(ROWS))  # type: ignore
    assert one.fingerprint("k1") == two.fingerprint("k1")
    assert one.facts["columns"]["numbers"] == ["a", "b", "c"]
    assert two.facts["columns"] == {}
    unnamed = columns(tmp_path, "a,b,c\n" + "\n".join(lines) + "\n")
    unnamed.setup("fit")
    np.save(tmp_path / "v.npy", ROWS)
    alone = Vectors(str(tmp_path / "v.npy"), val_size=0, test_size=0)
    alone.setup("fit")
    assert unnamed.train_samples.keys == alone.train_samples.keys  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n3,\n", {}, r"line 3, column `b`: nothing is there .*leave such rows out by `skip_corrupt=true`"),
        ("a,b\n1,nan\n", {}, r"line 2, column `b`: nothing is there"),
        ("a,b\n1,x\n", {}, r"line 2, column `b`: `x` is no number; leave the column out by `--data.leave_out`, "),
        ("a,label\n1,0\n", {}, r"has the column `label` and none `class`; if it is the class, call it so"),
        ("key,class\nk,x\n", {}, r"has no column of numbers but `key` and `class`"),
        ("a\n1\n", {"table": "t.csv"}, r"`table=t.csv` belongs to a .npy file; .* is a table itself"),
        ("key,a\nk,1\nk,2\n", {}, r"the key `k` is empty or there twice"),
    ],
)
def test_columns_that_are_no_vectors_are_told(text: str, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        columns(tmp_path, text, **options)


def test_rows_are_skipped_when_asked_and_counted(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"left out 1 of 3 rows .*`x` is no number"):
        data = columns(tmp_path, "key,a\nk1,1\nk2,x\nk3,2\n", skip_corrupt=True)
    assert list(classes_in(data)) == ["k1", "k3"]
    with pytest.warns(UserWarning, match=r"left out 1 of 3 rows .*with empty cells: first line 3, column `a`"):
        data = columns(tmp_path, "key,a\nk1,1\nk2,\nk3,2\n", skip_corrupt=True)
    assert list(classes_in(data)) == ["k1", "k3"]
    broken = ROWS.copy()
    broken[2, 1] = np.nan
    table = "key,class\n" + "".join(f"k{place},{'xy'[place % 2]}\n" for place in range(6))
    with pytest.raises(ValueError, match=r"NaN or infinity in row 2, column 1 .*`skip_corrupt=true`"):
        vectors(tmp_path, table, broken)
    for memory_gib in (2.0, 0.0):
        with pytest.warns(UserWarning, match=r"left out 1 of 6 rows .*first row 2"):
            data = vectors(tmp_path, table, broken, skip_corrupt=True, memory_gib=memory_gib)
        assert list(classes_in(data)) == ["k0", "k1", "k3", "k4", "k5"]
        expected = torch.from_numpy(np.delete(ROWS, 2, axis=0))
        assert torch.equal(data.train_samples.__getitems__(list(range(5))).input, expected)  # type: ignore[union-attr]
        assert data.train_samples.targets.tolist() == [0, 1, 1, 0, 1]  # type: ignore[union-attr]


def test_a_column_of_lists_is_a_vector(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = [arrow.list_(arrow.float32()), arrow.list_(arrow.float64(), 3), arrow.large_list(arrow.float32())]
    for kind in kinds:
        column = arrow.array(ROWS.tolist(), type=kind)
        keys = [f"k{place}" for place in range(6)]
        parquet.write_table(arrow.table({"embedding": column, "key": keys}), tmp_path / "e.parquet")
        data = Vectors(str(tmp_path / "e.parquet"), val_size=0, test_size=0)
        data.setup("fit")
        assert data.feature_dim == 3
        assert torch.equal(data.train_samples.__getitems__(list(range(6))).input, torch.from_numpy(ROWS))  # type: ignore


def test_predict_finds_columns_by_their_names(trainer: Any, command: Any, tmp_path: Path) -> None:
    lines = [f"k{place},{a},{b},{c}" for place, (a, b, c) in enumerate(ROWS.tolist())]
    data = columns(tmp_path, "key,a,b,c\n" + "\n".join(lines) + "\n")
    model = SimCLR(MLP(3, width=4))
    model.facts = data.facts
    fit = trainer()
    fit.strategy.connect(model)
    fit.save_checkpoint(tmp_path / "m.ckpt")
    np.save(tmp_path / "v.npy", ROWS)
    turned = [f"{c},9,{a},{b}" for a, b, c in ROWS.tolist()]
    (tmp_path / "turned.csv").write_text("c,more,a,b\n" + "\n".join(turned) + "\n")
    found = []
    for source in ("c.csv", "v.npy", "turned.csv"):
        status, out = command("predict", "m.ckpt", source, "--output", f"{source}.out.npy")
        assert status == 0, out
        found.append(np.load(tmp_path / f"{source}.out.npy"))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    status, out = command("predict", "m.ckpt", "bad.csv", "--output", "bad.npy")
    assert status == 2
    assert "has no column `c`" in " ".join(out.split())
