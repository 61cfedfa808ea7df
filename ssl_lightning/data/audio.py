"""Anybody's own folder of sounds, of any length, rate and number of channels."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from lightning.pytorch.utilities import rank_zero_warn
from scipy.signal import resample_poly
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.decoding import fingerprint
from ssl_lightning.data.files import find_files
from ssl_lightning.data.folders import FolderData
from ssl_lightning.data.listing import Kind, printable
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.data.samples import Batch, Part, Samples, Shown
from ssl_lightning.engine.ranges import above, given, whole
from ssl_lightning.transforms.audio import LogMel, audio_views
from ssl_lightning.transforms.padded import fill_up

SOUNDS = Kind(frozenset({".wav", ".flac", ".ogg"}), "sound", "sounds", "sounds")
FRAME = 0.025  # seconds: a sound that is shorter is not even one frame of a spectrogram


class Header(NamedTuple):
    """What a file of sound says of itself.

    Attributes:
        rate: Samples a second.
        frames: Samples of each channel.
    """

    rate: int
    frames: int


def unreadable(path: Path, error: Exception) -> ValueError:
    """Return the message on a file that cannot be used.

    Args:
        path: Of the file.
        error: Why.
    """
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return ValueError(
        f"`{printable(str(path))}` is no readable sound ({printable(reason.strip().rstrip('.'))[:200]}); replace or "
        "remove it, or skip such files by `skip_corrupt=true`."
    )


def read_header(path: Path) -> Header:
    """Read how long a sound is.

    Raises:
        ValueError: If the file is no readable sound; the message names it.
    """
    try:
        about = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise unreadable(path, error) from error
    return Header(int(about.samplerate), int(about.frames))


def decode_sound(path: Path, sample_rate: int, max_seconds: float | None = None, resample: bool = True) -> Tensor:
    """Read one sound: its channels mixed to one, at the rate that is wanted.

    Floats of more than 1 (a file may hold such) are scaled down to a peak of 1, so that nothing is cut.

    Args:
        path: Of the file.
        sample_rate: Samples a second of the result.
        max_seconds: Read so much of its begin; null for all.
        resample: Take sounds of other rates, too, by a polyphase filter.

    Returns:
        int16, `(T,)`, at least `FRAME` seconds.

    Raises:
        ValueError: If the file is no readable sound, is empty, shorter than a frame, of another rate where that is not
            wanted, or holds NaN; the message names it.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = int(file.samplerate)
            count = -1 if max_seconds is None else math.ceil(max_seconds * rate)
            channels: npt.NDArray[np.float32] = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError, RuntimeError) as error:
        raise unreadable(path, error) from error
    if rate != sample_rate and not resample:
        raise _another_rate(path, rate, sample_rate)
    if not len(channels):
        raise unreadable(path, ValueError("it is empty"))
    if len(channels) < FRAME * rate:
        milliseconds = 1000 * len(channels) / rate
        raise unreadable(path, ValueError(f"it lasts {milliseconds:.3g} ms, less than a frame of {1000 * FRAME:g} ms"))
    if not np.isfinite(channels).all():
        raise unreadable(path, ValueError("it holds NaN or infinity"))
    values = channels.mean(axis=1, dtype=np.float64)
    if rate != sample_rate:
        common = math.gcd(rate, sample_rate)
        values = resample_poly(values, sample_rate // common, rate // common)
    values /= max(1.0, float(np.abs(channels).max()))
    return torch.from_numpy(np.rint(values * 32768).clip(-32768, 32767).astype(np.int16))


def _another_rate(path: Path, rate: int, sample_rate: int) -> ValueError:
    return ValueError(
        f"`{printable(str(path))}` has {rate} samples a second, and `sample_rate={sample_rate}` with `resample=false`; "
        f"give `sample_rate={rate}`, or `resample=true`."
    )


def wav(values: Tensor, sample_rate: int) -> bytes:
    """Return a sound `(T,)`, int16, as the bytes of a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, values.cpu().numpy(), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


class LazySounds(Dataset[Batch]):
    """Sounds decoded when asked for, where they are too many to keep; use `num_workers`.

    Args:
        paths: Files.
        targets: `(N,)`, int64.
        keys: Of the samples.
        sample_rate: Samples a second.
        max_seconds: As for `decode_sound`.
        resample: Likewise.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        keys: Sequence[str],
        sample_rate: int,
        max_seconds: float | None = None,
        resample: bool = True,
    ) -> None:
        self.paths, self.targets, self.keys = paths, targets, keys
        self.options = (sample_rate, max_seconds, resample)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(type(batch.input)(*(leaf[0] for leaf in batch.input)), batch.target[0], batch.index[0])

    def __getitems__(self, indices: list[int]) -> Batch:
        sounds = [decode_sound(self.paths[index], *self.options) for index in indices]
        return Batch(fill_up(sounds), self.targets[indices], torch.as_tensor(indices))


def in_memory(lazy: LazySounds) -> RaggedSamples:
    """Decode sounds and keep them."""
    with ThreadPoolExecutor() as pool:
        sounds = list(pool.map(lambda path: decode_sound(path, *lazy.options), lazy.paths))
    return RaggedSamples(torch.cat(sounds), torch.tensor([len(sound) for sound in sounds]), lazy.targets, lazy.keys)


