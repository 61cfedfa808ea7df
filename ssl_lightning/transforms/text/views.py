"""Random views of texts: tokens left out, by a draw of each text's own; or the text itself, where the encoder drops."""

import torch
from torch import Tensor, nn

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.transforms.padded import Padded, inside


def scattered(length: Tensor, total: int, generator: torch.Generator | None) -> Tensor:
    """Draw a number from [0, 1) for every token, whatever the texts are filled up to.

    Args:
        length: Of each text, `(N,)`.
        total: T, what they are filled up to.
        generator: Of the CPU.

    Returns:
        `(N, T)` on the CPU; 0 behind the end.

    Example:
        >>> short, long = (scattered(torch.tensor([1, 2]), total, torch.Generator().manual_seed(0)) for total in (2, 9))
        >>> bool((long[:, :2] == short).all()), float(long[:, 2:].sum())
        (True, 0.0)
    """
    within = inside(length.cpu(), total)
    numbers = torch.zeros(within.shape)
    numbers[within] = torch.rand(int(within.sum()), generator=generator)
    return numbers


def kept_together(inputs: Padded, keep: Tensor, total: int | None = None) -> Padded:
    """Return the tokens that are kept, moved together.

    Args:
        inputs: N texts.
        keep: Boolean `(N, T)`, at least one within each text.
        total: What to fill up to; null for the longest.
    """
    keep = keep & inside(inputs.length.to(keep.device), keep.shape[1])
    length = keep.sum(dim=1)
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(length.max()) if total is None else total]
    values = inputs.values.gather(1, onto(order, inputs.values.device))
    length = onto(length, values.device)
    return Padded(values.masked_fill(~inside(length, values.shape[1]), 0), length)


class TokenViews(nn.Module):
    """Some views of each text: a part of it, less a span, less tokens here and there.

    The beginning and the end (`CLS`, `SEP`) stay, and at least one token between them. All views of a call are filled
    up to one length.

    Args:
        count: Views of each text.
        drop: Probability of leaving a token out.
        span_cut: Largest share of the tokens that is cut out in one piece; the share is drawn evenly from 0 on.
        crop: Smallest share of the tokens that is kept in one piece, before all else; drawn evenly up to 1.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Crops, span cuts and token drops: Z. Wu et al., CLEAR: Contrastive Learning for Sentence Representation, 2020,
        arXiv 2012.15466, section 3.

    Example:
        >>> inputs = Padded(torch.tensor([[2, 7, 8, 9, 3, 0]]), torch.tensor([5]))
        >>> view, = TokenViews(1, drop=0.9)(inputs, torch.Generator().manual_seed(0))
        >>> view.values[0, [0, -1]].tolist(), int(view.length)
        ([2, 3], 3)
    """

    def __init__(self, count: int = 2, drop: float = 0.1, span_cut: float = 0.2, crop: float = 0.6) -> None:
        super().__init__()
        whole(1, count=count)
        between(0, 1, "[)", drop=drop, span_cut=span_cut)
        between(0, 1, "(]", crop=crop)
        self.count, self.drop, self.span_cut, self.crop = count, drop, span_cut, crop

    @torch.no_grad()
    def forward(self, inputs: Padded, generator: torch.Generator | None = None) -> list[Padded]:
        """Return the views of texts `(N, T)`."""
        inputs = inputs._replace(length=inputs.length.cpu())  # read back once
        kept = [self._keep(inputs, generator) for _ in range(self.count)]
        total = int(torch.stack([(mask & inside(inputs.length, mask.shape[1])).sum(dim=1) for mask in kept]).max())
        return [kept_together(inputs, mask, total) for mask in kept]

    def _keep(self, inputs: Padded, generator: torch.Generator | None) -> Tensor:
        """Draw which tokens stay, `(N, T)`."""
        length, total = inputs.length.cpu(), inputs.values.shape[1]
        draws = torch.rand(len(length), 4, generator=generator)[
            ..., None
        ]  # share and place of the crop, and of the cut
        each = scattered(length, total, generator)
        place = torch.arange(total)
        inner = (place > 0) & (place < length[:, None] - 1)
        count = (length - 2).clamp(min=0)[:, None]
        size = (count * (self.crop + (1 - self.crop) * draws[:, 0])).ceil()
        start = 1 + (draws[:, 1] * (count - size + 1)).floor()
        keep = inner & (place >= start) & (place < start + size)
        cut = (size * self.span_cut * draws[:, 2]).floor()
        begin = start + (draws[:, 3] * (size - cut + 1)).floor()
        keep &= (place < begin) | (place >= begin + cut)
        best = each.masked_fill(~keep, -1).argmax(dim=1, keepdim=True)  # stays, whatever is dropped
        keep = keep & ((each >= self.drop) | (place == best))
        return keep | ~inner


class DropoutViews(nn.Module):
    """Each text as it is, several times: the encoder's dropout makes them differ (SimCSE).

    Args:
        count: Views of each text.

    Raises:
        ValueError: If `count` is below 1; when a fit begins, if the encoder drops nothing.

    Reference:
        T. Gao, X. Yao, D. Chen, SimCSE: Simple Contrastive Learning of Sentence Embeddings, EMNLP 2021, arXiv
        2104.08821, section 3.
    """

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        whole(1, count=count)
        self.count = count

    def forward(self, inputs: Padded, generator: torch.Generator | None = None) -> list[Padded]:
        """Return the inputs, `count` times."""
        return [inputs] * self.count

    def require_encoder(self, encoder: nn.Module) -> None:
        """Refuse an encoder that drops nothing, where there are several views.

        Raises:
            ValueError: If its views would be alike.
        """
        layers = (layer for layer in encoder.modules() if isinstance(layer, nn.modules.dropout._DropoutNd))
        if self.count > 1 and not any(layer.p > 0 for layer in layers):
            raise ValueError(
                f"`DropoutViews` are alike where the encoder drops nothing, as this `{type(encoder).__name__}`; give "
                "it dropout, such as `--model.backbone.dropout 0.1`, or take `TokenViews`."
            )


def text_views(count: int = 2, mild: bool = False) -> TokenViews:
    """Return random views that suit texts.

    Args:
        count: Views of each text.
        mild: As a classifier wants them, near to the text.
    """
    return TokenViews(count, drop=0.05, span_cut=0.0, crop=1.0) if mild else TokenViews(count)
