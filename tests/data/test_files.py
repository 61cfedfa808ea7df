import hashlib
import io
import os
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from ssl_lightning.data.decoding import decode, fingerprint, thumbnail
from ssl_lightning.data.files import Listing, find_images

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def put(root: Path, *names: str) -> Path:
    """Write a small picture, or for other suffixes a text, under each name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in {".png", ".jpg"}:
            Image.new("RGB", (8, 8), RED).save(path)
        else:
            path.write_text("x")
    return root


def classes(listing: Listing) -> dict[str, str | None]:
    return {file.key: file.class_name for file in listing.files}


def parts(listing: Listing) -> dict[str, str | None]:
    return {file.key: file.part for file in listing.files}


def said(listing: Listing, *words: str) -> bool:
    """Tell whether one note has all the words."""
    return any(all(word in note for word in words) for note in listing.notes)


class TestFindImages:
    def test_classes_by_the_top_folder_at_any_depth(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/b.png", "cat/old/2020/a.JPG", "cat/c.png", "cat/test/d.png")
        found = find_images(tmp_path)
        assert classes(found) == {
            "cat/c.png": "cat",
            "cat/old/2020/a.JPG": "cat",
            "cat/test/d.png": "cat",
            "dog/b.png": "dog",
        }
        assert [file.key for file in found.files] == sorted(file.key for file in found.files)
        assert all(file.path == tmp_path / file.key for file in found.files)
        assert (found.class_names, found.parts, found.notes) == (
            ("cat", "dog"),
            frozenset(),
            ["folders within a class, which are no parts: `cat/test`"],
        )

    def test_pictures_without_class_folder_are_unlabelled(self, tmp_path: Path) -> None:
        found = find_images(put(tmp_path, "a.png", "b.png"))
        assert classes(found) == {"a.png": None, "b.png": None}
        assert found.class_names == ()
        assert found.notes == ["no class folder: all 2 pictures are unlabelled"]

    def test_pictures_beside_class_folders_are_unlabelled(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "dog/b.png", "c.png", "d.png", "Unlabeled/e.png", "unlabelled/deep/f.png")
        found = find_images(tmp_path)
        assert [key for key, name in classes(found).items() if name is None] == [
            "Unlabeled/e.png", "c.png", "d.png", "unlabelled/deep/f.png",
        ]  # fmt: skip
        assert found.class_names == ("cat", "dog")
        assert "2 pictures beside the class folders: unlabelled" in found.notes
        assert "1 picture in `Unlabeled`: unlabelled" in found.notes

    def test_a_class_may_hold_a_folder_named_unlabelled(self, tmp_path: Path) -> None:
        found = find_images(put(tmp_path, "cat/unlabelled/a.png", "dog/b.png"))
        assert classes(found)["cat/unlabelled/a.png"] == "cat"

    @pytest.mark.parametrize("val", ["val", "Valid", "VALIDATION"])
    def test_parts(self, tmp_path: Path, val: str) -> None:
        found = find_images(put(tmp_path, "Train/cat/a.png", f"{val}/cat/b.png", "test/dog/c.png", "Train/d.png"))
        assert parts(found) == {
            "Train/cat/a.png": "train",
            f"{val}/cat/b.png": "val",
            "test/dog/c.png": "test",
            "Train/d.png": "train",
        }
        assert found.parts == {"train", "val", "test"}
        assert found.class_names == ("cat", "dog")
        assert said(found, "without a picture in the training part", "`dog`")
        assert said(found, "1 picture beside the class folders of `Train`", "unlabelled")

    def test_unlabelled_beside_the_parts_is_trained_on(self, tmp_path: Path) -> None:
        found = find_images(put(tmp_path, "train/cat/a.png", "test/cat/b.png", "unlabeled/c.png"))
        assert next(file for file in found.files if file.key == "unlabeled/c.png")[2:] == (None, "train")

    def test_what_lies_beside_the_parts_is_set_aside_aloud(self, tmp_path: Path) -> None:
        found = find_images(put(tmp_path, "train/cat/a.png", "car/b.png", "car/c.png", "d.png"))
        assert list(classes(found)) == ["train/cat/a.png"]
        assert said(found, "3 pictures beside `train` (`car`) set aside", "rename")

    @pytest.mark.parametrize(("folder", "part"), [("val", "val"), ("TEST", "test")])
    def test_a_part_without_train_is_never_a_class(self, tmp_path: Path, folder: str, part: str) -> None:
        found = find_images(put(tmp_path, "cat/a.png", "dog/b.png", f"{folder}/cat/c.png"))
        assert parts(found) == {"cat/a.png": "train", "dog/b.png": "train", f"{folder}/cat/c.png": part}
        assert found.class_names == ("cat", "dog")
        assert said(found, "no folder `train`", f"`{folder}`")

    def test_parts_without_pictures_are_no_parts(self, tmp_path: Path) -> None:
        put(tmp_path, "train/cat/a.png", "train/dog/b.png")
        (tmp_path / "test" / "cat").mkdir(parents=True)
        found = find_images(tmp_path)
        assert found.parts == {"train"}
        assert "the part `test` holds no picture" in found.notes
        assert "folder `test/cat` holds no picture" in found.notes
        alone = find_images(put(tmp_path / "only", "test/cat/a.png", "test/dog/a.png"))
        assert alone.parts == {"test"}
        assert "the part `train` holds no picture" in alone.notes

    def test_hidden_and_system_files_are_passed_over(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "dog/b.png", "cat/._a.png", ".ipynb_checkpoints/c.png", "__MACOSX/cat/d.png")
        put(tmp_path, "Thumbs.db", "cat/desktop.ini")
        found = find_images(tmp_path)
        assert found.class_names == ("cat", "dog")
        assert list(classes(found)) == ["cat/a.png", "dog/b.png"]
        assert found.notes == ["5 hidden files or folders"]

    def test_other_files_are_counted(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "dog/b.png", "labels.txt", "cat/x.TXT", "dog/y.xml", "dog/README")
        assert find_images(tmp_path).notes == ["4 files of other kinds (.txt, .xml, no suffix)"]

    def test_what_is_no_file_is_no_sample(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/album.jpg/a.png", "holiday.png/b.png")
        os.mkfifo(tmp_path / "cat" / "pipe.png")
        assert classes(find_images(tmp_path)) == {"cat/album.jpg/a.png": "cat", "holiday.png/b.png": "holiday.png"}

    def test_empty_folders_are_no_classes(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "dog/b.png", "notes/x.txt")
        (tmp_path / "empty" / "deep").mkdir(parents=True)
        found = find_images(tmp_path)
        assert found.class_names == ("cat", "dog")
        assert {"folder `empty` holds no picture: no class", "folder `notes` holds no picture: no class"} <= set(
            found.notes
        )

    def test_a_single_class_is_remarked_on(self, tmp_path: Path) -> None:
        assert said(find_images(put(tmp_path, "images/a.png")), "single class", "`images`")

    def test_links_are_followed_and_end(self, tmp_path: Path) -> None:
        put(tmp_path / "elsewhere", "pets/a.png", "b.png")
        put(tmp_path / "root", "dog/c.png", "dog/in/d.png")
        root = tmp_path / "root"
        (root / "cat").symlink_to(tmp_path / "elsewhere" / "pets")
        (root / "dog" / "b.png").symlink_to(tmp_path / "elsewhere" / "b.png")
        (root / "dog" / "in" / "up").symlink_to(root / "dog")
        (root / "dog" / "all").symlink_to(root)
        for twin in ("a_twin", "z_twin"):  # whichever is met first, what is no link keeps its place
            (root / "dog" / twin).symlink_to(root / "dog" / "in")
        (root / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        (root / "dog" / "self.png").symlink_to(root / "dog" / "self.png")
        found = find_images(root)
        assert list(classes(found)) == ["cat/a.png", "dog/b.png", "dog/c.png", "dog/in/d.png"]
        assert said(found, "broken links", "`dog/gone.png`", "`dog/self.png`")
        assert said(found, "already read", "`dog/a_twin`", "`dog/all`", "`dog/in/up`", "`dog/z_twin`")

    def test_many_links_across_end_soon(self, tmp_path: Path) -> None:
        names = [f"class{number}" for number in range(10)]
        put(tmp_path, *(f"{name}/{name}.png" for name in names))
        for name in names:
            for other in set(names) - {name}:
                (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
        found = find_images(tmp_path)
        assert len(found.files) == 100  # each class through its links has all ten, each once
        assert len({file.key for file in found.files}) == 100

    def test_odd_names(self, tmp_path: Path) -> None:
        composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
        names = [f"cat/{composed}.png", f"cat/{decomposed}.png", "cat/two\nlines.png", "cat/ .png", "cat/a;'\"`.png"]
        put(tmp_path, *names, f"{composed}/x.png", f"{decomposed}/x.png")
        raw = os.fsencode(tmp_path) + b"/dog\xff/\xfe.png"
        os.mkdir(os.path.dirname(raw))
        with open(raw, "wb") as written:
            written.write((tmp_path / "cat" / " .png").read_bytes())
        found = find_images(tmp_path)
        keys = [file.key for file in found.files]
        assert sorted(keys) == sorted(
            [*names, f"{composed}/x.png", f"{decomposed}/x.png", os.fsdecode(b"dog\xff/\xfe.png")]
        )
        assert found.class_names == ("cat", "dog\\udcff", composed)
        for file in found.files:
            assert decode(file.path, 3, 8).shape == (3, 8, 8)
        "\n".join([*found.notes, *found.class_names]).encode()

    def test_messages_can_be_printed(self, tmp_path: Path) -> None:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
        folder.mkdir()
        with pytest.raises(ValueError, match=r"\\udcff\\n` holds no picture") as caught:
            find_images(folder)
        str(caught.value).encode()
        with pytest.raises(ValueError, match=r"\\udcff\\n/x\.png` is no readable image") as caught:
            decode(folder / "x.png", 3, 8)
        str(caught.value).encode()

    def test_no_picture(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.heic", "cat/b.heic")
        with pytest.raises(
            ValueError,
            match=r"`root=.*` holds no picture \(\.bmp, .*convert them\. Found: .*2 files of other kinds \(\.heic\)",
        ):
            find_images(tmp_path)
        with pytest.raises(ValueError, match=r"`root=.*missing` is no folder .*; give the folder"):
            find_images(tmp_path / "missing")

    def test_relative_root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path, "cat/a.png", "dog/b.png")
        monkeypatch.chdir(tmp_path)
        assert classes(find_images(Path())) == {"cat/a.png": "cat", "dog/b.png": "dog"}
        assert find_images(Path("cat")).files[0].path.is_file()


def png(values: npt.NDArray[Any], depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Make a PNG file of rows of bytes, by hand: for kinds that Pillow reads and does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = [row.tobytes() for row in values]
    header = struct.pack(">IIBBBBB", len(rows[0]) * 8 // depth // samples, len(rows), depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(chunk(*each) for each in chunks) + body + chunk(b"IEND", b"")


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def with_tag(path: Path, tag: int, old: int, new: int) -> None:
    """Change a short number in a TIFF file's head."""
    content, entry = path.read_bytes(), struct.pack("<HHI", tag, 3, 1)
    assert content.count(entry + bytes([old])) == 1
    path.write_bytes(content.replace(entry + bytes([old]), entry + bytes([new])))