class AudioData(DataModule):
    """Base of the data modules of sounds: samples are `Padded`, int16, `(N, T)`.

    Args:
        kwargs: As for `DataModule`.
    """

    sample_rate: int
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "sample_rate")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def clean(self) -> nn.Module:
        """Return the logarithm of the mel spectrogram, with the default normalisation."""
        return LogMel(self.sample_rate)

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return random parts at other speeds, with noise, mixing and masks; or mild ones."""
        return audio_views(self.sample_rate, count, mild)

    def show(self, key: str) -> Shown:
        """Return the sound as a model gets it, as WAV."""
        samples, place = self.find(key)
        return Shown("audio", wav(samples.__getitems__([place]).input.values[0], self.sample_rate))


class AudioFolder(FolderData, AudioData):
    """Your own folder of sounds: `root/CLASS/sound.wav`, or `root/sound.wav` without labels, or either under `train`, `val` and `test`.

    Files `.wav`, `.flac` and `.ogg`, of any length and rate; several channels are mixed to one. Folders, parts, the table
    `labels.csv` and keys are as for `ImageFolder`. Sounds are decoded once and kept in memory as far as `memory_gib` goes,
    else decoded when needed.

    Args:
        root: The folder.
        sample_rate: Samples a second that models get; sounds of other rates are resampled, and it is said how many.
        max_seconds: Take so much of a sound's begin; null for all, however long.
        resample: Take sounds of other rates; else the first such file ends the run.
        test_size: Fraction of the labelled sounds for test where there is no `test` folder; 0 for none.
        skip_corrupt: Leave unreadable files out and count them, instead of stopping at the first.
        memory_gib: Keep decoded sounds in memory up to this many GiB a part.
        labels: CSV file with the columns `path` (below `root`) and `class`; null for a `labels.csv` in `root`, if any.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If the folder is missing or empty, a file cannot be used, or the table does not fit.
    """  # noqa: E501

    kind: ClassVar[Kind] = SOUNDS
    fact_names: ClassVar[tuple[str, ...]] = (*AudioData.fact_names, "max_seconds")  # `predict` takes as much

    def __init__(
        self,
        root: str,
        sample_rate: int = 16000,
        max_seconds: float | None = 10.0,
        resample: bool = True,
        test_size: float = 0.2,
        skip_corrupt: bool = False,
        memory_gib: float = 2.0,
        labels: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root=root, test_size=test_size, skip_corrupt=skip_corrupt, memory_gib=memory_gib, labels=labels, **kwargs
        )
        whole(1000, sample_rate=sample_rate)
        above(FRAME, "a frame lasts so long", **given(max_seconds=max_seconds))
        self.sample_rate, self.max_seconds, self.resample = sample_rate, max_seconds, resample
        self._rates_told = False

    def open_files(self, paths: Sequence[Path], targets: Tensor, keys: Sequence[str]) -> Samples:
        """Decode sounds as far as memory goes."""
        headers = self._headers(paths)
        self._tell_rates()
        lazy = LazySounds(paths, targets, keys, self.sample_rate, self.max_seconds, self.resample)
        longest = math.inf if self.max_seconds is None else self.max_seconds
        seconds = sum(min(longest, header.frames / header.rate) for header in headers if header is not None)
        if not paths or 2 * seconds * self.sample_rate > self.memory_gib * 2**30:
            return lazy
        return in_memory(lazy)

    def _headers(self, paths: Sequence[Path]) -> list[Header | None]:
        def header_of(path: Path) -> Header | None:
            try:
                return read_header(path)
            except ValueError:  # said where it is decoded
                return None

        with ThreadPoolExecutor() as pool:
            return list(pool.map(header_of, paths))

    def _tell_rates(self) -> None:
        """Say once how many sounds are resampled, and how many are cut."""
        if self._rates_told:
            return
        self._rates_told = True
        found = [header for header in self._headers([file.path for file in self.found.files]) if header is not None]
        others = Counter(header.rate for header in found if header.rate != self.sample_rate)
        if others and self.resample:
            each = ", ".join(f"{count} of {rate}" for rate, count in sorted(others.items()))
            rank_zero_warn(
                f"`{self.root}`: {others.total()} of {len(found)} sounds have another rate than "
                f"`sample_rate={self.sample_rate}` and are resampled: {each} samples a second"
            )
        longer = [header for header in found if self.max_seconds and header.frames > self.max_seconds * header.rate]
        if longer:
            rank_zero_warn(
                f"`{self.root}`: {len(longer)} of {len(found)} sounds are longer than `max_seconds={self.max_seconds}`:"
                " only so much of their begin is taken"
            )

    def check_file(self, path: Path) -> None:
        """Decode a sound."""
        decode_sound(path, self.sample_rate, self.max_seconds, True)  # another rate is no damage

    def fingerprint(self, key: str) -> str | None:
        """Return size and hash of a sample's file."""
        return fingerprint(self._file(key), unreadable)


def sounds_to_predict(source: str, facts: dict[str, Any]) -> Part:
    """Find sounds to be predicted, as a reader of `predict` does.

    Args:
        source: A folder of sounds, with or without sub-folders, or one sound.
        facts: Of the data that the checkpoint was trained on.
    """
    path = Path(source)
    files = [(str(path), path)] if path.is_file() else [(f.key, f.path) for f in find_files(path, None, SOUNDS).files]
    keys, paths = [key for key, _ in files], [found for _, found in files]
    rate = int(facts["sample_rate"])
    sounds = LazySounds(paths, torch.full((len(files),), -1), keys, rate, facts.get("max_seconds"))
    return Part("", sounds, [str(path) for path in paths], [""] * len(files), LogMel(rate))
