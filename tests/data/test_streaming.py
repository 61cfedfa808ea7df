"""Sets in LitData's chunks: the same samples, parts, orders and fits as of the same samples in memory."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support import equal_weights
from torch.utils.data import TensorDataset

from ssl_lightning.active import Entropy, PoolDataModule
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import FromDataset, Streamed
from ssl_lightning.methods import SimSiam
from ssl_lightning.supervised import Classifier

COUNT = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of three classes in chunks of a few."""
    writer = pytest.importorskip("litdata.streaming.writer").BinaryWriter
    folder = tmp_path_factory.mktemp("set")
    chunks = writer(str(folder), chunk_bytes=1000)
    for place, (image, label) in enumerate(zip(*arrays(), strict=True)):
        chunks[place] = {"input": image, "label": int(label)}
    chunks.done()
    chunks.merge()
    assert len(list(folder.glob("*.bin"))) > 3
    return folder


def arrays() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(COUNT) % 3
    return np.random.default_rng(0).integers(0, 80, (COUNT, 1, 8, 8), dtype=np.uint8) + 80 * labels[
        :, None, None, None
    ].astype(np.uint8), labels


def streamed(folder: Path, **options: Any) -> FromDataset:
    images = Streamed(str(folder), targets=arrays()[1])
    return FromDataset(images, keys=images.keys, batch_size=8, **options)


def in_memory(**options: Any) -> FromDataset:
    images, labels = map(torch.from_numpy, arrays())
    return FromDataset(TensorDataset(images, labels), keys=range(COUNT), batch_size=8, **options)


def test_samples_and_parts_are_those_in_memory(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    found = Streamed.__getitem__
    monkeypatch.setattr(Streamed, "__getitem__", lambda self, place: read.append(place) or found(self, place))
    one, other = streamed(written), in_memory()
    assert len(set(read)) < COUNT / 2  # looked at, not read: it may be larger than memory
    for data in (one, other):
        data.setup("fit")
        data.setup("test")
    assert one.facts == other.facts
    for a, b in ((one.train_samples, other.train_samples), (one.test_samples, other.test_samples)):
        assert a is not None
        assert b is not None
        assert list(a.keys) == list(b.keys)
        assert torch.equal(a.targets, b.targets)
        places = list(range(len(a.keys)))[::-1]
        assert torch.equal(a.__getitems__(places).input, b.__getitems__(places).input)


def test_pretraining_resumes_within_an_epoch(written: Path, trainer: Any, tmp_path: Path) -> None:
    def fit(data: FromDataset, resume: Path | None = None) -> SimSiam:
        torch.manual_seed(0)
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
        run = trainer(max_steps=8, max_epochs=-1, callbacks=[keep], enable_checkpointing=True)
        model = SimSiam(ConvNet(width=4))
        run.fit(model, datamodule=data, ckpt_path=resume)
        return model

    alone = fit(streamed(written, steps_per_epoch=5))
    assert equal_weights(alone, fit(in_memory(steps_per_epoch=5)))
    assert equal_weights(alone, fit(streamed(written, steps_per_epoch=5), tmp_path / "step=3.ckpt"))


def test_the_pool_picks_the_same(written: Path, trainer: Any) -> None:
    picks = []
    for data in (streamed(written), in_memory()):
        torch.manual_seed(0)
        pool = PoolDataModule(data, initial=9, steps_per_epoch=4)
        trainer(max_epochs=1, callbacks=[Entropy(query_size=4)]).fit(Classifier(3, ConvNet(width=4)), datamodule=pool)
        picks.append([query.key for query in pool.queries])
    assert picks[0] == picks[1]
    assert len(picks[0]) == 13


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Path) -> None:
    with pytest.raises(ValueError, match="`targets` has 2 labels for 60 samples"):
        Streamed(str(written), targets=[0, 1])
    with pytest.raises(ValueError, match=r"`fields=\('image', 'label'\)`: a sample has the fields input, label"):
        Streamed(str(written), fields=("image", "label"))[0]
    with pytest.raises(ValueError, match=r"cannot be opened as a set of LitData .* write one by `litdata.optimize`"):
        Streamed(str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(ValueError, match=r"`Streamed` needs LitData: `pip install \"ssl-lightning\[streaming\]\"`"):
        Streamed(str(written))