class TestWideGray:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        ("dtype", "suffix"),
        [("<u2", "png"), ("<u2", "tif"), (">u2", "tif"), ("<u2", "pgm"), ("<i4", "tif"), ("<f4", "tif")],
    )
    def test_ramp(self, tmp_path: Path, dtype: str, suffix: str, channels: int) -> None:
        path = saved(Image.fromarray(RAMP.astype(dtype)), tmp_path / f"ramp.{suffix}")
        pixels = decode(path, channels, 256)
        assert pixels.float().mean() == pytest.approx(127.5, abs=0.01)
        assert (pixels.flatten(1).int().diff() >= 0).all()
        assert (int(pixels.min()), int(pixels.max())) == (0, 255)
        assert np.asarray(Image.open(io.BytesIO(thumbnail(path)))).mean() == pytest.approx(127.5, abs=0.01)

    def test_a_dark_picture_of_16_bits_stays_dark(self, tmp_path: Path) -> None:
        for suffix in ("png", "pgm", "tif"):
            path = saved(Image.fromarray(np.full((8, 8), 200, np.uint16)), tmp_path / f"dark.{suffix}")
            assert decode(path, 1, 8).eq(1).all()

    @pytest.mark.parametrize(
        ("dtype", "values", "expected"),
        [
            ("<i4", [0, 100, 255], [0, 100, 255]),
            ("<i4", [0, 257, 65535], [0, 1, 255]),
            ("<i4", [-100, 0, 100], [0, 128, 255]),
            ("<i4", [1_000_000, 1_500_000, 2_000_000], [0, 128, 255]),
            ("<f4", [0, 0.2, 1], [0, 51, 255]),
            ("<f4", [0.2, 0.2, 0.4], [51, 51, 102]),
            ("<f4", [0, 0.2, 1.05], [0, 51, 255]),
            ("<f4", [0, 100, 200], [0, 100, 200]),
            ("<f4", [0, 2570, 65535], [0, 10, 255]),
            ("<f4", [-1, 0, 1], [0, 128, 255]),
            ("<f4", [0, 5e37, 1e38], [0, 128, 255]),
            ("<f4", [float("nan"), 0.2, float("inf")], [0, 51, 255]),
            ("<f4", [-3e38, 0, 3e38], [0, 128, 255]),
            ("<f4", [float("nan")] * 3, [0, 0, 0]),
            ("<f4", [-5, -5, -5], [0, 0, 0]),
        ],
    )
    def test_range(self, tmp_path: Path, dtype: str, values: list[float], expected: list[int]) -> None:
        path = saved(Image.fromarray(np.tile(np.array(values, dtype), (3, 1))), tmp_path / "gray.tif")
        assert decode(path, 1, 3)[0, 0].tolist() == expected

    def test_unsigned_32_bits(self, tmp_path: Path) -> None:
        values = np.array([[0, 2**31, 2**32 - 1]] * 3, np.uint32)
        path = saved(Image.fromarray(values.view(np.int32)), tmp_path / "gray.tif")
        with_tag(path, 339, old=2, new=1)
        assert decode(path, 1, 3)[0, 0].tolist() == [0, 128, 255]

    def test_12_bits(self, tmp_path: Path) -> None:
        packed = np.frombuffer(b"\x80\x08\x00" * 128 + b"\xff" * 128, np.uint16).reshape(16, 16)  # 2048 everywhere
        path = saved(Image.fromarray(packed), tmp_path / "gray.tif")
        with_tag(path, 258, old=16, new=12)
        assert decode(path, 1, 16).eq(128).all()

    def test_white_is_zero(self, tmp_path: Path) -> None:
        path = saved(Image.fromarray(RAMP), tmp_path / "a.tif")
        with_tag(path, 262, old=1, new=0)
        assert decode(path, 1, 256)[0, [0, -1], [0, -1]].tolist() == [255, 0]

    @pytest.mark.parametrize("colour", [2, 6])
    def test_colour_of_16_bits(self, tmp_path: Path, colour: int) -> None:
        channels = [RAMP] * 3 + [np.full_like(RAMP, 65535)] * (colour == 6)
        path = tmp_path / "a.png"
        path.write_bytes(png(np.stack(channels, -1).astype(">u2"), 16, colour))
        assert decode(path, 3, 256).float().mean() == pytest.approx(127.5)


