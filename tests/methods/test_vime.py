"""VIME: its loss and gradients, that it learns, resumed; and that methods for any data learn from rows."""

import contextlib
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from data.test_table import lines_of, table, write
from methods.test_base import Killer, Stop
from support import equal_weights
from torch import nn

from ssl_lightning.backbones import MLP, ConvNet, RowNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import (
    BYOL,
    NNCLR,
    VIME,
    BarlowTwins,
    DeepCluster,
    MoCo,
    SimCLR,
    SimSiam,
    SupCon,
    SwAV,
    Triplet,
    VICReg,
)
from ssl_lightning.testing import check_method
from ssl_lightning.transforms.vectors import Row, Standardise, VectorViews, VIMEViews


def rows_of(count: int = 6) -> Row:
    generator = torch.Generator().manual_seed(0)
    return Row(torch.randn(count, 3, generator=generator), torch.randint(4, (count, 2), generator=generator))


def test_the_loss_and_its_gradients_are_the_papers() -> None:
    """Cell by cell in float64: binary cross-entropy of the mask, squared error of a number, cross-entropy of a name."""
    torch.manual_seed(0)
    method = VIME(RowNet(3, [4, 5], width=8, dropout=0.0), reconstruction=1.7, feature_dim=3, cardinalities=[4, 5])
    clean, changed = VIMEViews(mask=0.5)(rows_of(), torch.Generator().manual_seed(1))
    batch = Batch(None, torch.zeros(6).long(), torch.arange(6))
    loss = method.compute_loss([clean, changed], batch)["loss"]
    loss.backward()
    mine = {name: weight.grad for name, weight in method.named_parameters()}
    naive = VIME(RowNet(3, [4, 5], width=8, dropout=0.0), reconstruction=1.7, feature_dim=3, cardinalities=[4, 5])
    naive.load_state_dict(method.state_dict())
    naive.double()
    h = naive.backbone(Row(changed.numbers.double(), changed.categories))
    total = torch.zeros((), dtype=torch.float64)
    for n in range(6):
        for j in range(5):
            part = ("numbers", j) if j < 3 else ("categories", j - 3)
            there, here = (getattr(view, part[0])[n, part[1]] for view in (clean, changed))
            p = torch.sigmoid(naive.mask_head(h)[n, j])
            total = total - (torch.log(p) if there != here else torch.log(1 - p)) / 30
            if j < 3:
                error = (naive.number_head(h)[n, j] - there.double()) ** 2
            else:
                logits = naive.category_heads[j - 3](h)[n]
                error = -logits[there] + torch.log(torch.exp(logits).sum())
            total = total + 1.7 * error / 30
    total.backward()
    assert float(loss) == pytest.approx(float(total), rel=1e-5)
    for name, weight in naive.named_parameters():
        assert mine[name] is not None, name
        torch.testing.assert_close(mine[name].double(), weight.grad, rtol=1e-3, atol=1e-6)


