"""The head that logistic regression finds on the embeddings of the labelled samples."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.engine.passes import evaluating
from ssl_lightning.engine.processes import Rows, gather, joined
from ssl_lightning.functional.logistic import logistic_head
from ssl_lightning.supervised.frozen import part_of


def solve_head(module: Any, samples: Any, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a head on clean embeddings, each process encoding its share.

    Args:
        module: A `Classifier` in a fit.
        samples: What it learns from.
        indices: Which of these, `(N,)`; those without a label do not count.

    Returns:
        Weights `(num_classes, feature_dim)` and bias `(num_classes,)`, the same in every process.
    """
    trainer, size = module.trainer, module.trainer.train_dataloader.batch_size
    part = part_of(trainer.train_dataloader)
    known = torch.unique(indices[samples.targets[indices] >= 0])
    parts: list[Rows] = []
    with evaluating(trainer, module):
        for places in known[trainer.global_rank :: trainer.world_size].split(size):
            batch = trainer.strategy.batch_to_device(samples.__getitems__(places.tolist())._replace(part=part))
            rows = module.embed(module.prepare(batch)).float().cpu()
            parts.append({"index": places, "rows": rows, "target": batch.target.cpu()})
    found = gather(joined(parts))
    solved = logistic_head(found["rows"].clone(), found["target"].clone(), module.num_classes, module._seed)
    shared: tuple[Tensor, Tensor] = trainer.strategy.broadcast(solved)
    return shared


@torch.no_grad()
def put_head(layer: nn.Linear, solved: tuple[Tensor, Tensor]) -> None:
    """Give a layer the weights and the bias that were found."""
    layer.weight.copy_(solved[0])
    layer.bias.copy_(solved[1])
