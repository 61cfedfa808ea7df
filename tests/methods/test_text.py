"""Methods on texts: losses and gradients by hand, what is logged, resuming, writing; and all others unchanged."""

import copy
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from support import equal_weights
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, pad

from ssl_lightning import methods as all_methods
from ssl_lightning.backbones import BagOfTokens, TextTransformer
from ssl_lightning.data import Batch, Digits, Texts
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import CausalText, MaskedText, SimCLR, SSLMethod
from ssl_lightning.testing import check_method
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.text import MASK, SPECIAL, DropoutViews, TokenViews
from ssl_lightning.transforms.text.masks import chosen_tokens, hidden_tokens, random_draws

WORDS = {"animals": ["cat", "dog", "fish", "bird", "horse"], "colours": ["red", "green", "blue", "grey", "pink"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = [
        [" ".join(random.choice(WORDS[label], random.integers(2, 20))), label]
        for label in [*WORDS] * 40
    ]  # fmt: skip
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "class"], *rows])
    return tmp_path / "t.csv"


def texts(path: Path, **options: Any) -> Texts:
    return Texts(str(path), **{"vocab_size": 290, "max_length": 24, "batch_size": 16, "test_size": 0.2, **options})


def encoder(vocab_size: int = 290, **options: Any) -> TextTransformer:
    return TextTransformer(vocab_size, **{"dim": 16, "depth": 1, "heads": 2, "max_length": 64, **options})


def sequences(lengths: list[int]) -> Padded:
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for place, length in enumerate(lengths):
        values[place, :length] = torch.randint(SPECIAL, 290, (length,), generator=generator)
        values[place, 0], values[place, length - 1] = 2, 3
    return Padded(values, torch.tensor(lengths))


def batch_of(inputs: Padded) -> Batch:
    return Batch(inputs, torch.full((len(inputs.length),), -1), torch.arange(len(inputs.length)))


def numbers(method: SSLMethod, inputs: Padded) -> tuple[Tensor, list[Tensor]]:
    """Return a step's loss and the gradients of all weights."""
    method.zero_grad()
    method.log = lambda *_, **__: None  # type: ignore[method-assign]
    step = method.compute_loss([inputs], batch_of(inputs))
    step["loss"].backward()
    return step["loss"], [leaf.grad for leaf in method.parameters() if leaf.grad is not None]


def test_masked_text_token_by_token_in_float64() -> None:
    """The mean over chosen tokens of -log p, by the embeddings' own table; gradients likewise; padding is nothing."""
    inputs = sequences([3, 30, 8, 17])
    method = MaskedText(encoder(dropout=0.0), mask_ratio=0.3).eval()
    loss, gradients = numbers(method, inputs)
    filled, same = numbers(method, inputs._replace(values=pad(inputs.values, (0, 20))))
    torch.testing.assert_close(loss, filled)
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    naive = copy.deepcopy(method).double()
    draws = random_draws(inputs, method.local_generator("masks"))
    chosen = chosen_tokens(inputs, 0.3, draws[0])
    hidden = hidden_tokens(inputs, chosen, draws[1:], 290)
    assert (hidden.values == MASK).any()
    first, norm = naive.predictor[0], naive.predictor[2]
    terms = []
    for text, length in enumerate(inputs.length.tolist()):
        alone = Padded(hidden.values[text : text + 1, :length], inputs.length[text : text + 1])
        tokens = naive.backbone.tokens(alone)[0]
        for place in range(length):
            if chosen[text, place]:
                made = gelu(tokens[place] @ first.weight.T + first.bias)
                made = layer_norm(made, (16,), norm.weight, norm.bias)
                scores = torch.stack([made @ row for row in naive.backbone.embedding.weight]) + naive.bias
                terms.append(torch.logsumexp(scores, 0) - scores[inputs.values[text, place]])
    assert len(terms) == int(chosen.sum()) >= 4
    expected = torch.stack(terms).mean()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    wanted = [leaf.grad for leaf in naive.parameters() if leaf.grad is not None]
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-3)


