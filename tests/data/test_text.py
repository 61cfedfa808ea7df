"""Texts of a person's own: files of every kind, what is wrong with them, classes, tokens, and what goes with a run."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import DATA
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch.utils.data import DataLoader

from ssl_lightning.checkpoint import Checkpoint, require_facts
from ssl_lightning.data import Texts
from ssl_lightning.data.text import content_of, texts_to_predict
from ssl_lightning.data.text_files import Columns
from ssl_lightning.data.tokenizing import Tokenizer, pretrained
from ssl_lightning.transforms.text import CLS, MASK, SEP, SPECIAL

WORDS = {"animals": ["cat", "dog", "fish", "bird", "horse"], "colours": ["red", "green", "blue", "grey", "pink"]}


def sentences(count: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """Return texts of two classes, and their classes."""
    random = np.random.default_rng(seed)
    found = []
    for place in range(count):
        label = list(WORDS)[place % 2]
        found.append((" ".join(random.choice([*WORDS[label], "the", "a"], random.integers(3, 15))), label))
    return found


def write_csv(path: Path, rows: list[Any], header: list[str] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])
    return path


def texts(path: Path, **options: Any) -> Texts:
    return Texts(str(path), **{"vocab_size": 300, "val_size": 0, "test_size": 0, **options})


def content(data: Texts) -> dict[str, str]:
    """Return the class of each text."""
    data.setup("fit")
    assert data.train_samples is not None
    names = [*data.class_names, ""]
    return {
        str(data.show(key).content): names[target]
        for key, target in zip(data.train_samples.keys, data.train_samples.targets.tolist(), strict=True)
    }


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = [*sentences(8), ('nobody, knows \u2013 "this"', "")]
    expected = dict(rows)
    write_csv(tmp_path / "a.csv", rows, ["text", "class"])
    write_csv(tmp_path / "no_header.csv", [[label, *text.split(" ", 1)] for text, label in rows])
    (tmp_path / "semi.csv").write_text("\ufeffLabel;Text\r\n" + "".join(
        f'{label};"{text.replace(chr(34), chr(34) * 2)}"\r\n' for text, label in rows
    ))  # fmt: skip
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": text, "label": label or None}) for text, label in rows)
    )
    for place, (text, label) in enumerate(rows):
        file = tmp_path / "folder" / label / f"{place}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "plain.txt").write_text("\n\n".join(text for text, _ in rows) + "\n")
    named = Columns(text=["first", "rest"], label="class", names=["class", "first", "rest"])
    assert content(texts(tmp_path / "a.csv")) == expected
    assert content(texts(tmp_path / "no_header.csv", columns=named)) == expected
    assert content(texts(tmp_path / "semi.csv")) == expected
    assert content(texts(tmp_path / "a.jsonl")) == expected
    assert content(texts(tmp_path / "plain.txt")) == dict.fromkeys(expected, "")
    folder = texts(tmp_path / "folder")
    assert content(folder) == expected
    assert folder.path_of("animals/0.txt") == str(tmp_path / "folder" / "animals" / "0.txt")
    assert folder.fingerprint("animals/0.txt") == content_of(rows[0][0])
    assert content_of(rows[0][0]) in texts(tmp_path / "a.csv")._rows


def test_keys_are_contents_or_named_and_samples_do_not_change_sides(tmp_path: Path) -> None:
    rows = [(text, label) for text, label in sentences(40)]
    data = texts(write_csv(tmp_path / "a.csv", rows, ["text", "label"]), test_size=0.3)
    more = texts(
        write_csv(tmp_path / "b.csv", [("a new one", "colours"), *rows[::-1], rows[0]], ["text", "label"]),
        test_size=0.3,
    )
    assert set(data._parts["test"]) <= set(more._parts["test"])
    assert set(data._parts["train"]) <= set(more._parts["train"])
    copies = [key for key in more._rows if "~copy" in key]
    assert len(copies) == len(more._rows) - len({row.text for row in more._rows.values()})
    named = texts(
        write_csv(tmp_path / "c.csv", [("x", "one text"), ("y", "two")], ["id", "text"]), columns=Columns(key="id")
    )
    assert named._parts["train"] == ["x", "y"]
    assert named.fingerprint("x") == content_of("one text")
    assert data.fingerprint(data._parts["train"][0]) is None
    with pytest.raises(ValueError, match=r"line 2, and .*line 4, have the same key `x`; a key names one text"):
        texts(write_csv(tmp_path / "e.csv", [("x", "1"), ("y", "2"), ("x", "3")], ["key", "text"]))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.csv", b"text,class\ngood,x\n  ,x\n", r"`path=.*a.csv`, line 3, has an empty text; mend it, or add `skip"),
        ("a.csv", b"text,class\ngood,x\nb\xffd,x\n", r"line 3, is not UTF-8 \(character 2 of `b"),
        ("a.csv", b"text,class\ngood,x\nb,c,x\n", r"line 3, has 3 cells under 2 columns \(put what holds `,` into"),
        ("a.csv", b"text,class\ngood,x\nbad\n", "line 3, has 1 cells under 2 columns"),
        ("a.csv", b'text,class\n"go\nod",x\n,x\n', "line 4, has an empty text"),
        ("a.jsonl", b'{"text": "good"}\n{"text": 3.5}\n', r"line 2, has no text in the field `text` \(its fields:"),
        ("a.jsonl", b'{"text": "good"}\n["bad"]\n', r"line 2, is list and no object"),
        ("a.jsonl", b'{"text": "good"}\n{"text": \n', r"line 2, is no JSON"),
        ("a.jsonl", b'{"text": "good"}\n{"text": "b\\ud800d"}\n', r"line 2, has half a character \(character 2"),
        ("a.jsonl", b'{"text": "good"}\n{"text": "bad", "label": 0.5}\n', r"line 2, has the class 0.5, which"),
        ("a.txt", b"good\nb\xffd\n", r"line 2, is not UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_or_skipped_and_counted(name: str, body: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ValueError, match=message) as raised:
        texts(tmp_path / name)
    assert "\n" not in str(raised.value)
    with pytest.warns(UserWarning, match=r"skipped 1 of 2 texts: `path="):
        data = texts(tmp_path / name, skip_corrupt=True)
    assert len(data._rows) == 1


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (b"title,topic\na,b\n", {}, r"has no column `text`; its columns are `title`, `topic`: say which hold what by"),
        (b"text\na\n", {"columns": Columns(label="topic")}, r"has no column `topic`; its columns are `text`"),
        (b"a,b\n", {"columns": Columns(names=["a", "text", "c"])}, r"has 2 columns, and `columns.names` names 3;"),
        (b"a,b\n", {"columns": Columns(names=["a", "b"])}, r"`columns.names=a,b` does not name `text`"),
        (b"text,class\na,5\nb,1\n", {"class_names": ["x", "y"]}, "written as 1 to 5, and `class_names` names 2:"),
        (b"text,class\na,1\nb,0\nc,z\n", {"class_names": ["x", "y"]}, r"line 4, has the class `z`, which is none of"),
        (b"text,class\na,x\n", {"class_names": ["x", "x"]}, "must name each class once"),
        (b"text,class\na,x\n", {"class_names": "none.txt"}, r"`class_names=none.txt` is no text file"),
        (b"", {}, r"has no column `text`; its columns are none"),
        (b"text\n\n", {}, r"holds no text that can be used"),
        (b"text\na\n", {"vocab_size": 200}, r"`vocab_size=200` must be at least 261"),
        (b"text\na\n", {"tokenizer": "none.json"}, r"`tokenizer=none.json` is no tokenizer.json, and no folder"),
        (b"text\na\n", {"test_path": "none.csv"}, r"`test_path=none.csv` does not exist"),
        (b"text\na\n", {"max_length": 2}, r"`max_length=2` must be at least 3"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(body: bytes, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(body)
    with pytest.raises(ValueError, match=message) as raised:
        texts(tmp_path / "a.csv", **options).setup("fit")
    assert "\n" not in str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(ValueError, match=r"is none of .csv, .tsv, .jsonl and .txt, and no folder"):
        texts(tmp_path / "a.doc")
    with pytest.raises(ValueError, match=r"`path=.*none.csv` does not exist"):
        texts(tmp_path / "none.csv")


def test_classes_by_name_or_number_from_0_or_1(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("World\nSport\nTrade\n")
    for labels in (("1", "3", "2", ""), ("0", "2", "1", ""), ("World", "Trade", "Sport", "")):
        path = write_csv(
            tmp_path / "a.csv", [(f"text {place}", label) for place, label in enumerate(labels)], ["text", "class"]
        )
        data = texts(path, class_names=str(tmp_path / "names.txt"))
        assert data.class_names == ("World", "Sport", "Trade")
        assert content(data) == {"text 0": "World", "text 1": "Trade", "text 2": "Sport", "text 3": ""}
    write_csv(tmp_path / "a.csv", [("x", "10"), ("y", "9"), ("z", "10")], ["text", "class"])
    assert texts(tmp_path / "a.csv").class_names == ("9", "10")


@pytest.mark.long
def test_the_tokenizer_is_of_the_training_part_and_the_same_in_any_process(tmp_path: Path) -> None:
    train, test = sentences(50), [("zyxwv " * 3, "animals")] * 3
    write_csv(tmp_path / "train.csv", train, ["text", "class"])
    write_csv(tmp_path / "test.csv", test, ["text", "class"])
    data = texts(tmp_path / "train.csv", test_path=str(tmp_path / "test.csv"), limit=10)
    known = data.tokens.tokens(range(data.vocab_size))
    assert "\u0120fish" in known
    assert not any("zyx" in token for token in known)
    assert data.vocabulary == Tokenizer.train([text for text, _ in train][::-1], 300).digest
    assert data.vocabulary == Tokenizer.from_json(data.tokenizer).digest != Tokenizer.train(["other"], 300).digest
    code = (
        "import sys; from ssl_lightning.data.tokenizing import Tokenizer; "
        "print(Tokenizer.train(open(sys.argv[1]).read().splitlines(), 2000).digest)"
    )
    corpus = sorted({text for text, _ in sentences(400, seed=1)})
    (tmp_path / "corpus.txt").write_text("\n".join(corpus), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "corpus.txt")], capture_output=True, text=True, check=True,
        env={**os.environ, "RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.strip() == Tokenizer.train(corpus, 2000).digest


def test_tokens_there_and_back() -> None:
    tokenizer = Tokenizer.train([text for text, _ in sentences()], 300)
    odd = "[MASK] <s> \u65e5\u672c \U0001f600 caf\u00e9 \x00 unseen-words"
    ids = tokenizer.encode(["The  red\tFish", odd, "e\u0301", "\u00c9"])
    assert all(row[0] == CLS and row[-1] == SEP and min(row[1:-1]) >= SPECIAL for row in ids)
    assert tokenizer.decode(ids[0]) == "the red fish"
    assert tokenizer.decode(ids[1]) == odd.lower()
    assert ids[2] == ids[3]  # one normal form, one case
    values, lengths = tokenizer.encode_end_to_end([odd, "The fish"], 5)
    assert values.tolist() == [number for row in tokenizer.encode([odd, "The fish"], 5) for number in row]
    assert lengths.tolist() == [5, 4]
    starts = tokenizer.word_starts[torch.tensor(tokenizer.encode(["blueish, dog's fish"])[0])].tolist()
    words = tokenizer.tokens(tokenizer.encode(["blueish, dog's fish"])[0])
    assert [word for word, start in zip(words, starts, strict=True) if start] == [
        "[CLS]", "\u0120blue", ",", "\u0120dog", "'", "\u0120fish", "[SEP]",
    ]  # fmt: skip


def test_a_long_text_is_cut_and_counted(tmp_path: Path) -> None:
    rows = [("cat dog",), ("fish " * 100_000,), ("x" * 200_000,)]
    data = texts(write_csv(tmp_path / "a.csv", rows, ["text"]), max_length=10)
    with pytest.warns(UserWarning, match=r"cut 2 of 3 texts to `max_length=10` tokens; the longest has"):
        data.setup("fit")
    assert data.train_samples is not None
    batch = next(iter(DataLoader(data.train_samples, 3, collate_fn=lambda found: found, sampler=range(3))))
    assert sorted(batch.input.length.tolist())[1:] == [10, 10]
    assert (batch.input.values[torch.arange(3), batch.input.length - 1] == SEP).all()
    longest = max(data._rows, key=lambda key: len(data._rows[key].text))
    assert len(str(data.show(longest).content)) < 2010


def test_another_tokenizers_special_tokens_change_places(tmp_path: Path) -> None:
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer, engine.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    corpus = [text for text, _ in sentences()]
    special = ["[SEP]", "[unused]", "[MASK]", "[CLS]", "[UNK]", "[PAD]"]
    engine.train_from_iterator(
        corpus, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    engine.save(str(tmp_path / "tokenizer.json"))
    mine = pretrained(f"hf:{tmp_path}")
    ids = mine.encode(["The fish"])[0]
    assert mine.tokens([MASK, CLS, SEP]) == ["[MASK]", "[CLS]", "[SEP]"]
    assert mine.tokens(ids) == ["[CLS]", *engine.encode("the fish", add_special_tokens=False).tokens, "[SEP]"]
    assert len(set(mine.tokens(range(mine.vocab_size)))) == mine.vocab_size
    assert not mine.word_starts[
        [place for place, token in enumerate(mine.tokens(range(mine.vocab_size))) if "##" in token]
    ].any()
    engine = Engine(models.BPE())
    engine.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"the tokenizer has no special token \[PAD\] or <pad>, .*take one of a model"):
        pretrained(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"it is no tokenizer\.json"):
        pretrained(str(tmp_path))


def test_a_run_keeps_its_tokenizer_and_refuses_another(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    """Fit, resume on other texts, classify from the checkpoint, predict files by the checkpoint alone."""
    write_csv(tmp_path / "a.csv", sentences(80), ["text", "class"])
    small = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    data = ["--data", "Texts", "--data.vocab_size", "300", "--data.batch_size", "16", "--data.path"]
    encoder = ["--model.backbone", "TextTransformer", "--model.backbone.dim", "16", "--model.backbone.depth", "1"]
    status, out = command(
        "fit", *data, "a.csv", "--model", "MaskedText", *encoder, "--model.backbone.heads", "2", *small,
        "--trainer.max_steps", "2", "--folder", "ssl",
    )  # fmt: skip
    assert status == 0, out
    own = Tokenizer.load(tmp_path / "ssl")
    opened = Checkpoint.open(tmp_path / "ssl" / "checkpoints" / "last.ckpt")
    assert opened.facts["tokenizer"] == own.json
    assert opened.backbone.init_args["vocabulary"] == opened.facts["vocabulary"] == own.digest
    write_csv(tmp_path / "b.csv", [*sentences(80), *[("quite other words are here", "colours")] * 9], ["text", "class"])
    last = ["--model.checkpoint", "ssl/checkpoints/last.ckpt"]
    status, out = command("fit", *data, "b.csv", "--model", "Classifier", *last, *small, "--folder", "c")
    assert status == 2
    assert "was trained on the tokens of another tokenizer than that of the data; take its own" in out
    assert "--data.tokenizer RUN" in out
    assert len(out) < 1500, "no message prints the tokenizer"
    status, out = command(
        "fit", *data, "b.csv", "--model", "MaskedText", *encoder, "--model.backbone.heads", "2", *small,
        "--folder", "ssl", "--ckpt_path", "ssl/checkpoints/last.ckpt", "--trainer.max_steps", "4",
    )  # fmt: skip
    assert status == 2
    assert "these texts give another: they have changed; add `--data.tokenizer ssl`" in out
    status, out = command(
        "fit", *data, "b.csv", "--data.tokenizer", "ssl", "--model", "Classifier", *last, *small,
        "--trainer.max_steps", "2", "--folder", "c",
    )  # fmt: skip
    assert status == 0, out
    (tmp_path / "new.txt").write_text("red fish\n\nblue bird and a dog\n")
    status, out = command("predict", "c", "new.txt", "--output", "p.csv")
    assert status == 0, out
    with (tmp_path / "p.csv").open() as file:
        assert [row["class"] in WORDS for row in csv.DictReader(file)] == [True, True]
    write_csv(tmp_path / "new.csv", [("red fish", "animals"), ("", "animals")], ["Text", "class"])
    with pytest.warns(UserWarning, match="skipped 1 of 2 texts"):
        part = texts_to_predict(str(tmp_path / "new.csv"), opened.facts)
    assert list(part.labels) == ["animals"]
    assert own.decode(part.samples.__getitems__([0]).input.values[0]) == "red fish"
    with pytest.raises(ValueError, match=r"the encoder was trained on the tokens of another tokenizer") as raised:
        require_facts(opened.backbone, texts(tmp_path / "b.csv").facts, "the encoder")
    assert "\n" not in str(raised.value)


def test_ag_news_is_read_as_it_is() -> None:
    if not (DATA / "agnews").is_dir():
        pytest.skip(f"no agnews in {DATA}")
    columns = Columns(["title", "description"], "topic", names=["topic", "title", "description"])
    data = Texts(str(DATA / "agnews" / "test.csv"), columns, str(DATA / "agnews" / "classes.txt"))
    assert len(data._rows) == 7600
    assert data.class_names == ("World", "Sports", "Business", "Sci/Tech")
    assert np.bincount(list(data._targets.values())).tolist() == [1900] * 4
    assert 0.17 < len(data._parts["test"]) / 7600 < 0.23
