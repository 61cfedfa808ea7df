"""The embedding of a model on a plane, as a figure for a notebook."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Samples
from ssl_lightning.engine.passes import in_evaluation
from ssl_lightning.engine.ranges import one_of, whole
from ssl_lightning.functional.projection import Map, draw_map, require_map

STEP = 256  # samples that are encoded at once
FEWEST = 5


def embedding_map(
    module: Any, data: DataModule, part: str = "test", count: int = 1000, kind: Map = "pca", ringed: Sequence[str] = ()
) -> Any:
    """Draw where a model puts samples, coloured by class.

    Args:
        module: A method or classifier, fitted or not; it is left as it was.
        data: That hold the samples; loaded where they are not.
        part: `test` or `train`.
        count: Samples at most, evenly chosen.
        kind: `pca`, `tsne` or, of the extra `umap`, `umap`.
        ringed: Keys of samples to mark, as those that a strategy asked for; those of the part are drawn in any case.

    Returns:
        A figure of matplotlib, which a notebook shows where it is a cell's last value.

    Raises:
        ValueError: If an argument is none of these, or the part has fewer than five samples.

    Example:
        >>> from ssl_lightning import ConvNet, Digits, SimCLR
        >>> figure = embedding_map(SimCLR(ConvNet(width=8)), Digits(), count=50)
        >>> figure.axes[0].get_title()
        'Embedding of 50 samples (test part, pca)'
    """
    from ssl_lightning.engine.drawing import Drawing  # here, since matplotlib takes a while

    one_of(("test", "train"), part=part)
    one_of(("pca", "tsne", "umap"), kind=kind)
    whole(FEWEST, count=count)
    require_map(kind)
    data.setup("fit" if part == "train" else "test")
    samples: Any = data.train_samples if part == "train" else data.test_samples
    there = data.train_indices.tolist() if part == "train" else list(range(len(samples)))
    wanted = set(ringed)
    marked = [place for place, key in enumerate(samples.keys) if key in wanted]
    spread = torch.linspace(0, len(there) - 1, min(count, len(there))).long().tolist()
    places = sorted({*(there[number] for number in spread), *marked})
    if len(places) < FEWEST:
        raise ValueError(f"the {part} part has {len(places)} samples; a map wants at least {FEWEST}.")
    spot, _ = draw_map(_embed(module, data, samples, places), list(range(len(places))), kind)
    figure = Drawing(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    targets = samples.targets[places]
    for target in targets.unique().tolist():
        x, y = spot[(targets == target).numpy()].T
        style = {"label": data.class_names[target]} if target >= 0 else {"label": "no label", "color": "0.8"}
        axes.scatter(x, y, 9, **style)
    x, y = spot[torch.isin(torch.tensor(places), torch.tensor(marked, dtype=torch.int64)).numpy()].T
    if len(x):
        axes.scatter(x, y, 45, facecolors="none", edgecolors="black", label="asked")
    axes.set_title(f"Embedding of {len(places):,} samples ({part} part, {kind})")
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _embed(module: Any, data: DataModule, samples: Samples, places: list[int]) -> torch.Tensor:
    """Encode samples on the model's device."""
    clean = module.clean or data.clean()
    device = next(module.parameters()).device
    found = []
    with in_evaluation(module), torch.inference_mode():
        for first in range(0, len(places), STEP):
            batch = move_data_to_device(samples.__getitems__(places[first : first + STEP]), device)
            found.append(module.embed(clean(batch.input)).float().cpu())
    return torch.cat(found)
