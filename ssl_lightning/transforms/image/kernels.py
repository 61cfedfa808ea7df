"""Random views on a CPU: compiled code that makes one view after the other, each within a core's cache.

What it computes is what the operations of `functional` compute, which serve other devices, up to float32 rounding.
numba compiles it when it is first called, in about ten seconds, and keeps the result for other processes.
"""

import itertools
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_lightning.engine.compiled import compiled
from ssl_lightning.engine.processes import first_process
from ssl_lightning.transforms.image.functional import LUMINANCE

Floats = npt.NDArray[np.float32]
Wholes = npt.NDArray[Any]
_ALONE = 2**16  # pixel values below which one thread is as fast as several
_RED, _GREEN, _BLUE = (np.float32(weight) for weight in LUMINANCE)
_LEAST = np.float32(1e-20)
_FAST = {"reassoc", "contract", "nnan", "ninf", "nsz", "arcp"}
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SIXTH, _THIRD, _THIRDS = np.float32(1 / 6), np.float32(1 / 3), np.float32(2 / 3)


_compiled = partial(compiled, fast=_FAST)


@_compiled
def _clamped(value: Any) -> Any:
    value = value if value > _ZERO else _ZERO
    return value if value < _ONE else _ONE


@_compiled
def _hat(distance: Any) -> Any:
    distance = abs(distance)
    distance = distance if distance > _SIXTH else _SIXTH
    return distance if distance < _THIRD else _THIRD


@_compiled
def _taps(length: int, size: int, first: Wholes, weights: Floats) -> int:
    """Write which pixels make each output pixel, `(size,)`, and how much, `(most, size)`; return how many at most."""
    scale = length / size
    reach = max(scale, 1.0)
    most = 0
    for place in range(size):
        centre = scale * (place + 0.5)
        low = max(0, math.floor(centre - reach + 0.5))
        high = min(length - 1, math.ceil(centre + reach - 0.5))
        while low < high and abs(low + 0.5 - centre) >= reach:
            low += 1
        while high > low and abs(high + 0.5 - centre) >= reach:
            high -= 1
        low = min(low, length - 1)
        total = 0.0
        for pixel in range(low, high + 1):
            total += 1 - abs(pixel + 0.5 - centre) / reach
        for tap in range(weights.shape[0]):
            pixel = low + tap
            weight = (1 - abs(pixel + 0.5 - centre) / reach) / total if pixel <= high else 0.0
            weights[tap, place] = weight
        first[place] = low
        most = max(most, high - low + 1)
    return most


@_compiled
def _add_up(base: Any, offsets: Wholes, weights: Floats, count: int, unit: Any, goal: Floats) -> None:
    """Write the weighted sum of `count` stretches of a flat array, by fours; offsets and weights are 0 beyond them."""
    size = np.uint64(goal.size)
    a, b = offsets[0], offsets[1]
    p, q = weights[0] * unit, weights[1] * unit
    if count <= 2:
        for x in range(size):
            goal[x] = p * base[a + x] + q * base[b + x]
        return
    c, d = offsets[2], offsets[3]
    r, s = weights[2] * unit, weights[3] * unit
    for x in range(size):
        goal[x] = p * base[a + x] + q * base[b + x] + r * base[c + x] + s * base[d + x]
    for tap in range(4, count, 4):
        a, b, c, d = offsets[tap], offsets[tap + 1], offsets[tap + 2], offsets[tap + 3]
        p, q, r, s = weights[tap] * unit, weights[tap + 1] * unit, weights[tap + 2] * unit, weights[tap + 3] * unit
        for x in range(size):
            goal[x] += p * base[a + x] + q * base[b + x] + r * base[c + x] + s * base[d + x]