def test_causal_text_token_by_token_in_float64() -> None:
    inputs = sequences([3, 30, 8, 17])
    method = CausalText(encoder(causal=True, dropout=0.0)).eval()
    loss, gradients = numbers(method, inputs)
    filled, same = numbers(method, inputs._replace(values=pad(inputs.values, (0, 20))))
    torch.testing.assert_close(loss, filled)
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    naive = copy.deepcopy(method).double()
    terms = []
    for row, length in zip(inputs.values, inputs.length.tolist(), strict=True):
        for end in range(1, length):  # a forward for each beginning: nothing of what follows can be seen
            tokens = naive.backbone.tokens(Padded(row[None, :end], torch.tensor([end])))[0]
            scores = naive.backbone.embedding.weight @ tokens[-1]
            terms.append(torch.logsumexp(scores, 0) - scores[row[end]])
    assert len(terms) == 3 + 30 + 8 + 17 - 4
    expected = torch.stack(terms).mean()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    wanted = [leaf.grad for leaf in naive.parameters() if leaf.grad is not None]
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", [MaskedText, CausalText])
def test_the_contract_of_methods_on_texts(kind: type[SSLMethod], path: Path) -> None:
    causal = kind is CausalText
    check_method(lambda: kind(encoder(causal=causal)), lambda: texts(path))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["masked", "whole words", "causal"])
def test_it_learns_logs_and_resumes_bit_by_bit(kind: str, path: Path, trainer: Any, tmp_path: Path) -> None:
    """With dropout, in the middle of an epoch; the loss of validation is the same for any batch size."""

    def make() -> SSLMethod:
        L.seed_everything(0, verbose=False)
        spec = OptimizerSpec(lr=0.01)
        if kind == "causal":
            return CausalText(encoder(causal=True), optimizer=spec)
        return MaskedText(encoder(), whole_words=kind == "whole words", optimizer=spec)

    whole, part = make(), make()
    options = {"max_steps": 24, "check_val_every_n_epoch": 3, "num_sanity_val_steps": 0}
    first = trainer(**options)
    first.fit(whole, datamodule=texts(path))
    metrics = first.callback_metrics
    assert float(metrics["val/loss"]) < math.log(290) - 1
    if kind == "causal":
        assert math.isclose(float(metrics["val/perplexity"]), math.exp(float(metrics["val/loss"])), rel_tol=1e-4)
    else:
        assert 0 <= float(metrics["train/token_accuracy"]) <= 1
        assert float(metrics["val/token_accuracy"]) > 0
    stop = trainer(**options, callbacks=[_StopAt(13, tmp_path / "half.ckpt")])
    stop.fit(part, datamodule=texts(path))
    again = make()
    last = trainer(**options)
    last.fit(again, datamodule=texts(path), ckpt_path=str(tmp_path / "half.ckpt"), weights_only=False)
    assert last.global_step == 24
    assert equal_weights(whole, again)
    losses = []
    for size in (16, 5):
        judge = trainer()
        losses.append(judge.validate(whole, datamodule=texts(path, batch_size=size), verbose=False)[0]["val/loss"])
    assert math.isclose(*losses, rel_tol=1e-5)


