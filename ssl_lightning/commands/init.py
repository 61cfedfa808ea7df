"""The command `init`: looks at a folder, says what is in it, and writes configs for it that run as they are."""

import argparse
import contextlib
import io
import json
import re
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from ssl_lightning.commands.look import Found, look
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.start_plan import LEAST_STEPS, RESERVE, TEST_SIZE, Plan, divide_labels, in_epochs
from ssl_lightning.commands.startup import load_plugins, say
from ssl_lightning.commands.steps import Steps
from ssl_lightning.data import DataModule
from ssl_lightning.data.listing import printable
from ssl_lightning.engine.csv_files import replacing
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.ranges import above, seeds, whole

LOOKS = 500  # pictures whose size is looked at
SHOWN = 12  # classes that are named
TRIAL = 12.0  # seconds of steps at most, to know how long one takes
JUDGES = ("KNN", "CollapseMonitor")  # where there are labels to judge by, and always
WORDS = {  # what a line of a config is about
    "seed_everything": "of weights, order and views: the same seed, the same run",
    "folder": "of the run: config, metrics, checkpoints",
    "data": "what is learnt from; `ssl-lightning fit --data.help {data}` tells all options",
    "image_size": "px: larger shows more and takes longer, by the square",
    "channels": "1 is gray, 3 is colour",
    "skip_corrupt": "leave unreadable files out and count them, instead of stopping at the first",
    "test_size": "fraction of the labelled samples that only test; null where folders say which",
    "val_size": "fraction of the labelled samples that `KNN` judges by; nothing is learnt from them",
    "batch_size": "samples a step: more are better for a contrastive loss, and slower",
    "steps_per_epoch": "so that an epoch, after which a stopped run goes on, takes about half a minute",
    "model": "how it is learnt; `ssl-lightning list methods` tells the others",
    "backbone": "the encoder; `ssl-lightning list backbones` tells the others",
    "views": "what may change of a sample that stays what it is: a mirrored 2 is no digit, so `flip: 0.0`",
    "temperature": "of the loss: lower looks at the most similar others more",
    "lr": "learning rate; lower it if the loss becomes nan",
    "max_epochs": "as many as fit into {minutes:g} minutes here; twice as many are a little better",
    "precision": "bf16 where the hardware multiplies it, else float32",
    "accelerator": "device: cpu, gpu",
    "callbacks": "what is logged beside the loss",
    "initial": "labels to begin with, chosen by `cold_start`",
    "rounds": "how often to ask",
    "query_size": "labels a round; {labels} in all",
    "oracle": "`Human` opens a page where you answer; without it, the folder's own labels simulate",
    "strategy": "who chooses; `ssl-lightning list strategies` tells the others",
    "checkpoint": "the encoder that the first command trains",
    "freeze": "learn the head alone: a round takes seconds",
}
OF_ACTIVE = {
    "max_epochs": "the head is solved, not trained",
    "steps_per_epoch": "",
    "val_size": "fraction of the labelled samples that validates, which costs labels",
}


def parser() -> Parser:
    """Return the command's options."""
    options = Parser(
        "ssl-lightning init", allow_abbrev=False, description="Look at a folder, and write configs for it that run."
    )
    options.add_argument("source", type=str, metavar="FOLDER", help="folder of pictures, sounds, texts, or a table")
    output = (
        "name of the configs: NAME.yaml to pretrain, NAME-active.yaml to ask for labels; null for the folder's name"
    )
    options.add_argument("--name", type=str | None, default=None, help=output)
    options.add_argument("--minutes", type=float, default=20.0, help="of pretraining on this machine")
    options.add_argument("--labels", type=int, default=100, help="that the second config asks for, at most")
    options.add_argument("--seed", type=int, default=0, help="of both configs")
    options.add_argument("--overwrite", action="store_true", help="replace configs of these names")
    return options


