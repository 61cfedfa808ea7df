"""Random views of sounds: part, speed, company, noise, loudness, voice and masks, each by a draw of its own."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import at_least, between, ordered, several, whole
from ssl_lightning.transforms.audio.log_mel import LogMel, by_length, check_sounds
from ssl_lightning.transforms.padded import Padded, inside

DRAWS = 13  # numbers from 0 to 1 that a view of a sample takes


class _Draw(NamedTuple):
    """What is drawn for each view, `(views,)` each; from 0 to 1."""

    share: Tensor
    place: Tensor
    speed: Tensor
    gain: Tensor
    snr: Tensor
    mix: Tensor
    partner: Tensor
    tilt: Tensor
    pitch: Tensor
    time_width: Tensor
    time_place: Tensor
    band_width: Tensor
    band_place: Tensor


class _Parts(NamedTuple):
    """Parts of sounds at some speeds.

    Attributes:
        flat: All sounds, samples from -1 to 1, silence before and behind each.
        base: Where each part begins in it, `(views,)`.
        after: How far behind that, in samples, below 1.
        rate: Samples from one to the next; null where all are 1.
        out: Samples of each part.
    """

    flat: Tensor
    base: Tensor
    after: Tensor
    rate: Tensor | None
    out: Tensor


class AudioViews(nn.Module):
    r"""Some random views of each sound, as the log-mel frames that an encoder takes.

    In this order: a part of the sound at a random place, or all of it, shifted within silence; played at another speed
    (time and pitch together, by interpolation); another sound of the batch mixed in at random power,
    :math:`\sqrt{1 - \lambda}\, x + \sqrt{\lambda}\, x'` with both equally loud; high or low tones raised, as by another
    microphone, :math:`x_t + a\, x_{t-1}`; white noise at a random signal-to-noise ratio; gain, cut at full scale; the
    spectrogram; its mel axis stretched, as a larger or smaller voice does; a span of frames and one of bands hidden (0,
    the mean). Every view of every sample has its own draw of
    everything, from the CPU, and none depends on how far a batch is filled up.

    Args:
        count: Views of each sample.
        sample_rate: Samples a second; filled in from the data on the command line.
        crop: Smallest and largest part, as a fraction of the sound's length; above 1 it is the whole sound with silence
            before and behind.
        speed: Greatest change of the speed: factors are from 1 / (1 + speed) to 1 + speed.
        gain: Greatest change of the loudness in decibels, up or down.
        snr: Least and greatest signal-to-noise ratio in decibels.
        mix: Greatest share of the power that another sound of the batch gets; 0 mixes none in.
        tilt: Greatest a, below 1, towards low or high tones; 0.5 are 9.5 decibels between the lowest and the highest.
        pitch: Greatest stretch of the mel axis, likewise as for `speed`.
        masks: Greatest share of the frames, and of the bands, that is hidden.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        Mixing as of D. Niizumi et al., BYOL for Audio, 2021, arXiv 2103.06695, section III-B, there of log-mel
        spectrograms with earlier batches. Masks as of D. S. Park et al., SpecAugment, Interspeech 2019, arXiv
        1904.08779, section 2, one of each, and no warping of time. Stretching as of N. Jaitly, G. E. Hinton, Vocal
        Tract Length Perturbation, ICML workshop 2013.

    Example:
        >>> sound = torch.randint(-99, 99, (3, 4000), dtype=torch.int16)
        >>> first, second = AudioViews(sample_rate=8000)(Padded(sound, torch.tensor([4000, 2000, 300])))
        >>> first.values.shape == second.values.shape, first.values.shape[2]
        (True, 64)
    """

    def __init__(
        self,
        count: int = 2,
        sample_rate: int = 16000,
        crop: tuple[float, float] = (0.6, 1.1),
        speed: float = 0.15,
        gain: float = 6.0,
        snr: tuple[float, float] = (5.0, 40.0),
        mix: float = 0.2,
        tilt: float = 0.5,
        pitch: float = 0.1,
        masks: tuple[float, float] = (0.2, 0.2),
    ) -> None:
        whole(1, count=count)
        ordered(0, 10, "(]", "give fractions of the sound's length", crop=crop)
        at_least(0, speed=speed, gain=gain, pitch=pitch)
        ordered(-100, 200, "[]", "in decibels", snr=snr)
        between(0, 1, "[)", mix=mix, tilt=tilt)
        several(2, 0, 1, "[)", "one for frames, one for bands", masks=masks)
        super().__init__()
        self.count, self.crop, self.speed, self.gain, self.snr = count, crop, speed, gain, snr
        self.mix, self.tilt, self.pitch, self.masks = mix, tilt, pitch, masks
        self.clean: nn.Module = LogMel(sample_rate)

    @torch.no_grad()
    def forward(self, inputs: Padded, generator: torch.Generator | None = None) -> list[Padded]:
        """Return `count` views of each sound.

        Args:
            inputs: Samples `(N, T)`, int16, or floats from -1 to 1; what is behind the end does not count.
            generator: Of the CPU; None takes torch's global one.

        Returns:
            `count` times float32 `(N, frames, mels)`, filled up to the same number of frames.

        Raises:
            ValueError: If the inputs are no sounds.
        """
        check_sounds(inputs)
        device = inputs.length.device
        numbers = onto(torch.rand(self.count * len(inputs.length), DRAWS, generator=generator), device)
        draw = _Draw(*numbers.unbind(1))
        with torch.autocast(device.type, enabled=False):
            parts = self._draw_parts(inputs, draw)
            groups = by_length(parts.out)
            made = [self._view(parts, draw, rows, generator) for rows in groups]
        total = max(frames.values.shape[1] for frames in made)
        values = torch.zeros(len(numbers), total, made[0].values.shape[2], device=device)
        length = torch.empty_like(parts.out)
        for rows, frames in zip(groups, made, strict=True):
            values[rows, : frames.values.shape[1]] = frames.values
            length[rows] = frames.length
        views = zip(values.chunk(self.count), length.chunk(self.count), strict=True)
        return [Padded(*view) for view in views]

    def _view(self, parts: "_Parts", draw: _Draw, rows: Tensor, generator: torch.Generator | None) -> Padded:
        """Make some of the views."""
        own = _Draw(*(values[rows] for values in draw))
        sounds = self._company(parts, draw, rows, _cut(parts, rows))
        # of groups by length, which tells their shape: no number depends on how far the batch was filled up
        noise = onto(torch.randn(sounds.values.shape, generator=generator), sounds.values.device, sounds.values.dtype)
        sounds = self._noise(self._colour(sounds, own), own, noise)
        louder = 10 ** (self.gain * (2 * own.gain - 1) / 20)
        frames: Padded = self.clean(sounds._replace(values=sounds.values.mul_(louder[:, None]).clamp_(-1, 1)))
        return self._hide(self._stretch(frames, own), own)

    def _draw_parts(self, inputs: Padded, draw: _Draw) -> "_Parts":
        """Say which parts of the sounds the views have."""
        samples, length = inputs
        row = torch.arange(len(draw.share), device=length.device) % len(length)
        own = length[row].to(torch.float64 if length.device.type == "cpu" else torch.float32)
        part = own * (self.crop[0] + (self.crop[1] - self.crop[0]) * draw.share)
        start = draw.place * (own - part)
        rate = (1 + self.speed) ** (2 * draw.speed - 1)
        # silence before and behind each sound, as far as a part may reach
        margin = math.ceil(max(0.0, self.crop[1] - 1) * samples.shape[1]) + 2
        silent = samples.masked_fill(~inside(length, samples.shape[1]), 0)
        begin, scale = start.floor(), 1.0 if samples.is_floating_point() else 1 / 32768
        return _Parts(
            flat=torch.nn.functional.pad(silent.float() * scale, (margin, margin)).flatten(),
            base=row * (samples.shape[1] + 2 * margin) + margin + begin.long(),
            after=(start - begin).float(),
            rate=rate.float() if self.speed else None,
            out=(part / rate).round().long().clamp(min=1),
        )

    def _company(self, parts: "_Parts", draw: _Draw, rows: Tensor, sounds: Padded) -> Padded:
        """Mix another sound of the same view into each, as far as they last."""
        others = len(draw.mix) // self.count - 1
        if self.mix == 0 or others == 0:
            return sounds
        away = 1 + (draw.partner[rows] * others).long().clamp(max=others - 1)
        partner = rows - rows % (others + 1) + (rows + away) % (others + 1)
        other = _cut(parts, partner, sounds.length)
        share = self.mix * draw.mix[rows]
        louder = (share * _power(sounds) / _power(other).clamp(min=1e-10)).sqrt().clamp(max=1e3)
        mixed = sounds.values * (1 - share).sqrt()[:, None]
        mixed[:, : other.values.shape[1]].addcmul_(other.values, louder[:, None])
        return sounds._replace(values=mixed)

    def _colour(self, sounds: Padded, draw: _Draw) -> Padded:
        """Raise low or high tones by one sample's delay."""
        values = sounds.values
        coloured = values.clone()
        coloured[:, 1:].addcmul_(values[:, :-1], (self.tilt * (2 * draw.tilt - 1))[:, None])
        return sounds._replace(values=coloured.masked_fill_(_behind(sounds.length, values.shape[1]), 0))

    def _noise(self, sounds: Padded, draw: _Draw, noise: Tensor) -> Padded:
        """Add white noise, also behind the end, where it will not count."""
        ratio = self.snr[0] + (self.snr[1] - self.snr[0]) * draw.snr
        scale = _power(sounds).sqrt() * 10 ** (-ratio / 20)
        return sounds._replace(values=torch.addcmul(sounds.values, noise, scale[:, None]))

    def _stretch(self, frames: Padded, draw: _Draw) -> Padded:
        """Stretch or squeeze the mel axis, by linear interpolation; the highest band goes on where it ends."""
        if not self.pitch:
            return frames
        bands = frames.values.shape[2]
        band = torch.arange(bands, device=frames.values.device)
        factor = (1 + self.pitch) ** (2 * draw.pitch - 1)
        wanted = (band * factor[:, None]).clamp(max=bands - 1)  # (views, bands)
        low = wanted.long()[:, None]
        share = (wanted - low[:, 0]).to(frames.values)[:, None]
        weights = frames.values.new_zeros(len(factor), bands + 1, bands)  # (views, from, to)
        weights.scatter_(1, low, 1 - share).scatter_(1, low + 1, share)
        return frames._replace(values=frames.values @ weights[:, :bands])

    def _hide(self, frames: Padded, draw: _Draw) -> Padded:
        """Hide a span of frames, and one of bands."""
        values, length = frames
        bands = torch.full_like(length, values.shape[2])
        time = _span(length, self.masks[0], draw.time_width, draw.time_place, values.shape[1])
        band = _span(bands, self.masks[1], draw.band_width, draw.band_place, values.shape[2])
        return frames._replace(values=values * (~time)[:, :, None] * (~band)[:, None, :])


