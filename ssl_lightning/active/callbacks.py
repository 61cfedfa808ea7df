"""What the round loop adds to each round's trainer: it judges the model when it is trained, and saves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lightning.active.stopping import MetricRule
from ssl_lightning.engine.processes import share_buffers
from ssl_lightning.evaluation.watcher import Watcher

if TYPE_CHECKING:
    from ssl_lightning.active.rounds import ActiveRun


class Judge(Callback):
    """Judges a round at the end of fit, also where no strategy asks; whichever of the two comes first does it.

    Args:
        run: Whose round.
    """

    def __init__(self, run: ActiveRun) -> None:
        self.run = run

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a stopping rule's metric that the model does not log, before it is trained.

        Of a stranger's model or callback, nobody knows what it will log later.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        packages = {type(part).__module__.partition(".")[0] for part in (pl_module, *callbacks)}
        if packages <= {"ssl_lightning", "lightning"} and not any(isinstance(part, Watcher) for part in callbacks):
            for rule in self.run.rules:
                if isinstance(rule, MetricRule):
                    rule.check_logged(trainer.callback_metrics)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge."""
        self.run.judge(trainer, pl_module)


class SaveRound(Callback):
    """Saves the round's model when its fit ends, and removes the round before's.

    Args:
        path: Of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, then remove; not before averaged weights have taken the place of the others, at the end of training."""
        share_buffers(pl_module)
        trainer.save_checkpoint(self.path, weights_only=True)
        if trainer.is_global_zero:
            for other in self.path.parent.glob("round_*.ckpt"):
                if other != self.path:
                    other.unlink()