class _StopAt(L.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


UNCHANGED: dict[str, dict[str, Any]] = {
    "SimCLR": {}, "BYOL": {}, "SimSiam": {}, "MoCo": {}, "NNCLR": {}, "BarlowTwins": {"projection_dim": 64},
    "VICReg": {"projection_dim": 64}, "SwAV": {}, "DINO": {}, "DeepCluster": {"clusters": 4},
    "SupCon": {}, "Triplet": {},
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHANGED)
def test_methods_of_other_modalities_run_unchanged(name: str, path: Path, trainer: Any) -> None:
    kind = getattr(all_methods, name)
    for views in (None, TokenViews(kind.view_count), DropoutViews(kind.view_count)):
        fit = trainer(max_steps=2, limit_val_batches=0)
        fit.fit(kind(encoder(), views=views, **UNCHANGED[name]), datamodule=texts(path))
        assert fit.global_step == 2
        assert math.isfinite(float(fit.callback_metrics["train/loss"]))


def test_simcse_wants_dropout(path: Path, trainer: Any) -> None:
    with pytest.raises(ValueError, match=r"`DropoutViews` are alike where the encoder drops nothing, as this `TextTr"):
        trainer(max_steps=1).fit(SimCLR(encoder(dropout=0.0), DropoutViews()), datamodule=texts(path))


def test_what_does_not_fit_is_said_in_a_line(path: Path, trainer: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`CausalText` predicts the next token, and the backbone `TextTransformer` sees"
    ):
        CausalText(encoder())
    with pytest.raises(ValueError, match=r"`MaskedText` predicts tokens, and the backbone `BagOfTokens` encodes none"):
        MaskedText(BagOfTokens(20))
    with pytest.raises(ValueError, match=r"`MaskedText` takes text, and these data are images"):
        trainer(max_steps=1).fit(MaskedText(encoder()), datamodule=Digits())
    with pytest.raises(ValueError, match=r"`mask_ratio=1` must be above 0 and below 1"):
        MaskedText(encoder(), mask_ratio=1)
    for options, message in (
        ({"count": 0}, "`count=0`"), ({"temperature": -1.0}, "`temperature=-1.0`"), ({"top_k": 0}, "`top_k=0`"),
        ({"prompt": [9] * 64}, "the prompt has 64 tokens, and the encoder takes 64 with the beginning"),
    ):  # fmt: skip
        given: dict[str, Any] = {"prompt": [], "count": 1, "generator": torch.Generator(), **options}
        with pytest.raises(ValueError, match=message):
            CausalText(encoder(causal=True)).generate(**given)


def test_generate_follows_the_probabilities() -> None:
    """Greedy is the argmax of a forward; draws have the frequencies of the softmax; special tokens never come."""
    method = CausalText(encoder(causal=True, max_length=12)).eval()
    torch.nn.init.normal_(method.backbone.embedding.weight, std=1.0)  # type: ignore[union-attr,arg-type]
    prompt = [7, 8]
    with torch.no_grad():
        logits = method.backbone.tokens(Padded(torch.tensor([[2, 7, 8]]), torch.tensor([3])))[0, -1]  # type: ignore[operator]
        logits = logits @ method.backbone.embedding.weight.T  # type: ignore[union-attr,operator]
    logits[[0, 1, 2, 4]] = -math.inf
    greedy = method.generate(prompt, 1, torch.Generator(), temperature=0)[0]
    assert greedy[2:3] == ([int(logits.argmax())] if int(logits.argmax()) != 3 else [])
    drawn = method.generate(prompt, 4000, torch.Generator().manual_seed(0), length=3, temperature=2.0, top_k=5)
    counts = torch.bincount(torch.tensor([row[2] if len(row) > 2 else 3 for row in drawn]), minlength=290) / 4000
    best = logits.topk(5)
    expected = torch.zeros(290).scatter(0, best.indices, (best.values / 2).softmax(0))
    assert (counts - expected).abs().max() < 0.03
    long = method.generate(prompt, 20, torch.Generator().manual_seed(0), length=100, temperature=3.0)
    assert max(map(len, long)) <= 11
    assert all(row[:2] == prompt and all(number >= SPECIAL for number in row) for row in long)
    assert long == method.generate(prompt, 20, torch.Generator().manual_seed(0), length=100, temperature=3.0)


def test_the_command_writes_texts_and_still_images(
    path: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    small = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "30"]
    status, out = command(
        "fit", "--data", "Texts", "--data.path", path, "--data.vocab_size", "290", "--data.batch_size", "16",
        "--model", "CausalText", "--model.backbone", "TextTransformer", "--model.backbone.dim", "16",
        "--model.backbone.depth", "1", "--model.backbone.heads", "2", "--model.backbone.causal", "true",
        "--model.optimizer.lr", "0.02", *small, "--folder", "gpt",
    )  # fmt: skip
    assert status == 0, out
    status, out = command("sample", "gpt", "--prompt", "Red green", "--count", "3", "--length", "9", "--top_k", "20")
    assert status == 0, out
    written = (tmp_path / "gpt" / "samples" / "texts.txt").read_text().splitlines()
    assert len(written) == 3
    assert all(text.startswith("red green") for text in written)
    assert "wrote 3 texts to" in out
    status, again = command("sample", "gpt", "--prompt", "Red green", "--count", "3", "--length", "9", "--top_k", "20")
    assert again == out
    status, out = command(
        "fit", "--data", "Digits", "--model", "VAE", "--model.backbone", "ConvNet", "--model.backbone.width", "4",
        "--model.width", "4", *small[:-1], "1", "--folder", "vae",
    )  # fmt: skip
    assert status == 0, out
    status, out = command("sample", "vae", "--prompt", "x")
    assert status == 2
    assert "`prompt=x` is about texts, and `VAE` makes none; leave it out" in out
    assert command("sample", "vae", "--count", "4")[0] == 0
    assert len(list((tmp_path / "vae" / "samples").glob("0*.png"))) == 4
