"""Log-mel frames against the formula in float64, and views: per sample, the same however far a batch is filled up."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.transforms.audio import AudioViews, LogMel, audio_views
from ssl_lightning.transforms.base import build_clean, describe_clean, end_alike
from ssl_lightning.transforms.padded import Padded, inside

LENGTHS = (4000, 1203, 230, 60, 2500, 3)
PLAIN: dict[str, Any] = {
    "sample_rate": 8000, "crop": (1.0, 1.0), "tilt": 0.0, "speed": 0.0, "gain": 0.0, "snr": (200.0, 200.0),
    "mix": 0.0, "pitch": 0.0, "masks": (0.0, 0.0),
}  # fmt: skip


def sounds(filled: int = 0, junk: int = 0) -> Padded:
    generator = torch.Generator().manual_seed(0)
    length = torch.tensor(LENGTHS)
    steps = torch.arange(max(LENGTHS) + filled)
    hertz = torch.tensor([200.0, 700, 1500, 3000, 440, 90])[:, None]
    tone = 9000 * torch.sin(2 * math.pi * hertz * steps / 8000)
    noise = 900 * torch.randn(len(LENGTHS), max(LENGTHS), generator=generator)
    values = (tone + torch.nn.functional.pad(noise, (0, filled))).to(torch.int16)
    return Padded(values.masked_fill(~inside(length, len(steps)), junk), length)


def reference(samples: Any, rate: int, mels: int, low: float, high: float, points: int, norm: str) -> Any:
    """One sound, frame by frame and band by band, in float64, as the formula says."""
    window, hop = round(0.025 * rate), round(0.01 * rate)
    values = samples.astype(np.float64) / 32768
    values = np.pad(values, (0, max(0, window - len(values))))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    mel = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), mels + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)
    frames = []
    for start in range(0, len(values) - window + 1, hop):
        power = np.abs(np.fft.rfft(values[start : start + window] * hann, points)) ** 2 / (hann**2).sum()
        hertz = np.arange(points // 2 + 1) * rate / points
        bands = []
        for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
            height = np.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle)).clip(0)
            bands.append((power * height).sum())
        frames.append(bands)
    found = np.array(frames)
    logs = np.log(np.maximum(found, max(found.max() * 1e-8, 1e-10)))
    axis = None if norm == "sample" else 0
    if norm == "none":
        return logs
    mean = logs.mean(axis=axis, keepdims=True)
    return (logs - mean) / np.maximum(np.sqrt(((logs - mean) ** 2).mean(axis=axis, keepdims=True)), 1e-2)


@pytest.mark.parametrize("norm", ["sample", "band", "none"])
@pytest.mark.parametrize(("rate", "mels", "low", "high"), [(8000, 64, 50.0, None), (16000, 20, 0.0, 5000.0)])
def test_frames_are_those_of_the_formula(norm: Any, rate: int, mels: int, low: float, high: float | None) -> None:
    clean = LogMel(rate, mels=mels, low=low, high=high, norm=norm)
    batch = sounds()
    values, length = clean(batch)
    for row, (own, count) in enumerate(zip(batch.length.tolist(), length.tolist(), strict=True)):
        samples = batch.values[row, :own].numpy()
        expected = reference(samples, rate, mels, low, high or rate / 2, clean.points, norm)
        assert count == len(expected) == clean.frames(torch.tensor(own))
        np.testing.assert_allclose(values[row, :count].numpy(), expected, atol=2e-3)
        assert not values[row, count:].any()


def test_filters_are_those_of_another_library() -> None:
    theirs = pytest.importorskip("transformers.audio_utils")
    clean = LogMel(16000, mels=40, low=20.0, high=7600.0)
    expected = theirs.mel_filter_bank(clean.points // 2 + 1, 40, 20.0, 7600.0, 16000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(clean.filters.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("mels", [128, 300])
def test_no_band_is_empty(mels: int) -> None:
    """However narrow bands are, each has a point of the transform; else it would be a constant."""
    clean = LogMel(8000, mels=mels)
    assert (clean.filters > 0).any(dim=0).all()
    with pytest.raises(ValueError, match=r"`mels=\d+` bands from 50 to 60 Hz are too narrow; take fewer"):
        LogMel(8000, mels=20000, high=60.0)


def test_padding_does_not_count() -> None:
    """Nor what lies in it, nor in what company a sound is."""
    for norm in ("sample", "band", "none"):
        clean = LogMel(8000, norm=norm)  # type: ignore[arg-type]
        alone = clean(sounds())
        filled = clean(sounds(5000, junk=777))
        frames = alone.values.shape[1]
        assert torch.equal(alone.length, filled.length)
        torch.testing.assert_close(filled.values[:, :frames], alone.values, atol=1e-5, rtol=0)
        assert not filled.values[:, frames:].any()
        for row, length in enumerate(LENGTHS):
            single = clean(Padded(sounds().values[row : row + 1, :length], torch.tensor([length])))
            count = int(single.length)
            torch.testing.assert_close(single.values[0], alone.values[row, :count], atol=1e-5, rtol=0)


def test_loudness_is_taken_away_and_silence_is_nothing() -> None:
    clean, batch = LogMel(8000), sounds()
    floats = batch._replace(values=batch.values.float() / 32768)
    torch.testing.assert_close(clean(floats), clean(batch))
    quiet = floats._replace(values=floats.values * 0.1)  # the last is below what is heard
    torch.testing.assert_close(clean(quiet).values[:-1], clean(floats).values[:-1], atol=1e-3, rtol=0)
    silent = clean(batch._replace(values=torch.zeros_like(batch.values)))
    assert float(silent.values.abs().max()) < 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(clean(batch), LogMel(8000)(batch))


def test_a_checkpoint_builds_it_again(recwarn: pytest.WarningsRecorder) -> None:
    clean = LogMel(8000, mels=20, norm="band")
    again = build_clean(describe_clean(clean))  # type: ignore[arg-type]
    torch.testing.assert_close(again(sounds()), clean(sounds()))
    views = AudioViews(sample_rate=8000)
    end_alike(views, clean)
    assert views(sounds())[0].values.shape[2] == 20
    assert not recwarn.list  # nobody chose the other one


@pytest.mark.parametrize("mild", [False, True])
def test_views_are_the_same_however_far_a_batch_is_filled_up(mild: bool) -> None:
    views = audio_views(8000, 2, mild)
    one = views(sounds(), torch.Generator().manual_seed(3))
    other = views(sounds(7000, junk=-5), torch.Generator().manual_seed(3))
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
        assert not mine.values.masked_fill(inside(mine.length, mine.values.shape[1])[..., None], 0).any()
        assert mine.values.isfinite().all()
    assert one[0].values.shape == one[1].values.shape
    state = torch.get_rng_state()
    views(sounds(), torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())


def test_every_sample_has_a_draw_of_its_own() -> None:
    same = Padded(sounds().values[:1].repeat(40, 1), torch.full((40,), 4000))
    first, second = AudioViews(sample_rate=8000)(same, torch.Generator().manual_seed(0))
    rows = torch.cat([first.values, second.values]).flatten(1)
    distance = torch.cdist(rows, rows) + 1e9 * torch.eye(80)
    assert float(distance.min()) > 1
    assert len(first.length.unique()) > 10  # type: ignore[no-untyped-call]


def test_plain_views_are_the_clean_input() -> None:
    made = AudioViews(2, **PLAIN)(sounds(), torch.Generator().manual_seed(0))
    clean = LogMel(8000)(sounds())
    for view in made:
        torch.testing.assert_close(view, clean, atol=1e-3, rtol=0)


def ramp() -> Padded:
    """Samples that say where they are."""
    values = torch.arange(1.0, 1001).repeat(60, 1) / 1000
    length = torch.full((60,), 1000)
    length[30:] = 500
    return Padded(values.masked_fill(~inside(length, 1000), 0), length)


def drawn(views: AudioViews, step: str, batch: Padded, seed: int = 0) -> tuple[Any, Padded]:
    """Apply one step alone."""
    from ssl_lightning.transforms.audio.random_view import DRAWS, _cut, _Draw

    generator = torch.Generator().manual_seed(seed)
    draw = _Draw(*torch.rand(views.count * len(batch.length), DRAWS, generator=generator).unbind(1))
    rows = torch.arange(len(draw.mix))
    if step == "_noise":
        return draw, views._noise(batch, draw, torch.randn(batch.values.shape, generator=generator))
    if step in ("_cut", "_company"):
        parts = views._draw_parts(batch, draw)
        cut = _cut(parts, rows)
        return draw, cut if step == "_cut" else views._company(parts, draw, rows, cut)
    return draw, getattr(views, step)(batch, draw)


def test_parts_are_at_random_places_at_random_speeds_and_silence_is_beyond() -> None:
    options = {**PLAIN, "crop": (0.5, 1.5), "speed": 0.25}
    batch = ramp()
    draw, parts = drawn(AudioViews(1, **options), "_cut", batch)
    for row in range(60):
        own, count = int(batch.length[row]), int(parts.length[row])
        size = own * (0.5 + float(draw.share[row]))
        start = float(draw.place[row]) * (own - size)
        rate = 1.25 ** (2 * float(draw.speed[row]) - 1)
        assert count == pytest.approx(size / rate, abs=0.51)
        places = start + rate * np.arange(count)
        expected = np.interp(places, np.arange(-3, own + 3), np.pad(batch.values[row, :own].numpy(), 3), 0, 0)
        np.testing.assert_allclose(parts.values[row, :count].numpy(), expected, atol=2e-3)
    integers = Padded((batch.values * 32768).clamp(max=32767).to(torch.int16), batch.length)
    _, same = drawn(AudioViews(1, **options), "_cut", integers)
    torch.testing.assert_close(same, parts, atol=1e-4, rtol=0)


def test_noise_and_company_have_the_power_that_is_drawn() -> None:
    batch = Padded(torch.randn(60, 1000, generator=torch.Generator().manual_seed(5)) * 0.1, torch.full((60,), 1000))
    draw, noisy = drawn(AudioViews(1, **{**PLAIN, "snr": (0.0, 20.0)}), "_noise", batch)
    added = noisy.values - batch.values
    ratio = 10 * torch.log10(batch.values.square().mean(dim=1) / added.square().mean(dim=1))
    torch.testing.assert_close(ratio, 20 * draw.snr, atol=0.8, rtol=0)
    draw, mixed = drawn(AudioViews(1, **{**PLAIN, "mix": 0.5}), "_company", batch)
    share = 0.5 * draw.mix
    other = mixed.values - (1 - share).sqrt()[:, None] * batch.values
    torch.testing.assert_close(
        other.square().mean(dim=1) / batch.values.square().mean(dim=1), share, atol=1e-5, rtol=1e-3
    )
    cosine = torch.nn.functional.cosine_similarity(other[:, None], batch.values[None], dim=2)
    partner = cosine.argmax(dim=1)
    assert (cosine.amax(dim=1) > 0.99).all()
    assert (partner != torch.arange(60)).all()
    assert len(partner.unique()) > 25  # type: ignore[no-untyped-call]


def test_tones_are_raised_by_one_delay() -> None:
    batch = ramp()
    draw, coloured = drawn(AudioViews(1, **{**PLAIN, "tilt": 0.8}), "_colour", batch)
    for row in range(60):
        own = batch.values[row, : batch.length[row]].numpy()
        a = 0.8 * (2 * float(draw.tilt[row]) - 1)
        np.testing.assert_allclose(coloured.values[row, : len(own)], np.convolve(own, [1, a])[: len(own)], atol=1e-5)
        assert not coloured.values[row, len(own) :].any()


def test_masks_hide_a_span_of_own_frames_and_one_of_bands() -> None:
    length = torch.tensor([40] * 100 + [9] * 100)
    frames = Padded(torch.ones(200, 40, 16).masked_fill(~inside(length, 40)[..., None], 0), length)
    views = AudioViews(1, **{**PLAIN, "masks": (0.5, 0.25)})
    _, hidden = drawn(views, "_hide", frames)
    for row, count in enumerate(length.tolist()):
        own = hidden.values[row, :count]
        gone_frames, gone_bands = (own == 0).all(dim=1), (own == 0).all(dim=0)
        assert gone_frames.sum() <= 0.5 * count
        assert gone_bands.sum() <= 4
        for gone in (gone_frames, gone_bands):
            assert (gone.int().diff() == 1).sum() + gone[0] <= 1  # one span
        assert torch.equal(own == 0, gone_frames[:, None] | gone_bands[None])
    whole = (hidden.values[:100] == 0).all(dim=2).sum(dim=1)
    assert whole.min() == 0
    assert whole.max() == 20
    assert not hidden.values[100:, 9:].any()


def test_the_mel_axis_is_stretched() -> None:
    frames = Padded(torch.arange(16.0).expand(50, 7, 16).clone(), torch.full((50,), 7))
    draw, stretched = drawn(AudioViews(1, **{**PLAIN, "pitch": 0.3}), "_stretch", frames)
    factor = 1.3 ** (2 * draw.pitch - 1)
    expected = (torch.arange(16.0) * factor[:, None]).clamp(max=15)
    torch.testing.assert_close(stretched.values, expected[:, None].expand(50, 7, 16), atol=1e-5, rtol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"`crop=\(0.9, 0.5\)` must be two numbers"):
        AudioViews(crop=(0.9, 0.5))
    with pytest.raises(ValueError, match=r"`low=5000` and `high=4000` must be frequencies in this order"):
        LogMel(8000, low=5000, high=4000)
    with pytest.raises(ValueError, match=r"sounds must be `Padded` with values \(N, T\), and are \(2, 9, 2\)"):
        LogMel(8000)(Padded(torch.zeros(2, 9, 2), torch.tensor([9, 9])))
    with pytest.raises(ValueError, match=r"sounds of type torch.int64 must be int16, or floats"):
        AudioViews()(Padded(torch.zeros(2, 9, dtype=torch.int64), torch.tensor([9, 9])))
