"""Images with captions: tables as people write them, what is wrong with them, splits, views, what a person sees."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data import Pairs
from ssl_lightning.functional.retrieval import content_ids
from ssl_lightning.labelling.label_studio import Project, as_task, labelling_config
from ssl_lightning.labelling.records import Query
from ssl_lightning.labelling.shown import keep_sight, see
from ssl_lightning.testing import check_data
from ssl_lightning.transforms.base import clean_of
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import CleanPair, Pair, PairViews
from ssl_lightning.transforms.text.tokens import CLS, SEP


def pictures(folder: Path, count: int) -> None:
    drawn = np.random.default_rng(0)
    for place in range(count):
        Image.fromarray(drawn.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{place}.png")


def table(folder: Path, lines: list[str], name: str = "pairs.csv", header: str = "image,caption,class") -> str:
    path = folder / name
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return str(path)


def pairs(folder: Path, lines: list[str] | None = None, count: int = 20, **options: Any) -> Pairs:
    pictures(folder, count)
    lines = lines or [
        f"{place}.png,number {place} of many,{'even' if place % 2 == 0 else 'odd'}" for place in range(count)
    ]
    given = {"image_size": 8, "vocab_size": 300, "val_size": 0.2, "batch_size": 4, **options}
    return Pairs(table(folder, lines, header=given.pop("header", "image,caption,class")), **given)


def test_the_contract_of_data(tmp_path: Path) -> None:
    check_data(lambda: pairs(tmp_path))
    data = pairs(tmp_path, test_size=0)
    assert data.class_names == ("even", "odd")
    assert {"channels", "image_size", "vocab_size", "max_length", "vocabulary", "tokenizer", "caption"} < set(
        data.facts
    )
    data.setup("fit")
    assert data.train_samples is not None
    batch = data.train_samples.__getitems__([0, 3, 5])
    assert isinstance(batch.input, Pair)
    assert batch.input.image.dtype == torch.uint8
    ids, length = batch.input.text
    assert ids[:, 0].tolist() == [CLS] * 3
    assert ids[torch.arange(3), length - 1].tolist() == [SEP] * 3
    keys = [data.train_samples.keys[place] for place in (0, 3, 5)]
    assert [data.tokens.decode(row[:end]) for row, end in zip(ids, length, strict=True)] == [
        f"number {key.removesuffix('.png')} of many" for key in keys
    ]


def test_captions_of_one_picture_are_on_one_side_and_it_is_kept_once(tmp_path: Path) -> None:
    lines = [f"{place}.png,{word} {place}," for place in range(30) for word in ("a", "the", "one", "the")]
    for val_size in (0.3, 24):
        data = pairs(tmp_path, lines, 30, val_size=val_size, test_size=0.3)
        data.setup()
        assert data.train_samples is not None
        assert data.test_samples is not None
        parts = [
            {data.train_samples.keys[place].partition("#")[0] for place in places.tolist()}
            for places in (data.train_indices, data.val_indices)
        ]
        parts.append({key.partition("#")[0] for key in data.test_samples.keys})
        assert all(parts)
        assert sum(map(len, parts)) == 30
        both = len(data.train_samples) + len(data.test_samples)
        assert both == 120
        assert len(data.train_samples.images) == len(data.train_samples) // 4  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="passed over 10 pictures"):
        few = pairs(tmp_path, lines[:80], 20, test_size=0.3, skip_corrupt=True)
    assert set(few._by_key) < set(data._by_key)
    test = {row.key for row in few.rows["test"]}
    assert test == {row.key for row in data.rows["test"]} & set(few._by_key)  # none changed sides


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2.png,,x", r"line 4: the caption of `2.png` is empty; mend"),
        ("2.png, ,x", r"line 4: the caption of `2.png` is empty; mend"),
        (",a word,x", r"line 4: it names no picture; mend"),
        ("missing.png,a word,x", r"line 4: the picture of its caption is missing \(.*missing.png\); mend"),
        ("9.png,a word", r"line 4: 2 cells under 3 columns"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_pair(line: str, message: str, tmp_path: Path) -> None:
    lines = ["0.png,zero,a", "1.png,one,b", line, "2.png,two,a"]
    with pytest.raises(ValueError, match=rf"^`path=.*pairs.csv`, {message}"):
        pairs(tmp_path, lines, 3)
    if "cells" not in message:
        with pytest.warns(UserWarning, match=r"skipped 1 of 4 lines of `path=.*` \(1 .*\), the first is line 4"):
            data = pairs(tmp_path, lines, 3, skip_corrupt=True)
        assert len(data._by_key) == 3


def test_pictures_without_a_caption_and_unreadable_ones(tmp_path: Path) -> None:
    lines = [f"{place}.png,number {place},a" for place in range(5)]
    with pytest.raises(ValueError, match=r"the picture `.*5.png` has no caption in any line, as have 1 more; add"):
        pairs(tmp_path, lines, 7)
    with pytest.warns(UserWarning, match=r"passed over 2 pictures without a caption, such as `.*5.png`"):
        pairs(tmp_path, lines, 7, skip_corrupt=True)
    for name in ("5.png", "6.png"):
        (tmp_path / name).unlink()
    data = pairs(tmp_path, lines, 5, test_size=0)
    (tmp_path / "3.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"^`path=.*pairs.csv`, line 5: `.*3.png` is no readable image"):
        data.setup("fit")
    data = Pairs(str(tmp_path / "pairs.csv"), image_size=8, skip_corrupt=True, test_size=0)
    with pytest.warns(UserWarning, match=r"skipped 1 unreadable of 5 images; the first is that of `path=.*, line 5"):
        data.setup("fit")
    assert data.train_samples is not None
    assert list(data.train_samples.keys) == ["0.png", "1.png", "2.png", "4.png"]


def test_tables_of_another_kind(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    path = tmp_path / "bad.csv"
    path.write_bytes(b"image,caption\n0.png,zero\n1.png,caf\xe9\n")
    with pytest.raises(ValueError, match=r"^`path=.*bad.csv`, line 3: byte 0xe9 is no UTF-8; save"):
        Pairs(str(path))
    with pytest.raises(
        ValueError, match=r"has the columns `image`, `words`; required are `image` .* and `caption`, named"
    ):
        Pairs(table(tmp_path, ["0.png,a"], header="image,words"))
    with pytest.raises(ValueError, match=r"line 2: the key `k` is empty or there twice"):
        Pairs(table(tmp_path, ["0.png,a,k", "1.png,b,k"], header="image,caption,key"))
    with pytest.raises(ValueError, match=r"`path=nowhere.csv` is no file"):
        Pairs("nowhere.csv")


def test_columns_joined_semicolons_and_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures(tmp_path / "images", 3)
    lines = [f"{place}.png;name {place};more, {place};{place}" for place in range(3)]
    path = table(tmp_path, lines, header="Image;Name;Keywords;Key")
    data = Pairs(path, caption=["name", "keywords"], image_size=8, test_size=0)
    assert data.show("2").caption == "name 2; more, 2"
    assert data.path_of("1") == str(tmp_path / "images" / "1.png")


def test_a_long_caption_is_cut_and_said(tmp_path: Path) -> None:
    data = pairs(tmp_path, ["0.png,zero,", "1.png," + "word " * 100_000 + ","], 2, test_size=0, val_size=0)
    with pytest.warns(UserWarning, match=r"cut 1 of 2 texts to `max_length=128` tokens"):
        data.setup("fit")
    assert data.train_samples is not None
    assert data.train_samples.__getitems__([0, 1]).input.text.values.shape == (2, 128)


def test_a_person_sees_picture_and_caption(tmp_path: Path) -> None:
    data = pairs(tmp_path)
    shown = data.show("3.png")
    assert (shown.kind, shown.caption) == ("image", "number 3 of many")
    keep_sight(tmp_path, "3.png", "f", *shown)
    sight = see(tmp_path, "3.png", "f")
    assert sight is not None
    assert (sight.kind, sight.text) == ("image", "number 3 of many")
    assert "$caption" in labelling_config("image", ["a"], captioned=True)
    project = Project(1, "class", "sample", "Image", "image", ("even",), "")
    query = Query(key="3.png", fingerprint="f", round=0, position=0)
    assert as_task(project, query, shown)["data"]["caption"] == "number 3 of many"
    before = data.fingerprint("3.png")
    again = pairs(tmp_path, [f"{place}.png,another,a" for place in range(20)])
    assert again.fingerprint("3.png") != before


def test_views_are_of_each_pair_and_never_of_what_fills_up() -> None:
    torch.manual_seed(0)
    length = torch.tensor([9, 3, 5, 7])
    ids = torch.randint(5, 99, (4, 9)).masked_fill(torch.arange(9) >= length[:, None], 0)
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    ids[:, 0], ids[torch.arange(4), length - 1] = CLS, SEP
    short = Pair(images, Padded(ids, length))
    long = Pair(images, Padded(torch.cat([ids, torch.zeros(4, 11, dtype=torch.int64)], 1), length))
    views = PairViews(count=2, drop=0.4)
    one, other = (views(some, torch.Generator().manual_seed(1)) for some in (short, long))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.text.length, b.text.length)
        assert torch.equal(a.text.values, b.text.values[:, : a.text.values.shape[1]])
        assert (a.text.length < length).any()
    assert not torch.equal(one[0].image, one[1].image)
    assert clean_of(views) is views.clean
    assert torch.equal(content_ids(short)[1], content_ids(long)[1])
    whole = PairViews(count=1, crop_scale=(1, 1), strength=0, grayscale=0, drop=0)(short)[0]
    torch.testing.assert_close(whole.image, CleanPair()(short).image)
    assert torch.equal(whole.text.values, ids)


def test_from_a_table_to_classes_of_another(command: Any, tmp_path: Path) -> None:
    """Labels are asked for, the report shows pictures with captions, and a checkpoint alone predicts another table."""
    pairs(tmp_path, [f"{place}.png,{'one' if place % 2 else 'two'} of {place},{place % 2}" for place in range(30)], 30)
    data = ["--data", "Pairs", "--data.path", "pairs.csv", "--data.image_size", "8", "--data.val_size", "0"]
    model = ["--model", "Classifier", "--model.backbone", "TwoTowers", "--model.backbone.dim", "8"]
    model += ["--model.backbone.image_args.width", "4", "--model.backbone.text_args.depth", "1"]
    length = ["--rounds", "1", "--steps_per_epoch", "2", "--trainer.max_epochs", "1", "--initial", "4"]
    chosen = ["--strategy", "Margin", "--strategy.query_size", "3", "--trainer.accelerator", "cpu"]
    status, out = command("active", *data, *model, *length, *chosen, "--trainer.devices", "1", "--folder", "run")
    assert status == 0, out
    assert (tmp_path / "run" / "tokenizer.json").is_file()
    status, out = command("report", "run")
    assert status == 0, out
    assert re.search(r'role="img"[^>]*></span><q>(one|two) of \d+</q>', (tmp_path / "run" / "report.html").read_text())
    table(tmp_path, ["3.png,one more,", "4.png,two,"], "new.csv")
    status, out = command("predict", "run", "new.csv", "--output", "found.csv")
    assert status == 0, out
    assert [line.split(",")[1] for line in (tmp_path / "found.csv").read_text().splitlines()[1:]] == ["3.png", "4.png"]
    table(tmp_path, ["3.png,one more,", "5000.png,two,"], "new.csv")
    status, out = command("predict", "run", "new.csv")
    assert status == 2
    assert "`source=new.csv`, line 3: the picture of its caption is missing" in out
