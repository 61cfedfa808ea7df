"""A frozen encoder encodes each sample once, and nothing else changes by it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.active import DBAL, Margin, PoolDataModule, TypiClust, run_rounds
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.data.embeddings import Embeddings
from ssl_lightning.data.samples import Batch
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier, Ensemble, Recipe
from ssl_lightning.supervised.frozen import SIZE

Counts = list[int]
STEPS = 10


@pytest.fixture
def pretrained(trainer: Any, tmp_path: Path) -> str:
    fit = trainer(max_steps=3)
    fit.fit(SimCLR(ConvNet(width=4)), datamodule=Digits(batch_size=64))
    fit.save_checkpoint(tmp_path / "simclr.ckpt")
    return str(tmp_path / "simclr.ckpt")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Count the samples of each pass through the encoder."""
    counts: Counts = []
    forward = ConvNet.forward

    def counting(self: ConvNet, images: Tensor) -> Tensor:
        counts.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(ConvNet, "forward", counting)
    return counts


def known(data: Digits, places: Tensor) -> Tensor | None:
    """Return the embeddings of test samples that the data remember."""
    return data.embeddings.find(data.embeddings.name("test"), places)


def rounds(
    checkpoint: str, trainer: Any, folder: Path, strategy: Any, cache: Any = "auto", **options: Any
) -> tuple[list[Any], list[Any]]:
    pool = PoolDataModule(Digits(batch_size=64, limit=300), initial=10, seed=3, steps_per_epoch=STEPS)
    rows = run_rounds(
        lambda: Classifier(10, checkpoint=checkpoint, freeze=True, **options),
        lambda more: trainer(max_epochs=1, callbacks=more), pool, strategy, rounds=3, folder=folder,
        cache=cache,
    )  # fmt: skip
    for row in rows:
        row.pop("seconds")
    return rows, [(query.key, query.round) for query in pool.queries]


