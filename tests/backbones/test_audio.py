"""Encoders of sounds: what is behind the end never counts, in evaluation and in training, with dropout and without."""

from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.backbones import AudioNet, MeanFrames, SpectrogramTransformer, as_backbone, build, describe
from ssl_lightning.backbones.patches import run_blocks, seen_first, sine_positions
from ssl_lightning.supervised import Classifier
from ssl_lightning.supervised.mc_dropout import mc_dropout
from ssl_lightning.transforms.padded import Padded, inside

LENGTHS = (40, 5, 1, 21, 16, 39)
ENCODERS: dict[str, Any] = {
    "AudioNet": lambda dropout=0.0: AudioNet(mels=16, width=4, dim=8, dropout=dropout),
    "AudioNet of odd bands": lambda dropout=0.0: AudioNet(mels=23, width=4, dim=8, dropout=dropout),
    "SpectrogramTransformer": lambda dropout=0.0: SpectrogramTransformer(16, 4, 8, 16, 2, 2, dropout=dropout),
    "MeanFrames": lambda dropout=0.0: MeanFrames(16, deviation=True),
}


def frames(mels: int, filled: int = 0) -> Padded:
    values = torch.randn(len(LENGTHS), max(LENGTHS), mels, generator=torch.Generator().manual_seed(0))
    length = torch.tensor(LENGTHS)
    padded = torch.nn.functional.pad(values, (0, 0, 0, filled))
    return Padded(padded.masked_fill(~inside(length, padded.shape[1])[..., None], 0 if not filled else 50.0), length)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_sound_has_the_embedding_it_has_alone(name: str) -> None:
    net = ENCODERS[name]().eval()
    batch = frames(net.mels)
    together = net(batch)
    assert together.shape == (6, net.feature_dim)
    torch.testing.assert_close(net(frames(net.mels, 100)), together, atol=1e-5, rtol=0)
    for row, length in enumerate(LENGTHS):
        alone = net(Padded(batch.values[row : row + 1, :length], torch.tensor([length])))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(net(Padded(*(leaf[order] for leaf in batch))), together[order], atol=1e-5, rtol=0)
    assert float(torch.pdist(together).min()) > 1e-3


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "MeanFrames"])
def test_padding_reaches_neither_gradients_nor_statistics_in_training(name: str) -> None:
    torch.manual_seed(0)
    net = ENCODERS[name]()
    start = {key: value.clone() for key, value in net.state_dict().items()}
    found = []
    for filled in (0, 64):
        net.load_state_dict(start)
        net.zero_grad()
        embedding = net.train()(frames(net.mels, filled))
        (embedding * torch.linspace(-1, 1, embedding.numel()).view_as(embedding)).sum().backward()
        grads = {key: weight.grad.clone() for key, weight in net.named_parameters()}
        found.append((embedding.detach(), grads, {key: value.clone() for key, value in net.named_buffers()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert any(bool(grad.any()) for grad in found[0][1].values())


def test_the_first_block_by_hand() -> None:
    """Each sound by itself, its edge as a picture's; statistics over all frames within, none behind."""
    net = AudioNet(mels=8, width=3, dim=4).train()
    block, batch = net.blocks[0], frames(8)
    values, length = block(batch.values[:, None], batch.length)
    assert length.tolist() == [20, 3, 1, 11, 8, 20]
    each = [block.conv(batch.values[row : row + 1, None, :own])[0] for row, own in enumerate(LENGTHS)]
    rows = torch.cat([one.transpose(0, 1).flatten(1) for one in each]).view(-1, 3, 4)  # frames, channels, bands
    mean, var = rows.mean(dim=(0, 2)), rows.var(dim=(0, 2), correction=0)
    for row, one in enumerate(each):
        expected = ((one - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()).relu()
        torch.testing.assert_close(values[row, :, : one.shape[1]], expected, atol=1e-5, rtol=1e-5)
        assert not values[row, :, one.shape[1] :].any()


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "MeanFrames"])
def test_draws_of_dropout_do_not_depend_on_padding(name: str) -> None:
    """Alone, among others, and filled up: the same members; the trunk has none of the dropout."""
    net = ENCODERS[name](0.4).eval()
    batch = frames(net.mels)
    draws = mc_dropout(net, batch, 3, seed=7)
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(mc_dropout(net, frames(net.mels, 60), 3, seed=7), draws, atol=1e-5, rtol=0)
    for row, length in enumerate(LENGTHS):
        alone = mc_dropout(net, Padded(batch.values[row : row + 1, :length], torch.tensor([length])), 3, seed=7)
        torch.testing.assert_close(alone[:, 0], draws[:, row], atol=1e-5, rtol=0)
    torch.testing.assert_close(mc_dropout(net, net.trunk(batch), 3, 7, net.rest), draws, atol=1e-5, rtol=0)
    model = Classifier(4, net, dropout=0.3).eval()
    one, other = (model.sample_logits(given, 3, 5) for given in (batch, frames(net.mels, 60)))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_description_builds_it_again(name: str) -> None:
    net = ENCODERS[name]().eval()
    again = build(describe(net)).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(frames(net.mels)), net(frames(net.mels)))
    assert as_backbone(net) is net
    assert {key: value.shape for key, value in net.fresh().state_dict().items()} == {
        key: value.shape for key, value in net.state_dict().items()
    }


def test_mean_frames_are_numpys() -> None:
    batch = frames(16)
    found = MeanFrames(16, deviation=True)(batch)
    for row, length in enumerate(LENGTHS):
        own = batch.values[row, :length].numpy().astype(np.float64)
        np.testing.assert_allclose(found[row, :16], own.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(found[row, 16:], own.std(axis=0), atol=1e-5)


def test_attention_leaves_padding_out() -> None:
    """The blocks of torchvision, one sound at a time."""
    net = SpectrogramTransformer(16, 4, 8, 16, 2, 2).eval()
    tokens, length = net.trunk(frames(16))
    mask = inside(length, tokens.shape[1])
    together = run_blocks(net.blocks, tokens, mask)
    for row, own in enumerate(length.tolist()):
        alone = tokens[row : row + 1, :own]
        for block in net.blocks:
            alone = block(alone)
        torch.testing.assert_close(together[row, :own], alone[0], atol=1e-5, rtol=0)


def test_patches_are_cut_as_a_person_would_and_codes_tell_places_apart() -> None:
    net = SpectrogramTransformer(mels=6, patch_frames=3, patch_mels=2, dim=8, depth=1, heads=2)
    values = torch.arange(4 * 6.0).view(1, 4, 6)
    patches = net.cut(Padded(values, torch.tensor([4])))
    assert patches.values.shape == (1, 6, 6)
    assert patches.values[0, 1].tolist() == [2, 3, 8, 9, 14, 15]  # the second two bands of the first three frames
    assert patches.values[0, 3].tolist() == [18, 19, 0, 0, 0, 0]
    assert float(torch.pdist(net.positions(300, 64)).min()) > 0.05
    angle = 5 / 10000 ** (1 / 4)
    code = sine_positions(torch.tensor([[5, 2]]), 16)[0]
    assert code[1] == pytest.approx(np.sin(angle), abs=1e-6)
    assert code[5] == pytest.approx(np.cos(angle), abs=1e-6)
    places, within = seen_first(torch.tensor([[True, True], [True, True]]))
    assert places.tolist() == [[0, 1], [0, 1]]
    assert within is None


def test_mistakes_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"`AudioNet` takes `Padded` frames of `mels=64` bands.*\(2, 5, 40\); give both"
    ):
        AudioNet()(Padded(torch.zeros(2, 5, 40), torch.tensor([5, 2])))
    with pytest.raises(ValueError, match="its input is of type Tensor"):
        SpectrogramTransformer()(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="`patch_mels=10` must divide `mels=64`"):
        SpectrogramTransformer(patch_mels=10)
