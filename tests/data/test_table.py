"""Tables: what is read of files of many hands, what is refused, and that nothing of other parts is learnt."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.data import Table
from ssl_lightning.data.columns import Wanted, read_columns
from ssl_lightning.data.schema import schema_of
from ssl_lightning.testing import check_data
from ssl_lightning.transforms.vectors import Row, Standardise

HEADER = ["key", "age", "income", "colour", "code", "class"]
PLAIN: dict[str, Any] = {"test_size": 0, "val_size": 0}


def lines_of(count: int = 120, seed: int = 0) -> list[list[Any]]:
    """Rows of two numbers, a colour, a code and a class, some unlabelled."""
    rng = np.random.default_rng(seed)
    rows: list[list[Any]] = []
    for place in range(count):
        kind = place % 3
        colour = ["red", "green", "blue"][kind if rng.random() < 0.8 else rng.integers(3)]
        label = "" if place % 5 == 0 else "xyz"[kind]
        rows.append(
            [f"k{place:03d}", round(rng.normal() + kind, 4), round(100 * rng.normal() + 5, 3), colour, place % 4, label]
        )
    return rows


def write(path: Path, rows: list[list[Any]], header: list[str] = HEADER) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def table(folder: Path, rows: list[list[Any]] | None = None, header: list[str] = HEADER, **options: Any) -> Table:
    path = write(folder / "t.csv", lines_of() if rows is None else rows, header)
    return Table(path, **{"categories": ["colour", "code"], "batch_size": 32, **options})


def read_text(folder: Path, text: str | bytes, **options: Any) -> Table:
    path = folder / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table(str(path), **{**PLAIN, **options})


def inputs_of(data: Table) -> dict[str, Any]:
    data.setup("fit")
    assert data.train_samples is not None
    found = data.train_samples.__getitems__(list(range(len(data.train_samples)))).input
    leaves = [found.numbers, found.categories] if isinstance(found, Row) else [found]
    return {key: [leaf[place].tolist() for leaf in leaves] for place, key in enumerate(data.train_samples.keys)}


def test_contract(tmp_path: Path) -> None:
    check_data(lambda: table(tmp_path))
    check_data(lambda: table(tmp_path, categories=[], leave_out=["colour", "code"], key=None))
    data = table(tmp_path)
    assert data.facts["feature_dim"] == 2
    assert data.facts["cardinalities"] == (4, 5)
    assert data.class_names == ("x", "y", "z")
    data.setup("fit")
    shown = data.show("k001")
    assert shown.kind == "row"
    assert isinstance(shown.content, str)
    cells = json.loads(shown.content)
    assert cells == {name: str(cell) for name, cell in zip(HEADER[1:-1], lines_of()[1][1:-1], strict=True)}
    assert data.fingerprint("k001") is not None


def test_codes_are_those_of_names(tmp_path: Path) -> None:
    data = table(tmp_path, **PLAIN)
    rows = {line[0]: line for line in lines_of()}
    for key, (numbers, codes) in inputs_of(data).items():
        assert numbers == pytest.approx(rows[key][1:3])
        names = data.facts["columns"]["categories"]
        assert [names["colour"][codes[0] - 1], names["code"][codes[1] - 1]] == [rows[key][3], str(rows[key][4])]


@pytest.mark.parametrize(
    "text",
    [
        "key,a,b,class\nk1,1,2.5,x\nk2,-3,4e2,y\nk3,0,.5,\n",
        "\ufeffkey;a;b;class\r\nk1;1;2.5;x\r\nk2;-3;4e2;y\r\nk3;0;.5;\r\n\r\n",
        "sep=;\nkey;a;b;class\nk1;1;2.5;x\nk2;-3;4e2;y\nk3;0;.5;\n",
        "key\ta\tb\tclass\rk1\t1\t2.5\tx\rk2\t-3\t4e2\ty\rk3\t0\t.5\t\r",
        'class,key, a ,b\n\nx,k1,"1", 2.5\n\ny,"k2",-3,4e2\n,k3,0,.5\n,,,\n',
    ],
)
def test_tables_of_many_hands_are_read_alike(text: str, tmp_path: Path) -> None:
    data = read_text(tmp_path, text)
    assert inputs_of(data) == {"k1": [[1.0, 2.5]], "k2": [[-3.0, 400.0]], "k3": [[0.0, 0.5]]}
    assert data.train_samples is not None
    assert data.train_samples.targets.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,city\n1,Rome\n2,Oslo\n", {}, r"t.csv`, line 2, column `city`: `Rome` is no number; name a column of words"),
        ("a,b\n1,2\nNaN,3\n", {}, r"line 3, column `a`: nothing is there \(in 1 of 2 rows\); fill such cells by `miss"),
        ("a,b\n1,2\n4,\n", {}, r"line 3, column `b`: nothing is there"),
        ("a,c\n1,x\n4,\n", {"categories": ["c"]}, r"line 3, column `c`: nothing is there"),
        ("a,b\n1,inf\n", {}, r"line 2, column `b`: `inf` is more than a float32 holds"),
        ("a,b\n1,1e39\n", {}, r"line 2, column `b`: `1e39` is more than a float32 holds"),
        ('"a\n b",b\n1,"x\ny"\n', {}, r"line 3, column `b`: `x y` is no number"),
        ('"a\n b",b\nz,2\n', {}, r"line 3, column `a b`: `z` is no number"),
        ("a,b\n1,1_000\n", {}, r"line 2, column `b`: `1_000` is no number"),
        ('a;b\n1;"2,5"\n', {}, r"line 2, column `b`: `2,5` is no number: decimals have a point"),
        ("a,b\n1\n", {}, r"line 2: 1 cells under 2 columns; put what holds `,` into quotes"),
        ("a,b\n1,2,3\n", {}, r"line 2: 3 cells under 2 columns"),
        ('a,b\n"1\n\n",2\n3,x\n', {}, r"line 5, column `b`: `x`"),
        ('a,b\n1,"2\n', {}, r"line 2: no CSV"),
        ("a,b,a\n1,2,3\n", {}, r"has the column `a` twice"),
        ("a,class,class\n1,x,x\n", {}, r"has the column `class` twice"),
        ("a,b\n1,2\n", {"label": "kind"}, r"has no column `kind`; it has `a`, `b`"),
        ("a,b\n1,2\n", {"leave_out": ["c"]}, r"has no column `c`"),
        ("a,b\n1,2\n", {"label": "a", "categories": ["a"]}, r"`a` is named in two of `label`, `key`"),
        ("class\nx\n", {}, r"has no column but those of `label`"),
        ("1,2\n3,4\n", {}, r"begins with numbers; its first line must name the columns"),
        ("a,b\n", {}, r"holds no row"),
        ("", {}, r"holds no row"),
        ("key,a\nk,1\nk,2\n", {}, r"column `key`: the key `k` is empty or there twice"),
        (b"a,b\n\xff,2\n", {}, r"cannot be read as a table .* CSV file in UTF-8"),
        ("a,b\n1,2\n", {"categories": "a"}, r"`categories='a'` must be a list of names"),
        ("a,c\n1,x\n", {"categories": {"c": ["x", "x"]}}, r"`categories.c=\['x', 'x'\]` names one twice"),
        ("a,b\n,1\n,2\n", {"missing": "fill"}, r"the column `a` has no number in the training part"),
        ("a,b\n,1\n,2\n", {"missing": "skip"}, r"all 2 rows have empty cells"),
        ("a,b\nx,1\ny,2\n", {"skip_corrupt": True}, r"left out 2 of 2 rows .* line 2, column `a`: `x` .*none is left"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    text: str | bytes, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_text(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_rows_are_skipped_when_asked_and_counted(tmp_path: Path) -> None:
    text = "a,b\n1,2\n,3\nx,4\n5\n6,7\n"
    with pytest.raises(ValueError, match="line 3, column `a`: nothing is there"):
        read_text(tmp_path, text, skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"left out 2 of 5 rows of .*line 4, column `a`: `x` is no number; line 5: 1"):
        data = read_text(tmp_path, text, skip_corrupt=True, missing="skip")
    assert sorted(inputs_of(data).values()) == [[[1.0, 2.0]], [[6.0, 7.0]]]


def test_what_is_missing_is_filled_by_the_training_part(tmp_path: Path) -> None:
    rows = lines_of()
    for place in range(0, 110, 7):
        rows[place][1], rows[place + 1][3] = "", ""
    data = table(tmp_path, rows, missing="fill", val_size=0.3)
    data.setup("fit")
    train = {data.train_samples.keys[place] for place in data.train_indices.tolist()}  # type: ignore[union-attr]
    ages = [row[1] for row in rows if row[0] in train and row[1] != ""]
    assert data.facts["columns"]["fills"][0] == pytest.approx(float(np.median(ages)))
    assert data.facts["columns"]["categories"]["colour"] == ["", "blue", "green", "red"]
    numbers, codes = inputs_of(data)["k000"] if "k000" in inputs_of(data) else inputs_of(data)["k007"]
    assert numbers[0] == pytest.approx(float(np.median(ages)))
    assert codes[0] > 0


def test_nothing_is_learnt_of_validation_and_test(tmp_path: Path) -> None:
    rows = lines_of()
    before = table(tmp_path, rows, test_size=0.3, val_size=0.3)
    before.setup("fit")
    train = {before.train_samples.keys[place] for place in before.train_indices.tolist()}  # type: ignore[union-attr]
    assert 30 < len(train) < 80
    for row in rows:
        if row[0] not in train:
            row[1], row[2], row[3] = 1e6, -1e6, "violet"
    after = table(tmp_path, rows, test_size=0.3, val_size=0.3)
    assert after.facts["columns"] == before.facts["columns"]
    assert after.clean().init_args == before.clean().init_args
    after.setup("fit")
    with pytest.warns(UserWarning, match=r"unknown: \d+ rows of `colour` \(`violet`\)"):
        after.setup("test")
    assert after.test_samples is not None
    assert set(after.test_samples.__getitems__([0, 1]).input.categories[:, 0].tolist()) == {0}


def test_clean_is_of_the_training_part_and_divides_by_nothing_small(tmp_path: Path) -> None:
    rows = [[f"k{place}", value, 7, 1e9 + place] for place, value in enumerate([*range(50), 1e30])]
    with pytest.warns(UserWarning, match="the column `time` lies near 1e\\+09"):
        data = table(tmp_path, rows, ["key", "a", "constant", "time"], categories=[], **PLAIN)
    clean = data.clean()
    data.setup("fit")
    assert data.train_samples is not None
    made = clean(data.train_samples.__getitems__(list(range(51))).input)
    assert made.isfinite().all()
    assert (made[:, 1] == 0).all()
    assert float(made.abs().max()) == 10
    assert 0.5 < float(made[:-1, 0].std()) < 1.5, "one outlier does not make all others one"
    ordinary = torch.randn(40, 3, dtype=torch.float64).numpy() * 5 + 3
    rows = [[f"k{place:02d}", *row] for place, row in enumerate(ordinary.tolist())]
    data = table(tmp_path, rows, ["key", "a", "b", "c"], categories=[], **PLAIN)
    made = data.clean()(torch.from_numpy(ordinary).float())
    expected = (ordinary - ordinary.mean(0)) / ordinary.std(0)
    torch.testing.assert_close(made, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_one_row_and_one_column(tmp_path: Path) -> None:
    data = read_text(tmp_path, "a\n5\n")
    assert list(inputs_of(data).values()) == [[[5.0]]]
    assert data.clean()(torch.tensor([[5.0]])).tolist() == [[0.0]]
    only = read_text(tmp_path, "c\nx\ny\n", categories=["c"])
    assert only.facts["feature_dim"] == 0
    assert sorted(inputs_of(only).values()) == [[[], [1]], [[], [2]]]


def test_copies_are_on_one_side_and_a_key_is_its_content(tmp_path: Path) -> None:
    rows = [row[1:] for row in lines_of(30)] * 3
    data = table(tmp_path, rows, HEADER[1:], val_size=0.3, test_size=0.3)
    data.setup("fit")
    data.setup("test")
    train = data.train_samples
    assert train is not None
    assert data.test_samples is not None
    sides = [
        {train.keys[place].partition("~")[0] for place in data.train_indices.tolist()},
        {train.keys[place].partition("~")[0] for place in data.val_indices.tolist()},
        {key.partition("~")[0] for key in data.test_samples.keys},
    ]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 30
    assert data.fingerprint(train.keys[0]) is None
    again = table(tmp_path, [row[1:] for row in lines_of(40)], HEADER[1:], val_size=0.3, test_size=0.3)
    again.setup("fit")
    assert again.train_samples is not None
    kept = {key.partition("~")[0] for key in again.train_samples.keys}
    assert sides[0] | sides[1] <= kept, "a row never changes sides, whatever is added or is no longer there twice"


def test_fixed_categories_and_a_test_file(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", [["q1", 1.0, 2.0, "violet", 3, "x"]])
    names = {"colour": ["red", "green", "blue", "violet"], "code": ["3"]}
    data = table(tmp_path, categories=names, test_path=str(tmp_path / "test.csv"))
    assert data.cardinalities == (5, 2)
    data.setup("fit")
    data.setup("test")
    assert data.test_samples is not None
    assert data.test_samples.__getitems__([0]).input.categories.tolist() == [[4, 1]]


def test_hints_at_columns_that_are_hardly_numbers(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"column `target` is taken for numbers.*--data.label target"):
        read_text(tmp_path, "a,target\n1,0\n2,1\n")
    with pytest.warns(UserWarning, match=r"column `id` is taken for numbers .*--data.key id"):
        read_text(tmp_path, "id,a\n1,5\n2,1\n")
    with pytest.warns(UserWarning, match="1 columns without a name, as of an index"):
        data = read_text(tmp_path, ",a\n0,5\n1,1\n")
    assert data.feature_dim == 1
    prices = "a,price\n" + "".join(f"{place},{place * 1.5}\n" for place in range(50))
    with pytest.warns(UserWarning, match="`price` has 50 classes in 50 rows"):
        read_text(tmp_path, prices, label="price")


def test_parquet_is_read_as_csv_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = lines_of()
    columns = {name: [row[place] for row in rows] for place, name in enumerate(HEADER)}
    columns["class"] = [label or None for label in columns["class"]]
    written = arrow.table({**columns, "colour": arrow.array(columns["colour"]).dictionary_encode()})
    parquet.write_table(written, tmp_path / "t.parquet")
    one, other = table(tmp_path, **PLAIN), Table(str(tmp_path / "t.parquet"), categories=["colour", "code"], **PLAIN)
    assert inputs_of(one) == inputs_of(other)
    assert one.facts == other.facts
    assert one.fingerprint("k001") == other.fingerprint("k001")
    for bad, message in (
        ({"a": [1, None]}, "row 1, column `a`: nothing is there"),
        ({"a": ["1", "x"]}, "row 1, column `a`: `x` is no number"),
        ({"a": [1.0, float("inf")]}, "row 1, column `a`: `inf`"),
        ({"a": [[1, 2], [3]]}, "row 1, column `a`: `list of 1, where others have 2"),
    ):
        parquet.write_table(arrow.table(bad), tmp_path / "bad.parquet")
        with pytest.raises(ValueError, match=message):
            Table(str(tmp_path / "bad.parquet"), **PLAIN)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        Table(str(tmp_path / "bad.parquet"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow .*ssl-lightning\[parquet\]"):
        Table(str(tmp_path / "t.parquet"))


def test_blocks_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    write(path, [*lines_of(), ["k999", "oops", 1, "red", 0, ""]])
    wanted = Wanted(["key", "colour"], ["class"], ["code"])
    with pytest.warns(UserWarning, match="left out 1 of 121 rows"):
        whole = read_columns(path, "`t`", wanted, skip_corrupt=True)
    monkeypatch.setattr("ssl_lightning.data.columns.BLOCK", 7)
    with pytest.warns(UserWarning, match="left out 1 of 121 rows"):
        parts = read_columns(path, "`t`", wanted, skip_corrupt=True)
    assert np.array_equal(whole.numbers, parts.numbers)
    assert whole.words == parts.words
    assert whole.places.tolist() == parts.places.tolist() == list(range(2, 122))


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    facts = table(tmp_path).facts
    assert schema_of(facts) is not None
    for change in ({"missing": "perhaps"}, {"numbers": 3}, {"categories": ["a"]}, {"more": 1}):
        with pytest.raises(ValueError, match="no description of a table's columns"):
            schema_of({"columns": {**facts["columns"], **change}})
    assert schema_of({}) is None


def test_standardise_refuses_what_it_cannot_divide_by() -> None:
    for mean, std in (([0.0], [0.0]), ([0.0, 1.0], [1.0]), ([float("nan")], [1.0])):
        with pytest.raises(ValueError, match="must be finite"):
            Standardise(mean, std)
    with pytest.raises(ValueError, match="inputs of 3 numbers go to a transform for 2"):
        Standardise([0.0, 1.0], [1.0, 1.0])(torch.zeros(1, 3))


Command = Callable[..., tuple[int, str]]
SMALL = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1",
    "--trainer.enable_progress_bar", "false",
]  # fmt: skip


def test_from_the_command_line_to_new_rows(command: Command, tmp_path: Path) -> None:
    """Pretrain, fine-tune, ask, edit the table, ask again, predict new rows by name: all by commands."""
    write(tmp_path / "t.csv", lines_of())
    options = [
        "--data",
        "Table",
        "--data.path",
        "t.csv",
        "--data.categories",
        "[colour,code]",
        "--data.batch_size",
        "32",
    ]
    net = ["--model.backbone", "RowNet", "--model.backbone.width", "16"]
    status, out = command("fit", *options, "--model", "VIME", *net, *SMALL, "--folder", "ssl")
    assert status == 0, out
    ask = [
        "active", *options, "--model", "Classifier", "--model.checkpoint", "ssl/checkpoints/last.ckpt",
        "--initial", "6", "--steps_per_epoch", "3", "--strategy", "VAAL", "--strategy.query_size", "3",
        "--folder", "al", *SMALL,
    ]  # fmt: skip
    status, out = command(*ask, "--rounds", "1")
    assert status == 0, out
    before = {row["key"]: row for row in csv.DictReader((tmp_path / "al/queries.csv").open())}
    changed, gone = sorted(before)[:2]
    rows = [row for row in lines_of() if row[0] != gone]
    next(row for row in rows if row[0] == changed)[1] = 9.75
    rows.sort(key=lambda row: row[2])  # another order: labels stay with their keys
    write(tmp_path / "t.csv", rows)
    status, out = command(*ask, "--rounds", "2")
    assert status == 0, out
    after = {row["key"]: row for row in csv.DictReader((tmp_path / "al/queries.csv").open())}
    assert len(after) >= len(before)
    assert all(after[key]["class_name"] == row["class_name"] for key, row in before.items() if key in after)
    new = [[3, "red", "n1", 0.5, 1.0, "more"], [9, "violet", "n2", 2.0, -4.0, "more"]]
    write(tmp_path / "new.csv", new, ["code", "colour", "key", "age", "income", "other"])
    with pytest.warns(UserWarning, match=r"1 rows of `colour` \(`violet`\), 1 rows of `code` \(`9`\)"):
        status, out = command("predict", "al", "new.csv", "--output", "p.csv")
    assert status == 0, out
    assert [row["key"] for row in csv.DictReader((tmp_path / "p.csv").open())] == ["n1", "n2"]
    write(tmp_path / "other.csv", [[row[0], row[2], row[1], *row[3:]] for row in lines_of()],
          ["key", "income", "age", "colour", "code", "class"])  # fmt: skip
    status, out = command("predict", "al", "other.csv", "--output", "q.csv", "--all")
    assert status == 0, out
    write(tmp_path / "t.csv", lines_of())
    status, out = command("predict", "al", "t.csv", "--output", "r.csv", "--all")
    assert (tmp_path / "q.csv").read_text() == (tmp_path / "r.csv").read_text(), "columns go by their names"
    for bad, text in (
        ("age,income,colour\n1,2,red\n", "has no column `code`"),
        ("age,income,colour,code\n1,,red,3\n", "line 2, column `income`: nothing is there"),
    ):
        (tmp_path / "bad.csv").write_text(bad)
        status, out = command("predict", "al", "bad.csv", "--output", "s.csv")
        assert status == 2
        assert text in " ".join(out.split())
        assert "Traceback" not in out
    options[3] = "other.csv"
    status, out = command(*ask[:1], *options, *ask[1 + len(options) : -len(SMALL) - 1], "al2", *SMALL, "--rounds", "1")
    assert status == 2
    assert "was trained on rows with columns of numbers `age`, `income`, and these data `income`, `age`" in " ".join(
        out.split()
    )
