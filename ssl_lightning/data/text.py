"""Texts of a person's own: a table, JSON lines or plain text, with a tokenizer trained on them."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.data.samples import Part, Samples, Shown, Split, number_copies
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.data.text_files import Columns, Row, names_of, number_labels, read_texts
from ssl_lightning.data.tokenized import TokenizedData
from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.engine.hparams import as_settings
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.transforms.base import Unchanged
from ssl_lightning.transforms.text import text_views

SHOWN = 2000  # characters that a person sees of a text


class Texts(TokenizedData):
    """Texts of your own, as tokens: a CSV file, JSON lines, a text file with a text a line, or a folder of text files.

    A folder holds `CLASS/*.txt`, or files without a class, or either under `train`, `val` and `test`. Keys are paths
    there, else what the column of keys holds, else the hash of the text. Without a test part, `test_size` of the
    labelled texts are set apart, each by its own key. A class is written as a name, or as a number in `class_names`;
    where it is empty the text is unlabelled.

    The tokenizer is trained on all texts of the training part, labelled or not, whatever `limit` says: byte pairs,
    lower-cased. It lies in the run's folder (`tokenizer.json`) and in every checkpoint; where texts have changed since,
    `tokenizer` takes it from there.

    Args:
        path: File .csv, .tsv, .jsonl or .txt, or a folder.
        columns: What the columns of a table hold: `text` (one or several), `label`, `key`, and `names` where there is
            no header.
        class_names: Of all classes in order, or a file with one on each line; null for those that are written.
        test_path: File of the test part, likewise; null to set some of `path` apart.
        test_size: Fraction of the labelled texts for test where there is no test part; 0 for none.
        tokenizer: Path of a `tokenizer.json`, or of a run's folder, or `hf:NAME` for that of a model of Hugging Face;
            null to train one.
        vocab_size: Tokens at most of a tokenizer that is trained, 256 for the bytes and 5 special ones included.
        max_length: Tokens at most of a text, its beginning and end included; longer ones are cut, and counted.
        skip_corrupt: Leave texts out that cannot be read or are empty, and count them, instead of stopping at the
            first.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If a file is missing or of another kind, or a row cannot be used.
    """

    fact_names: ClassVar[tuple[str, ...]] = (*TokenizedData.fact_names, "text_columns")

    def __init__(
        self,
        path: str,
        columns: Columns | None = None,
        class_names: list[str] | str | None = None,
        test_path: str | None = None,
        test_size: float = 0.2,
        tokenizer: str | None = None,
        vocab_size: int = 8000,
        max_length: int = 128,
        skip_corrupt: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, tokenizer, vocab_size, **kwargs)
        between(0, 1, "[)", test_size=test_size)
        whole(3, max_length=max_length)
        self.test_size, self.skip_corrupt, self.max_length = test_size, skip_corrupt, max_length
        self.columns = as_settings(Columns, columns, "columns", "a `Columns`, such as `Columns(text='title')`")
        rows = read_texts("path", path, self.columns, skip_corrupt)
        test = [] if test_path is None else read_texts("test_path", test_path, self.columns, skip_corrupt)
        names, targets = number_labels([*rows, *test], names_of(class_names))
        self.class_names, self.num_classes = names, max(1, len(names))
        self._named = all(row.key is not None for row in rows)
        keys = _keys(rows, "train/" if test else "") + _keys(test, "test/")
        self._rows = dict(zip(keys, [*rows, *test], strict=True))
        self._targets = dict(zip(keys, targets, strict=True))
        if len(self._rows) < len(keys):
            raise ValueError(f"`{'key' if self._named else 'path'}`: {_twice(keys, [*rows, *test])}")
        self._parts = self._drawn(keys, len(rows))

    def _drawn(self, keys: list[str], first: int) -> dict[Split, list[str]]:
        """Return the keys of each part, sorted; those behind `first` come from the file of the test part."""
        told = {key for key in keys[:first] if self._rows[key].part == "test"} | set(keys[first:])
        if not told and self.test_size > 0:
            labelled = [key for key in keys if self._targets[key] >= 0]
            drawn = chosen_by_share(labelled, self.test_size, self.split_seed, "test").tolist()
            told = {key for key, test in zip(labelled, drawn, strict=True) if test}
        return {"train": sorted(set(keys) - told), "test": sorted(told)}

    def training_texts(self) -> list[str]:
        """Return the texts of the training part, labelled or not."""
        return [self._rows[key].text for key in self._parts["train"]]

    @property
    def text_columns(self) -> dict[str, Any]:
        """What the columns of a table hold, for whoever predicts another."""
        return asdict(self.columns)

    def load(self, split: Split) -> Samples:
        """Return the tokens of one part, in the order of its keys."""
        keys = self._parts[split]
        targets = torch.tensor([self._targets[key] for key in keys], dtype=torch.int64)
        if bool((targets >= 0).any()):
            tell_missing(targets, self.class_names, "test" if split == "test" else "training", "add some")
        return tokenized(self.tokens, [self._rows[key].text for key in keys], self.max_length, targets, keys)

    def split(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Draw the validation part, or take the folder that holds it."""
        val = torch.tensor([self._rows[key].part == "val" for key in samples.keys])
        if not val.any():
            return super().split(samples)
        return (~val).nonzero()[:, 0], val.nonzero()[:, 0]

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return views by leaving out tokens, spans and ends."""
        return text_views(count, mild)

    def show(self, key: str) -> Shown:
        """Return the text, its first 2,000 characters."""
        text = self._row(key).text
        return Shown("text", text if len(text) <= SHOWN else f"{text[:SHOWN]} ...")

    def path_of(self, key: str) -> str | None:
        """Return the file of a text that has one of its own."""
        return self._row(key).path

    def fingerprint(self, key: str) -> str | None:
        """Return the hash of a text; null where that is its key already."""
        return content_of(self._row(key).text) if self._named else None

    def _row(self, key: str) -> Row:
        if key not in self._rows:
            raise ValueError(f"`key={key}` is no sample of `path={self.path}`; give one of its keys.")
        return self._rows[key]


def tokenized(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, targets: Tensor, keys: Sequence[str]
) -> RaggedSamples:
    """Return texts as samples of tokens, int32, end to end.

    Args:
        tokenizer: Turns texts into tokens.
        texts: N of them.
        max_length: Tokens at most of each.
        targets: Classes `(N,)`; -1 where unknown.
        keys: Of the samples.
    """
    return RaggedSamples(*tokenizer.encode_end_to_end(texts, max_length), targets, keys)


def texts_to_predict(source: str, facts: dict[str, Any]) -> Part:
    """Read texts that a checkpoint is to predict, with its own tokenizer, in the order of the file.

    Args:
        source: As `path` of `Texts`. What its columns hold is what they held at training; where it lacks these, `text`.
        facts: Of the data that the checkpoint was trained on.

    Raises:
        ValueError: If there is no text, or the checkpoint brings no tokenizer.
    """
    if not isinstance(facts.get("tokenizer"), str):
        raise ValueError("the checkpoint does not tell its tokenizer; name the data by `--data CLASS` and its options.")
    told = facts.get("text_columns")
    known = Columns(**told) if isinstance(told, dict) else Columns()
    tries = [known, replace(known, label=None, key=None), replace(known, label=None, key=None, names=None), Columns()]
    reasons = []
    for columns in tries:
        try:
            rows = read_texts("source", source, columns, skip_corrupt=True)
            break
        except ValueError as error:
            reasons.append(error)
    else:
        raise reasons[0]
    names = tuple(facts.get("class_names") or ())
    labels = [row.label for row in rows]
    with suppress(ValueError):  # classes of another set stay as they are written
        labels = [names[number] if number >= 0 else "" for number in number_labels(rows, names)[1]]
    targets = torch.full((len(rows),), -1)
    tokenizer, longest = Tokenizer.from_json(facts["tokenizer"]), int(facts.get("max_length") or 128)
    samples = tokenized(tokenizer, [row.text for row in rows], longest, targets, _keys(rows, ""))
    return Part("", samples, [row.path or "" for row in rows], labels, Unchanged())


def content_of(text: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _keys(rows: Sequence[Row], prefix: str) -> list[str]:
    """Name texts by what they are called, else by their content, which may be in both parts."""
    named = [row.key for row in rows]
    if all(key is not None for key in named):
        return [str(key) for key in named]
    return [f"{prefix}{key}" for key in number_copies(content_of(row.text) for row in rows)]


def _twice(keys: Sequence[str], rows: Sequence[Row]) -> str:
    """Say which key is there twice."""
    first: dict[str, Row] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in first:
            return f"{first[key].where} and {row.where} have the same key `{key}`; a key names one text."
        first[key] = row
    return "a key is there twice."
