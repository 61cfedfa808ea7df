"""Views and masks of texts: what stays, what is drawn, and that what a text is filled up to is nothing to them."""

import math

import pytest
import torch

from ssl_lightning.backbones import MLP, TextTransformer
from ssl_lightning.transforms.padded import Padded, fill_up
from ssl_lightning.transforms.text import CLS, MASK, SEP, SPECIAL, DropoutViews, TokenViews, text_views
from ssl_lightning.transforms.text.masks import chosen_tokens, fixed_draws, hidden_tokens, random_draws


def texts(lengths: list[int], vocab_size: int = 1000, seed: int = 0) -> Padded:
    """Return texts of random tokens, each from `CLS` to `SEP`."""
    generator = torch.Generator().manual_seed(seed)
    inner = [torch.randint(SPECIAL, vocab_size, (length - 2,), generator=generator) for length in lengths]
    return fill_up([torch.cat([torch.tensor([CLS]), row, torch.tensor([SEP])]) for row in inner])


def longer(inputs: Padded, more: int = 37) -> Padded:
    """Fill texts up to a greater length."""
    return inputs._replace(values=torch.nn.functional.pad(inputs.values, (0, more)))


def rows(inputs: Padded) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(inputs.values, inputs.length.tolist(), strict=True)]


LENGTHS = [2, 3, 4, 9, 30, 64]


@pytest.mark.parametrize(
    "views", [TokenViews(), TokenViews(3, 0.9, 0.9, 0.1), text_views(1, mild=True), DropoutViews()]
)
def test_views_keep_ends_order_and_a_token_and_know_no_padding(views: TokenViews | DropoutViews) -> None:
    inputs = texts(LENGTHS)
    made = views(inputs, torch.Generator().manual_seed(0))
    padded = views(longer(inputs), torch.Generator().manual_seed(0))
    assert len(made) == views.count
    assert len({view.values.shape for view in made}) == 1  # so that they can be joined
    for view, other in zip(made, padded, strict=True):
        assert rows(view) == rows(other)
        behind = torch.arange(view.values.shape[1]) >= view.length[:, None]
        assert (view.values[behind] == 0).all()
        for original, row in zip(rows(inputs), rows(view), strict=True):
            assert row[0] == CLS
            assert row[-1] == SEP
            assert len(row) >= min(3, len(original))
            left = iter(original)
            assert all(token in left for token in row), "a subsequence, in order"


def test_token_views_draw_as_they_say() -> None:
    inputs = texts([102] * 3000)
    drop = TokenViews(1, drop=0.3, span_cut=0, crop=1)(inputs, torch.Generator().manual_seed(0))[0]
    assert math.isclose(float((drop.length - 2).float().mean()), 70, abs_tol=0.5)
    crop = TokenViews(1, drop=0, span_cut=0, crop=0.5)(inputs, torch.Generator().manual_seed(0))[0]
    shares = (crop.length - 2).float() / 100
    assert (shares.min() >= 0.5, shares.max() <= 1) == (True, True)
    assert math.isclose(float(shares.mean()), 0.75, abs_tol=0.02)
    for original, row in list(zip(rows(inputs), rows(crop), strict=True))[:50]:
        text, part = "".join(map(chr, original[1:-1])), "".join(map(chr, row[1:-1]))
        assert part in text, "one piece"
    cut = TokenViews(1, drop=0, span_cut=0.5, crop=1)(inputs, torch.Generator().manual_seed(0))[0]
    left = (cut.length - 2).float()
    assert math.isclose(float(left.mean()), 75, abs_tol=1)
    for original, row in list(zip(rows(inputs), rows(cut), strict=True))[:50]:
        begin = next((place for place, (a, b) in enumerate(zip(original, row, strict=False)) if a != b), len(row))
        assert row[begin:] == original[len(original) - len(row) + begin :], "less one piece"
    again = TokenViews()(inputs, torch.Generator().manual_seed(1))
    assert rows(again[0]) != rows(again[1])


