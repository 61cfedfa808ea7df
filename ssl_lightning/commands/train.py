"""The commands that train: Lightning's `fit`, `validate`, `test`, `predict`, and our `active`; bare class names."""

import copy
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.connector import _PRECISION_INPUT  # type: ignore[attr-defined]
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, _InstantiatorFn
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

# imported, their classes can be named bare
from ssl_lightning import __version__, active, backbones, data, evaluation, methods, supervised  # noqa: F401
from ssl_lightning.checkpoint import read
from ssl_lightning.commands.active import active as active_run
from ssl_lightning.commands.active import read_classes
from ssl_lightning.commands.configs import read_config
from ssl_lightning.commands.facts import fact_names, fill_in, parameters_of
from ssl_lightning.commands.launch import FOLDER, agree_on_folder
from ssl_lightning.commands.mistakes import own_mistake
from ssl_lightning.commands.parsing import ConfigFile, Parser
from ssl_lightning.commands.refusals import (
    RequireLabels,
    refusals,
    require_judged,
    require_numbers,
    require_same_optimizer,
    require_single,
)
from ssl_lightning.commands.settings import settings_of
from ssl_lightning.commands.startup import import_data, load_plugins, require_wandb, say
from ssl_lightning.commands.trial import QUIET, plan_fit
from ssl_lightning.engine.lines import ProgressLines
from ssl_lightning.engine.loggers import log_files, wandb_logger
from ssl_lightning.engine.naming import arguments, import_class
from ssl_lightning.engine.precision import AUTO, fast_precision, multiplies_bf16
from ssl_lightning.engine.processes import first_process
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.ranges import seeds
from ssl_lightning.engine.resume import SaveWhenTerminated
from ssl_lightning.labelling import human, label_studio, noise  # noqa: F401

NO_OPTIONS = {  # arguments of each command that are none
    **LightningCLI.subcommands(),
    "active": {"make_model", "make_trainer", "data", "folder", "settings"},
}


class Trainer(L.Trainer):
    """Lightning's trainer with the command `active`, and the precision `auto`."""

    active = staticmethod(active_run)

    def __init__(
        self,
        *,
        accelerator: str | Accelerator = AUTO,
        precision: _PRECISION_INPUT | Literal["auto"] | None = None,
        **kwargs: Any,
    ) -> None:
        chosen: Any = fast_precision(str(accelerator)) if precision == AUTO else precision
        super().__init__(accelerator=accelerator, precision=chosen, **kwargs)


