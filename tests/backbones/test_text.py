"""Encoders of texts: padding never leaks, later tokens neither, one dropout mask serves any length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm, pad

from ssl_lightning.backbones import BagOfTokens, HuggingFace, TextTransformer, build, describe
from ssl_lightning.data.tokenizing import pretrained
from ssl_lightning.methods import MaskedText
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.base import map_tensors
from ssl_lightning.transforms.padded import Padded, fill_up
from ssl_lightning.transforms.text import CLS, SEP, SPECIAL

LENGTHS = [3, 40, 7, 4, 25]


def texts(vocab_size: int = 50) -> Padded:
    generator = torch.Generator().manual_seed(0)
    inner = [torch.randint(SPECIAL, vocab_size, (length - 2,), generator=generator) for length in LENGTHS]
    return fill_up([torch.cat([torch.tensor([CLS]), row, torch.tensor([SEP])]) for row in inner])


def longer(inputs: Padded, total: int = 61) -> Padded:
    return inputs._replace(values=pad(inputs.values, (0, total - inputs.values.shape[1])))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, and a tokenizer whose special tokens lie elsewhere than ours."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[SEP]", "[x]", "[MASK]", "[CLS]", "[UNK]", "[PAD]"]
    corpus = ["the red fish", "a blue bird", "two green dogs"] * 3
    engine.train_from_iterator(
        corpus, trainers.WordPieceTrainer(vocab_size=50, special_tokens=special, show_progress=False)
    )
    engine.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, pad_token_id=5,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def encoders(bert: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    made = {
        "mean": TextTransformer(50, 16, 2, 2, 64, dropout=0.3),
        "cls": TextTransformer(50, 16, 2, 2, 64, dropout=0.3, pool="cls"),
        "causal": TextTransformer(50, 16, 2, 2, 64, dropout=0.3, causal=True, pool="last"),
        "bag": BagOfTokens(50),
        "bert": HuggingFace(str(bert)),
    }
    for encoder in made.values():
        for weight in encoder.parameters():  # so that nothing is small by its first draw
            nn.init.normal_(weight, std=0.5)
    return made


@pytest.mark.parametrize("name", ["mean", "cls", "causal", "bag", "bert"])
def test_padding_never_leaks(name: str, bert: Path) -> None:
    """Alone, among others, filled up further, in evaluation and in training without dropout, and in the gradients."""
    encoder, inputs = encoders(bert)[name], texts()
    for mode in (False, True):
        encoder.train(mode)
        for layer in encoder.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        found, gradients = [], []
        for batch in (inputs, longer(inputs)):
            rows = encoder(batch)
            found.append(rows.detach())
            if name != "bag":
                encoder.zero_grad()
                (rows * torch.arange(16)).sum().backward()
                gradients.append([leaf.grad.clone() for leaf in encoder.parameters() if leaf.grad is not None])
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
        for one, other in zip(*gradients or [[], []], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        for place, length in enumerate(LENGTHS):
            alone = Padded(inputs.values[place : place + 1, :length], inputs.length[place : place + 1])
            torch.testing.assert_close(encoder(alone)[0], found[0][place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["mean", "causal", "bert"])
def test_mc_dropout_draws_the_same_for_any_padding_and_batch(name: str, bert: Path) -> None:
    inputs = texts()
    model = Classifier(3, encoders(bert)[name], dropout=0.2).eval()
    with torch.no_grad():
        together = model.sample_logits(inputs, 4, seed=1)
        filled = model.sample_logits(longer(inputs), 4, seed=1)
        torch.testing.assert_close(together, filled, atol=1e-4, rtol=1e-4)
        for place, length in enumerate(LENGTHS):
            alone = Padded(inputs.values[place : place + 1, :length], inputs.length[place : place + 1])
            torch.testing.assert_close(
                model.sample_logits(alone, 4, seed=1)[:, 0], together[:, place], atol=1e-4, rtol=1e-4
            )
    assert (together.std(dim=0) > 1e-3).any()
    assert not torch.equal(together, model.sample_logits(inputs, 4, seed=2))


def by_hand(encoder: TextTransformer, ids: Tensor) -> Tensor:
    """Encode one text, token by token, in float64, as the papers say."""
    state = {key: value.double() for key, value in encoder.state_dict().items()}
    hidden = state["embedding.weight"][ids] + state["places.weight"][: len(ids)]
    dim, heads = hidden.shape[1], 2
    for block in range(2):
        part = {
            key.removeprefix(f"blocks.{block}."): value for key, value in state.items() if f"blocks.{block}." in key
        }
        normed = layer_norm(hidden, (dim,), part["norms.0.weight"], part["norms.0.bias"])
        seen = torch.zeros_like(hidden)
        for head in range(heads):
            size = dim // heads
            mine = [slice(which * dim + head * size, which * dim + (head + 1) * size) for which in range(3)]
            query, key, value = (normed @ part["qkv.weight"][rows].T + part["qkv.bias"][rows] for rows in mine)
            for place in range(len(ids)):
                end = place + 1 if encoder.causal else len(ids)
                scores = torch.stack([query[place] @ key[other] for other in range(end)]) / size**0.5
                seen[place, head * size : (head + 1) * size] = scores.softmax(0) @ value[:end]
        hidden = hidden + seen @ part["out.weight"].T + part["out.bias"]
        normed = layer_norm(hidden, (dim,), part["norms.1.weight"], part["norms.1.bias"])
        hidden = (
            hidden
            + gelu(normed @ part["mlp.0.weight"].T + part["mlp.0.bias"]) @ part["mlp.2.weight"].T
            + part["mlp.2.bias"]
        )
    return layer_norm(hidden, (dim,), state["norm.weight"], state["norm.bias"])


@pytest.mark.parametrize("name", ["mean", "cls", "causal"])
def test_the_transformer_against_float64_by_hand(name: str, bert: Path) -> None:
    encoder, inputs = encoders(bert)[name].eval(), texts()
    with torch.no_grad():
        tokens, rows = encoder.tokens(inputs), encoder(inputs)
    for place, length in enumerate(LENGTHS):
        expected = by_hand(encoder, inputs.values[place, :length])
        torch.testing.assert_close(tokens[place, :length].double(), expected, atol=1e-4, rtol=1e-4)
        wanted = {"mean": expected.mean(dim=0), "cls": expected[0], "causal": expected[-1]}[name]
        torch.testing.assert_close(rows[place].double(), wanted, atol=1e-4, rtol=1e-4)


def test_later_tokens_change_no_earlier_one_where_causal(bert: Path) -> None:
    inputs = texts()
    for name, causal in (("causal", True), ("mean", False)):
        encoder = encoders(bert)[name].eval()
        changed = inputs.values.clone()
        changed[1, 20:39] = SPECIAL + (changed[1, 20:39] - SPECIAL + 1) % 45
        with torch.no_grad():
            before, after = encoder.tokens(inputs)[1], encoder.tokens(inputs._replace(values=changed))[1]
        assert torch.equal(before[:20], after[:20]) == causal
        assert not torch.equal(before[20:39], after[20:39])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"`dim=10` must be a multiple of `heads=4`"):
        TextTransformer(50, dim=10)
    with pytest.raises(ValueError, match=r"`pool=cls` with `causal=true` would embed every text alike"):
        TextTransformer(50, causal=True, pool="cls")
    with pytest.raises(
        ValueError, match=r"a text of 40 tokens is longer than the encoder's `max_length=20`; give `--data"
    ):
        TextTransformer(50, 8, 1, 2, max_length=20)(texts())
    with pytest.raises(ValueError, match=r"`vocab_size=5` must be at least 6"):
        TextTransformer(5)


def test_an_encoder_is_built_again_from_its_description(bert: Path) -> None:
    for encoder in encoders(bert).values():
        again = build(describe(encoder))
        again.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(again.eval()(texts()), encoder.eval()(texts()))


def test_bert_reads_its_own_tokens(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our numbers give what its own give to transformers, and masked words are tied to its table."""
    import transformers

    tokenizer = pretrained(f"hf:{bert}")
    encoder = HuggingFace(str(bert), vocabulary=tokenizer.digest).eval()
    theirs = transformers.BertModel.from_pretrained(bert, attn_implementation="eager").eval()
    engine = Engine.from_file(str(bert / "tokenizer.json"))
    for text in ("the red fish", "two blue birds", "the [MASK]"):
        numbers = [3, *engine.encode(text.replace("[MASK]", "zzz"), add_special_tokens=False).ids, 0]
        with torch.no_grad():
            expected = theirs(torch.tensor([numbers])).last_hidden_state[0]
            ids = torch.tensor(tokenizer.encode([text.replace("[MASK]", "zzz")]))
            found = encoder.tokens(Padded(ids, torch.tensor([ids.shape[1]])))[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder.table[CLS], theirs.get_input_embeddings().weight[3])
    method = MaskedText(encoder)
    logits, wanted, _ = method.predict_tokens(texts(), torch.rand(3, 5, 40))
    cross_entropy(logits, wanted).backward()
    assert encoder.net.get_input_embeddings().weight.grad.abs().sum() > 0
    with pytest.raises(
        ValueError, match=r"reads tokens of its own tokenizer, and the data have another; add `--data.tok"
    ):
        HuggingFace(str(bert), vocabulary="other")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"`name=.*none` is no folder of a model, is not in .* cannot be downloaded"):
        HuggingFace(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(ValueError, match=r"the tokenizer.json of .* is not there"):
        HuggingFace(str(tmp_path))


def test_hugging_face_without_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r'needs transformers: `pip install "ssl-lightning\[huggingface\]"`'):
        HuggingFace("bert-base-uncased")


def test_counts_by_hand() -> None:
    rows = BagOfTokens(50)(texts()).numpy()
    for row, values, length in zip(rows, texts().values, LENGTHS, strict=True):
        counts = np.bincount(values[1 : length - 1], minlength=50)
        expected = np.log1p(counts)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_bf16_is_near(bert: Path) -> None:
    encoder = encoders(bert)["mean"].eval()
    with torch.no_grad():
        exact = encoder(texts())
        with torch.autocast("cpu", torch.bfloat16):
            near = encoder(map_tensors(torch.clone, texts())).float()
    assert torch.nn.functional.cosine_similarity(exact, near).min() > 0.99
