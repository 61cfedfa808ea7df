"""Search and classification by text: recall by brute force, chance by simulation, and `evaluate` as a user gives it."""

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from every_modality import write
from torch import Tensor, nn

from ssl_lightning.backbones import TwoStreams, TwoTowers
from ssl_lightning.data import Pairs
from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.evaluation.retrieval import name_texts, scores
from ssl_lightning.functional.retrieval import chance_at, content_ids, recall_at, same
from ssl_lightning.methods import CLIP, SSLMethod, ViLBERT
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import Pair


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_recall_is_that_of_sorting(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    found, right = torch.randn(30, 7, generator=generator), torch.rand(30, 7, generator=generator) < 0.2
    right[torch.arange(30), torch.randint(7, (30,), generator=generator)] = True
    hits = [any(right[row, place] for place in found[row].argsort(descending=True)[:k]) for row in range(30)]
    assert recall_at(found, right, k) == sum(hits) / 30
    flat = recall_at(
        torch.zeros(30, 7), right, k
    )  # an encoder that tells nothing apart finds what nothing comes before
    assert flat == float((7 - right.sum(dim=1) < k).double().mean())


@pytest.mark.parametrize("k", [1, 3])
def test_chance_is_the_mean_over_all_orders(k: int) -> None:
    right = torch.tensor([[True, False, False, True, False], [False, True, False, False, False]])
    found = []
    for order in itertools.permutations(range(5)):
        found.append(recall_at(torch.tensor(order).float().expand(2, 5), right, k))
    assert chance_at(right, k) == pytest.approx(sum(found) / len(found))
    assert chance_at(right, 100) == 1.0


def test_scores_that_are_no_numbers_and_queries_without_an_answer() -> None:
    with pytest.raises(ValueError, match="`scores` holds NaN"):
        recall_at(torch.tensor([[float("nan"), 1.0]]), torch.tensor([[True, False]]), 1)
    with pytest.raises(ValueError, match="a query without a right candidate"):
        recall_at(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), 1)


def test_contents_are_the_same_whatever_they_are_filled_up_with() -> None:
    images = torch.randint(256, (50, 3, 9, 9), dtype=torch.uint8)
    images[7] = images[3]
    images[8] = images[3]
    images[8, 0, 0, 0] ^= 1
    ids = torch.randint(5, 90, (50, 6))
    ids[9, 4:], ids[10, 4:] = 0, 0
    ids[10] = ids[9]
    one = content_ids(Pair(images, Padded(ids, torch.full((50,), 6))))
    two = content_ids(Pair(images, Padded(torch.cat([ids, torch.zeros(50, 9).long()], 1), torch.full((50,), 6))))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    alike = same(*one, *one)
    assert alike.sum() == 54
    assert alike[3, 7]
    assert alike[9, 10]
    assert not alike[3, 8]
    floats = content_ids(Pair(images / 255, Padded(ids, torch.full((50,), 6))))[0]
    assert torch.equal(floats[:, None] == floats, one[0][:, None] == one[0])


class Matcher(nn.Module):
    """Of a stranger's own: an image of n belongs to a text of n words."""

    feature_dim = 1

    def match(self, pairs: Pair) -> Tensor:
        return -(pairs.image.mean(dim=(1, 2, 3)) - pairs.text.length).abs()


def test_every_image_is_compared_with_every_text() -> None:
    images = torch.arange(1, 6).float().view(5, 1, 1, 1).expand(5, 3, 4, 4)
    texts = Padded(torch.full((3, 4), 9), torch.tensor([4, 2, 3]))
    found = scores(Matcher(), images, texts, batch_size=4)
    assert found.shape == (5, 3)
    assert found.argmax(dim=0).tolist() == [3, 1, 2]
    net = TwoTowers(60, image_size=8, dim=4).eval()
    images = torch.randn(5, 3, 8, 8)
    expected = net.encode_image(images) @ net.encode_text(texts).T
    torch.testing.assert_close(scores(net, images, texts, batch_size=2), expected)