def test_masks_choose_15_percent_and_hide_80_10_10() -> None:
    inputs, vocab_size = texts([52] * 4000, vocab_size=2000), 2000
    draws = random_draws(inputs, torch.Generator().manual_seed(0))
    chosen = chosen_tokens(inputs, 0.15, draws[0])
    hidden = hidden_tokens(inputs, chosen, draws[1:], vocab_size)
    assert math.isclose(float(chosen[:, 1:-1].float().mean()), 0.15, abs_tol=0.003)
    assert not chosen[:, [0, -1]].any()
    assert (hidden.values[~chosen] == inputs.values[~chosen]).all()
    before, after = inputs.values[chosen], hidden.values[chosen]
    masked, same = (after == MASK).float().mean(), (after == before).float().mean()
    assert math.isclose(float(masked), 0.8, abs_tol=0.01)
    assert math.isclose(float(same), 0.1, abs_tol=0.01)
    other = after[(after != MASK) & (after != before)]
    assert int(other.min()) >= SPECIAL
    assert int(other.max()) < vocab_size
    assert len(other.unique()) > 1500  # any token
    counts = torch.bincount(chosen[:, 1:-1].nonzero()[:, 1], minlength=50) / 4000
    assert (counts - 0.15).abs().max() < 0.03  # wherever it stands


def test_masks_know_no_padding_and_take_at_least_one() -> None:
    inputs = texts([3, 3, 4, 64, 9] * 40)
    found = []
    for more in (0, 41):
        draws = random_draws(longer(inputs, more), torch.Generator().manual_seed(3))
        chosen = chosen_tokens(longer(inputs, more), 0.15, draws[0])
        assert (chosen.sum(dim=1) >= 1).all()
        assert not chosen[:, 64:].any()
        found.append((chosen[:, :64], rows(hidden_tokens(longer(inputs, more), chosen, draws[1:], 1000))))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    twice = Padded(torch.cat([inputs.values, longer(inputs, 0).values]), inputs.length.repeat(2))
    fixed = fixed_draws(twice)
    assert torch.equal(fixed[:, :200], fixed[:, 200:])
    assert torch.equal(fixed_draws(longer(inputs))[:, :, :64], fixed[:, :200]), "by the text alone"
    assert len(fixed[0, :200, 1].unique()) == len({tuple(row) for row in rows(inputs)})


def test_whole_words_are_chosen_as_a_whole() -> None:
    inputs = texts([40] * 500)
    starts = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.5
    chosen = chosen_tokens(inputs, 0.3, random_draws(inputs, torch.Generator().manual_seed(0))[0], starts)
    follows = ~starts[inputs.values]
    follows[:, [0, 1, -1]] = False  # the first token begins a word, whatever it is
    assert follows.any()
    assert torch.equal(chosen[:, 1:][follows[:, 1:]], chosen[:, :-1][follows[:, 1:]])
    assert math.isclose(float(chosen[:, 1:-1].float().mean()), 0.3, abs_tol=0.02)
    assert chosen.any(dim=1).all()


def test_dropout_views_want_dropout() -> None:
    DropoutViews().require_encoder(TextTransformer(10, 8, 1, 2, dropout=0.1))
    DropoutViews(1).require_encoder(TextTransformer(10, 8, 1, 2, dropout=0.0))
    for encoder in (TextTransformer(10, 8, 1, 2, dropout=0.0), MLP(4)):
        with pytest.raises(ValueError, match=r"`DropoutViews` are alike where the encoder drops nothing, as this `"):
            DropoutViews().require_encoder(encoder)


def test_mistakes_are_named() -> None:
    for options, message in (
        ({"count": 0}, "`count=0`"), ({"drop": 1.0}, r"`drop=1.0` must be from 0 to below 1"),
        ({"crop": 0.0}, "`crop=0.0` must be above 0"), ({"span_cut": -0.1}, "`span_cut=-0.1`"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            TokenViews(**options)  # type: ignore[arg-type]
