"""A table beside pictures: as people's programs write it, what it says of which file, and what is refused."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssl_lightning.data import ImageFolder
from ssl_lightning.data.files import find_images, find_table
from ssl_lightning.data.listing import Listing


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(name)).save(path)
    return root


def find(root: Path, table: str | bytes, name: str = "labels.csv") -> Listing:
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return find_images(root, root / name)


def classes(listing: Listing) -> dict[str, str | None]:
    return {file.key: file.class_name for file in listing.files}


def only_note(listing: Listing) -> str:
    assert len(listing.notes) == 1, listing.notes
    return listing.notes[0]


FLAT = {"a.png": "cat", "b.png": "dog", "sub/c.png": "cat", "d.png": None, "x, y.png": "dog"}


@pytest.mark.parametrize(
    "table",
    [
        'path,class\na.png,cat\nb.png,dog\nsub/c.png,cat\n"x, y.png",dog\n',
        '\ufeffPath,Class\r\na.png,cat\r\nb.png,dog\r\nsub/c.png,cat\r\n"x, y.png",dog\r\n\r\n\r\n',
        "path;class\r\na.png;cat\r\nb.png;dog\r\nsub\\c.png;cat\r\nx, y.png;dog\r\n;\r\n;\r\n",
        "sep=;\r\n File ; Label \r\n.\\a.png;cat\r\nb.png;dog\r\nsub\\c.png;cat\r\nx, y.png;dog\r\n",
        "class\tfilename\ncat\t./a.png\ndog\tb.png\ncat\tsub//c.png\ndog\tx, y.png",
        'id,path,class,note\n1,a.png,cat,"2\nlines"\n2, b.png ,dog,\n,sub/c.png, cat ,\n4,"x, y.png",dog,\n,d.png,,\n',
        'path,class\ra.png,cat\rb.png,dog\rsub/c.png,cat\r"x, y.png",dog\r',
        'path,class,annotator,kind\na.png,cat,I,class\nb.png,dog,,\nsub/c.png,cat,,\n"x, y.png",dog,,\nd.png,,I,skip\n',
    ],
    ids=["plain", "Windows", "semicolons", "Excel", "tabs", "more columns", "old Mac", "our own export"],
)
def test_tables_of_many_hands_are_read_alike(table: str, tmp_path: Path) -> None:
    found = find(put(tmp_path, *FLAT), table)
    assert classes(found) == FLAT
    assert found.class_names == ("cat", "dog")
    assert found.from_table == 4
    assert only_note(found) == "folders (`sub`) are no classes: `labels.csv` says others of the pictures in them"


def test_a_flat_folder_needs_no_word(tmp_path: Path) -> None:
    found = find(put(tmp_path, "a.png", "b.png", "c.png"), "path,class\na.png,cat\nb.png,dog\n")
    assert (classes(found), found.notes) == ({"a.png": "cat", "b.png": "dog", "c.png": None}, [])


def test_absolute_paths(tmp_path: Path) -> None:
    root = put(tmp_path / "here", "a.png", "b/c.png")
    (tmp_path / "link").symlink_to(root)
    table = f"path,class\n{root}/a.png,cat\n{root}/b/c.png,dog\n"
    assert classes(find(root, table)) == {"a.png": "cat", "b/c.png": "dog"}
    assert classes(find_images(tmp_path / "link", root / "labels.csv")) == {"a.png": "cat", "b/c.png": "dog"}


def test_names_that_look_the_same(tmp_path: Path) -> None:
    """A table made on a Mac has its names decomposed; where two files differ by that alone, each has its own."""
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    one = put(tmp_path / "one", f"{composed}.png", "b.png")
    assert classes(find(one, f"path,class\n{decomposed}.png,{decomposed}\n")) == {
        f"{composed}.png": composed,
        "b.png": None,
    }
    two = put(tmp_path / "two", f"{composed}.png", f"{decomposed}.png")
    found = find(two, f"path,class\n{decomposed}.png,cat\n{composed}.png,dog\n")
    assert classes(found) == {f"{decomposed}.png": "cat", f"{composed}.png": "dog"}


@pytest.mark.parametrize("name", ["=1+1.png", "-a.png", "@b.png", "'tis.png", "'=c.png", " d.png", "back\\slash.png"])
def test_names_that_a_spreadsheet_would_run(name: str, tmp_path: Path) -> None:
    cell = "'" + name if name[0] in "=-@" or name.startswith("'=") else name
    assert classes(find(put(tmp_path, name, "b.png"), f"path,class\n{cell},cat\nb.png,dog\n")) == {
        name: "cat",
        "b.png": "dog",
    }


def test_class_folders_hold_against_the_table(tmp_path: Path) -> None:
    root = put(
        tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "d.png", "unlabelled/e.png", "f.png", "unlabelled/g.png"
    )
    found = find(root, "path,class\ncat/a.png,cat\ncat/b.png,dog\nd.png,dog\nunlabelled/e.png,bird\n")
    assert classes(found) == {
        "cat/a.png": "cat", "cat/b.png": "cat", "dog/c.png": "dog", "d.png": "dog", "f.png": None,
        "unlabelled/e.png": "bird", "unlabelled/g.png": None,
    }  # fmt: skip
    assert found.class_names == ("bird", "cat", "dog")
    assert found.from_table == 2
    assert found.notes == [
        "1 picture in class folders of another class than in `labels.csv`, such as `cat/b.png` (`dog` there): the "
        "folders' classes are taken; move the files, or mend the table",
        "1 picture in `unlabelled`: unlabelled",
        "1 picture beside the class folders: unlabelled",
    ]


def test_a_table_for_loose_files_leaves_class_folders_alone(tmp_path: Path) -> None:
    found = find(put(tmp_path, "cat/a.png", "dog/b.png", "c.png"), "path,class\nc.png,bird\n")
    assert classes(found) == {"cat/a.png": "cat", "dog/b.png": "dog", "c.png": "bird"}
    assert found.notes == []


def test_a_class_in_other_letters_is_a_contradiction_and_no_new_scheme(tmp_path: Path) -> None:
    found = find(put(tmp_path, "Cat/a.png", "Dog/b.png"), "path,class\nCat/a.png,cat\n")
    assert classes(found) == {"Cat/a.png": "Cat", "Dog/b.png": "Dog"}
    assert "(`cat` there)" in only_note(found)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    found = find(
        put(tmp_path, "2020/a.png", "2021/b.png", "2021/c.png"), "path,class\n2020/a.png,cat\n2021/b.png,dog\n"
    )
    assert classes(found) == {"2020/a.png": "cat", "2021/b.png": "dog", "2021/c.png": None}
    assert only_note(found).startswith("folders (`2020`, `2021`) are no classes")


def test_parts_and_a_table(tmp_path: Path) -> None:
    root = put(tmp_path, "train/a.png", "train/b.png", "test/c.png", "aside/d.png")
    found = find(root, "path,class\ntrain/a.png,cat\ntest/c.png,cat\ntrain/b.png,dog\n")
    assert {file.key: (file.class_name, file.part) for file in found.files} == {
        "train/a.png": ("cat", "train"), "train/b.png": ("dog", "train"), "test/c.png": ("cat", "test"),
    }  # fmt: skip
    assert found.set_aside == 1


def test_rows_without_a_file_are_named(tmp_path: Path) -> None:
    table = "path,class\na.png,cat\n" + "".join(f"gone{number}.png,cat\n" for number in range(7)) + "b.png,dog\n"
    found = find(put(tmp_path, "a.png", "b.png"), table)
    gone = ", ".join(f"`gone{number}.png`" for number in range(5))
    assert only_note(found) == f"7 rows name no picture that is there, in `labels.csv`: {gone} ..."
    one = find(tmp_path, "path,class\na.png,cat\nb.png,dog\n../a.png,dog\n")
    assert only_note(one) == "1 row names no picture that is there, in `labels.csv`: `../a.png`"


def test_nothing_is_labelled(tmp_path: Path) -> None:
    for table in ("path,class\n", "path,class\na.png,\n"):
        found = find(put(tmp_path, "a.png", "b.png"), table)
        assert (set(classes(found).values()), found.class_names) == ({None}, ())
        assert only_note(found) == "no class folder, and no class in `labels.csv`: all 2 pictures are unlabelled"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,class\na.png,cat\nb.png,cat\n.\\a.png,dog\n",
         r"line 4: `a.png` is of class `dog`, and in line 2 of class `cat`; leave one"),
        ("path,class\na.png,cat\nb, c.png,dog\n", r"line 3: 3 cells under 2 columns; put what holds `,` into quotes"),
        ("path;class\n\na.png\n", r"line 3: 1 cells under 2 columns; put what holds `;` into quotes"),
        ("path,class\n,cat\n", r"line 2: it has a class and no path"),
        ('path,class\na.png,"two\nlines"\n', r"line 2: its class is no printable text"),
        ('path,class\na.png,cat\n"b.png,dog\n', r"line 3: no CSV \(unexpected end of data\); mend the quotes"),
        ("a.png,cat\nb.png,dog\n", r"has the columns `a.png`, `cat`; required are `path` \(or key, .*\) and `class`"),
        ("path,class,CLASS\na.png,cat,dog\n", r"has the column `class` twice; leave one"),
        ("", r"has the columns none; required"),
        ("path,class\nx.png,cat\ny.png,cat\n",
         r"names no picture below `root=.*`: its first path is `x.png`, that of a picture `a.png`; give paths below"),
        ("path,class\na.png,\u00e9\n".encode("latin-1"), r"cannot be read as a table \(.*\); give a CSV file in UTF-8"),
        ("path,class\na.png,cat\n".encode("utf-16"), r"cannot be read as a table"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(table: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^`labels=.*labels\.csv`.*" + message):
        find(put(tmp_path, "a.png", "b.png"), table)


def test_exact_copies_in_a_table_do_no_harm(tmp_path: Path) -> None:
    found = find(put(tmp_path, "a.png", "b.png"), "path,class\na.png,cat\na.png,cat\na.png,\nb.png,dog\n")
    assert classes(found) == {"a.png": "cat", "b.png": "dog"}


def test_the_table_is_no_file_of_another_kind(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "sub/c.png")
    (tmp_path / "sub" / "labels.csv").write_text("x")
    (tmp_path / "read.txt").write_text("x")
    table = "path,class\na.png,cat\nsub/c.png,dog\nb.png,dog\n"
    assert "2 files of other kinds (.csv, .txt)" in find(tmp_path, table).notes
    (tmp_path / "labels.csv").rename(tmp_path / "Mine.CSV")
    assert "2 files of other kinds (.csv, .txt)" in find_images(tmp_path, tmp_path / "Mine.CSV").notes
    assert "3 files of other kinds (.csv, .txt)" in find_images(tmp_path).notes


def test_where_a_table_is_found_by_itself(tmp_path: Path) -> None:
    assert find_table(tmp_path) is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "labels.csv").touch()
    (tmp_path / "Labels.csv").mkdir()
    assert find_table(tmp_path) is None
    (tmp_path / "LABELS.CSV").touch()
    assert find_table(tmp_path) == tmp_path / "LABELS.CSV"
    (tmp_path / "labels.csv").touch()
    assert find_table(tmp_path) == tmp_path / "labels.csv"


Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
class TestImageFolder:
    def test_what_was_found_is_said_once(self, tmp_path: Path, said: Said) -> None:
        root = put(tmp_path, *(f"train/{number}.png" for number in range(6)), "aside/x.png", "test/a.png")
        (root / "train" / "5.png").write_text("junk")
        (root / "labels.csv").write_text("path,class\ntrain/0.png,cat\ntrain/1.png,dog\ntrain/2.png,cat\n")
        data = ImageFolder(str(root), image_size=8, skip_corrupt=True, val_size=0)
        assert str(data) == "ImageFolder()"
        assert (data.train_samples, said()) == (None, "")  # who only names the data loads nothing
        data.setup()
        data.setup()
        assert said() == (
            f"{root}: 3 labelled (cat 2, dog 1), 3 of them by {root}/labels.csv, 4 unlabelled, 1 set aside, 1 "
            "unreadable of the train part\n"
        )
        assert data.train_samples is not None
        assert data.train_samples.keys == [f"train/{number}.png" for number in range(5)]
        assert data.train_samples.targets.tolist() == [0, 1, 0, -1, -1]

    def test_many_classes_take_one_line(self, tmp_path: Path, said: Said) -> None:
        root = put(tmp_path, *(f"c{number:02}/a.png" for number in range(20)))
        ImageFolder(str(root), image_size=8, val_size=0).setup()
        line = said()
        assert line.count("\n") == 1
        assert "20 labelled (c00 1, " in line
        assert "c11 1, 8 more classes), 0 unlabelled, 0 set aside\n" in line

    def test_a_table_elsewhere_by_its_option(self, tmp_path: Path) -> None:
        root = put(tmp_path / "root", "a.png", "b.png")
        (root / "labels.csv").write_text("path,class\na.png,wrong\n")
        (tmp_path / "mine.csv").write_text("path,class\na.png,right\n")
        assert ImageFolder(str(root), labels=str(tmp_path / "mine.csv")).class_names == ("right",)
        assert ImageFolder(str(root)).class_names == ("wrong",)
        with pytest.raises(
            ValueError, match=r"`labels=no.csv` is no file \(.*no\.csv\); give a CSV table, or leave it"
        ):
            ImageFolder(str(root), labels="no.csv")

    def test_nothing_labelled_at_all(self, tmp_path: Path, said: Said) -> None:
        data = ImageFolder(str(put(tmp_path, "a.png", "b.png", "c.png")), image_size=8, val_size=0)
        assert (data.num_classes, data.class_names) == (1, ())
        data.setup()
        assert said() == f"{tmp_path}: 0 labelled, 3 unlabelled, 0 set aside\n"

    @pytest.mark.parametrize("before", [True, False])
    def test_classes_that_are_added_move_no_number(self, tmp_path: Path, before: bool) -> None:
        root = put(tmp_path, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(8)))
        data = ImageFolder(str(root), image_size=8, val_size=0, test_size=0.5)
        if not before:
            data.setup("fit")
        data.class_names, data.num_classes = (*data.class_names, "ant"), 3
        data.setup("test")
        for samples in (data.train_samples, data.test_samples):
            assert samples is not None
            assert [data.class_names[target] for target in samples.targets.tolist()] == [
                key.partition("/")[0] for key in samples.keys
            ]

    def test_a_label_that_comes_later_moves_no_other_sample(self, tmp_path: Path) -> None:
        root = put(tmp_path, *(f"{number}.png" for number in range(40)))

        def sides(labelled: int) -> tuple[set[str], set[str]]:
            lines = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(labelled))
            (root / "labels.csv").write_text("path,class\n" + lines)
            data = ImageFolder(str(root), image_size=8, test_size=0.5)
            data.setup()
            assert data.train_samples is not None
            assert data.test_samples is not None
            return set(data.train_samples.keys), set(data.test_samples.keys)

        (_, test), (_, later) = sides(20), sides(30)
        assert test == {key for key in later if int(key.removesuffix(".png")) < 20}
        assert 0 < len(test) < len(later)
