"""What all data with texts have in common: a tokenizer of their own, kept with the run and in every checkpoint."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.tokenizing import FILE, LEAST, Tokenizer, pretrained
from ssl_lightning.engine.ranges import whole

_TRAINED: dict[str, Tokenizer] = {}  # the last one, by what it was trained on: a run builds its data each round


class TokenizedData(DataModule):
    """Base of the data modules with texts.

    Args:
        path: What the texts are read from, for messages.
        tokenizer: Path of a `tokenizer.json`, or of a run's folder, or `hf:NAME` for that of a model of Hugging Face;
            null to train one on the training part.
        vocab_size: Tokens at most of a tokenizer that is trained, 256 for the bytes and 5 special ones included.
        kwargs: As for `DataModule`.
    """

    max_length: int
    fact_names: ClassVar[tuple[str, ...]] = (
        *DataModule.fact_names, "vocabulary", "vocab_size", "max_length", "tokenizer",
    )  # fmt: skip

    def __init__(self, path: str, tokenizer: str | None, vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        whole(LEAST, vocab_size=vocab_size)
        self.path, self._source, self._size = path, tokenizer, vocab_size

    @abstractmethod
    def training_texts(self) -> Sequence[str]:
        """Return the texts of the training part, labelled or not."""

    @cached_property
    def tokens(self) -> Tokenizer:
        """The tokenizer: the one that was given, else trained on the training part; the same in every process."""
        if self._source is not None:
            return pretrained(self._source)
        texts = self.training_texts()
        if not texts:
            raise ValueError(f"`path={self.path}` leaves no text to train on; add some, or lower `test_size`.")
        digest = hashlib.sha256(f"{self._size}".encode())
        for text in texts:
            digest.update(text.encode() + b"\0")
        if digest.hexdigest() not in _TRAINED:
            _TRAINED.clear()
            _TRAINED[digest.hexdigest()] = Tokenizer.train(texts, self._size)
        return _TRAINED[digest.hexdigest()]

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.tokens.vocab_size

    @property
    def vocabulary(self) -> str:
        """Short hash of the tokenizer, which tells an encoder that its tokens are these."""
        return self.tokens.digest

    @property
    def tokenizer(self) -> str:
        """What the tokenizer's file holds: a checkpoint keeps it."""
        return self.tokens.json

    def save(self, folder: Path) -> None:
        """Write the tokenizer into the folder of a run.

        Raises:
            ValueError: If checkpoints are there that were made with another one.
        """
        file = folder / FILE
        if (
            file.is_file()
            and Tokenizer.load(file).digest != self.vocabulary
            and list(folder.glob("checkpoints/*.ckpt"))
        ):
            raise ValueError(
                f"`folder={folder}` holds the tokenizer of its run, and these texts give another: they have changed; "
                f"add `--data.tokenizer {folder}` to go on with it, or give another folder."
            )
        self.tokens.save(folder)

    def setup(self, stage: str | None = None) -> None:
        """Load what a stage needs, and see that all processes have one tokenizer.

        Raises:
            ValueError: If they have not, as where a file has changed while they began.
        """
        super().setup(stage)
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return
        if trainer.strategy.broadcast(self.vocabulary) != self.vocabulary:
            raise ValueError(f"`path={self.path}` was another file for the first process; begin again.")
