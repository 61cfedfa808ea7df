"""Compare the strategies with baal, batchbald_redux, scikit-activeml and decile-distil, side by side in one run.

Command: `bash scripts/bench_strategies.sh` (about ten minutes on an idle machine of two cores; it makes an environment
with those libraries under runs/bench-strategies/). Writes table.md and cost.png there; docs/strategies/cost.md keeps
one.

Each measurement is a process of its own: data are made, the code is warmed up on a small part, then it is timed once.
The peak is how far the resident memory rises above what the process held before, as Linux reports it. All use the same
number of threads. For BatchBALD each library's batch is worth what one estimator, of 50,000 joint labels, says of it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.active import BALD
from ssl_lightning.functional.batch_bald import batch_bald
from ssl_lightning.functional.cover import prob_cover, pure_radius
from ssl_lightning.functional.distances import distances
from ssl_lightning.functional.medoids import k_medoids
from ssl_lightning.functional.scoring import (
    entropy,
    expected_predictive_information_gain,
    mutual_information,
    residuals,
)
from ssl_lightning.functional.selection import (
    badge,
    dbal,
    farthest_first,
    top,
    typiclust,
)

OUT = Path("runs/bench-strategies")
LIMIT = 900  # seconds of one measurement
Run = Callable[[], Any]


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def predictions(count: int, members: int, classes: int, alike: bool) -> torch.Tensor:
    """Make up probabilities `(count, members, classes)`: a model's, most of them sure, or all drawn at random."""
    if not alike:
        return (2 * torch.randn(count, members, classes, generator=generator())).softmax(dim=2)
    common = 4 * torch.randn(count, 1, classes, generator=generator())
    own = torch.rand(count, 1, 1, generator=generator(1)) * torch.randn(count, members, classes, generator=generator(2))
    return (common + 2 * own).softmax(dim=2)


def batchbald(who: str, alike: bool) -> tuple[Run, Run, Callable[[Any], str]]:
    """2,000 candidates, 100 members, 10 classes, a batch of 10, 10,000 drawn joint labels."""
    whole = predictions(2000, 100, 10, alike)

    def run(rows: torch.Tensor, count: int) -> list[int]:
        if who == "ours":
            return batch_bald(rows, torch.arange(len(rows)), count, generator())[0].tolist()
        if who == "batchbald_redux":
            from batchbald_redux.batchbald import get_batchbald_batch

            return list(get_batchbald_batch(rows.double().log(), count, 10_000, dtype=torch.double).indices)
        import numpy as np
        from skactiveml.pool import batch_bald as theirs

        utilities = theirs(rows.double().transpose(0, 1).numpy().copy(), count, 10_000, random_state=0)
        return [int(np.nanargmax(row)) for row in utilities]

    def worth(chosen: list[int]) -> str:
        gains = batch_bald(whole[chosen], torch.arange(len(chosen)), len(chosen), generator(), 50_000)[1]
        return f"{float(gains.sum()):.3f} nats"

    return lambda: run(whole[:100], 2), lambda: run(whole, 10), worth


def farthest(who: str, count: int, dim: int, picks: int) -> tuple[Run, Run, Callable[[Any], str]]:
    """Embeddings of which the first hundred are labelled."""
    rows = torch.randn(count, dim, generator=generator())

    def run(rows: torch.Tensor, picks: int) -> list[int]:
        if who == "ours":
            return farthest_first(rows, torch.arange(len(rows)) < 100, picks).tolist()
        if who == "decile-distil":
            from distil.active_learning_strategies.core_set import CoreSet

            numbers = rows.numpy()
            return [100 + int(pick) for pick in CoreSet.furthest_first(None, numbers[100:], numbers[:100], picks)]
        import numpy as np
        from skactiveml.pool import k_greedy_center

        labels = np.full(len(rows), np.nan)
        labels[:100] = 0
        return [int(pick) for pick in k_greedy_center(rows.numpy(), labels, batch_size=picks, random_state=0)[0]]

    def radius(chosen: list[int]) -> str:
        centres = rows[[*range(100), *chosen]]
        parts = [torch.cdist(part, centres).amin(dim=1) for part in torch.split(rows, 4096)]
        return f"radius {float(torch.cat(parts).max()):.4f}"

    return lambda: run(rows[:1000], 3), lambda: run(rows, picks), radius


