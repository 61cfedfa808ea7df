"""Encoders of pairs: two towers and two streams, against naive references, and never seeing what fills a text up."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from ssl_lightning.backbones import AnyModule, Backbone, ConvNet, TwoStreams, TwoTowers, build, describe
from ssl_lightning.backbones.co_attention import Attention, CoAttention, Sublayer
from ssl_lightning.supervised import Classifier
from ssl_lightning.testing import check_backbone
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import Pair

SMALL: dict[str, Any] = {"vocab_size": 40, "image_size": 8}


def two_towers(**options: Any) -> TwoTowers:
    text = {"dim": 8, "depth": 1, "heads": 2, "dropout": 0.0, **options}
    return TwoTowers(
        **SMALL, dim=8, image="ConvNet", image_args={"width": 4}, text_args=text,
    )  # fmt: skip


def two_streams(**options: Any) -> TwoStreams:
    return TwoStreams(**SMALL, dim=8, regions=2, text_layers=1, co_layers=1, heads=2, **options)


BUILD: dict[str, Any] = {"TwoTowers": two_towers, "TwoStreams": two_streams}


def pairs(count: int = 5, longest: int = 9) -> Pair:
    """Texts of very different lengths."""
    generator = torch.Generator().manual_seed(3)
    length = torch.linspace(3, longest, count).long()
    ids = torch.randint(5, 40, (count, longest), generator=generator)
    outside = torch.arange(longest) >= length[:, None]
    return Pair(torch.randn(count, 3, 8, 8, generator=generator), Padded(ids.masked_fill(outside, 0), length))


def longer(some: Pair, more: int = 13, fill: int = 7) -> Pair:
    """The same, filled up further, and with anything."""
    ids, length = some.text
    total = ids.shape[1] + more
    wide = torch.full((len(ids), total), fill)
    wide[:, : ids.shape[1]] = ids
    return Pair(some.image, Padded(wide.masked_fill(torch.arange(total) >= length[:, None], fill), length))


@pytest.mark.parametrize("name", BUILD)
def test_the_contract_of_encoders(name: str) -> None:
    torch.manual_seed(0)
    check_backbone(BUILD[name], pairs())
    net = BUILD[name]()
    again = build(describe(net))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(pairs()), net.eval()(pairs()))
    assert again.init_args == net.init_args
    assert type(net.fresh()) is type(net)
    weights = [dict(some.named_parameters()) for some in (net, net.fresh())]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", BUILD)
def test_padding_changes_neither_embeddings_nor_gradients(name: str, mode: str) -> None:
    torch.manual_seed(0)
    net = BUILD[name]().train(mode == "train")
    found = []
    for some in (pairs(), longer(pairs())):
        net.zero_grad()
        embedding = net(some)
        (embedding * torch.linspace(-1, 1, embedding.shape[1])).sum().backward()
        found.append([embedding, *(weight.grad.clone() for weight in net.parameters() if weight.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILD)
def test_mc_dropout_draws_for_places_and_not_for_padding(name: str) -> None:
    torch.manual_seed(0)
    model = Classifier(3, BUILD[name](dropout=0.3), dropout=0.2).eval()
    with torch.no_grad():
        drawn = [model.sample_logits(some, 4, seed=1) for some in (pairs(), longer(pairs()))]
        alone = model.sample_logits(Pair(*(torch.utils._pytree.tree_map(lambda rows: rows[2:3], pairs()))), 4, seed=1)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[:, 0], drawn[0][:, 2], rtol=1e-4, atol=1e-5)
    assert drawn[0].std(dim=0).min() > 1e-4


def naive_attention(layer: Attention, queries: Tensor, context: Tensor, length: int) -> Tensor:
    """One sample, one head after the other, keys up to the end."""
    q, k, v = layer.query(queries), layer.key(context[:length]), layer.value(context[:length])
    heads = []
    for part in torch.arange(q.shape[1]).chunk(layer.heads):
        rows = []
        for query in q[:, part]:
            weights = torch.stack([(query @ key / math.sqrt(len(part))).exp() for key in k[:, part]])
            rows.append(sum(w / weights.sum() * value for w, value in zip(weights, v[:, part], strict=True)))
        heads.append(torch.stack(rows))  # type: ignore[arg-type]
    return layer.out(torch.cat(heads, dim=1))  # type: ignore[no-any-return]


def naive_sublayer(layer: Sublayer, hidden: Tensor, context: Tensor, length: int) -> Tensor:
    norm, first, _, last = layer.feed
    hidden = hidden + naive_attention(layer.attention, layer.norm(hidden), context, length)
    inner = gelu(first(layer_norm(hidden, hidden.shape[1:], norm.weight, norm.bias)))
    return hidden + last(inner)  # type: ignore[no-any-return]


def test_co_attention_takes_keys_and_values_from_the_other_stream() -> None:
    torch.manual_seed(0)
    layer = CoAttention(8, 2, 0.0).double()
    regions, words = torch.randn(1, 3, 8, dtype=torch.float64), torch.randn(1, 5, 8, dtype=torch.float64)
    seen, read = layer(regions, words, torch.arange(5)[None] < 4)
    v = naive_sublayer(layer.to_words, regions[0], layer.to_regions.norm(words[0]), 4)
    w = naive_sublayer(layer.to_regions, words[0], layer.to_words.norm(regions[0]), 3)
    torch.testing.assert_close(seen[0], naive_sublayer(layer.regions, v, layer.regions.norm(v), 3))
    torch.testing.assert_close(read[0], naive_sublayer(layer.words, w, layer.words.norm(w), 4))


def test_regions_are_cells_in_reading_order_and_hide_from_img_too() -> None:
    torch.manual_seed(0)
    net, some = BUILD["TwoStreams"]().eval(), pairs()
    cells = net.pixels(some.image)
    assert torch.equal(cells[1, 1], some.image[1, :, :4, 4:])
    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[:, 2] = True
    other = some.image.clone()
    other[:, :, 4:, :4] = 9.0  # only the pixels of the hidden cell
    assert torch.equal(net.see(some.image, hidden), net.see(other, hidden))
    changed = (net.see(some.image) != net.see(other)).any(dim=2)
    assert changed[0].tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match=r"takes images of 8 x 8 px, and these are 16 x 16"):
        net(some._replace(image=torch.randn(5, 3, 16, 16)))


def test_all_pairs_at_once_are_matched_as_each_alone() -> None:
    torch.manual_seed(0)
    net, some = BUILD["TwoStreams"]().eval(), pairs()
    found = net.compare(some.image, some.text, batch_size=3).detach()
    for image in range(5):
        for text in range(5):
            alone = net.match(Pair(some.image[[image]], Padded(*(rows[[text]] for rows in some.text))))
            assert alone.item() == pytest.approx(float(found[image, text]), abs=1e-5)
    product = net(some)
    torch.testing.assert_close(net.match(some), net.alignment(product)[:, 0])


def test_towers_are_built_by_names_descriptions_and_objects() -> None:
    torch.manual_seed(0)
    named = TwoTowers(40, image_size=8, channels=1, image="ConvNet")
    assert named.init_args["image_args"] == {"channels": 1}
    assert named.init_args["text_args"]["vocab_size"] == 40
    built = TwoTowers(40, image=ConvNet(3, width=4), text=named.text)
    assert built.text is named.text
    assert built.feature_dim == 256
    some = pairs()
    u, v = built.eval().encode_image(some.image), built.encode_text(some.text)
    torch.testing.assert_close(u.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(built(some), torch.cat([u, v], dim=1) * math.sqrt(128))
    with pytest.raises(
        ValueError, match=r"^`image=ConvNets`: the Backbone `ssl_lightning.backbones.ConvNets` cannot be"
    ):
        TwoTowers(40, image="ConvNets")
    with pytest.raises(ValueError, match=r"^`image=os.system`: the file names the class `os.system`"):
        TwoTowers(40, image="os.system")
    with pytest.raises(ValueError, match=r"^`image_args={'width': 8}` are for an encoder that is built here"):
        TwoTowers(40, image=ConvNet(3), image_args={"width": 8})
    stranger: Backbone = AnyModule(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    assert TwoTowers(40, image=stranger).eval()(some).shape == (5, 256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": 3}, r"`regions=3` must divide `image_size=8` into cells of 2 px or more"),
        ({"regions": 8}, r"`regions=8` must divide"),
        ({"dim": 9, "heads": 3}, r"`dim=9` must be even and a multiple of `heads=3`"),
        ({"co_layers": 0}, r"`co_layers=0` must be"),
        ({"dropout": 1}, r"`dropout=1` must be"),
    ],
)
def test_numbers_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoStreams(**{**SMALL, **options})