def test_names_become_texts() -> None:
    facts = {"tokenizer": Tokenizer.train(["red blue green photo of a"] * 2, 300).json, "max_length": 9}
    texts = name_texts(["red", "blue"], "a photo of {}", facts)
    assert Tokenizer.from_json(facts["tokenizer"]).decode(texts.values[1]) == "a photo of blue"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`template='red'` must have one `{}`"):
        name_texts(["red"], "red", facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured pictures with texts of their colours."""
    return write("images with text", tmp_path_factory.mktemp("pairs"), count=40)


def saved(method: SSLMethod, data: Pairs, trainer: Any, path: Path) -> str:
    trainer(max_epochs=1, limit_val_batches=0).fit(method, datamodule=data)
    method.trainer.save_checkpoint(path)
    return str(path)


def test_evaluate_searches_and_classifies_by_text(folder: Path, trainer: Any, command: Any, tmp_path: Path) -> None:
    small: dict[str, Any] = {"image_size": 8, "vocab_size": 300}
    data = Pairs(str(folder / "pairs.csv"), batch_size=8, test_size=0.4, **small)
    facts = {"vocab_size": data.vocab_size, "vocabulary": data.vocabulary, "image_size": 8}
    two = TwoTowers(**facts, dim=8, text_args={"dim": 8, "depth": 1})
    paths = [
        saved(CLIP(two), data, trainer, tmp_path / "clip.ckpt"),
        saved(ViLBERT(TwoStreams(**facts, dim=8, regions=2, heads=2), codes=4), data, trainer, tmp_path / "v.ckpt"),
    ]
    given = ["--data", "Pairs", "--data.path", folder / "pairs.csv", "--data.image_size", "8"]
    given += ["--data.vocab_size", "300", "--data.test_size", "0.4", "--results", tmp_path / "r.csv"]
    status, out = command("evaluate", *paths, *given, "--protocols", "zeroshot,retrieval", "--template", "the {}")
    assert status == 0, out
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 9)
    found = {(row["checkpoint"], row["metric"]): float(row["value"]) for row in rows}
    data.setup("test")
    assert data.test_samples is not None
    count = len(data.test_samples)
    pairs = data.test_samples.__getitems__(list(range(count))).input
    for path in paths:
        assert found[path, "chance_5"] == pytest.approx(5 / count, rel=1e-4)
        assert found[path, "image_to_text_1"] <= found[path, "image_to_text_5"] <= found[path, "image_to_text_10"]
    with torch.no_grad():
        clean = data.clean()(pairs)
        u, v = two.eval().encode_image(clean.image), two.encode_text(clean.text)
    best = (u @ v.T).argsort(dim=1, descending=True)[:, :5]
    by_hand = sum(place in best[place] for place in range(count)) / count
    assert found[paths[0], "image_to_text_5"] == pytest.approx(by_hand, abs=1e-5)
    assert "| zero-shot | image to text @1 |" in out
    assert "chance @10 |" in out
    status, out = command("evaluate", paths[0], *given, "--protocols", "retrieval", "--candidates", "4")
    assert status == 0, out
    assert "(candidates=4)" in out
    status, out = command("evaluate", paths[0], *given, "--protocols", "retrieval", "--candidates", "1")
    assert (status, "`candidates=1` must be at least 2" in out) == (2, True)
    status, out = command("evaluate", "pixels", *given, "--protocols", "zeroshot")
    assert status == 2
    assert "compares images with texts, and raw input does not: it has neither `match` nor" in out


def test_other_data_and_other_encoders_take_a_line(command: Any, folder: Path) -> None:
    given = ["evaluate", "untrained", "--backbone", "ConvNet", "--protocols", "knn,retrieval", "--data", "Digits"]
    status, out = command(*given)
    assert (status, "Traceback" in out) == (2, False)
    assert "`protocols=retrieval` compares images with texts, and these data have not both; give pairs" in out
