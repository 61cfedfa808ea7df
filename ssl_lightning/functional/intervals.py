"""How sure a share is that was counted; without torch, so that reports need none."""

import math


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    r"""Return the interval of a share that was found in a sample, such as an accuracy on some test samples.

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    Args:
        share: p, from 0 to 1.
        count: n, samples, at least 1; drawn at random from what the share is to be known of.
        z: Standard errors; by default of 95 %.

    Returns:
        Lower and upper end, within 0 to 1.

    Reference:
        E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.

    Example:
        >>> [round(end, 3) for end in wilson(0.8, 50)]
        [0.67, 0.888]
    """
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
