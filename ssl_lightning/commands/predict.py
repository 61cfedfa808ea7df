"""The command `predict`: a class for every file of a folder, or an embedding, from a checkpoint alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from rich.progress import track
from torch import Tensor

from ssl_lightning.checkpoint import Checkpoint, checkpoint_of, run_folder, tell_unknown_clean
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.predictions import write_classes, write_embeddings
from ssl_lightning.commands.sorting import require_new, sort_files
from ssl_lightning.commands.sources import batches, open_source, parts_of, require_fit, take_size
from ssl_lightning.commands.startup import add_trust, load_plugins, say
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Part
from ssl_lightning.engine.naming import known_class
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.engine.processes import first_process, gather, joined
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.base import map_tensors


class Predictor(NamedTuple):
    """A model from a checkpoint, and what it makes of clean inputs.

    Attributes:
        model: In evaluation mode: a classifier, or an encoder.
        clean: From samples to its input; null where the checkpoint does not say.
        class_names: In the order of the outputs; empty for an encoder.
        opened: The checkpoint.
    """

    model: Any
    clean: Any
    class_names: tuple[str, ...]
    opened: Checkpoint


class Predictions(NamedTuple):
    """What was predicted of all samples that could be read.

    Attributes:
        keys: Of the samples, `n` of them.
        paths: Of their files, or empty strings.
        labels: Names of the classes they have, or empty strings.
        parts: They belong to, or empty strings.
        rows: Class probabilities `(n, classes)`, or embeddings `(n, dim)`.
    """

    keys: list[str]
    paths: list[str]
    labels: list[str]
    parts: list[str]
    rows: Tensor


def load_predictor(path: str, trust: bool = False) -> Predictor:
    """Build a classifier, or a method's encoder, from its checkpoint.

    Args:
        path: Of the file.
        trust: Build classes that it names and that are neither ours nor of a plug-in.

    Raises:
        ValueError: If it is no checkpoint of ours.
    """
    opened = Checkpoint.open(path, trust=trust)
    if opened.head is None:
        return Predictor(opened.backbone.eval(), opened.clean, (), opened)
    kind: Any = known_class(opened.method_path, Classifier, trust)
    model = kind.load_from_checkpoint(path, backbone=opened.backbone, clean=opened.clean)
    names = opened.class_names or tuple(str(number) for number in range(model.num_classes))
    return Predictor(model.eval(), opened.clean, names, opened)


def output_path(output: str | None, predictor: Predictor) -> Path:
    """Return the file to write, whose ending says what is in it.

    Args:
        output: As the user named it; null for one in the run's folder.
        predictor: From the checkpoint.

    Raises:
        ValueError: If it ends as another kind of file, or one that nobody named would be replaced.
    """
    what, ending = ("classes", ".csv") if predictor.class_names else ("embeddings", ".npy")
    if output is None:
        path = run_folder(predictor.opened.path) / f"{'predictions' if predictor.class_names else 'embeddings'}{ending}"
        if path.exists():
            raise ValueError(
                f"`{path}` is there already, perhaps of other data; give `--output FILE{ending}`, the same one to "
                "replace it."
            )
        return path
    path = Path(output)
    if path.suffix != ending and (path.is_file() or not path.exists()):  # a pipe or device may have any name
        raise ValueError(
            f"`output={output}` must end in {ending}: the checkpoint is of a {predictor.opened.method}, which gives "
            f"{what}."
        )
    return path


def run(predictor: Predictor, part: Part, size: int, fabric: L.Fabric) -> tuple[list[int], Tensor]:
    """Predict samples.

    Args:
        predictor: From the checkpoint.
        part: The samples.
        size: Samples a step.
        fabric: Says the device and precision.

    Returns:
        Places of the samples that could be read, and of each its class probabilities `(n, classes)`, or its embedding
        `(n, dim)`, float32.

    Raises:
        ValueError: If none could be read.
    """
    model = predictor.model.to(fabric.device)
    clean = predictor.clean
    if clean is None:
        clean = part.clean
        tell_unknown_clean(predictor.opened, clean)
    done: list[int] = []
    rows: list[Tensor] = []
    total = -(-len(part.samples) // size)
    with torch.inference_mode(), fabric.autocast():
        steps = track(batches(part, size), "predict", total, transient=True, disable=not sys.stderr.isatty())
        for places, batch in steps:
            output = model(clean(map_tensors(lambda tensor: tensor.to(fabric.device), batch.input))).float()
            rows.append((output.softmax(dim=1) if predictor.class_names else output).cpu())
            done += places
    if not done:
        raise ValueError("none of the samples can be read; see the warning above for the first reason.")
    return done, torch.cat(rows)


def run_all(predictor: Predictor, parts: Sequence[Part], size: int, fabric: L.Fabric) -> Predictions:
    """Predict the samples of all parts; else as `run`."""
    keys, paths, labels, which, rows = [], [], [], [], []
    for part in parts:
        done, found = run(predictor, part, size, fabric)
        rows.append(found)
        keys += [part.samples.keys[place] for place in done]
        paths += [part.paths[place] for place in done]
        labels += [part.labels[place] for place in done]
        which += [part.name] * len(done)
    return Predictions(keys, paths, labels, which, torch.cat(rows))


def write_found(path: Path, model: Any, data: DataModule, found: Any) -> None:
    """Write what Lightning's `predict` returns, gathered from all processes.

    Args:
        path: Of the table for a classifier, else of the `.npy` file.
        model: That predicted.
        data: That was predicted.
        found: Batches of the training part, and of the test part where there is one.

    Raises:
        ValueError: If there is nothing that could be written.
    """
    found = found if found and isinstance(found[0], list) else [found]
    keys, paths, which, labels, rows = [], [], [], [], []
    for part, read in zip(parts_of(data), found, strict=False):
        mine = gather(joined([{name: row.cpu() for name, row in batch.items()} for batch in read or []]))
        places = mine["index"].tolist()
        keys += [part.samples.keys[place] for place in places]
        paths += [part.paths[place] for place in places]
        labels += [part.labels[place] for place in places]
        which += [part.name] * len(places)
        rows += [mine[name] for name in ("probabilities", "embedding") if name in mine][:1]
    if not rows:
        raise ValueError(
            f"`{type(model).__name__}` predicts nothing that could be written; use `trainer.predict` in Python."
        )
    names = (getattr(model, "facts", None) or {}).get("class_names") or data.class_names
    if first_process() and path.suffix == ".csv":
        write_classes(path, keys, paths, which, torch.cat(rows), names)
    elif first_process():
        write_embeddings(path, keys, labels, torch.cat(rows))
    say(f"wrote {len(keys)} rows to {path}")


def parser() -> Parser:
    """Return the command's options."""
    options = Parser(
        "ssl-lightning predict",
        allow_abbrev=False,
        description="Write a class and its probability for every file, or an embedding, from a checkpoint alone.",
    )
    options.add_argument("checkpoint", type=str, help="checkpoint, or folder of a run of `fit` or `active`")
    options.add_argument("source", type=str, nargs="?", help="folder or file of what the checkpoint was trained on")
    options.add_subclass_arguments(DataModule, "data", required=False, help="data to predict, instead of `source`")
    output = "file for classes (.csv) or embeddings (.npy, and a .csv beside it); null: in the run's folder"
    options.add_argument("--output", type=str | None, default=None, help=output)
    options.add_argument(
        "--all", action="store_true", help="write the probability of every class, not of the best alone"
    )
    options.add_argument(
        "--sort", type=str | None, default=None, help="new folder, into which files are copied by their classes"
    )
    options.add_argument("--link", action="store_true", help="make links into the folder of `sort`, and no copies")
    least = "files of a class less probable than this go to the folder `unsure`"
    options.add_argument("--min_probability", type=float, default=0.0, help=least)
    options.add_argument("--batch_size", type=int, default=256, help="samples that are predicted at once")
    options.add_argument("--accelerator", type=str, default="auto", help="device: cpu, gpu, or auto for what there is")
    options.add_argument(
        "--precision", type=str, default="32-true", help="precision of the network, such as bf16-mixed"
    )
    add_trust(options)
    return options


