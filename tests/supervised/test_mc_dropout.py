"""Masks have torch's own law, are the same for every sample and batch, and another at each use of a layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_lightning.backbones import ConvNet
from ssl_lightning.supervised import Classifier
from ssl_lightning.supervised.mc_dropout import dropped, fixed_masks, listen, mc_dropout, require_dropout

P = 0.3
DRAWS = 4000


class Mine(nn.Dropout):
    """A stranger's subclass."""


def drawn(layer: nn.Module, values: Tensor) -> Tensor:
    """Return many draws of a layer in evaluation mode."""
    return torch.stack([dropped(layer, values, torch.Generator().manual_seed(seed)) for seed in range(DRAWS)])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout(P), (1, 6)),
        (nn.Dropout(P), (1, 2, 3, 3)),
        (Mine(P), (1, 2, 3, 3)),
        (nn.Dropout1d(P), (1, 4, 5)),
        (nn.Dropout1d(P), (4, 5)),
        (nn.Dropout2d(P), (1, 4, 3, 3)),
        (nn.Dropout3d(P), (1, 4, 2, 2, 2)),
        (nn.Dropout3d(P), (4, 2, 2, 2)),
        (nn.AlphaDropout(P), (1, 2, 3, 3)),
        (nn.FeatureAlphaDropout(P), (1, 4, 3, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(len(value)),
)
def test_law_is_torchs(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Mean, variance and the covariance of neighbours, within five standard errors of torch in training mode."""
    values = torch.linspace(-1, 2, int(torch.tensor(shape).prod())).view(shape)
    mine = drawn(layer.eval(), values).flatten(1).double()
    with torch.no_grad():
        theirs = torch.stack([layer.train()(values) for _ in range(DRAWS)]).flatten(1).double()
    assert sorted(set(mine[:, 0].tolist())) == pytest.approx(sorted(set(theirs[:, 0].tolist())), abs=1e-6)
    error = 5 * (2 / DRAWS) ** 0.5
    spread = theirs.std(dim=0).clamp(min=1e-3)
    assert ((mine.mean(dim=0) - theirs.mean(dim=0)) / spread).abs().max() < error
    for other in (1, mine.shape[1] - 1):  # in the same channel, in another

        def together(rows: Tensor, other: int = other) -> Tensor:
            centred = rows - rows.mean(dim=0)
            return (centred[:, 0] * centred[:, other]).mean()

        difference = together(mine) - together(theirs)
        assert abs(float(difference)) < 2 * error * float(spread[0] * spread[other])
    ratio = mine.var(dim=0) / theirs.var(dim=0).clamp(min=1e-9)
    assert (ratio[theirs.var(dim=0) > 1e-6] - 1).abs().max() < 2 * error


def test_alpha_dropout_keeps_mean_0_and_variance_1() -> None:
    values = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    found = dropped(nn.AlphaDropout(0.4), values, torch.Generator().manual_seed(1))
    assert abs(float(found.mean())) < 0.02
    assert float(found.var()) == pytest.approx(1.0, abs=0.02)


class Twice(nn.Module):
    """Uses one dropout layer at two places."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5, **options)

    def forward(self, inputs: Tensor) -> Tensor:
        """Add up two draws of the same."""
        return self.drop(inputs.clone()) + self.drop(inputs.clone())  # type: ignore[no-any-return]


def test_a_layer_used_twice_has_two_masks() -> None:
    """The sum of two independent draws has twice the variance of one, not four times; as in training mode."""
    ones = torch.ones(1, 20_000)
    found = mc_dropout(Twice().eval(), ones, members=1, seed=0)[0]
    assert float(found.var()) == pytest.approx(2.0, rel=0.05)
    assert set(found.unique().tolist()) == {0.0, 2.0, 4.0}


def test_masks_do_not_depend_on_batches_and_are_shared_by_samples() -> None:
    inputs = torch.ones(7, 3, 4, 4)
    net = nn.Sequential(Twice(), nn.Dropout2d(0.5), nn.AlphaDropout(0.3), nn.Flatten(), nn.Dropout(0.2)).eval()
    whole = mc_dropout(net, inputs, members=3, seed=5)
    parts = torch.cat([mc_dropout(net, part, members=3, seed=5) for part in inputs.split(2)], dim=1)
    assert torch.equal(whole, parts)
    assert all(torch.equal(whole[:, 0], whole[:, row]) for row in range(7))
    assert not torch.equal(whole[0], whole[1])
    with fixed_masks(net, seed=1):  # one context over several batches, too
        assert torch.equal(net(inputs[:2]), net(inputs[2:4]))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_in_place_is_the_same_and_leaves_the_input(kind: Any) -> None:
    inputs = torch.ones(2, 3, 4, 4)
    plain, inplace = (nn.Sequential(kind(0.5, inplace=flag), nn.Flatten()).eval() for flag in (False, True))
    assert torch.equal(mc_dropout(plain, inputs, 4, 0), mc_dropout(inplace, inputs, 4, 0))
    assert torch.equal(inputs, torch.ones(2, 3, 4, 4))


class Ignoring(nn.Module):
    """Relies on the layer's working in place."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop, and forget what the layer returns."""
        self.drop(inputs)
        return inputs


def test_in_place_works_in_place() -> None:
    assert 0.0 in mc_dropout(Ignoring().eval(), torch.ones(1, 50), members=1, seed=0)


def test_probability_1_drops_everything() -> None:
    assert torch.equal(dropped(nn.Dropout(1.0), torch.ones(2, 3), torch.Generator()), torch.zeros(2, 3))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`members=0` must be at least 1"):
        mc_dropout(nn.Dropout(0.5), torch.ones(1, 2), 0, 0)
    with pytest.raises(ValueError, match="the model has no dropout to draw from"):
        mc_dropout(nn.Linear(2, 2), torch.ones(1, 2), 1, 0)


class Attending(nn.Module):
    """Attention within samples `(N, 3, 8)`, its dropout and the head's; `batch_first` or not."""

    def __init__(self, batch_first: bool, need_weights: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=batch_first)
        self.drop, self.first, self.weights = nn.Dropout(0.1), batch_first, need_weights

    def forward(self, inputs: Tensor) -> Tensor:
        """Attend to oneself."""
        rows = inputs if self.first else inputs.transpose(0, 1)
        found = self.attention(rows, rows, rows, need_weights=self.weights)[0]
        return self.drop(found if self.first else found.transpose(0, 1))  # type: ignore[no-any-return]


class Encoding(nn.Module):
    """Two of torch's encoder layers on samples `(N, 3, 8)`."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=batch_first)
        self.encoder, self.first = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), batch_first

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode."""
        rows = inputs if self.first else inputs.transpose(0, 1)
        found = self.encoder(rows)
        return found if self.first else found.transpose(0, 1)  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Drops by functions: numbers in place, channels, and the weights of an attention written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Attend, and drop what comes out."""
        heads = inputs.unflatten(2, (2, 4)).transpose(1, 2)  # (N, 2, 3, 4)
        weights = functional.dropout((heads @ heads.transpose(2, 3)).softmax(dim=-1), 0.5, self.training)
        found = functional.dropout1d((weights @ heads).transpose(1, 2).flatten(2), 0.3, training=self.training)
        found = functional.alpha_dropout(found, 0.2, self.training)
        return self.drop(functional.dropout(found.clone(), 0.4, self.training, inplace=True))  # type: ignore[no-any-return]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    found: nn.Module = {
        "attention": lambda: Attending(True), "attention without weights": lambda: Attending(False, False),
        "encoder": lambda: Encoding(True), "encoder of columns": lambda: Encoding(False), "functional": Functional,
    }[name]()  # fmt: skip
    return found.eval()


NETWORKS = ["attention", "attention without weights", "encoder", "encoder of columns", "functional"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_law_of_attention_and_of_functions_is_that_of_training(name: str) -> None:
    """Mean and variance of what comes out, within four standard errors of 24 numbers in training mode.

    In training each row of a batch draws by itself, so that many copies of a sample are as many draws.
    """
    net, inputs = network(name), torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mine = mc_dropout(net, inputs, members=800, seed=0)[:, 0].double()
        theirs = net.train()(inputs.expand(20_000, -1, -1)).double()
    for found, wanted in ((mine, theirs), ((mine - theirs.mean(0)) ** 2, (theirs - theirs.mean(0)) ** 2)):
        error = wanted.std(dim=0) * (1 / len(found) + 1 / len(wanted)) ** 0.5
        assert ((found.mean(dim=0) - wanted.mean(dim=0)).abs() / error).max() < 4


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_of_attention_and_of_functions_are_shared_by_samples(name: str) -> None:
    net, inputs = network(name), torch.randn(7, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = mc_dropout(net, torch.cat([inputs, inputs[:1]]), members=5, seed=3)
        parts = torch.cat([mc_dropout(net, part, members=5, seed=3) for part in inputs.split(3)], dim=1)
        plain = net(inputs)
    torch.testing.assert_close(together[:, :7], parts)
    torch.testing.assert_close(together[:, 0], together[:, 7])
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(net(inputs), plain)  # nothing is left behind


def test_attention_alone_is_dropout_to_draw_from() -> None:
    net = Attending(True)
    net.drop.p = 0.0
    require_dropout(net)
    net.attention.dropout = 0.0
    with pytest.raises(ValueError, match="the model has no dropout to draw from"):
        require_dropout(net)


def test_one_hears_of_dropout_by_functions() -> None:
    inputs = torch.randn(2, 3, 8)
    for name in NETWORKS:
        net = network(name)
        found, drops = listen(net, inputs)
        assert drops
        torch.testing.assert_close(found, net(inputs))
    assert not listen(nn.Sequential(nn.Linear(8, 2), nn.Dropout(0.0)).eval(), inputs)[1]


class Noise(nn.Dropout):
    """Multiplies by a Gaussian."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        return inputs * (1 + torch.randn_like(inputs)) if self.training else inputs


def test_what_cannot_be_drawn_from_is_named() -> None:
    net = nn.ModuleDict({"rnn": nn.LSTM(4, 4, num_layers=2, dropout=0.5), "head": nn.Dropout(0.1)})
    with pytest.raises(ValueError, match=r"`rnn` drops between its layers.*give `dropout=0` to that LSTM"):
        require_dropout(net)
    net["rnn"] = nn.GRU(4, 4, num_layers=2)
    require_dropout(net)
    with pytest.raises(ValueError, match="`1` is a Noise, whose `forward` is its own"):
        mc_dropout(nn.Sequential(nn.Dropout(0.5), Noise(0.5)).eval(), torch.ones(1, 2), 1, 0)

    class Always(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(inputs, inputs, inputs, dropout_p=0.5)

    with pytest.raises(ValueError, match="`scaled_dot_product_attention` with `dropout_p` draws other masks"):
        mc_dropout(Always(nn.Dropout(0.5)).eval(), torch.ones(1, 2, 4), 1, 0)


def test_a_layer_that_is_left_out_is_told_of() -> None:
    """As by fused attention, which reads the probability in training mode alone."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_drop, self.drop = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, inputs: Tensor) -> Tensor:
            p = self.attn_drop.p if self.training else 0.0
            return self.drop(functional.scaled_dot_product_attention(inputs, inputs, inputs, dropout_p=p))  # type: ignore[no-any-return]

    with pytest.warns(UserWarning, match="the dropout layer `attn_drop` is not used by a forward in evaluation mode"):
        mc_dropout(Fused().eval(), torch.ones(1, 2, 4), 1, 0)


class Given(nn.Module):
    """Drops by functions, as it is told."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.drop = how, nn.Dropout(0.0)

    def forward(self, rows: Tensor) -> Tensor:
        p = 0.5 if self.training else 0.0
        if self.how == "attention":
            return functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=p)
        return functional.dropout(rows, p if self.how == "p" else 0.5, training=False)


@pytest.mark.parametrize(("how", "draws"), [("attention", False), ("p", False), ("never", True)])
def test_the_probability_in_evaluation_mode_is_what_is_seen(how: str, draws: bool) -> None:
    """As docs/ensembles.md says."""
    net = nn.Sequential(nn.Dropout(0.1), Given(how)).eval()
    rows = torch.ones(2, 3, 4)
    with fixed_masks(net[1], seed=0):
        first = net[1](rows)
    assert torch.equal(first, rows) != draws
    assert listen(net[1], rows)[1] == draws


class SequenceFirst(nn.Module):
    """Drops where samples are the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.drop(rows.transpose(0, 1)).mean(dim=0)  # type: ignore[no-any-return]


def test_dropout_where_samples_are_not_first_is_refused() -> None:
    with pytest.raises(ValueError, match="samples are not the first dimension"):
        mc_dropout(SequenceFirst().eval(), torch.ones(6, 5, 4), 2, seed=0)


def test_a_frozen_encoder_is_not_drawn_from() -> None:
    """It never drops while the head learns."""
    model = Classifier(3, ConvNet(width=4, dropout=0.5), dropout=0.1)
    model.frozen = True
    model.backbone.requires_grad_(False)
    model.eval()
    images = torch.randn(5, 1, 8, 8)
    logits = model.sample_logits(images, 8, seed=1)
    assert torch.equal(logits, mc_dropout(model.head, model.embed(images), 8, seed=1))
    assert len(logits.unique(dim=0)) > 1
    without = Classifier(3, ConvNet(width=4, dropout=0.5))
    without.frozen = True
    with pytest.raises(ValueError, match="dropout"):
        without.require_samples(None)


class Native(nn.Module):
    """Drops by what `torch.nn.functional` is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, rows: Tensor) -> Tensor:
        return self.drop(torch.dropout(rows, 0.5, self.training))  # type: ignore[no-any-return]


def test_what_is_not_seen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`torch.dropout` cannot be held fixed; use `torch.nn.functional.dropout`"):
        mc_dropout(Native().eval(), torch.ones(3, 4), 2, seed=0)
    scripted = nn.Sequential(torch.jit.script(nn.Dropout(0.5)), nn.Dropout(0.1)).eval()  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="`0` is scripted"):
        mc_dropout(scripted, torch.ones(3, 4), 2, seed=0)