def one_pass(who: str) -> tuple[Run, Run, Callable[[Any], str]]:
    """What 1,000 passes over the rows cost, were memory all: the fastest of some products with one vector, times it."""
    rows, vector = torch.randn(50_000, 512, generator=generator()), torch.randn(512)
    return lambda: rows @ vector, lambda: [rows @ vector for _ in range(1000)], lambda _: ""


def pool_pass(who: str) -> tuple[Run, Run, Callable[[Any], str]]:
    """BALD over 512 images of 32 px, 20 masks, ResNet-18 with a dropout head: scores of all."""
    from ssl_lightning.backbones import ResNet
    from ssl_lightning.supervised.classifier import Classifier
    from ssl_lightning.transforms.image import CleanView

    torch.manual_seed(0)
    images = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8, generator=generator())
    model = Classifier(10, ResNet(channels=3, image_size=32), dropout=0.5, clean=CleanView())
    if who == "ours":
        import lightning as L

        from ssl_lightning.active import PoolDataModule
        from ssl_lightning.data import ImageData, TensorSamples

        class Images(ImageData):
            """The images as a data set."""

            num_classes, channels, image_size = 10, 3, 32

            def load(self, split: str) -> TensorSamples:
                return TensorSamples(images, torch.zeros(len(images), dtype=torch.int64))

        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        pool = PoolDataModule(Images(batch_size=64, val_size=0), initial=1)
        trainer.validate_loop._data_source.instance = None
        pool.trainer = pool.data.trainer = trainer
        trainer.strategy.connect(model)
        pool.setup("fit")
        few = PoolDataModule(Images(batch_size=64, val_size=0), initial=448)
        few.trainer = few.data.trainer = trainer
        few.setup("fit")
        strategy = BALD(members=20, query_size=10)
        return (
            lambda: strategy.query(trainer, model, few),
            lambda: strategy.query(trainer, model, pool),
            lambda found: f"{len(found[0])} of {len(pool.unlabelled)}",
        )
    from baal.active.heuristics import BALD as TheirBALD
    from baal.bayesian.dropout import MCDropoutModule
    from baal.modelwrapper import ModelWrapper, TrainingArgs
    from torch import nn
    from torch.utils.data import TensorDataset

    network = MCDropoutModule(nn.Sequential(model.backbone, model.head))
    clean = model.clean(images)
    wrapper = ModelWrapper(network, TrainingArgs(batch_size=64, use_cuda=False, workers=0))

    def run(count: int) -> Any:
        data = TensorDataset(clean[:count], torch.zeros(count))
        found = wrapper.predict_on_dataset(data, iterations=20, verbose=False)
        return TheirBALD()(found)[:10]

    return lambda: run(64), lambda: run(511), lambda found: f"{len(found)} of 511"


CASES: dict[str, tuple[list[str], Callable[[str], tuple[Run, Run, Callable[[Any], str]]]]] = {
    "BatchBALD, 2,000 x 100 x 10, batch 10, a model's predictions": (
        ["ours", "batchbald_redux", "scikit-activeml"], lambda who: batchbald(who, True)
    ),
    "BatchBALD, the same size, predictions drawn at random": (
        ["ours", "batchbald_redux"], lambda who: batchbald(who, False)
    ),
    "Farthest first, 50,000 x 512, 1,000 picks": (
        ["ours", "decile-distil"], lambda who: farthest(who, 50_000, 512, 1000)
    ),
    "Reading 50,000 x 512 a thousand times": (["ours"], one_pass),
    "Farthest first, 50,000 x 512, 100 picks": (
        ["ours", "scikit-activeml", "decile-distil"], lambda who: farthest(who, 50_000, 512, 100)
    ),
    "Farthest first, 1,000,000 x 128, 100 picks": (["ours"], lambda who: farthest(who, 1_000_000, 128, 100)),
    "BALD over 511 images, T = 20, ResNet-18 with a dropout head": (["ours", "baal"], pool_pass),
}  # fmt: skip


