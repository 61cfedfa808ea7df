"""Spoken digits: the free set of 3,000 short recordings of six speakers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from ssl_lightning.data.audio import AudioData, LazySounds, in_memory
from ssl_lightning.data.samples import Samples, Split
from ssl_lightning.engine.ranges import one_of

NAME = re.compile(r"([0-9])_([^_]+)_([0-9]+)\.wav")
TEST_TAKES = 5  # of each digit and speaker, the first


class Take(NamedTuple):
    """One recording.

    Attributes:
        name: Of its file, which is its key.
        digit: That is spoken.
        speaker: Who speaks.
        number: Of the take.
    """

    name: str
    digit: int
    speaker: str
    number: int


class SpokenDigits(AudioData):
    """3,000 spoken English digits of six speakers, 50 takes of each digit (Free Spoken Digit Dataset), 8,000 samples a second.

    Files are called `{digit}_{speaker}_{number}.wav`, which are the keys. The usual test part is takes 0 to 4 of every
    speaker, 300 in all; harder are speakers that nobody heard in training.

    Args:
        root: Folder of the files.
        test: The test part: the first `takes` of everybody, or all takes of some `speakers`.
        test_speakers: Those of the test part, where it is speakers.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If there are no such files in the folder, or a speaker is unknown.
    """  # noqa: E501

    num_classes, class_names, sample_rate = 10, tuple("0123456789"), 8000
    fixed: ClassVar[bool] = True

    def __init__(
        self,
        root: str = "data/fsdd",
        test: Literal["takes", "speakers"] = "takes",
        test_speakers: Sequence[str] = ("theo", "yweweler"),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        one_of(("takes", "speakers"), test=test)
        self.root, self.test, self.test_speakers = Path(root), test, tuple(test_speakers)
        names = sorted(path.name for path in self.root.glob("*.wav"))
        parts = {name: NAME.fullmatch(name) for name in names}
        self.takes = [Take(name, int(found[1]), found[2], int(found[3])) for name, found in parts.items() if found]
        if not self.takes:
            raise ValueError(
                f"`root={root}` holds no file such as `7_theo_0.wav` ({self.root.resolve()}); give the folder "
                "`recordings` of the Free Spoken Digit Dataset."
            )
        speakers = sorted({take.speaker for take in self.takes})
        unknown = [name for name in self.test_speakers if name not in speakers]
        if test == "speakers" and (unknown or not 0 < len(set(self.test_speakers)) < len(speakers)):
            raise ValueError(
                f"`test_speakers={list(self.test_speakers)}` must be some, and not all, of {', '.join(speakers)}."
            )

    def load(self, split: Split) -> Samples:
        """Decode one part."""
        chosen = [take for take in self.takes if self._tests(take) == (split == "test")]
        targets = torch.tensor([take.digit for take in chosen], dtype=torch.int64)
        names = [take.name for take in chosen]
        lazy = LazySounds([self.root / name for name in names], targets, names, self.sample_rate)
        return in_memory(lazy) if chosen else lazy

    def _tests(self, take: Take) -> bool:
        return take.number < TEST_TAKES if self.test == "takes" else take.speaker in self.test_speakers

    def path_of(self, key: str) -> str | None:
        """Return the file of a sample."""
        return str(self.root / key)
