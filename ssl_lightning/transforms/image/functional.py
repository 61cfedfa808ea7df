"""Deterministic batched image operations: the inner layer of the random views, where a device is not a CPU (`kernels`).

Each function takes float32 images in [0, 1] of shape ``(N, C, H, W)`` and explicit parameters for every sample. Row
``i`` of the result equals the operation of the same name in `torchvision.transforms.v2.functional` on float image
``i`` with parameter ``i``, up to float32 rounding: 1e-5, and for crops 1e-7 more for each pixel of the image's side, as
places in it are rounded, too. No function draws a random number; those whose name ends in `_` work in place, and the
others leave their input as it is.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.engine.devices import onto

LUMINANCE = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # torchvision's numbering of the four operations of ColorJitter
_NATIVE_RESIZE_FROM = 128  # pixels: from about here, on a CPU, a loop over native resizes beats dense matrices
_BLUR_BLOCK = 32  # outputs of one band matrix: at 224 px 4 times fewer multiplications than a full one
_TINY = 1e-20


def crop_boxes(numbers: Tensor, height: int, width: int, scale: tuple[float, float]) -> Tensor:
    """Turn uniform numbers into crops distributed as those of torchvision's RandomResizedCrop.

    Area uniform, aspect ratio log-uniform in (3/4, 4/3); of ten attempts the first that fits the image, at a
    uniform place, or else the largest central crop within these ratios.

    Args:
        numbers: In [0, 1): ten for the areas, ten for the ratios, two for the place, shape ``(N, 22)``.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        scale: Smallest and largest area, as a fraction of the image's.

    Returns:
        Top, left, height and width in pixels, integer, shape ``(N, 4)``.
    """
    areas, ratios, places = torch.split(numbers, [10, 10, 2], 1)
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    ratios = torch.exp(math.log(4 / 3) * (2 * ratios - 1))
    wide, tall = (areas * ratios).sqrt_().round_(), (areas / ratios).sqrt_().round_()
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)
    tall = torch.where(found, tall.gather(1, first)[:, 0], min(height, round(width * 4 / 3)))
    wide = torch.where(found, wide.gather(1, first)[:, 0], min(width, round(height * 4 / 3)))
    free = torch.stack([height - tall, width - wide], 1)
    corners = torch.minimum((places * (free + 1)).floor_(), free)
    corners = torch.where(found[:, None], corners, (free / 2).floor_())
    return torch.cat([corners, tall[:, None], wide[:, None]], 1).long()


def interpolation_matrices(starts: Tensor, lengths: Tensor, flips: Tensor, extent: int, size: int) -> Tensor:
    r"""Return the matrices that crop, resize (antialiased bilinear) and flip one image axis.

    With scale :math:`s = L / S`, output position :math:`i` is centred at :math:`c_i = t + s (i + 1/2)` and
    :math:`W_{ij} \propto \max(0, 1 - |j + 1/2 - c_i| / \max(s, 1))` for the pixels :math:`j` inside the crop, 0
    outside.

    Args:
        starts: First pixel of each crop, shape ``(N,)``.
        lengths: Pixels in each crop, shape ``(N,)``.
        flips: Whether to mirror the output, boolean, shape ``(N,)``.
        extent: Pixels of the input along this axis.
        size: Pixels of the output along this axis.

    Returns:
        Rows that sum to one, shape ``(N, size, extent)``.

    Example:
        >>> one = torch.ones(1)
        >>> interpolation_matrices(0 * one, 4 * one, one > 1, extent=4, size=2)
        tensor([[[0.4286, 0.4286, 0.1429, 0.0000],
                 [0.0000, 0.1429, 0.4286, 0.4286]]])
    """
    device = starts.device
    starts, lengths = starts.float()[:, None], lengths.float()[:, None]
    scale = lengths / size
    output = torch.arange(0.5, size, device=device, dtype=torch.float32)
    centres = starts + scale * torch.where(flips[:, None], size - output, output)
    pixels = torch.arange(0.5, extent, device=device, dtype=torch.float32)
    inside = ((pixels > starts) & (pixels < starts + lengths)).float()[:, None]
    slope = scale.clamp(min=1).reciprocal_().neg_()[:, :, None]
    weights = (pixels - centres[:, :, None]).abs_().mul_(slope).add_(1).clamp_(min=0).mul_(inside)
    return weights.div_(weights.sum(-1, keepdim=True))


def resized_crop(images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop each image to its own box, resize it (bilinear, antialiased) and mirror it left to right where asked.

    A crop no larger than the result needs no antialiasing: two pixels each way make one, and all such crops are one
    `grid_sample`. The others are averaged over the pixels that fall together.

    Args:
        images: Shape ``(N, C, H, W)``.
        boxes: Top, left, height and width of each crop in pixels, inside the image, shape ``(N, 4)``.
        flips: Whether to mirror each result, boolean, shape ``(N,)``.
        size: Output height and width.

    Returns:
        Shape ``(N, C, *size)``.
    """
    shrinks = (boxes[:, 2:] > torch.tensor(size, device=boxes.device)).any(1)
    if shrinks.all():  # as of no image
        return _shrunk_crop(images, boxes, flips, size)
    if not shrinks.any():
        return _enlarged_crop(images, boxes, flips, size)
    output = images.new_empty(len(images), images.shape[1], *size)
    for rows, operation in ((~shrinks, _enlarged_crop), (shrinks, _shrunk_crop)):
        index = rows.nonzero()[:, 0]
        chosen = images.index_select(0, onto(index, images.device))
        put_rows(output, index, operation(chosen, boxes[index], flips[index], size))
    return output


