"""The round loop: train, choose, ask, again; stopped at any instant, the same call goes on."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.active.by_labels import ByLabels
from ssl_lightning.active.callbacks import Judge, SaveRound
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.active.progress import RoundsProgress
from ssl_lightning.active.record import Record, finished_rows, log_round
from ssl_lightning.active.stopping import StablePredictions, StoppingRule, StopSet
from ssl_lightning.active.strategy import AcquisitionStrategy, choose, require_steps
from ssl_lightning.active.typicality import TypiClust
from ssl_lightning.active.waiting import alone, wait_for_answers, wait_for_first
from ssl_lightning.data.splits import tell_missing
from ssl_lightning.engine.lines import ProgressLines
from ssl_lightning.engine.processes import connect, first_process, shared
from ssl_lightning.engine.ranges import whole
from ssl_lightning.engine.seeding import derive_seed, global_seed_kept
from ssl_lightning.functional.intervals import wilson
from ssl_lightning.labelling import INITIAL, GroundTruth, LabelStore, Oracle


class Plan(NamedTuple):
    """What the store says of a round that is to be trained.

    Attributes:
        number: Of the round.
        seed: Of the run.
        asks: Whether it asks; not again if it was killed after it had, before its metrics were known.
        state: Of the strategy after the round before.
        steps: Of all rounds before.
        upto: Number of the last answer that it trains on.
    """

    number: int
    seed: int
    asks: bool
    state: dict[str, Any] | None
    steps: int
    upto: int | None


class MakeTrainer(Protocol):
    """Builds a fresh trainer with some more callbacks."""

    def __call__(self, callbacks: list[Callback]) -> L.Trainer:
        """Build it."""


def run_rounds(
    make_model: Callable[[], L.LightningModule],
    make_trainer: MakeTrainer,
    pool: PoolDataModule,
    strategy: AcquisitionStrategy | None = None,
    rounds: int = 8,
    folder: str | Path = "runs/active",
    stop: list[StoppingRule] | None = None,
    settings: dict[str, Any] | None = None,
    cold_start: AcquisitionStrategy | None = None,
    wait: bool = True,
    cache: str | Path = "auto",
) -> list[dict[str, Any]]:
    """Run active learning: each round trains a fresh model on what is labelled, then labels what the strategy wants.

    Trains `rounds + 1` models; the last asks for nothing. Where answers come later, as from people, each round waits
    for those to the last query; what comes later still counts in the round after. Each round is seeded by the run's
    seed and its number alone, so a run that was stopped at any instant goes on by the same call, to the same picks as
    one that was not. In the folder are `labels.sqlite` (the truth), `rounds.csv` and `queries.csv` (written from it
    after each round), `queries/*`, what was asked for as a person sees it, and the last model,
    `checkpoints/round_*.ckpt`.

    Args:
        make_model: Builds a fresh model; called once a round, after seeding.
        make_trainer: Builds a fresh trainer with the callbacks it is given; all of them may share one logger.
        pool: Samples, labels and who answers. Without a store of its own, it gets `labels.sqlite` in the folder.
        strategy: Chooses the queries; null for `ByLabels`, which begins with what is typical.
        rounds: How often to ask.
        folder: Of the run; the same folder and settings go on with it.
        stop: When to end before all rounds: `Budget`, `TargetAccuracy`, `NoGain`, `StablePredictions`.
        settings: More settings that must not change when the run goes on.
        cold_start: Chooses the initial labels by the first model's embeddings; null for a random choice, but for
            `TypiClust` where people are asked and the model is pretrained.
        wait: Wait for answers that come later; else return, and go on when called again.
        cache: Folder for the embeddings of a frozen encoder, which several runs can share; `auto` for `embeddings` in
            the run's; `off` to encode every time.

    Returns:
        One row a finished round, as in `rounds.csv`.

    Raises:
        ValueError: If the settings are impossible, or are not those the folder's run began with.
    """
    strategy = ByLabels() if strategy is None else strategy
    run = ActiveRun(make_model, make_trainer, pool, strategy, rounds, Path(folder), stop or [], settings or {})
    run.cold_start, run.wait = cold_start, wait
    pool.embeddings.off = str(cache) == "off"
    pool.embeddings.keep_in(
        None if pool.embeddings.off else run.folder / "embeddings" if cache == "auto" else Path(cache)
    )
    return run.run()


class ActiveRun:
    """One run of active learning: trains, judges, asks and records, round by round.

    Args:
        make_model: As for `run_rounds`, likewise the others.
        make_trainer: Builds a fresh trainer.
        pool: Samples and labels.
        strategy: Chooses the queries.
        rounds: How often to ask.
        folder: Of the run.
        stop: Rules to end by.
        settings: More settings that must not change.

    Raises:
        ValueError: If `rounds` is negative, the pool, the strategy or a rule is none, or the folder cannot be made.
    """

    def __init__(
        self,
        make_model: Callable[[], L.LightningModule],
        make_trainer: MakeTrainer,
        pool: PoolDataModule,
        strategy: AcquisitionStrategy,
        rounds: int,
        folder: Path,
        stop: list[StoppingRule],
        settings: dict[str, Any],
    ) -> None:
        whole(0, rounds=rounds)
        _require_parts(pool, strategy, stop)
        _make(folder)
        self.make_model, self.make_trainer, self.pool, self.strategy = make_model, make_trainer, pool, strategy
        self.rounds, self.folder, self.rules = rounds, folder, stop
        if pool.store.in_memory:
            pool.store = LabelStore(f"sqlite:///{folder.resolve() / 'labels.sqlite'}")
        if not pool.seed_chosen:  # go on with the run's own
            pool.seed = int(pool.store.settings().get("seed", pool.seed))
        self.settings = {
            "strategy": type(strategy).__name__,
            "query_size": strategy.query_size,
            "initial": pool.initial,
            "balanced": pool.balanced,
            "seed": pool.seed,
            "data": type(pool.data).__name__,
            "test_share": pool.shares.test,
            "val_share": pool.shares.val,
            **settings,
        }
        pool.settings = self.settings
        self.record = Record(folder, pool)
        self.cold_start: AcquisitionStrategy | None = None
        self.wait = True
        pool.folder = folder
        self.row: dict[str, Any] = {}  # of the round that is judged
        self.reason: str | None = None
        self._judged = -1

    def run(self) -> list[dict[str, Any]]:
        """Run all rounds that are not done yet, or as far as there are answers where it should not wait."""
        with alone(self.folder) if first_process() else nullcontext():
            self._prepare()
            start = self._first_open()
            if start > 0:
                _say(f"`{self.folder}`: {start} of {self.rounds + 1} models are trained; going on from there.")
            progress = RoundsProgress(self.rounds + 1, start)
            self.pool.may_ask = lambda trainer, module: self.judge(trainer, module) is None
            try:
                if first_process() and start <= self.rounds:
                    self.pool.store.finish(False)
                    self.pool.oracle.open(self.folder, self.pool.store.url)
                with global_seed_kept():
                    done = self._rounds(start, progress)
            finally:
                self.pool.may_ask = None
                progress.stop()
                self.pool.oracle.close()
            if first_process():
                self.record.write_tables()
                if done:
                    self._tell_unlearnt()
                    self.pool.store.finish()
            return shared(lambda: finished_rows(self.pool.store))

    def _tell_unlearnt(self) -> None:
        """Say which classes people may name and nobody has, or only to test: the model knows nothing of them."""
        if self.pool.oracle.external:
            targets = torch.tensor([target for _, target in self.pool.known()], dtype=torch.int64)
            names = self.pool.data.class_names
            tell_missing(targets, names, "training", "label some, or no prediction of theirs means anything")

    def _rounds(self, number: int, progress: RoundsProgress) -> bool:
        """Run rounds from one on; return whether all are done, or must be left to wait for answers."""
        while number <= self.rounds:
            if not self._answered(number, progress):
                counts, store = self.pool.store.counts(), self.pool.store
                page = f"ssl-lightning label {self.folder}"
                if store.url != f"sqlite:///{self.folder.resolve() / 'labels.sqlite'}":
                    page += f" --store {store.named}"
                left = (
                    f"{counts['pending']} answers are pending" if counts["pending"] else "no answer can be trained on"
                )
                _say(f"{left}: answer at the page (`{page}`), then the same command again goes on.")
                return False
            if reason := self._round(number, progress):
                _say(f"stopped after round {self.pool.round}: {reason}.")
                break
            number = self.pool.round + 1
        return True

    def _answered(self, number: int, progress: RoundsProgress) -> bool:
        """Wait until a round can begin, and note which answers it is trained on."""
        pool, store = self.pool, self.pool.store
        if not first_process():
            begins = not pool.oracle.external or wait_for_first(store, number, self.wait)
            pool.data.add_classes(pool.known_classes())
            return begins
        if INITIAL not in store.rounds():
            self._ask_initial(progress)
        if not wait_for_answers(pool, number, progress, self.wait):
            return False
        store.begin(number)
        pool.data.add_classes(pool.known_classes())
        return True

    def _ask_initial(self, progress: RoundsProgress) -> None:
        """Ask for the labels to begin with, in the first process alone: the others wait for it by the store."""
        pool = self.pool
        if not pool.oracle.external and self.cold_start is None:
            pool.ask_initial()
            return
        pool.round = INITIAL
        L.seed_everything(derive_seed(pool.seed, "cold start"), workers=True, verbose=False)
        model = self.make_model()
        strategy = self.cold_start
        if strategy is None and getattr(model.hparams, "checkpoint", None) and not pool.balanced:
            strategy = TypiClust(max(1, pool.initial))
        if strategy is None or not pool.initial:
            pool.ask_initial()
            return
        if strategy.needs_fit:
            raise ValueError(
                f"`cold_start={type(strategy).__name__}` chooses by what it learns during a fit, and there was none "
                "yet; give one that looks at embeddings, such as `TypiClust`."
            )
        trainer = self._trainer(progress, [])
        if getattr(model, "clean", pool) is None:
            model.clean = pool.clean()
        name = type(strategy).__name__
        _say(f"the first {pool.initial} samples are chosen by `{name}` on the embeddings of the model as it is.")
        pool.synchronise()
        pool.ask_initial(lambda count: choose(strategy, count, trainer, model, pool), name)

    def _prepare(self) -> None:
        """Load the data, and check that the settings are possible, and those of the folder's run."""
        pool, store = self.pool, self.pool.store
        pool.data.prepare_data()
        pool.data.setup("fit")
        if pool.oracle.external:
            self.record.compare_classes()
            pool.name_classes()
        for rule in self.rules:
            rule.check(pool)
        size, query = len(pool.indices), self.strategy.query_size
        total = pool.initial + self.rounds * query
        need = total - round(total * pool.shares.test) - round(total * pool.shares.val)
        if pool.shares.any and query < 2:
            raise ValueError(
                f"`query_size={query}` leaves no room for `test_share` and `val_share`; give at least 2, or no share."
            )
        if need > size:
            less = f" (of them {need} to train on)" if pool.shares.any else ""
            apart = ", the others being set apart to test or validate" if pool.shares.any else ""
            raise ValueError(
                f"`initial={pool.initial}` + `rounds={self.rounds}` x `query_size={query}` = "
                f"{pool.initial + self.rounds * query} labels{less} exceed the {size} samples of the pool{apart}; "
                "lower `rounds`, `query_size` of the strategy, or `initial`."
            )
        if not first_process():
            return
        self._note_shares()
        store.require_settings(self.settings)
        if not store.settings() and isinstance(pool.oracle, GroundTruth):
            store.forget(pool.oracle.name)  # a run that failed before its first model was trained
        pool.data.setup("test")
        self.record.compare_samples()
        self.record.describe(self.strategy)

    def _note_shares(self) -> None:
        """Keep the shares from the first query on: what was asked for to test would else be lost."""
        store, shares = self.pool.store, [self.pool.shares.test, self.pool.shares.val]
        known = store.marked("shares")
        if known is not None and known != shares and store.rounds():
            raise ValueError(
                f"`test_share={shares[0]}` and `val_share={shares[1]}` differ from {known[0]} and {known[1]} of the "
                f"run in `{store.named}`; give the same to go on with it, or another `folder` for a new run."
            )
        store.mark("shares", shares)

    def _first_open(self) -> int:
        known, rows = self.pool.store.rounds(), finished_rows(self.pool.store)
        for number in range(self.rounds + 1):
            record = known.get(number)
            if record is None or record.metrics is None:
                return number
            if number < self.rounds and not record.strategy:
                done = why(self.rules, rows[: number + 1], self.strategy.query_size)
                return self.rounds + 1 if done else number
        return self.rounds + 1

    def judge(self, trainer: L.Trainer, module: L.LightningModule) -> str | None:
        """Gather a round's numbers when its model is trained, and say whether a rule stops the run; once a round.

        Returns:
            Why to stop, or null; the same in every process.
        """
        pool = self.pool
        if self._judged == pool.round:
            return self.reason
        self._judged = pool.round
        self.row = {
            "round": pool.round,
            "labelled": len(pool.labelled),
            "validation": pool.validation_size,
            "queried": 0,
            "seconds": 0.0,
            "steps": trainer.global_step,
            **{key: float(value) for key, value in trainer.callback_metrics.items() if value.isfinite()},
        }
        if pool.shares.any:
            self.row["answers"] = sum(query.label is not None for query in pool.queries if query.round < pool.round)
        if type(pool.oracle).cost is not Oracle.cost:
            self.row["cost"] = pool.cost
        if any(isinstance(rule, StablePredictions) for rule in self.rules):
            self.row["agreement"] = StopSet(self.folder / "stop_set").agreement(trainer, module)
        reason: str | None = None
        if pool.round < self.rounds and trainer.is_global_zero:
            before = [row for row in finished_rows(pool.store) if row["round"] < pool.round]
            reason = why(self.rules, [*before, self.row], self.strategy.query_size)
        self.reason = trainer.strategy.broadcast(reason)  # all processes ask, or none does
        return self.reason

    def _round(self, number: int, progress: RoundsProgress) -> str | None:
        """Train, judge, ask, test and record; return why to stop, or null."""
        pool, store, begun = self.pool, self.pool.store, time.perf_counter()
        self.reason, self._judged = None, -1
        plan = shared(lambda: self._plan(number))
        model, trainer = self._make(plan, progress)
        # once connected, all go by the first process's store, the only one that is written
        if connect(trainer) and plan != (known := shared(lambda: plan)):
            plan, (model, trainer) = known, self._make(known, progress)
        trainer.fit(model, datamodule=pool)
        if trainer.interrupted:
            raise KeyboardInterrupt
        steps = trainer.global_step
        if not steps:
            raise ValueError(
                f"round {plan.number} ended before its first step, and a round asks by the model that it has trained; "
                "give the trainer more time (`--trainer.max_time`), or mend what stops it."
            )
        if trainer.is_global_zero and not store.settings():
            store.pin(self.settings)
        if (count := pool.test_size) and trainer.limit_test_batches:
            self.row.update(trainer.test(model, datamodule=pool, verbose=False)[0])
            if (pool.shares.any or pool.oracle.external) and trainer.limit_test_batches == 1.0:
                self.row.update(self._interval(count))
        queried = sum(query.round == plan.number for query in pool.queries)
        self.row.update({"queried": queried, "seconds": round(time.perf_counter() - begun, 3), "steps": steps})
        if trainer.is_global_zero:
            store.add_metrics(plan.number, self.row)
            self.record.write(plan.number)
        trainer.strategy.barrier("round")  # nobody reads the store before it is written
        log_round(trainer.loggers, self.row, plan.steps + steps, self.record)
        self._tell(plan.number, queried, progress, trainer)
        return self.reason

    def _plan(self, number: int) -> Plan:
        """Read what a round begins with."""
        rounds, rows = self.pool.store.rounds(), finished_rows(self.pool.store)
        record, before = rounds.get(number), rounds.get(number - 1)
        asks = number < self.rounds and not (record and record.strategy)
        steps = sum(row["steps"] for row in rows if row["round"] < number)
        return Plan(number, self.pool.seed, asks, before and before.state, steps, record and record.upto)

    def _make(self, plan: Plan, progress: RoundsProgress) -> tuple[L.LightningModule, L.Trainer]:
        """Make a round's model and trainer, and get pool and strategy ready."""
        self.pool.round, self.pool.seed, self.pool.upto = plan.number, plan.seed, plan.upto
        L.seed_everything(derive_seed(plan.seed, "round", plan.number), workers=True, verbose=False)
        model = self.make_model()
        if plan.state is not None:
            self.strategy.load_state_dict(plan.state)
        saver = SaveRound(self.folder / "checkpoints" / f"round_{plan.number:03d}.ckpt")
        trainer = self._trainer(progress, [saver, Judge(self), *([self.strategy] if plan.asks else [])])
        trainer.fit_loop.epoch_loop._batches_that_stepped = plan.steps  # loggers count steps over all rounds
        return model, trainer

    def _trainer(self, progress: RoundsProgress, callbacks: list[Callback]) -> L.Trainer:
        """Make a round's trainer, which shows how far it is: by bars, or by lines where nobody sees a bar."""
        trainer = self.make_trainer([progress, *callbacks])
        has: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if progress not in has:
            raise ValueError(
                "`make_trainer` returned a trainer without the callbacks that it was given; write "
                "`lambda more: L.Trainer(callbacks=[*more], ...)`."
            )
        require_steps(trainer)
        lines = any(isinstance(callback, ProgressLines) for callback in has)
        if progress.replaces_bar(trainer) and not progress.has_terminal and not lines:
            has.append(ProgressLines(to_the_end=False))
        return trainer

    def _interval(self, count: int) -> dict[str, Any]:
        """Return how sure an accuracy is that was found on the answers set apart for it."""
        accuracy = self.row.get("test/accuracy")
        if accuracy is None:
            return {}
        low, high = wilson(accuracy, count)
        return {"test/count": count, "test/accuracy_low": low, "test/accuracy_high": high}

    def _tell(self, number: int, queried: int, progress: RoundsProgress, trainer: L.Trainer) -> None:
        accuracy = self.row.get("test/accuracy")
        result = "" if accuracy is None else f"  test/accuracy {accuracy:.4f}"
        if "test/count" in self.row:
            low, high = self.row["test/accuracy_low"], self.row["test/accuracy_high"]
            result += f" (95 %: {low:.3f} to {high:.3f}, of {self.row['test/count']})"
        asked = f"  asked {queried} by {self.strategy.chooser}" if queried else ""
        if trainer.is_global_zero:
            progress.finish_round(
                f"round {number}: {self.row['labelled']} labels{result}{asked}  ({self.row['seconds']:.1f} s)"
            )


def why(rules: list[StoppingRule], rows: list[dict[str, Any]], query_size: int) -> str | None:
    """Return the first rule's reason to stop, or null."""
    return next((reason for rule in rules if (reason := rule.reason(rows, query_size))), None)


def _require_parts(pool: Any, strategy: Any, stop: Any) -> None:
    if not isinstance(pool, PoolDataModule):
        raise ValueError(f"`pool={type(pool).__name__}` is no pool; pass `PoolDataModule(data)`.")
    if not isinstance(strategy, AcquisitionStrategy):
        raise ValueError(f"`strategy={strategy!r:.80}` must be a strategy that is built, such as `Entropy()`.")
    if not isinstance(stop, list | tuple) or not all(isinstance(rule, StoppingRule) for rule in stop):
        raise ValueError(f"`stop={stop!r:.80}` must be a list of stopping rules, such as `[Budget(100)]`, or null.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`folder={folder}` cannot be made ({error.strerror}); give a folder in a place that you can write to."
        ) from error


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