class _Instantiator(_InstantiatorFn):
    """Lightning's, which hands on the data's facts, and notes them as hyper-parameters where there is a place."""

    cli: "CLI"

    def __call__(self, class_type: Any, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        self.cli._dump_config()
        filled = {} if self.key == "data" else self.cli.fill_in(class_type, kwargs)

        def has_place(key: str) -> bool:
            *parents, leaf = key.split(".")
            node: Any = self.cli.config_dump
            for part in parents:
                node = node.get(part) if isinstance(node, dict) else None
            if parents == ["model", "init_args"]:
                return leaf in arguments(class_type)
            return isinstance(node, dict)  # the nested object may be null

        links = {key: value for key, value in applied_instantiation_links.items() if has_place(key)}
        links |= {f"{self.key}.init_args.{name}": value for name, value in filled.items()}
        built = super().__call__(class_type, *args, applied_instantiation_links=links, **{**kwargs, **filled})
        if self.key == "data":
            if self.cli.classes:
                built.add_classes(self.cli.classes)
            self.cli.facts = dict(getattr(built, "facts", None) or {})
            self.cli.require_agreement()
        return built


class CLI(LightningCLI):
    """Adds to Lightning's: `active`, links from the data, a folder a run, `--wandb`."""

    command: str  # the one that is given: a parser of each costs a tenth of a second
    folder: Path
    predicted: Path  # the file that `predict` writes
    facts: dict[str, Any]  # of the data, once they are built
    classes: list[str]  # that people answer, beside those of the data
    learnt: dict[str, Any]  # of these, what the checkpoint that is validated, tested or predicted by says instead
    saved_groups: set[str]  # names of what the checkpoint to go on from tells of its optimizer
    saved_precision: str | None = None  # number format of that checkpoint's fit

    def __init__(self, command: str) -> None:
        self.command = command
        self.facts, self.learnt, self.saved_groups, self.classes = {}, {}, set(), []
        super().__init__(
            trainer_class=Trainer,
            parser_class=Parser,
            save_config_callback=None,  # we save it in the run's folder
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"log_every_n_steps": 10},  # small data have few steps
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the command, and its arguments that are not options."""
        return {self.command: NO_OPTIONS[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Accept no abbreviated options, since a typo could be one, and configs by their short names."""
        header = [f"lightning=={L.__version__}"]
        parser = Parser(allow_abbrev=False, **{"prog": "ssl-lightning", "dump_header": header, **kwargs})
        parser.add_argument(
            "-c",
            "--config",
            action=ConfigFile,
            help="A YAML file, or a config of the package as `method/simclr`; of several, the later prevail.",
        )
        return parser

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Let the parser above know the command's."""
        super().setup_parser(*args, **kwargs)
        parser: Any = self.parser
        parser.inner = self._subcommand_parsers[self.command]

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser: Parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)  # type: ignore[assignment]
        parser.command, parser.keys_of_others = subcommand, self._keys_of_others
        if subcommand == "active":  # a class, of which options can be given, where `active` itself would take null
            parser.set_defaults({"strategy": {"class_path": f"{active.__name__}.ByLabels"}})
        return parser

    def _keys_of_others(self) -> dict[str, set[str]]:
        """Return what the other commands take at the top of a config, for a message."""
        others = {}
        for name in NO_OPTIONS.keys() - {self.command}:
            other = copy.copy(self)
            other.command, other._subcommand_method_arguments = name, {}
            parser: Any = other._prepare_subcommand_parser(Trainer, name)
            others[name] = parser.top_keys()
        return others

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link from the data what would be typed twice; add the run's folder and W&B."""
        for name in fact_names():
            for place in ("model.init_args", "model.init_args.backbone.init_args"):
                parser.link_arguments(f"data.{name}", f"{place}.{name}", apply_on="instantiate")
        parser.add_argument(
            "--folder",
            type=str | None,
            default=None,
            help="Folder of the run: config, metrics, checkpoints. Null: runs/active for `active`, else numbered.",
        )
        if self.command == "fit":
            parser.add_argument(
                "--plan",
                action="store_true",
                help="Take some steps, say how long the fit takes here and what would be faster, and write nothing.",
            )
        parser.add_argument(
            "--wandb",
            type=Literal["off", "online", "offline"],
            default="off",
            help="Log to Weights & Biases, too; `offline` needs neither key nor network.",
        )

    def _add_instantiators(self) -> None:
        for key, kind in (("model", L.LightningModule), ("data", L.LightningDataModule)):
            self.parser.add_instantiator(_Instantiator(self, key), kind, subclasses=True)

        def build(class_type: Any, *args: Any, **kwargs: Any) -> Any:
            return class_type(*args, **{**kwargs, **self.fill_in(class_type, kwargs)})

        for part in (torch.nn.Module, active.AcquisitionStrategy):  # backbones, views, parts of strangers
            self.parser.add_instantiator(build, part, subclasses=True)

    def fill_in(self, class_type: type, given: dict[str, Any]) -> dict[str, Any]:
        """Return the facts that a class has an argument for; what is only used has the classes that it has learnt."""
        learnt = {name: value for name, value in self.learnt.items() if name in given}
        return fill_in(class_type, given, self.facts) | learnt

    def instantiate_classes(self) -> None:
        """Build all, and name the option where a class refuses an argument."""
        try:
            with refusals(self._trainer_options()):
                super().instantiate_classes()
        except Exception as error:
            mistake = own_mistake(error)  # jsonargparse buries it among the types that it tried
            if mistake is None:
                raise
            raise ValueError(self._with_option(str(mistake))) from error

    def _trainer_options(self) -> dict[str, Any]:
        return dict(vars(self._get(self.config, "trainer")))

    def _run_subcommand(self, subcommand: str) -> None:
        with refusals(self._trainer_options()):
            super()._run_subcommand(subcommand)

    def _with_option(self, message: str) -> str:
        """Write `name=value` at the beginning of a message as the option, where only one has that name and value."""
        found = re.match(r"`([\w.]+)=([^`]*)`", message)
        if found is None:
            return message
        self._dump_config()
        linked = found[1] in fact_names()  # to the model, by nobody's option
        options = [one for one in _options(self.config_dump) if not (linked and one[0].startswith("model"))]
        named = [(path, value) for path, value in options if f".{path}".endswith(f".{found[1]}")]
        told = named if len(named) == 1 else [one for one in named if found[2] in (str(one[1]), repr(one[1]))]
        return f"`--{told[0][0]}={message[found.start(2) :]}" if len(told) == 1 else message

    def require_agreement(self) -> None:
        """Refuse an option that says other than the data: the link would silently replace it.

        Raises:
            ValueError: If there is one.
        """
        for name in self.facts.keys() & set(fact_names()):
            for place in ("model", "model.backbone"):
                spec = self._get(self.config, place.replace(".", ".init_args."))
                path, given = getattr(spec, "class_path", None), getattr(spec, "init_args", None) or {}
                value = given.get(name)
                if path is None or value is None or value == self.facts[name]:
                    continue
                default = parameters_of(import_class(path)).get(name)
                if default is None or value != default.default:
                    raise ValueError(
                        f"`--{place}.{name}={value}` contradicts the data, which say {self.facts[name]}; leave it out, "
                        "or choose other data."
                    )

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it was given: Lightning would silently replace it by that of the checkpoint."""

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool):
            seeds(**{"--seed_everything": seed})
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder."""
        command = str(self.subcommand)
        require_numbers(self._trainer_options())
        if ckpt_path := self._get(self.config, "ckpt_path"):
            saved = read(ckpt_path, "ckpt_path")  # says what is wrong with it in a line
            groups = [group for state in saved.get("optimizer_states") or [] for group in state["param_groups"]]
            self.saved_groups = {str(key) for group in groups[:1] for key in group}
            if command == "fit":
                self.saved_precision = saved["ssl_lightning"].get("precision")
            classes = dict(saved["ssl_lightning"].get("facts") or {}).get("num_classes")
            if command in ("validate", "test", "predict") and isinstance(classes, int):
                self.learnt = {"num_classes": classes}
        if command == "active":
            self.classes = read_classes(self._get(self.config, "classes"))
        given = self._get(self.config, "folder") or ("runs/active" if command == "active" else None)
        given = os.environ[FOLDER] = given or agree_on_folder(command, first_process())
        self.folder = Path(given)
        self._choose_precision()
        if self.plans:
            vars(self._get(self.config, "trainer")).update(QUIET)
            return
        method = self._get(self.config, "model")
        if command == "active" and method is not None and _is_method(str(method.class_path)):
            raise ValueError(
                f"`--model={method.class_path.rpartition('.')[2]}` learns without labels, which `active` is about; "
                "pretrain it by `ssl-lightning fit`, then give `--model Classifier --model.checkpoint CHECKPOINT`."
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`--folder={given}` is a file; give a folder, which need not exist.")
        last = self.folder / "checkpoints" / "last.ckpt"
        if command == "fit" and last.exists() and not self._get(self.config, "ckpt_path") and first_process():
            raise ValueError(
                f"`folder={given}` holds a run already; add `--ckpt_path {last}` to go on with it, or give another "
                "folder."
            )

    @property
    def plans(self) -> bool:
        """Whether the fit is only timed."""
        return bool(self.command == "fit" and self._get(self.config, "plan"))

    def _choose_precision(self) -> None:
        """Take the number format that is fast here for `auto`, or that of the run that goes on."""
        trainer = self._get(self.config, "trainer")
        imitates = not multiplies_bf16(str(trainer.accelerator))
        if trainer.precision == AUTO:
            told = self.folder / "config.yaml"
            known = dict(read_config(told, str(told)).get("trainer") or {}) if told.is_file() else {}
            before = self.saved_precision or known.get("precision")
            trainer.precision = before or fast_precision(str(trainer.accelerator))
            say(f"precision: {trainer.precision}, {'as before' if before else 'the fastest here'}")
        elif "bf16" in str(trainer.precision) and imitates:
            rank_zero_warn(
                f"`--trainer.precision={trainer.precision}`: this device only imitates bf16, which took a ConvNet 6 "
                "times as long as float32 where it was measured; give `32-true`, or `auto`."
            )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Give the trainer the run's loggers, folder and checkpoints, where the config gives it none."""
        config = self._get(self.config_init, "trainer")
        callbacks = list(config.callbacks or []) if isinstance(config.callbacks, list | None) else [config.callbacks]
        callbacks += kwargs.pop("callbacks", [])
        require_single(callbacks)
        if self.subcommand in ("validate", "test"):
            callbacks.append(RequireLabels())
        saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        if self.subcommand == "active" and not saves and config.enable_checkpointing is None:
            kwargs["enable_checkpointing"] = False  # the round loop saves the model itself
        if self.subcommand == "fit" and not saves and config.enable_checkpointing is not False:
            # not `save_last`: with `save_top_k=0` Lightning saves nothing before the fit ends
            folder = self.folder / "checkpoints"
            callbacks.append(ModelCheckpoint(folder, "last", save_top_k=1, enable_version_counter=False))
            callbacks.append(SaveWhenTerminated(folder / "last.ckpt"))
        if not sys.stdout.isatty() and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            if config.enable_progress_bar is None:
                kwargs.setdefault("enable_progress_bar", False)  # a bar is none in a log
            callbacks.append(ProgressLines(to_the_end=self.subcommand == "fit"))
        if config.enable_model_summary is None:
            kwargs.setdefault("enable_model_summary", False)  # a line says what is there
        if "logger" not in kwargs:  # W&B begins a run for each that is made
            kwargs["logger"] = config.logger if config.logger not in (None, True) else self._loggers()
        kwargs.setdefault("default_root_dir", config.default_root_dir or str(self.folder))
        with refusals(self._trainer_options()):
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _loggers(self) -> list[Logger]:
        loggers: list[Logger] = [CSVLogger(self.folder, name="logs")]
        mode = self._get(self.config, "wandb")
        if mode != "off":
            logger = wandb_logger(self.folder, mode)
            require_wandb(logger)
            loggers.append(logger)
        return loggers

    def _save_config(self) -> None:
        if not first_process():
            return
        parser, config = self._parser(self.subcommand), self.config[str(self.subcommand)].clone()
        config.pop("plan", None)
        self.folder.mkdir(parents=True, exist_ok=True)
        # a run's own config is not replaced by that of its test
        name = "config.yaml" if self.subcommand in ("fit", "active") else f"{self.subcommand}.yaml"
        text = f"{_header()}{parser.dump(config, skip_none=False)}"
        (self.folder / name).write_text(text, encoding="utf-8")
        if isinstance(self.datamodule, data.DataModule) and self.subcommand in ("fit", "active"):
            self.datamodule.save(self.folder)
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._dump_config()
                logger.log_hyperparams({"config": self.config_dump})

    def before_fit(self) -> None:
        """Save the config, and say what will be lost of a class that lives nowhere."""
        if self.plans:
            return
        require_same_optimizer(self.model, self.saved_groups)
        self._save_config()
        if type(self.model).__module__ == "__main__":
            rank_zero_warn("the model's class is defined in __main__: its checkpoint cannot be opened without it.")
        say(f"model: {_size(self.model)}")
        say(f"folder: {self.folder}")

    def fit(self, **kwargs: Any) -> None:
        """Train, or say how long that takes."""
        if self.plans:
            plan_fit(self)
        else:
            self.trainer.fit(**kwargs)
            for path in self._keep_files():
                say(f"checkpoint: {path}")

    def _keep_files(self) -> list[Path]:
        """Let loggers that keep files have the model, and the table of labels where there is one; return the former."""
        checkpoints = sorted((self.folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        log_files(self.trainer.loggers, f"{self.folder.name}-model", "model", checkpoints[-1:])
        tables = [self.folder / name for name in ("queries.csv", "rounds.csv")]
        log_files(self.trainer.loggers, f"{self.folder.name}-labels", "dataset", tables)
        return checkpoints[-1:]

    before_validate = before_test = _save_config

    def after_validate(self) -> None:
        """Say where nothing was judged."""
        require_judged(self.trainer, "val", "give `--data.val_size 0.1`")

    def after_test(self) -> None:
        """Say where nothing was judged."""
        require_judged(self.trainer, "test", "give data that have one")

    def before_predict(self) -> None:
        """Choose the file, and save the config."""
        name = "predictions.csv" if isinstance(self.model, supervised.Classifier) else "embeddings.npy"
        self.predicted = self.folder / name
        if self.predicted.exists() and first_process():
            raise ValueError(f"`--folder={self.folder}` holds `{name}` already, perhaps of other data; give another.")
        self._save_config()

    def predict(self, **kwargs: Any) -> None:
        """Write `predictions.csv`, or `embeddings.npy` and its table, of all samples of the data, into the folder."""
        from ssl_lightning.commands.predict import write_found  # which needs this module

        kwargs["return_predictions"] = True
        write_found(self.predicted, self.model, self.datamodule, self.trainer.predict(**kwargs))

    def active(self, **kwargs: Any) -> None:
        """Run the rounds, each with a model, callbacks and trainer made afresh from the config."""
        del kwargs["model"]
        loggers = self.trainer.loggers

        pooled = kwargs.pop("datamodule")

        saved: list[list[str] | None] = []

        def make_model() -> L.LightningModule:
            if self.classes:
                self.classes = list(pooled.class_names)  # those that people have named since among them
            self.facts = dict(pooled.facts)
            if self.classes not in saved:
                self._save_config()  # not before the settings were found to be those of the folder's run
                saved[:] = [self.classes]
            config = self.config.clone()
            config[str(self.subcommand)]["data"] = pooled  # as it is: read once, not every round
            self.config_init = self.parser.instantiate_classes(config)
            model: L.LightningModule = self._get(self.config_init, "model")
            return model

        def make_trainer(callbacks: list[Callback]) -> L.Trainer:
            return self.instantiate_trainer(callbacks=callbacks, logger=loggers, enable_model_summary=False)

        self._dump_config()
        dump = self.config_dump
        facts = {*fact_names(), *self.facts}
        settings = {key: settings_of(dump[key], facts) for key in ("model", "strategy") if key in dump}
        settings |= {key: settings_of(dump[key]) for key in ("data", "oracle", "steps_per_epoch") if key in dump}
        for key in ("max_epochs", "max_steps", "precision"):
            settings[f"trainer.{key}"] = dump["trainer"].get(key)
        if kwargs.get("oracle") is not None and kwargs["oracle"].external:
            self.classes = self.classes or list(pooled.class_names)
        active_run(make_model, make_trainer, pooled, folder=str(self.folder), settings=settings, **kwargs)
        self._keep_files()
        say(f"folder: {self.folder}")


def _size(model: L.LightningModule) -> str:
    """Return the class of a model and of its encoder, and how many numbers are learnt."""
    learnt = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    fixed = sum(weight.numel() for weight in model.parameters()) - learnt
    encoder = f" on {type(model.backbone).__name__}" if hasattr(model, "backbone") else ""
    return f"{type(model).__name__}{encoder}, {learnt:,} parameters to learn" + (f", {fixed:,} fixed" if fixed else "")


def _is_method(path: str) -> bool:
    kind = import_class(path)
    return isinstance(kind, type) and issubclass(kind, methods.SSLMethod)


def _options(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the options that a config holds, as they are typed, without `init_args`, and their values."""
    if isinstance(node, dict) and node:
        inner = {key: prefix if key == "init_args" else f"{prefix}.{key}".removeprefix(".") for key in node}
        return [found for key, value in node.items() for found in _options(value, inner[key])]
    if isinstance(node, list) and any(isinstance(item, dict) for item in node):  # as of callbacks
        return [found for item in node for found in _options(item, prefix)]
    return [(prefix, node)]


def _header() -> str:
    """Return comments for the top of a run's config: the command, as it was given, and versions."""
    lines = shlex.join(["ssl-lightning", *sys.argv[1:]]).splitlines()
    return "".join(f"# {line}\n" for line in [*lines, f"ssl-lightning=={__version__}", f"torch=={torch.__version__}"])


def main(argv: list[str]) -> int:
    """Run one of the commands that train.

    Args:
        argv: The command and its options.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options or the data.
    """
    quieten()
    load_plugins()
    before = sys.argv
    sys.argv = [before[0], *argv]  # LightningCLI reads it, and so do the processes of a distributed run
    import_data(argv)
    try:
        CLI(argv[0])
    finally:
        sys.argv = before
    return 0