def _enlarged_crop(images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize crops that are at most as high and as wide as the result."""
    top, left, tall, wide = onto(boxes, images.device).unbind(1)
    flips = onto(flips, images.device)
    lines = _sampled_places(top, tall, torch.zeros_like(flips), images.shape[2], size[0])
    columns = _sampled_places(left, wide, flips, images.shape[3], size[1])
    places = torch.stack([columns[:, None].expand(-1, size[0], -1), lines[:, :, None].expand(-1, -1, size[1])], 3)
    return F.grid_sample(images, places, "bilinear", "border", align_corners=False)


def _sampled_places(starts: Tensor, lengths: Tensor, flips: Tensor, extent: int, size: int) -> Tensor:
    """Return where the pixels of the result lie along one axis, from -1 to 1 over the image, ``(N, size)``."""
    output = torch.arange(0.5, size, device=starts.device, dtype=torch.float32)
    inside = torch.where(flips[:, None], size - output, output) * (lengths[:, None] / size)
    inside = torch.minimum(inside.clamp_(min=0.5), lengths[:, None] - 0.5)  # a crop ends at its last pixel's centre
    return inside.add_(starts[:, None] - extent / 2).mul_(2 / extent)


def _shrunk_crop(images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize crops of any size.

    Small images, and all images on a GPU, go through two batched matrix products, :math:`W_y X W_x^T`; at large sizes
    on a CPU the matrices are mostly zeros and a loop over torch's native resize is faster.
    """
    count, channels, height, width = images.shape
    if images.device.type == "cpu" and max(height, width, *size) >= _NATIVE_RESIZE_FROM:
        output = images.new_empty(count, channels, *size)
        rows = zip(output, images, boxes.tolist(), flips.tolist(), strict=True)
        for row, image, (top, left, tall, wide), flip in rows:
            crop = image[None, :, top : top + tall, left : left + wide]
            resized = F.interpolate(crop, size, mode="bilinear", align_corners=False, antialias=True)[0]
            row.copy_(resized.flip(-1) if flip else resized)
        return output
    top, left, tall, wide = onto(boxes, images.device).unbind(1)
    flips = onto(flips, images.device)
    columns = interpolation_matrices(left, wide, flips, width, size[1])
    lines = interpolation_matrices(top, tall, torch.zeros_like(flips), height, size[0])
    squeezed = torch.bmm(images.reshape(count, channels * height, width), columns.mT)  # (N, C H, size[1])
    return torch.matmul(lines[:, None], squeezed.view(count, channels, height, size[1]))


def put_rows(images: Tensor, index: Tensor, rows: Tensor) -> None:
    """Copy rows to their positions, as `index_copy_` does, which on a CPU takes three times as long.

    Args:
        images: Changed in place, shape ``(N, ...)``.
        index: Different positions in it, on the CPU, shape ``(M,)``.
        rows: Shape ``(M, ...)``.
    """
    if images.device.type != "cpu":
        images.index_copy_(0, onto(index, images.device), rows)
    elif len(index):
        places = images.unbind()
        torch._foreach_copy_([places[position] for position in index.tolist()], list(rows.unbind()))


def luminance(images: Tensor) -> Tensor:
    """Return the luminance ``(N, 1, H, W)`` of colour images; gray ones are their own luminance."""
    if images.shape[1] == 1:
        return images
    red, green, blue = LUMINANCE
    return (images[:, :1] * red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:], alpha=blue)