def _cut(parts: _Parts, rows: Tensor, longest: Tensor | None = None) -> Padded:
    """Return some parts, by linear interpolation, samples from -1 to 1.

    Args:
        parts: Of all views.
        rows: Which.
        longest: Samples that each may have at most; null for all.
    """
    out = parts.out[rows] if longest is None else parts.out[rows].minimum(longest)
    steps, last = torch.arange(int(out.max()), device=out.device), len(parts.flat) - 2
    base = parts.base[rows][:, None]
    if parts.rate is None:
        values = parts.flat.take((base + steps).clamp_(max=last))
    else:
        offset = torch.addcmul(parts.after[rows][:, None], steps.float(), parts.rate[rows][:, None])
        at = offset.long().add_(base).clamp_(max=last)
        values = parts.flat.take(at)
        values.lerp_(parts.flat[1:].take(at), offset.frac_())
    return Padded(values.masked_fill_(_behind(out, len(steps)), 0), out)


def _behind(length: Tensor, total: int) -> Tensor:
    """Return the opposite of `inside`, by 32 bits, which take half the time."""
    return torch.arange(total, device=length.device, dtype=torch.int32) >= length.int()[:, None]


def _span(size: Tensor, share: float, width: Tensor, place: Tensor, total: int) -> Tensor:
    """Return where a span of up to a share of each size lies, `(views, total)`."""
    wide = (width * (share * size + 1)).floor().minimum((share * size).floor())
    begin = (place * (size - wide + 1)).floor()[:, None]
    step = torch.arange(total, device=size.device)
    return (step >= begin) & (step < begin + wide[:, None])


def _power(sounds: Padded) -> Tensor:
    """Return the mean square of each sound, `(N,)`."""
    return sounds.values.square().sum(dim=1) / sounds.length


def audio_views(sample_rate: int, count: int = 2, mild: bool = False) -> AudioViews:
    """Return random views that suit sounds.

    Args:
        sample_rate: Samples a second.
        count: Views of each sample.
        mild: As a classifier wants them, near to the sample: most of it, and nothing mixed in.
    """
    if not mild:
        return AudioViews(count, sample_rate)
    return AudioViews(
        count, sample_rate, crop=(0.9, 1.1), speed=0.1, snr=(15.0, 50.0), mix=0.0, tilt=0.3, pitch=0.05,
        masks=(0.1, 0.1),
    )  # fmt: skip
