"""Every strategy on every modality: whatever a sample is, the pool, the pass and the choice are the same."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_modality import MODALITIES, classifier, write
from every_strategy import STRATEGIES, make
from support import spawn

from ssl_lightning.active import FarthestFirst, PoolDataModule
from ssl_lightning.active.stream import Stream


def quiet(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all modalities, each in a folder of its name."""
    path = tmp_path_factory.mktemp("modalities")
    for name in MODALITIES:
        write(name, path / name)
    return path


@pytest.mark.parametrize("name", [name for name in MODALITIES if name != "images"])  # those are in test_strategy.py
def test_every_strategy_asks_for_its_query_and_the_same_for_any_batch_size(name: str, folder: Path) -> None:
    """Among samples of very different lengths: what a batch is filled up with decides nothing."""
    assert len(STRATEGIES) == 20
    L.seed_everything(0, verbose=False)
    pool = PoolDataModule(MODALITIES[name].data(folder / name, batch_size=16), initial=9, steps_per_epoch=2)
    strategies = [make(kind, query_size=4) for kind in STRATEGIES]
    trainer, model = quiet(max_epochs=1, callbacks=strategies[:1]), classifier(name, pool.data)
    trainer.fit(model, datamodule=pool)
    assert len(set(pool.asked(0)) - set(pool.asked(-1))) == 4
    for strategy in strategies:
        if strategy.needs_fit or isinstance(strategy, Stream):
            strategy.on_fit_start(trainer, model)
        picks = []
        for size in (1, 7, 256):
            strategy.batch_size = size
            picks.append(strategy.query(trainer, model, pool)[0])
        assert picks[0] == picks[1] == picks[2], type(strategy).__name__
        assert len(set(picks[0]) - set(pool.places)) == 4, type(strategy).__name__


def picks_of_all(rank: int, world: int, folder: Path) -> dict[tuple[str, str], list[str]]:
    """Let strategies choose by untrained models, none of whose processes knows the whole pool."""
    if world > 1:  # the processes are there: Lightning is to start none
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    found = {}
    for name in MODALITIES:
        data = MODALITIES[name].data(folder / name, batch_size=16)
        pool, model = PoolDataModule(data, initial=9, seed=4), classifier(name, data)
        chooser = quiet(devices=world, strategy="ddp" if world > 1 else "auto")
        chooser.validate(model, datamodule=data, verbose=False)  # sets the processes up
        pool.trainer = data.trainer = chooser
        pool.setup("fit")
        for kind in STRATEGIES:
            strategy = make(kind, query_size=5)
            if kind.needs_fit or isinstance(strategy, Stream):
                continue
            chosen = strategy.query(chooser, model, pool)[0]
            found[name, kind.__name__] = [pool.keys[place] for place in chosen]
    return found


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_processes_choose_what_one_does(folder: Path, tmp_path: Path) -> None:
    alone = picks_of_all(0, 1, folder)
    assert len(alone) == len(MODALITIES) * (len(STRATEGIES) - 2)
    for found in spawn(partial(picks_of_all, folder=folder), 2, tmp_path):
        assert found == alone


@pytest.mark.parametrize("name", MODALITIES)
def test_distances_of_raw_inputs_where_there_are_some(name: str, folder: Path) -> None:
    strategy = FarthestFirst(query_size=4, space="input")
    pool = PoolDataModule(MODALITIES[name].data(folder / name, batch_size=16), initial=9, steps_per_epoch=1)
    trainer, model = quiet(max_epochs=1, callbacks=[strategy]), classifier(name, pool.data)
    if name in ("images", "numbers"):
        trainer.fit(model, datamodule=pool)
        assert len(pool.asked(0)) == 4
        return
    with pytest.raises(ValueError, match=r"`space=input` .* have no distance. Take `space=embedding`"):
        trainer.fit(model, datamodule=pool)


@pytest.mark.parametrize("name", MODALITIES)
def test_a_sample_has_the_logits_that_it_has_alone(name: str, folder: Path) -> None:
    """Also under each dropout mask: masks are drawn for places, and not for what fills a batch up."""
    data = MODALITIES[name].data(folder / name)
    data.setup("fit")
    model = classifier(name, data).eval()
    model.clean = data.clean()
    samples = data.train_samples
    assert samples is not None

    def logits(places: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            inputs = model.prepare(samples.__getitems__(places))
            return torch.cat([model(inputs)[None], model.sample_logits(inputs, 3, seed=5)])

    places = list(range(24))
    together, alone = logits(places), torch.cat([logits([place]) for place in places], dim=1)
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)