def grayscale(images: Tensor) -> Tensor:
    """Replace each pixel by its luminance, keeping the number of channels."""
    return luminance(images).repeat(1, images.shape[1], 1, 1)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with black: ``clamp(f x, 0, 1)``, with factors of shape ``(N,)``, 0 or more.

    Example:
        >>> adjust_brightness(torch.full((2, 1, 1, 1), 0.4), torch.tensor([0.5, 3.0])).flatten()
        tensor([0.2000, 1.0000])
    """
    return _brighten_(images.clone(), onto(factors, images.device))


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean luminance ``g``: ``clamp(f x + (1 - f) g, 0, 1)``, with factors as for brightness.

    Example:
        >>> adjust_contrast(torch.tensor([0.25, 0.75]).view(1, 1, 1, 2), torch.tensor([0.5])).flatten()
        tensor([0.3750, 0.6250])
    """
    return _contrast_(images.clone(), onto(factors, images.device))


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each pixel with its luminance ``g``: ``clamp(f x + (1 - f) g, 0, 1)``; gray images come back as they are.

    Example:
        >>> adjust_saturation(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), torch.tensor([0.0])).flatten()
        tensor([0.2989, 0.2989, 0.2989])
    """
    return _saturate_(images.clone(), onto(factors, images.device))


def adjust_hue(images: Tensor, factors: Tensor) -> Tensor:
    r"""Turn the hue of each image; gray images come back as they are.

    With :math:`m`, :math:`M` the smallest and largest channel, :math:`d = M - m`, and the hue angle :math:`a \in
    [-1/2, 1/2]` in turns from cyan, :math:`|a| = 1/3 + (r - g - b + m) / 6 d` with the sign of :math:`b - g`.
    This is HSV without its case distinctions. After :math:`u = a + f + 1/2`, brought back to [0, 1],

    .. math:: r = m - d + 6 d\,[|u - 1/2|]_{1/6}^{1/3}, \quad g = m + 2 d - 6 d\,[|u - 1/3|]_{1/6}^{1/3}, \quad
        b = m + 2 d - 6 d\,[|u - 2/3|]_{1/6}^{1/3}.

    Args:
        images: Shape ``(N, C, H, W)``, in [0, 1].
        factors: :math:`f`, turns of the colour circle, in [-0.5, 0.5], shape ``(N,)``.

    Returns:
        Shape ``(N, C, H, W)``, in [0, 1].

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round(decimals=4)  # a third of a turn from red is green
        tensor([0., 1., 0.])
    """
    return _turn_hue_(images.clone(), onto(factors, images.device))


def color_jitter_(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Adjust brightness, contrast, saturation and hue in place, each sample by its own factors and in its own order.

    Neighbours that turn the hue at the same step go together. Where they also agree in another step, it is that
    operation, else a `_blend_`, which serves all three and takes longer: sort the samples by `jitter_rank` for speed.

    Args:
        images: Changed, shape ``(N, C, H, W)``, in [0, 1].
        factors: Brightness, contrast, saturation and hue, shape ``(N, 4)``.
        orders: Each row a permutation of `BRIGHTNESS`, `CONTRAST`, `SATURATION`, `HUE`: first to last, shape ``(N,
            4)``.

    Returns:
        The images, in [0, 1].
    """
    ordered = factors.gather(1, orders)
    rest = 1 - ordered
    weights = torch.stack([ordered, rest * (orders == CONTRAST), rest * (orders == SATURATION)])
    weights = onto(weights, images.device)
    _, counts = torch.unique_consecutive(orders.argmax(1), return_counts=True)  # HUE is the largest number
    start = 0
    for count in counts.tolist():
        rows = slice(start, start := start + count)
        kinds = zip(orders[rows].amin(0).tolist(), orders[rows].amax(0).tolist(), strict=True)
        for (kind, last), step in zip(kinds, weights[:, rows].permute(2, 0, 1), strict=True):
            if kind == last:
                _JITTERS[kind](images[rows], step[0])
            else:
                _blend_(images[rows], *step)
    return images


def jitter_rank(orders: Tensor) -> Tensor:
    """Return numbers ``(N,)`` that sort samples so that `color_jitter_` finds like orders side by side."""
    place = orders.argsort(1)  # of each operation: the hue's first
    return (place.flip(1) * torch.tensor([64, 16, 4, 1], device=orders.device)).sum(1)


