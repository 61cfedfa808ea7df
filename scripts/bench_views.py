"""Compare the batched views with lightly's `SimCLRTransform`, side by side in one run.

    python scripts/bench_views.py

Both follow one recipe: crops of 0.2 to 1 of the area, flips, colour jitter of strength 0.5, grayscale 0.2,
normalised, without and with blur (probability 0.5), two float32 views of each image. lightly works as its dataset
would on one process: image by image, from PIL images to tensors; gray images it gets in three channels, as it makes
of them. Ours works on uint8 batches on the CPU. Everything is warmed up first, then timed in turns; the table gives
medians over the repetitions and the ratio of the medians. The kernels of the blurs differ: ours has about a tenth
of the image, lightly's PIL one has no limit.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import lightly
import torch
import torchvision
from lightly.transforms import SimCLRTransform
from torchvision.transforms.v2.functional import to_pil_image

from ssl_lightning.transforms.image import SimCLRViews

CASES = {8: (3, (256,)), 28: (1, (256,)), 32: (3, (128, 256, 512)), 96: (3, (64,)), 224: (3, (32,))}


def time_once(run: Callable[[], object], repeats: int) -> float:
    """Return the seconds that one call takes, on average over `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def make_case(
    size: int, channels: int, batch: int, blur: float
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Return our run, lightly's run, and how many images lightly's covers."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, channels, size, size), dtype=torch.uint8, generator=generator)
    ours = SimCLRViews(size=size, strength=0.5, blur=blur)
    theirs = SimCLRTransform(input_size=size, cj_strength=0.5, min_scale=0.2, gaussian_blur=blur)
    pictures = [to_pil_image(image.expand(3, -1, -1)) for image in images[: min(batch, 16 if size > 64 else 64)]]
    return lambda: ours(images, generator), lambda: [theirs(picture) for picture in pictures], len(pictures)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(CASES), choices=list(CASES), help="pixels")
    parser.add_argument("--repetitions", type=int, default=15, help="timings of each case; their median is printed")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightly {lightly.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {arguments.repetitions} repetitions"
    )
    keys = [
        (size, CASES[size][0], batch, blur)
        for size in arguments.sizes
        for batch in CASES[size][1]
        for blur in (0.0, 0.5)
    ]
    cases = {key: make_case(*key) for key in keys}
    for ours, theirs, _ in cases.values():
        for _ in range(2):
            ours()
        theirs()
    speeds: dict[tuple[int, int, int, float], list[tuple[float, float]]] = {key: [] for key in keys}
    for _ in range(arguments.repetitions):
        for key, (ours, theirs, pictures) in cases.items():
            repeats = 3 if key[0] <= 32 else 1
            speeds[key].append((2 * key[2] / time_once(ours, repeats), 2 * pictures / time_once(theirs, 1)))
    print(f"{'size':>5} {'channels':>8} {'batch':>5} {'blur':>4} {'ours, views/s':>13} {'lightly':>8} {'ratio':>6}")
    for (size, channels, batch, blur), pairs in speeds.items():
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{size:5} {channels:8} {batch:5} {blur:4} {mine:13,.0f} {other:8,.0f} {mine / other:6.1f}")


if __name__ == "__main__":
    main()
