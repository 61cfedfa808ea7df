"""The command `evaluate`: how good a finished encoder is, on any data set, in one table that grows."""

import datetime
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from ssl_lightning.backbones import Backbone, describe
from ssl_lightning.checkpoint import checkpoint_of, describe_briefly, require_kind
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.settings import settings_of
from ssl_lightning.commands.startup import add_trust, load_plugins, say
from ssl_lightning.data import DataModule
from ssl_lightning.data.base import FACTS
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.evaluation.judge import RAW, UNTRAINED, Judge, Subject, load_subject
from ssl_lightning.evaluation.knn import require_temperature
from ssl_lightning.experiments.results import PROTOCOLS, USUAL, markdown, read, write


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names or ("",):
        if name not in PROTOCOLS:
            raise ValueError(
                f"`protocols`: there is no `{name}`{meant(name, PROTOCOLS)}; there are {', '.join(PROTOCOLS)}."
            )
    return tuple(dict.fromkeys(names))


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"`fractions={text}` must be numbers above 0 and up to 1, with commas: 0.01,0.1,1.0.")
    return tuple(dict.fromkeys(shares))


def _check(settings: Any, path: Path) -> None:
    # before hours of work, not after
    for name, least in (("k", 1), ("steps", 1), ("lidar_images", 2), ("views", 2), ("candidates", 2), ("seed", 0)):
        if settings[name] < least:
            raise ValueError(f"`{name}={settings[name]}` must be at least {least}.")
    if settings.seed >= 2**32:
        raise ValueError(f"`seed={settings.seed}` must be below 2^32.")
    if not 0 < settings.lr < math.inf:
        raise ValueError(f"`lr={settings.lr}` must be a number above 0; 1e-3 is the default.")
    require_temperature(settings.temperature)
    if path.suffix != ".csv" or path.is_dir():  # results.md is written beside it
        raise ValueError(f"`results={path}` must be a file that ends in .csv, such as runs/evaluate/results.csv.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`results={path}`: its folder cannot be made ({error}); give a file elsewhere.") from error
    read(path)


def parser() -> Parser:
    """Return the command's options."""
    options = Parser(
        "ssl-lightning evaluate", allow_abbrev=False, description="Judge encoders on the test part of a data set."
    )
    options.add_argument(
        "checkpoints", nargs="+", type=str, help="checkpoints or folders of runs to judge, or `untrained` or `pixels`"
    )
    options.add_subclass_arguments(DataModule, "data", required=True, help="data to judge on")
    options.add_subclass_arguments(
        Backbone, "backbone", required=False, help="network that `untrained` judges with random weights"
    )
    add_trust(options)
    options.add_argument(
        "--protocols", type=str, default=",".join(USUAL), help="what to do: any of " + ", ".join(PROTOCOLS)
    )
    fractions = "fractions of the labels that linear, finetune and semi learn from"
    options.add_argument("--fractions", type=str, default="0.01,0.1,1.0", help=fractions)
    options.add_argument("--k", type=int, default=200, help="neighbours that vote in kNN")
    options.add_argument("--temperature", type=float, default=0.1, help="temperature of the votes in kNN")
    options.add_argument("--steps", type=int, default=1000, help="steps of finetune and semi")
    options.add_argument("--lr", type=float, default=1e-3, help="learning rate of finetune and semi (AdamW, cosine)")
    options.add_argument("--lidar_images", type=int, default=500, help="samples that LiDAR looks at")
    options.add_argument("--views", type=int, default=20, help="random views of each sample that LiDAR looks at")
    template = "text of a class in zeroshot, `{}` standing for its name"
    options.add_argument("--template", type=str, default="{}", help=template)
    candidates = "test samples at most, evenly chosen, that zeroshot and retrieval compare"
    options.add_argument("--candidates", type=int, default=1000, help=candidates)
    options.add_argument("--seed", type=int, default=0, help="seed of the label subsets and of fine-tuning")
    options.add_argument("--accelerator", type=str, default="auto", help="device: cpu, gpu, or auto for what there is")
    options.add_argument("--precision", type=str, default="32-true", help="precision of the network, as bf16-mixed")
    results = "file of the table, which grows; ends in .csv, and a .md is written beside it"
    options.add_argument("--results", type=str, default="runs/evaluate/results.csv", help=results)
    for fact in FACTS:
        options.link_arguments(f"data.{fact}", f"backbone.init_args.{fact}", apply_on="instantiate")
    return options


