"""Deep clustering."""

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import Copied
from ssl_lightning.engine.passes import sweep
from ssl_lightning.engine.processes import Rows, gather
from ssl_lightning.engine.ranges import one_of, whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.functional.kmeans import Engine, kmeans
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.base import join


class DeepCluster(SSLMethod):
    r"""Cluster the features, learn to predict the clusters, and again.

    Before an epoch, the features of all training samples, whitened by PCA and normalised, are clustered around the k
    columns of C, each sample in one cluster y (Eq. 2), and the network with a fresh classifier g learns them (Eq. 1):

    .. math:: \min_C \frac1N \sum_n \min_{y_n} \lVert f(x_n) - C y_n \rVert^2, \qquad
        \min_{\theta, W} \frac1N \sum_n -\log softmax(g_W(f_\theta(x_n)))_{y_n}

    Samples are drawn evenly over the clusters, so that a large one does not swallow everything. Logs, for each
    clustering, the normalised mutual information with the one before (`train/nmi_previous`: how stable) and, where
    there are labels, with those (`train/nmi_labels`); neither is used in training.

    Args:
        backbone: The encoder to pretrain.
        views: Random views of a sample, all with its cluster's number; null for those of the data.
        clusters: Number of clusters, k; the paper found ten times the number of classes good.
        every_n_epochs: Number of epochs from one clustering to the next.
        pca_dim: Dimensions left of the features before clustering; at most theirs.
        engine: Engine of k-means; see `ssl_lightning.functional.kmeans.kmeans`.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        M. Caron, P. Bojanowski, A. Joulin, M. Douze, Deep Clustering for Unsupervised Learning of Visual Features, ECCV
        2018, arXiv 1807.05520. The first clustering is of the untrained network's features, as there. No Sobel filter.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = DeepCluster(ConvNet(width=4), clusters=7)
        >>> model.head(model.embed(torch.rand(3, 1, 8, 8))).shape  # which of the clusters
        torch.Size([3, 7])
    """

    family: ClassVar[str] = "clustering"
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        clusters: int = 100,
        every_n_epochs: int = 1,
        pca_dim: int = 64,
        engine: Engine = "auto",
        **kwargs: Any,
    ) -> None:
        whole(2, clusters=clusters)
        whole(1, every_n_epochs=every_n_epochs, pca_dim=pca_dim)
        one_of(get_args(Engine), engine=engine)
        super().__init__(backbone, views, **kwargs)
        self.clusters, self.every_n_epochs, self.pca_dim, self.engine = clusters, every_n_epochs, pca_dim, engine
        self.head = nn.Linear(self.backbone.feature_dim, clusters)
        self.assignments = torch.empty(0, dtype=torch.int64)  # of every training sample; -1: not in this fit
        self.clustered_at = -1  # epoch
        self._copied = Copied()
        self._news: dict[str, float] = {}

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Classify each view by the cluster of its sample."""
        h = self.backbone(join(views))
        with full_precision(h):
            targets = self._copied.there(self.assignments, h.device)[batch.index].repeat(len(views))
            loss = cross_entropy(self.head(h.float()), targets)
        return {"loss": loss, "embedding": h[: len(batch.target)]}

    def on_fit_start(self) -> None:
        """Cluster before the first epoch, or take the checkpoint's clusters."""
        if self.clustered_at < 0:
            self._cluster(0)
        self._data().draw_evenly_over(self.assignments)

    def on_train_start(self) -> None:
        """Cluster where a resumed fit begins with a new epoch: Lightning leaves out `on_train_epoch_start` then."""
        self._cluster_if_due()

    def on_train_epoch_start(self) -> None:
        """Cluster again where it is due, and tell how the clusters changed."""
        self._cluster_if_due()
        self.log_dict({f"train/{name}": value for name, value in self._news.items()})
        self._news = {}

    def _cluster_if_due(self) -> None:
        due = self.current_epoch - self.current_epoch % self.every_n_epochs
        if self.clustered_at < due:
            self._cluster(due)
            self._data().draw_evenly_over(self.assignments)

    def _data(self) -> Any:
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError(
                "`DeepCluster` looks at all training samples, and so needs a data module of `ssl_lightning.data`: "
                "`trainer.fit(method, datamodule=FromDataset(dataset))`."
            )
        return data

    def _cluster(self, epoch: int) -> None:
        """Cluster the features of all training samples, on the first process, and start the classifier afresh."""
        data = self._data()
        targets, indices = data.train_samples.targets, data.train_indices
        if self.clusters > len(indices):
            raise ValueError(f"`clusters={self.clusters}` exceeds the {len(indices)} training samples; lower it.")
        loader = data.evaluation_loader(data.train_samples, indices)
        rows = gather(sweep(self.trainer, self, loader, self._features))
        generator = derive_generator(self._seed, "clusters", epoch)
        found = None
        if self.trainer.is_global_zero:
            features = whiten(rows["features"].to(self.device), self.pca_dim)
            if features.shape[1]:
                found = kmeans(features, self.clusters, generator, engine=self.engine).assignments.cpu()
        found = self.trainer.strategy.broadcast(found)
        if found is None:  # said in every process, so that none waits for another
            raise ValueError(
                "all training samples have the same features, and no clusters: the encoder is dead; look at the input, "
                "lower the learning rate, or begin with another encoder."
            )
        before, self.assignments = self.assignments, torch.full((len(targets),), -1)
        self.assignments[rows["index"]] = found
        known = targets[rows["index"]] >= 0
        self._news = {"clusters_used": float(len(set(found.tolist())))}
        if len(before):
            self._news["nmi_previous"] = nmi(before[rows["index"]], found)
        if known.any():
            self._news["nmi_labels"] = nmi(targets[rows["index"]][known], found[known])
        self._reset_head(derive_generator(self._seed, "head", epoch))
        self.clustered_at = epoch

    def _features(self, batch: Batch) -> Rows:
        return {"features": self.embed(self.prepare(batch)).float()}

    def _reset_head(self, generator: torch.Generator) -> None:
        weight = torch.empty(self.head.weight.shape).normal_(0, 0.01, generator=generator)
        self.head.weight.data.copy_(weight)
        self.head.bias.data.zero_()
        for optimizer in self.trainer.optimizers:  # its moments are those of the former classifier
            for parameter in self.head.parameters():
                optimizer.state.pop(parameter, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the clusters beside the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["clusters"] = {"assignments": self.assignments, "clustered_at": self.clustered_at}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clusters along."""
        super().on_load_checkpoint(checkpoint)
        clusters = checkpoint.get("clusters", {})
        self.assignments = clusters.get("assignments", self.assignments)
        self.clustered_at = clusters.get("clustered_at", -1)


def whiten(features: Tensor, dim: int) -> Tensor:
    """Project to the principal components, each scaled to variance 1, and each row to length 1.

    Args:
        features: `(N, d)`.
        dim: Components kept; at most d, and only those with more variance than float32 makes of none.

    Returns:
        `(N, min(dim, d))` or fewer columns; none where all rows are the same.
    """
    rows = features.double()
    noise = torch.finfo(torch.float32).eps ** 2 * rows.square().mean(dim=0).max() * rows.shape[1]
    rows = rows - rows.mean(dim=0)
    variances, components = torch.linalg.eigh(rows.T @ rows / len(rows))
    kept = (variances > noise).nonzero()[:, 0][-dim:]
    return normalize(rows @ components[:, kept] / variances[kept].sqrt(), dim=1).float()


def nmi(one: Tensor, other: Tensor) -> float:
    """Return the normalised mutual information of two partitions `(N,)`: 1 if they are the same, 0 if independent."""
    from sklearn.metrics import normalized_mutual_info_score  # here, since nothing else wants it

    return float(normalized_mutual_info_score(one.numpy(), other.numpy()))
