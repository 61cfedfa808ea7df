"""From unlabelled data to a good model with few labels: self-supervised and active learning on PyTorch Lightning."""

__version__ = "0.1.0"