@_compiled
def _crop(image: Any, box: Wholes, flip: bool, unit: Any, view: Floats, scratch: Any) -> None:
    """Crop, resize and mirror an image into a view."""
    line, lines, line_weights, columns, column_weights, offsets, weights = scratch
    _, height, width = view.shape
    top, left, tall, wide = box[0], box[1], box[2], box[3]
    extent, broad = image.shape[1] - 1, image.shape[2]
    deep = _taps(tall, height, lines, line_weights)
    across = _taps(wide, width, columns, column_weights)
    if flip:
        for x in range(width // 2):
            other = width - 1 - x
            columns[x], columns[other] = columns[other], columns[x]
            for tap in range(across):
                weights_of = column_weights[tap]
                weights_of[x], weights_of[other] = weights_of[other], weights_of[x]
    for x in range(wide, len(line)):  # weighed by 0
        line[x] = _ZERO
    for channel in range(len(view)):
        base = image[channel].reshape(-1)
        for y in range(height):
            for tap in range(deep):
                offsets[tap] = min(top + lines[y] + tap, extent) * broad + left
                weights[tap] = line_weights[tap, y]
            for tap in range(deep, min(deep + 3, len(offsets))):
                offsets[tap] = 0
                weights[tap] = _ZERO
            _add_up(base, offsets, weights, deep, unit, line[:wide])
            row = view[channel, y]
            first, second = column_weights[0], column_weights[1]
            for x in range(width):
                row[x] = first[x] * line[columns[x]] + second[x] * line[columns[x] + 1]
            for tap in range(2, across, 2):
                first, second = column_weights[tap], column_weights[tap + 1]
                for x in range(width):
                    row[x] += first[x] * line[columns[x] + tap] + second[x] * line[columns[x] + tap + 1]


@_compiled
def _scale_(view: Floats, factor: Any) -> None:
    flat = view.reshape(-1)
    for place in range(flat.size):
        flat[place] = _clamped(flat[place] * factor)


@_compiled
def _contrast_(view: Floats, factor: Any) -> None:
    flat = view.reshape(view.shape[0], -1)
    mean = _ZERO
    for channel in range(flat.shape[0]):
        plane = flat[channel]
        total = _ZERO
        for place in range(plane.size):
            total += plane[place]
        share = _ONE if flat.shape[0] == 1 else (_RED if channel == 0 else (_GREEN if channel == 1 else _BLUE))
        mean += share * (total / np.float32(plane.size))
    base = (_ONE - factor) * mean
    every = view.reshape(-1)
    for place in range(every.size):
        every[place] = _clamped(every[place] * factor + base)


@_compiled
def _saturate_(view: Floats, factor: Any) -> None:
    flat = view.reshape(3, -1)
    red, green, blue = flat[0], flat[1], flat[2]
    rest = _ONE - factor
    for place in range(red.size):
        r, g, b = red[place], green[place], blue[place]
        base = rest * (_RED * r + _GREEN * g + _BLUE * b)
        red[place] = _clamped(r * factor + base)
        green[place] = _clamped(g * factor + base)
        blue[place] = _clamped(b * factor + base)


@_compiled
def _turn_hue_(view: Floats, factor: Any) -> None:
    flat = view.reshape(3, -1)
    red, green, blue = flat[0], flat[1], flat[2]
    shift = factor + np.float32(1.5)
    for place in range(red.size):
        r, g, b = red[place], green[place], blue[place]
        low = r if r < g else g
        low = low if low < b else b
        high = r if r > g else g
        high = high if high > b else b
        span = high - low
        slope = span * np.float32(6)
        slope = slope if slope > _LEAST else _LEAST
        turn = ((r - g) - (b - low)) / slope + _THIRD
        turn = abs(turn)
        turn = (turn if b >= g else -turn) + shift
        turn = turn - _ONE if turn >= _ONE else turn
        turn = turn - _ONE if turn >= _ONE else turn
        light = low + span + span
        red[place] = low - span + slope * _hat(turn - _HALF)
        green[place] = light - slope * _hat(turn - _THIRD)
        blue[place] = light - slope * _hat(turn - _THIRDS)


@_compiled
def _gray_(view: Floats) -> None:
    flat = view.reshape(3, -1)
    red, green, blue = flat[0], flat[1], flat[2]
    for place in range(red.size):
        gray = _RED * red[place] + _GREEN * green[place] + _BLUE * blue[place]
        red[place] = gray
        green[place] = gray
        blue[place] = gray


@_compiled
def _mirrored(place: int, size: int) -> int:
    """Return where a place outside an axis is reflected to."""
    place = -place if place < 0 else place
    return 2 * (size - 1) - place if place >= size else place


@_compiled
def _blur_(
    view: Floats, sigma: Any, reach: int, offsets: Wholes, weights: Floats, padded: Floats, plane: Floats
) -> None:
    """Blur a view by a Gaussian of `2 reach + 1` taps, reflecting at the rims."""
    channels, height, width = view.shape
    total = 0.0
    for tap in range(-reach, reach + 1):
        total += math.exp(-tap * tap / (2.0 * sigma * sigma))
    while reach > 0 and math.exp(-reach * reach / (2.0 * sigma * sigma)) < 1e-9 * total:
        reach -= 1
    count = 2 * reach + 1
    for tap in range(len(weights)):
        offsets[tap], weights[tap] = 0, _ZERO
    for tap in range(count):
        weights[tap] = math.exp(-((tap - reach) ** 2) / (2.0 * sigma * sigma)) / total
    for channel in range(channels):
        base = view[channel].reshape(-1)
        for y in range(height):
            for tap in range(count):
                offsets[tap] = _mirrored(y + tap - reach, height) * width
            _add_up(base, offsets, weights, count, _ONE, plane[y])
        for tap in range(count):
            offsets[tap] = tap
        for y in range(height):
            for x in range(width):
                padded[reach + x] = plane[y, x]
            for x in range(1, reach + 1):
                padded[reach - x] = plane[y, _mirrored(-x, width)]
                padded[reach + width - 1 + x] = plane[y, _mirrored(width - 1 + x, width)]
            _add_up(padded, offsets, weights, count, _ONE, view[channel, y])


@_compiled
def _make(
    images: Any, sources: Wholes, boxes: Wholes, flips: Wholes, jitters: Wholes, factors: Floats, orders: Wholes,
    grays: Wholes, blurs: Wholes, sigmas: Floats, solarizes: Wholes, kernel_size: int, unit: Any, mean: Floats,
    std: Floats, views: Floats,
) -> None:  # fmt: skip
    """Write the view of each sample; arguments as those of `make_views`."""
    _, channels, height, width = views.shape
    tall, wide = images.shape[2], images.shape[3]
    reach = kernel_size // 2
    deep, across = 2 * (tall // height) + 4, 2 * (wide // width) + 4
    line, padded = np.empty(wide + across + 2, np.float32), np.empty(width + 2 * reach, np.float32)
    plane = np.empty((height, width), np.float32)
    lines, line_weights = np.empty(height, np.uint32), np.empty((deep, height), np.float32)
    columns, column_weights = np.empty(width, np.uint32), np.empty((across, width), np.float32)
    most = max(deep, kernel_size) + 3
    offsets, weights = np.empty(most, np.uint64), np.empty(most, np.float32)
    scratch = line, lines, line_weights, columns, column_weights, offsets, weights
    for number in range(len(views)):
        view = views[number]
        _crop(images[sources[number]], boxes[number], flips[number], unit, view, scratch)
        if jitters[number]:
            for kind in orders[number]:
                factor = factors[number, kind]
                if kind == 0:
                    _scale_(view, factor)
                elif kind == 1:
                    _contrast_(view, factor)
                elif channels == 3:
                    if kind == 2:
                        _saturate_(view, factor)
                    else:
                        _turn_hue_(view, factor)
        if grays[number] and channels == 3:
            _gray_(view)
        if blurs[number]:
            _blur_(view, sigmas[number], reach, offsets, weights, padded, plane)
        inverted = solarizes[number]
        for channel in range(channels):
            flat = view[channel].reshape(-1)
            middle, scale = mean[channel], _ONE / std[channel]
            for place in range(flat.size):
                value = _clamped(flat[place])  # weights sum to 1 but for rounding
                if inverted:
                    value = value if value < _ONE - value else _ONE - value
                flat[place] = (value - middle) * scale


@contextmanager
def _told_if_slow() -> Iterator[None]:
    """Say what takes so long, if it does."""
    what = "compiling the random views for this processor; once for an installation, and some ten seconds"
    timer = threading.Timer(3, print, (what,), {"flush": True})
    timer.daemon = True
    if first_process():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _require_within(parameters: tuple[Tensor, ...], extent: torch.Size) -> None:
    """Refuse what would make compiled code read beyond its arrays, which it does not look after."""
    boxes, orders = parameters[0], parameters[4]
    corners, sides = boxes[:, :2], boxes[:, 2:]
    wrong = ((corners < 0) | (sides < 1) | (corners + sides > torch.tensor(extent))).any(1)
    if wrong.any():
        raise ValueError(
            f"`boxes` {boxes[wrong][0].tolist()}, top, left, height and width, must be within the images of "
            f"{extent[0]} x {extent[1]} px."
        )
    if ((orders < 0) | (orders > 3)).any():
        raise ValueError(f"`orders` must be numbers from 0 to 3, got {int(orders.min())} to {int(orders.max())}.")
    if len(lengths := {len(values) for values in parameters}) > 1:
        raise ValueError(f"the parameters must have one row for each view; they have {sorted(lengths)}.")


def make_views(
    images: Tensor, parameters: tuple[Tensor, ...], size: tuple[int, int], kernel_size: int, ends: tuple[Tensor, Tensor]
) -> Tensor:
    """Make the views that parameters describe, on as many threads as torch has.

    Args:
        images: On the CPU, uint8, or float in [0, 1], ``(M, C, H, W)``.
        parameters: Those of `ViewParameters`, with ``N`` rows; row ``i`` is of image ``i`` modulo ``M``.
        size: Height and width of the views.
        kernel_size: Taps of the blur, odd, less than twice the smaller side.
        ends: What is subtracted and divided by at the end, ``(C,)`` each.

    Returns:
        float32, shape ``(N, C, *size)``.

    Raises:
        ValueError: If a box is not within the images, an order is none, or there are not as many of each.
    """
    _require_within(parameters, images.shape[2:])
    count = len(parameters[0])
    unit = np.float32(1 if images.is_floating_point() else 1 / 255)
    pixels = (images.float() if images.is_floating_point() else images).detach().contiguous().numpy()
    views = torch.empty(count, images.shape[1], *size)
    rows = [torch.arange(count) % len(images), *parameters]
    told = [values.float() if values.is_floating_point() else values for values in rows]
    arrays = [values.contiguous().numpy() for values in told]
    mean, std = (values.numpy() for values in ends)

    def some(start: int, stop: int) -> None:
        mine = [values[start:stop] for values in arrays]
        _make(pixels, *mine, kernel_size, unit, mean, std, views.numpy()[start:stop])

    threads = max(1, min(torch.get_num_threads() if views.numel() > _ALONE else 1, count))
    if not _make.signatures:  # compiled, or fetched, now
        with _told_if_slow():
            some(0, 0)
    parts = list(itertools.pairwise(count * thread // threads for thread in range(threads + 1)))
    with ThreadPoolExecutor(threads) as pool:
        others = [pool.submit(some, *part) for part in parts[1:]]
        some(*parts[0])
        for other in others:
            other.result()
    return views
