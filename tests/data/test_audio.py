"""Folders of sounds of all kinds, spoken digits, and files that are not what they seem."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support import DATA

from ssl_lightning.data import AudioFolder, Batch, SpokenDigits
from ssl_lightning.data.audio import decode_sound
from ssl_lightning.transforms.padded import Padded


def tone(hertz: float, seconds: float, rate: int = 8000, channels: int = 1) -> Any:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


def write(path: Path, values: Any, rate: int = 8000, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, **options)
    return path


def birds(root: Path, count: int = 6) -> Path:
    """Two classes of tones, 50 to 300 ms long, and one without a class."""
    for place in range(count):
        for name, hertz in (("crow", 400), ("tit", 2500)):
            write(root / name / f"{place}.wav", tone(hertz + 30 * place, 0.05 + 0.05 * place))
    write(root / "heard.flac", tone(700, 0.4))
    return root


def test_folders_of_sounds_are_as_folders_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes, keys, parts, table and summary."""
    root = birds(tmp_path / "birds")
    (root / "labels.csv").write_text("path,class\nheard.flac,tit\n")
    data = AudioFolder(str(root), sample_rate=8000, val_size=0.2)
    data.setup()
    assert "13 labelled (crow 6, tit 7), 1 of them by" in capsys.readouterr().out
    assert data.facts == {
        "num_classes": 2, "class_names": ("crow", "tit"), "sample_rate": 8000, "max_seconds": 10.0,
    }  # fmt: skip
    assert data.train_samples is not None
    assert data.test_samples is not None
    train, test = data.train_samples, data.test_samples
    keys = [*train.keys, *test.keys]
    assert sorted(keys) == sorted(str(path.relative_to(root)) for path in root.rglob("*.*") if path.suffix != ".csv")
    batch = train.__getitems__(list(range(len(train))))
    assert isinstance(batch.input, Padded)
    assert batch.input.values.dtype == torch.int16
    for row, (key, length) in enumerate(zip(train.keys, batch.input.length.tolist(), strict=True)):
        values, _ = soundfile.read(root / key, dtype="int16")
        assert np.array_equal(batch.input.values[row, :length].numpy(), values)
        assert not batch.input.values[row, length:].any()
        assert data.class_names[batch.target[row]] == ("tit" if key == "heard.flac" else key.split("/")[0])
    shown = data.show("crow/0.wav")
    assert shown.kind == "audio"
    assert isinstance(shown.content, bytes)
    again, rate = soundfile.read(io.BytesIO(shown.content), dtype="int16")
    assert rate == 8000
    assert np.array_equal(again, soundfile.read(root / "crow" / "0.wav", dtype="int16")[0])
    assert data.path_of("tit/1.wav") == str(root / "tit" / "1.wav")
    before = data.fingerprint("tit/1.wav")
    write(root / "tit" / "1.wav", tone(50, 0.1))
    assert data.fingerprint("tit/1.wav") != before


def test_parts_are_folders(tmp_path: Path) -> None:
    root = birds(tmp_path / "b" / "train")
    birds(tmp_path / "b" / "val", 2)
    birds(tmp_path / "b" / "test", 3)
    data = AudioFolder(str(tmp_path / "b"), sample_rate=8000)
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    sizes = (len(data.train_indices), len(data.val_indices), len(data.test_samples))
    assert sizes == (len([*root.rglob("*.*")]), 5, 7)
    assert data.train_samples.targets[data.val_indices].tolist().count(-1) == 1


@pytest.mark.parametrize(("suffix", "options"), [("wav", {}), ("flac", {}), ("ogg", {}), ("wav", {"subtype": "FLOAT"})])
def test_channels_are_mixed_and_rates_brought_to_one(suffix: str, options: Any, tmp_path: Path) -> None:
    """A tone of 440 Hz stays one, at its height and loudness, whatever the file's rate and channels."""
    for rate in (8000, 11025, 44100):
        path = write(tmp_path / f"{rate}.{suffix}", tone(440, 0.5, rate, 2) * [[1.0, 0.5]], rate, **options)
        found = decode_sound(path, 16000)
        assert abs(len(found) - 8000) <= 2
        assert found.dtype == torch.int16
        spectrum = torch.fft.rfft(found[:8000].float() * torch.hann_window(len(found[:8000])))
        assert int(spectrum.abs().argmax()) == pytest.approx(220, abs=1)
        peak = float(found[1000:-1000].abs().max()) / 32768
        assert peak == pytest.approx(0.5 * 0.75, rel=0.05)
    loud = write(tmp_path / "loud.wav", 8 * tone(440, 0.1), subtype="FLOAT")
    full = write(tmp_path / "full.wav", 2 * tone(440, 0.1), subtype="FLOAT")
    assert torch.equal(decode_sound(loud, 8000), decode_sound(full, 8000))  # nothing is cut


