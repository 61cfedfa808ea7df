"""Tokens a second of pretraining on texts under Lightning, beside a bare PyTorch loop on the same model and batches.

Command: `.venv/bin/python scripts/bench_tokens.py` (an otherwise idle machine; about two minutes on two cores).

Both do what a pretraining must: take the texts of a batch, fill them up, draw masks, predict hidden tokens, check that
the loss is finite, step AdamW and its schedule. The loop has the very batches of the fit. The two alternate, so that
both see the same machine; each number is the median over repetitions. Tokens are those of the texts, not what they are
filled up with.
"""

import argparse
import logging
import statistics
import time
import warnings
from typing import Any

import lightning as L
import torch

from ssl_lightning.backbones import TextTransformer
from ssl_lightning.data import Batch, DataModule
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.engine.optim import OptimizerSpec, configure_optimizers
from ssl_lightning.methods import MaskedText

WARM_UP, VOCABULARY = 3, 8000


class Words(DataModule):
    """Random tokens, of as many lengths as news have: the time of a step does not depend on what they say."""

    num_classes = 1

    def load(self, split: str) -> RaggedSamples:
        """Return 4,096 texts of 8 to 64 tokens."""
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(8, 65, (4096,), generator=generator)
        values = torch.randint(5, VOCABULARY, (int(lengths.sum()),), generator=generator, dtype=torch.int32)
        return RaggedSamples(values, lengths, torch.full((4096,), -1), [str(place) for place in range(4096)])


class Clock(L.Callback):
    """Times the steps of a fit after the first few, and notes which texts they saw."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Start after the warm-up."""
        self.batches.append(batch.index.tolist())
        if trainer.global_step == WARM_UP:
            self.begun = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.begun


def make(dim: int) -> MaskedText:
    """Build the method afresh."""
    torch.manual_seed(0)
    net = TextTransformer(VOCABULARY, dim=dim, depth=2, heads=4, max_length=64)
    return MaskedText(net, optimizer=OptimizerSpec(warmup=0.1))


def under_lightning(dim: int, data: Words, steps: int) -> Clock:
    """Time a fit with its defaults but logger, checkpoints and progress bar."""
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps + WARM_UP, callbacks=[clock], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(make(dim), datamodule=data)
    return clock


class _Steps:
    """Stands for the trainer where the optimizer asks how long the fit is."""

    def __init__(self, steps: int) -> None:
        self.estimated_stepping_batches = steps


def bare(dim: int, data: Words, batches: list[list[int]]) -> float:
    """Time a loop of a dozen lines over the same batches."""
    method = make(dim)
    method._trainer = _Steps(len(batches))  # type: ignore[assignment]
    method._fabric = None
    built: Any = configure_optimizers(method, method.optimizer_spec)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    method._trainer = None
    method.log = lambda *_, **__: None  # type: ignore[method-assign]
    assert data.train_samples is not None
    begun = 0.0
    for step, index in enumerate(batches):
        if step == WARM_UP:
            begun = time.perf_counter()
        batch: Batch = data.train_samples.__getitems__(index)
        loss = method.compute_loss([batch.input], batch)["loss"]
        if not torch.isfinite(loss):
            raise ValueError("not finite")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return time.perf_counter() - begun


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    from lightning.fabric.utilities.rank_zero import rank_zero_module

    rank_zero_module.log.setLevel(logging.WARNING)
    versions = f"torch {torch.__version__}, lightning {L.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {options.repetitions} repetitions")
    print("dim  batch  bare tokens/s  lightning tokens/s  lightning / bare")
    for dim in (64, 128):
        data = Words(batch_size=64, val_size=0)
        rates = []
        for _ in range(options.repetitions):
            clock = under_lightning(dim, data, options.steps)
            assert isinstance(data.train_samples, RaggedSamples)
            tokens = int(data.train_samples.lengths[torch.tensor(clock.batches[WARM_UP:])].sum())
            rates.append((tokens / bare(dim, data, clock.batches), tokens / clock.seconds))
        loop, framed = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(two / one for one, two in rates)
        print(f"{dim:>3}  {64:>5}  {loop:>13,.0f}  {framed:>18,.0f}  {ratio:>16.3f}", flush=True)


if __name__ == "__main__":
    main()