class TestOrientation:
    # Red top left, green top right, blue bottom left, white bottom right, as a person shall see them.
    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_upright(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        seen = np.zeros((32, 48, 3), np.uint8)
        seen[:16, :24], seen[:16, 24:], seen[16:, :24], seen[16:, 24:] = RED, GREEN, BLUE, WHITE
        stored = {
            1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.swapaxes(0, 1),
            6: np.rot90(seen, 1), 7: np.rot90(seen, 2).swapaxes(0, 1), 8: np.rot90(seen, -1),
        }[orientation]  # fmt: skip
        exif = Image.Exif()
        exif[274] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored))
        path = saved(image, tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix != "tif" else {}))
        pixels = decode(path, 3, 32)
        corners = [pixels[:, y, x].tolist() for y in (6, 25) for x in (6, 25)]
        for found, expected in zip(corners, (RED, GREEN, BLUE, WHITE), strict=True):
            assert found == pytest.approx(expected, abs=20)
        assert Image.open(io.BytesIO(thumbnail(path))).size == (48, 32)

    def test_wide_and_compressed(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 3
        for suffix, options in (("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("png", {})):
            path = saved(Image.fromarray(RAMP), tmp_path / f"a.{suffix}", exif=exif, **options)
            assert decode(path, 1, 256)[0, [0, -1], [0, -1]].tolist() == [255, 0]

    def test_damaged_exif_does_not_matter(self, tmp_path: Path) -> None:
        path = saved(Image.new("RGB", (16, 16), RED), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert decode(path, 3, 8)[:, 4, 4].tolist() == pytest.approx(RED, abs=3)


class TestTransparency:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        ("mode", "colour"),
        [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("PA", (0, 0))],
    )
    @pytest.mark.parametrize("suffix", ["png", "webp"])
    def test_hidden_colours_never_show(
        self, tmp_path: Path, mode: str, colour: Any, channels: int, suffix: str
    ) -> None:
        image = Image.new(mode, (16, 16), colour)
        if mode == "PA" or (suffix == "webp" and mode == "LA"):
            image = image.convert("RGBA")
        path = saved(image, tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        for size in (8, 16, 40):
            assert decode(path, channels, size).eq(255).all()

    def test_half_transparent(self, tmp_path: Path) -> None:
        path = saved(Image.new("RGBA", (8, 8), (200, 0, 100, 128)), tmp_path / "a.png")
        assert decode(path, 3, 8)[:, 0, 0].tolist() == pytest.approx([227.4, 127, 177.2], abs=1)

    def test_edges_have_no_fringe(self, tmp_path: Path) -> None:
        values = np.zeros((64, 64, 4), np.uint8)  # hidden black around a white disc: white all over
        y, x = np.mgrid[:64, :64]
        values[(y - 32) ** 2 + (x - 32) ** 2 < 400] = 255
        path = saved(Image.fromarray(values), tmp_path / "a.png")
        for size in (8, 24, 100):
            assert decode(path, 3, size).eq(255).all()

    def test_palettes(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 8), 0)
        image.putpalette([*BLUE, *RED, *GREEN])
        image.paste(1, (4, 0, 8, 8))
        by_index = saved(image, tmp_path / "a.png", transparency=0)
        by_bytes = saved(image, tmp_path / "b.png", transparency=bytes([0, 255, 9]))
        gif = saved(image, tmp_path / "c.gif", transparency=0)
        for path in (by_index, by_bytes, gif):
            pixels = decode(path, 3, 8)
            assert (pixels[:, 0, 0].tolist(), pixels[:, 0, 7].tolist()) == ([*WHITE], [*RED])

    def test_transparent_colour_of_gray(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(png(GRAY, 8, 0, (b"tRNS", struct.pack(">H", 100))))
        expected = np.where(GRAY == 100, 255, GRAY)
        assert np.array_equal(decode(path, 1, 16)[0], expected)
        path.write_bytes(png(RAMP.astype(">u2"), 16, 0, (b"tRNS", struct.pack(">H", 1000))))
        assert decode(path, 1, 256).flatten()[[998, 999, 1000, 1001]].tolist() == [4, 4, 255, 4]

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_transparent_colour_of_few_bits(self, tmp_path: Path, depth: int) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(png(np.zeros((8, depth), np.uint8), depth, 0, (b"tRNS", struct.pack(">H", 0))))
        assert decode(path, 3, 8).eq(255).all()
        key = 2**depth - 2 or 1
        byte = int(f"{key:0{depth}b}" * (8 // depth), 2)
        path.write_bytes(png(np.full((8, depth), byte, np.uint8), depth, 0, (b"tRNS", struct.pack(">H", key))))
        assert decode(path, 3, 8).eq(255).all()

    def test_transparent_colour_of_rgb(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        values = np.zeros((8, 8, 3), np.uint8)
        values[:, :4], values[:, 4:] = (10, 20, 30), RED
        path.write_bytes(png(values, 8, 2, (b"tRNS", struct.pack(">HHH", 10, 20, 30))))
        assert decode(path, 3, 8)[:, 0, [0, 7]].T.tolist() == [[*WHITE], [*RED]]
        wide = np.where(values == RED, 65535, values.astype(np.uint16) * 300).astype(">u2")
        path.write_bytes(png(wide, 16, 2, (b"tRNS", struct.pack(">HHH", *wide[0, 0].tolist()))))
        assert decode(path, 3, 8)[:, 0, 0].tolist() == [*WHITE]
        assert decode(path, 3, 8)[0, 0, 7] == 255


class TestDecode:
    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("LAB", "tif"), ("1", "png"), ("P", "gif")],
    )
    def test_modes(self, tmp_path: Path, mode: str, suffix: str) -> None:
        image = Image.new("RGB", (16, 16), WHITE)
        image.paste(RED if mode not in ("1", "LAB") else (0, 0, 0), (0, 0, 16, 8))
        if mode == "LAB":
            image = Image.new("LAB", (16, 16), (255, 128, 128))
            image.paste((0, 128, 128), (0, 0, 16, 8))
        path = saved(image.convert(mode) if image.mode != mode else image, tmp_path / f"a.{suffix}")
        pixels = decode(path, 3, 16)
        top = (0, 0, 0) if mode in ("1", "LAB") else RED
        assert pixels[:, 2, 8].tolist() == pytest.approx(top, abs=3)
        assert pixels[:, 13, 8].tolist() == pytest.approx(WHITE, abs=3)

    def test_agrees_with_scaling_all_and_cropping(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        for width, height in ((50, 37), (37, 50), (32, 32), (20, 33), (100, 9), (200, 150)):
            image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
            path = saved(image, tmp_path / "a.png")
            for size in (8, 32, 45):
                slow = F.center_crop(F.resize(F.pil_to_tensor(image), [size], antialias=True), [size, size])
                assert (decode(path, 3, size).int() - slow.int()).abs().max() <= 2

    @pytest.mark.parametrize("turned", [1, 6])
    @pytest.mark.parametrize(("width", "height"), [(1200, 800), (800, 1204), (803, 1201)])
    def test_large_jpeg_agrees_with_decoding_all(self, tmp_path: Path, width: int, height: int, turned: int) -> None:
        small = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[274] = turned
        fast = saved(image, tmp_path / "a.jpg", quality=90, exif=exif)
        exact = saved(Image.open(fast), tmp_path / "a.png", exif=exif)
        for size in (16, 32, 64):
            difference = (decode(fast, 3, size).int() - decode(exact, 3, size).int()).abs()
            whole = turned != 1 or (width % 8 == 0 and height % 8 == 0)
            assert difference.max() <= (3 if whole else 6)  # at the edge, where a pixel is there in part
            assert difference.float().mean() <= 0.6

    @pytest.mark.parametrize(("width", "height"), [(259, 387), (1031, 515)])
    def test_what_a_reduced_jpeg_has_in_part_moves_nothing(self, tmp_path: Path, width: int, height: int) -> None:
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        ramps = np.stack([across, down, 255 - across], 2).round().astype(np.uint8)
        fast = saved(Image.fromarray(ramps), tmp_path / "a.jpg", quality=95)
        exact = saved(Image.open(fast), tmp_path / "a.png")
        for size in (8, 16, 32):
            difference = decode(fast, 3, size).float() - decode(exact, 3, size).float()
            for axis in (1, 2):  # 33 columns for 32.375 would move the last ones by 5 levels
                assert difference.mean(axis).abs().max() <= 2

    @pytest.mark.parametrize("side", [(1, 5000), (5000, 1), (1, 1), (3, 100_000)])
    def test_elongated(self, tmp_path: Path, side: tuple[int, int]) -> None:
        path = saved(Image.new("RGB", side, RED), tmp_path / "a.png")
        pixels = decode(path, 3, 1024)
        assert pixels.shape == (3, 1024, 1024)
        assert pixels.flatten(1).float().mean(1).tolist() == [*RED]
        assert max(Image.open(io.BytesIO(thumbnail(path))).size) <= 256

    def test_first_of_several(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
        for suffix in ("gif", "tif", "png", "webp"):
            options = {"lossless": True} if suffix == "webp" else {}
            path = saved(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
            assert decode(path, 3, 8)[:, 4, 4].tolist() == [*RED]

    def test_several_in_one_jpeg(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (800, 800), colour) for colour in (RED, GREEN)]
        frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
        assert decode(tmp_path / "a.jpg", 3, 8)[:, 4, 4].tolist() == pytest.approx(RED, abs=2)

    def test_the_name_need_not_tell_the_format(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 8), RED).save(tmp_path / "a.jpg", format="PNG")
        assert decode(tmp_path / "a.jpg", 3, 8)[:, 4, 4].tolist() == [*RED]

    def test_no_program_is_started_for_a_file(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 8), RED).save(tmp_path / "a.png", format="EPS")
        with pytest.raises(ValueError, match="damaged, or none of JPEG, PNG"):
            decode(tmp_path / "a.png", 3, 8)

    def test_warns_of_nothing(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 8), 0)
        path = saved(image, tmp_path / "a.png", transparency=bytes([0, 255]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decode(path, 3, 8)


class TestUnreadable:
    def test_message(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(b"no picture")
        remedy = r"replace or remove it, or skip such files by `skip_corrupt=true`\.$"
        with pytest.raises(ValueError, match=r"^`.*a\.png` is no readable image \(damaged, or none of .*\); " + remedy):
            decode(path, 3, 8)
        for use in (lambda: decode(tmp_path / "b.png", 3, 8), lambda: fingerprint(tmp_path / "b.png")):
            with pytest.raises(ValueError, match=r"b\.png` is no readable image \(No such file or directory\)"):
                use()
        for empty in (tmp_path, tmp_path / "c.png"):
            (tmp_path / "c.png").touch()
            with pytest.raises(ValueError, match="is no readable image"):
                decode(empty, 3, 8)

    def test_truncated(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
        for suffix in ("jpg", "png", "tif", "bmp", "webp"):
            path = saved(image, tmp_path / f"a.{suffix}")
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
            for use in (lambda path=path: decode(path, 3, 8), lambda path=path: thumbnail(path)):
                with pytest.raises(ValueError, match="is no readable image"):
                    use()

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
    def test_too_many_pixels(self, tmp_path: Path, side: int, strict: bool) -> None:
        path = tmp_path / "a.png"
        content = bytearray(png(GRAY, 8, 0))
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if strict else "ignore")
            with pytest.raises(ValueError, match=r"is no readable image.*(exceed|pixels)"):
                decode(path, 3, 8)

    def test_limit_is_pillows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = saved(Image.new("RGB", (20, 20), RED), tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match=r"20 x 20 pixels exceed the 399 of PIL\.Image\.MAX_IMAGE_PIXELS"):
                decode(path, 3, 8)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert decode(path, 3, 8).shape == (3, 8, 8)


def gradient(mode: str) -> Image.Image:
    return Image.fromarray(np.stack([GRAY, GRAY.T, 255 - GRAY, GRAY], -1)).convert(mode)


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
FUZZED: dict[str, Callable[[io.BytesIO], None]] = {
    "gray.png": lambda file: gradient("L").save(file, "PNG"),
    "wide.png": lambda file: Image.fromarray(RAMP[::16, ::16].copy()).save(file, "PNG"),
    "palette.png": lambda file: gradient("P").save(file, "PNG", transparency=bytes(range(256))),
    "rgba.png": lambda file: gradient("RGBA").save(file, "PNG"),
    "a.jpg": lambda file: gradient("RGB").save(file, "JPEG", exif=TURNED),
    "cmyk.jpg": lambda file: gradient("RGB").convert("CMYK").save(file, "JPEG"),
    "a.gif": lambda file: gradient("P").save(file, "GIF", save_all=True, append_images=[gradient("P").rotate(90)]),
    "a.bmp": lambda file: gradient("RGB").save(file, "BMP"),
    "palette.bmp": lambda file: gradient("P").save(file, "BMP"),
    "a.tif": lambda file: gradient("RGBA").save(file, "TIFF"),
    "lzw.tif": lambda file: gradient("RGB").save(file, "TIFF", compression="tiff_lzw"),
    "wide.tif": lambda file: Image.fromarray(RAMP[::16, ::16].astype(np.float32)).save(file, "TIFF"),
    "a.webp": lambda file: gradient("RGBA").save(file, "WEBP"),
    "a.ppm": lambda file: gradient("RGB").save(file, "PPM"),
    "a.pgm": lambda file: Image.fromarray(RAMP[::16, ::16].copy()).save(file, "PPM"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUZZED)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    FUZZED[name](buffer)
    whole = buffer.getvalue()
    path = tmp_path / name
    path.write_bytes(whole)
    assert decode(path, 3, 8).shape == (3, 8, 8)
    generator = np.random.default_rng(0)
    refused = 0
    for round_ in range(300):
        content = bytearray(whole)
        reach = min(len(whole), 200) if round_ % 2 else len(whole)  # every other in the header, where it hurts
        for place in generator.integers(0, reach, 1 + round_ % 3).tolist():
            content[place] ^= 1 << int(generator.integers(8)) if round_ % 5 else int(generator.integers(1, 256))
        if round_ % 4 == 0:
            content = content[: int(generator.integers(len(content)))]
        path.write_bytes(content)
        try:
            pixels = decode(path, 3, 8)
            assert (pixels.shape, pixels.dtype) == ((3, 8, 8), torch.uint8)
            assert Image.open(io.BytesIO(thumbnail(path, 8))).size <= (8, 8)
        except ValueError as error:
            assert "is no readable image" in str(error)  # noqa: PT017
            refused += 1
    assert 0 < refused < 300


class TestThumbnail:
    def test_keeps_proportions_and_colours(self, tmp_path: Path) -> None:
        path = saved(Image.new("RGB", (600, 300), (200, 100, 50)), tmp_path / "a.png")
        image = Image.open(io.BytesIO(thumbnail(path)))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 128))
        assert image.getpixel((100, 100)) == (200, 100, 50)
        assert Image.open(io.BytesIO(thumbnail(path, 30))).size == (30, 15)

    def test_small_pictures_stay(self, tmp_path: Path) -> None:
        path = saved(Image.fromarray(GRAY), tmp_path / "a.png")
        image = Image.open(io.BytesIO(thumbnail(path)))
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), GRAY)

    def test_transparency_and_profiles_do_not_stay(self, tmp_path: Path) -> None:
        path = saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), tmp_path / "a.png", icc_profile=b"profile of the file")
        image = Image.open(io.BytesIO(thumbnail(path)))
        image.load()
        assert (image.mode, image.info) == ("RGB", {})
        assert np.asarray(image).min() == 255


class TestFingerprint:
    def test_value(self, tmp_path: Path) -> None:
        content = b"0123456789" * 200_000
        (tmp_path / "a.png").write_bytes(content)
        assert fingerprint(tmp_path / "a.png") == f"2000000-{hashlib.sha256(content).hexdigest()[:16]}"
        (tmp_path / "b.png").write_bytes(b"")
        assert fingerprint(tmp_path / "b.png") == "0-e3b0c44298fc1c14"

    def test_tells_content_and_not_names(self, tmp_path: Path) -> None:
        for name, content in (("a.png", b"one"), ("b.png", b"one"), ("c.png", b"two")):
            (tmp_path / name).write_bytes(content)
        prints = [fingerprint(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
        assert prints[0] == prints[1] != prints[2]
