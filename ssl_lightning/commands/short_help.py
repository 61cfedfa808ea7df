"""`ssl-lightning fit --help` and its like on a page, before torch is imported; `--help all` is the parser's own."""

import textwrap
from collections.abc import Iterable

from ssl_lightning.commands.catalogue import entries
from ssl_lightning.commands.mistakes import COMMANDS

WIDTH = 100
COLUMN = 26
_EXAMPLES = {
    "fit": ["-c experiment/digits_pretrain", "--data Digits --model SimCLR --model.backbone ConvNet"],
    "validate": ["-c runs/mine/config.yaml --ckpt_path runs/mine/checkpoints/last.ckpt"],
    "test": ["-c runs/mine/config.yaml --ckpt_path runs/mine/checkpoints/last.ckpt"],
    "active": ["-c experiment/digits_active", "-c experiment/digits_active --strategy Margin --rounds 5"],
}
_WHAT = {  # tests/commands/test_glance.py compares the names with the parsers' options
    "config": ("-c, --config FILE", "a YAML file, or a config of the package, as `method/simclr`; the later prevail"),
    "data": ("--data CLASS", "{data}"),
    "model": ("--model CLASS", "{model}"),
    "strategy": ("--strategy CLASS", "which samples to ask for (ByLabels): {strategies}"),
    "trainer": (
        "--trainer.OPTION",
        "Lightning's: max_epochs, max_steps, devices, precision (`auto`), ...",
    ),
    "folder": (
        "--folder FOLDER",
        "of the run: config, metrics, checkpoints; new ones are numbered (active: runs/active)",
    ),
    "seed_everything": ("--seed_everything N", "seed of all that is drawn (0)"),
    "ckpt_path": ("--ckpt_path FILE", "go on with, or judge, what a checkpoint holds"),
    "weights_only": ("--weights_only true", "refuse a checkpoint that holds more than numbers and text"),
    "plan": ("--plan", "take some steps, say how long the fit takes here and what would be faster"),
    "wandb": ("--wandb online", "log to Weights & Biases, too: off, offline, online"),
    "verbose": ("--verbose false", "print no table of what was measured"),
    "rounds": ("--rounds N", "how often to ask (8)"),
    "initial": ("--initial N", "labels to begin with (20)"),
    "balanced": ("--balanced true", "draw these evenly over the classes, which needs to know them"),
    "steps_per_epoch": ("--steps_per_epoch N", "training steps an epoch of each round (50)"),
    "oracle": (
        "--oracle CLASS",
        "who answers: GroundTruth (the default), NoisyTruth, Human, LabelStudio",
    ),
    "classes": ("--classes NAMES", "that people may answer: `cat,dog`, or a file"),
    "store": ("--store URL", "where labels are kept; the run's folder, else a database"),
    "stop": ("--stop RULES", "when to end before all rounds: {stopping}"),
    "cold_start": (
        "--cold_start CLASS",
        "strategy of the first labels; else random, or TypiClust where people are asked",
    ),
    "test_share": ("--test_share X", "share of each query that tests instead of training"),
    "val_share": ("--val_share X", "share of each query that validates"),
    "wait": ("--wait false", "ask and end; the same command goes on when there are answers"),
    "cache": ("--cache FOLDER", "where embeddings of a frozen encoder are kept (auto), or `off`"),
    "print_config": ("--print_config", "print all settings as a config, and end"),
}


def short_help(command: str, options: Iterable[str]) -> str:
    """Return a page of help.

    Args:
        command: `fit`, `validate`, `test` or `active`.
        options: Of the command, by their first names.

    Example:
        >>> short_help("fit", ["config", "plan"]).splitlines()[0]
        'usage: ssl-lightning fit -c CONFIG [options]'
    """
    lines = [f"usage: ssl-lightning {command} -c CONFIG [options]", "", COMMANDS[command], ""]
    lines += [f"  ssl-lightning {command} {given}" for given in _EXAMPLES[command]]
    lines.append("")
    lists = {kind: ", ".join(_names(kind)) for kind in ("data", "methods", "classifiers", "strategies", "stopping")}
    models = f"classifiers: {lists['classifiers']}"
    lists["model"] = models if command == "active" else f"methods: {lists['methods']}; {models}"
    known = set(options)
    for name, (option, meaning) in _WHAT.items():
        if name in known:
            body = textwrap.wrap(meaning.format(**lists), WIDTH - COLUMN, break_on_hyphens=False)
            lines += [f"  {option:<{COLUMN - 2}}{body[0]}", *(" " * COLUMN + line for line in body[1:])]
    lines += [
        "",
        "An option of a class: --model.temperature 0.2, --data.root photographs, --strategy.query_size 20.",
        f"Of one class, all of them: ssl-lightning {command} --model.help SimCLR (--data.help, --strategy.help).",
        "More callbacks: --trainer.callbacks+=KNN --trainer.callbacks.k 20.",
        f"All options, Lightning's among them: ssl-lightning {command} --help all.",
    ]
    return "\n".join(lines)


def _names(kind: str) -> list[str]:
    return [entry.name for entry in entries() if entry.kind == kind]
