"""Every method, classifier and strategy for a few steps on one device, in one process; see gpu_smoke.sh.

    PYTHONPATH=. python scripts/gpu_smoke.py --accelerator gpu

In float32 and bf16; some with the encoder compiled. On a GPU, float32 is also compared with the CPU: the loss of the
first step, from the same weights and views, is to agree to a thousandth.
"""

import argparse
import logging
import math
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import every_modality
from every_method import METHODS, PATCHES, concrete, digits_for, make

from ssl_lightning.active import AcquisitionStrategy, PoolDataModule
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.evaluation import KNN, CollapseMonitor, OnlineLinearProbe
from ssl_lightning.methods import BYOL
from ssl_lightning.supervised import Classifier

COMPILED = ("SimCLR", "BYOL", "SimMIM")


class Losses(L.Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *args: Any) -> None:
        """Keep it."""
        self.found.append(float(outputs["loss"]))


def fit(build: Callable[[], Any], data: Any, accelerator: str, precision: str = "32-true", **options: Any) -> float:
    """Take three steps, and return the loss of the first.

    Raises:
        RuntimeError: If a loss is not finite.
    """
    L.seed_everything(0, verbose=False)
    losses = Losses()
    trainer = L.Trainer(
        max_steps=3, accelerator=accelerator, devices=1, precision=precision, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tempfile.gettempdir(),
        callbacks=[losses, *options.get("callbacks", [])],
    )  # fmt: skip
    trainer.fit(build(), datamodule=data)
    if not losses.found or not all(map(math.isfinite, losses.found)):
        raise RuntimeError(f"the losses are {losses.found}.")
    return losses.found[0]


def compiled(build: Callable[[], Any]) -> Any:
    """Return what is built, its encoder compiled."""
    model = build()
    model.backbone.compile()
    return model


def on_device(build: Callable[[], Any], data: Callable[[], Any], accelerator: str) -> None:
    """Fit in float32, compare with the CPU, and fit in bf16."""
    first = fit(build, data(), accelerator)
    if accelerator != "cpu":
        alone = fit(build, data(), "cpu")
        if abs(first - alone) > 1e-3 * abs(alone):
            raise RuntimeError(f"the first loss is {first}, and {alone} on the CPU.")
    fit(build, data(), accelerator, "bf16-mixed")


def parts(accelerator: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return all parts by name."""
    found: dict[str, Callable[[], Any]] = {}
    for kind in METHODS:
        make_data = lambda kind=kind: digits_for(kind, batch_size=64, limit=400)  # noqa: E731
        found[kind.__name__] = lambda kind=kind, data=make_data: on_device(lambda: make(kind), data, accelerator)
        if kind.__name__ in COMPILED:
            found[f"{kind.__name__} compiled"] = lambda kind=kind, data=make_data: fit(
                lambda: compiled(lambda: make(kind)), data(), accelerator, "bf16-mixed"
            )
    for name in every_modality.MODALITIES:
        path = every_modality.write(name, folder / name)
        load = lambda name=name, path=path: every_modality.MODALITIES[name].data(path, batch_size=16)  # noqa: E731
        found[f"BYOL on {name}"] = lambda name=name, load=load: on_device(
            lambda: BYOL(every_modality.MODALITIES[name].backbone(load().facts)), load, accelerator
        )
        found[f"Classifier on {name}"] = lambda name=name, load=load: on_device(
            lambda: every_modality.classifier(name, load()), load, accelerator
        )
    pool = lambda: PoolDataModule(Digits(batch_size=16, limit=300), initial=40, steps_per_epoch=5)  # noqa: E731
    for other in [Classifier, *concrete(Classifier)]:  # type: ignore[type-abstract,arg-type]
        found[other.__name__] = lambda other=other: on_device(
            lambda: other(10, backbone=ConvNet(width=4), dropout=0.3), pool, accelerator
        )
    for strategy in concrete(AcquisitionStrategy):  # type: ignore[type-abstract,arg-type]
        found[strategy.__name__] = lambda strategy=strategy: ask(strategy, pool(), accelerator)
    found["what watches"] = lambda: fit(
        lambda: make(METHODS[0]), Digits(batch_size=64), accelerator,
        callbacks=[KNN(), OnlineLinearProbe(), CollapseMonitor()] if METHODS[0] not in PATCHES else [],
    )  # fmt: skip
    return found


def ask(kind: Any, pool: PoolDataModule, accelerator: str) -> None:
    """Fit, and let a strategy choose.

    Raises:
        RuntimeError: If it did not ask.
    """
    fit(
        lambda: Classifier(10, ConvNet(width=4), dropout=0.5), pool, accelerator, "bf16-mixed",
        callbacks=[kind(query_size=5)],
    )  # fmt: skip
    if len(pool.asked(0)) != 5:
        raise RuntimeError(f"it asked for {len(pool.asked(0))} samples.")


def main() -> int:
    """Run all parts, print a line for each, and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="gpu")
    accelerator = parser.parse_args().accelerator
    quieten()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        everything = parts(accelerator, Path(folder))
        for name, part in everything.items():
            begun = time.monotonic()
            try:
                part()
            except Exception:  # one part stops no other
                failed.append(name)
                print(f"FAILED  {name}\n{traceback.format_exc()[-1500:]}", flush=True)
            else:
                print(f"ok      {name}  {time.monotonic() - begun:.1f} s", flush=True)
    print(f"{len(everything) - len(failed)} passed, {len(failed)} failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