def main(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, or nothing in the folder that is known.
    """
    given = parser().parse_args(arguments)
    above(0, minutes=given.minutes)
    whole(2, labels=given.labels)
    seeds(seed=given.seed)
    quieten()
    load_plugins()
    name = given.name or Path(given.source).resolve().stem
    pretrain, active = Path(f"{name}.yaml"), Path(f"{name}-active.yaml")
    for path in (pretrain, active):
        if path.exists() and not given.overwrite:
            raise ValueError(f"`{path}` exists; give `--overwrite` to replace it, or another `--name`.")
    gpu = torch.cuda.is_available()
    found = look(given.source, gpu)
    data = open_data(found.data)
    say("\n".join(describe(found, data)))
    options = argparse.Namespace(seed=given.seed, classes=None, test_share=None, oracle=None)
    labelled = int((_targets(data) >= 0).sum())
    if not labelled or data.num_classes < 2:
        options.oracle = "Human"
    steps = Steps(Path("runs") / Path(name).name, found, len(_targets(data)), options, gpu)
    plan = _plan(steps, given.minutes, min(given.labels, max(2, len(_targets(data)) // 2)))
    configs = {pretrain: ("fit", _with_judges(steps.pretrain(plan), labelled)), active: ("active", steps.active(plan))}
    for path, (command, config) in configs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(as_text(command, path, config, given.minutes, plan.initial + plan.rounds * plan.query_size))
    files = next((found.data["init_args"][place] for place in ("root", "path") if place in found.data["init_args"]), "")
    classes = " --classes cat,dog" if options.oracle and data.num_classes < 2 else ""
    say(
        f"\nwritten: {pretrain}, {active}\n\n"
        f"ssl-lightning fit -c {pretrain}    # about {plan.seconds['pretrain'] / 60:.1f} min here; --plan says more\n"
        f"ssl-lightning active -c {active}{classes}    # "
        + ("opens a page where you label" if options.oracle else "the folder's own labels answer: a simulation")
        + f"\nssl-lightning predict {steps.folder / 'active'} {files or given.source}    # a class for every file"
    )
    return 0


def open_data(config: dict[str, Any]) -> DataModule:
    """Build data by their config, and read them once: they say what they leave out."""
    reader = Parser("ssl-lightning init")
    reader.add_subclass_arguments(DataModule, "data")
    config["init_args"] = {"test_size": TEST_SIZE, **config["init_args"], "val_size": 0}
    built: DataModule = reader.instantiate_classes(reader.parse_object({"data": config})).data
    built.prepare_data()
    built.setup("fit")
    built.setup("test")
    return built


def describe(found: Found, data: DataModule) -> list[str]:
    """Say what data are: sizes, classes, how many are labelled, which are there twice."""
    targets = _targets(data)
    tests = 0 if data.test_samples is None else len(data.test_samples)
    lines = [f"{found.kind}: {len(targets) + tests} samples ({found.note})"]
    if found.kind == "images" and (sides := _sides(data)):
        lines.append(f"sides: {min(sides)} to {max(sides)} px, {int(np.median(sides))} px in the middle")
    counts = Counter(targets[targets >= 0].tolist())
    if counts:
        most = [f"{printable(data.class_names[place])} {count}" for place, count in counts.most_common(SHOWN)]
        lines.append(f"classes: {', '.join(most)}{f', {len(counts) - SHOWN} more' * (len(counts) > SHOWN)}")
    lines.append(f"labelled: {counts.total()} of {len(targets)} to learn from; {tests} more only test")
    return [*lines, *_copies(data)]


def _targets(data: DataModule) -> torch.Tensor:
    assert data.train_samples is not None
    return data.train_samples.targets


def _sides(data: DataModule) -> list[int]:
    assert data.train_samples is not None
    keys = list(data.train_samples.keys)
    sides = []
    for place in np.linspace(0, len(keys) - 1, min(LOOKS, len(keys))).astype(int).tolist():
        path = data.path_of(keys[place])
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError):
            if path is not None:
                with Image.open(path) as picture:
                    sides.append(min(picture.size))
    return sides


def _copies(data: DataModule) -> list[str]:
    """Tell which samples hold exactly the same, above all those of two classes or of two parts."""
    parts = [("train", data.train_samples), ("test", data.test_samples)]
    keys, targets, names, of = [], list[int](), [], list[str]()
    for part, samples in parts:
        if samples is not None and len(samples):
            keys += list(samples.keys)
            targets += samples.targets.tolist()
            names.append(data.sample_names(part))
            of += [part] * len(samples)
    _, group, count = np.unique(np.concatenate(names), axis=0, return_inverse=True, return_counts=True)
    again = int((count - 1).sum())
    if not again:
        return ["exact copies: none"]
    together: dict[int, list[int]] = {}
    for place in np.flatnonzero(count[group.ravel()] > 1).tolist():
        together.setdefault(int(group.ravel()[place]), []).append(place)
    odd = [places for places in together.values() if len({targets[p] for p in places if targets[p] >= 0}) > 1]
    both = sum(len({of[place] for place in places}) > 1 for places in together.values())
    first = (odd or list(together.values()))[0][:2]
    lines = [f"exact copies: {again}, such as {' = '.join(printable(str(keys[place])) for place in first)}"]
    if odd:
        lines.append(f"  {len(odd)} of them have copies of another class: one of the two labels is wrong")
    if both:
        lines.append(f"  {both} are both to learn from and to test: the test is a little too good")
    return lines


def _plan(steps: Steps, minutes: float, labels: int) -> Plan:
    """Measure a step of pretraining, and divide the minutes."""
    initial, query, rounds = divide_labels(labels)
    tried = Plan((1, 50), (1, 50), initial, query, rounds, {})
    with tempfile.TemporaryDirectory() as folder:
        file, config = Path(folder) / "trial.json", Path(folder) / "trial.yaml"
        config.write_text(yaml.safe_dump(steps.trial(steps.pretrain(tried), file, TRIAL)), encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            from ssl_lightning.commands import train

            train.main(["fit", "-c", str(config)])
        seconds = json.loads(file.read_text(encoding="utf-8"))
    batch = min(steps.choice.batch, steps.pool)
    most = steps.choice.most_passes * max(1, steps.pool // batch)
    parts = in_epochs(max(LEAST_STEPS, min(most, int(60 * minutes * (1 - RESERVE) / seconds))), seconds)
    return Plan(parts, (1, 1), initial, query, rounds, {"pretrain": parts[0] * parts[1] * seconds})


def _with_judges(config: dict[str, Any], labelled: int) -> dict[str, Any]:
    judges = JUDGES if labelled >= 20 else JUDGES[1:]
    init = {**config["data"]["init_args"], "val_size": 0.1 if labelled >= 20 else 0}
    data = {**config["data"], "init_args": init}
    return {**config, "data": data, "trainer": {**config["trainer"], "callbacks": list(judges)}}


def as_text(command: str, path: Path, config: dict[str, Any], minutes: float, labels: int) -> str:
    """Return a config with its command in the first line, and a word on each line that one may want to change."""
    data, words = config["data"]["class_path"], WORDS if command == "fit" else WORDS | OF_ACTIVE
    lines = [f"# ssl-lightning {command} -c {path}"]
    told: set[str] = set()
    for line in yaml.safe_dump(config, sort_keys=False, allow_unicode=True).splitlines():
        key = found[1] if (found := re.match(r"\s*(?:- )?(\w+):", line)) else ""
        word = words.get(key, "") if key not in told else ""
        told.add(key)
        lines.append(f"{line}  # {word.format(data=data, minutes=minutes, labels=labels)}" if word else line)
    return "\n".join(lines) + "\n"