def _brighten_(images: Tensor, factors: Tensor) -> Tensor:
    return images.mul_(factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def _contrast_(images: Tensor, factors: Tensor) -> Tensor:
    mean = luminance(images.mean((2, 3), keepdim=True))
    return images.sub_(mean).mul_(factors.view(-1, 1, 1, 1)).add_(mean).clamp_(0, 1)


def _saturate_(images: Tensor, factors: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    factors = factors.view(-1, 1, 1, 1)
    gray = luminance(images).mul_(1 - factors)
    return images.mul_(factors).add_(gray).clamp_(0, 1)


def _blend_(images: Tensor, factors: Tensor, mean_weights: Tensor, gray_weights: Tensor) -> Tensor:
    r"""Make of each image :math:`[f x + u \bar g + v g]_0^1` with luminance :math:`g`, its mean :math:`\bar g`, weights ``(N,)``.

    Brightness, contrast and saturation are all :math:`f x + (1 - f) b` with :math:`b` black, mean luminance or
    luminance: one pass serves samples that are at different ones of the three.
    """  # noqa: E501
    gray = luminance(images)
    mean = gray.mean((1, 2, 3)).mul_(mean_weights).view(-1, 1, 1, 1)
    base = gray.mul(gray_weights.view(-1, 1, 1, 1)).add_(mean)
    return images.mul_(factors.view(-1, 1, 1, 1)).add_(base).clamp_(0, 1)


def _turn_hue_(images: Tensor, factors: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green)
    span = torch.maximum(red, green)
    torch.maximum(span, blue, out=span)
    torch.minimum(low, blue, out=low)
    span.sub_(low)
    turn = (red - green).sub_(blue - low)  # exactly 0 for a gray pixel, whatever its rounding
    slope = (span * 6).clamp_(min=_TINY)
    turn.div_(slope).add_(1 / 3).copysign_(blue.sub_(green)).add_((factors + 1.5).view(-1, 1, 1)).frac_()
    torch.addcmul(low - span, slope, _hat(turn - 1 / 2), out=red)
    low.add_(span, alpha=2)
    torch.addcmul(low, slope, _hat(turn - 1 / 3), value=-1, out=green)
    torch.addcmul(low, slope, _hat(turn.sub_(2 / 3)), value=-1, out=blue)
    return images


def _hat(distances: Tensor) -> Tensor:
    return distances.abs_().clamp_(1 / 6, 1 / 3)


_JITTERS = (_brighten_, _contrast_, _saturate_, _turn_hue_)  # by number


def gaussian_blur(images: Tensor, sigmas: Tensor, kernel_size: int) -> Tensor:
    r"""Blur each image with its own Gaussian, reflecting at the border.

    Tap :math:`t` weighs :math:`\exp(-t^2 / 2 \sigma^2)`, normalised. Down the rows, then along the columns,
    `_BLUR_BLOCK` outputs at a time are one product with a band matrix, which repeats from block to block.

    Args:
        images: Shape ``(N, C, H, W)``.
        sigmas: Standard deviations in pixels, positive, shape ``(N,)``.
        kernel_size: Taps, odd, less than twice the smaller side of the images.

    Returns:
        Shape ``(N, C, H, W)``.
    """
    reach = kernel_size // 2
    taps = (torch.arange(kernel_size, device=images.device) - reach) ** 2
    kernels = torch.softmax(taps / (-2 * onto(sigmas, images.device)[:, None] ** 2), 1)  # (N, kernel_size)
    kernels = kernels * (kernels > _TINY)  # a CPU takes ten times as long over numbers near the smallest of float32
    block = min(_BLUR_BLOCK, max(images.shape[2:]))
    count, channels = images.shape[:2]
    band = images.new_zeros(count, block, block + kernel_size - 1)
    band.as_strided((count, block, kernel_size), (band.stride(0), band.stride(1) + 1, 1)).copy_(kernels[:, None])
    band = band.repeat_interleave(channels, 0)
    padded = F.pad(images, (0, 0, reach, reach), mode="reflect").flatten(0, 1)
    blurred = torch.empty_like(padded[:, : images.shape[2]])
    for rows in _blocks(images.shape[2], block):
        taken = padded[:, rows.start : rows.stop + kernel_size - 1]
        blurred[:, rows] = torch.bmm(band[:, : rows.stop - rows.start, : taken.shape[1]], taken)
    padded = F.pad(blurred, (reach, reach, 0, 0), mode="reflect")
    for columns in _blocks(images.shape[3], block):
        taken = padded[..., columns.start : columns.stop + kernel_size - 1]
        blurred[..., columns] = torch.bmm(taken, band[:, : columns.stop - columns.start, : taken.shape[2]].mT)
    return blurred.view_as(images)


def _blocks(extent: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, extent)) for start in range(0, extent, block)]


def solarize(images: Tensor) -> Tensor:
    """Invert the pixels at or above one half, 128 in uint8.

    Example:
        >>> solarize(torch.tensor([0.25, 0.5, 0.75]).view(1, 1, 1, 3)).flatten()
        tensor([0.2500, 0.5000, 0.2500])
    """
    return torch.minimum(
        images, 1 - images
    )  # what the threshold amounts to; `torch.where` is ten times slower on a CPU
