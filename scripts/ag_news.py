"""What 100 labels of AG News give: on pretrained embeddings, untrained ones, and TF-IDF; and what a label is worth.

    python scripts/ag_news.py --root data/agnews --folder runs/ag_news [--steps 700] [--arms crops,masked,simcse]

Trains on the 7,600 news of test.csv less a fifth for test. Every row is judged alike: logistic regression on 100
labels, 25 a topic, its penalty by cross-validation on those 100 alone; mean and deviation over ten draws of labels.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import BagOfTokens, TextTransformer
from ssl_lightning.data import Texts
from ssl_lightning.data.text_files import Columns
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import MaskedText, SimCLR, SSLMethod
from ssl_lightning.transforms.text import SPECIAL, DropoutViews, TokenViews
from ssl_lightning.transforms.text.masks import fixed_draws

LABELS, DRAWS = 25, 10  # a topic, and how often they are drawn


def load(root: Path, batch_size: int = 64) -> Texts:
    """Return the news: title and description."""
    columns = Columns(text=["title", "description"], label="topic", names=["topic", "title", "description"])
    data = Texts(
        str(root / "test.csv"), columns, str(root / "classes.txt"), max_length=64, batch_size=batch_size, val_size=0.05
    )
    data.setup()
    return data


def encoder(data: Texts, dropout: float = 0.1) -> TextTransformer:
    """Return a small Transformer, the same first weights each time."""
    L.seed_everything(0, verbose=False)
    return TextTransformer(
        data.vocab_size, dim=128, depth=2, heads=4, max_length=64, dropout=dropout, vocabulary=data.vocabulary
    )


ARMS: dict[str, Callable[[Texts, int], SSLMethod]] = {
    "crops": lambda data, steps: SimCLR(
        encoder(data), TokenViews(crop=0.4, drop=0.2), temperature=0.1, optimizer=OptimizerSpec(lr=1e-3, warmup=0.1)
    ),
    "masked": lambda data, steps: MaskedText(encoder(data), optimizer=OptimizerSpec(lr=1e-3, warmup=0.1)),
    "simcse": lambda data, steps: SimCLR(
        encoder(data), DropoutViews(), temperature=0.05, optimizer=OptimizerSpec(lr=5e-4, warmup=0.1)
    ),
}


@torch.inference_mode()
def embed(backbone: torch.nn.Module, data: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of the training and of the test part."""
    backbone.eval()
    found = []
    for samples in (data.train_samples, data.test_samples):
        assert samples is not None
        places = [list(range(start, min(start + 256, len(samples)))) for start in range(0, len(samples), 256)]
        found.append(torch.cat([backbone(samples.__getitems__(part).input).float() for part in places]).numpy())
    return found[0], found[1]


def probe(rows: tuple[np.ndarray, np.ndarray], data: Texts) -> tuple[float, float]:
    """Return mean and deviation of the accuracy in percent, over draws of labels."""
    assert data.train_samples is not None
    assert data.test_samples is not None
    targets, wanted = data.train_samples.targets.numpy(), data.test_samples.targets.numpy()
    scores = []
    for draw in range(DRAWS):
        random = np.random.default_rng(draw)
        chosen = np.concatenate(
            [random.choice((targets == topic).nonzero()[0], LABELS, replace=False) for topic in range(4)]
        )
        model = GridSearchCV(LogisticRegression(max_iter=1000), {"C": np.logspace(-4, 2, 7)}, cv=5)
        model.fit(rows[0][chosen], targets[chosen])
        scores.append(100 * model.score(rows[1], wanted))
    return float(np.mean(scores)), float(np.std(scores))


def standard(rows: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scale each number to mean 0 and variance 1 over the training part, which needs no labels."""
    scaler = StandardScaler().fit(rows[0])
    return scaler.transform(rows[0]), scaler.transform(rows[1])


def tfidf(data: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return TF-IDF of words, learnt on the training part, all of it and without labels."""
    assert data.train_samples is not None
    assert data.test_samples is not None
    texts = [[data.show(key).content for key in part.keys] for part in (data.train_samples, data.test_samples)]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english")
    return words.fit_transform(texts[0]), words.transform(texts[1])


def tell(name: str, rows: tuple[np.ndarray, np.ndarray], data: Texts, seconds: float = 0.0) -> None:
    """Print a row of the table."""
    mean, deviation = probe(rows, data)
    print(f"| {name} | {mean:.1f} ± {deviation:.1f} | {seconds:.0f} s |", flush=True)


@torch.inference_mode()
def tell_masked(method: MaskedText, data: Texts) -> None:
    """Print how well hidden tokens of validation texts are guessed, beside guessing by their frequency alone."""
    samples: Any = data.train_samples
    inputs = samples.__getitems__(data.val_indices[:256].tolist()).input
    logits, wanted, _ = method.eval().predict_tokens(inputs, fixed_draws(inputs))
    counts = torch.bincount(samples.values.long(), minlength=data.vocab_size).float() + 0.1
    counts[:SPECIAL] = 0
    known = cross_entropy(logits, wanted)
    print(f"hidden tokens: {known:.2f} nats, {cross_entropy(counts.log().expand_as(logits), wanted):.2f} by frequency")


def main() -> None:
    """Run the arms, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=Path("data/agnews"))
    parser.add_argument("--folder", type=Path, default=Path("runs/ag_news"))
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--arms", default=",".join(ARMS))
    options = parser.parse_args()
    data = load(options.root)
    assert data.train_samples is not None
    assert data.test_samples is not None
    print(f"{len(data.train_samples)} texts to train on, {len(data.test_samples)} to test; {data.vocab_size} tokens")
    print("| embedding | accuracy at 100 labels, % | CPU time |\n|---|---|---|")
    tell("TF-IDF of words", tfidf(data), data)
    tell("counts of tokens", embed(BagOfTokens(data.vocab_size), data), data)
    tell("untrained encoder", standard(embed(encoder(data), data)), data)
    for name in options.arms.split(","):
        method = ARMS[name](data, options.steps)
        begin = time.process_time()
        trainer = L.Trainer(
            max_steps=options.steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
            precision="bf16-mixed",
        )  # fmt: skip
        trainer.fit(method, datamodule=data)
        seconds = time.process_time() - begin
        options.folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(options.folder / f"{name}.ckpt")
        tell(name, standard(embed(method.backbone, data)), data, seconds)
        if isinstance(method, MaskedText):
            tell_masked(method, data)


if __name__ == "__main__":
    main()
