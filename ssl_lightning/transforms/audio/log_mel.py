"""From samples of sound to what encoders of sound take: the logarithm of a mel spectrogram."""

import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ssl_lightning.engine.ranges import above, given, one_of, sizes, whole
from ssl_lightning.transforms.base import Clean
from ssl_lightning.transforms.padded import Padded, inside

Norm = Literal["sample", "band", "none"]
SILENCE = 1e-10  # power of a frame below which nothing is heard, of samples from -1 to 1
GROUP = 2**17  # samples that are worked on at once
WIDEST = 2**16  # points of a Fourier transform


class LogMel(Clean):
    r"""The logarithm of the power in mel bands, frame by frame, normalised over the sound's own frames.

    A frame is a Hann window that lies within the sound: of L samples there are :math:`1 + \lfloor (L - w) / h \rfloor`
    with a window of w samples and h from one to the next, and at least one, for which a shorter sound is filled up with
    silence. So no frame reaches beyond the end, and none depends on what else is in the batch. Bands are triangles
    of height 1, their corners evenly spaced in mel, :math:`m = 2595 \log_{10}(1 + f / 700)`; power is kept down to
    `range_db` below the sound's loudest band and frame.

    Args:
        sample_rate: Samples a second; filled in from the data on the command line.
        mels: Number of bands, which the encoder must be told too.
        window_ms: Length of a frame's window in milliseconds.
        hop_ms: Milliseconds from one frame to the next.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz; null for half the sample rate.
        range_db: Decibels from the loudest to what is taken for silence.
        norm: Subtract mean and divide by standard deviation, over the frames of the sound: of all bands together
            (`sample`, which takes the loudness away and keeps the spectrum's shape), of each (`band`, which takes away
            what microphone and voice always add, and needs sounds of some length), or not at all (`none`).

    Raises:
        ValueError: If the numbers do not go together.

    Example:
        >>> sound = torch.randint(-99, 99, (2, 2000), dtype=torch.int16, generator=torch.Generator().manual_seed(0))
        >>> frames = LogMel(8000, mels=16)(Padded(sound, torch.tensor([2000, 840])))
        >>> frames.values.shape, frames.length
        (torch.Size([2, 23, 16]), tensor([23,  9]))
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        mels: int = 64,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        low: float = 50.0,
        high: float | None = None,
        range_db: float = 80.0,
        norm: Norm = "sample",
    ) -> None:
        whole(1000, sample_rate=sample_rate)
        sizes(1, mels=mels)
        above(0, window_ms=window_ms, hop_ms=hop_ms, range_db=range_db, **given(high=high))
        one_of(get_args(Norm), norm=norm)
        top = sample_rate / 2 if high is None else high
        if not 0 <= low < top <= sample_rate / 2:
            raise ValueError(
                f"`low={low}` and `high={high}` must be frequencies in this order, up to half of "
                f"`sample_rate={sample_rate}`."
            )
        super().__init__(
            sample_rate=sample_rate, mels=mels, window_ms=window_ms, hop_ms=hop_ms, low=low, high=high,
            range_db=range_db, norm=norm,
        )  # fmt: skip
        self.sample_rate, self.mels, self.norm = sample_rate, mels, norm
        self.window, self.hop = round(window_ms * sample_rate / 1000), max(1, round(hop_ms * sample_rate / 1000))
        if self.window < 2:
            raise ValueError(f"`window_ms={window_ms}` is less than two samples of `sample_rate={sample_rate}`.")
        self.range_db = range_db
        filters, self.points = _filters(sample_rate, mels, low, top, self.window)
        self.filters: Tensor
        self.hann: Tensor
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)

    def by_default(self) -> Clean:
        """Return the transform that nobody chose, for sounds of the same rate."""
        return LogMel(self.sample_rate)

    def frames(self, length: Tensor) -> Tensor:
        """Return how many frames sounds of some lengths have."""
        return 1 + (length - self.window).clamp(min=0) // self.hop

    @torch.no_grad()
    def forward(self, inputs: Padded, generator: torch.Generator | None = None) -> Padded:
        """Return the frames.

        Args:
            inputs: Samples `(N, T)`, int16, or floats from -1 to 1; what is behind the end does not count.
            generator: Not used; here so that every view is called alike.

        Returns:
            float32, `(N, frames, mels)`; 0 behind the end.

        Raises:
            ValueError: If the inputs are no sounds.
        """
        check_sounds(inputs)
        length = self.frames(inputs.length)
        total = int(length.max()) if len(length) else 0
        frames = torch.zeros(len(length), total, self.mels, device=length.device)
        with torch.autocast(length.device.type, enabled=False):
            for rows in by_length(inputs.length):
                made = self.normalise(self.power(to_float(some(inputs, rows))))
                frames[rows, : made.values.shape[1]] = made.values
        return Padded(frames, length)

    def power(self, sounds: Padded) -> Padded:
        """Return the power in each band, `(N, frames, mels)`, of samples from -1 to 1, which are 0 behind the end."""
        samples, length = sounds
        missing = max(0, self.window - samples.shape[1])
        # torch puts a window that is shorter than the transform into its middle
        before = (self.points - self.window) // 2
        samples = torch.nn.functional.pad(samples, (before, missing + self.points - self.window - before))
        spectrum = torch.stft(
            samples, self.points, self.hop, self.window, self.hann, center=False, onesided=True, return_complex=True
        )
        parts = torch.view_as_real(spectrum.transpose(1, 2)).flatten(2).square()  # (N, frames, points + 2)
        return Padded(
            parts @ (self.filters / self.hann.square().sum()).repeat_interleave(2, dim=0), self.frames(length)
        )

    def normalise(self, power: Padded) -> Padded:
        """Return the logarithm of power `(N, frames, mels)`, normalised over what is within each sound."""
        values, length = power
        mask = inside(length, values.shape[1])[..., None]
        loudest = values.masked_fill(~mask, 0).amax(dim=(1, 2), keepdim=True)
        floor = (loudest * 10 ** (-self.range_db / 10)).clamp(min=SILENCE)
        logs = values.maximum(floor).log().masked_fill(~mask, 0)
        if self.norm == "none":
            return Padded(logs, length)
        over = (1, 2) if self.norm == "sample" else (1,)
        count = length[:, None, None] * (self.mels if self.norm == "sample" else 1)
        mean = logs.sum(dim=over, keepdim=True) / count
        centred = (logs - mean).masked_fill(~mask, 0)
        spread = (centred.square().sum(dim=over, keepdim=True) / count).sqrt()
        return Padded(centred / spread.clamp(min=1e-2), length)


def mel(frequency: float) -> float:
    """Return the pitch of a frequency in Hz, in mel.

    Example:
        >>> round(mel(1000))
        1000
    """
    return 2595 * math.log10(1 + frequency / 700)


@functools.cache
def _filters(rate: int, mels: int, low: float, high: float, window: int) -> tuple[Tensor, int]:
    """Return triangles `(points / 2 + 1, mels)`, and the points of a Fourier transform that none falls between."""
    corners = torch.linspace(mel(low), mel(high), mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (corners / 2595) - 1)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    points = 1 << (window - 1).bit_length()
    while ((right * points / rate).ceil() - (left * points / rate).floor() < 2).any():  # one has no point within
        points *= 2
        if points > WIDEST:
            raise ValueError(f"`mels={mels}` bands from {low:g} to {high:g} Hz are too narrow; take fewer.")
    hertz = torch.arange(points // 2 + 1, dtype=torch.float64)[:, None] * rate / points
    rising, falling = (hertz - left) / (middle - left), (right - hertz) / (right - middle)
    return rising.minimum(falling).clamp(min=0).float(), points


def by_length(length: Tensor) -> Sequence[Tensor]:
    """Return groups of rows of like lengths, small enough for a processor's cache: little is filled up, all is near.

    Args:
        length: Samples of each sound, `(N,)`.
    """
    order = length.argsort(stable=True)
    return order.chunk(math.ceil(int(length.sum()) / GROUP)) if len(order) else ()


def some(sounds: Padded, rows: Tensor) -> Padded:
    """Return some rows, filled up no further than the longest of them."""
    length = sounds.length[rows]
    return Padded(sounds.values[rows, : int(length.max())], length)


def to_float(sounds: Padded) -> Padded:
    """Return samples from -1 to 1, float32, and 0 behind the end."""
    values, length = sounds
    scaled = values.float() if values.is_floating_point() else values.float().mul_(1 / 32768)
    behind = torch.arange(values.shape[1], device=length.device, dtype=torch.int32) >= length.int()[:, None]
    return Padded(scaled.masked_fill(behind, 0), length)


def check_sounds(sounds: Padded) -> None:
    """Refuse what is no batch of sounds.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(sounds, Padded) or sounds.values.ndim != 2:
        shown = tuple(sounds.values.shape) if isinstance(sounds, Padded) else type(sounds).__name__
        raise ValueError(f"sounds must be `Padded` with values (N, T), and are {shown}; mix channels to one.")
    if sounds.values.dtype != torch.int16 and not sounds.values.is_floating_point():
        raise ValueError(f"sounds of type {sounds.values.dtype} must be int16, or floats from -1 to 1.")
