"""The lecture's three cases of the pool."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ssl_lightning.active import BALD, PoolCases, PoolDataModule
from ssl_lightning.active.cases import advice, sort_cases
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.functional.scoring import mutual_information
from ssl_lightning.supervised.classifier import Classifier


def test_every_sample_is_of_one_case_by_the_two_terms() -> None:
    members = (
        torch.randn(8, 500, 4)
        .mul(torch.rand(500, 1) * 3)
        .add(torch.randn(500, 4) * torch.rand(500, 1) * 9)
        .log_softmax(-1)
    )
    least = 0.1 * torch.tensor(4.0).log()
    p = members.exp().double()
    own = -(p * p.log()).sum(-1).mean(0)
    mean = p.mean(0)
    between = -(mean * mean.log()).sum(-1) - own
    expected = [1 if b > least else 2 if o > least else 0 for b, o in zip(between, own, strict=True)]
    cases = sort_cases(members)
    assert cases.tolist() == expected
    assert set(expected) == {0, 1, 2}


def test_the_advice() -> None:
    def said(none: float, high: float, data: float) -> str:
        return advice({"no_disagreement": none, "high_disagreement": high, "data_disagreement": data})

    assert "look at the model" in said(0.5, 0.01, 0.49)
    assert "Labels help" in said(0.5, 0.3, 0.2)
    assert "Little is left" in said(0.98, 0.01, 0.01)
    assert "high disagreement 30 %, data disagreement 20 %, none 50 % of the pool" in said(0.5, 0.3, 0.2)


def test_a_fit_sorts_its_pool(trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = PoolDataModule(Digits(batch_size=64), initial=30, steps_per_epoch=20)
    model = Classifier(10, ConvNet(width=8), dropout=0.5)
    cases = PoolCases(members=7)
    fit = trainer(max_epochs=1, callbacks=[cases, BALD(query_size=5)], logger=CSVLogger(tmp_path, version=0))
    fit.fit(model, datamodule=pool)
    assert "round 0: high disagreement" in capsys.readouterr().out
    with (tmp_path / "cases.csv").open() as file:
        table = list(csv.DictReader(file))
    asked = set(pool.asked(0))
    indices = [pool.data.find(row["key"])[1] for row in table]
    assert set(indices) == set(pool.unlabelled.tolist()) | asked
    for name, share in cases.shares.items():
        assert share == pytest.approx(sum(row["case"] == name.replace("_", " ") for row in table) / len(table))
    assert sum(cases.shares.values()) == pytest.approx(1)
    # the masks are those of the strategy
    model.eval()
    images = model.clean(pool.data.train_samples.__getitems__(indices).input)  # type: ignore[union-attr]
    from ssl_lightning.engine.seeding import derive_seed

    seed = derive_seed(derive_seed(pool.seed, "acquisition", 0), "masks")
    with torch.no_grad():
        expected = mutual_information(model.sample_logits(images, 7, seed).log_softmax(-1))
    assert [float(row["mutual_information"]) for row in table] == pytest.approx(expected.tolist(), abs=2e-6)
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "active/data_disagreement" in logged


def test_mistakes_are_named(trainer: Any) -> None:
    with pytest.raises(ValueError, match="`threshold=0` must be above 0 and below 1"):
        PoolCases(threshold=0)
    with pytest.raises(ValueError, match="`PoolCases` needs a pool"):
        trainer(max_steps=1, callbacks=[PoolCases()]).fit(
            Classifier(10, ConvNet(width=4), dropout=0.5), datamodule=Digits()
        )
    with pytest.raises(ValueError, match="no dropout to draw from"):
        trainer(max_steps=1, callbacks=[PoolCases()]).fit(
            Classifier(10, ConvNet(width=4)), datamodule=PoolDataModule(Digits(), steps_per_epoch=2)
        )
