"""Deep metric learning with triplets."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import above, one_of, sizes, whole
from ssl_lightning.functional.kmeans import kmeans
from ssl_lightning.functional.losses import (
    Negatives,
    gather_rows,
    mine_triplets,
    same_class,
    squared_distances,
)
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.base import join

Positives = Literal["augmentation", "labels", "neighbours", "clusters"]


class Triplet(SSLMethod):
    r"""Metric learning: an anchor is nearer to its positive than to its negative, by a margin.

    With f the normalised projection, and a triplet of anchor a, positive p and negative n mined in the batch,

    .. math:: L = \max(0, \epsilon + \lVert f(a) - f(p) \rVert^2 - \lVert f(a) - f(n) \rVert^2)

    averaged over the anchors. Every view of the batch is an anchor once. What is a positive:

    - `augmentation`: another view of the anchor's sample; no labels needed.
    - `labels`: a view of a sample of the same class; an unlabelled anchor has its own views.
    - `neighbours`: a view of one of the `neighbours` samples whose embeddings in the batch are nearest to the anchor's.
    - `clusters`: a view of a sample in the same cluster, of k-means with `clusters` clusters on the batch's embeddings.

    The positives of the last two are drawn among those and the anchor's other views. An anchor's own sample, class,
    neighbours or cluster have no negatives.

    Args:
        backbone: The encoder to pretrain.
        views: Random views, at least two; null for those of the data.
        margin: The margin, :math:`\epsilon`, in squared distances on the unit sphere, which go from 0 to 4.
        positives: What is a positive of an anchor; see above.
        negatives: How the negative is chosen: `random`; `hard`, the nearest; or `semi-hard`, the nearest that is
            farther than the positive, and where there is none the farthest.
        neighbours: Number of samples, for `positives="neighbours"`; fewer where a batch would be left no negative.
        clusters: Number of clusters, for `positives="clusters"`.
        projection_dim: Size of f, by one hidden layer; 0 for the backbone's embedding itself.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        F. Schroff, D. Kalenichenko, J. Philbin, FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR
        2015, arXiv 1503.03832, Eq. 3; the mean of the triplets where the paper sums. Triplets come from all processes.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Triplet(ConvNet(width=4), margin=0.2).eval()
        >>> batch = Batch(torch.zeros(4), torch.tensor([-1, -1, -1, -1]), torch.arange(4))
        >>> views = [torch.zeros(4, 1, 8, 8)] * 2  # all alike: positives are as far as negatives
        >>> round(float(model.compute_loss(views, batch)["loss"]), 3)  # the margin
        0.2
    """

    family: ClassVar[str] = "metric"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        margin: float = 0.2,
        positives: Positives = "augmentation",
        negatives: Negatives = "semi-hard",
        neighbours: int = 1,
        clusters: int = 10,
        projection_dim: int = 128,
        **kwargs: Any,
    ) -> None:
        above(0, margin=margin)
        one_of(get_args(Positives), positives=positives)
        one_of(get_args(Negatives), negatives=negatives)
        whole(1, neighbours=neighbours)
        whole(2, clusters=clusters)
        sizes(2 if projection_dim else 0, "a normalised number is 1 or -1", projection_dim=projection_dim)
        super().__init__(backbone, views, **kwargs)
        self.margin, self.positives, self.negatives = margin, positives, negatives
        self.neighbours, self.clusters = neighbours, clusters
        self._told = False
        dim = self.backbone.feature_dim
        self.projector: nn.Module = nn.Identity()
        if projection_dim:
            self.projector = nn.Sequential(
                nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, projection_dim)
            )

    def on_train_start(self) -> None:
        """Say so where labels are wanted and there are none."""
        if self.positives == "labels":
            self.tell_missing_labels("every sample has its own views as its only positives, as with `augmentation`")

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Mine a triplet for each view of the batch, and pull it into order."""
        h = self.backbone(join(views))  # (views * N, dim)
        with full_precision(h):
            f = gather_rows(normalize(self.projector(h.float()), dim=1))
            index, targets = (gather_rows(rows.repeat(len(views))) for rows in (batch.index, batch.target))
            distances = squared_distances(f)
            own = index[:, None] == index
            same = self._same(f.detach(), distances.detach(), targets, index)
            draws = torch.rand(len(f), 2, generator=self.generator("triplets"))
            anchor, positive, negative = mine_triplets(
                distances.detach(), own if self.positives == "augmentation" else same, same, self.negatives,
                onto(draws, f.device),
            )  # fmt: skip
            # Read from the matrix, where no entry is read twice: the gradient of f[anchor] would add up in any order.
            pulled, pushed = (distances[anchor, other] for other in (positive, negative))
            losses = (self.margin + pulled - pushed).relu()
        self._tell(len(losses), len(f), int(own.sum(dim=1).max()))
        if self._trainer:
            self.log("train/active_triplets", (losses > 0).float().mean(), sync_dist=True, batch_size=len(index))
        return {"loss": losses.sum() / max(1, len(losses)), "embedding": h[: len(batch.target)]}

    def _tell(self, triplets: int, rows: int, views: int) -> None:
        """Warn, once, of a batch that teaches nothing, or little since it is small."""
        words = ""
        if rows == views:  # one sample: the last batch of an epoch may be
            return
        if not triplets:
            words = f'no sample has a negative with `positives="{self.positives}"`, so that the loss is 0; give larger '
            words += "batches, or more `clusters`" if self.positives == "clusters" else "batches"
        elif self.positives == "neighbours" and self.neighbours >= rows - views:
            words = f"`neighbours={self.neighbours}` are all others but one, which is left as the negative; lower it"
        if words and not self._told:
            self._told = True
            rank_zero_warn(f"in a batch of {rows // views} samples {words}.")

    def _same(self, f: Tensor, distances: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Tell which rows are no negatives of which, boolean `(M, M)`."""
        own = index[:, None] == index
        match self.positives:
            case "augmentation":
                return own
            case "labels":
                return same_class(targets, index)
            case "neighbours":
                count = max(0, min(self.neighbours, len(f) - int(own.sum(dim=1).max()) - 1))  # a negative is left
                near = distances.masked_fill(own, torch.inf).topk(count, dim=1, largest=False).indices
                return own | torch.zeros_like(own).scatter(1, near, True)
            case "clusters":
                k = min(self.clusters, len(f))
                cluster = kmeans(f, k, self.generator("clusters"), engine="torch").assignments
                return own | (cluster[:, None] == cluster)
