"""What `predict` predicts: files of a folder, vectors, or the samples of a data module."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.checkpoint import Checkpoint, require_facts, require_kind, require_same_columns
from ssl_lightning.commands.startup import say
from ssl_lightning.data.audio import sounds_to_predict
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.files import find_images
from ssl_lightning.data.images import LazyImages
from ssl_lightning.data.new_rows import rows_to_predict
from ssl_lightning.data.pairs import pairs_to_predict
from ssl_lightning.data.samples import Batch, Part
from ssl_lightning.data.schema import schema_of
from ssl_lightning.data.text import texts_to_predict
from ssl_lightning.engine.modalities import modality_of
from ssl_lightning.transforms.image import CleanView


def open_source(source: str, opened: Checkpoint) -> Part:
    """Find what is to be predicted, by what the checkpoint was trained on.

    Args:
        source: A folder of images, with or without sub-folders, or one image; for vectors a `.npy` file.
        opened: The checkpoint.

    Raises:
        ValueError: If there is no such thing, or the checkpoint takes another kind of input.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"`source={source}` does not exist ({path.resolve()}); give a folder, or a file.")
    read = READERS.get(modality_of(opened.facts))
    if read is None:
        raise ValueError(
            f"`{opened.path}` was trained on data that are none of {', '.join(READERS)} "
            f"({', '.join(opened.facts) or 'of unknown kind'}); "
            "name the data by `--data CLASS` and its options instead of `source`."
        )
    return read(source, opened.facts)


def _images(source: str, facts: dict[str, Any]) -> Part:
    path = Path(source)
    files = [(str(path), path)] if path.is_file() else [(file.key, file.path) for file in find_images(path).files]
    keys, paths = [key for key, _ in files], [found for _, found in files]
    images = LazyImages(paths, torch.full((len(files),), -1), keys, facts["channels"], facts["image_size"])
    return Part("", images, [str(path) for path in paths], [""] * len(files), CleanView())


def take_size(options: Any, given: Any, facts: dict[str, Any]) -> None:
    """Give data the checkpoint's size, channels, rate and categories, where they have such options.

    Args:
        options: Of the data, defaults among them; changed in place.
        given: Those that the user gave, which stay.
        facts: Of the data that the checkpoint was trained on.
    """
    for name in ("image_size", "channels", "sample_rate"):
        if name in options and name in facts and name not in given and options[name] != facts[name]:
            options[name] = facts[name]
            say(f"--data.{name} {facts[name]}: as the checkpoint was trained")
    schema = schema_of(facts)
    if schema is not None and "categories" in options and not isinstance(given.get("categories"), dict):
        options["categories"] = {name: list(names) for name, names in schema.categories.items()}


def require_fit(data: DataModule, opened: Checkpoint) -> None:
    """Check that a checkpoint takes the data, and say where it was trained on another size.

    Args:
        data: To be predicted.
        opened: The checkpoint.

    Raises:
        ValueError: If they are of another kind, or of other channels or length.
    """
    who, trained, size = f"`checkpoint={opened.path}`", opened.facts, data.facts.get("image_size")
    for require in (require_facts, require_kind):
        require(opened.backbone, data.facts, who)
    require_same_columns(trained, data.facts, who)
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


READERS: dict[str, Callable[[str, dict[str, Any]], Part]] = {  # by `MODALITIES`
    "images": _images,
    "images with text": pairs_to_predict,
    "rows": rows_to_predict,
    "sound": sounds_to_predict,
    "text": texts_to_predict,
}
