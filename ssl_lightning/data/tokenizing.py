"""Tokens: what turns texts into numbers, trained on a person's own texts, or taken from elsewhere."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Engine
from torch import Tensor

from ssl_lightning.engine.ranges import whole
from ssl_lightning.transforms.text.tokens import (
    CLS,
    NAMES,
    SEP,
    SPECIAL,
    digest_of,
    numbers_in,
    order_of,
    special_ids,
    tokenizer_json,
)
from ssl_lightning.transforms.text.tokens import FILE as FILE

LEAST = SPECIAL + 256  # special tokens, and a token for each byte
WORD = 100  # characters of a word, at most, that is learnt from
CHUNK = 4096  # texts at a time


class Tokenizer:
    """Texts to numbers of tokens, and back.

    The special tokens are 0 to 4 in every vocabulary (`transforms/text/tokens.py`); those of another's change places.
    What a text says never becomes one: `[MASK]` in it is six characters.

    Args:
        text: What a `tokenizer.json` of the library `tokenizers` holds.

    Raises:
        ValueError: If it is none, or has no special tokens as BERT's or RoBERTa's.

    Example:
        >>> tokenizer = Tokenizer.train(["one fish", "two fish"] * 2, vocab_size=270)
        >>> ids = tokenizer.encode(["Two fish"])[0]
        >>> ids[0] == CLS, ids[-1] == SEP, tokenizer.decode(ids)
        (True, True, 'two fish')
    """

    def __init__(self, text: str) -> None:
        numbers = numbers_in(text)
        try:
            special = special_ids(numbers)
        except ValueError as error:
            raise ValueError(
                f"the tokenizer has no special token {error}; take one of a model like BERT or RoBERTa, or none, to "
                "train one on your texts."
            ) from error
        try:
            engine = Engine.from_str(text)
        except Exception as error:  # the library raises plain exceptions
            raise ValueError(f"the tokenizer cannot be built ({str(error)[:200]}); give another.") from error
        engine.no_padding()
        engine.no_truncation()
        engine.encode_special_tokens = True
        self._engine, self.json = engine, text
        self.vocab_size = 1 + max(numbers.values())
        self._theirs = order_of(special, self.vocab_size).tolist()
        self._ours = torch.tensor(self._theirs).argsort().tolist()
        self._alike = self._ours == list(range(self.vocab_size))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8000) -> "Tokenizer":
        """Train byte pairs on texts, lower-cased, in normal form C, with runs of white space as one space.

        Every byte is a token: no word is unknown. The same texts, in any order, give the same tokenizer in any process.

        Args:
            texts: To be trained on.
            vocab_size: Tokens at most, special ones and bytes included; few texts have fewer.

        Raises:
            ValueError: If `vocab_size` is too small for the bytes.

        Reference:
            R. Sennrich, B. Haddow, A. Birch, Neural Machine Translation of Rare Words with Subword Units, ACL 2016,
            arXiv 1508.07909; on bytes as in GPT-2.
        """
        whole(LEAST, vocab_size=vocab_size)
        _quiet_forks()
        engine = Engine(models.BPE())
        engine.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        engine.decoder = decoders.ByteLevel()
        names = [ours for ours, _ in NAMES]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=names,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=64,  # of a file of copies, whole texts would be tokens
            show_progress=False,
        )
        engine.train_from_iterator(map(_in_pieces, texts), trainer)
        first, last = names[CLS], names[SEP]
        engine.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}", special_tokens=[(first, CLS), (last, SEP)]
        )
        return cls(engine.to_str())

    @classmethod
    def load(cls, path: str | Path, argument: str = "tokenizer") -> "Tokenizer":
        """Read a tokenizer.

        Args:
            path: Of a `tokenizer.json`, or of a folder that holds one, as a run's or that of a model of Hugging Face.
            argument: Name of the argument that gave the path, for messages.

        Raises:
            ValueError: If there is none.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise ValueError(
                f"`{argument}={path}` is no {FILE}, and no folder that holds one ({file.resolve()}); give that of a "
                "run on text, or leave it out to train one on your texts."
            )
        try:
            return cls(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ValueError(f"`{argument}={path}`: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Build a tokenizer of what a `tokenizer.json` holds."""
        return cls(text)

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into a folder, and return its path."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.json, encoding="utf-8")
        return path

    @cached_property
    def digest(self) -> str:
        """Short hash that tells tokenizers apart."""
        return digest_of(self.json)

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Turn texts into numbers of tokens.

        Args:
            texts: Any.
            max_length: Tokens at most of a text, at least 3; longer ones are cut, and a warning counts them. Null for
                no end.

        Returns:
            Of each text its tokens, between `CLS` and `SEP`.
        """
        return [row for chunk in self._chunks(texts, max_length) for row in chunk]

    def encode_end_to_end(self, texts: Sequence[str], max_length: int | None = None) -> tuple[Tensor, Tensor]:
        """Turn texts into numbers of tokens, as `encode`, one text behind the other.

        Returns:
            The tokens, int32; the length of each text, int64.
        """
        values, lengths = [torch.empty(0, dtype=torch.int32)], [torch.empty(0, dtype=torch.int64)]
        for chunk in self._chunks(texts, max_length):
            values.append(torch.tensor([number for row in chunk for number in row], dtype=torch.int32))
            lengths.append(torch.tensor([len(row) for row in chunk]))
        return torch.cat(values), torch.cat(lengths)

    def _chunks(self, texts: Sequence[str], max_length: int | None) -> Iterator[list[list[int]]]:
        if max_length is not None:
            whole(3, max_length=max_length)
        _quiet_forks()
        cut = longest = 0
        for start in range(0, len(texts), CHUNK):
            found = self._engine.encode_batch_fast(list(texts[start : start + CHUNK]), add_special_tokens=False)
            rows = [
                encoding.ids if self._alike else [self._ours[number] for number in encoding.ids] for encoding in found
            ]
            if max_length is not None:
                longest = max(longest, *map(len, rows))
                cut += sum(len(row) > max_length - 2 for row in rows)
                rows = [row[: max_length - 2] for row in rows]
            yield [[CLS, *row, SEP] for row in rows]
        if cut:
            rank_zero_warn(
                f"cut {cut} of {len(texts)} texts to `max_length={max_length}` tokens; the longest has {longest + 2}."
            )

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Return the text of numbers of tokens, without special ones."""
        numbers = [self._theirs[int(number)] for number in ids if int(number) >= SPECIAL]
        return self._engine.decode(numbers, skip_special_tokens=True).strip()

    def tokens(self, ids: Sequence[int] | Tensor) -> list[str]:
        """Return each token as the vocabulary writes it."""
        return [self._engine.id_to_token(self._theirs[int(number)]) or "" for number in ids]

    @cached_property
    def word_starts(self) -> Tensor:
        """Tell which tokens begin a word, `(vocab_size,)`, boolean; special ones and punctuation are their own."""
        tokens = self.tokens(range(self.vocab_size))
        pieces = json.loads(self.json)["model"].get("type") == "WordPiece"
        mark = "Ġ" if any(token.startswith("Ġ") for token in tokens) else "▁"

        def begins(token: str) -> bool:
            if pieces:
                return not token.startswith("##")
            return token.startswith(mark) or (token[:1].isascii() and not token[:1].isalnum())

        return torch.tensor([place < SPECIAL or begins(token) for place, token in enumerate(tokens)])


def _in_pieces(text: str) -> str:
    """Part what has no space for a hundred characters, as encoded data: to learn from such takes minutes."""
    return re.sub(rf"(\S{{{WORD}}})(?=\S)", r"\1 ", text) if any(len(word) > WORD for word in text.split()) else text


def _quiet_forks() -> None:
    """Let loader workers start without the library's advice: they use no tokenizer."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def pretrained(source: str, argument: str = "tokenizer") -> Tokenizer:
    """Take a tokenizer from elsewhere.

    Args:
        source: Path of a `tokenizer.json` or of a folder that holds one, or `hf:NAME` for that of a model of Hugging
            Face, which is downloaded once.
        argument: Name of the argument, for messages.

    Raises:
        ValueError: If there is none, or it cannot be had.
    """
    if not source.startswith("hf:"):
        return Tokenizer.load(source, argument)
    try:
        return Tokenizer(tokenizer_json(source.removeprefix("hf:")))
    except ValueError as error:
        raise ValueError(f"`{argument}={source}`: {error}") from error
