"""The encoder of rows, and those of vectors on rows: alone as in a batch, by names of cells, by any number type."""

from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.backbones import MLP, Flat, RowNet, build, describe
from ssl_lightning.supervised import Classifier
from ssl_lightning.testing import check_backbone
from ssl_lightning.transforms.vectors import Row


def rows_of(count: int = 8) -> Row:
    generator = torch.Generator().manual_seed(0)
    return Row(torch.randn(count, 3, generator=generator), torch.randint(4, (count, 2), generator=generator))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: RowNet(3, [4, 5], width=16), rows_of()),
        (lambda: RowNet(3, width=16), rows_of().numbers),
        (lambda: RowNet(0, [4, 5], width=16), Row(torch.zeros(8, 0), rows_of().categories)),
        (lambda: MLP(3, width=16), rows_of().numbers),
        (lambda: MLP(3, width=16), Row(rows_of().numbers, torch.zeros(8, 0).long())),
    ],
)
def test_contract(make: Any, inputs: Any) -> None:
    check_backbone(make, inputs)
    net = make()
    assert type(build(describe(net))) is type(net)
    assert build(describe(net)).init_args == net.init_args


def test_it_is_the_formula() -> None:
    net, rows = RowNet(3, [4, 5], width=6, depth=2, category_dim=2).double().eval(), rows_of()
    assert net.table is not None
    vectors = [net.table.weight[rows.categories[:, 0]], net.table.weight[4 + rows.categories[:, 1]]]
    h = net.first(torch.cat([rows.numbers.double(), *vectors], dim=1))

    def norm(x: torch.Tensor, layer: Any) -> torch.Tensor:
        spread = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return spread * layer.weight + layer.bias

    for block in net.blocks:
        inner = torch.clamp(norm(h, block[0]) @ block[1].weight.T + block[1].bias, min=0)
        h = h + inner @ block[4].weight.T + block[4].bias
    torch.testing.assert_close(net(rows), torch.clamp(norm(h, net.last[0]), min=0))


def test_codes_that_are_not_known_are_one() -> None:
    net = RowNet(3, [4, 5], width=16).eval()
    rows = rows_of(4)
    codes = torch.tensor([[0, 0], [4, 5], [99, -1], [-7, 10**9]])
    made = net(Row(rows.numbers[:1].expand(4, 3), codes))
    torch.testing.assert_close(made, made[:1].expand(4, 16))


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float64, torch.bool])
def test_numbers_of_any_type_are_taken(kind: torch.dtype) -> None:
    rows = torch.tensor([[1, 0, 1], [0, 1, 1]])
    for net in (MLP(3, width=4), Flat(3), RowNet(3, width=4)):
        net.eval()
        if kind is torch.float64 and not isinstance(net, Flat):
            net.double()
        torch.testing.assert_close(net(rows.to(kind)).float(), net.float()(rows.float()))


def test_rows_that_do_not_fit_are_told() -> None:
    for net in (MLP(3), Flat(3)):
        with pytest.raises(ValueError, match=r"takes numbers, and these rows have 2 categories, too; take `RowNet`"):
            net(rows_of())
        with pytest.raises(ValueError, match=r"built for `feature_dim=3`, not for 4"):
            net(torch.zeros(2, 4))
        with pytest.raises(ValueError, match="must be vectors"):
            net(torch.zeros(2, 3, 1))
    net = RowNet(3, [4])
    for bad in (rows_of(), rows_of().numbers, torch.zeros(2, 5)):
        with pytest.raises(
            ValueError, match="`RowNet` was built for rows of 3 numbers and 1 categories, and these have"
        ):
            net(bad)
    with pytest.raises(ValueError, match="leaves nothing to encode"):
        RowNet(0)
    with pytest.raises(ValueError, match="`cardinalities=0` must be"):
        RowNet(2, [3, 0])


def test_dropout_is_drawn_alike_for_any_batch() -> None:
    model = Classifier(3, RowNet(3, [4, 5], width=16, dropout=0.5), dropout=0.5).eval()
    rows = rows_of(8)
    together = model.sample_logits(rows, 4, seed=1)
    alone = torch.cat([model.sample_logits(Row(*(part[n : n + 1] for part in rows)), 4, seed=1) for n in range(8)], 1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert float(together.std(dim=0).mean()) > 0.01
    plain = nn.Sequential(model.backbone, model.head).eval()
    torch.testing.assert_close(model(rows), plain(rows))
