"""Embeddings on a plane."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Map = Literal["pca", "tsne", "umap"]
SHORT = 50  # dimensions that t-SNE and UMAP begin from


def principal(embeddings: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Return the first principal components.

    Args:
        embeddings: `(N, d)`, of at least two samples.
        count: Components; fewer where there are fewer dimensions or samples.

    Returns:
        Coordinates `(N, count)`, float64, each component turned so that its largest loading is positive; and the share
        of the variance that each explains, `(count,)`; 0 where all samples are alike.

    Example:
        >>> rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> places, shares = principal(rows, 1)
        >>> places[:, 0].tolist(), shares.round(decimals=6).tolist()
        ([-5.0, 0.0, 5.0], [1.0])
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    total = centred.square().sum()
    if len(centred) < centred.shape[1]:  # then the products of rows are the smaller matrix
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        directions = centred.T @ vectors[:, -count:]
        directions = directions / directions.norm(dim=0).clamp_min(1e-300)
    else:
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        directions = vectors[:, -count:]
    directions = directions.flip(1)
    largest = directions.abs().argmax(dim=0)
    signs = directions[largest, torch.arange(directions.shape[1])].sign()
    places = centred @ (directions * signs)
    return places, places.square().sum(dim=0) / total.clamp_min(1e-300)


def require_map(kind: Map) -> None:
    """Check that what draws a map is there.

    Raises:
        ValueError: If umap-learn is not.
    """
    if kind == "umap":
        try:
            import umap  # noqa: F401
        except ImportError as error:
            raise ValueError("`--map umap` needs umap-learn: `pip install umap-learn`, or take pca or tsne.") from error


def draw_map(embeddings: Tensor, drawn: list[int], kind: Map) -> tuple[Any, list[float]]:
    """Put embeddings on a plane.

    Args:
        embeddings: `(N, d)`.
        drawn: Numbers of those that are wanted.
        kind: `pca` of all, `tsne` or `umap` of those that are wanted.

    Returns:
        Places `(N, 2)`, NaN for the others, and what the two axes explain of the variance; empty if not of PCA.
    """
    spot = np.full((len(embeddings), 2), np.nan)
    places, explained = principal(embeddings, 2 if kind == "pca" else SHORT)
    if kind == "pca" or len(drawn) < 5:
        spot[drawn, : places.shape[1]] = places[drawn, :2].numpy()
        spot[drawn] = np.nan_to_num(spot[drawn])
        return spot, explained[:2].tolist()
    some = places[drawn].numpy()
    if kind == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(some) - 1) / 3)
        spot[drawn] = TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(some)
    else:
        from umap import UMAP

        spot[drawn] = UMAP(n_neighbors=min(15, len(some) - 1), random_state=0, n_jobs=1).fit_transform(some)
    return spot, []