def main(arguments: list[str]) -> int:
    """Judge, and write the table.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, the checkpoints or the data.
    """
    quieten()
    load_plugins()
    options = parser()
    settings = options.parse_args(arguments)
    protocols, fractions = _names(settings.protocols), _shares(settings.fractions)
    path = Path(settings.results)
    _check(settings, path)
    L.seed_everything(settings.seed, verbose=False)
    settings.checkpoints = [
        name if name in (UNTRAINED, RAW) else checkpoint_of(name, "checkpoints") for name in settings.checkpoints
    ]
    described = describe_settings(options, settings)
    built = options.instantiate_classes(settings)
    settings.protocols, settings.fractions = protocols, fractions
    data: DataModule = built.data
    data.setup("fit")
    data.setup("test")
    subjects = [load_subject(name, built.get("backbone"), data, settings.trust) for name in settings.checkpoints]
    for subject in subjects:
        if subject.backbone is not None:
            require_kind(subject.backbone, data.facts, f"`{subject.name}`")
    for subject in subjects:
        judge = Judge(subject, data, settings)
        for protocol in settings.protocols:
            _run(judge, protocol, path, described)
    if path.exists():
        say(f"{markdown(read(path))}table: {path}, {path.with_suffix('.md')}")
    return 0


def describe_settings(options: Parser, settings: Any) -> dict[str, Any]:
    """Return what a result depends on beside the checkpoint: the data with all their options, and the protocols'.

    Args:
        options: Of the command.
        settings: As parsed.

    Returns:
        JSON values, under the names of the protocols, and under `data`; the data's paths are absolute.
    """
    given = json.loads(json.dumps(yaml.safe_load(options.dump(settings, skip_none=False, skip_link_targets=False))))
    data = settings_of(given["data"])
    batch_size = (data.get("init_args") or {}).pop("batch_size", None)
    own = {
        "knn": ("k", "temperature"),
        "linear": (),
        "finetune": ("steps", "lr"),
        "semi": ("steps", "lr"),
        "rank": ("lidar_images", "views"),
    }
    own |= {"zeroshot": ("template", "candidates"), "retrieval": ("candidates",)}
    found = {name: {key: given[key] for key in (*keys, "precision")} for name, keys in own.items()}
    for name in ("finetune", "semi"):
        found[name]["batch_size"] = batch_size  # to the others it is speed alone
    return {"data": data, **found}


def describe_data(data: DataModule) -> str:
    """Name a data set in a few words."""
    where = getattr(data, "root", None) if type(data).__name__ == "ImageFolder" else getattr(data, "path", None)
    root = f" {Path(where).name}" if where is not None else ""
    return f"{type(data).__name__}{root}" + (f", {data.limit} samples" if data.limit else "")


def _identity(subject: Subject) -> Any:
    """Return what tells a subject from all others: a file's path however it is spelt, else the untrained network."""
    if subject.backbone is None:
        return RAW
    return describe(subject.backbone) if subject.name == UNTRAINED else str(Path(subject.name).resolve())


def _run(judge: Judge, protocol: str, path: Path, described: dict[str, Any]) -> None:
    subject, begun = judge.subject, time.monotonic()
    if protocol in ("finetune", "semi") and subject.backbone is None:
        say(f"`{subject.name}` has no weights to train; left out of {protocol}")
    found: Callable[[], Iterator[tuple[float, str, float, int]]] = getattr(judge, protocol)
    settings = json.dumps(
        {"subject": _identity(subject), "data": described["data"], protocol: described[protocol]}, sort_keys=True
    )
    for fraction, metric, value, labels in found():
        row = {
            "checkpoint": subject.name, "data": describe_data(judge.data), "settings": settings, "protocol": protocol,
            "fraction": f"{fraction:g}", "metric": metric, "seed": str(judge.settings.seed), "method": subject.method,
            "backbone": describe_briefly(describe(subject.backbone)) if subject.backbone is not None else "",
            "labels": str(labels), "value": f"{value:.6g}", "seconds": f"{time.monotonic() - begun:.1f}",
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        write(path, [row])
        begun = time.monotonic()
