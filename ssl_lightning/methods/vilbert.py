"""ViLBERT: masked words and regions, each filled in from both streams, and pairs told from mismatches."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softplus

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.two_streams import TwoStreams, holistic
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import between, several, whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.retrieval import content_ids, same
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.methods.stream_judge import Losses, StreamJudge
from ssl_lightning.networks.codebook import Codebook
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.pairs import Pair, PairViews
from ssl_lightning.transforms.pairs.masks import Masked, mask_pairs, partners

CODED = 20_000  # regions that the codebook is fitted to, at most


class ViLBERT(SSLMethod):
    r"""Two streams, of image regions and of words, learn to fill in what is masked, and to tell pairs from mismatches.

    15 % of the words are masked as in BERT (80 % by MASK, 10 % by another word, 10 % not), and 15 % of the regions
    (90 % with features set to 0, 10 % not). Every text is also seen with the image of another pair of the batch, never
    one with the same image or text. With w the masked words, r the masked regions and m whether text and image are
    matched:

    .. math:: L = -\log p(w) + KL(q_r \,\Vert\, p_r) - \log p(m)

    each a mean, the first two over matched pairs alone, the last over matched and mismatched ones, half by half. A
    detector's distribution over classes of objects is what :math:`q_r` is in the paper. Here it is a soft assignment of
    the region's own pixels, as the view has them, to K centres of k-means over training regions, found once when the
    fit begins, and kept in the checkpoint:

    .. math:: q_r(k) = \mathrm{softmax}_k(-\lVert x_r - c_k \rVert^2 / \tau), \qquad
        \tau = \text{mean squared distance to the nearest centre}

    Logs every loss, and in validation and test, with masks and partners that stay the same: `val/alignment_accuracy`
    on pairs and as many mismatches, `val/masked_word_loss` and `val/masked_region_loss`, each with the right partner
    and another pair's (`..._other_image`, `..._other_text`): the difference is what a stream takes from the other.

    Args:
        backbone: Encoder of two streams, as `TwoStreams`.
        views: One random view; null for mild crops and colours, the text as it is.
        mask_ratio: Share of words, and of regions, that are masked.
        mismatches: Images of other pairs that each text is seen with in a step; more of them generalise better from few
            pairs, and cost a pass through the joint layers each.
        codes: Centres of the codebook, K.
        weights: Weights of the losses of words, of regions and of the alignment; in the paper all are 1.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the encoder has no two streams, a number is out of its range, or there are fewer training regions
            than codes.

    Reference:
        J. Lu, D. Batra, D. Parikh, S. Lee, ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for
        Vision-and-Language Tasks, NeurIPS 2019, arXiv 1908.02265, section 2.2. Regions are cells of a grid, and their
        targets a codebook: no detector is needed. There a pair is either matched or mismatched, in turn, and here it is
        both in each step. The words' stream learns from scratch, and does not begin as BERT.

    Example:
        >>> from ssl_lightning.backbones import TwoStreams
        >>> from ssl_lightning.transforms.padded import Padded
        >>> model = ViLBERT(TwoStreams(50, image_size=16, dim=16, regions=2), codes=8)
        >>> pairs = Pair(torch.zeros(2, 3, 16, 16), Padded(torch.ones(2, 5, dtype=torch.int64), torch.tensor([5, 3])))
        >>> model.embed(pairs).shape  # image and words together
        torch.Size([2, 16])
    """

    family: ClassVar[str] = "images with text"
    takes: ClassVar[tuple[str, ...]] = ("images with text",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        mask_ratio: float = 0.15,
        mismatches: int = 1,
        codes: int = 64,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        between(0, 1, "()", mask_ratio=mask_ratio)
        whole(1, mismatches=mismatches)
        whole(2, codes=codes)
        several(3, 0, math.inf, "[]", "of words, regions and the alignment", weights=weights)
        super().__init__(backbone, views or PairViews(count=1, drop=0.0), **kwargs)
        net = self.streams
        self.mask_ratio, self.mismatches, self.weights = mask_ratio, mismatches, tuple(weights)
        dim, size = net.feature_dim, net.init_args["channels"] * net.cell**2
        self.word_head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.word_bias = nn.Parameter(torch.zeros(net.word.num_embeddings))
        self.region_head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, codes))
        self.codebook = Codebook(codes, size)
        self.judged = StreamJudge()

    @property
    def streams(self) -> TwoStreams:
        """The encoder.

        Raises:
            ValueError: If it has no two streams.
        """
        if not isinstance(self.backbone, TwoStreams):
            raise ValueError(
                f"`ViLBERT` needs an encoder of two streams, and `{type(self.backbone).__name__}` has none; give "
                "`--model.backbone TwoStreams`."
            )
        return self.backbone

    def on_fit_start(self) -> None:
        """Fit the codebook, or take the checkpoint's."""
        if self.codebook.fitted:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError(
                "`ViLBERT` looks at training regions before the first step, and so needs a data module of "
                "`ssl_lightning.data`: `trainer.fit(method, datamodule=Pairs(...))`."
            )
        found, indices = None, data.train_indices
        if self.trainer.is_global_zero:
            count = min(len(indices), max(1, CODED // self.streams.regions))
            some = indices[torch.linspace(0, len(indices) - 1, count).long()]
            batch = data.train_samples.__getitems__(some.tolist())
            images = self.prepare(Batch(batch.input, batch.target, batch.index)).image
            regions = self.streams.pixels(images).flatten(0, 1).flatten(1).float().cpu()
            found = self.codebook.found(regions, derive_generator(self._seed, "codes"))
        found = self.trainer.strategy.broadcast(found)
        if found is None:  # said in every process, so that none waits for another
            codes = len(self.codebook.centres)
            raise ValueError(f"`codes={codes}` exceeds the regions of the training images; lower it.")
        self.codebook.take(*found)

    def losses(self, pairs: Pair, masked: Masked, seen: Tensor, read: Tensor, counted: Tensor | None = None) -> Losses:
        """Fill in what is masked, and tell whether image and text are matched.

        Args:
            pairs: Clean, or a view: what must be told.
            masked: Of them.
            seen: The images as the visual stream begins, `(N, 1 + R, d)`; perhaps of other pairs.
            read: The texts by themselves, `(N, T, d)`; perhaps of other pairs.
            counted: Pairs whose words and regions count, boolean, `(N,)`; null for all.
        """
        net = self.streams
        regions, words = net.join(seen, read, masked.text.length)
        with full_precision(words):
            kind = self.word_bias.dtype
            regions, words = regions.to(kind), words.to(kind)
            match = net.alignment(holistic(regions, words))[:, 0]
            chosen = masked.words if counted is None else masked.words & counted[:, None]
            logits = self.word_head(words[chosen]) @ net.word.weight.T + self.word_bias
            word = cross_entropy(logits, pairs.text.values[chosen].long(), reduction="sum")
            places = masked.regions if counted is None else masked.regions & counted[:, None]
            wanted = self.codebook(net.pixels(pairs.image).flatten(2))[places]
            told = log_softmax(self.region_head(regions[:, 1:][places]), dim=1)
            region = (torch.xlogy(wanted, wanted) - wanted * told).sum()
        return Losses(word, chosen.sum(), region, places.sum(), match)

    def compute_loss(self, views: Sequence[Pair], batch: Batch) -> Step:
        """Mask a view, fill it in, and tell its images from those of others."""
        generator, net, pairs = self.local_generator("masks"), self.streams, views[0]
        masked = mask_pairs(pairs, self.mask_ratio, net.regions, self.word_bias.numel(), generator)
        seen, read = net.see(pairs.image, masked.hidden), net.read(masked.text)
        found = self.losses(pairs, masked, seen, read)
        others, there = partners(same(*(ids := content_ids(batch.input)), *ids), self.mismatches, generator)
        apart = [net.alignment(holistic(*net.join(seen[one], read, masked.text.length)))[:, 0] for one in others]
        with full_precision(read):
            wrong = torch.stack(apart).to(found.match.dtype)
            count = there.sum().clamp(min=1)
            parts = {
                "word": found.word / found.words.clamp(min=1),
                "region": found.region / found.regions.clamp(min=1),
                "alignment": (softplus(-found.match).mean() + (softplus(wrong) * there).sum() / count) / 2,
            }
            right = ((found.match > 0).float().mean() + ((wrong < 0) & there).sum() / count) / 2
        if self._trainer is not None:
            logged = {f"train/{name}_loss": value.detach() for name, value in parts.items()}
            self.log_dict(logged | {"train/alignment_accuracy": right}, batch_size=len(batch.target))
        weighed = [weight * part for weight, part in zip(self.weights, parts.values(), strict=True)]
        return {"loss": torch.stack(weighed).sum()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean input, and judge the streams, with the right partner and with another's."""
        found = super().validation_step(batch, batch_idx)
        if self.codebook.fitted and len(batch.target) > 1:
            self.judged.judge(self, self.prepare(batch), batch)
        return found

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log in every process, also in one that had no sample."""
        self.log_dict(self.judged.told("val"))

    def on_test_epoch_end(self) -> None:
        """Log in every process."""
        self.log_dict(self.judged.told("test"))
