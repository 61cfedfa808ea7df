"""Tensors in, tensors out: scores, selections, clusters, losses. Nothing here knows a model or a data set."""