@pytest.mark.parametrize("options", [
    {}, {"dropout": 0.3, "recipe": Recipe(probe=False)}, {"dropout": 0.3, "recipe": Recipe(probe=False, augment=False)}
])  # fmt: skip
@pytest.mark.parametrize("kind", [pytest.param(Margin, marks=pytest.mark.long), TypiClust, DBAL])
def test_each_sample_is_encoded_once(
    kind: Any, options: dict[str, Any], pretrained: str, trainer: Any, tmp_path: Path, encoded: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also by a strategy that asks for probabilities and embeddings, as `DBAL`."""
    found = rounds(pretrained, trainer, tmp_path / "with", kind(query_size=10), **options)
    with_memory = sum(encoded)
    encoded.clear()
    monkeypatch.setattr(Embeddings, "find", lambda *_: None)
    assert rounds(pretrained, trainer, tmp_path / "without", kind(query_size=10), **options) == found
    without = sum(encoded)
    data = Digits()
    data.setup("test")
    test = len(data.test_samples)  # type: ignore[arg-type]
    assert without - with_memory > 2 * 150 + 3 * test  # the pool's passes but the first, the test's likewise
    views = 4 * STEPS * 64 if options and options["recipe"].augment else 0  # random ones are encoded anew
    assert with_memory - views <= 300 + test + SIZE  # each once, but for what fills the batch of those to begin with


def test_another_encoder_forgets(pretrained: str, trainer: Any, tmp_path: Path) -> None:
    data = Digits(batch_size=64)
    first = Classifier(10, checkpoint=pretrained, freeze=True)
    trainer(max_epochs=1).test(first, datamodule=data, verbose=False)
    maker = data.embeddings.maker
    assert known(data, torch.arange(64)) is not None
    other = Classifier(10, checkpoint=pretrained, freeze=True)
    with torch.no_grad():
        other.backbone.blocks[0].weight += 0.1
    numbers = trainer(max_epochs=1).test(other, datamodule=data, verbose=False)[0]
    assert data.embeddings.maker != maker
    alone = trainer(max_epochs=1).test(other, datamodule=Digits(batch_size=64), verbose=False)[0]
    assert numbers == alone


def test_samples_of_other_content_are_encoded(pretrained: str, trainer: Any) -> None:
    data = Digits(batch_size=64)
    trainer(max_epochs=1).test(Classifier(10, checkpoint=pretrained, freeze=True), datamodule=data, verbose=False)
    assert known(data, torch.arange(4)) is not None
    data.test_samples = None
    data.setup("test")  # read anew
    assert known(data, torch.arange(4)) is None


def test_only_what_was_prepared_is_looked_up(pretrained: str, trainer: Any) -> None:
    data = Digits(batch_size=64)
    model = Classifier(10, checkpoint=pretrained, freeze=True)
    fit = trainer(max_epochs=1)
    fit.fit(model, datamodule=data)
    batch = next(iter(data.val_dataloader()))
    assert batch.part == data.embeddings.name("train")
    inputs = model.prepare(batch)
    once = model.embed(inputs)
    assert torch.equal(model.embed(inputs), once)
    assert not torch.equal(model.embed(inputs + 1), once)
    bare = Batch(batch.input, batch.target, batch.index)  # of nobody knows which part
    model.prepare(bare)
    assert torch.allclose(model.embed(model.prepare(bare)), once, atol=1e-6)


def test_other_data_have_other_embeddings(pretrained: str, trainer: Any) -> None:
    """Given as loaders, Lightning leaves the trainer with the data module of the call before."""
    first, other = Digits(batch_size=64), Digits(batch_size=64, split_seed=7)
    model, judge = Classifier(10, checkpoint=pretrained, freeze=True), trainer(max_epochs=1)
    judge.test(model, datamodule=first, verbose=False)
    other.setup("test")
    found = judge.test(model, dataloaders=other.test_dataloader(), verbose=False)
    alone = trainer(max_epochs=1).test(model, datamodule=other, verbose=False)
    assert found == alone


def test_another_number_format_is_another_embedding(pretrained: str, trainer: Any) -> None:
    data = Digits(batch_size=64)
    model = Classifier(10, checkpoint=pretrained, freeze=True)
    trainer(max_epochs=1, precision="bf16-mixed").test(model, datamodule=data, verbose=False)
    batch = next(iter(data.test_dataloader()))
    assert model(model.prepare(batch)).dtype == torch.float32


def test_a_subclass_that_prepares_for_itself(pretrained: str, trainer: Any) -> None:
    class Dark(Classifier):
        def prepare(self, batch: Batch, random: bool = False) -> Any:
            inputs = super().prepare(batch, random)
            return inputs.zero_()

    data = Digits(batch_size=64)
    trainer(max_epochs=1).test(Classifier(10, checkpoint=pretrained, freeze=True), datamodule=data, verbose=False)
    model = Dark(10, checkpoint=pretrained, freeze=True)
    trainer(max_epochs=1).test(model, datamodule=data, verbose=False)
    rows = model.embed(model.prepare(next(iter(data.test_dataloader()))))
    assert torch.allclose(rows, rows[:1].expand_as(rows))


def test_an_ensemble_of_heads_shares_them(pretrained: str, trainer: Any, encoded: Counts) -> None:
    data = Digits(batch_size=64)
    model = Ensemble(10, members=3, checkpoint=pretrained, freeze=True)
    first = trainer(max_epochs=1).test(model, datamodule=data, verbose=False)
    assert sum(encoded) == len(data.test_samples)  # type: ignore[arg-type]
    assert trainer(max_epochs=1).test(model, datamodule=data, verbose=False) == first
    assert sum(encoded) == len(data.test_samples)  # type: ignore[arg-type]


def test_memory_has_a_limit() -> None:
    memory = Embeddings(limit=100 * 4 * 8).by("this")
    rows = torch.rand(100, 8)
    memory.keep("train", torch.arange(50), rows[:50])
    memory.keep("train", torch.arange(60, 100), rows[60:])
    assert memory.find("train", torch.arange(70)) is None  # ten were never there
    assert torch.equal(memory.find("train", torch.tensor([99, 3])), rows[[99, 3]])  # type: ignore[arg-type]
    memory.keep("train", torch.arange(100, 111), rows[:11])  # beyond it
    assert memory.find("train", torch.tensor([100])) is None
    assert memory.find("test", torch.tensor([0])) is None
    assert memory.by("that").find("train", torch.tensor([3])) is None


@pytest.mark.parametrize("solves", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_folder_is_shared_by_runs_and_changes_no_pick(
    solves: bool, pretrained: str, trainer: Any, tmp_path: Path, encoded: Counts
) -> None:
    options: dict[str, Any] = {} if solves else {"dropout": 0.3, "recipe": Recipe(probe=False, augment=False)}
    first = rounds(pretrained, trainer, tmp_path / "a", Margin(query_size=10), tmp_path / "cache", **options)
    encoded.clear()
    second = rounds(pretrained, trainer, tmp_path / "b", Margin(query_size=10), tmp_path / "cache", **options)
    assert second == first
    assert not encoded  # nothing
    rounds(pretrained, trainer, tmp_path / "c", TypiClust(query_size=10), tmp_path / "cache", **options)
    assert not encoded  # what another strategy looks at is there, too
    off = rounds(pretrained, trainer, tmp_path / "d", Margin(query_size=10), "off", **options)
    assert len(encoded) > 20
    assert off[1] == first[1]
    for row, other in zip(off[0], first[0], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("size", [7])
def test_the_same_picks_for_any_batch_size(size: int, pretrained: str, trainer: Any, tmp_path: Path) -> None:
    found = rounds(pretrained, trainer, tmp_path / str(size), Margin(query_size=10, batch_size=size), "off")
    again = rounds(pretrained, trainer, tmp_path / f"{size}-kept", Margin(query_size=10, batch_size=size))
    assert again[1] == found[1] == rounds(pretrained, trainer, tmp_path / "usual", Margin(query_size=10))[1]
