"""Encoders of rows side by side, trained with labels on tables of scikit-learn: why `RowNet` is what it is.

    python scripts/row_encoders.py

Each is trained for 100 steps on 30 labels, and for 300 steps on all training rows, over splits; printed are the test
accuracy in percent, mean and deviation, and the seconds of one run on one thread. The FT-Transformer (Gorishniy 2021)
is a small one of torch's own layers: 2 blocks of 32 numbers a cell, 4 heads.
"""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ssl_lightning.backbones import MLP, RowNet

SPLITS = 5


class BatchNormed(RowNet):
    """`RowNet` with batch norm, as in the paper."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim)
        for block in self.blocks:
            block[0] = nn.BatchNorm1d(self.feature_dim)
        self.last[0] = nn.BatchNorm1d(self.feature_dim)


class FTTransformer(nn.Module):
    """A token for each number, and one for the row, through a small transformer."""

    def __init__(self, numbers: int, dim: int = 32) -> None:
        super().__init__()
        self.feature_dim = dim
        self.weight, self.bias = (nn.Parameter(0.1 * torch.randn(numbers, dim)) for _ in range(2))
        self.row = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder, self.norm = nn.TransformerEncoder(layer, 2), nn.LayerNorm(dim)

    def forward(self, rows: Tensor) -> Tensor:
        """Encode rows `(N, numbers)`."""
        tokens = torch.cat([self.row.expand(len(rows), -1, -1), rows[:, :, None] * self.weight + self.bias], dim=1)
        embedding: Tensor = self.norm(self.encoder(tokens)[:, 0])
        return embedding


def accuracy(make: Callable[[int], nn.Module], rows: np.ndarray, target: np.ndarray, labels: int, seed: int) -> float:
    """Train an encoder and a linear head, and return the test accuracy in percent; `labels=0` takes all."""
    train, test, known, truth = train_test_split(rows, target, test_size=0.3, random_state=seed)
    scaler = StandardScaler().fit(train)
    x, y = torch.tensor(scaler.transform(train)).float(), torch.tensor(known)
    torch.manual_seed(seed)
    if labels:
        some = torch.randperm(len(x))[:labels]
        x, y = x[some], y[some]
    encoder = make(rows.shape[1])
    net = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, int(target.max()) + 1))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(100 if labels else 300):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        guess = net.eval()(torch.tensor(scaler.transform(test)).float()).argmax(dim=1)
    return 100 * float((guess == torch.tensor(truth)).float().mean())


def main() -> None:
    """Print a table."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    nets: dict[str, Callable[[int], nn.Module]] = {
        "RowNet": RowNet, "RowNet with batch norm": BatchNormed, "MLP": lambda numbers: MLP(numbers, 128, dropout=0.1),
        "FT-Transformer, small": FTTransformer,
    }  # fmt: skip
    print(f"| | {' | '.join(nets)} |\n|---|{'---:|' * len(nets)}")
    for name, load in (("breast cancer", load_breast_cancer), ("wine", load_wine)):
        rows, target = load(return_X_y=True)
        for labels in (30, 0):
            cells = []
            for make in nets.values():
                begun = time.perf_counter()
                found = [accuracy(make, rows, target, labels, seed) for seed in range(SPLITS)]
                seconds = (time.perf_counter() - begun) / SPLITS
                cells.append(f"{np.mean(found):.1f} ± {np.std(found):.1f} ({seconds:.1f} s)")
            print(f"| {name}, {labels or 'all'} labels | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
