"""What data are called, by the facts that they tell."""

from collections.abc import Iterable

# the first whose facts are all there
MODALITIES = {
    "images with text": {"image_size", "vocab_size"},
    "images": {"channels", "image_size"},
    "text": {"vocab_size"},
    "sound": {"sample_rate"},
    "rows": {"feature_dim"},
}


def modality_of(facts: Iterable[str]) -> str:
    """Return what data are called that have such facts; empty for a stranger's own.

    Example:
        >>> modality_of(["num_classes", "channels", "image_size"]), modality_of(["wave_length"])
        ('images', '')
    """
    have = set(facts)
    return next((name for name, needed in MODALITIES.items() if needed <= have), "")
