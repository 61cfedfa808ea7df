"""Embeddings in a folder: found by other runs by what a sample holds; nothing stale, torn or of another is used."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data import Digits, FromDataset, ImageFolder, Vectors, embedding_files
from ssl_lightning.data.embedding_files import SUFFIX, EmbeddingFiles, match
from ssl_lightning.data.embeddings import Embeddings

ROWS = torch.arange(40.0).view(10, 4)


def names(places: list[int]) -> Any:
    return np.array([[place, place + 7] for place in places], dtype=np.uint64)


def memory(folder: Path | None, content: list[int] | None = None, maker: str = "encoder") -> Embeddings:
    """Return what remembers parts of ten samples, each known by a number."""
    found = Embeddings(lambda split: names(content or list(range(10))))
    found.keep_in(folder)
    return found.by(maker)


def test_others_find_what_one_kept(tmp_path: Path) -> None:
    one, other = memory(tmp_path), memory(tmp_path)
    one.keep("x/train", torch.arange(6), ROWS[:6])
    assert other.find("x/train", torch.arange(6)) is None  # not before it looks
    other.look("x/train")
    assert torch.equal(other.find("x/train", torch.tensor([5, 0])), ROWS[[5, 0]])  # type: ignore[arg-type]
    assert other.missing("x/train", torch.arange(10)).tolist() == [6, 7, 8, 9]
    other.keep("x/train", torch.arange(4, 10), ROWS[4:])
    one.look("x/train")
    assert torch.equal(one.find("x/train", torch.arange(10)), ROWS)  # type: ignore[arg-type]  # of two files
    assert len(list(tmp_path.glob(f"*/*{SUFFIX}"))) == 2


def test_what_the_look_at_one_part_read_is_found_for_another(tmp_path: Path) -> None:
    """As where a process looks at the test part between two passes over the pool, of which another encoded a share."""
    one, other = memory(tmp_path), memory(tmp_path)
    for part in ("x/train", "x/test"):
        other.look(part)
    one.keep("x/train", torch.arange(10), ROWS)
    other.look("x/test")
    other.look("x/train")
    assert torch.equal(other.find("x/train", torch.arange(10)), ROWS)  # type: ignore[arg-type]


def test_a_sample_is_known_by_what_it_holds(tmp_path: Path) -> None:
    memory(tmp_path).keep("x/train", torch.arange(10), ROWS)
    moved = memory(tmp_path, [3, 99, 0, 9])  # another order, one is new, some are gone
    moved.look("y/test")
    assert moved.missing("y/test", torch.arange(4)).tolist() == [1]
    assert torch.equal(moved.find("y/test", torch.tensor([0, 2, 3])), ROWS[[3, 0, 9]])  # type: ignore[arg-type]


def test_another_encoder_finds_nothing(tmp_path: Path) -> None:
    memory(tmp_path).keep("x/train", torch.arange(10), ROWS)
    other = memory(tmp_path, maker="another")
    other.look("x/train")
    assert len(other.missing("x/train", torch.arange(10))) == 10


@pytest.mark.parametrize("damage", ["half", "bit", "empty", "names"])
def test_a_damaged_file_is_removed(damage: str, tmp_path: Path) -> None:
    memory(tmp_path).keep("x/train", torch.arange(10), ROWS)
    [file] = tmp_path.glob(f"*/*{SUFFIX}")
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
    elif damage == "names":
        content[content.index(b"names") + 200] ^= 1
    file.write_bytes(bytes(content[: {"half": len(content) // 2, "empty": 0}.get(damage, len(content))]))
    other = memory(tmp_path)
    other.look("x/train")
    assert len(other.missing("x/train", torch.arange(10))) == 10
    assert not file.exists()


def test_a_draft_of_a_killed_run_is_not_read(tmp_path: Path) -> None:
    memory(tmp_path).keep("x/train", torch.arange(10), ROWS)
    [file] = tmp_path.glob(f"*/*{SUFFIX}")
    file.rename(file.with_suffix(".draft"))
    other = memory(tmp_path)
    other.look("x/train")
    assert len(other.missing("x/train", torch.arange(10))) == 10


def test_a_full_disk_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedding_files, "save_file", full)
    one = memory(tmp_path)
    with pytest.warns(UserWarning, match="No space left on device.*--cache FOLDER"):
        one.keep("x/train", torch.arange(10), ROWS)
    assert torch.equal(one.find("x/train", torch.arange(10)), ROWS)  # type: ignore[arg-type]


def test_one_at_a_time_encodes(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        one = memory(tmp_path)
        with one.filling("x/train", torch.arange(10)):
            os.write(writer, b"!")
            time.sleep(0.3)
            one.keep("x/train", torch.arange(10), ROWS)
        os._exit(0)
    os.read(reader, 1)  # it has the lock
    other = memory(tmp_path)
    with other.filling("x/train", torch.arange(10)):
        assert not len(other.missing("x/train", torch.arange(10)))  # it waited
    os.waitpid(child, 0)


def test_a_run_that_hangs_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_files, "WAIT", 0.2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with EmbeddingFiles(tmp_path, "encoder").lock():
            os.write(writer, b"!")
            time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    with EmbeddingFiles(tmp_path, "encoder").lock():
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_matching_against_a_dictionary() -> None:
    generator = np.random.default_rng(0)
    there = generator.integers(0, 2**64, (500, 2), dtype=np.uint64)
    wanted = np.concatenate([there[generator.permutation(500)[:200]], generator.integers(0, 2**64, (50, 2), np.uint64)])
    numbers = {tuple(row): place for place, row in enumerate(there.tolist())}
    assert match(wanted, there).tolist() == [numbers.get(tuple(row), -1) for row in wanted.tolist()]
    assert match(wanted, there[:0]).tolist() == [-1] * 250
    half = there.copy()
    half[:, 1] += 1  # the first 64 bits alone are not enough
    assert set(match(wanted, half).tolist()) == {-1}


def test_names_are_of_the_content(tmp_path: Path) -> None:
    def of(data: Any, split: str = "train") -> set[tuple[int, ...]]:
        data.setup(None)
        return set(map(tuple, data.sample_names(split).tolist()))

    assert len(of(Digits(split_seed=0)) | of(Digits(split_seed=0), "test")) > 1790  # a few are exact copies
    for place in range(8):
        folder = tmp_path / "pictures" / ("cat" if place % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((24, 24), 10 + 20 * place).save(folder / f"{place}.png")
    options: dict[str, Any] = {"root": str(tmp_path / "pictures"), "test_size": 0.0}
    lazy, decoded = {"memory_gib": 0.0}, {}
    for how in (lazy, decoded):
        before = of(ImageFolder(image_size=16, **options, **how))
        assert len(before) == 8
        assert before == of(ImageFolder(image_size=16, **options, **how))
        assert not before & of(ImageFolder(image_size=12, **options, **how))  # read at another size
        (tmp_path / "pictures" / "cat" / "1.png").rename(tmp_path / "pictures" / "dog" / "other.png")
        assert before == of(ImageFolder(image_size=16, **options, **how))
        Image.effect_noise((24, 24), 99).save(tmp_path / "pictures" / "dog" / "other.png")
        assert len(before & of(ImageFolder(image_size=16, **options, **how))) == 7
        (tmp_path / "pictures" / "dog" / "other.png").rename(tmp_path / "pictures" / "cat" / "1.png")
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    first = of(Vectors(path=str(tmp_path / "rows.npy"), test_size=0.0))
    rows[4] += 1  # the same keys
    np.save(tmp_path / "rows.npy", rows)
    assert len(first & of(Vectors(path=str(tmp_path / "rows.npy"), test_size=0.0))) == 19
    foreign = torch.utils.data.TensorDataset(torch.rand(12, 1, 8, 8), torch.arange(12) % 2)
    assert len(of(FromDataset(foreign, test_size=0.0))) == 12