def test_other_rates_are_told_once_and_refused_where_not_wanted(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    root = birds(tmp_path / "b")
    write(root / "tit" / "cd.wav", tone(300, 0.2, 44100), 44100)
    data = AudioFolder(str(root), sample_rate=8000, max_seconds=0.25)
    data.setup()
    told = [str(warning.message) for warning in recwarn.list if "samples a second" in str(warning.message)]
    assert len(told) == 1
    assert "1 of 14 sounds have another rate than `sample_rate=8000` and are resampled: 1 of 44100" in told[0]
    assert any("3 of 14 sounds are longer than `max_seconds=0.25`" in str(warning.message) for warning in recwarn.list)
    assert data.train_samples is not None
    assert int(data.train_samples.__getitems__(list(range(len(data.train_samples)))).input.length.max()) == 2000
    with pytest.raises(ValueError, match=r"cd\.wav` has 44100 samples a second, .*give `sample_rate=44100`, or"):
        AudioFolder(str(root), sample_rate=8000, resample=False, test_size=0).setup("fit")


def test_lazy_sounds_are_those_in_memory(tmp_path: Path) -> None:
    root = birds(tmp_path / "b")
    kept, lazy = (AudioFolder(str(root), sample_rate=8000, memory_gib=size, test_size=0) for size in (2.0, 0.0))
    for data in (kept, lazy):
        data.setup("fit")
    assert kept.train_samples is not None
    assert lazy.train_samples is not None
    assert type(kept.train_samples) is not type(lazy.train_samples)
    for places in ([0, 5, 3], [2]):
        torch.testing.assert_close(kept.train_samples.__getitems__(places), lazy.train_samples.__getitems__(places))
    torch.testing.assert_close(kept.train_samples[4], lazy.train_samples[4])


BAD = {
    "text.wav": (lambda path: path.write_text("no sound"), "text.wav` is no readable sound"),
    "none.wav": (lambda path: path.write_bytes(b""), "none.wav` is no readable sound"),
    "empty.wav": (lambda path: write(path, np.zeros(0)), r"empty.wav` is no readable sound \(it is empty\)"),
    "short.wav": (lambda path: write(path, tone(9, 0.01)), r"short.wav.*it lasts 10 ms, less than a frame of 25 ms"),
    "nan.wav": (
        lambda path: write(path, np.full(900, np.nan), subtype="FLOAT"),
        r"nan.wav.*it holds NaN or infinity\); replace or remove it, or skip such files by `skip_corrupt=true`\.$",
    ),
    "cut.flac": (lambda path: _cut(write(path, tone(440, 0.5))), "cut.flac` is no readable sound"),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def everything(data: AudioFolder) -> Batch:
    data.setup("fit")
    assert data.train_samples is not None
    return data.train_samples.__getitems__(list(range(len(data.train_samples))))


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(name: str, tmp_path: Path) -> None:
    spoil, message = BAD[name]
    root = birds(tmp_path / "b")
    spoil(root / "tit" / name)
    for memory in (2.0, 0.0):
        data = AudioFolder(str(root), sample_rate=8000, test_size=0, memory_gib=memory)
        with pytest.raises(ValueError, match=message) as caught:
            everything(data)
        assert "\n" not in str(caught.value)


def test_bad_files_are_skipped_by_option_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    root = birds(tmp_path / "b")
    for name, (spoil, _) in BAD.items():
        spoil(root / "tit" / name)
    data = AudioFolder(str(root), sample_rate=8000, test_size=0, skip_corrupt=True)
    data.setup("fit")
    assert data.train_samples is not None
    assert len(data.train_samples) == 13
    assert any("skipped 6 unreadable of 19 sounds" in str(warning.message) for warning in recwarn.list)
    assert "6 unreadable of the train part" in capsys.readouterr().out


def test_folders_without_sounds_say_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"holds no sound \(\.flac, \.ogg, \.wav\); give the folder that holds the sou"
    ):
        AudioFolder(str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"is no folder .*; give the folder that holds the sounds"):
        AudioFolder(str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"`max_seconds=0.01` must be above 0.025; a frame lasts so long"):
        AudioFolder(str(birds(tmp_path / "c")), max_seconds=0.01)


def takes(root: Path, count: int = 8) -> Path:
    """Digits of three speakers, of which nobody knows that they are tones."""
    for digit in range(10):
        for speaker, high in (("ann", 1.0), ("bob", 0.7), ("cyd", 1.3)):
            for number in range(count):
                seconds = 0.1 + 0.02 * ((digit + number) % 7)
                write(root / f"{digit}_{speaker}_{number}.wav", tone(high * (200 + 150 * digit) + number, seconds))
    return root


def test_spoken_digits_by_takes_and_by_speakers(tmp_path: Path) -> None:
    root = takes(tmp_path / "digits")
    (root / "notes.txt").write_text("")
    shutil.copy(root / "0_ann_0.wav", root / "other.wav")
    data = SpokenDigits(str(root))
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    assert len(data.test_samples) == 150
    assert all(int(key.split("_")[2].split(".")[0]) < 5 for key in data.test_samples.keys)
    assert len(data.train_samples) == 90
    assert [int(key[0]) for key in data.train_samples.keys] == data.train_samples.targets.tolist()
    assert len(data.val_indices) == 9
    others = SpokenDigits(str(root), test="speakers", test_speakers=["bob"])
    others.setup()
    assert others.train_samples is not None
    assert others.test_samples is not None
    assert {key.split("_")[1] for key in others.test_samples.keys} == {"bob"}
    assert {key.split("_")[1] for key in others.train_samples.keys} == {"ann", "cyd"}
    with pytest.raises(ValueError, match=r"`test_speakers=\['dee'\]` must be some, and not all, of ann, bob, cyd"):
        SpokenDigits(str(root), test="speakers", test_speakers=["dee"])
    with pytest.raises(ValueError, match=r"holds no file such as `7_theo_0\.wav`"):
        SpokenDigits(str(tmp_path))


def test_the_real_set() -> None:
    if not (DATA / "fsdd").is_dir():
        pytest.skip(f"no spoken digits in {DATA}; set SSL_LIGHTNING_DATA to a folder that holds fsdd")
    data = SpokenDigits(str(DATA / "fsdd"))
    data.setup()
    assert data.train_samples is not None
    assert data.test_samples is not None
    assert (len(data.train_samples), len(data.test_samples), len(data.val_indices)) == (2700, 300, 270)
    assert torch.bincount(data.test_samples.targets).tolist() == [30] * 10
