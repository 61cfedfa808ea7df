"""The steps of `start` as configs of `fit` and `active`."""

from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.commands.look import Found
from ssl_lightning.commands.start_plan import CHOICES, WARMUP, Plan, spec

PRETRAIN, ACTIVE, TRAIN = "1-pretrain.yaml", "2-active.yaml", "3-train.yaml"
COMMANDS = {PRETRAIN: "fit", ACTIVE: "active", TRAIN: "fit"}


class Steps:
    """Makes the configs of a run.

    Args:
        folder: Of the run.
        found: What the data are.
        pool: Samples to pretrain on.
        options: Of the command.
        gpu: Whether to train on a GPU.
    """

    def __init__(self, folder: Path, found: Found, pool: int, options: Any, gpu: bool = False) -> None:
        self.folder, self.found, self.pool, self.options = folder, found, pool, options
        self.choice = CHOICES[found.kind]
        self.gpu = gpu

    def data(self, **more: Any) -> dict[str, Any]:
        """Return the data as all steps have them; parts never change between steps."""
        init = {**self.found.data["init_args"], "val_size": 0, **more}
        return {"class_path": self.found.data["class_path"], "init_args": init}

    def trainer(self, epochs: int) -> dict[str, Any]:
        """Return what trains."""
        device = "gpu" if self.gpu else "cpu"
        return {"max_epochs": epochs, "accelerator": device, "devices": 1, "precision": "auto"}

    def backbone(self) -> dict[str, Any]:
        """Return the encoder."""
        return (self.choice.gpu_backbone if self.gpu else None) or self.choice.backbone

    def _base(self, name: str) -> dict[str, Any]:
        return {"seed_everything": self.options.seed, "folder": str(self.folder / name)}

    def pretrain(self, plan: Plan) -> dict[str, Any]:
        """Return the config of pretraining."""
        epochs, steps = plan.pretrain
        choice = self.choice
        gray = self.found.data["init_args"].get("channels") == 1
        views = choice.gray_views if gray else choice.views
        model = spec(
            "SimCLR", backbone=self.backbone(), **({"views": views} if views else {}), temperature=choice.temperature,
            optimizer={"name": "adamw", "lr": choice.lr, "warmup": WARMUP},
        )  # fmt: skip
        data = self.data(batch_size=min(choice.batch, self.pool), steps_per_epoch=steps)
        return {**self._base("pretrain"), "data": data, "model": model, "trainer": self.trainer(epochs)}

    @property
    def checkpoint(self) -> str:
        """The pretrained encoder."""
        return str(self.folder / "pretrain" / "checkpoints" / "last.ckpt")

    def active(self, plan: Plan) -> dict[str, Any]:
        """Return the config of the queries: each round fits a head on the frozen encoder, within seconds."""
        people = self.options.oracle == "Human"
        config: dict[str, Any] = {
            **self._base("active"), "initial": plan.initial, "rounds": plan.rounds, "steps_per_epoch": 1,
            "strategy": spec("ByLabels", query_size=plan.query_size), "cold_start": spec("TypiClust"),
        }  # fmt: skip
        if people:
            config["oracle"] = "Human"
            config |= {"classes": self.options.classes} if self.options.classes else {}
            config |= {} if self.options.test_share is None else {"test_share": self.options.test_share}
        model = spec("Classifier", checkpoint=self.checkpoint, freeze=True)
        data = self.data(batch_size=min(self.choice.batch, self.pool))
        return {**config, "data": data, "model": model, "trainer": self.trainer(1)}

    def train(self, plan: Plan, pretrained: bool = True, labels: str | None = None) -> dict[str, Any]:
        """Return the config of the last training, from the pretrained weights or from scratch."""
        epochs, steps = plan.train
        choice = self.choice
        begin = {"checkpoint": self.checkpoint} if pretrained else {"backbone": self.backbone()}
        lr = choice.train_lr if pretrained else choice.lr
        optimizer = {"name": "adamw", "lr": lr, "weight_decay": 0.01, "warmup": WARMUP}
        model = spec(choice.classifier, **begin, **choice.classifier_options, optimizer=optimizer)
        data = spec(
            "LabelledBy", data=self.data(), labels=labels or str(self.folder / "labels.csv"), val_size=0,
            batch_size=choice.train_batch, steps_per_epoch=steps,
        )  # fmt: skip
        return {**self._base("train"), "data": data, "model": model, "trainer": self.trainer(epochs)}

    def trial(self, config: dict[str, Any], file: Path, seconds: float) -> dict[str, Any]:
        """Return the config of a trial of another one."""
        clock = spec("ssl_lightning.engine.clock.StepClock", seconds=seconds, file=str(file))
        trainer = {**config["trainer"], "callbacks": [clock], "logger": False, "enable_checkpointing": False}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        return {**config, "folder": str(file.parent), "trainer": {**trainer, **quiet}}


def as_text(folder: Path, name: str, config: dict[str, Any]) -> str:
    """Return a config as it is written, with its command in the first line."""
    head = f"# ssl-lightning {COMMANDS.get(name, 'fit')} -c {folder / name}\n"
    return head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