def test_it_learns_which_cells_do_not_belong(trainer: Any, tmp_path: Path) -> None:
    """Three columns are one number three times: two of them tell that the third was replaced, and what was there."""
    values = torch.randn(300, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [[f"k{n}", round(x, 4), round(-2 * x, 4), round(5 * x + 1, 4)] for n, x in enumerate(values)]
    data = table(
        tmp_path, rows, ["key", "a", "b", "c"], categories=[], val_size=0, test_size=0, batch_size=100
    )  # fmt: skip
    method = VIME(
        RowNet(3, width=64, dropout=0.0), feature_dim=3, optimizer=OptimizerSpec(name="adamw", lr=0.01)
    )  # fmt: skip
    trainer(max_epochs=60).fit(method, datamodule=data)
    assert isinstance(method.clean, Standardise)
    assert method.views is not None
    assert data.train_samples is not None
    clean, changed = method.views(
        data.train_samples.__getitems__(list(range(300))).input, torch.Generator().manual_seed(9)
    )
    with torch.no_grad():
        h = method.eval().backbone(changed)
        truth = clean != changed
        one = truth.sum(dim=1) == 1  # of two that were replaced, nothing tells which the third is
        found = method.mask_head(h)[one].argmax(dim=1) == truth[one].float().argmax(dim=1)
        errors = (method.number_head(h) - clean).square()[one]
    assert int(one.sum()) > 80
    assert float(found.float().mean()) > 0.8, "a third by chance"
    assert float(errors[truth[one]].mean()) < 0.4, "its mean would leave 1"


def test_contract_and_what_it_takes(trainer: Any, tmp_path: Path) -> None:
    check_method(lambda: VIME(RowNet(2, [4, 5], width=8), feature_dim=2, cardinalities=[4, 5]), lambda: table(tmp_path))
    check_method(
        lambda: VIME(MLP(2, width=8), feature_dim=2),
        lambda: table(tmp_path, categories=[], leave_out=["colour", "code"]),
    )
    with pytest.raises(ValueError, match="`VIME` takes rows, and these data are images"):
        trainer(max_epochs=1).fit(VIME(ConvNet(width=4), feature_dim=64), datamodule=Digits())
    with pytest.raises(ValueError, match="leaves nothing to estimate; pass those of the data"):
        VIME(RowNet(2))
    with pytest.raises(ValueError, match="`mask=0` must be"):
        VIME(RowNet(2), feature_dim=2, mask=0)


def test_resumed_it_is_bit_equal(trainer: Any, tmp_path: Path) -> None:
    def run(callbacks: list[L.Callback], ckpt_path: Path | None) -> VIME:
        L.seed_everything(3, verbose=False)
        method = VIME(RowNet(2, [4, 5], width=8, dropout=0.3), feature_dim=2, cardinalities=[4, 5])
        with contextlib.suppress(Stop):
            trainer(max_epochs=3, callbacks=callbacks).fit(method, datamodule=table(tmp_path), ckpt_path=ckpt_path)
        return method

    whole, path = run([], None), tmp_path / "killed.ckpt"
    run([Killer(3, path)], None)
    assert equal_weights(whole, run([], path))


KINDS: list[Any] = [
    BYOL, BarlowTwins, DeepCluster, MoCo, NNCLR, SimCLR, SimSiam, SupCon, SwAV, Triplet, VICReg,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_methods_for_any_data_learn_from_rows(kind: Any, trainer: Any, tmp_path: Path) -> None:
    """With the data's views, and with others that are given, standardised by the data's transform."""
    data = table(tmp_path)
    for views in (None, VectorViews()):
        options: Any = {} if views is None else {"views": views}
        options |= {"clusters": 5} if kind is DeepCluster else {}
        method: Any = kind(RowNet(2, [4, 5], width=8), **options)
        fit = trainer(max_steps=2, limit_val_batches=1)
        fit.fit(method, datamodule=data)
        assert fit.global_step == 2
        assert torch.isfinite(fit.callback_metrics["train/loss"])
        assert isinstance(method.clean, Standardise)
        assert method.clean.init_args == data.clean().init_args


def test_given_views_see_what_the_encoder_is_judged_by(trainer: Any, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", lines_of())
    seen: list[Any] = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.feature_dim = RowNet(2, [4, 5], width=8), 8

        def forward(self, rows: Row) -> torch.Tensor:
            seen.append(rows)
            return self.net(rows)  # type: ignore[no-any-return]

    trainer(max_steps=1, limit_val_batches=0).fit(
        SimCLR(Watch(), views=VIMEViews()), datamodule=table(tmp_path, val_size=0, test_size=0, batch_size=120)
    )
    clean = seen[-1].numbers[:120]
    assert clean.mean(dim=0).tolist() == pytest.approx([0.0, 0.0], abs=1e-4)
    assert clean.std(dim=0, correction=0).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
