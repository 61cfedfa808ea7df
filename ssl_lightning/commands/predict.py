"""The command `predict`: a class for every file of a folder, or an embedding, from a checkpoint alone."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from rich.progress import track
from torch import Tensor, nn

from ssl_lightning.checkpoint import Checkpoint, require_facts, require_kind, run_folder, tell_unknown_clean
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.predictions import write_classes, write_embeddings
from ssl_lightning.commands.start import add_trust, load_plugins, quieten, say
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.files import find_images
from ssl_lightning.data.images import LazyImages
from ssl_lightning.data.samples import Batch, Samples
from ssl_lightning.data.vectors import MappedVectors, Table, read_table
from ssl_lightning.engine.naming import known_class
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.engine.processes import first_process, gather, joined
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.base import map_tensors
from ssl_lightning.transforms.image import CleanView


class Part(NamedTuple):
    """Some samples to predict.

    Attributes:
        name: Of the part of a data set; empty where there are none.
        samples: To be predicted.
        paths: Of their files; empty strings where they are no files.
        labels: Names of their classes; empty strings where unknown.
        clean: Makes clean input of them, where the checkpoint does not say how.
    """

    name: str
    samples: Samples
    paths: Sequence[str]
    labels: Sequence[str]
    clean: nn.Module


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


def open_source(source: str, predictor: Predictor) -> Part:
    """Find what is to be predicted, by what the checkpoint was trained on.

    Args:
        source: A folder of images, with or without sub-folders, or one image; for vectors a `.npy` file.
        predictor: From the checkpoint.

    Raises:
        ValueError: If there is no such thing, or the checkpoint takes another kind of input.
    """
    facts, path = predictor.opened.facts, Path(source)
    if not path.exists():
        raise ValueError(f"`source={source}` does not exist ({path.resolve()}); give a folder, or a file.")
    if "feature_dim" in facts:
        table = _named_rows(source)
        rows, keys = table.rows, table.keys
        if rows.shape[1] != facts["feature_dim"]:
            raise ValueError(
                f"`source={source}` has rows of {rows.shape[1]} numbers, and the checkpoint takes "
                f"{facts['feature_dim']}; give embeddings of the same model."
            )
        vectors = MappedVectors(rows, np.arange(len(rows)), torch.full((len(rows),), -1), keys)  # in the file's order
        return Part("", vectors, [""] * len(rows), table.labels, nn.Identity())
    if "channels" not in facts or "image_size" not in facts:
        raise ValueError(
            f"`{predictor.opened.path}` was trained on data that are no images "
            f"({', '.join(facts) or 'of unknown kind'}); "
            "name the data by `--data CLASS` and its options instead of `source`."
        )
    files = [(str(path), path)] if path.is_file() else [(file.key, file.path) for file in find_images(path).files]
    keys, paths = [key for key, _ in files], [found for _, found in files]
    images = LazyImages(paths, torch.full((len(files),), -1), keys, facts["channels"], facts["image_size"])
    return Part("", images, [str(path) for path in paths], [""] * len(files), CleanView())


def _named_rows(source: str) -> Table:
    """Read vectors, and the table of the same name beside them, if there is one."""
    beside = Path(source).with_suffix(".csv")
    if not beside.is_file():
        return read_table("source", source, "table", None)
    try:
        table = read_table("source", source, "table", str(beside))
    except ValueError as error:
        table = read_table("source", source, "table", None)  # says what is wrong with the vectors themselves
        rank_zero_warn(f"`{beside}` is passed over, and rows are named by their content: {error}")
        return table
    say(f"keys and classes of the rows: {beside}")
    return table


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


def take_size(options: Any, given: Any, facts: dict[str, Any]) -> None:
    """Give images of the data the checkpoint's size and channels, where the data have such options.

    Args:
        options: Of the data, defaults among them; changed in place.
        given: Those that the user gave, which stay.
        facts: Of the data that the checkpoint was trained on.
    """
    for name in ("image_size", "channels"):
        if name in options and name in facts and name not in given and options[name] != facts[name]:
            options[name] = facts[name]
            say(f"--data.{name} {facts[name]}: as the checkpoint was trained")


def require_fit(data: DataModule, predictor: Predictor) -> None:
    """Check that a checkpoint takes the data, and say where it was trained on another size.

    Args:
        data: To be predicted.
        predictor: From the checkpoint.

    Raises:
        ValueError: If they are of another kind, or of other channels or length.
    """
    who, trained, size = f"`checkpoint={predictor.opened.path}`", predictor.opened.facts, data.facts.get("image_size")
    for require in (require_facts, require_kind):
        require(predictor.opened.backbone, data.facts, who)
    if None not in (size, trained.get("image_size")) and size != trained["image_size"]:
        rank_zero_warn(
            f"the data have images of {size} px, and {who} was trained on {trained['image_size']} px: its predictions "
            "may be worse than they were there."
        )


def parts_of(data: DataModule) -> list[Part]:
    """Return all samples of a data module, part by part."""
    data.setup("fit")
    data.setup("test")
    found = []
    for name, samples in (("train", data.train_samples), ("test", data.test_samples)):
        if samples is not None and len(samples):
            labels = [data.class_names[target] if target >= 0 else "" for target in samples.targets.tolist()]
            found.append(Part(name, samples, [data.path_of(key) or "" for key in samples.keys], labels, data.clean()))
    return found


def batches(part: Part, size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield the samples that can be read, in order, and say which cannot."""
    bad: list[str] = []
    for start in range(0, len(part.samples), size):
        places = list(range(start, min(start + size, len(part.samples))))
        try:
            yield places, part.samples.__getitems__(places)
        except ValueError:
            good = []
            for place in places:
                try:
                    part.samples.__getitems__([place])
                    good.append(place)
                except ValueError as error:
                    bad.append(str(error).rpartition("; ")[0] or str(error))  # the remedy is ours: it is left out
            if good:
                yield good, part.samples.__getitems__(good)
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        rank_zero_warn(f"left out {len(bad)} of {len(part.samples)} samples: {bad[0]}{more}.")


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
    for part, batches in zip(parts_of(data), found, strict=False):
        mine = gather(joined([{name: row.cpu() for name, row in batch.items()} for batch in batches or []]))
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
    options.add_argument("checkpoint", type=str, help="a file that `ssl-lightning fit` or `active` saved")
    options.add_argument("source", type=str, nargs="?", help="folder of images, an image, or a .npy file of vectors")
    options.add_subclass_arguments(DataModule, "data", required=False, help="data to predict, instead of `source`")
    output = "file for classes (.csv) or embeddings (.npy, and a .csv beside it); null: in the run's folder"
    options.add_argument("--output", type=str | None, default=None, help=output)
    options.add_argument(
        "--all", action="store_true", help="write the probability of every class, not of the best alone"
    )
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
    if settings.batch_size < 1:
        raise ValueError(f"`batch_size={settings.batch_size}` must be at least 1.")
    if (settings.source is None) == (settings.get("data") is None):
        raise ValueError(
            "give either a `source` (folder of images, image, .npy file), or `--data CLASS`, and not both."
        )
    predictor = load_predictor(settings.checkpoint, settings.trust)
    path = output_path(settings.output, predictor)
    if settings.source is not None:
        parts = [open_source(settings.source, predictor)]
    else:
        given = options.parse_args(arguments, defaults=False).data.get("init_args") or {}
        take_size(settings.data.get("init_args") or {}, given, predictor.opened.facts)
        data: DataModule = options.instantiate_classes(settings).data
        require_fit(data, predictor)
        parts = parts_of(data)
    fabric = make_fabric(settings.accelerator, settings.precision)
    keys, paths, labels, which, rows = [], [], [], [], []
    for part in parts:
        done, found = run(predictor, part, settings.batch_size, fabric)
        rows.append(found)
        keys += [part.samples.keys[place] for place in done]
        paths += [part.paths[place] for place in done]
        labels += [part.labels[place] for place in done]
        which += [part.name] * len(done)
    if predictor.class_names:
        write_classes(path, keys, paths, which, torch.cat(rows), predictor.class_names, settings.all)
    else:
        write_embeddings(path, keys, labels, torch.cat(rows))
        say(f"keys and classes beside them: {path.with_suffix('.csv')}; `--data Vectors` reads both")
    say(f"wrote {len(keys)} rows to {path}")
    return 0
