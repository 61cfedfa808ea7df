"""The round loop: train, choose, ask, again; stopped at any instant, the same call goes on."""

import csv
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.progress import RoundsProgress
from ssl_lightning.active.stopping import PredictStopSet, StablePredictions, StoppingRule
from ssl_lightning.active.strategy import AcquisitionStrategy
from ssl_lightning.catalogue import class_path
from ssl_lightning.data.base import ImageData
from ssl_lightning.evaluation.inference import first_process, share_buffers
from ssl_lightning.labelling import INITIAL, GroundTruth, LabelStore, Oracle
from ssl_lightning.seeding import base_seed, derive_seed

STRIP = 64  # cells in a picture of a query at most


class MakeTrainer(Protocol):
    """Builds a fresh trainer with some more callbacks."""

    def __call__(self, callbacks: list[Callback]) -> L.Trainer:
        """Build it."""


def run_rounds(
    make_model: Callable[[], L.LightningModule],
    make_trainer: MakeTrainer,
    data: ImageData,
    strategy: AcquisitionStrategy,
    rounds: int = 8,
    initial: int = 20,
    balanced: bool = False,
    steps_per_epoch: int | None = 50,
    folder: str = "runs/active",
    oracle: Oracle | None = None,
    store: str | None = None,
    stop: list[StoppingRule] | None = None,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run active learning: each round trains a fresh model on what is labelled, then labels what the strategy wants.

    Trains `rounds + 1` models; the last asks for nothing. Each round is seeded by the run's seed and its number alone,
    so a run that was stopped at any instant goes on by the same call, to the same picks as one that was not. In the
    folder are `labels.sqlite` (the truth), `rounds.csv` and `queries.csv` (written from it after each round),
    `queries/*.png` and the last model, `checkpoints/round_*.ckpt`.

    Args:
        make_model: Builds a fresh model; called once a round, after seeding.
        make_trainer: Builds a fresh trainer with the callbacks it is given; all of them may share one logger.
        data: Its training part, less the validation part, is the pool.
        strategy: Chooses the queries.
        rounds: How often to ask.
        initial: Labels to begin with, drawn at random.
        balanced: Draw the initial labels evenly over the classes, which needs to know them.
        steps_per_epoch: Training steps an epoch, however few the labels; null for one pass over them.
        folder: Of the run; the same folder and settings go on with it.
        oracle: Who answers; null for the ground truth.
        store: URL of the label store; null for `labels.sqlite` in the folder.
        stop: When to end before all rounds: `Budget`, `TargetAccuracy`, `NoGain`, `StablePredictions`.
        settings: More settings that must not change when the run goes on.

    Returns:
        One row a round, as in `rounds.csv`.

    Raises:
        ValueError: If the settings are impossible, or are not those the folder's run began with.
    """
    if rounds < 0:
        raise ValueError(f"`rounds={rounds}` must be at least 0.")
    root = Path(folder)
    label_store = LabelStore(store or f"sqlite:///{root.resolve() / 'labels.sqlite'}")
    pool = PoolDataModule(data, initial, balanced, steps_per_epoch, label_store, oracle or GroundTruth(), base_seed())
    _require_budget(pool, strategy, rounds)
    if first_process():
        label_store.require_settings(
            {
                "strategy": type(strategy).__name__,
                "query_size": strategy.query_size,
                "initial": initial,
                "balanced": balanced,
                "seed": pool.seed,
                "data": type(data).__name__,
                **(settings or {}),
            }
        )
        _describe(root, pool, strategy)
    rules = stop or []
    start = _first_open(label_store, rounds, rules, strategy.query_size)
    if start > 0:
        _say(f"`{folder}`: {start} of {rounds + 1} models are trained; going on from there.")
    progress = RoundsProgress(rounds + 1, start)
    try:
        for number in range(start, rounds + 1):
            pool.round = number
            if reason := _run_round(make_model, make_trainer, pool, strategy, number < rounds, root, progress, rules):
                _say(f"stopped after round {number}: {reason}.")
                break
    finally:
        progress.stop()
    if first_process():
        write_tables(label_store, root, data.class_names)
    return _rows(label_store)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _describe(root: Path, pool: PoolDataModule, strategy: AcquisitionStrategy) -> None:
    """Write what reports read of a run, unless the command line has written all of its config."""
    path = root / "config.yaml"
    if path.exists():
        return

    def named(thing: Any, **init_args: Any) -> dict[str, Any]:
        return {"class_path": class_path(type(thing)), "init_args": init_args}

    config = {
        "seed_everything": pool.seed,
        "strategy": named(strategy, query_size=strategy.query_size),
        "data": named(pool.data),
        "model": {"init_args": {}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))


def _first_open(store: LabelStore, rounds: int, rules: list[StoppingRule], query_size: int) -> int:
    known, rows = store.rounds(), _rows(store)
    for number in range(rounds + 1):
        record = known.get(number)
        if record is None or record.metrics is None:
            return number
        if number < rounds and not record.strategy:
            return rounds + 1 if why(rules, rows[: number + 1], query_size) else number
    return rounds + 1


def why(rules: list[StoppingRule], rows: list[dict[str, Any]], query_size: int) -> str | None:
    """Return the first rule's reason to stop, or null."""
    return next((reason for rule in rules if (reason := rule.reason(rows, query_size))), None)


def _rows(store: LabelStore) -> list[dict[str, Any]]:
    return [record.metrics for record in store.rounds().values() if record.metrics is not None]


def _require_budget(pool: PoolDataModule, strategy: AcquisitionStrategy, rounds: int) -> None:
    pool.data.prepare_data()
    pool.data.setup("fit")
    size, need = len(pool.data.train_indices), pool.initial + rounds * strategy.query_size
    if need > size:
        raise ValueError(
            f"`initial={pool.initial}` + `rounds={rounds}` x `query_size={strategy.query_size}` = {need} labels "
            f"exceed the "
            f"{size} samples of the pool; lower one of them."
        )


def _run_round(
    make_model: Callable[[], L.LightningModule],
    make_trainer: MakeTrainer,
    pool: PoolDataModule,
    strategy: AcquisitionStrategy,
    ask: bool,
    root: Path,
    progress: RoundsProgress,
    rules: list[StoppingRule],
) -> str | None:
    number, begun = pool.round, time.perf_counter()
    L.seed_everything(derive_seed(pool.seed, "round", number), workers=True, verbose=False)
    model = make_model()
    record = pool.store.rounds().get(number)
    ask = ask and not (record and record.strategy)  # asked already, then killed before the metrics were known
    before = pool.store.rounds().get(number - 1)
    if before is not None and before.state is not None:
        strategy.load_state_dict(before.state)
    saver = SaveRound(root / "checkpoints" / f"round_{number:03d}.ckpt")
    gate = Gate(rules, ask, _rows(pool.store)[:number], strategy, root / "stop_set")
    trainer = make_trainer([saver, progress, gate, *([strategy] if ask else [])])
    if trainer.is_global_zero:
        progress.start()
    # loggers count steps over all rounds
    steps_before = sum(row["steps"] for row in _rows(pool.store) if row["round"] < number)
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps_before
    trainer.fit(model, datamodule=pool)
    if trainer.interrupted:
        raise KeyboardInterrupt
    row, steps = gate.row, trainer.global_step
    row.update(trainer.test(model, datamodule=pool, verbose=False)[0])
    queried = sum(query.round == number for query in pool.queries)
    row.update({"queried": queried, "seconds": round(time.perf_counter() - begun, 3), "steps": steps})
    if trainer.is_global_zero:
        pool.store.add_metrics(number, row)
        write_tables(pool.store, root, pool.data.class_names)
        write_picture(pool, INITIAL, root)
        write_picture(pool, number, root)
    trainer.strategy.barrier("round")  # nobody reads the store before it is written
    log_round(trainer.loggers, row, steps_before + steps)
    accuracy = row.get("test/accuracy")
    result = "" if accuracy is None else f"  test/accuracy {accuracy:.4f}"
    asked = f"  asked {queried} by {type(strategy).__name__}" if queried else ""
    if trainer.is_global_zero:
        progress.finish_round(f"round {number}: {row['labelled']} labels{result}{asked}  ({row['seconds']:.1f} s)")
    return gate.reason


class Gate(Callback):
    """Gathers a round's numbers at the end of fit, and lets the strategy ask unless a rule says to stop.

    Args:
        rules: To stop by.
        ask: Whether there is something to forbid: not in the last round, nor if the round has asked already.
        rows: Of the rounds before.
        strategy: To be let through, or not.
        folder: For the stop set's predictions.
    """

    def __init__(
        self,
        rules: list[StoppingRule],
        ask: bool,
        rows: list[dict[str, Any]],
        strategy: AcquisitionStrategy,
        folder: Path,
    ) -> None:
        self.rules, self.ask, self.rows, self.strategy, self.folder = rules, ask, rows, strategy, folder
        self.row: dict[str, Any] = {}
        self.reason: str | None = None

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Decide."""
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.row = {
            "round": pool.round,
            "labelled": len(pool.labelled),
            "validation": len(pool.data.val_indices),
            "queried": 0,
            "seconds": 0.0,
            "steps": trainer.global_step,
            **{key: float(value) for key, value in trainer.callback_metrics.items()},
        }
        if any(isinstance(rule, StablePredictions) for rule in self.rules):
            stop_set = PredictStopSet(self.folder)
            stop_set.on_fit_end(trainer, module)
            self.row["agreement"] = stop_set.agreement
        if self.ask:
            reason = why(self.rules, [*self.rows, self.row], self.strategy.query_size)
            self.reason = trainer.strategy.broadcast(reason)  # all processes ask, or none does
        self.strategy.asking = self.reason is None


class SaveRound(Callback):
    """Saves the round's model when its training ends, and removes the round before's.

    Args:
        path: Of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save, then remove."""
        share_buffers(module)
        trainer.save_checkpoint(self.path, weights_only=True)
        if trainer.is_global_zero:
            for other in self.path.parent.glob("round_*.ckpt"):
                if other != self.path:
                    other.unlink()


def log_round(loggers: Iterable[Logger], row: dict[str, Any], step: int) -> None:
    """Log a round's metrics as `active/...`, on W&B against the number of labels.

    Args:
        loggers: Of the run.
        row: As in `rounds.csv`.
        step: Steps over all rounds.
    """
    metrics = {f"active/{key}": value for key, value in row.items()}
    for logger in loggers:
        if isinstance(logger, WandbLogger) and first_process():
            logger.experiment.define_metric("active/*", step_metric="active/labelled")
        logger.log_metrics(metrics, step=step)
        logger.save()


def write_tables(store: LabelStore, root: Path, class_names: Any) -> None:
    """Write `rounds.csv` and `queries.csv` from the store, each replaced as a whole.

    Args:
        store: The truth.
        root: Folder of the run.
        class_names: Of the labels; may be empty.
    """
    rows = _rows(store)
    if rows:
        _write_csv(root / "rounds.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)
    queries = [
        {
            **query._asdict(),
            "class_name": class_names[query.label] if class_names and query.label is not None else "",
        }
        for query in store.queries()
    ]
    _write_csv(root / "queries.csv", ["round", "position", "index", "label", "score", "class_name"], queries)


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    part.replace(path)


def write_picture(pool: PoolDataModule, number: int, root: Path) -> None:
    """Write a round's queried images side by side, in the order of choice.

    Args:
        pool: Where they are.
        number: Of the round; -1 for the initial labels.
        root: Folder of the run.
    """
    indices = [query.index for query in pool.queries if query.round == number][:STRIP]
    path = root / "queries" / ("initial.png" if number == INITIAL else f"round_{number:03d}.png")
    if not indices or path.exists():
        return
    assert pool.data.train_images is not None
    images = pool.data.train_images.__getitems__(indices).input  # (n, C, H, W)
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = images.permute(2, 0, 3, 1).flatten(1, 2)  # (H, n * W, C)
    Image.fromarray(strip.squeeze(2).numpy()).save(path)
