"""Random views of pairs: crops and colours of the image, words left out of the text."""

from collections.abc import Sequence

import torch
from torch import nn

from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.transforms.image import MultiCropViews, SimCLRViews
from ssl_lightning.transforms.pairs.pair import CleanPair, Pair
from ssl_lightning.transforms.text.views import TokenViews


class PairViews(nn.Module):
    """Some random views of each pair; image and text by draws of their own.

    Images are not mirrored unless you ask for it: a caption may say left, or spell what is written there.

    Args:
        count: Views of each pair.
        crop_scale: Smallest and largest area of the crop, as a fraction of the image's.
        flip: Probability of mirroring the image left to right.
        strength: Strength of the colour jitter, as for `SimCLRViews`.
        grayscale: Probability of replacing the colours by their luminance.
        drop: Probability of leaving a token out of the text, but its first and last; one is always left. 0 leaves texts
            as they are.
        local_count: Further views with small crops of the image.
        mean: What is subtracted from pixels at the end, one number or one for each channel, in units of [0, 1].
        std: What they are divided by at the end, likewise.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from ssl_lightning.transforms.padded import Padded
        >>> pairs = Pair(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), Padded(torch.full((2, 4), 9), torch.tensor([4, 3])))
        >>> view = PairViews(count=1, drop=0.0)(pairs, torch.Generator().manual_seed(0))[0]
        >>> view.image.shape, view.text.length
        (torch.Size([2, 3, 8, 8]), tensor([4, 3]))
    """  # noqa: E501

    def __init__(
        self,
        count: int = 2,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: float = 0.0,
        strength: float = 0.25,
        grayscale: float = 0.1,
        drop: float = 0.2,
        local_count: int = 0,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
    ) -> None:
        whole(1, count=count)
        whole(0, local_count=local_count)
        between(0, 1, "[)", drop=drop)
        super().__init__()
        self.clean = CleanPair(mean, std)  # before the image's own: it is what the views tell
        options = {"flip": flip, "strength": strength, "grayscale": grayscale, "mean": mean, "std": std}
        self.image: nn.Module = (
            MultiCropViews(count, local_count, global_scale=crop_scale, **options)  # type: ignore[arg-type]
            if local_count
            else SimCLRViews(count=count, crop_scale=crop_scale, **options)  # type: ignore[arg-type]
        )

        self.text = None if drop == 0 else TokenViews(count + local_count, drop, span_cut=0.0, crop=1.0)

    @torch.no_grad()
    def forward(self, pairs: Pair, generator: torch.Generator | None = None) -> list[Pair]:
        """Return the views of pairs with uint8 images, their images float32.

        Args:
            pairs: Of N pairs.
            generator: Of the CPU; None takes torch's global one.
        """
        images = self.image(pairs.image, generator)
        texts = [pairs.text] * len(images) if self.text is None else self.text(pairs.text, generator)
        return [Pair(image, text) for image, text in zip(images, texts, strict=True)]


def pair_views(count: int = 2, mild: bool = False, local_count: int = 0) -> PairViews:
    """Return random views that suit pairs.

    Args:
        count: Views of each pair.
        mild: As a classifier wants them, near to the pair.
        local_count: Further views with small crops of the image.
    """
    if mild:
        return PairViews(count, strength=0.0, grayscale=0.0, drop=0.0)
    return PairViews(count, crop_scale=(0.3, 1.0), strength=0.5, grayscale=0.2, local_count=local_count)
