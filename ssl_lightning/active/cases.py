"""Why is the model unsure of a sample: because its members disagree, or because they agree that it is unclear?"""

import math
from pathlib import Path
from typing import Literal, get_args

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssl_lightning.active.disagreement import require_members, require_samples
from ssl_lightning.active.explain import prepared
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.progress import track
from ssl_lightning.active.strategy import Predictions
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.csv_files import write_csv
from ssl_lightning.engine.passes import passing, sweep
from ssl_lightning.engine.processes import Rows, gather, share_buffers
from ssl_lightning.engine.ranges import between, given, whole
from ssl_lightning.engine.seeding import derive_seed
from ssl_lightning.functional.scoring import entropy, mean_prediction, mutual_information

Case = Literal["no disagreement", "high disagreement", "data disagreement"]


def sort_cases(log_probabilities: Tensor, threshold: float = 0.1) -> Tensor:
    r"""Sort samples by what members say of them.

    The uncertainty of the mean prediction is what members disagree about and what each is unsure of by itself,
    :math:`H(E_w[y]) = I(y; w) + E_w[H(y|w)]`:

    - *high disagreement*, 1: :math:`I` is above the threshold. A label settles it: ask.
    - *data disagreement*, 2: :math:`I` is below, :math:`E_w[H]` above. All agree that it is unclear: a label is noise.
    - *no disagreement*, 0: both are below. All agree on a class.

    Args:
        log_probabilities: Of draws of the weights, `(members, N, classes)`.
        threshold: As a fraction of log(classes), the most that either can be.

    Returns:
        0, 1 or 2 for each sample, `(N,)`.

    Raises:
        ValueError: If the threshold is no such fraction.

    Reference:
        A. Kendall, Y. Gal, What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?, NeurIPS 2017,
        arXiv 1703.04977: epistemic and aleatoric uncertainty.

    Example:
        >>> agreed, divided, unclear = [[0.99, 0.01]] * 2, [[0.99, 0.01], [0.01, 0.99]], [[0.5, 0.5]] * 2
        >>> sort_cases(torch.tensor([agreed, divided, unclear]).transpose(0, 1).log())
        tensor([0, 1, 2])
    """
    between(0, 1, "()", threshold=threshold)
    least = threshold * math.log(log_probabilities.shape[-1])
    disagreement = mutual_information(log_probabilities)
    own = entropy(mean_prediction(log_probabilities)) - disagreement
    return torch.where(disagreement > least, 1, torch.where(own > least, 2, 0))


class PoolCases(Callback):
    """Sorts the pool into no, high and data disagreement after every fit, and says when to look at the model instead.

    Logs the shares as `active/no_disagreement`, `active/high_disagreement`, `active/data_disagreement`, and writes
    `cases.csv` into the run's folder: key, path, case, mutual information and mean entropy (nats) of every unlabelled
    sample. Put it before the strategy: `--trainer.callbacks+=PoolCases`.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        threshold: As for `sort_cases`.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, members: int | None = None, threshold: float = 0.1, batch_size: int | None = None) -> None:
        between(0, 1, "()", threshold=threshold)
        whole(1, **given(batch_size=batch_size))
        self.members, self.threshold, self.batch_size = require_members(members), threshold, batch_size
        self.shares: dict[str, float] = {}

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Check that there are a pool and members."""
        if not isinstance(trainer.datamodule, PoolDataModule):  # type: ignore[attr-defined]
            raise ValueError("`PoolCases` needs a pool: pass `datamodule=PoolDataModule(data)` to `fit`.")
        require_samples(module, self.members)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Make the model the same in every process."""
        share_buffers(module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Pass over the pool, sort, log, write, say."""
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        seed = derive_seed(pool.seed, "acquisition", pool.round)

        def look(batch: Batch) -> Rows:
            samples = Predictions(module, prepared(module, batch), derive_seed(seed, "masks")).samples(self.members)
            disagreement = mutual_information(samples)
            own = entropy(mean_prediction(samples)) - disagreement
            return {"case": sort_cases(samples, self.threshold), "disagreement": disagreement, "own": own}

        loader = pool.pool_dataloader(self.batch_size)
        with passing(module, loader):
            rows = gather(sweep(trainer, module, track(trainer, loader, "cases"), look))
        if not len(rows["index"]):
            return
        names = [case.replace(" ", "_") for case in get_args(Case)]
        shares = torch.bincount(rows["case"], minlength=3) / len(rows["case"])
        self.shares = dict(zip(names, shares.tolist(), strict=True))
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                logger.log_metrics({f"active/{name}": share for name, share in self.shares.items()}, step=step)
            _write(Path(trainer.default_root_dir) / "cases.csv", rows, pool)
            print(f"round {pool.round}: {advice(self.shares)}", flush=True)


def advice(shares: dict[str, float]) -> str:
    """Say in a sentence what the shares of the three cases mean.

    Args:
        shares: `no_disagreement`, `high_disagreement`, `data_disagreement`, of 1.

    Example:
        >>> said = advice({"no_disagreement": 0.7, "high_disagreement": 0.01, "data_disagreement": 0.29})
        >>> "time to look at the model" in said
        True
    """
    high, data, none = (shares[f"{name}_disagreement"] for name in ("high", "data", "no"))
    numbers = f"high disagreement {high:.0%}, data disagreement {data:.0%}, none {none:.0%} of the pool. "
    numbers = numbers.replace("%", " %")
    if high < 0.02 and data > 0.1:
        return numbers + (
            "It is time to look at the model: its members agree, and agree that much is unclear. More labels will "
            "hardly help; look at the samples of `data disagreement` (noise, classes that overlap) and at what the "
            "model can see (resolution, capacity, features)."
        )
    if high < 0.02:
        return numbers + "Little is left to ask for: the members agree and are sure. Compare with validation accuracy."
    return numbers + "Labels help: members disagree on what a label would settle."


def _write(path: Path, rows: Rows, pool: PoolDataModule) -> None:
    cases, lines = get_args(Case), []
    columns = (rows[name].tolist() for name in ("index", "case", "disagreement", "own"))
    for index, case, disagreement, own in zip(*columns, strict=True):
        key = pool.keys[index]
        lines.append(
            {
                "key": key, "path": pool.data.path_of(key) or "", "case": cases[case],
                "mutual_information": f"{disagreement:.6f}", "mean_entropy": f"{own:.6f}",
            }
        )  # fmt: skip
    write_csv(path, ["key", "path", "case", "mutual_information", "mean_entropy"], lines)
