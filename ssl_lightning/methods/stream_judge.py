"""What ViLBERT's streams take from each other: losses with the right partner, and with another pair's."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ssl_lightning.backbones.two_streams import holistic
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.retrieval import content_ids, same
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import Pair
from ssl_lightning.transforms.pairs.masks import mask_each, partners

JUDGED = (
    "alignment_accuracy",
    "masked_word_loss",
    "masked_word_loss_other_image",
    "masked_region_loss",
    "masked_region_loss_other_text",
)


class Losses(NamedTuple):
    """Sums of losses, and how many they are of.

    Attributes:
        word: Sum over masked words of their cross-entropy.
        words: Masked words.
        region: Sum over masked regions of the divergence.
        regions: Masked regions.
        match: Log of the odds that image and text belong together, `(N,)`.
    """

    word: Tensor
    words: Tensor
    region: Tensor
    regions: Tensor
    match: Tensor


class StreamJudge(nn.Module):
    """Means over the pairs judged so far, with masks and partners that stay the same."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict({name: MeanMetric() for name in JUDGED})

    def judge(self, method: Any, pairs: Pair, batch: Batch) -> None:
        """Judge a batch.

        Args:
            method: `ViLBERT`.
            pairs: Clean.
            batch: They come from.
        """
        net, length, ids = method.streams, pairs.text.length, content_ids(batch.input)
        masked = mask_each(pairs, batch.index, method.mask_ratio, net.regions, method.word_bias.numel())
        (other,), (apart,) = partners(same(*ids, *ids), 1, derive_generator("partners"))
        own = torch.arange(len(other), device=other.device)
        seen, read = net.see(pairs.image, masked.hidden), net.read(masked.text)
        for suffix, which in (("", own), ("_other_image", other)):
            told = method.losses(pairs, masked, seen[which], read, apart)
            self._note(f"masked_word_loss{suffix}", told.word, told.words)
        whole, nothing = net.read(pairs.text), torch.zeros_like(masked.words)
        for suffix, which in (("", own), ("_other_text", other)):
            text = Padded(masked.text.values, length[which])
            told = method.losses(pairs, masked._replace(text=text, words=nothing), seen, whole[which], apart)
            self._note(f"masked_region_loss{suffix}", told.region, told.regions)
        seen = net.see(pairs.image)
        for which, right in ((own, True), (other, False)):
            match = net.alignment(holistic(*net.join(seen[which], whole, length)))[:, 0]
            self._note("alignment_accuracy", ((match > 0) == right)[apart].sum(), apart.sum())

    def _note(self, name: str, total: Tensor, count: Tensor) -> None:
        metric: Any = self.metrics[name]
        if count > 0:
            metric.update(total / count, count)

    def told(self, part: str) -> dict[str, Any]:
        """Return the metrics under the names that they are logged by."""
        return {f"{part}/{name}": metric for name, metric in self.metrics.items()}