def main(arguments: list[str]) -> int:
    """Predict, and write.

    Args:
        arguments: Of the command line; without a checkpoint in the first place they are Lightning's `predict`.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, the checkpoint or the data.
    """
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        from ssl_lightning.commands import train

        return train.main(["predict", *arguments])
    quieten()
    load_plugins()
    options = parser()
    settings = options.parse_args(arguments)
    whole(1, batch_size=settings.batch_size)
    if (settings.source is None) == (settings.get("data") is None):
        raise ValueError(
            "give either a `source` (folder of images, image, .npy file), or `--data CLASS`, and not both."
        )
    _check_sorting(settings)
    predictor = load_predictor(checkpoint_of(settings.checkpoint), settings.trust)
    parts = _open_parts(options, settings, arguments, predictor.opened)
    path = output_path(settings.output, predictor)
    if settings.sort is not None:
        _require_files(parts, predictor, settings.sort)
    fabric = make_fabric(settings.accelerator, settings.precision)
    found = run_all(predictor, parts, settings.batch_size, fabric)
    if predictor.class_names:
        write_classes(path, found.keys, found.paths, found.parts, found.rows, predictor.class_names, settings.all)
    else:
        write_embeddings(path, found.keys, found.labels, found.rows)
        say(f"keys and classes beside them: {path.with_suffix('.csv')}; `--data Vectors` reads both")
    say(f"wrote {len(found.keys)} rows to {path}")
    if settings.sort is not None:
        best, numbers = found.rows.max(dim=1)
        sure = (best >= settings.min_probability).tolist()
        into = settings.sort, predictor.class_names, settings.link
        say("\n".join(sort_files(*into, found.paths, found.keys, numbers.tolist(), sure)))
    return 0


def _open_parts(options: Parser, settings: Any, arguments: list[str], opened: Checkpoint) -> list[Part]:
    """Find what is to be predicted: what `source` names, or all samples of a data module."""
    if settings.source is not None:
        return [open_source(settings.source, opened)]
    given = options.parse_args(arguments, defaults=False).data.get("init_args") or {}
    take_size(settings.data.get("init_args") or {}, given, opened.facts)
    data: DataModule = options.instantiate_classes(settings).data
    require_fit(data, opened)
    return parts_of(data)


def _check_sorting(settings: Any) -> None:
    between(0, 1, min_probability=settings.min_probability)
    if settings.sort is not None:
        require_new(settings.sort, settings.source)
    elif settings.link or settings.min_probability:
        option = "link" if settings.link else "min_probability"
        raise ValueError(f"`--{option}` says how files are sorted; add `--sort FOLDER`, or leave it out.")


def _require_files(parts: Sequence[Part], predictor: Predictor, folder: str) -> None:
    """Refuse to sort what has no classes, or what are no files."""
    if not predictor.class_names:
        raise ValueError(
            f"`sort={folder}` needs classes, and the checkpoint is of a {predictor.opened.method}, which gives "
            "embeddings; give one of a classifier, or leave it out."
        )
    if not all(path for part in parts for path in part.paths):
        raise ValueError(f"`sort={folder}` sorts files, and there are samples that are none; leave it out.")