def status(key: str) -> float:
    """Return a line of Linux's account of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def measure(case: str, who: str) -> None:
    """Time one, print JSON."""
    warm, run, tell = CASES[case][1](who)
    warm()
    held = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - start
    peak = status("VmHWM")
    print(json.dumps({"seconds": seconds, "growth": peak - held, "peak": peak, "told": tell(found)}))


def grow(name: str, size: int, who: str) -> None:
    """Count the processor's seconds of a strategy's choice of 100 from so many samples, on one core; print JSON."""
    torch.set_num_threads(1)
    embeddings = torch.randn(size, 128, generator=generator())
    embeddings /= embeddings.norm(dim=1, keepdim=True)
    asked = torch.arange(size) < 100
    index = torch.arange(size)
    needs_samples = name in ("BALD", "BatchBALD (10)", "EPIG")
    samples = predictions(size, 20, 10, True) if needs_samples else torch.empty(0)
    mean = predictions(size, 1, 10, True)[:, 0]
    draw = generator()

    def bald() -> torch.Tensor:  # by batches, as in the pass over the pool
        return torch.cat([mutual_information(part.transpose(0, 1).log()) for part in torch.split(samples, 4096)])

    def some(count: int) -> torch.Tensor:
        return torch.randperm(size, generator=draw)[:count].sort().values

    def batch() -> Any:
        near = top(bald(), index, min(2000, size))
        return batch_bald(samples[near], index[near], 10, draw)

    def weighted() -> Any:
        informative = 1 - mean.amax(dim=1)
        near = top(informative, index, 1000)
        return dbal(embeddings[near], informative[near], 100, draw)

    def medoids() -> Any:
        near = embeddings[some(10_000)]
        return k_medoids(distances(near, near), 100, draw)

    def cover() -> Any:
        near = some(100_000)
        return prob_cover(embeddings[near], asked[near].clone(), 100, pure_radius(embeddings[near], 10, draw))

    runs: dict[str, Run] = {
        "Entropy": lambda: top(entropy(mean.log()), index, 100),
        "BALD": lambda: top(bald(), index, 100),
        "EPIG": lambda: top(expected_predictive_information_gain(samples, samples[some(100)], 100), index, 100),
        "BatchBALD (10)": batch,
        "FarthestFirst": lambda: farthest_first(embeddings, asked, 100),
        "BADGE": lambda: badge(residuals(mean.log()), embeddings, 100, draw),
        "DBAL": weighted,
        "KMedoids": medoids,
        "ProbCover": cover,
        "TypiClust": lambda: typiclust(embeddings, asked, 100, draw),
    }
    if who != "ours":
        runs[name] = theirs(name, embeddings, asked)
    if size <= 10_000:  # warm up
        runs[name]()
    start = time.process_time()
    runs[name]()
    print(json.dumps({"seconds": time.process_time() - start}))


def theirs(name: str, embeddings: torch.Tensor, asked: torch.Tensor) -> Run:
    """Return what scikit-activeml does of the same name, on the same embeddings, at the same radius."""
    import numpy as np
    from skactiveml.pool import CoreSet, ProbCover, TypiClust

    rows, labels = embeddings.numpy(), np.where(asked.numpy(), 0.0, np.nan)
    if name == "FarthestFirst":
        return lambda: CoreSet(random_state=0).query(rows, labels, batch_size=100)
    if name == "TypiClust":
        return lambda: TypiClust(random_state=0, k=20).query(rows, labels, batch_size=100)
    delta = pure_radius(embeddings, 10, generator())
    return lambda: ProbCover(deltas=[delta], random_state=0).query(rows, labels, batch_size=100)


GROWING = [
    "Entropy", "BALD", "EPIG", "BatchBALD (10)", "FarthestFirst", "BADGE", "DBAL", "KMedoids", "ProbCover", "TypiClust",
]  # fmt: skip


PEERS = ["FarthestFirst", "ProbCover", "TypiClust"]  # that scikit-activeml has


def child(*arguments: str) -> dict[str, Any] | None:
    """Measure in a process of its own; null if it takes too long, or more memory than there is."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        if "MemoryError" in error.stderr:
            return None
        raise SystemExit(f"{' '.join(arguments)}:\n{error.stderr[-3000:]}") from None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare() -> list[str]:
    """Measure all cases, return the lines of the table."""
    lines = [
        "| | Who | Seconds | Times ours | Memory above data, MiB | Peak, MiB | Result |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, (everyone, _) in CASES.items():
        ours = 0.0
        for who in everyone:
            found = child("--case", case, "--who", who)
            if found is None:
                lines.append(f"| {case} | {who} | more than {LIMIT} | more than {LIMIT / ours:.0f} | | | |")
            else:
                ours = ours or found["seconds"]
                lines.append(
                    f"| {case} | {who} | {found['seconds']:.3g} | {found['seconds'] / ours:.3g} | "
                    f"{found['growth']:.0f} | {found['peak']:.0f} | {found['told']} |"
                )
            print(lines[-1], flush=True)
    return lines


def cost(limit: float) -> list[str]:
    """Measure the choice of 100 from pools of 10^3 to 10^6, plot it, return the lines of the table."""
    import matplotlib.pyplot as plt

    sizes = [1000, 10_000, 100_000, 1_000_000]
    lines = ["| Choosing 100 from | " + " | ".join(f"{size:,}" for size in sizes) + " |", "|---|" + "---|" * len(sizes)]
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for place, name in enumerate([*GROWING, *PEERS]):
        who = "ours" if place < len(GROWING) else "scikit-activeml"
        seconds: list[float] = []
        for size in sizes:
            if seconds and seconds[-1] * (1 if who == "ours" else 10) > limit:
                break
            found = child("--grow", name, "--size", str(size), "--who", who)
            if found is None:
                break
            seconds.append(found["seconds"])
        told = [f"{value:.3g} s" for value in seconds] + ["not tried"] * (len(sizes) - len(seconds))
        label = name if who == "ours" else f"{name}, {who}"
        lines.append(f"| {label} | " + " | ".join(told) + " |")
        print(lines[-1], flush=True)
        style = ("-o", "--s", ":^")[place // 4] if who == "ours" else ":x"
        axes.loglog(sizes[: len(seconds)], seconds, style, label=label, markersize=4)
    axes.loglog(sizes, [size * 3e-6 for size in sizes], color="0.8", linewidth=6, zorder=0, label="linear")
    axes.set_xlabel("samples in the pool")
    axes.set_ylabel("seconds of one core to choose 100 (BatchBALD: 10)")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize=7)
    figure.savefig(OUT / "cost.png", dpi=120)
    return lines


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["compare", "cost"], help="one of the two parts")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a larger pool is not tried")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        return measure(arguments.case, arguments.who)
    if arguments.grow:
        return grow(arguments.grow, arguments.size, arguments.who)
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, "
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {time.strftime('%Y-%m-%d')}",
        "",
    ]
    if arguments.only != "cost":
        lines += [*compare(), ""]
    if arguments.only != "compare":
        lines += cost(arguments.limit)
    (OUT / f"{arguments.only or 'table'}.md").write_text("\n".join(lines) + "\n")
    print(f"written to {OUT}")
    return None


if __name__ == "__main__":
    main()
