"""How many random views of sounds a second: ours by the batch, beside chains for one sample after the other in numpy.

    python scripts/bench_audio_views.py

All do the same on one core: a part of the sound, another speed, another sound mixed in, tones raised, noise, gain, the
log-mel spectrogram, its mel axis stretched, masks. The chains are written as torchaudio's transforms are strung
together, one call a step, filters and window made once. One changes the speed as torchaudio does, by a filter with a
windowed sinc (`scipy.signal.resample_poly`, the speed a ratio of whole numbers up to 100), the other by linear
interpolation as ours does. Sounds are noise with the lengths of the spoken digits, 0.15 to 1 s at 8 kHz; every number
is the median of rounds that alternate, in one process.
"""

import argparse
import functools
import platform
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly

from ssl_lightning.transforms.audio import AudioViews, LogMel
from ssl_lightning.transforms.padded import fill_up

RATE = 8000


class Chain:
    """The steps of `AudioViews` on one sound, in numpy.

    Args:
        views: Whose options and spectrogram are taken.
        sinc: Change the speed by a filter, as torchaudio does.
    """

    def __init__(self, views: AudioViews, sinc: bool) -> None:
        clean = views.clean
        assert isinstance(clean, LogMel)
        self.views, self.clean, self.sinc, self.rng = views, clean, sinc, np.random.default_rng(0)
        self.filters, self.hann = clean.filters.numpy(), clean.hann.numpy()

    def __call__(self, sound: Any, other: Any) -> Any:
        """Return the frames of one view."""
        x = self.part(sound.astype(np.float32) / 32768)
        x = self.company(x, self.part(other.astype(np.float32) / 32768))
        x = self.colour(x)
        x = self.noise(x)
        x = self.gain(x)
        return self.masks(self.stretch(self.log_mel(x)))

    def part(self, x: Any) -> Any:
        """Cut a part, in silence where it is longer than the sound, and change its speed."""
        low, high = self.views.crop
        size = len(x) * self.rng.uniform(low, high)
        start = self.rng.uniform(min(0, len(x) - size), max(0, len(x) - size))
        speed = (1 + self.views.speed) ** self.rng.uniform(-1, 1)
        if self.sinc:
            begin = round(start)
            cut = np.pad(x, (max(0, -begin), max(0, begin + round(size) - len(x))))[max(0, begin) :][: round(size)]
            ratio = Fraction(1 / speed).limit_denominator(100)
            return resample_poly(cut, ratio.numerator, ratio.denominator).astype(np.float32)
        places = start + speed * np.arange(max(1, round(size / speed)))
        return np.interp(places, np.arange(len(x)), x, 0, 0).astype(np.float32)

    def company(self, x: Any, other: Any) -> Any:
        """Mix another sound in."""
        share = self.rng.uniform(0, self.views.mix)
        mixed = np.zeros_like(x)
        mixed[: len(other)] = other[: len(x)]
        scale = np.sqrt(share * np.mean(x**2) / max(np.mean(other**2), 1e-10))
        return np.sqrt(1 - share).astype(np.float32) * x + np.float32(scale) * mixed

    def colour(self, x: Any) -> Any:
        """Raise low or high tones."""
        a = np.float32(self.rng.uniform(-self.views.tilt, self.views.tilt))
        return x + a * np.concatenate([np.zeros(1, np.float32), x[:-1]])

    def noise(self, x: Any) -> Any:
        """Add white noise."""
        scale = np.sqrt(np.mean(x**2)) * 10 ** (-self.rng.uniform(*self.views.snr) / 20)
        return x + np.float32(scale) * self.rng.standard_normal(len(x), dtype=np.float32)

    def gain(self, x: Any) -> Any:
        """Change the loudness."""
        return np.clip(x * np.float32(10 ** (self.rng.uniform(-self.views.gain, self.views.gain) / 20)), -1, 1)

    def log_mel(self, x: Any) -> Any:
        """Make the log-mel spectrogram."""
        window, hop = self.clean.window, self.clean.hop
        x = np.pad(x, (0, max(0, window - len(x))))
        frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop] * self.hann
        spectrum = np.fft.rfft(frames, self.clean.points)
        power = (spectrum.real**2 + spectrum.imag**2) / (self.hann**2).sum()
        bands = power.astype(np.float32) @ self.filters
        logs = np.log(np.maximum(bands, max(bands.max() * 10 ** (-self.clean.range_db / 10), 1e-10)))
        return (logs - logs.mean()) / max(logs.std(), 1e-2)

    def stretch(self, frames: Any) -> Any:
        """Stretch the mel axis."""
        bands = frames.shape[1]
        factor = (1 + self.views.pitch) ** self.rng.uniform(-1, 1)
        places = (np.arange(bands) * factor).clip(max=bands - 1)
        low = places.astype(int).clip(max=bands - 2)
        share = (places - low).astype(np.float32)
        return frames[:, low] * (1 - share) + frames[:, low + 1] * share

    def masks(self, frames: Any) -> Any:
        """Hide a span of frames, and one of bands."""
        frames = frames.copy()
        for axis, share in enumerate(self.views.masks):
            size = frames.shape[axis]
            wide = int(self.rng.integers(int(share * size) + 1))
            begin = int(self.rng.integers(size - wide + 1))
            (frames if axis == 0 else frames.T)[begin : begin + wide] = 0
        return frames


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes, in processor time: others may work on the machine."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(3400), 0.33, options.batch)).clip(1150, 8000).astype(int)
    sounds = [(3000 * rng.standard_normal(length)).astype(np.int16) for length in lengths]
    batch = fill_up([torch.from_numpy(sound) for sound in sounds])
    views = AudioViews(2, RATE)
    chains = {"numpy, by the sample, sinc": Chain(views, True), "numpy, by the sample, linear": Chain(views, False)}
    generator = torch.Generator().manual_seed(0)

    def by_sample(chain: Chain) -> None:
        for _ in range(2):
            made = [chain(sound, sounds[(place + 1) % len(sounds)]) for place, sound in enumerate(sounds)]
            fill_up([torch.from_numpy(frames) for frames in made])

    runs: dict[str, Callable[[], Any]] = {name: functools.partial(by_sample, chain) for name, chain in chains.items()}
    runs["ours, by the batch"] = lambda: views(batch, generator)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            taken = seconds(run)
            if number:  # the first is to get warm
                times[name].append(taken)
    print(f"{platform.processor() or platform.machine()}, one core, torch {torch.__version__}, numpy {np.__version__}")
    print(f"{options.batch} sounds of {lengths.mean() / RATE:.2f} s in the mean, two views of each; processor time\n")
    print("| | views/s | ours is so many times as fast (least and most of the rounds) |\n|---|---:|---:|")
    ours = times["ours, by the batch"]
    for name, found in times.items():
        ratios = [slow / fast for slow, fast in zip(found, ours, strict=True)]
        told = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})" if found is not ours else ""
        print(f"| {name} | {2 * options.batch / statistics.median(found):,.0f} | {told} |")


if __name__ == "__main__":
    main()
