"""A frozen encoder that encodes each sample of the data once, however many rounds, passes, steps and heads want it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.data.embeddings import Embeddings
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.naming import class_path
from ssl_lightning.engine.passes import evaluating
from ssl_lightning.engine.processes import gather, joined
from ssl_lightning.transforms.base import describe_clean

SIZE = 64  # samples that are encoded at once for the steps of a fit: rounding differs with the batch
BUFFER = 2**28  # bytes of embeddings that are held before they are handed over


class EncodesOnce:
    """Takes embeddings from the data's memory where it has them, and puts there what it had to encode.

    Only what the classifier itself has just made of a batch is looked up, so that nobody gets the embedding of
    something else. For the steps of a fit, all that it learns from is encoded before the first, in batches of one size,
    so that a resumed fit ends in the same weights.

    Args:
        module: A `Classifier` whose encoder is frozen.
    """

    def __init__(self, module: Any) -> None:
        self._module = (module,)  # not as a part of it
        self._maker: tuple[str, ...] | None = None  # tells the encoder, what it is given, and the numbers it works with
        self._last: tuple[Any, str, Tensor] | None = None  # the clean input made last, its part and positions
        self._rows: tuple[Any, Tensor] | None = None  # what was encoded last outside a fit, and its embeddings
        self._new: dict[tuple[Any, str], list[tuple[Tensor, Tensor]]] = {}  # positions and rows to be handed over
        self._bytes = 0

    def note(self, inputs: Any, batch: Batch) -> None:
        """Remember of which samples the clean input is."""
        self._last = (inputs, batch.part, batch.index) if batch.part else None

    def embed(self, inputs: Any) -> Tensor:
        """Return embeddings, `(N, feature_dim)`."""
        module = self._module[0]
        memory = None if self._last is None else self._memory(self._last[1], _dtype_now(module.device.type))
        if self._last is None or self._last[0] is not inputs or memory is None:
            encoded: Tensor = module.backbone(inputs)
            return encoded
        _, part, index = self._last
        found = memory.find(part, index)
        if found is None and self._rows is not None and self._rows[0] is inputs and not module.training:
            found = self._rows[1]  # probabilities and embeddings of one batch
        elif found is None:
            found = module.backbone(inputs)
            if not module.training:
                self._rows = (inputs, found)
                self._new.setdefault((memory.maker, part), []).append((index.cpu(), found.detach().cpu()))
                self._bytes += found.nbytes
                if self._bytes > BUFFER:
                    self.hand_over()
        return found

    def hand_over(self) -> None:
        """Let the data remember what was encoded."""
        new, self._new, self._bytes, self._rows = self._new, {}, 0, None
        memory = self._of_data()
        for (maker, part), found in new.items():
            if memory is not None and memory.maker == maker and memory.knows(part):
                memory.keep(part, torch.cat([index for index, _ in found]), torch.cat([rows for _, rows in found]))

    @contextmanager
    def passing(self, loader: Any) -> Iterator[None]:
        """Look up what a pass over a loader is about to encode, and hand over what it did; in every process."""
        part, share = part_of(loader), getattr(getattr(loader, "sampler", None), "share", None)
        memory = None if share is None else self._memory(part)
        if memory is None or part is None:
            yield
            return
        with memory.filling(part, torch.tensor(share, dtype=torch.int64)):
            yield
            self.hand_over()

    def look(self, loaders: Any) -> None:
        """Find what former runs encoded of what Lightning's loops bring."""
        for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
            part = part_of(loader)
            memory = self._memory(part)
            if memory is not None and part is not None:
                memory.look(part)

    def learn(self, loader: Any, samples: Any, indices: Tensor) -> None:
        """Encode what a fit learns from, each process its share.

        Args:
            loader: Of the fit.
            samples: That it draws from.
            indices: Which of these, `(N,)`.
        """
        part, module = part_of(loader), self._module[0]
        memory = self._memory(part)
        if memory is None or part is None:
            return
        known = torch.unique(indices[samples.targets[indices] >= 0])
        with memory.filling(part, known):
            missing, trainer, found = memory.missing(part, known), module.trainer, []
            with evaluating(trainer, module):
                for places in torch.split(missing, SIZE)[trainer.global_rank :: trainer.world_size]:
                    if not len(places):
                        break
                    filled = torch.cat([places, places[-1:].expand(SIZE - len(places))])
                    batch = trainer.strategy.batch_to_device(samples.__getitems__(filled.tolist()))
                    rows = module.backbone(module.prepare(batch))[: len(places)]
                    found.append({"index": places, "rows": rows.cpu()})
            rows = gather(joined(found))
            if len(rows["index"]):
                memory.keep(part, rows["index"], rows["rows"], write=trainer.is_global_zero)

    def _of_data(self) -> Embeddings | None:
        memory = getattr(getattr(self._module[0]._trainer, "datamodule", None), "embeddings", None)
        return memory if isinstance(memory, Embeddings) else None

    def _memory(self, part: str | None, dtype: torch.dtype | None = None) -> Embeddings | None:
        """Return that of the data the part is of, if it can be told what is in it.

        Args:
            part: Its name; null where nobody knows it.
            dtype: Numbers that the encoder works with; null for those of the trainer.
        """
        module, memory = self._module[0], self._of_data()
        clean = describe_clean(module.clean)
        if memory is None or part is None or not memory.knows(part) or clean is None:
            return None
        if self._maker is None:
            content = hashlib.sha256()
            for name, value in (*module.backbone.named_parameters(), *module.backbone.named_buffers()):
                content.update(name.encode())
                content.update(value.detach().cpu().contiguous().flatten().double().numpy().tobytes())
            built = (class_path(type(module.backbone)), repr(module.backbone), repr(module.backbone.init_args))
            self._maker = (content.hexdigest(), *built, repr(clean), str(module.channels_last), torch.__version__)
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        numbers = dtype or kinds.get(str(module.trainer.precision), torch.float32)
        return memory.by((*self._maker, module.trainer.strategy.root_device.type, str(numbers)))


def _dtype_now(device: str) -> torch.dtype:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32


def part_of(loader: Any) -> str | None:
    """Return the name of the part of the data that a loader of ours brings; null for a stranger's."""
    words = getattr(getattr(loader, "collate_fn", None), "keywords", None) or {}
    part: str | None = words.get("part")
    return part
