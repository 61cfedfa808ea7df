"""What a person wants to know of a sample that they are asked for: what the model thinks it is, and what is like it."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.active.asking import Explanation
from ssl_lightning.active.pool import PoolDataModule
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.passes import passing, sweep
from ssl_lightning.engine.processes import Rows, first_process, gather
from ssl_lightning.labelling import Query
from ssl_lightning.labelling.doubts import doubtful

NEIGHBOURS = 3
JUDGED = 2000  # labels that are looked through for likely wrong ones: the last that were given


def explain(trainer: L.Trainer, module: L.LightningModule, pool: PoolDataModule, indices: Sequence[int]) -> Explanation:
    """Look at the samples of a query and at the labelled ones; in every process.

    Args:
        trainer: That fitted the module.
        module: The round's model.
        pool: Of the samples.
        indices: Positions of what is asked for.

    Returns:
        The notes, with neighbours by the cosine of embeddings, and the doubts, worst first; empty in all but the first
        process.
    """
    known = dict(pool.known())
    wanted = torch.tensor(sorted({*indices, *known}), dtype=torch.int64)

    def look(batch: Batch) -> Rows:
        inputs = prepared(module, batch)
        confidence, guess = torch.softmax(module(inputs).float(), dim=1).max(dim=1)
        rows = {"guess": guess, "confidence": confidence}
        if callable(getattr(module, "embed", None)):
            rows["point"] = normalize(module.embed(inputs).float(), dim=1)  # type: ignore[operator]
        return rows

    loader = pool.data.evaluation_loader(pool.samples, wanted)
    with passing(module, loader):
        rows = gather(sweep(trainer, module, loader, look))
    if not first_process():
        return Explanation()
    row_of = {place: row for row, place in enumerate(rows["index"].tolist())}
    labelled, names = list(known), pool.data.class_names
    points = rows.get("point")
    notes = []
    for place in indices:
        row, near = row_of[place], list[tuple[str, str, str]]()
        if points is not None and labelled:
            likeness = points[[row_of[other] for other in labelled]] @ points[row]
            for best in likeness.argsort(descending=True, stable=True)[:NEIGHBOURS].tolist():
                key = pool.keys[labelled[best]]
                near.append((key, pool.fingerprint(key), names[known[labelled[best]]]))
        guess, confidence = names[int(rows["guess"][row])], float(rows["confidence"][row])
        notes.append(Query(pool.keys[place], guess=guess, confidence=confidence, neighbours=near))
    return Explanation(notes, [] if points is None else _doubts(pool, points, row_of, known))


def _doubts(
    pool: PoolDataModule, points: Tensor, row_of: dict[int, int], known: dict[int, int]
) -> list[dict[str, Any]]:
    """Find labels that are likely wrong, by a linear classifier on the embeddings of the others."""
    places = list(known)[-JUDGED:]
    keys = [pool.keys[place] for place in places]
    names = [pool.data.class_names[known[place]] for place in places]
    embeddings = points[[row_of[place] for place in places]].numpy()
    return doubtful(embeddings, names, keys, [pool.fingerprint(key) for key in keys], seed=pool.seed)


def prepared(module: Any, batch: Batch) -> Any:
    """Return what a module takes of a batch: what its `prepare` makes, or the input itself for a stranger's module."""
    return module.prepare(batch) if hasattr(module, "prepare") else batch.input
