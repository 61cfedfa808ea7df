"""CLIP, SigLIP and ViLBERT: losses and gradients against naive references, on one process and two; masks."""

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_modality import write
from support import equal_weights, spawn
from torch import Tensor

from ssl_lightning.backbones import ConvNet, TwoStreams, TwoTowers
from ssl_lightning.data import Batch, Digits, Pairs
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.functional.retrieval import content_ids, same
from ssl_lightning.methods import CLIP, SigLIP, SimCLR, SSLMethod, ViLBERT
from ssl_lightning.testing import check_method
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import CleanPair, Pair
from ssl_lightning.transforms.pairs.masks import mask_each, mask_pairs, partners
from ssl_lightning.transforms.text.tokens import CLS, MASK, SEP, SPECIAL

N = 8
TEXT = {"dim": 8, "depth": 1, "heads": 2, "dropout": 0.0}


def towers() -> TwoTowers:
    """Without batch norm, which would see another batch on another process."""
    return TwoTowers(60, image_size=8, image="StridedNet", image_args={"width": 4}, text_args=TEXT, dim=8)


def streams(**options: Any) -> TwoStreams:
    return TwoStreams(60, image_size=8, regions=2, dim=8, text_layers=1, co_layers=1, heads=2, **options)


def batch_of(count: int = N, longest: int = 12, seed: int = 0) -> Batch:
    """Pairs, of which 1 has the image of 0, and 3 the text of 2."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(4, longest + 1, (count,), generator=generator)
    ids = torch.randint(SPECIAL, 60, (count, longest), generator=generator)
    ids = ids.masked_fill(torch.arange(longest) >= length[:, None], 0)
    ids[:, 0], ids[torch.arange(count), length - 1] = CLS, SEP
    images = torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    if count > 3:
        images[1], ids[3], length[3] = images[0], ids[2], length[2]
    return Batch(Pair(images, Padded(ids, length)), torch.zeros(count, dtype=torch.int64), torch.arange(count))


def naive_clip(u: Tensor, v: Tensor, method: Any) -> Tensor:
    """Figure 3, pair by pair, in float64; the pairs (0, 1) and (2, 3) are no negatives of each other."""
    apart = {(0, 1), (1, 0), (2, 3), (3, 2)}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(u)):
        others = [j for j in range(len(u)) if (i, j) not in apart]
        texts = torch.stack([(method.log_scale.exp() * u[i] @ v[j]).exp() for j in others]).sum()
        images = torch.stack([(method.log_scale.exp() * u[j] @ v[i]).exp() for j in others]).sum()
        own = (method.log_scale.exp() * u[i] @ v[i]).exp()
        total = total - (own / texts).log() - (own / images).log()
    return total / (2 * len(u))


def naive_siglip(u: Tensor, v: Tensor, method: Any) -> Tensor:
    """Eq. 1, pair by pair, in float64."""
    apart = {(0, 1), (1, 0), (2, 3), (3, 2)}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(u)):
        for j in range(len(v)):
            if (i, j) not in apart:
                z = 1 if i == j else -1
                total = total - (1 / (1 + (z * (-method.log_scale.exp() * u[i] @ v[j] - method.bias)).exp())).log()
    return total / len(u)


CASES: dict[str, Any] = {
    "CLIP": (lambda: CLIP(towers(), temperature=0.3), naive_clip),
    "SigLIP": (lambda: SigLIP(towers(), scale=5.0, bias=-2.0), naive_siglip),
}


def prepared(name: str) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    method: SSLMethod = CASES[name][0]().double()
    method.clean = CleanPair()
    batch = batch_of()
    return method, batch._replace(input=batch.input._replace(image=batch.input.image))


def view_of(batch: Batch) -> Pair:
    clean: Pair = CleanPair()(batch.input)
    return clean._replace(image=clean.image.double())


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_the_papers(name: str) -> None:
    method, batch = prepared(name)
    view = view_of(batch)
    u, v = method.backbone.encode_image(view.image), method.backbone.encode_text(view.text)
    expected, got = CASES[name][1](u, v, method), method.compute_loss([view], batch)["loss"]
    assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    want = torch.autograd.grad(expected, list(method.parameters()))
    have = torch.autograd.grad(got, list(method.parameters()))
    assert max(float(gradient.abs().max()) for gradient in want) > 1e-3
    for one, other in zip(have, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def gradients(rank: int, world: int, name: str) -> tuple[float, list[Tensor]]:
    """Loss and gradients of this rank's part of the batch, averaged as DDP does."""
    method, batch = prepared(name)
    part = slice(rank * N // world, (rank + 1) * N // world)
    mine = Pair(batch.input.image[part], Padded(*(rows[part] for rows in batch.input.text)))
    mine = mine._replace(text=mine.text._replace(values=mine.text.values[:, : int(mine.text.length.max())]))
    batch = Batch(mine, batch.target[part], batch.index[part])
    loss = method.compute_loss([view_of(batch)], batch)["loss"]
    loss.backward()
    found = [weight.grad for weight in method.parameters()]
    loss = loss.detach()
    if world > 1:
        for value in (*found, loss):
            torch.distributed.all_reduce(value)
            value /= world
    return float(loss), found


def of_all(rank: int, world: int) -> dict[str, tuple[float, list[Tensor]]]:
    return {name: gradients(rank, world, name) for name in CASES}


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Also where the same image, or text, is on another process, and texts are filled up to other lengths."""
    alone = of_all(0, 1)
    for mine in spawn(of_all, 2, tmp_path):
        for name, (loss, found) in mine.items():
            assert loss == pytest.approx(alone[name][0], rel=1e-5)
            for one, other in zip(found, alone[name][1], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_the_temperature_never_falls_below_a_hundredth() -> None:
    method = CLIP(towers(), temperature=0.001)
    for _ in range(2):
        assert method.log_scale.item() == pytest.approx(math.log(100))
        method.log_scale.data += 1
        method.after_step()


def test_partners_have_neither_image_nor_text_in_common() -> None:
    ids = content_ids(batch_of(40).input)
    alike = same(*ids, *ids)
    assert int(alike.sum()) == 40 + 4
    places, there = partners(alike, 200, torch.Generator().manual_seed(0))
    assert places.shape == (200, 40)
    assert there.all()
    assert not alike[torch.arange(40), places].any()
    drawn = torch.bincount(places.flatten(), minlength=40) / 200
    assert 0.7 < float(drawn.min()) <= float(drawn.max()) < 1.3  # each as often as any other
    assert not partners(torch.ones(4, 4, dtype=torch.bool), 3, torch.Generator())[1].any()


def test_words_and_regions_are_masked_as_in_the_papers_and_alike_for_any_padding() -> None:
    batch = batch_of(2000, 16)
    text = batch.input.text
    masked = mask_pairs(batch.input, 0.15, 16, 60, torch.Generator().manual_seed(0))
    free = (text.values >= SPECIAL) & (torch.arange(16) < text.length[:, None])
    assert not (masked.words & ~free).any()
    assert float(masked.words.sum() / free.sum()) == pytest.approx(0.15, abs=0.01)
    read = masked.text.values[masked.words]
    own = text.values[masked.words]
    assert float((read == MASK).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((read == own).float().mean()) == pytest.approx(0.1 + 0.1 / 55, abs=0.02)
    assert int(read[read != MASK].min()) >= SPECIAL
    assert torch.equal(masked.text.values[~masked.words], text.values[~masked.words])
    assert float(masked.regions.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float(masked.hidden.sum() / masked.regions.sum()) == pytest.approx(0.9, abs=0.02)
    assert not (masked.hidden & ~masked.regions).any()
    wide = torch.cat([text.values, torch.zeros(2000, 9, dtype=torch.int64)], dim=1)
    filled = batch.input._replace(text=Padded(wide, text.length))
    again = mask_pairs(filled, 0.15, 16, 60, torch.Generator().manual_seed(0))
    assert torch.equal(again.text.values[:, :16], masked.text.values)
    assert torch.equal(again.hidden, masked.hidden)
    some = mask_each(batch.input, batch.index, 0.15, 16, 60)
    alone = mask_each(Pair(filled.image[7:8], Padded(wide[7:8], text.length[7:8])), torch.tensor([7]), 0.15, 16, 60)
    assert torch.equal(alone.text.values[0, :16], some.text.values[7])
    assert torch.equal(alone.hidden[0], some.hidden[7])


def naive_vilbert(method: ViLBERT, pairs: Pair, masked: Any, others: Tensor) -> Tensor:
    """The three losses, sample by sample, word by word and region by region, in float64."""
    net: Any = method.backbone
    words, regions, right, wrong = [], [], [], []

    def both(image: int, place: int) -> tuple[Tensor, Tensor, Tensor]:
        length = int(pairs.text.length[place])
        read = net.read(Padded(masked.text.values[place : place + 1, :length], torch.tensor([length])))
        seen = net.see(pairs.image[image : image + 1], masked.hidden[image : image + 1])
        visual, told = (rows[0] for rows in net.join(seen, read, torch.tensor([length])))
        return (
            visual,
            told,
            1 / (1 + (-(net.alignment.weight[0] @ (visual[0] * told[0]) + net.alignment.bias[0])).exp()),
        )

    for place in range(N):
        visual, told, odds = both(place, place)
        right.append(-odds.log())
        wrong += [-(1 - both(int(other), place)[2]).log() for other in others[:, place]]
        for word in masked.words[place].nonzero()[:, 0].tolist():
            scores = (method.word_head(told[word]) @ net.word.weight.T + method.word_bias).exp()
            words.append(-(scores[pairs.text.values[place, word]] / scores.sum()).log())
        for region in masked.regions[place].nonzero()[:, 0].tolist():
            row, column = divmod(region, 2)
            pixels = pairs.image[place, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
            wanted = (-((pixels - method.codebook.centres) ** 2).sum(dim=1) / method.codebook.softness).exp()
            wanted = wanted / wanted.sum()
            scores = method.region_head(visual[1 + region]).exp()
            regions.append(sum(q * (q / (s / scores.sum())).log() for q, s in zip(wanted, scores, strict=True)))
    assert words
    assert regions
    parts = [torch.stack(rows).mean() for rows in (words, regions, right, wrong)]  # type: ignore[arg-type]
    return parts[0] + parts[1] + (parts[2] + parts[3]) / 2


def test_vilbert_is_the_papers_losses() -> None:
    torch.manual_seed(0)
    method, batch = ViLBERT(streams(), codes=5, mask_ratio=0.3, mismatches=2).double().eval(), batch_of()
    method.codebook.centres.copy_(torch.randn(5, 48, dtype=torch.float64))
    method.codebook.softness.fill_(30.0)
    view = view_of(batch)
    generator = method.local_generator("masks")
    masked = mask_pairs(view, 0.3, 4, 60, generator)
    ids = content_ids(batch.input)
    others, _ = partners(same(*ids, *ids), 2, generator)
    expected = naive_vilbert(method, view, masked, others)
    got = method.compute_loss([view], batch)["loss"]
    assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    want = torch.autograd.grad(expected, list(method.parameters()))
    have = torch.autograd.grad(got, list(method.parameters()))
    for one, other in zip(have, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    single = ViLBERT(streams(), codes=5, mask_ratio=0.3, weights=(0, 0, 2)).double().eval()
    single.load_state_dict(method.state_dict())
    assert float(single.compute_loss([view], batch)["loss"].detach()) < float(got.detach())
    with pytest.raises(ValueError, match="there is no codebook of regions yet"):
        ViLBERT(streams(), codes=5).double().compute_loss([view], batch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety coloured pictures with a text of very different length each."""
    return write("images with text", tmp_path_factory.mktemp("pairs"))


def data(folder: Path, **options: Any) -> Pairs:
    return Pairs(str(folder / "pairs.csv"), image_size=8, vocab_size=300, batch_size=16, **options)


def built(kind: type[SSLMethod], **options: Any) -> SSLMethod:
    small: Any = {"vocab_size": 300, "image_size": 8, "dim": 16}
    if kind is ViLBERT:
        return ViLBERT(TwoStreams(**small, regions=2, co_layers=1, heads=2), codes=8, **options)
    return kind(TwoTowers(**small, image_args={"width": 4}, text_args=TEXT), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [CLIP, SigLIP, ViLBERT, SimCLR])
def test_the_contract_of_methods(kind: type[SSLMethod], folder: Path) -> None:
    check_method(lambda: built(kind), lambda: data(folder))


@pytest.mark.parametrize("kind", [CLIP, ViLBERT])
def test_resumed_is_as_never_stopped(kind: type[SSLMethod], folder: Path, trainer: Any, tmp_path: Path) -> None:
    models = []
    for resume in (False, True):
        L.seed_everything(1, verbose=False)
        model = built(kind)
        path = tmp_path / "stop.ckpt"
        if not resume:
            trainer(max_epochs=2).fit(model, datamodule=data(folder))
            L.seed_everything(1, verbose=False)
            first = built(kind)
            trainer(max_epochs=2, callbacks=[Keep(2, path)]).fit(first, datamodule=data(folder))
            assert equal_weights(first, model)
        else:
            trainer(max_epochs=2).fit(model, datamodule=data(folder), ckpt_path=path)
        models.append(copy.deepcopy(model))
    assert equal_weights(*models)


class Keep(L.Callback):
    """Saves once."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.long
def test_vilbert_judges_both_streams_and_learns_that_they_belong_together(trainer: Any, tmp_path: Path) -> None:
    """A pair and one of its own colour, a third of all, cannot be told apart: five sixths is the best."""
    torch.manual_seed(0)
    method = built(ViLBERT, optimizer=OptimizerSpec(lr=5e-3), mismatches=3, mask_ratio=0.3)
    fit = trainer(max_epochs=12, check_val_every_n_epoch=12, num_sanity_val_steps=0)
    pairs = data(write("images with text", tmp_path / "pairs", count=200), val_size=0.3, test_size=0)
    fit.fit(method, datamodule=pairs)
    found = {name: float(value) for name, value in fit.callback_metrics.items()}
    assert found["val/alignment_accuracy"] > 0.6
    assert found["val/masked_word_loss"] < found["val/masked_word_loss_other_image"]
    assert found["val/masked_region_loss"] < found["val/masked_region_loss_other_text"]
    assert method.codebook.softness > 0  # type: ignore[operator]
    assert len(method.codebook.centres.unique(dim=0)) == 8  # type: ignore[operator, union-attr]
    for name in ("word", "region", "alignment"):
        assert math.isfinite(found[f"train/{name}_loss"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CLIP(streams()),
            "`CLIP` needs an encoder with `encode_image` and `encode_text`, and `TwoStreams` has",
        ),
        (lambda: SigLIP(ConvNet()), "`SigLIP` needs an encoder with `encode_image`"),
        (lambda: ViLBERT(towers()), "`ViLBERT` needs an encoder of two streams, and `TwoTowers` has none; give"),
        (lambda: ViLBERT(streams(), codes=1), "`codes=1` must be"),
        (lambda: ViLBERT(streams(), weights=(1, 1)), r"`weights=\(1, 1\)` must be 3 numbers"),
        (lambda: CLIP(towers(), temperature=0), "`temperature=0` must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_other_data_and_too_many_codes_are_refused(folder: Path, trainer: Any) -> None:
    with pytest.raises(ValueError, match="`CLIP` takes images with text, and these data are images; `ssl-lightning"):
        trainer(max_steps=1).fit(CLIP(towers()), datamodule=Digits())
    model = ViLBERT(TwoStreams(300, image_size=8, regions=2, dim=8, heads=2), codes=5000)
    with pytest.raises(ValueError, match="`codes=5000` exceeds the regions of the training images"):
        trainer(max_steps=1).fit(model, datamodule=data(folder))
